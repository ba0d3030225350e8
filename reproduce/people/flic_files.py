"""FLIC (Frames Labeled In Cinema): ``examples.mat`` and images.

Of each example's 29 coordinates the 11 that are not nan, less the eyes: both shoulders, elbows,
wrists, hips and the nose ("head"). Where the right shoulder lies right of the left one the sides
change places: observer-centric.

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
from reproduce.people.skeletons import FLIC_POINTS, PARTS_9, SKELETON_9

_WHAT = "list of FLIC's examples"
_FIELDS = ("filepath", "coords", "torsobox")
_EYES = [FLIC_POINTS.index(eye) for eye in ("Leye", "Reye")]
_LEFT, _RIGHT = PARTS_9.index("Lsho"), PARTS_9.index("Rsho")
# where each part comes from when the sides change places
_SWAP = list(range(len(PARTS_9)))
for _one, _other in SKELETON_9.flip:
    _SWAP[_one], _SWAP[_other] = _other, _one


def joints_of(example: Any) -> tuple[Floats, bool]:
    """(9, 3) x, y, visible = 1, and whether the sides were swapped.

    Raises
    ------
    Unfit : not 11 known points; names the example's image.
    """
    coords = np.asarray(example.coords, np.float64)
    known = coords[:, ~np.isnan(coords[0])] if coords.ndim == 2 and len(coords) else coords
    if known.shape != (2, len(FLIC_POINTS)):
        raise foreign.Unfit(
            f"{_called(example)} has known points of shape {known.shape}, expected 2 × "
            f"{len(FLIC_POINTS)}"
        )
    rows = np.ones((len(PARTS_9), 3))
    rows[:, :2] = np.delete(known, _EYES, axis=1).T
    swapped = bool(rows[_RIGHT, 0] > rows[_LEFT, 0])
    return (rows[_SWAP] if swapped else rows), swapped


def place_of(example: Any) -> tuple[Floats, float]:
    """objpos and scale from the torso box, in its own precision (float32 in the download).

    Raises
    ------
    Unfit : the box does not have 4 numbers; names the example's image.
    """
    box = np.asarray(example.torsobox).reshape(-1)
    if box.size != 4:
        raise foreign.Unfit(f"{_called(example)} has a torso box of {box.size} numbers, expected 4")
    kind = box.dtype.type if box.dtype.kind == "f" else np.float64
    x = (box[0] + box[2]) / kind(2)
    y = kind(0.7) * box[1] + kind(0.3) * box[3]
    return np.array([float(x), float(y)]), float(kind(0.0110) * (box[3] - box[1]))


def _called(example: Any) -> str:
    """An example in a message, by its image."""
    return f"the example of {matfile.text(example.filepath)}"


def _person(example: Any) -> Other:
    objpos, scale = place_of(example)
    return Other(joints_of(example)[0], objpos, scale)


def _is_for_training(example: Any) -> bool:
    """As the original script asks: everybody who is not for testing."""
    if hasattr(example, "istest"):
        return not matfile.number(example.istest)
    return bool(matfile.number(getattr(example, "istrain", None)))


def read_examples(mat: str | os.PathLike[str]) -> list[Any]:
    """The examples of the file, as structs.

    Raises
    ------
    DataError : not such a file; says which example lacks what.
    """
    (examples,) = matfile.load(mat, "examples")
    with foreign.reading(mat, _WHAT):
        found = list(examples.reshape(-1))
        for number, example in enumerate(found, 1):
            lacking = [name for name in _FIELDS if not hasattr(example, name)]
            if lacking:
                raise foreign.Unfit(f"example {number} has no field '{lacking[0]}'")
    return found


def read_training(
    mat: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    skip_missing: bool = False,
    left_out: list[str] | None = None,
) -> list[Annotation]:
    """The examples that are not for testing; all other examples of the same image, those for
    testing too, are the other people. Examples are numbered as they stand in the file.

    Parameters
    ----------
    mat : the list of examples.
    images : folder of the images.
    skip_missing : leave out people whose image is not there.
    left_out : takes the image of each person left out.

    Raises
    ------
    DataError : not such a file, a missing image.
    """
    examples = read_examples(mat)
    with foreign.reading(mat, _WHAT):
        names = [foreign.stay_inside(matfile.text(example.filepath)) for example in examples]
        trained = [i for i, example in enumerate(examples) if _is_for_training(example)]
        by_image: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            by_image.setdefault(name, []).append(i)
        needed = {j for i in trained for j in by_image[names[i]]}
        people = {j: _person(examples[j]) for j in sorted(needed)}
    found = []
    for i in trained:
        name, person = names[i], people[i]
        path = Path(images) / name
        if skip_missing and not path.exists():
            if left_out is not None:
                left_out.append(name)
            continue
        others = tuple(people[j] for j in by_image[name] if j != i)
        found.append(
            counted_from_0(
                Annotation(
                    image=f"images/{name}",
                    dataset="FLIC",
                    joints=person.joints,
                    objpos=person.objpos,
                    scale=person.scale,
                    size=image_size(path),
                    others=others,
                    annolist_index=i + 1,
                    people_index=1,
                )
            )
        )
    return found


def read_folder(
    root: str | os.PathLike[str],
    *,
    skip_missing: bool = False,
    left_out: list[str] | None = None,
) -> list[Annotation]:
    """Read a folder with ``examples.mat`` and ``images/``; see :func:`read_training`.

    Raises
    ------
    DataError : no ``examples.mat``, not such a file, a missing image.
    """
    mats = sorted(Path(root).rglob("*examples.mat"))
    if not mats:
        raise DataError(f"{os.fspath(root)}: no examples.mat in it (FLIC download)")
    images = matfile.images_of(mats[0], root)
    return read_training(mats[0], images, skip_missing=skip_missing, left_out=left_out)
