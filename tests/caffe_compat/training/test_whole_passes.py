"""A training runs every layer, whether a loss needs it or not, with one set of parameters for all
its nets, and ends where it is asked to."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import caffe_compat.pycaffe as caffe
from caffe_compat.definition.prototxt import read_solver
from caffe_compat.training.solver import Solver
from reproduce.train import run

_TEXT = """
layer { name: "d" type: "DummyData" top: "a" top: "y" dummy_data_param {
  shape { dim: 4 dim: 2 } shape { dim: 4 dim: 3 }
  data_filler { type: "constant" value: 3 } data_filler { type: "constant" value: 1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "n" }
layer { name: "aux" type: "InnerProduct" bottom: "n" top: "aux" inner_product_param { num_output: 3 } }
layer { name: "quiet" type: "Silence" bottom: "aux" }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def test_statistics_of_a_branch_without_a_loss(tmp_path: Path) -> None:
    """Two passes leave the same statistics, by whichever way they are made."""
    net, path = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text(_TEXT)
    path.write_text(f'net: "{net}" base_lr: 0.01 lr_policy: "fixed" max_iter: 2')
    solver = Solver(read_solver(path), root=tmp_path)
    solver.step()
    solver.step()
    (bn,) = [entry for entry in solver.net.weights().layers if entry.name == "bn"]
    face = caffe.SGDSolver(str(path))
    face.step(2)
    alone = caffe.Net(str(net), caffe.TRAIN)
    alone.forward()
    alone.forward()
    for found in (
        [blob.data for blob in bn.blobs],
        [blob.data for blob in face.net.params["bn"]],
        [blob.data for blob in alone.params["bn"]],
    ):
        assert found[2].item() == pytest.approx(1.999)
        np.testing.assert_allclose(found[0].ravel(), 3 * 1.999, rtol=1e-6)


_SHARED = """
layer { name: "d" type: "DummyData" top: "a" include { phase: TRAIN } dummy_data_param {
  shape { dim: 4 dim: 2 } data_filler { type: "constant" value: 2 } } }
layer { name: "d" type: "DummyData" top: "a" include { phase: TEST } dummy_data_param {
  shape { dim: 4 dim: 2 } data_filler { type: "constant" value: 100 } } }
layer { name: "y" type: "DummyData" top: "y" dummy_data_param { shape { dim: 4 dim: 3 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "n" batch_norm_param { use_global_stats: false } }
layer { name: "side" type: "InnerProduct" bottom: "a" top: "side" inner_product_param { num_output: 1
  weight_filler { type: "constant" value: 1 } bias_term: false } }
layer { name: "quiet" type: "Silence" bottom: "side" bottom: "n" }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
_RULE = 'base_lr: 0.01 lr_policy: "fixed" max_iter: 9 test_iter: 5 test_interval: 1'


def _face(folder: Path, rule: str = _RULE, text: str = _SHARED) -> caffe.SGDSolver:
    (folder / "net.prototxt").write_text(text)
    path = folder / "solver.prototxt"
    path.write_text(f'net: "{folder}/net.prototxt" snapshot_prefix: "{folder}/s" {rule}')
    return caffe.SGDSolver(str(path))


def test_a_test_net_has_the_parameters_of_the_training(tmp_path: Path) -> None:
    """Also one that a script keeps; what is written into it is the training's, too."""
    solver = _face(tmp_path)
    (kept,) = solver.test_nets
    seen = []
    for _ in range(3):
        solver.step(1)
        kept.forward()
        np.testing.assert_array_equal(kept.params["ip"][0].data, solver.net.params["ip"][0].data)
        seen.append(float(kept.blobs["loss"].data))
    assert len(set(seen)) == 3
    kept.params["ip"][0].data[...] = 7
    before = solver.net.params["ip"][0].data.copy()
    solver.step(1)
    assert (before == 7).all()
    assert not (solver.net.params["ip"][0].data == 7).any()
    solver.net.save(tmp_path / "w.caffemodel")
    wanted = solver.net.params["ip"][0].data.copy()
    solver.step(2)
    kept.copy_from(tmp_path / "w.caffemodel")
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, wanted)


def test_statistics_that_a_test_changes_are_the_trainings(tmp_path: Path) -> None:
    """Five batches of 100 before each of two of 2, by a script's solver and by ours."""
    total = factor = 0.0
    for value in [*[100.0] * 5, 2.0] * 2:
        total, factor = 0.999 * total + value, 0.999 * factor + 1
    face = _face(tmp_path)
    face.step(2)
    plain = Solver(read_solver(tmp_path / "solver.prototxt"), root=tmp_path)
    for _ in range(2):
        plain.test()
        plain.step()
    (bn,) = [entry for entry in plain.net.weights().layers if entry.name == "bn"]
    for blobs in (face.net.params["bn"], bn.blobs):
        assert blobs[2].data.item() == pytest.approx(factor)
        np.testing.assert_allclose(blobs[0].data.ravel(), total, rtol=1e-5)


def test_what_a_script_writes_into_constant_data_is_trained_on(tmp_path: Path) -> None:
    solver = _face(tmp_path, _RULE.replace("test_iter: 5 test_interval: 1", ""))
    solver.net.params["ip"][0].data[...] = 0.5
    solver.net.blobs["a"].data[...] = 1
    solver.net.blobs["y"].data[...] = 5
    solver.step(1)
    assert solver.net.blobs["a"].data.tolist() == [[1, 1]] * 4
    assert float(solver.net.blobs["loss"].data) == pytest.approx(3 * 4**2 / 2)
    assert (solver.net.params["ip"][0].data > 0.5).all()


def test_a_callback_that_does_nothing_changes_nothing(tmp_path: Path) -> None:
    """A parameter without a way to the loss decays, and no more."""
    rule = 'base_lr: 1 weight_decay: 0.1 lr_policy: "fixed" max_iter: 9'
    for looked_at in (False, True):
        solver = _face(tmp_path, rule)
        if looked_at:
            solver.add_callback(lambda: None, lambda: None)
        seen = []
        for _ in range(4):
            solver.step(1)
            seen.append(solver.net.params["side"][0].data[0, 0])
        np.testing.assert_allclose(seen, [0.9**n for n in range(1, 5)], rtol=1e-5)


@pytest.mark.parametrize("asked_in", [1, 3, 7])
def test_a_test_is_broken_off(
    asked_in: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the midst of a test waits for one batch, not for all of them, and no iteration
    follows; the snapshot that the advice names is there."""
    _face(tmp_path, _RULE.replace("test_iter: 5", "test_iter: 1000 snapshot: 1"))
    solver = Solver(read_solver(tmp_path / "solver.prototxt"), root=tmp_path)
    solver.step()
    tested, batches = Solver._tested_blobs, []

    def interrupting(self: Solver, *args: Any) -> dict[str, Tensor]:
        batches.append(1)
        if len(batches) == asked_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return tested(self, *args)

    monkeypatch.setattr(Solver, "_tested_blobs", interrupting)
    lines: list[str] = []
    assert not run.run(solver, say=lines.append)
    assert len(batches) == asked_in
    assert solver.iteration == 1
    assert "test net 0: interrupted" in lines
    assert (tmp_path / "s_iter_1.solverstate").exists()


_PLAIN = """
layer { name: "d" type: "DummyData" top: "a" top: "y" dummy_data_param { shape { dim: 4 dim: 2 }
  shape { dim: 4 dim: 3 } data_filler { type: "constant" value: 100 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "out" type: "Power" bottom: "ip" top: "out" power_param { scale: 2 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "y" top: "loss" }
"""


@pytest.mark.parametrize("change", ["forward", "copy_from", "apply_update", "restore"])
def test_a_pass_keeps_its_parameters(change: str, tmp_path: Path) -> None:
    """What is first looked at after the training's parameters changed is of the pass before."""
    solver = _face(
        tmp_path,
        'base_lr: 0.01 lr_policy: "fixed" max_iter: 9 test_iter: 1 test_interval: 100',
        _PLAIN,
    )
    solver.snapshot()
    solver.net.save(tmp_path / "zero.caffemodel")
    solver.net.params["ip"][0].data[...] = 0.25
    (tested,) = solver.test_nets
    tested.forward()
    solver.net.forward()
    solver.net.backward()
    tested.forward()
    if change == "forward":
        solver.net.params["ip"][0].data[...] = 7
        solver.net.forward()
    elif change == "copy_from":
        solver.net.copy_from(tmp_path / "zero.caffemodel")
    elif change == "apply_update":
        solver.apply_update()
    else:
        solver.restore(tmp_path / "s_iter_0.solverstate")
    np.testing.assert_allclose(tested.blobs["ip"].data, 50)
    np.testing.assert_allclose(tested.blobs["out"].data, 100)
    assert (solver.net.params["ip"][0].data != 0.25).any()
