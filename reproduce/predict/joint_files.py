"""Arrays of predicted joints on disk, as the release, other methods and other programs store them.

Files count pixels from 1, as the data sets do, but for OpenPose's and COCO's; arrays count from 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat import foreign
from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write, ending
from caffe_compat.foreign import Unfit
from reproduce.people import matfile
from reproduce.people.matlab_pixels import from_matlab, to_matlab

Floats = npt.NDArray[np.float64]
_WHAT = "file of predicted joints"
# names under which predictions are stored, the release's first
_VARIABLES = ("prediction_all", "pred", "preds", "joints")
_MPII_JOINTS = 16
_LARGEST_SCORE = 100  # scores go to 1, or to 100 per cent; more is a place in a picture


def write_mat(path: str | os.PathLike[str], joints: Floats) -> None:
    """``prediction_all`` (J, 2, N), 1-based, as the release stores LSP and FLIC results.

    Parameters
    ----------
    joints : (N, J, 2) in 0-based pixels, in the data set's joint order.
    """
    from scipy.io import savemat

    with atomic_write(path) as stream:
        savemat(stream, {"prediction_all": to_matlab(joints).transpose(1, 2, 0)})


def _stored_mat(path: str | os.PathLike[str]) -> _Stored:
    name = os.fspath(path)
    head = foreign.read_bytes(path)[:128]
    if b"MATLAB 7.3" in head or head.startswith(b"\x89HDF"):
        with foreign.open_hdf5(path, _WHAT) as file:
            # version 7.3 stores the axes reversed
            joints = _arranged(_numbers_of(_hdf5_variable(file)).transpose())
            return _Stored(joints, parts=_hdf5_names(file))
    if head.startswith(b"# Created by Octave"):
        raise DataError(f"{name}: is Octave's text form; save it with save('-v7', ...)")
    found = matfile.variables(path)
    known = [variable for variable in _VARIABLES if variable in found]
    if not known:
        has = ", ".join(found) or "nothing"
        raise DataError(f"{name}: has neither prediction_all nor pred; it has {has}")
    with foreign.reading(path, _WHAT):
        joints = _of_matlab(found[known[0]], known[0])
        return _Stored(joints, parts=_names(found.get("parts")))


def _hdf5_variable(file: Any) -> Any:
    import h5py

    known = [name for name in _VARIABLES if name in file]
    if not known:
        raise Unfit(
            f"it has neither prediction_all nor pred; it has {', '.join(file) or 'nothing'}"
        )
    item = file[known[0]]
    if isinstance(item, h5py.Group):
        if "value" not in item:  # Octave keeps a variable's type and value in a group
            raise Unfit(f"'{known[0]}' is a struct; save the joints as an array of numbers")
        return foreign.take(item, "value")
    return foreign.take(file, known[0])


def _hdf5_names(file: Any) -> tuple[str, ...]:
    """The names in ``parts`` of an HDF5 file, as :func:`_names`: strings; MATLAB 7.3's characters
    or a cell array of them; Octave's, which keeps a variable's type and value in a group.

    Raises
    ------
    Unfit : it is there and is none of these, and no array of numbers either.
    """
    import h5py

    item = file.get("parts")
    if isinstance(item, h5py.Group):
        item = item.get("value")
    if item is None:
        return ()
    if isinstance(item, h5py.Group):  # Octave's cells: _0, _1, ...
        cells = [item.get(f"_{i}/value") for i in range(len(item)) if f"_{i}" in item]
    elif h5py.check_ref_dtype(item.dtype) is h5py.Reference:
        cells = [file[cell] for cell in item[()].reshape(-1)]
    elif item.dtype.kind in "iufb" and _matlab_class(item) not in ("char", "string"):
        return ()
    else:
        cells = [item]
    return tuple(name.rstrip() for cell in cells for name in _texts(cell))


def _matlab_class(item: Any) -> str:
    """What MATLAB calls the type of a data set of its version 7.3; "" in files of others."""
    found = item.attrs.get("MATLAB_class", b"")
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def _texts(item: Any) -> list[str]:
    """The texts of an HDF5 data set: strings, or characters as numbers, a text in each column."""
    import h5py

    if isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype):
        return [str(text) for text in np.atleast_1d(item.asstr()[()]).reshape(-1)]
    readable = isinstance(item, h5py.Dataset) and item.dtype == np.uint16
    if not readable or _matlab_class(item) == "string":
        raise Unfit("'parts' holds no names; save them as a cell array of text")
    characters = np.atleast_1d(item[()])
    columns = characters.reshape(len(characters), -1).T
    return ["".join(map(chr, column)) for column in columns]


def _of_matlab(value: Any, name: str) -> Floats:
    """Joints of a variable: an array, a cell array of people, or MPII's struct."""
    array = np.asarray(value)
    if array.dtype.kind == "O" and array.size:
        first = array.reshape(-1)[0]
        if hasattr(first, "annorect"):
            return _of_mpii(array.reshape(-1))
        people = [_numbers_of(one) for one in array.reshape(-1)]
        if len({one.shape for one in people}) != 1 or people[0].ndim != 2:
            raise Unfit(f"the cells of '{name}' are not all joints × 2 numbers")
        return _arranged(np.stack(people), people_first=True)
    return _arranged(_numbers_of(array))


