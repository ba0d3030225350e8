"""No solver field is read and then dropped: each one changes a training, or a note names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caffe_compat import Net, read_net, write_weights
from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.training.solver import Solver
from reproduce.train.run import run

_LAYERS = """
layer { name: "d" type: "DummyData" top: "x" top: "t"
        dummy_data_param { shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: %s } } }
layer { name: "more" type: "Power" bottom: "y" top: "z" power_param { scale: 3 }
        include { stage: "more" } }
layer { name: "loss" type: "EuclideanLoss" bottom: "%s" bottom: "t" top: "loss" }
"""
_NET, _OTHER = _LAYERS % ("1", "y"), _LAYERS % ("2", "y")
_BASE = {
    "net": '"net.prototxt"',
    "base_lr": "0.1",
    "lr_policy": '"fixed"',
    "max_iter": "4",
    "display": "1",
    "test_iter": "1",
    "test_interval": "2",
    "snapshot": "3",
    "snapshot_prefix": '"s"',
    "random_seed": "5",
}
_OWN_NETS = {"net": None, "train_net": '"net.prototxt"', "test_net": '"net.prototxt"'}

# What each field is changed to, and what else the solver then has (None: nothing of that name).
_CHANGES: dict[str, tuple[dict[str, str | None], str]] = {
    "train_net": (_OWN_NETS, '"other.prototxt"'),
    "test_net": ({**_OWN_NETS, "test_compute_loss": "true"}, '"short.prototxt"'),
    "test_iter": ({}, "2"),
    "test_interval": ({}, "3"),
    "base_lr": ({}, "0.2"),
    "display": ({}, "2"),
    "max_iter": ({}, "5"),
    "lr_policy": ({"gamma": "0.5"}, '"exp"'),
    "gamma": ({"lr_policy": '"exp"', "gamma": "0.9"}, "0.5"),
    "power": ({"lr_policy": '"inv"', "gamma": "0.9", "power": "1"}, "2"),
    "momentum": ({}, "0.5"),
    "weight_decay": ({}, "0.5"),
    "stepsize": ({"lr_policy": '"step"', "gamma": "0.5", "stepsize": "1"}, "2"),
    "snapshot": ({}, "2"),
    "snapshot_prefix": ({}, '"other"'),
    "snapshot_diff": ({}, "true"),
    "solver_mode": ({}, "GPU"),
    "device_id": ({}, "1"),
    "test_compute_loss": ({}, "true"),
    "random_seed": ({}, "6"),
    "train_net_param": ({"net": None, "test_iter": None}, f"{{ {_OTHER} }}"),
    "test_net_param": ({"test_compute_loss": "true"}, f"{{ {_LAYERS % ('1', 'x')} }}"),
    "debug_info": ({}, "true"),
    "net": ({}, '"other.prototxt"'),
    "net_param": ({"net": None, "net_param": f"{{ {_NET} }}"}, f"{{ {_OTHER} }}"),
    "train_state": ({}, '{ stage: "more" }'),
    "test_state": ({"test_compute_loss": "true"}, '{ stage: "more" }'),
    "snapshot_after_train": ({}, "false"),
    "regularization_type": ({"weight_decay": "0.5"}, '"L1"'),
    "solver_type": ({"momentum": "0.5"}, "NESTEROV"),
    "delta": ({"type": '"AdaGrad"'}, "0.1"),
    "test_initialization": ({}, "false"),
    "average_loss": ({}, "3"),
    "stepvalue": ({"lr_policy": '"multistep"', "gamma": "0.5", "stepvalue": "1"}, "2"),
    "clip_gradients": ({}, "0.01"),
    "iter_size": ({}, "2"),
    "snapshot_format": ({}, "HDF5"),
    "rms_decay": ({"type": '"RMSProp"', "rms_decay": "0.9"}, "0.5"),
    "momentum2": ({"type": '"Adam"', "momentum": "0.9"}, "0.9"),
    "type": ({"momentum": "0.5"}, '"Nesterov"'),
    "layer_wise_reduce": ({}, "false"),
    "ap_version": ({}, '"11point"'),
    "plateau_winsize": ({}, "3"),
    "show_per_class_result": ({}, "true"),
    "weights": ({}, '"w.caffemodel"'),
}
# Nothing of a training changes with these; a note says so.
_NOTED = {"solver_mode", "device_id", "debug_info", "snapshot_diff", "layer_wise_reduce"}
_NOTED |= {"ap_version", "plateau_winsize", "show_per_class_result"}  # of SSD's own tests
_REFUSED = {"eval_type"}  # in test_training, with what else a definition may not say


def _outcome(folder: Path, fields: dict[str, str | None]) -> tuple[Any, list[str]]:
    """What a training does (log, tests, weights, files), and its notes."""
    folder.mkdir()
    (folder / "net.prototxt").write_text(_NET)
    (folder / "other.prototxt").write_text(_OTHER)
    (folder / "short.prototxt").write_text(_LAYERS % ("1", "x"))
    net = Net(read_net(folder / "other.prototxt"), phase="TRAIN", seed=9)
    write_weights(folder / "w.caffemodel", net.weights(), net.graph.spec)
    text = " ".join(f"{n}{'' if v[0] == '{' else ':'} {v}" for n, v in fields.items() if v)
    solver = Solver(parse_solver(text), root=folder)
    lines: list[str] = []
    seen: list[Any] = []
    run(
        solver,
        say=lambda line: lines.append(line.replace(str(folder), "")),
        watch=lambda report: seen.append((report.iteration, report.loss, report.rate)),
    )
    tests = [line for line in lines if not line.startswith("iteration")]
    weights = [tensor.tolist() for _, _, tensor in solver.net.owned_params()]
    files = sorted(path.name for path in folder.iterdir())
    layers = [node.layer.name for node in solver.net.graph.nodes]
    return (seen, tests, weights, files, layers), solver.warnings


def test_every_field_is_walked() -> None:
    assert _CHANGES.keys() | _REFUSED == set(schema.known_fields("SolverParameter"))


@pytest.mark.long
@pytest.mark.parametrize("name", list(_CHANGES))
def test_every_solver_field_changes_a_training(name: str, tmp_path: Path) -> None:
    """Or has no meaning here, which a note says."""
    beside, value = _CHANGES[name]
    before = {**_BASE, **beside}
    after = {**before, name: value}
    if name == "train_net_param":  # the training net may only stand in one place
        before["net_param"] = f"{{ {_NET} }}"
    first, _ = _outcome(tmp_path / "first", before)
    second, notes = _outcome(tmp_path / "second", after)
    assert any(note.startswith(f"{name} ") for note in notes) == (name in _NOTED)
    assert (first == second) == (name in _NOTED)


def test_the_mode_that_a_training_has_is_no_news(tmp_path: Path) -> None:
    """A note is for a mode that the training does not have: it tells where it runs."""
    assert _outcome(tmp_path / "same", {**_BASE, "solver_mode": "CPU"})[1] == []
    (note,) = _outcome(tmp_path / "other", {**_BASE, "solver_mode": "GPU"})[1]
    assert note == "solver_mode GPU has no effect: this trains on cpu"
