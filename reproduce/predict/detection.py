"""Where people are in photographs, by OpenCV's people detector."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from reproduce.predict.boxes import Box

Image = npt.NDArray[np.uint8]

# The detector's window (width, height), and the size of the person in its middle, in pixels.
_WINDOW, _PERSON = (64, 128), (32, 96)


def detect_people(image: Image) -> list[Box]:
    """Standing people as OpenCV's HOG detector (Dalal and Triggs) sees them, the surest first.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R.

    Returns
    -------
    Boxes around the people themselves, without the detector's margin; none where the image is
    smaller than its window.

    Raises
    ------
    CaffeCompatError : OpenCV was built without that detector.
    """
    import cv2

    if not hasattr(cv2, "HOGDescriptor"):
        raise CaffeCompatError(
            f"OpenCV {cv2.__version__} was built without the HOG people detector (objdetect module)"
        )
    if image.shape[0] < _WINDOW[1] or image.shape[1] < _WINDOW[0]:
        return []
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())  # type: ignore[attr-defined]
    # The detector looks at the photograph in many sizes, which would take minutes for a large one.
    # It is reduced first; people who then are smaller than the window are not found.
    ratio = min(1.0, 800 / max(image.shape[:2]))
    small = (
        cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        if ratio < 1
        else image
    )
    if small.shape[0] < _WINDOW[1] or small.shape[1] < _WINDOW[0]:
        return []
    rectangles, weights = detector.detectMultiScale(
        small, winStride=(8, 8), padding=(16, 16), scale=1.05
    )
    if not len(rectangles):
        return []
    scores = np.asarray(weights, np.float32).ravel()
    kept = cv2.dnn.NMSBoxes([list(map(int, r)) for r in rectangles], scores.tolist(), 0.3, 0.4)
    found = []
    for i in np.asarray(kept).ravel():
        x, y, w, h = (float(v) / ratio for v in rectangles[int(i)])
        inner_w, inner_h = w * _PERSON[0] / _WINDOW[0], h * _PERSON[1] / _WINDOW[1]
        found.append((x + (w - inner_w) / 2, y + (h - inner_h) / 2, inner_w, inner_h))
    return found
