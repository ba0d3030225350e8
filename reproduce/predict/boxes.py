"""Where people are in photographs: boxes files, annotations, OpenCV's people detector.

A box is x, y, width, height in 0-based pixels.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError

Box = tuple[float, float, float, float]
Image = npt.NDArray[np.uint8]

# MPII's annotations give a person's height in units of 200 pixels
UNIT_HEIGHT = 200.0
_FORM = "expected four numbers x, y, width, height with a positive size"
# the detector's window of 64×128 shows a person 96 pixels high in its middle
_WINDOW, _PERSON = (64, 128), (32, 96)
_Row = tuple[str, str, Any]  # where it stands, image, box


def read_boxes(path: str | os.PathLike[str]) -> dict[str, list[Box]]:
    """People's boxes of each image, by the name that the file gives it.

    Four forms: JSON ``{"photo.jpg": [[x, y, w, h], ...]}``; CSV with a line ``photo.jpg,x,y,w,h``
    per person, with or without a heading; the authors' annotation JSON (``cpm-export json``: a
    square of 200 scales around objpos); COCO's annotation JSON (``bbox``).

    Raises
    ------
    DataError : no such file, another form, a box without size.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: boxes cannot be read: {error}") from None
    rows = _json_rows(name, text) if name.lower().endswith(".json") else _csv_rows(name, text)
    boxes: dict[str, list[Box]] = {}
    for where, image, values in rows:
        if not isinstance(values, list) or len(values) != 4 or not all(_number(v) for v in values):
            raise DataError(f"{name}: {where}: {_FORM}, found {values!r}")
        x, y, w, h = (float(v) for v in values)
        if w <= 0 or h <= 0:
            raise DataError(f"{name}: {where}: {_FORM}, found {values!r}")
        boxes.setdefault(image, []).append((x, y, w, h))
    return boxes


def _json_rows(name: str, text: str) -> Iterator[_Row]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is no JSON: {error}") from None
    try:
        if isinstance(found, dict) and isinstance(found.get("root"), list):
            for i, record in enumerate(found["root"]):
                if record.get("img_paths"):  # the last entries of the authors' file may be empty
                    (x, y), side = record["objpos"], UNIT_HEIGHT * float(record["scale_provided"])
                    box = [float(x) - 1 - side / 2, float(y) - 1 - side / 2, side, side]
                    yield f"record {i + 1}", str(record["img_paths"]), box
            return
        if isinstance(found, dict) and "annotations" in found and "images" in found:
            names = {image["id"]: image["file_name"] for image in found["images"]}
            for annotation in found["annotations"]:
                yield (
                    f"annotation {annotation.get('id')}",
                    names[annotation["image_id"]],
                    annotation["bbox"],
                )
            return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{name}: is no annotation file: {error!r}") from None
    if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
        raise DataError(
            f'{name}: expected an object of lists: {{"photo.jpg": [[x, y, w, h], ...]}}'
        )
    for image, boxes in found.items():
        for i, box in enumerate(boxes):
            yield f"{image}, person {i + 1}", image, box


def _csv_rows(name: str, text: str) -> Iterator[_Row]:
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise DataError(f"{name}: is no CSV: {error}") from None
    for i, row in enumerate(lines):
        if row and not (i == 0 and row[1:] and not _number(row[1])):
            yield f"line {i + 1}", row[0], row[1:]


def _number(value: object) -> bool:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (ValueError, OverflowError):
        return False


def of_image(boxes: Mapping[str, list[Box]], path: str | os.PathLike[str]) -> list[Box]:
    """An image's boxes: by its path as given, by the end of the path, by its file name.

    Raises
    ------
    DataError : the file names no person in it.
    """
    whole = Path(path)
    tails = ["/".join(whole.parts[i:]) for i in range(len(whole.parts))]
    for name in (str(path), *tails):
        if name in boxes:
            return boxes[name]
    named = [found for name, found in boxes.items() if Path(name).name == whole.name]
    if len(named) == 1:
        return named[0]
    what = (
        "names no person in it"
        if not named
        else f"has {len(named)} images of this name in different folders"
    )
    raise DataError(f"{os.fspath(path)}: the boxes file {what}")


def detect_people(image: Image) -> list[Box]:
    """Standing people as OpenCV's HOG detector (Dalal and Triggs) sees them, the surest first.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R.

    Returns
    -------
    Boxes around the people themselves, without the detector's margin; none where the image is
    smaller than its window.
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
    # upright people fill the window; a large photograph is reduced, the pyramid would take minutes
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
