"""COCO keypoints JSON, in and out, so that people can train on data of their own.

Into the 16 joints of a record (MPII order): ankles, knees, hips, wrists, elbows and shoulders are
COCO's; pelvis is the middle of the hips, thorax and upper neck the middle of the shoulders; the
head top is not annotated in COCO, so the nose stands there (the middle of the eyes where there is
none). A point that COCO does not label (v = 0) is absent: (-1, -1), not visible. objpos is the
middle of the box, scale its larger side / 200. COCO counts pixels from 0, as this package does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat import foreign
from caffe_compat.errors import DataError
from caffe_compat.files import write_json
from reproduce.people.annotation import Annotation, Floats, Other
from reproduce.people.imagesize import image_size
from reproduce.people.matlab_pixels import ABSENT, annotated
from reproduce.people.skeletons import MPII_JOINTS, joint_names

_WHAT = "COCO key-point file"
_HELD_OUT = "validation"  # mark of our own: an annotation of the validation split
_FAR = 1e7  # pixels; nothing is further away in a picture
KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
# MPII joint -> the COCO points it is the mean of
_SOURCES: dict[str, tuple[str, ...]] = {
    "Rank": ("right_ankle",),
    "Rkne": ("right_knee",),
    "Rhip": ("right_hip",),
    "Lhip": ("left_hip",),
    "Lkne": ("left_knee",),
    "Lank": ("left_ankle",),
    "pelvis": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "neck": ("left_shoulder", "right_shoulder"),
    "head": ("nose",),
    "Rwri": ("right_wrist",),
    "Relb": ("right_elbow",),
    "Rsho": ("right_shoulder",),
    "Lsho": ("left_shoulder",),
    "Lelb": ("left_elbow",),
    "Lwri": ("left_wrist",),
}


def to_joints(keypoints: Sequence[float]) -> Floats:
    """(16, 3) joints of a COCO keypoint list (17 times x, y, v)."""
    points = np.asarray(keypoints, np.float64).reshape(17, 3)
    joints = _nobody(len(MPII_JOINTS))
    for row, name in enumerate(MPII_JOINTS):
        for names in (_SOURCES[name], ("left_eye", "right_eye") if name == "head" else ()):
            chosen = points[[KEYPOINTS.index(n) for n in names]]
            if len(chosen) and (chosen[:, 2] > 0).all():
                joints[row, :2] = chosen[:, :2].mean(0)
                joints[row, 2] = float((chosen[:, 2] == 2).all())
                break
    return joints


def _nobody(count: int) -> Floats:
    """(count, 3) joints that nobody annotated."""
    joints = np.zeros((count, 3))
    joints[:, :2] = ABSENT
    return joints


def own_joints(keypoints: Sequence[float], count: int) -> Floats:
    """(K, 3) joints as the file has them: x, y and visible; absent where not labelled."""
    points = np.asarray(keypoints, np.float64).reshape(count, 3)
    joints = _nobody(count)
    labelled = points[:, 2] > 0
    joints[labelled, :2] = points[labelled, :2]
    joints[labelled, 2] = points[labelled, 2] == 2
    return joints


def keypoint_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the key points of a file's (only) category that has any.

    Raises
    ------
    DataError : none, or several categories with different key points.
    """
    return _names_in(_content(path), os.fspath(path))


