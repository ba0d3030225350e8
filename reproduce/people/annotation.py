"""One person in one image, as all readers give it and all writers take it; and the authors' JSON.

Coordinates in an :class:`Annotation` count pixels from 0. The data sets' files and the authors'
JSON and LMDB count from 1: readers end with :func:`counted_from_0`, writers begin with
:func:`counted_from_1`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat import foreign
from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write
from reproduce.people.matlab_pixels import from_matlab, to_matlab

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Other:
    """Another person in the image.

    Attributes
    ----------
    joints : (J, 3) float64: x, y, visible; see :class:`Annotation`.
    objpos : (2,) the person's centre, x, y.
    scale : the person's height / 200 px.
    """

    joints: Floats
    objpos: Floats
    scale: float


@dataclass(frozen=True)
class Annotation:
    """A person to train or test on.

    Attributes
    ----------
    image : path below the data set's image folder.
    dataset : "MPI", "LEEDS" or "FLIC" in the authors' files; any name for other data.
    joints : (J, 3) float64: x, y in 0-based pixels, visible (1, 0; whatever the data set says); a
        joint that nobody annotated stands at (-1, -1).
    objpos : (2,) the person's centre, x, y in 0-based pixels.
    scale : the person's height / 200 px.
    size : (width, height) of the image as annotated.
    validation : belongs to the validation split.
    annolist_index, people_index : the data set's own numbers, from 1.
    """

    image: str
    dataset: str
    joints: Floats
    objpos: Floats
    scale: float
    size: tuple[int, int]
    others: tuple[Other, ...] = ()
    validation: bool = False
    annolist_index: int = 0
    people_index: int = 0

    def same(self, other: Annotation) -> bool:
        """Equal in every field."""
        return (
            (
                self.image,
                self.dataset,
                self.scale,
                self.size,
                self.validation,
                self.annolist_index,
                self.people_index,
            )
            == (
                other.image,
                other.dataset,
                other.scale,
                other.size,
                other.validation,
                other.annolist_index,
                other.people_index,
            )
            and np.array_equal(self.joints, other.joints)
            and np.array_equal(self.objpos, other.objpos)
            and len(self.others) == len(other.others)
            and all(
                np.array_equal(a.joints, b.joints)
                and np.array_equal(a.objpos, b.objpos)
                and a.scale == b.scale
                for a, b in zip(self.others, other.others, strict=True)
            )
        )


def counted_from_0(annotation: Annotation) -> Annotation:
    """An annotation whose numbers are a file's, which count from 1, as this package counts."""
    return _counted(annotation, from_matlab)


def counted_from_1(annotation: Annotation) -> Annotation:
    """An annotation with the numbers that a file gets, which count from 1."""
    return _counted(annotation, to_matlab)


def _counted(annotation: Annotation, move: Callable[[Floats], Floats]) -> Annotation:
    others = tuple(
        Other(joints=move(one.joints), objpos=move(one.objpos), scale=one.scale)
        for one in annotation.others
    )
    return replace(
        annotation,
        joints=move(annotation.joints),
        objpos=move(annotation.objpos),
        others=others,
    )


# ---------------------------------------------------------------- the authors' JSON


def _number(value: float) -> str:
    return f"{value:.3f}"


def _row(values: Iterable[float]) -> str:
    return "[" + ",".join(map(_number, values)) + "]"


def _matrix(rows: Iterable[Any], tabs: int) -> str:
    pad = "\t" * tabs
    lines = [f"{pad}\t{row if isinstance(row, str) else _row(row)}" for row in rows]
    return "[\n" + ",\n".join(lines) + f"\n{pad}]"


def _joints(rows: Floats, tabs: int) -> str:
    """Joints of another person, who may have none."""
    return _matrix(rows, tabs) if len(rows) else _empty(tabs)


def _empty(tabs: int) -> str:
    pad = "\t" * tabs
    inner = (
        f'{pad}\t"_ArrayType_": "double"',
        f'{pad}\t"_ArraySize_": [0,0]',
        f'{pad}\t"_ArrayData_": null',
    )
    return "{\n" + ",\n".join(inner) + f"\n{pad}}}"


