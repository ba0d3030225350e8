"""Whole trainings, data layer and solver together, against the real `caffe train`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from caffe_compat import read_solver, read_weights
from reproduce.samples.schedule import Order
from reproduce.train.run import Options, make_solver
from tests import tolerances
from tests.paths import cases


def _deterministic() -> list[object]:
    return [
        p
        for p in cases("tiny", "*/losses.json")
        if p.values[0] is None or (p.values[0].parent / "init.caffemodel").exists()
    ]


@pytest.mark.parametrize("path", _deterministic())
def test_training(path: Path) -> None:
    folder = path.parent
    recorded = json.loads(path.read_text())
    options = Options(order=Order(dice="caffe"))
    solver = make_solver(
        read_solver(folder / "pose_solver.prototxt"),
        folder,
        options,
        read_weights(folder / "init.caffemodel"),
    )
    steps = solver.spec.message.max_iter
    for entry in recorded["iterations"][:steps]:
        assert solver.step().loss == pytest.approx(entry["loss"], rel=tolerances.PRINTED)
    final = read_weights(next((folder / "snap").glob("*.caffemodel")))
    mine = solver.net.weights()
    assert mine.names == final.names
    for name in final.names:
        for ours, theirs in zip(mine[name], final[name], strict=True):
            error = np.abs(ours.data - theirs.data).max()
            assert error <= tolerances.TRAINING * max(1.0, np.abs(theirs.data).max())
