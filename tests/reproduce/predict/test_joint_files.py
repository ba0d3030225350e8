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
