"""What a training promises that its loss does not show: other dropout each time, statistics that no
decay touches, the right batches for whoever asks, and snapshots that go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from torch import Tensor

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, parse_net
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.training import snapshots
from caffe_compat.training.draws import Draws, Twister
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.solver import Solver

_ROWS = 7  # shared by no number of batches, so that a wrong place in the data shows
_DATA = """
layer { name: "d" type: "HDF5Data" top: "x" top: "y"
  hdf5_data_param { source: "rows.txt" batch_size: %d } }
"""
_NET = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p"
  inner_product_param { num_output: 1 weight_filler { value: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }
"""
_CONSTANT = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 10 }
  data_filler { value: 3 } } }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows to learn from, where relative names count from."""
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["x"] = file["y"] = np.arange(float(_ROWS))[:, None]
    (tmp_path / "rows.txt").write_text("rows.h5\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _solver(net: str, rule: str = "") -> Solver:
    Path("net.prototxt").write_text(net)
    return Solver(parse_solver(f'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" {rule}'))


def test_dropout_is_another_one_in_each_iteration(here: Path) -> None:
    """And the one that it would have been, where a training goes on."""
    drop = 'layer { name: "drop" type: "Dropout" bottom: "x" top: "z" }'
    net = _CONSTANT + drop + _NET.replace('"x"', '"z"').replace("num_output: 1", "num_output: 10")
    masks: list[tuple[bool, ...]] = []

    def watch(solver: Solver) -> Solver:
        solver.on_blobs = lambda blobs: masks.append(tuple((blobs["z"] != 0).flatten().tolist()))
        return solver

    solver = watch(_solver(net, 'snapshot_prefix: "s"'))
    solver.step()
    solver.step()
    _, state = solver.snapshot()
    solver.step()
    assert len(set(masks)) == 3
    again = watch(_solver(net))
    again.restore(state)
    again.step()
    assert masks[3] == masks[2]


@pytest.mark.parametrize("decay", [0, 0.1])
def test_decay_leaves_statistics_alone(here: Path, decay: float) -> None:
    """Two batches of 3: mean and factor are those of the moving average."""
    normal = 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "b" }'
    net = _CONSTANT + normal + _NET.replace('"x"', '"b"').replace("num_output: 1", "num_output: 10")
    solver = _solver(net, f"weight_decay: {decay}")
    solver.step()
    solver.step()
    mean, _, factor = solver.net.weights()["bn"]
    np.testing.assert_allclose(mean.data, 3 * 1.999, rtol=1e-6)
    assert factor.data.item() == pytest.approx(1.999)


def test_iterations_of_several_batches_go_on_in_their_place(here: Path) -> None:
    net, rule = _DATA % 1 + _NET, 'iter_size: 2 snapshot_prefix: "s"'
    whole = _solver(net, rule)
    losses = [whole.step().loss for _ in range(3)]
    _, state = whole.snapshot()
    losses += [whole.step().loss for _ in range(3)]
    again = _solver(net, rule)
    again.restore(state)
    assert [again.step().loss for _ in range(3)] == losses[3:]
    assert len(set(losses)) == len(losses)


def test_test_nets_stand_in_caffes_order_with_their_own_iterations(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those inside the solver, those of files of their own, and then the training net's."""
    one = """layer { name: "d" type: "DummyData" top: "%s" dummy_data_param { shape { dim: 1 }
      data_filler { type: "gaussian" } } }"""
    Path("own.prototxt").write_text(one % "own")
    tests = f'test_net: "own.prototxt" test_net_param {{ {one % "inside"} }} test_interval: 1'
    solver = _solver(_DATA % 1 + _NET, f"{tests} test_iter: 2 test_iter: 3 test_iter: 7")
    batches: list[str] = []
    tested = solver._tested_blobs

    def counted(net: Net, *args: Any) -> dict[str, Tensor]:
        batches.append(net.graph.outputs[0])
        return tested(net, *args)

    monkeypatch.setattr(solver, "_tested_blobs", counted)
    found = solver.test()
    assert [list(net) for net in found] == [["inside"], ["own"], ["loss"]]
    assert batches == ["inside"] * 2 + ["own"] * 3 + ["loss"] * 7
    values = 0.1 * np.arange(_ROWS) - np.arange(_ROWS)
    assert found[2]["loss"] == pytest.approx((values**2 / 2).mean(), rel=1e-5)


