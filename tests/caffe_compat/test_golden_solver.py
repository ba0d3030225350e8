"""Every recorded training: weights, losses, rates, tests, snapshots and resumes equal to the real Caffe's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_compat import read_solver, read_weights
from caffe_compat.snapshot import read_state
from caffe_compat.solver import Solver
from tests import tolerances
from tests.paths import DATA, cases, needs_data


def _open(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], Solver]:
    case = json.loads(path.read_text())
    with np.load(path.parent / "trajectory.npz") as file:
        recorded = {key: file[key] for key in file.files}
    spec = read_solver(path.parent / "solver.prototxt")
    weights = read_weights(path.parent / case["initial_weights"])
    return case, recorded, Solver(spec, root=path.parent, weights=weights)


def _check_weights(solver: Solver, recorded: dict[str, np.ndarray], step: int, case: dict[str, Any]) -> None:
    moved = case.get("max_abs_change_if_initial_weights_disturbed_1e7") or {}
    scale = max([float(v) for v in (moved.values() if isinstance(moved, dict) else moved)] or [0.0])
    checked = 0
    for node, param, tensor in solver.net.owned_params():
        key = f"w{step}:{node.layer.name}/{param.key[1]}"
        if key in recorded:
            blob = recorded[key]
            error = np.abs(tensor.detach().numpy() - blob).max()
            assert error <= max(tolerances.SOLVER * np.abs(blob).max(), 2 * scale), key
            checked += 1
    assert checked


@pytest.mark.parametrize("path", cases("solver", "*/case.json"))
def test_trajectory(path: Path) -> None:
    case, recorded, solver = _open(path)
    printed = {name: recorded[name] for name in ("printed_loss", "printed_lr")}
    recorded_steps = {int(key[1:].split(":")[0]) for key in recorded if key.startswith("w")}
    before = {key: t.detach().clone() for key, t in _named(solver)}
    for i in range(len(printed["printed_loss"])):
        step = solver.step()
        assert step.smoothed == pytest.approx(printed["printed_loss"][i], rel=tolerances.PRINTED)
        assert step.rate == pytest.approx(printed["printed_lr"][i], rel=tolerances.PRINTED)
        if i == 0:
            for key, tensor in _named(solver):
                if (update := recorded.get(f"update1:{key}")) is not None:
                    np.testing.assert_allclose((before[key] - tensor.detach()).numpy(), update, atol=1e-6)
        if i + 1 in recorded_steps:
            _check_weights(solver, recorded, i + 1, case)


def _named(solver: Solver) -> list[tuple[str, Any]]:
    return [(f"{node.layer.name}/{param.key[1]}", tensor) for node, param, tensor in solver.net.owned_params()]


@pytest.mark.parametrize("path", cases("solver", "*/case.json"))
def test_resume(path: Path, tmp_path: Path) -> None:
    """From Caffe's snapshot; and from ours of the same moment, which must hold what Caffe's holds."""
    case, recorded, _ = _open(path)
    name = next(n for n in case["snapshot"] if "solverstate" in n)
    last = max(int(key[1:].split(":")[0]) for key in recorded if key.startswith("w"))
    solver = Solver(read_solver(path.parent / "solver.prototxt"), root=path.parent)
    solver.restore(path.parent / name)
    state = read_state(path.parent / name)
    assert solver.iteration == state.iteration
    _, ours = solver.snapshot(str(tmp_path / "again"))
    again = read_state(ours)
    assert (again.iteration, again.current_step) == (state.iteration, state.current_step)
    assert len(again.history) == len(state.history)
    for a, b in zip(again.history, state.history, strict=True):
        np.testing.assert_array_equal(a.reshape(-1), b.reshape(-1))
    twin = Solver(read_solver(path.parent / "solver.prototxt"), root=path.parent)
    twin.restore(ours)
    while solver.iteration < last:
        assert solver.step().loss == twin.step().loss
    _check_weights(solver, recorded, last, case)


@pytest.mark.parametrize("path", cases("solver", "*/case.json"))
def test_printed_tests(path: Path) -> None:
    """Test nets give the averages that Caffe printed, at the iterations it printed them."""
    case, _, solver = _open(path)
    printed = case["printed"].get("test", [])
    assert bool(printed) == bool(solver.spec.message.test_interval)
    for iteration, values in printed:
        while solver.iteration < iteration:
            solver.step()
        results = {name: value for result in solver.test() for name, value in result.items()}
        assert results == pytest.approx(dict(values), rel=tolerances.PRINTED)


@needs_data
@pytest.mark.parametrize("path", sorted(DATA.glob("caffemodels/*/*.solverstate")), ids=lambda p: f"{p.parent.name}")
def test_real_state_loads(path: Path) -> None:
    state = read_state(path)
    weights = read_weights(next(path.parent.glob("*.caffemodel")))
    sizes = [blob.data.size for layer in weights.layers for blob in layer.blobs]
    assert [a.size for a in state.history] == sizes
    assert f"iter_{state.iteration}" in path.name
