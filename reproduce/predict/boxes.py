"""Where people are in photographs, by files of boxes and of annotations.

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

from caffe_compat.errors import DataError

Box = tuple[float, float, float, float]

# MPII's annotations give a person's height in units of 200 pixels
UNIT_HEIGHT = 200.0
_FORM = "expected four numbers x, y, width, height with a positive size"
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