def test_processes_take_turns_in_the_batches(here: Path) -> None:
    net = parse_net(_DATA % 2)
    whole = DataFeed(net, "TRAIN", here)
    parts = [DataFeed(net, "TRAIN", here, share=(rank, 2)) for rank in range(2)]
    for number in range(6):
        np.testing.assert_array_equal(
            parts[number % 2].batch(number // 2, "cpu")["x"], whole.batch(number, "cpu")["x"]
        )


@pytest.mark.parametrize("kept", [True, False])
def test_solve_ends_with_a_snapshot(here: Path, kept: bool) -> None:
    Path("net.prototxt").write_text(_DATA % 1 + _NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 5 snapshot: 2 '
        f'snapshot_prefix: "s" snapshot_after_train: {str(kept).lower()}'
    )
    caffe.SGDSolver("solver.prototxt").solve()
    found = {int(path.stem.rpartition("_")[2]) for path in here.glob("s_iter_*.caffemodel")}
    assert found == ({2, 4, 5} if kept else {2, 4})


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_no_state_without_its_model(here: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = _solver(_DATA % 1 + _NET, f'snapshot_format: {form} snapshot_prefix: "s"')

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "write_weights", full)
    with pytest.raises(OSError, match="No space left"):
        solver.snapshot()
    assert not list(here.glob("s_*"))


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_histories_of_many_layers_keep_their_order(here: Path, form: str) -> None:
    """More than ten: names sorted as text would put 10 before 2."""
    chain = "".join(
        f'layer {{ name: "s{i}" type: "Scale" bottom: "{"x" if i == 0 else f"x{i}"}" '
        f'top: "x{i + 1}" scale_param {{ axis: 1 filler {{ value: {0.5 + 0.1 * i:.1f} }} }} }}\n'
        for i in range(12)
    )
    net = _CONSTANT + chain + 'layer { name: "l" type: "EuclideanLoss" bottom: "x12" bottom: "y" }'
    rule = f'momentum: 0.9 snapshot_format: {form} snapshot_prefix: "s"'
    solver = _solver(net, rule)
    for _ in range(3):
        solver.step()
    _, state = solver.snapshot()
    again = _solver(net, rule)
    again.restore(state)
    (ours,), (theirs,) = solver.histories, again.histories
    assert len({one.flatten()[0].item() for one in ours}) == 12
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_mirrors_of_a_test_net_are_those_of_the_solvers_seed(here: Path) -> None:
    """Caffe seeds the only layer with dice twice, so the second number of the solver's generator
    counts; a picture is mirrored where its own number is odd."""
    pictures = 8
    picture = np.zeros((1, 2, 3), np.uint8)
    picture[:, 1] = 1
    cv2.imwrite("right.png", picture)
    Path("list.txt").write_text("right.png 0\n" * pictures)
    Path("test.prototxt").write_text(
        'layer { name: "d" type: "ImageData" top: "x" top: "label" transform_param { mirror: true }'
        f' image_data_param {{ source: "list.txt" batch_size: {pictures} }} }}'
    )
    found = set()
    for seed in (3, 4, 5):
        tests = f'test_net: "test.prototxt" test_iter: 1 test_interval: 1 random_seed: {seed}'
        (means,) = _solver(
            _CONSTANT + _NET.replace("num_output: 1", "num_output: 10"), tests
        ).test()
        values = [means[f"x[{i}]"] for i in range(pictures * 3 * 2)]
        mirrored = tuple(value == 1 for value in values[::6])
        draws = Draws(seed)
        draws.draw()
        dice = Twister(draws.draw()).take(pictures)
        assert mirrored == tuple(number % 2 == 1 for number in dice)
        found.add(mirrored)
    assert len(found) == 3
