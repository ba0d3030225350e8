"""OpenCV whose interpolation does not depend on how it was built."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError


def use_plain_opencv() -> None:
    """IPP's bicubic differs by some grey levels; without it every OpenCV 4 gives the recorded
    pixels.

    Raises
    ------
    DataError : another OpenCV than 4.
    """
    import cv2

    if not cv2.__version__.startswith("4."):
        raise DataError(
            f"OpenCV {cv2.__version__} interpolates otherwise than the original programs did: "
            "install one of version 4 (pip install 'opencv-python-headless<5')"
        )
    if hasattr(cv2, "ipp"):
        cv2.ipp.setUseIPP(False)


def resize_cv(image: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3) resized by OpenCV's bicubic interpolation."""
    import cv2

    use_plain_opencv()
    return np.asarray(
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8
    )
