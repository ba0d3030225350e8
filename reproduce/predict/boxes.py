"""Where people are in photographs, by files of boxes and of annotations.

A box is x, y, width, height in 0-based pixels.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat import foreign
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.foreign import Unfit
from reproduce.people.coco_files import box_around, images_by_id, is_person, people_categories

Box = tuple[float, float, float, float]

# MPII's annotations give a person's height in units of 200 pixels
UNIT_HEIGHT = 200.0
MIN_SIDE = 8.0  # pixels; the networks see nothing of a person that is smaller
_FORM = "expected four numbers x, y, width, height with a positive size"
_WHAT = "file of boxes"
# What is left out of a heading before it is compared: the unit of pixels, and marks.
_UNIT_OR_MARK = re.compile(r"[(\[]\s*(px|pixels?)\s*[)\]]|[^a-z]")
# What a CSV file's heading may call x, y, width and height, in small letters alone.
_HEADING = (("x", "xmin", "left"), ("y", "ymin", "top"), ("w", "width"), ("h", "height"))
# Where a row stands, its image, and a call that gives its box or raises what is wrong with it.
_Row = tuple[str, str, Callable[[], Box]]


class BoxFile(dict[str, list[Box]]):
    """People's boxes of each image, by the name that a file gives it.

    Attributes
    ----------
    skipped : a line for each row that is no box.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[str] = []

    @cached_property
    def by_file_name(self) -> dict[str, list[str]]:
        """The names of the images by their last part; of a file that is read to its end."""
        return _by_file_name(self)


def read_boxes(path: str | os.PathLike[str]) -> BoxFile:
    """People's boxes of each image, by the name that the file gives it.

    Four forms: JSON ``{"photo.jpg": [[x, y, w, h], ...]}``; CSV with a line ``photo.jpg,x,y,w,h``
    per person (commas, semicolons or tabs; with or without a heading, and a score behind the box;
    a line that begins with ``#`` is a comment, and a name that does so is quoted); the authors'
    annotation JSON (``cpm-export json``: a square of 200 scales around objpos); COCO's annotation
    JSON (``bbox`` of people who are no crowd, or the box around their key points).

    Returns
    -------
    Boxes by image; a row that is no box costs that row alone and is told in ``skipped``.

    Raises
    ------
    DataError : no such file, another form, no box at all.
    """
    name = os.fspath(path)
    text = foreign.read_text(path, _WHAT)
    found = BoxFile()
    with foreign.reading(path, _WHAT):
        json_ = name.lower().endswith(".json") or text.lstrip()[:1] in ("{", "[")
        rows = _json_rows(text) if json_ else _csv_rows(text)
        for where, image, make_box in rows:
            try:
                box = make_box()
            except (TypeError, ValueError) as error:  # Unfit is one, with words of ours
                found.skipped.append(f"{name}: {where}: {error}")
            else:
                found.setdefault(image, []).append(box)
    if not found:
        raise DataError(found.skipped[0] if found.skipped else f"{name}: holds no box of a person")
    return found


def _box(values: Any) -> Box:
    """Four numbers with a positive size."""
    if not isinstance(values, list) or len(values) != 4 or not all(_number(v) for v in values):
        raise Unfit(f"{_FORM}, found {values!r}"[:200])
    x, y, w, h = (_float(v) for v in values)
    if w <= 0 or h <= 0:
        raise Unfit(f"{_FORM}, found {values!r}")
    return x, y, w, h


def checked_box(given: Any) -> Box:
    """Four numbers as a box; refuse one that is given in fractions of the picture, or too small
    for a person.

    Raises
    ------
    CaffeCompatError : says that boxes are in pixels.
    """
    try:
        numbers = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e7:
        raise CaffeCompatError(
            f"box {given!r:.100}: expected four numbers x, y, width, height in pixels"
        )
    x, y, width, height = numbers.tolist()
    box = (x, y, width, height)
    if all(0 <= value <= 1 for value in box):
        raise CaffeCompatError(
            f"box {box}: looks like fractions of the picture; give x, y, width, height in pixels"
        )
    if min(box[2:]) < MIN_SIDE:
        raise CaffeCompatError(
            f"box {box}: is smaller than {MIN_SIDE:g} pixels; give x, y, width, height in pixels"
        )
    return box


def _json_rows(text: str) -> Iterator[_Row]:
    found = foreign.parse_json(text, nan=True)
    if isinstance(found, dict) and isinstance(found.get("root"), list):
        for i, record in enumerate(found["root"]):
            where = f"record {i + 1}"
            if not isinstance(record, dict):
                yield where, "", partial(_unfit, f"is {record!r:.100}, no record of a person")
                continue
            image = record.get("img_paths")
            if image and isinstance(image, str):
                yield where, image, partial(_square, record)
            elif not isinstance(image, dict) and image != []:
                # MATLAB's empty matrix, an object or []: the last record of the authors' file
                yield where, "", partial(_unfit, f"its img_paths is {image!r:.100}, no name")
        return
    if isinstance(found, dict) and "annotations" in found and "images" in found:
        names = _names_by_id(found["images"])
        people = people_categories(found)
        for i, annotation in enumerate(found["annotations"]):
            if not isinstance(annotation, dict):
                why = f"is {annotation!r:.100}, no annotation"
                yield f"annotation {i + 1} of the list", "", partial(_unfit, why)
            elif is_person(annotation, people):
                where = f"annotation {annotation.get('id')}"
                image = annotation.get("image_id")
                name = names.get(image) if isinstance(image, int | str) else None
                if name:
                    yield where, name, partial(_coco_box, annotation)
                else:
                    lack = "not among the images" if name is None else "of one without a file_name"
                    why = f"its image_id {image!r:.100} is {lack}"
                    yield where, "", partial(_unfit, why)
        return
    if isinstance(found, list):
        raise Unfit(
            "is a list, such as COCO's results, which do not name their images; expected COCO's "
            'annotation file, or an object of lists: {"photo.jpg": [[x, y, w, h], ...]}'
        )
    if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
        raise Unfit('expected an object of lists: {"photo.jpg": [[x, y, w, h], ...]}')
    for image, boxes in found.items():
        flat = len(boxes) == 4 and all(_number(v) for v in boxes)
        for i, box in enumerate([boxes] if flat else boxes):
            yield f"{image}, person {i + 1}", image, partial(_box, box)