def _of_mpii(images: npt.NDArray[Any]) -> Floats:
    """(N, 16, 2) of the ``pred`` struct of MPII's toolkit; nan where a joint was not predicted."""
    people = []
    for place, image in enumerate(images, 1):
        rectangles = matfile.field(image, "annorect")
        if rectangles is None:
            raise Unfit(
                f"image {place} of 'pred' has an empty annorect: whose predictions follow is not "
                "known; write a person without points for each one"
            )
        for rectangle in np.asarray(rectangles).reshape(-1):
            joints = np.full((_MPII_JOINTS, 2), np.nan)
            for point in _points_of(rectangle):
                number = matfile.number(point.id)
                if number is None or not 0 <= number < _MPII_JOINTS:
                    raise Unfit(f"a point has the id {number}, expected 0 to {_MPII_JOINTS - 1}")
                joints[int(number)] = matfile.number(point.x), matfile.number(point.y)
            people.append(joints)
    if not people:
        raise Unfit("it holds nobody")
    return np.stack(people)


def _points_of(rectangle: Any) -> list[Any]:
    """The points of a person in MPII's struct; none where nothing was predicted."""
    holder = matfile.field(rectangle, "annopoints")
    if holder is None:
        return []
    points = matfile.field(np.asarray(holder).reshape(-1)[0], "point")
    return [] if points is None else list(np.asarray(points).reshape(-1))


def _numbers_of(value: Any) -> Floats:
    """An array of real numbers; missing ones (None) are nan.

    Raises
    ------
    Unfit : text, a sparse matrix, complex numbers, lists of different lengths.
    """
    array = np.asarray(value)
    if array.dtype.kind == "O":
        try:
            array = np.array(array.tolist(), np.float64)  # None becomes nan, anything else raises
        except (TypeError, ValueError):
            raise Unfit(
                "it holds no array of real numbers (a sparse matrix is saved as full(...))"
            ) from None
    if array.dtype.kind == "c" and not array.imag.any():
        array = array.real
    if array.dtype.kind not in "fiu":
        raise Unfit("it holds no array of real numbers")
    return array.astype(np.float64)


