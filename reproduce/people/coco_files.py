"""COCO keypoints JSON, in and out, so that people can train on data of their own.

Into the 16 joints of a record (MPII order): ankles, knees, hips, wrists, elbows and shoulders are
COCO's; pelvis is the middle of the hips, thorax and upper neck the middle of the shoulders; the
head top is not annotated in COCO, so the nose stands there (the middle of the eyes where there is
none). A point that COCO does not label (v = 0) becomes (0, 0), not visible. objpos is the middle of
the box, scale its larger side / 200. Coordinates become 1-based.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write
from reproduce.people.annotation import Annotation, Floats, Other
from reproduce.people.skeletons import MPII_JOINTS

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
    joints = np.zeros((16, 3))
    for row, name in enumerate(MPII_JOINTS):
        for names in (_SOURCES[name], ("left_eye", "right_eye") if name == "head" else ()):
            chosen = points[[KEYPOINTS.index(n) for n in names]]
            if len(chosen) and (chosen[:, 2] > 0).all():
                joints[row, :2] = chosen[:, :2].mean(0) + 1
                joints[row, 2] = float((chosen[:, 2] == 2).all())
                break
    return joints


def own_joints(keypoints: Sequence[float], count: int) -> Floats:
    """(K, 3) joints as the file has them: x, y from 1 and visible; (0, 0) where not labelled."""
    points = np.asarray(keypoints, np.float64).reshape(count, 3)
    joints = np.zeros((count, 3))
    labelled = points[:, 2] > 0
    joints[labelled, :2] = points[labelled, :2] + 1
    joints[labelled, 2] = points[labelled, 2] == 2
    return joints


def keypoint_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the key points of a file's (only) category that has any.

    Raises
    ------
    DataError : none, or several categories with different key points.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            found = {
                tuple(map(str, c["keypoints"]))
                for c in json.load(stream)["categories"]
                if c.get("keypoints")
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{os.fspath(path)}: its categories name no keypoints: {error!r}") from None
    if len(found) != 1:
        raise DataError(
            f"{os.fspath(path)}: expected one list of keypoints in its categories, found "
            f"{len(found)}"
        )
    return found.pop()


def _person(entry: dict[str, Any], own: int | None) -> Other:
    x, y, width, height = (float(v) for v in entry["bbox"])
    if not (width > 0 and height > 0):
        raise ValueError(f"bbox {entry['bbox']} has no area")
    joints = to_joints(entry["keypoints"]) if own is None else own_joints(entry["keypoints"], own)
    return Other(
        joints, np.array([x + width / 2 + 1, y + height / 2 + 1]), max(width, height) / 200
    )


def read(
    path: str | os.PathLike[str], *, validation: bool = False, own: bool = False
) -> list[Annotation]:
    """People with keypoints; crowds are left out.

    Parameters
    ----------
    own : keep the file's own key points, whatever they are, instead of the 16 joints made of COCO's
        17.

    Raises
    ------
    DataError : not a COCO keypoints file; names the annotation.
    """
    name = os.fspath(path)
    count = len(keypoint_names(path)) if own else None
    try:
        with open(name, encoding="utf-8") as stream:
            content = json.load(stream)
        images = {image["id"]: image for image in content["images"]}
        entries = [
            e
            for e in content["annotations"]
            if not e.get("iscrowd") and any(e.get("keypoints", [])[2::3])
        ]
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{name}: is no COCO keypoints file: {error!r}") from None
    people: list[tuple[Any, Other]] = []
    for entry in entries:
        try:
            people.append((entry["image_id"], _person(entry, count)))
            images[entry["image_id"]]["file_name"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{name}: annotation {entry.get('id')}: {error!r}") from None
    by_image: dict[Any, list[int]] = {}
    for i, (image, _) in enumerate(people):
        by_image.setdefault(image, []).append(i)
    order = {image: i + 1 for i, image in enumerate(by_image)}
    found = []
    for i, (image, person) in enumerate(people):
        info = images[image]
        mates = by_image[image]
        found.append(
            Annotation(
                str(info["file_name"]),
                "COCO",
                person.joints,
                person.objpos,
                person.scale,
                (int(info["width"]), int(info["height"])),
                tuple(people[j][1] for j in mates if j != i),
                validation,
                order[image],
                mates.index(i) + 1,
            )
        )
    return found


def write(path: str | os.PathLike[str], annotations: Sequence[Annotation]) -> None:
    """Write people as COCO keypoints JSON; joints that COCO does not have (pelvis, neck, head top)
    are left out."""
    images: dict[str, int] = {}
    records, entries = [], []
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
        points = np.zeros((17, 3))
        if len(a.joints) == 16:
            for row, name in enumerate(MPII_JOINTS):
                source = _SOURCES[name]
                if len(source) == 1 and name != "head" and a.joints[row, :2].any():
                    points[KEYPOINTS.index(source[0])] = [
                        *(a.joints[row, :2] - 1),
                        2 if a.joints[row, 2] else 1,
                    ]
        side = a.scale * 200
        box = [float(a.objpos[0] - 1 - side / 2), float(a.objpos[1] - 1 - side / 2), side, side]
        entries.append(
            {
                "id": number,
                "image_id": images[a.image],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": side * side,
                "keypoints": points.ravel().tolist(),
                "num_keypoints": int((points[:, 2] > 0).sum()),
            }
        )
    category = {"id": 1, "name": "person", "keypoints": list(KEYPOINTS), "skeleton": []}
    with atomic_write(path) as stream:
        stream.write(
            json.dumps(
                {"images": records, "annotations": entries, "categories": [category]}
            ).encode()
        )