# Field order of each data set's records, as the original scripts happened to fill them in.
_ORDERS = {
    "MPI": (
        "dataset",
        "isValidation",
        "img_paths",
        "img_width",
        "img_height",
        "objpos",
        "joint_self",
        "scale_provided",
        "joint_others",
        "scale_provided_other",
        "objpos_other",
        "annolist_index",
        "people_index",
        "numOtherPeople",
    ),
    "LEEDS": (
        "dataset",
        "isValidation",
        "img_paths",
        "numOtherPeople",
        "annolist_index",
        "people_index",
        "img_width",
        "img_height",
        "joint_self",
        "objpos",
        "scale_provided",
    ),
    "FLIC": (
        "dataset",
        "isValidation",
        "img_paths",
        "numOtherPeople",
        "annolist_index",
        "people_index",
        "joint_self",
        "img_width",
        "img_height",
        "objpos",
        "scale_provided",
    ),
}
_OTHERS = ("joint_others", "scale_provided_other", "objpos_other")
# The field behind which a data set's script fills in the others, where it does so for some alone.
_OTHERS_BEHIND = {"FLIC": "joint_self"}


def _order(dataset: str, people: Sequence[Annotation]) -> tuple[str, ...]:
    """The fields of a data set's records. MATLAB gives all of them the fields that one has, in the
    order in which they were first filled in."""
    order = _ORDERS.get(dataset, _ORDERS["MPI"])
    behind = _OTHERS_BEHIND.get(dataset)
    if behind is None or not any(person.others for person in people):
        return order
    place = order.index(behind) + 1 if people[0].others else len(order)
    return (*order[:place], *_OTHERS, *order[place:])


def _fields(a: Annotation) -> dict[str, str]:
    """Every field as jsonlab would print it three tabs deep; for one other person it unwraps the
    list and indents more."""
    fields = {
        "dataset": json.dumps(a.dataset),
        "isValidation": _number(a.validation),
        "img_paths": json.dumps(a.image),
        "img_width": _number(a.size[0]),
        "img_height": _number(a.size[1]),
        "objpos": _row(a.objpos),
        "joint_self": _matrix(a.joints, 3),
        "scale_provided": _number(a.scale),
        "annolist_index": _number(a.annolist_index),
        "people_index": _number(a.people_index),
        "numOtherPeople": _number(len(a.others)),
    }
    if not a.others:
        fields.update({name: _empty(3) for name in _OTHERS})
    elif len(a.others) == 1:
        other = a.others[0]
        fields["joint_others"] = _joints(other.joints, 4)
        fields["scale_provided_other"] = _number(other.scale)
        fields["objpos_other"] = _row(other.objpos)
    else:
        fields["joint_others"] = _matrix([_joints(o.joints, 4) for o in a.others], 3)
        fields["scale_provided_other"] = _row(o.scale for o in a.others)
        fields["objpos_other"] = _matrix([o.objpos for o in a.others], 3)
    return fields


def _record(fields: dict[str, str], order: Sequence[str], single: bool) -> str:
    lines = []
    for name in order:
        tabs = 4 if single and name in ("joint_others", "objpos_other") else 3
        lines.append("\t" * tabs + f'"{name}": {fields[name]}')
    return "\t\t{\n" + ",\n".join(lines) + "\n\t\t}"


def to_json(annotations: Sequence[Annotation], *, stub: bool | None = None) -> str:
    """The authors' JSON: ``{"root": [...]}``, tabs, numbers as %.3f.

    Parameters
    ----------
    stub : the original script left a last record with nothing but ``dataset`` and ``isValidation``
        where the MPII file ends with people that have no annotation; this is its ``isValidation``,
        None for no such record.

    Source: recorded output of the original genJSON and its bundled jsonlab.
    """
    records = []
    orders = {
        name: _order(name, [a for a in annotations if a.dataset == name])
        for name in {a.dataset for a in annotations}
    }
    for a in map(counted_from_1, annotations):
        records.append(_record(_fields(a), orders[a.dataset], len(a.others) == 1))
    if stub is not None:
        order = _ORDERS["MPI"]
        fields = {name: _empty(3) for name in order}
        fields.update(dataset='"MPI"', isValidation=_number(stub))
        records.append(_record(fields, order, False))
    return '{\n\t"root": [\n' + ",\n".join(records) + "\n\t]\n}\n"