def _arranged(array: Floats, *, people_first: bool = False) -> Floats:
    """(N, J, 2) of any of the arrangements in use; a third number of a joint (its score) is left.

    Parameters
    ----------
    people_first : the first axis is known to be the person.

    Raises
    ------
    Unfit : no axis has two or three entries.
    """
    if array.ndim == 3 and array.size:
        # where x and y stand, and the order of axes that makes people x joints x 2 of it
        orders = {1: (2, 0, 1), 0: (2, 1, 0), 2: (0, 1, 2)}
        if people_first:
            orders = {2: (0, 1, 2), 1: (0, 2, 1)}
        for count in (2, 3):
            for axis, order in orders.items():
                if array.shape[axis] == count:
                    return array.transpose(order)[:, :, :2]
    raise Unfit(
        f"its predictions have the shape {array.shape}, expected (joints, 2, people), (2, joints, "
        "people) or (people, joints, 2)"
    )


def read(path: str | os.PathLike[str], *, base: int = 1) -> Floats:
    """(N, J, 2) predictions in 0-based pixels from .mat, .h5, .npz, .npy or JSON.

    ``.mat`` holds ``prediction_all`` (J, 2, N) or ``pred`` (2, J, N) of any arrangement: MATLAB v5
    and v7.3, Octave's ``-hdf5``, cell arrays of one person each, the struct of MPII's toolkit.
    ``.h5`` holds ``preds``, ``.npz`` ``joints`` or its only array, with the axes people × joints ×
    2 or reversed. JSON is a list of people, each a list of joints (null: not predicted), OpenPose's
    form, or COCO's results.

    Parameters
    ----------
    base : the number of the first pixel in the file, 0 or 1; OpenPose's form and COCO's results
        always count from 0.

    Raises
    ------
    DataError : another kind of file, or no array of that form in it.
    """
    return read_named(path, base=base)[0]


def read_named(path: str | os.PathLike[str], *, base: int = 1) -> tuple[Floats, tuple[str, ...]]:
    """As :func:`read`; and the names of the joints, none where the file has no such names: a .npz,
    .mat or .h5 file has them under ``parts``, as ``cpm-predict`` writes them, a COCO file as key
    points of its categories."""
    stored = _stored(path)
    joints = stored.joints if stored.from_0 or base == 0 else from_matlab(stored.joints)
    return joints, stored.parts


@dataclass(frozen=True)
class _Stored:
    """What a file holds.

    Attributes
    ----------
    joints : (N, J, 2) in the pixels of the file.
    from_0 : do these surely count from 0?
    parts : names of the joints, where the file has them.
    """

    joints: Floats
    from_0: bool = False
    parts: tuple[str, ...] = ()


def _stored(path: str | os.PathLike[str]) -> _Stored:
    name = os.fspath(path)
    kind = ending(name)
    if kind == ".mat":
        return _stored_mat(name)
    if kind in (".h5", ".hdf5"):
        with foreign.open_hdf5(path, _WHAT) as file:
            joints = _people_first(_numbers_of(_hdf5_variable(file)))
            return _Stored(joints, parts=_hdf5_names(file))
    if kind == ".npz":
        arrays = foreign.read_npz(path, _WHAT)
        with foreign.reading(path, _WHAT):
            if "joints" not in arrays and len(arrays) > 1:
                raise Unfit(f"it has no array 'joints'; it has {', '.join(arrays)}")
            chosen = arrays.get("joints", next(iter(arrays.values())))
            joints = _people_first(_numbers_of(chosen))
            return _Stored(joints, parts=_names(arrays.get("parts")))
    if kind == ".npy":
        with foreign.reading(path, _WHAT):
            return _Stored(_people_first(_numbers_of(foreign.read_npy(path, _WHAT))))
    if kind == ".json":
        content = foreign.read_json(path, _WHAT, nan=True)
        with foreign.reading(path, _WHAT):
            return _of_json(content)
    foreign.check_file(path)
    raise DataError(f"{name}: expected a .mat, .h5, .npz, .npy or .json file of predictions")


def _names(parts: Any) -> tuple[str, ...]:
    """The names in a file's variable ``parts``; numbers are none."""
    names = np.asarray(() if parts is None else parts)
    if names.dtype.kind not in "OU":
        return ()
    return tuple(matfile.text(name).rstrip() for name in names.reshape(-1))


