"""Scores against the original evaluation's tables and against the published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_compat.errors import CaffeCompatError, DataError
from reproduce import evaluation, predictions
from reproduce.datasets import lsp, matfile
from tests.paths import DATA, GOLDEN, listed, needs_data

_TABLES = GOLDEN / "matlab" / "evaluation" / "lsp_flic.json"


def _lsp_cases() -> list[Any]:
    if not _TABLES.exists():
        return listed(iter(()))
    tables = json.loads(_TABLES.read_text())
    return listed((v, k) for k, v in tables.items() if v["dataset"] == "lsp")


def _truth(mode: str) -> np.ndarray:
    if mode == "pc":
        return lsp.read_joints(DATA, "lsp")[0][1000:]
    (joints,) = matfile.load(DATA / "predictions" / "LSP-joints-OC.mat", "joints")
    array = np.asarray(joints, np.float64)
    array = array.transpose(2, 1, 0) if array.shape[0] in (2, 3) else array.transpose(2, 0, 1)
    return array[-1000:]


def _file(case: dict[str, Any]) -> Path:
    if case["name"].startswith("release_"):
        return DATA / "release" / f"LSP_prediction_model_{case['name'].removeprefix('release_')}.mat"
    return DATA / "predictions" / case["name"] / f"pred_keypoints_lsp_{case['mode']}.mat"


@needs_data
@pytest.mark.parametrize("case", _lsp_cases())
def test_lsp_tables(case: dict[str, Any]) -> None:
    """Every competitor's prediction file: the whole PCK curve of each joint and in total, and the area under it."""
    result = evaluation.score_lsp(predictions.read_mat(_file(case)), _truth(case["mode"]))
    recorded = np.array(case["pck"])
    np.testing.assert_allclose(result.per_joint, recorded[:, :-1], atol=1e-9)
    np.testing.assert_allclose(result.total, recorded[:, -1], atol=1e-9)
    assert result.auc == pytest.approx(case["auc"], abs=2e-4)
    if "hit_count" in case:
        assert result.hits[result.at(0.2)].tolist() == [int(h) for h in np.ravel(case["hit_count"])]


@needs_data
@pytest.mark.parametrize(
    ("name", "hits", "total", "row"),
    [
        ("MPII_LSP_6s", 12670, 90.50, [97.80, 92.50, 87.05, 83.90, 91.50, 90.85, 89.90]),
        ("LSP_6s", 11805, 84.32, [96.85, 87.10, 80.40, 75.10, 86.50, 83.15, 81.15]),
    ],
)
def test_published_lsp_numbers(name: str, hits: int, total: float, row: list[float]) -> None:
    """The authors' released predictions give the published numbers to the last digit."""
    found = evaluation.lsp_table(evaluation.score_lsp(predictions.read_mat(DATA / "release" / f"LSP_prediction_model_{name}.mat"),
                                                      _truth("pc")))  # fmt: skip
    assert (found["hits"], found["counted"]) == (hits, 14000)
    assert round(found["total"], 2) == total
    assert [round(found[part], 2) for part in evaluation.LSP_GROUPS] == row


def test_pck_by_eye() -> None:
    truth = np.array([[[0.0, 0], [10, 0], [np.nan, np.nan]]])
    guess = np.array([[[0.0, 2], [10, 6], [5, 5]]])
    result = evaluation.pck(guess, truth, np.array([20.0]), np.array([0.0, 0.1, 0.2, 0.3]), "abc")
    assert result.per_joint[:, :2].tolist() == [[0, 0], [100, 0], [100, 0], [100, 100]]
    assert result.total.tolist() == [0, 50, 50, 100]
    assert result.counted.tolist() == [1, 1, 0]
    assert result.auc == pytest.approx((0 / 2 + 50 + 50 + 100 / 2) / 3)
    with pytest.raises(CaffeCompatError, match="differ in size"):
        evaluation.pck(guess, truth[:, :2], np.array([20.0]))


def test_mat_round_trip(tmp_path: Path) -> None:
    joints = np.random.default_rng(0).uniform(0, 100, (5, 14, 2))
    predictions.write_mat(tmp_path / "p.mat", joints)
    np.testing.assert_array_equal(predictions.read_mat(tmp_path / "p.mat"), joints)
    (tmp_path / "bad.mat").write_bytes(b"nothing")
    with pytest.raises(DataError):
        predictions.read_mat(tmp_path / "bad.mat")