def _names_by_id(images: Iterable[Any]) -> dict[Any, str]:
    """File names of COCO's images by their id; "" for one that has none, which costs its
    annotations alone."""
    fit = (
        image
        for image in images
        if isinstance(image, dict) and isinstance(image.get("id"), int | float | str)
    )
    return {
        number: str(image.get("file_name") or "") for number, image in images_by_id(fit).items()
    }


def _unfit(why: str) -> Box:
    """The box of a row that has none."""
    raise Unfit(why)


def _square(record: dict[str, Any]) -> Box:
    """The square of 200 scales around a person of the authors' JSON, whose pixels count from 1."""
    scale, center = record.get("scale_provided"), record.get("objpos")
    if not (_number(scale) and isinstance(center, list) and len(center) == 2):
        raise Unfit(
            "expected a number scale_provided and two numbers objpos, found "
            f"{str(scale)[:50]} and {str(center)[:50]}"
        )
    side = UNIT_HEIGHT * _float(scale)
    return _box([*(_float(c) - 1 - side / 2 if _number(c) else c for c in center), side, side])


def _coco_box(annotation: dict[str, Any]) -> Box:
    """The ``bbox`` of a COCO annotation; around the labelled key points where it has none."""
    box = annotation.get("bbox")
    if box in (None, [], [0, 0, 0, 0]) and annotation.get("keypoints"):
        return box_around(annotation)
    return _box(box)


def _csv_rows(text: str) -> Iterator[_Row]:
    # empty lines take the place of comments, so that lines are counted as in the file
    lines = [
        "\n" if line.lstrip().startswith("#") else line for line in io.StringIO(text, newline="")
    ]
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count))
    first_row = True
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if first_row and _is_heading(cells):
            _check_heading(cells, reader.line_num)
        else:
            # a fifth number is the score of a detector
            numbers = cells[1:5] if len(cells) == 6 and _number(cells[5]) else cells[1:]
            yield f"line {reader.line_num}", cells[0], partial(_box, numbers)
        first_row = False


def _is_heading(cells: list[str]) -> bool:
    """Is there text behind the image, and none of it a number (not even ``nan``)?"""
    return any(cells[1:]) and not any(_parses(cell) for cell in cells[1:])


def _check_heading(cells: list[str], line: int) -> None:
    """Refuse columns that are not x, y, width and height: the numbers would be taken for them."""
    names = [_UNIT_OR_MARK.sub("", cell.lower()).removeprefix("bbox") for cell in cells[1:5]]
    if len(names) < 4 or any(n not in known for n, known in zip(names, _HEADING, strict=True)):
        raise Unfit(
            f"line {line}: its columns are {', '.join(cells)[:100]}; expected image, x, y, width, "
            "height, where x, y is the upper left corner"
        )


def _float(value: Any) -> float:
    return float(value.replace(",", ".") if isinstance(value, str) else value)


def _parses(text: str) -> bool:
    try:
        _float(text)
    except ValueError:
        return False
    return True


def _number(value: object) -> bool:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return False
    try:
        return bool(np.isfinite(_float(value)))
    except (ValueError, OverflowError):
        return False


def of_image(boxes: Mapping[str, list[Box]], path: str | os.PathLike[str]) -> list[Box]:
    """An image's boxes: by its path as given, by the end of the path, by its file name.

    Raises
    ------
    DataError : the file names no person in it.
    """
    name = _name_of(boxes, path)
    if name is not None:
        return boxes[name]
    count = len(_named(boxes, Path(path).name))
    what = (
        "names no person in it"
        if not count
        else f"has {count} images of this name in different folders"
    )
    raise DataError(f"{os.fspath(path)}: the boxes file {what}")


def _name_of(boxes: Mapping[str, list[Box]], path: str | os.PathLike[str]) -> str | None:
    """The name under which a file of boxes has an image; None where it has none, or several."""
    whole = Path(path)
    tails = ["/".join(whole.parts[i:]) for i in range(len(whole.parts))]
    for name in (str(path), *tails):
        if name in boxes:
            return name
    named = _named(boxes, whole.name)
    return named[0] if len(named) == 1 else None


def _named(boxes: Mapping[str, list[Box]], name: str) -> list[str]:
    """The images of this file name, in any folder."""
    if isinstance(boxes, BoxFile):
        return boxes.by_file_name.get(name, [])
    return _by_file_name(boxes).get(name, [])


def _by_file_name(boxes: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in boxes:
        found.setdefault(Path(name.replace("\\", "/")).name, []).append(name)
    return found


def uses(boxes: Mapping[str, list[Box]], paths: Iterable[str | os.PathLike[str]]) -> Counter[str]:
    """How many of the inputs each image of a file of boxes stands for."""
    names = (_name_of(boxes, path) for path in paths)
    return Counter(name for name in names if name is not None)
