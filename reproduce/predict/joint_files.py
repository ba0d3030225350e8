"""Arrays of predicted joints on disk, as the release and other methods store them.

Joints count pixels from 1 here, as the data sets' files do.
"""

from __future__ import annotations

import json
import os

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write

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
