"""Predictions of other programs as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_compat.errors import DataError
from reproduce.predict import joint_files

_NAN = float("nan")


def _coco(*categories: list[str]) -> dict[str, Any]:
    """A COCO file of one person of two joints, with categories of these key points."""
    rows = [{"id": i, "keypoints": names} for i, names in enumerate(categories)]
    return {"annotations": [{"keypoints": [1, 2, 0.9, 3, 4, 0.1]}], "categories": rows}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([[[1, 2], [3, 4]]], [[[0, 1], [2, 3]]]),
        ([[[1, 2], None]], [[[0, 1], [_NAN, _NAN]]]),
        ([[[1, None], None]], [[[0, _NAN], [_NAN, _NAN]]]),
        ([[[1, 2, 0.9], None]], [[[0, 1], [_NAN, _NAN]]]),
        ([[None]], [[[_NAN, _NAN]]]),
        ({"people": [{"pose_keypoints_2d": [1, 2, 0.9, 0, 0, 0]}]}, [[[1, 2], [_NAN, _NAN]]]),
        ([{"keypoints": [1, 2, 0.9, 3, None, 0.1]}], [[[1, 2], [3, _NAN]]]),
        ([{"keypoints": [[1, 2, 0.9], [3, None, 0.1]]}], [[[1, 2], [3, _NAN]]]),
    ],
)
def test_forms_of_json(content: Any, expected: Any, tmp_path: Path) -> None:
    """Lists of joints count pixels from 1, OpenPose's and COCO's from 0; null is not predicted."""
    (tmp_path / "joints.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(joint_files.read(tmp_path / "joints.json"), expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]),
        ([{"keypoints": [1, 2, 0.9, 3, 4, 0.1]}], [[[1, 2], [3, 4]]]),
        ({"people": [{"pose_keypoints_2d": [1, 2, 0.9]}]}, [[[1, 2]]]),
    ],
)
def test_files_that_count_from_0(content: Any, expected: Any, tmp_path: Path) -> None:
    """OpenPose's and COCO's JSON does so in any case, and is not moved once more."""
    (tmp_path / "joints.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(joint_files.read(tmp_path / "joints.json", base=0), expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([[[1, 2]], [[1, 2], [3, 4]]], "its people have different numbers of joints"),
        ([[[1, 2], [3, 4, 0.5]]], "its joints have different numbers of coordinates"),
        ([{"keypoints": [1, 2, 0.9]}, {"keypoints": []}], "different numbers of joints"),
        ([{"keypoints": [[1, 2], [3, 4], [5, 6]]}], "rows of 2, expected x, y and score"),
        ([{"keypoints": [1, 2, 3, 4]}], "4 numbers, expected x, y and score of each"),
        ([{"keypoints": [1, 2, 300, 4, 5, 600]}], "600 is no score"),
        ([{"name": "me"}], "a person has neither 'pose_keypoints_2d' nor 'keypoints'"),
        ({"joints": []}, "expected a list of people"),
        ([[]], "expected people × joints × 2"),
        ([], "expected people × joints × 2"),
        ("joints", "expected a list of people"),
    ],
)
def test_json_that_holds_no_predictions(content: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "joints.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=says) as raised:
        joint_files.read(tmp_path / "joints.json")
    assert str(tmp_path / "joints.json") in str(raised.value)


def test_coco_files_name_their_joints(tmp_path: Path) -> None:
    path = tmp_path / "joints.json"
    for categories, names in (([["head", "neck"]], ("head", "neck")), ([], ()), ([[]], ())):
        path.write_text(json.dumps(_coco(*categories)))
        assert joint_files.read_named(path)[1] == names
    path.write_text(json.dumps(_coco(["head", "neck"], ["neck", "head"])))
    with pytest.raises(DataError, match="2 different lists of keypoints, expected one"):
        joint_files.read(path)


def test_hdf5_files_name_their_joints(tmp_path: Path) -> None:
    """As text of h5py, and as MATLAB 7.3 stores a cell array: a reference to the characters of each
    name."""
    import h5py

    joints, names = np.arange(12.0).reshape(3, 2, 2), ("head", "neck")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["preds"], file["parts"] = joints, list(names)
    with h5py.File(tmp_path / "a.mat", "w") as file:
        # MATLAB stores the axes (joints, 2, people) reversed
        file["prediction_all"] = joints.transpose(0, 2, 1)
        cells = file.create_dataset("parts", (1, 2), h5py.ref_dtype)
        for i, name in enumerate(names):
            letters = np.array([[ord(letter)] for letter in name], np.uint16)
            cells[0, i] = file.create_dataset(f"#refs#/{i}", data=letters).ref
    for file in ("a.h5", "a.mat"):
        found, parts = joint_files.read_named(tmp_path / file, base=0)
        np.testing.assert_array_equal(found, joints)
        assert parts == names
    with h5py.File(tmp_path / "octave.mat", "w") as file:
        # Octave's -hdf5: a group for each variable and for each cell
        file["prediction_all/value"] = joints.transpose(0, 2, 1)
        for i, name in enumerate(names):
            file[f"parts/value/_{i}/value"] = np.array([name.encode()])
    assert joint_files.read_named(tmp_path / "octave.mat")[1] == names
    padded = [name.ljust(5) for name in names]
    letters = np.array([[ord(letter) for letter in name] for name in padded], np.uint16)
    with h5py.File(tmp_path / "char.mat", "w") as file:  # a character matrix, a name in each row
        file["prediction_all"], file["parts"] = joints.transpose(0, 2, 1), letters.T
        file["parts"].attrs["MATLAB_class"] = np.bytes_("char")
    with h5py.File(tmp_path / "octave_char.mat", "w") as file:
        file["prediction_all/value"] = joints.transpose(0, 2, 1)
        file["parts/value"] = np.array([name.encode() for name in padded])
    for name in ("char.mat", "octave_char.mat"):
        assert joint_files.read_named(tmp_path / name)[1] == names
    with h5py.File(tmp_path / "string.mat", "w") as file:  # MATLAB keeps these in a form of its own
        file["prediction_all"], file["parts"] = joints.transpose(0, 2, 1), np.arange(6, dtype="u8")
        file["parts"].attrs["MATLAB_class"] = np.bytes_("string")
    with pytest.raises(DataError, match="'parts' holds no names"):
        joint_files.read(tmp_path / "string.mat")
    for numbers in ([1, 2], 1):  # numbers are no names, as in other kinds of files
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["preds"], file["parts"] = joints, numbers
        assert joint_files.read_named(tmp_path / "b.h5")[1] == ()
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["preds"], file["parts"] = joints[:, :1], "head"
    assert joint_files.read_named(tmp_path / "c.h5")[1] == ("head",)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["preds"], file["parts/value/_0/more"] = joints, 1
    with pytest.raises(DataError, match="'parts' holds no names"):
        joint_files.read(tmp_path / "d.h5")


def _structs(*values: dict[str, Any]) -> np.ndarray:
    """A MATLAB array of structs that have the same fields."""
    array = np.zeros((1, len(values)), [(name, object) for name in values[0]])
    for i, value in enumerate(values):
        array[0, i] = tuple(value.values())
    return array


def test_mpii_people_of_whom_nothing_was_predicted(tmp_path: Path) -> None:
    """They stay people, without places; an image without anybody is refused, since nobody knows
    whose predictions follow."""
    from scipy.io import savemat

    empty = np.zeros((0, 0))
    seen = _structs({"annopoints": _structs({"point": _structs({"x": 5, "y": 6, "id": 2})})})
    for nobody in (empty, _structs({"point": empty})):
        unseen = _structs({"annopoints": nobody})
        images = _structs({"annorect": seen}, {"annorect": unseen}, {"annorect": seen})
        savemat(tmp_path / "a.mat", {"pred": images})
        found = joint_files.read(tmp_path / "a.mat")
        assert found.shape == (3, 16, 2)
        assert np.isfinite(found).all(2).sum(1).tolist() == [1, 0, 1]
        assert found[2, 2].tolist() == [4, 5]
    savemat(tmp_path / "b.mat", {"pred": _structs({"annorect": seen}, {"annorect": empty})})
    with pytest.raises(DataError, match=r"b\.mat: .*image 2 of 'pred' has an empty annorect"):
        joint_files.read(tmp_path / "b.mat")
