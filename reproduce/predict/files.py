"""Predictions on disk: the release's .mat layout, npz, OpenPose and COCO JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write
from reproduce.people.skeletons import Skeleton

Floats = npt.NDArray[np.float64]


def write_mat(path: str | os.PathLike[str], joints: Floats) -> None:
    """``prediction_all`` (J, 2, N), 1-based, as the release stores LSP and FLIC results.

    Parameters
    ----------
    joints : (N, J, 2), 1-based, in the data set's joint order.
    """
    from scipy.io import savemat

    with atomic_write(path) as stream:
        savemat(stream, {"prediction_all": joints.transpose(1, 2, 0)})


def read_mat(path: str | os.PathLike[str]) -> Floats:
    """(N, J, 2) from ``prediction_all`` (J, 2, N) or ``pred`` (2, J, N); MATLAB v5 and v7.3 files.

    Raises
    ------
    DataError : neither variable, or another shape.
    """
    name = os.fspath(path)
    array = _variable(name)
    if array.ndim == 3 and array.shape[1] == 2:
        return array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[0] == 2:
        return array.transpose(2, 1, 0)
    if array.ndim == 3 and array.shape[2] == 2:
        return array
    raise DataError(
        f"{name}: predictions have shape {array.shape}, expected (joints, 2, people) or (2, "
        "joints, people)"
    )


def _variable(name: str) -> Floats:
    from reproduce.people import matfile

    try:
        with open(name, "rb") as stream:
            head = stream.read(128)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    wanted = ("prediction_all", "pred")
    if b"MATLAB 7.3" in head or head.startswith(b"\x89HDF"):
        import h5py

        try:
            with h5py.File(name, "r") as file:
                for variable in wanted:
                    if variable in file:
                        return np.asarray(
                            file[variable], np.float64
                        ).transpose()  # v7.3 stores the axes reversed
        except OSError as error:
            raise DataError(f"{name}: is no readable MATLAB file: {error}") from None
        raise DataError(f"{name}: has neither prediction_all nor pred")
    for variable in wanted:
        try:
            (array,) = matfile.load(name, variable)
        except DataError as error:
            if "has no variable" not in str(error):
                raise
            continue
        return np.asarray(array, np.float64)
    raise DataError(f"{name}: has neither prediction_all nor pred")


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
    """People of many images in three forms: ``PATH_coco.json``, ``PATH.npz`` and ``PATH.mat``.

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
    write_json(path.with_name(path.name + "_coco.json"), coco(images, skeletal))
    parts = np.array(skeletal.parts)
    with atomic_write(path.with_name(path.name + ".npz")) as stream:
        np.savez(
            stream, joints=table[:, :, :2] + 1, scores=table[:, :, 2], image=names, parts=parts
        )
    with atomic_write(path.with_name(path.name + ".mat")) as stream:
        everything = {
            "prediction_all": (table[:, :, :2] + 1).transpose(1, 2, 0),
            "scores": table[:, :, 2].T,
            "image": np.array(names, object)[:, None],
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


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(json.dumps(value, indent=1).encode())


def read(path: str | os.PathLike[str]) -> Floats:
    """(N, J, 2) predictions, 1-based, from .mat, .h5, .npz or JSON.

    ``.h5`` holds ``preds``, ``.npz`` ``joints`` or its only array, with the axes people × joints ×
    2 or reversed; JSON is a list of people, each a list of joints. Numbers are taken as they are:
    1-based, as the data sets' files count.

    Raises
    ------
    DataError : another kind of file, or no array of that form in it.
    """
    name = os.fspath(path)
    ending = os.path.splitext(name)[1].lower()
    if ending == ".mat":
        return read_mat(name)
    try:
        if ending in (".h5", ".hdf5"):
            import h5py

            with h5py.File(name, "r") as file:
                array = np.asarray(file["preds"], np.float64)
        elif ending == ".npz":
            with np.load(name, allow_pickle=False) as loaded:
                key = "joints" if "joints" in loaded.files else loaded.files[0]
                array = np.asarray(loaded[key], np.float64)
        elif ending == ".json":
            with open(name, encoding="utf-8") as stream:
                array = np.asarray(json.load(stream), np.float64)
        else:
            raise DataError(f"{name}: expected a .mat, .h5, .npz or .json file of predictions")
    except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{name}: holds no predictions: {error!r}") from None
    if array.ndim == 3 and array.shape[0] == 2 and array.shape[2] != 2:
        array = array.transpose(2, 1, 0)
    if array.ndim != 3 or array.shape[2] < 2:
        raise DataError(
            f"{name}: predictions have shape {array.shape}, expected people × joints × 2"
        )
    return array[:, :, :2]