def write_json(
    path: str | os.PathLike[str], annotations: Sequence[Annotation], *, stub: bool | None = None
) -> None:
    """Write :func:`to_json` to a file, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(to_json(annotations, stub=stub).encode())


_WHOLE = ("annolist_index", "people_index")
_LARGEST = 1 << 24  # records keep these numbers as float32


def _array(value: Any, columns: int, name: str) -> Floats:
    """Rows of numbers; jsonlab's empty array becomes 0 rows."""
    if isinstance(value, dict):
        return np.zeros((0, columns))
    array = np.array(value, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a place is no finite number")
    if not array.size:
        return np.zeros((0, columns))
    if array.shape == (columns,):  # jsonlab unwraps a single row
        return array[None]
    if array.ndim != 2 or array.shape[1] != columns:
        shape = " × ".join(map(str, array.shape))
        raise ValueError(f"{name} is {shape} numbers, expected rows of {columns}")
    return array


def _others_in(record: dict[str, Any]) -> tuple[Other, ...]:
    """The other people of a record, as many as it says. jsonlab unwraps the lists of a single
    one."""
    said = float(record.get("numOtherPeople", 0))
    count = int(said)
    if count != said or count < 0:
        raise ValueError(f"numOtherPeople is {said:g}, expected a whole number from 0")
    if not count:
        for name in _OTHERS:
            one = record.get(name)
            if not isinstance(one, dict | None) and one != []:  # jsonlab's empty array is a dict
                raise ValueError(f"{name} holds somebody, but numOtherPeople is missing or 0")
        return ()
    joints, scales = record["joint_others"], record["scale_provided_other"]
    positions = _array(record["objpos_other"], 2, "objpos_other")
    if count == 1 and not isinstance(scales, list):
        joints, scales = [joints], [scales]
    elif count == 1 and len(joints) != 1:
        joints = [joints]
    if not len(joints) == len(scales) == len(positions) == count:
        raise ValueError(
            f"numOtherPeople is {count}, but the lists have {len(joints)}, {len(scales)}, "
            f"{len(positions)}"
        )
    return tuple(
        Other(_array(j, 3, "joint_others"), p, float(s))
        for j, p, s in zip(joints, positions, scales, strict=True)
    )


def from_record(record: dict[str, Any]) -> Annotation | None:
    """One record of the authors' JSON; None for the stub that the original script leaves at the
    end.

    Raises
    ------
    ValueError, KeyError, TypeError : the record is incomplete or inconsistent.
    """
    if isinstance(record["img_paths"], dict):
        return None
    scale = float(record["scale_provided"])
    joints = _array(record["joint_self"], 3, "joint_self")
    objpos = np.array(record["objpos"], np.float64).reshape(2)
    numbers = [record[name] for name in ("img_width", "img_height", *_WHOLE)]
    if not all(abs(float(number)) <= _LARGEST for number in numbers):
        raise ValueError(f"a whole number is larger than {_LARGEST:,}")
    for name in _WHOLE:
        if float(record[name]) % 1:
            raise ValueError(f"{name} is {record[name]}, expected a whole number")
    if not isinstance(record["isValidation"], int | float):  # "0" would be true
        raise ValueError(f"isValidation is {record['isValidation']!r}, expected a number")
    if not (float(record["img_width"]) >= 1 and float(record["img_height"]) >= 1):
        raise ValueError(
            f"img_width and img_height are {record['img_width']} and {record['img_height']}, "
            "expected the picture's size in pixels"
        )
    if not np.isfinite(objpos).all():
        raise ValueError("objpos is no finite number")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale_provided is {scale}, expected a positive number")
    found = Annotation(
        image=str(record["img_paths"]),
        dataset=str(record["dataset"]),
        joints=joints,
        objpos=objpos,
        scale=scale,
        size=(int(record["img_width"]), int(record["img_height"])),
        others=_others_in(record),
        validation=bool(record["isValidation"]),
        annolist_index=int(record["annolist_index"]),
        people_index=int(record["people_index"]),
    )
    return counted_from_0(found)


def read_json(path: str | os.PathLike[str]) -> list[Annotation]:
    """Read the authors' JSON (from the original scripts or from :func:`write_json`).

    Raises
    ------
    DataError : not this format; names the record and the field.
    """
    name = os.fspath(path)
    content = foreign.read_json(path, "annotation file", advice='expected {"root": [records]}')
    root = content.get("root") if isinstance(content, dict) else content
    if isinstance(root, dict):  # jsonlab unwraps a list of one
        root = [root]
    if not isinstance(root, list):
        raise DataError(f'{name}: is no annotation file: expected {{"root": [records]}}')
    found = []
    for index, record in enumerate(root):
        with foreign.reading(f"{name}: record {index}", "annotation of a person"):
            annotation = from_record(record)
        if annotation is not None:
            found.append(annotation)
    return found
