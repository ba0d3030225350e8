"""A training from LMDBs of pictures: every weight, loss, rate and test equal to the real Caffe's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from caffe_compat import read_solver, read_weights
from caffe_compat.training.snapshots import read_state
from caffe_compat.training.solver import Solver
from tests import tolerances
from tests.paths import cases


def _start(folder: Path) -> Solver:
    weights = read_weights(folder / "init.caffemodel")
    return Solver(read_solver(folder / "solver.prototxt"), root=folder, weights=weights)


@pytest.mark.parametrize("path", cases("lenet_train", "trajectory.npz"))
def test_trajectory(path: Path) -> None:
    losses = json.loads((path.parent / "losses.json").read_text())
    solver = _start(path.parent)
    first = solver.feed.batch(0, "cpu")
    with np.load(path) as file:
        recorded = {key: file[key] for key in file.files}
    np.testing.assert_array_equal(first["data"].numpy(), recorded["data1"])
    np.testing.assert_array_equal(first["label"].numpy(), recorded["label1"])
    tests = {entry["iter"]: entry for entry in losses["tests"]}
    for entry in losses["iterations"][:-1]:
        if entry["iter"] in tests:
            _check_test(solver, tests[entry["iter"]])
        step = solver.step()
        assert step.loss == pytest.approx(entry["loss"], rel=tolerances.PRINTED)
        assert step.rate == pytest.approx(entry["lr"], rel=tolerances.PRINTED)
        assert step.loss == pytest.approx(recorded["last_loss"][entry["iter"]], rel=1e-5)
        _check_weights(solver, recorded, solver.iteration)
    _check_test(solver, tests[solver.iteration])


def _check_weights(solver: Solver, recorded: dict[str, np.ndarray], step: int) -> None:
    for node, param, tensor in solver.net.owned_params():
        wanted = recorded.get(f"w{step}:{node.layer.name}/{param.key[1]}")
        if wanted is not None:
            np.testing.assert_allclose(tensor.detach().numpy(), wanted, atol=1e-6)


def _check_test(solver: Solver, wanted: dict[str, object]) -> None:
    found = solver.test()[0]
    for name in wanted.keys() - {"iter"}:
        assert found[name] == pytest.approx(wanted[name], rel=tolerances.PRINTED)


@pytest.mark.parametrize("path", cases("lenet_train", "*.solverstate"))
def test_state_and_model_of_the_end(path: Path, tmp_path: Path) -> None:
    """20 iterations leave what Caffe left: as values, and the files hold the same fields."""
    solver = _start(path.parent)
    while solver.iteration < 20:
        solver.step()
    model, state = solver.snapshot(str(tmp_path / "shapes"))
    ours, caffes = read_state(state), read_state(path)
    assert (ours.iteration, ours.current_step) == (caffes.iteration, caffes.current_step)
    for a, b in zip(ours.history, caffes.history, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-6)
    recorded = read_weights(path.with_suffix(".caffemodel"))
    again = read_weights(model)
    assert again.names == recorded.names
    for name in again.names:
        for mine, theirs in zip(again[name], recorded[name], strict=True):
            assert (mine.shape, mine.legacy) == (theirs.shape, theirs.legacy)
            np.testing.assert_allclose(mine.data, theirs.data, atol=1e-6)