def _content(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The three lists of a COCO file, as far as they are there."""
    name = os.fspath(path)
    content = foreign.read_json(path, _WHAT, nan=True)
    if isinstance(content, list):
        raise DataError(
            f"{name}: is a list (of results, perhaps); expected a COCO file with images, "
            "annotations and categories"
        )
    if not isinstance(content, dict):
        raise DataError(f"{name}: is no {_WHAT}: expected images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        rows = content.get(key, [] if key == "categories" else None)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{name}: is no {_WHAT}: it has no list '{key}'")
    return content


def _names_in(content: dict[str, Any], name: str) -> tuple[str, ...]:
    with foreign.reading(name, _WHAT):
        rows = [c["keypoints"] for c in content.get("categories", ()) if c.get("keypoints")]
        found = {tuple(map(str, row)) for row in rows}
    if len(found) != 1:
        raise DataError(
            f"{name}: expected one list of keypoints in its categories, found {len(found)}"
        )
    return found.pop()


def people_categories(content: dict[str, Any]) -> set[Any] | None:
    """Ids of the categories that are people, or have COCO's key points; None where the file names
    no categories, so that all may be."""
    rows = content.get("categories") or []
    people = {c.get("id") for c in rows if str(c.get("name", "")).lower() == "person"}
    people |= {c.get("id") for c in rows if tuple(c.get("keypoints") or ()) == KEYPOINTS}
    if not people:
        people = {c.get("id") for c in rows if c.get("keypoints")}
    return people if rows else None


def _check_names(content: dict[str, Any], people: set[Any]) -> None:
    """Raise where people have other key points than COCO's, or in another order."""
    for category in content.get("categories") or ():
        names = [re.sub(r"[ -]", "_", str(n).lower()) for n in category.get("keypoints") or ()]
        if category.get("id") not in people or not names:
            continue
        for place, (name, expected) in enumerate(zip_longest(names, KEYPOINTS, fillvalue="none")):
            if name != expected:
                raise foreign.Unfit(
                    f"its people's key point {place} is {name}, COCO's is {expected}; "
                    "cpm-export json coco --own-keypoints takes those that the file names"
                )


def images_by_id(images: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Images of a COCO file by their id.

    Raises
    ------
    Unfit : two images of different names have one id.
    """
    found: dict[Any, dict[str, Any]] = {}
    for image in images:
        other = found.setdefault(image["id"], image)
        if other.get("file_name") != image.get("file_name"):
            raise foreign.Unfit(
                f"two images have the id {image['id']!r}: {other.get('file_name')} and "
                f"{image.get('file_name')}; an annotation's image_id cannot tell which it means"
            )
    return found


def is_person(entry: dict[str, Any], people: set[Any] | None) -> bool:
    """Is an annotation one person, and neither a crowd nor of another category?"""
    return not entry.get("iscrowd") and (
        people is None or "category_id" not in entry or entry["category_id"] in people
    )


def _person(entry: dict[str, Any], own: int | None) -> Other:
    count = len(KEYPOINTS) if own is None else own
    points = _points(entry, count)
    flat = points.ravel().tolist()
    joints = to_joints(flat) if own is None else own_joints(flat, own)
    x, y, width, height = _box(entry, points)
    return Other(
        joints=joints,
        objpos=np.array([x + width / 2, y + height / 2]),
        scale=max(width, height) / 200,
    )


def _points(entry: dict[str, Any], count: int) -> Floats:
    """(count, 3) key points: x, y and visibility, as COCO counts it."""
    try:
        values = [0.0 if v is None else float(v) for v in entry["keypoints"]]
    except (TypeError, ValueError):
        raise foreign.Unfit("its keypoints are no list of numbers") from None
    if len(values) != 3 * count:
        hint = ""
        if count == len(KEYPOINTS):
            hint = " (cpm-export json coco --own-keypoints takes those that the file names)"
        raise foreign.Unfit(
            f"its keypoints are {len(values)} numbers, expected x, y and visibility of {count}"
            + hint
        )
    points = np.array(values).reshape(-1, 3)
    wrong = ~np.isfinite(points).all(1) | (np.abs(points) > _FAR).any(1)
    points[wrong] = 0  # no number, or none of this world: not labelled
    return points


def _box(entry: dict[str, Any], points: Floats) -> tuple[float, float, float, float]:
    """x, y, width, height; around the labelled key points where the file has no box."""
    box = entry.get("bbox")
    if box is not None and any(box):
        x, y, width, height = (float(v) for v in box)
        if not (0 < width < _FAR and 0 < height < _FAR and abs(x) < _FAR and abs(y) < _FAR):
            raise foreign.Unfit(f"bbox {box} has no area")
        return x, y, width, height
    return _box_around(points)


def box_around(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    """x, y, width, height around the labelled key points of an annotation, of any number.

    Raises
    ------
    TypeError, ValueError : they are too few, or no numbers.
    """
    points = entry["keypoints"]
    return _box_around(_points(entry, len(points) // 3 if isinstance(points, list) else 1))


def _box_around(points: Floats) -> tuple[float, float, float, float]:
    labelled = points[points[:, 2] > 0, :2]
    if not len(labelled):
        raise foreign.Unfit("it has no bbox, and no key points to make one")
    (x, y), (right, bottom) = labelled.min(0), labelled.max(0)
    if right <= x or bottom <= y:
        raise foreign.Unfit("it has no bbox, and too few key points to make one")
    return float(x), float(y), float(right - x), float(bottom - y)


def _picture(info: dict[str, Any], folder: Path) -> Path:
    """Where an image of the file is; its name cannot lead out of the folder."""
    return folder / foreign.stay_inside(str(info["file_name"]))


def _size(info: dict[str, Any], folder: Path) -> tuple[int, int]:
    """(width, height) of an image, from the picture itself where the file does not tell."""
    width, height = info.get("width"), info.get("height")
    if width and height:
        if not (0 < float(width) < _FAR and 0 < float(height) < _FAR):
            raise foreign.Unfit(f"its image has the size {width} × {height}")
        return int(width), int(height)
    path = _picture(info, folder)
    if not path.exists():
        raise DataError(
            f"{path}: no such image (--images names the folder of the pictures; --skip-missing "
            "leaves such people out)"
        )
    return image_size(path)


def read(
    path: str | os.PathLike[str],
    *,
    own: bool = False,
    pictures: str | os.PathLike[str] | None = None,
    skip_missing: bool = False,
    left_out: list[str] | None = None,
) -> list[Annotation]:
    """People with keypoints; crowds and other categories than people are left out.

    A key point that is null or no finite number counts as not labelled. People whom :func:`write`
    marked as the validation split's belong to it. Sizes of images that the file does not tell are
    read from the pictures.

    Parameters
    ----------
    own : keep the file's own key points, whatever they are, instead of the 16 joints made of COCO's
        17.
    pictures : the folder that the names of images count from; None: the file's own.
    skip_missing : leave out people whose image is not there.
    left_out : takes the image of each person left out.

    Raises
    ------
    DataError : not a COCO keypoints file, or a picture that is needed lies outside the folder;
        names the annotation.
    """
    name = os.fspath(path)
    content = _content(path)
    count = len(_names_in(content, name)) if own else None
    with foreign.reading(path, _WHAT):
        images = images_by_id(content["images"])
        chosen = None if own else people_categories(content)
        if chosen:
            _check_names(content, chosen)
        entries = [
            entry
            for entry in content["annotations"]
            if is_person(entry, chosen) and any((entry.get("keypoints") or [])[2::3])
        ]
    people: list[tuple[Any, Other]] = []
    held_out: list[bool] = []
    sizes: dict[Any, tuple[int, int]] = {}
    folder = Path(path).parent if pictures is None else Path(pictures)
    for entry in entries:
        where = f"{name}: annotation {entry.get('id')}"
        with foreign.reading(where, "person of a COCO file"):
            image = entry.get("image_id")
            if image not in images:
                raise foreign.Unfit(f"its image_id {image!r} is not among the images")
            if not isinstance(images[image].get("file_name"), str):
                raise foreign.Unfit(f"its image {image!r} has no file_name")
            if skip_missing and not _picture(images[image], folder).exists():
                if left_out is not None:
                    left_out.append(images[image]["file_name"])
                continue
            people.append((image, _person(entry, count)))
            held_out.append(entry.get(_HELD_OUT) is True)
            if image not in sizes:
                sizes[image] = _size(images[image], folder)
    return _annotations(people, held_out, images, sizes)


def _annotations(
    people: Sequence[tuple[Any, Other]],
    held_out: Sequence[bool],
    images: dict[Any, dict[str, Any]],
    sizes: dict[Any, tuple[int, int]],
) -> list[Annotation]:
    """People with those who are in the same image.

    Parameters
    ----------
    people : each with the id of their image.
    held_out : does each belong to the validation split?
    images, sizes : what the file says of each image, and its (width, height), by id.
    """
    by_image: dict[Any, list[int]] = {}
    for i, (image, _) in enumerate(people):
        by_image.setdefault(image, []).append(i)
    order = {image: i + 1 for i, image in enumerate(by_image)}
    found = []
    for i, (image, person) in enumerate(people):
        mates = by_image[image]
        found.append(
            Annotation(
                image=str(images[image]["file_name"]),
                dataset="COCO",
                joints=person.joints,
                objpos=person.objpos,
                scale=person.scale,
                size=sizes[image],
                others=tuple(people[j][1] for j in mates if j != i),
                validation=held_out[i],
                annolist_index=order[image],
                people_index=mates.index(i) + 1,
            )
        )
    return found


def write(
    path: str | os.PathLike[str],
    annotations: Sequence[Annotation],
    *,
    names: tuple[str, ...] = (),
) -> None:
    """Write people as COCO keypoints JSON.

    People of the validation split are marked by ``"validation": true``, which COCO itself does not
    know. Joints that COCO does not have (pelvis, neck, head top) are left out; those outside of
    their picture, where LSPET puts what nobody saw, are not labelled (v = 0).

    Parameters
    ----------
    names : of the joints, where they are key points of the user's own (``read(own=True)``): they
        become the category's key points. Without them the joints get COCO's 17 names.

    Raises
    ------
    DataError : people whose joints have no names, or have not these.
    """
    images: dict[str, int] = {}
    records, entries = [], []
    keypoints = names or KEYPOINTS
    for number, a in enumerate(annotations, 1):
        if a.image not in images:
            images[a.image] = len(images) + 1
            records.append(
                {
                    "id": images[a.image],
                    "file_name": a.image,
                    "width": a.size[0],
                    "height": a.size[1],
                }
            )
        rows = _rows(len(a.joints), names)
        points = np.zeros((len(keypoints), 3))
        there = annotated(a.joints) & _inside(a)
        for row, name in rows.items():
            if there[row]:
                v = 2 if a.joints[row, 2] else 1
                points[keypoints.index(name)] = [*a.joints[row, :2], v]
        side = a.scale * 200
        box = [float(a.objpos[0] - side / 2), float(a.objpos[1] - side / 2), side, side]
        entry = {
            "id": number,
            "image_id": images[a.image],
            "category_id": 1,
            "iscrowd": 0,
            "bbox": box,
            "area": side * side,
            "keypoints": points.ravel().tolist(),
            "num_keypoints": int((points[:, 2] > 0).sum()),
        }
        if a.validation:  # COCO has no such mark; without it these people would be trained on
            entry[_HELD_OUT] = True
        entries.append(entry)
    category = {"id": 1, "name": "person", "keypoints": list(keypoints), "skeleton": []}
    content = {"images": records, "annotations": entries, "categories": [category]}
    write_json(path, content, indent=None)


def _rows(count: int, names: tuple[str, ...]) -> dict[int, str]:
    """The key point that each of a person's joints is, for those that are one.

    Parameters
    ----------
    names : of the user's own key points; without them the joints have the authors' order.
    """
    if names:
        if len(names) != count:
            raise DataError(f"a person has {count} joints, {len(names)} names are given")
        return dict(enumerate(names))
    found = {}
    for row, joint in enumerate(joint_names(count)):
        source = _SOURCES.get(joint, ())
        if len(source) == 1 and joint != "head":  # COCO's nose is no head
            found[row] = source[0]
    if not found:
        raise DataError(f"people of {count} joints: COCO's names of the joints are not known")
    return found


def _inside(a: Annotation) -> npt.NDArray[np.bool_]:
    """Which joints lie in the picture."""
    places = a.joints[:, :2]
    return np.asarray(((places >= 0) & (places < a.size)).all(1))
