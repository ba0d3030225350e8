"""What a run of the predictor writes: OpenPose's and COCO's JSON, .npz and .mat of many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat import foreign
from caffe_compat.errors import printable
from caffe_compat.files import atomic_write, write_json
from reproduce.people.matlab_pixels import to_matlab
from reproduce.people.skeletons import Skeleton

Floats = npt.NDArray[np.float64]


def openpose(people: Sequence[tuple[Floats, Floats]]) -> dict[str, Any]:
    """OpenPose's JSON of an image: x, y (0-based pixels), score of each joint, per person.

    Parameters
    ----------
    people : (joints (P, 2) 0-based, scores (P,)) of each.
    """
    rows = [
        np.column_stack([joints, scores]).round(3).ravel().tolist() for joints, scores in people
    ]
    return {"version": 1.0, "people": [{"pose_keypoints_2d": row} for row in rows]}


def write_all(path: Path, images: Sequence[Mapping[str, Any]], skeletal: Skeleton) -> None:
    """People of many images: ``PATH_coco.json``, ``PATH_coco_results.json`` (the list that COCO's
    ``loadRes`` takes), ``PATH.npz`` and ``PATH.mat``.

    Parameters
    ----------
    images : of each ``image`` (its name), ``size`` (width, height) and ``people`` as
        :func:`openpose` writes them.

    ``.npz`` holds ``joints`` (N, P, 2) and ``scores`` (N, P), ``image`` (N,) and ``parts`` (P,);
    ``.mat`` holds ``prediction_all`` (P, 2, N). Both count pixels from 1, as the data sets' files
    do; JSON counts from 0.
    """
    from scipy.io import savemat

    rows = [
        (image["image"], np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3))
        for image in images
        for person in image["people"]
    ]
    if not rows:
        return
    table = np.stack([values for _, values in rows])
    names = np.array([name for name, _ in rows])
    whole = coco(images, skeletal)
    write_json(path.with_name(path.name + "_coco.json"), whole)
    write_json(path.with_name(path.name + "_coco_results.json"), coco_results(whole))
    parts = np.array(skeletal.parts)
    with atomic_write(path.with_name(path.name + ".npz")) as stream:
        np.savez(
            stream,
            joints=to_matlab(table[:, :, :2]),
            scores=table[:, :, 2],
            image=names,
            parts=parts,
        )
    with atomic_write(path.with_name(path.name + ".mat")) as stream:
        everything = {
            "prediction_all": to_matlab(table[:, :, :2]).transpose(1, 2, 0),
            "scores": table[:, :, 2].T,
            # MATLAB's files hold Unicode only: broken UTF-8 in a name is escaped
            "image": np.array([printable(name) for name in names], object)[:, None],
            "parts": np.array(parts, object)[:, None],
        }
        savemat(stream, everything)


def coco(images: Sequence[Mapping[str, Any]], skeletal: Skeleton) -> dict[str, Any]:
    """COCO's key-point JSON: images, one category with the parts' names, an annotation per person
    (pixels from 0)."""
    limbs = [[a + 1, b + 1] for a, b in skeletal.limbs]
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(skeletal.parts),
        "skeleton": limbs,
    }
    found: dict[str, Any] = {"images": [], "categories": [category], "annotations": []}
    for number, image in enumerate(images, 1):
        width, height = image["size"]
        found["images"].append(
            {"id": number, "file_name": image["image"], "width": width, "height": height}
        )
        for person in image["people"]:
            values = np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3)
            values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
            left, top = values[:, :2].min(0)
            wide, high = values[:, :2].max(0) - (left, top)
            keypoints = [v for x, y, _ in values.tolist() for v in (x, y, 2)]
            found["annotations"].append(
                {
                    "id": len(found["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "keypoints": keypoints,
                    "num_keypoints": len(values),
                    "score": round(float(values[:, 2].mean()), 4),
                    "bbox": [float(left), float(top), float(wide), float(high)],
                    "area": float(wide * high),
                    "iscrowd": 0,
                }
            )
    return found


def coco_results(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list of results that ``COCO.loadRes`` takes, of :func:`coco`'s annotations."""
    names = ("image_id", "category_id", "keypoints", "score")
    return [{name: row[name] for name in names} for row in whole["annotations"]]


def read_result(path: Path, parts: int) -> dict[str, Any]:
    """A ``_keypoints.json`` of :mod:`reproduce.predict.photographs`, checked.

    Parameters
    ----------
    parts : of the network whose results are wanted.

    Raises
    ------
    DataError : damaged, or of another network.
    """
    what, advice = "result of cpm-predict", "remove it to make it again"
    content = foreign.read_json(path, what, nan=True, advice=advice)
    with foreign.reading(path, what, advice=advice):
        if not isinstance(content, dict) or not isinstance(content.get("image"), str):
            raise foreign.Unfit("it names no image")
        width, height = content["size"]
        if type(width) is not int or type(height) is not int or min(width, height) < 1:
            raise foreign.Unfit("its size is no width and height")
        for person in content["people"]:
            row = np.array(person["pose_keypoints_2d"], np.float64)
            if row.shape != (3 * parts,):
                raise foreign.Unfit(f"a person has {row.size} numbers, expected {3 * parts}")
    return content
