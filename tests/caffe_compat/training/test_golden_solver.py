"""Every recorded training: weights, losses, rates, tests, snapshots and resumes equal to the real
Caffe's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caffe_compat import read_solver, read_weights
from caffe_compat.training.snapshots import read_state
from caffe_compat.training.solver import Solver
from tests import measured, tolerances
from tests.paths import DATA, cases, needs_data
from tests.replay import relative_error


def _open(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], Solver]:
    case = json.loads(path.read_text())
    with np.load(path.parent / "trajectory.npz") as file:
        recorded = {key: file[key] for key in file.files}
    spec = read_solver(path.parent / "solver.prototxt")
    weights = read_weights(path.parent / case["initial_weights"])
    return case, recorded, Solver(spec, root=path.parent, weights=weights)


Weights_ = dict[str, np.ndarray]


def _weights(solver: Solver) -> Weights_:
    return {key: tensor.detach().double().numpy().copy() for key, tensor in _named(solver)}


def _recorded(recorded: dict[str, np.ndarray], step: int) -> Weights_:
    return {
        key.partition(":")[2]: a.astype(np.float64)
        for key, a in recorded.items()
        if key.startswith(f"w{step}:")
    }


def _distance(a: Weights_, b: Weights_) -> float:
    return max(relative_error(a[key], b[key]) for key in b)


def _double(solver: Solver) -> Solver:
    """The same training in float64: what both float32 programs approximate."""
    solver.net.double()
    solver._params = [tensor for _, _, tensor in solver.net.owned_params()]
    solver.histories = [[h.double() for h in group] for group in solver.histories]
    batch = solver.feed.batch

    def doubled(number: int, device: torch.device | str) -> dict[str, torch.Tensor]:
        return {name: values.double() for name, values in batch(number, device).items()}

    solver.feed.batch = doubled  # type: ignore[method-assign]
    return solver


def _check(ours: Weights_, caffe: Weights_, twin: Callable[[], Solver], step: int) -> None:
    """Within 1e-5 of Caffe; in a training that amplifies rounding, as near to the float64 run as
    Caffe is, which must be near itself: a wrong rule is wrong in float64, too."""
    assert caffe
    measured.note(
        "Caffe: trainings, weights after k steps (relative; one run amplifies rounding)",
        _distance(ours, caffe),
    )
    if _distance(ours, caffe) <= tolerances.SOLVER:
        return
    exact = _double(twin())
    while exact.iteration < step:
        exact.step()
    truth = _weights(exact)
    assert _distance(caffe, truth) <= tolerances.ROUNDED_TWICE
    assert _distance(ours, truth) <= tolerances.AMPLIFIED * _distance(caffe, truth)


@pytest.mark.parametrize("path", cases("solver", "*/case.json"))
def test_trajectory(path: Path) -> None:
    _, recorded, solver = _open(path)
    printed = {name: recorded[name] for name in ("printed_loss", "printed_lr")}
    recorded_steps = {int(key[1:].split(":")[0]) for key in recorded if key.startswith("w")}
    before = {key: t.detach().clone() for key, t in _named(solver)}
    apart: dict[int, float] = {}
    for i in range(len(printed["printed_loss"])):
        step = solver.step()
        if step.smoothed != pytest.approx(printed["printed_loss"][i], rel=tolerances.PRINTED):
            apart[i] = step.smoothed
        assert step.rate == pytest.approx(printed["printed_lr"][i], rel=tolerances.PRINTED)
        if i == 0:
            for key, tensor in _named(solver):
                if (update := recorded.get(f"update1:{key}")) is not None:
                    np.testing.assert_allclose(
                        (before[key] - tensor.detach()).numpy(), update, atol=1e-6
                    )
        if i + 1 in recorded_steps:
            _check(_weights(solver), _recorded(recorded, i + 1), lambda: _open(path)[2], i + 1)
    _check_losses(apart, printed["printed_loss"], _double(_open(path)[2]))


def _check_losses(apart: dict[int, float], printed: np.ndarray, exact: Solver) -> None:
    """Losses that differ by more than printing explains: as near to the float64 run as Caffe's."""
    while apart and exact.iteration <= max(apart):
        truth = exact.step()
        if truth.iteration in apart:
            caffe = abs(printed[truth.iteration] - truth.smoothed)
            assert caffe <= tolerances.ROUNDED_TWICE * abs(truth.smoothed)
            assert abs(apart[truth.iteration] - truth.smoothed) <= tolerances.AMPLIFIED * caffe


def _named(solver: Solver) -> list[tuple[str, Any]]:
    net = solver.net
    return [
        (f"{node.layer.name}/{p.key[1]}", net.param(p))
        for node in net.graph.nodes
        for p in node.params
    ]


@pytest.mark.parametrize("path", cases("solver", "*/case.json"))
def test_resume(path: Path, tmp_path: Path) -> None:
    """From Caffe's snapshot; and from ours of the same moment, which must hold what Caffe's
    holds."""
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
    _check(_weights(solver), _recorded(recorded, last), lambda: _open(path)[2], last)


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
@pytest.mark.parametrize(
    "path", sorted(DATA.glob("caffemodels/*/*.solverstate")), ids=lambda p: f"{p.parent.name}"
)
def test_real_state_loads(path: Path) -> None:
    state = read_state(path)
    weights = read_weights(next(path.parent.glob("*.caffemodel")))
    sizes = [blob.data.size for layer in weights.layers for blob in layer.blobs]
    assert [a.size for a in state.history] == sizes
    assert f"iter_{state.iteration}" in path.name
