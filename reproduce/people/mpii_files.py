"""MPII Human Pose: ``mpii_human_pose_v1_u12_1.mat`` with all its gaps, images, and Tompson's
validation split.

People without ``annopoints`` are passed over. ``is_visible`` may be a number, a character, empty or
missing (missing and empty count as visible). Short lists of points are padded to 16 joints for the
person itself, not for the others in the image; so are empty ones, of which nothing is recorded.

Source: genJSON of the CPM release (recorded output).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat import foreign
from caffe_compat.errors import DataError
from reproduce.people import matfile
from reproduce.people.annotation import Annotation, Floats, Other, counted_from_0
from reproduce.people.imagesize import image_size

JOINTS = 16
MAT = "mpii_human_pose_v1_u12_1.mat"


def _points(person: Any) -> Floats | None:
    """Joints (n, 3) up to the highest id there is, none of an empty list; None for a person without
    points."""
    holder = matfile.field(person, "annopoints")
    if holder is None:
        return None
    points = getattr(np.asarray(holder).reshape(-1)[0], "point", None)
    if points is None:
        return None
    rows: dict[int, tuple[float, float, float]] = {}
    for point in np.asarray(points).reshape(-1):
        number = matfile.number(point.id)
        x, y = matfile.number(point.x), matfile.number(point.y)
        if number is None or x is None or y is None or not 0 <= number < JOINTS:
            raise foreign.Unfit(
                f"a point has id {number}, x {x}, y {y}; expected an id from 0 to 15 and a place"
            )
        visible = matfile.number(matfile.field(point, "is_visible"))
        rows[int(number)] = (x, y, 0.0 if visible == 0 else 1.0)
    joints = np.zeros((max(rows, default=-1) + 1, 3))
    for row, values in rows.items():
        joints[row] = values
    return joints


def _other(person: Any) -> Other | None:
    joints = _points(person)
    place, scale = _objpos(person), matfile.number(matfile.field(person, "scale"))
    return (
        Other(joints, place, scale)
        if joints is not None and place is not None and scale is not None
        else None
    )


def _lacking(person: Any) -> str:
    """What a person that is passed over has not."""
    if _points(person) is None:
        return "points"
    return "centre" if _objpos(person) is None else "scale"


def _objpos(person: Any) -> Floats | None:
    place = matfile.field(person, "objpos")
    if place is None:
        return None
    place = np.asarray(place).reshape(-1)[0]
    x, y = matfile.number(matfile.field(place, "x")), matfile.number(matfile.field(place, "y"))
    return None if x is None or y is None else np.array([x, y])


def read_split(path: str | os.PathLike[str]) -> set[tuple[int, int]]:
    """(image, person), both from 1, of Tompson's validation split (``detections.mat``).

    Raises
    ------
    DataError : not such a file.
    """
    images, people = matfile.load(path, "RELEASE_img_index", "RELEASE_person_index")
    with foreign.reading(path, "validation split"):
        if images.shape != people.shape or images.dtype.kind not in "fiu":
            raise foreign.Unfit(
                f"RELEASE_img_index has the shape {images.shape}, RELEASE_person_index "
                f"{people.shape}"
            )
        return set(zip(images.ravel().tolist(), people.ravel().tolist(), strict=True))


def read(
    mat: str | os.PathLike[str],
    images: str | os.PathLike[str],
    split: set[tuple[int, int]],
    *,
    skip_missing: bool = False,
    left_out: list[str] | None = None,
    passed_over: list[str] | None = None,
) -> tuple[list[Annotation], bool | None]:
    """The training people, as the authors' script took them.

    Parameters
    ----------
    mat : the annotation file.
    images : folder of the images.
    split : which (image, person) belong to the validation split.
    skip_missing : leave out images whose file is missing.
    left_out : takes the image of each person left out.
    passed_over : takes, for each person that has no points, centre or scale, which of them.

    Returns
    -------
    Annotations, and what the script left as a last, empty record: its ``isValidation`` (None: no
    such record).

    Raises
    ------
    DataError : not such a file, a missing image.
    """
    (release,) = matfile.load(mat, "RELEASE")
    with foreign.reading(mat, "annotation file of MPII"):
        return _read_release(
            release,
            images,
            split,
            skip_missing,
            [] if left_out is None else left_out,
            [] if passed_over is None else passed_over,
        )


def _read_release(
    release: Any,
    images: str | os.PathLike[str],
    split: set[tuple[int, int]],
    skip_missing: bool,
    left_out: list[str],
    passed_over: list[str],
) -> tuple[list[Annotation], bool | None]:
    root = release.reshape(-1)[0]
    found: list[Annotation] = []
    stub: bool | None = None
    training = np.asarray(root.img_train).reshape(-1)
    for number, entry in enumerate(np.asarray(root.annolist).reshape(-1), 1):
        if not training[number - 1]:
            continue
        people = [p for p in np.asarray(entry.annorect).reshape(-1) if hasattr(p, "_fieldnames")]
        name = foreign.stay_inside(matfile.text(np.asarray(entry.image).reshape(-1)[0].name))
        try:
            made = [_other(person) for person in people]
        except foreign.Unfit as error:
            raise foreign.Unfit(f"image {number}, {name}: {error}") from None
        lacking = [_lacking(one) for one, person in zip(people, made, strict=True) if not person]
        passed_over.extend(lacking)
        size = (0, 0)
        for index, person in enumerate(made, 1):
            stub = (number, index) in split
            if person is None:
                continue
            if size == (0, 0):
                path = Path(images) / name
                if skip_missing and not path.exists():
                    left_out.extend(name for one in made if one is not None)
                    break
                size = image_size(path)
            joints = np.zeros((JOINTS, 3))
            joints[: len(person.joints)] = person.joints
            others = tuple(p for i, p in enumerate(made, 1) if p is not None and i != index)
            held_out = (number, index) in split
            found.append(
                counted_from_0(
                    Annotation(
                        image=name,
                        dataset="MPI",
                        joints=joints,
                        objpos=person.objpos,
                        scale=person.scale,
                        size=size,
                        others=others,
                        validation=held_out,
                        annolist_index=number,
                        people_index=index,
                    )
                )
            )
            stub = None
    return found, stub


def read_folder(
    root: str | os.PathLike[str],
    *,
    skip_missing: bool = False,
    left_out: list[str] | None = None,
    passed_over: list[str] | None = None,
) -> tuple[list[Annotation], bool | None]:
    """Read a folder with the annotation file, ``images/`` and ``detections.mat`` somewhere in it;
    see :func:`read`.

    Raises
    ------
    DataError : one of the two files is not there, is none of its kind, or an image is missing.
    """
    mats = sorted(Path(root).rglob(MAT)) or sorted(Path(root).rglob("mpii*release*.mat"))
    splits = sorted(Path(root).rglob("detections.mat"))
    if not mats:
        raise DataError(f"{os.fspath(root)}: no {MAT} in it (MPII Human Pose download)")
    if not splits:
        raise DataError(f"{os.fspath(root)}: no detections.mat in it (Tompson's validation split)")
    images = matfile.images_of(mats[0], root)
    split = read_split(splits[0])
    return read(
        mats[0],
        images,
        split,
        skip_missing=skip_missing,
        left_out=left_out,
        passed_over=passed_over,
    )