def _people_first(array: Floats) -> Floats:
    """As Python's files are arranged: people × joints × 2 (or more), or the reverse."""
    if array.ndim == 3 and array.shape[0] == 2 and array.shape[2] != 2:
        array = array.transpose(2, 1, 0)
    if array.ndim != 3 or array.shape[2] < 2 or not array.size:
        raise Unfit(f"its predictions have the shape {array.shape}, expected people × joints × 2")
    return array[:, :, :2]


def _of_json(content: Any) -> _Stored:
    if isinstance(content, Mapping):
        rows = content.get("people", content.get("annotations"))
        if not isinstance(rows, list):
            raise Unfit("expected a list of people, OpenPose's 'people' or COCO's 'annotations'")
        return _Stored(_of_triples(rows), from_0=True, parts=_keypoint_names(content))
    if isinstance(content, list) and content and isinstance(content[0], Mapping):
        return _Stored(_of_triples(content), from_0=True)
    if not isinstance(content, list):
        raise Unfit("expected a list of people, each a list of joints")
    array = np.array(content, object) if not content else _nested(content)
    return _Stored(_people_first(_numbers_of(array)))


def _keypoint_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the key points of a COCO file's categories; none where it has none.

    Raises
    ------
    Unfit : categories with different key points.
    """
    rows = [row.get("keypoints") for row in content.get("categories") or ()]
    found = {tuple(map(str, row)) for row in rows if row}
    if len(found) > 1:
        raise Unfit(f"its categories have {len(found)} different lists of keypoints, expected one")
    return found.pop() if found else ()


def _nested(people: list[Any]) -> Floats:
    """People, each a list of joints, each a list of numbers, as an array; a joint or a number that
    is null is nan."""
    if len({len(person) for person in people}) > 1:
        raise Unfit("its people have different numbers of joints")
    joints = [joint for person in people for joint in person]
    sizes = {len(joint) for joint in joints if joint is not None} or {2}
    if len(sizes) > 1:
        raise Unfit("its joints have different numbers of coordinates")
    (size,) = sizes
    found = np.full((len(joints), size), np.nan)
    for row, joint in zip(found, joints, strict=True):
        if joint is not None:
            row[:] = [np.nan if number is None else number for number in joint]
    return found.reshape(len(people), len(people[0]), size)


def _of_triples(rows: Sequence[Mapping[str, Any]]) -> Floats:
    """(N, J, 2) of rows x, y, score: OpenPose's people and COCO's results, which count pixels from
    0. OpenPose writes (0, 0, 0) for a joint that it did not find."""
    people = []
    for row in rows:
        values = row.get("pose_keypoints_2d", row.get("keypoints"))
        if values is None:
            raise Unfit("a person has neither 'pose_keypoints_2d' nor 'keypoints'")
        points = _triples(values)
        points = np.where((points == 0).all(1, keepdims=True), np.nan, points)
        people.append(points[:, :2])
    if not people:
        raise Unfit("it holds nobody")
    if len({one.shape for one in people}) > 1:
        raise Unfit("its people have different numbers of joints")
    return np.stack(people)


def _triples(values: Sequence[Any]) -> Floats:
    """(J, 3) of the numbers x, y, score, x, y, score and so on, or of such rows.

    Raises
    ------
    Unfit : they are no triples; pairs x, y are refused where they can be told.
    """
    numbers = np.array([np.nan if v is None else v for v in values], np.float64)
    rows = f"rows of {numbers.shape[1]}" if numbers.ndim == 2 else f"{numbers.size} numbers"
    expected = f"a person's keypoints are {rows}, expected x, y and score of each"
    if numbers.ndim > 2 or (numbers.ndim == 2 and numbers.shape[1] != 3) or numbers.size % 3:
        raise Unfit(expected)
    points = numbers.reshape(-1, 3)
    if (points[:, 2] > _LARGEST_SCORE).any():
        raise Unfit(f"{expected}; {points[:, 2].max():g} is no score (are they pairs x, y?)")
    return points
