"""The face of pycaffe: recorded nets through it, and the small things that scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_compat.pycaffe as caffe
from caffe_compat.errors import CaffeCompatError
from caffe_compat.layers.loss import HingeLoss
from tests import tolerances
from tests.paths import GOLDEN, listed
from tests.replay import relative_error

_INDEX = GOLDEN / "layers" / "index.json"
_CASES: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []

_TEXT = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
force_backward: true
"""


@pytest.fixture
def small(tmp_path: Path) -> caffe.Net:
    (tmp_path / "small.prototxt").write_text(_TEXT)
    return caffe.Net(str(tmp_path / "small.prototxt"), caffe.TEST)


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _CASES))
def test_recorded_nets(case: dict[str, Any]) -> None:
    """Every blob and gradient equals the real Caffe's, through the arrays that a script sees."""
    with np.load(GOLDEN / "layers" / f"{case['name']}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    phase = caffe.TRAIN if case["phase"] == "TRAIN" else caffe.TEST
    net = caffe.Net(
        GOLDEN / "layers" / f"{case['name']}.prototxt",
        phase,
        level=case["level"],
        stages=case["stages"],
    )
    for key, value in arrays.items():
        layer, _, index = key.partition(":")[2].rpartition("/")
        if key.startswith("in:"):
            net.blobs[key[3:]].data[...] = value
        elif key.startswith("param:"):
            net.params[layer][int(index)].data[...] = value
    outputs = net.forward()
    assert set(outputs) == set(net.outputs)
    errors = {}
    for key, value in arrays.items():
        name = key.partition(":")[2]
        if key.startswith("blob:") and name in net.blobs:
            errors[key] = relative_error(net.blobs[name].data.copy(), value)
    if case["backward"]:
        in_place = {
            n for layer, tops in net.top_names.items() for n in tops if n in net.bottom_names[layer]
        }
        ends = {key[8:] for key in arrays if key.startswith("topdiff:")}
        for name in ends & set(net.blobs):
            start = arrays[f"topdiff:{name}"] if name in in_place else arrays[f"diff:{name}"]
            net.blobs[name].diff[...] = start.reshape(net.blobs[name].shape)
        # the recorder cleared the diffs between the passes, where HingeLoss keeps its margins
        cleared = {n.bottoms[0] for n in net._graph.nodes if isinstance(n.layer, HingeLoss)}
        net.backward()
        for key, value in arrays.items():
            kind, _, name = key.partition(":")
            layer, _, index = name.rpartition("/")
            if (
                kind == "diff"
                and name in net.blobs
                and name not in ends - in_place
                and name not in cleared
            ):
                errors[key] = relative_error(net.blobs[name].diff.copy(), value)
            elif kind == "pdiff":
                errors[key] = relative_error(net.params[layer][int(index)].diff.copy(), value)
    assert errors
    assert not {key: value for key, value in errors.items() if not value <= tolerances.LAYER}


def test_arrays_are_what_the_net_computes_with(small: caffe.Net) -> None:
    rng = np.random.default_rng(0)
    kept = small.blobs["data"].data
    kept[...] = rng.standard_normal(kept.shape)
    weights = small.params["conv"][0].data
    first = small.forward()["prob"].copy()
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-5)
    weights *= 2  # kept by the script, written without a word to the net
    second = small.forward(blobs=["conv"])
    assert np.abs(second["prob"] - first).max() > 1e-3
    assert (second["conv"] >= 0).all()
    assert small.blobs["data"].data is kept
    assert small.inputs == ["data"]
    assert small.outputs == ["prob"]
    assert [layer.type for layer in small.layers] == [
        "Input",
        "Convolution",
        "ReLU",
        "InnerProduct",
        "Softmax",
    ]
    blob = small.blobs["conv"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 4, 4, 3, 96)


def test_inner_blobs_are_those_of_the_last_pass(small: caffe.Net) -> None:
    """Looked at late, after the input was written for the next pass."""
    small.forward(data=np.ones((2, 3, 6, 5)))
    small.blobs["data"].data[...] = 5
    late = small.blobs["ip"].data.copy()
    np.testing.assert_array_equal(
        small.forward(blobs=["ip"], data=np.ones((2, 3, 6, 5)))["ip"], late
    )


def test_other_sizes(small: caffe.Net) -> None:
    small.blobs["data"].reshape(5, 3, 6, 5)
    small.reshape()
    assert small.blobs["prob"].shape == (5, 2)
    assert small.forward()["prob"].shape == (5, 2)
    data = np.random.default_rng(1).standard_normal((7, 3, 6, 5)).astype(np.float32)
    every = small.forward_all(data=data)["prob"]
    assert every.shape == (7, 2)
    small.blobs["data"].reshape(7, 3, 6, 5)
    np.testing.assert_allclose(small.forward(data=data)["prob"], every, rtol=1e-5)


def test_parts_of_a_net(small: caffe.Net) -> None:
    """From a layer, to a layer, forward and backward."""
    rng = np.random.default_rng(2)
    whole = small.forward(data=rng.standard_normal((2, 3, 6, 5)))["prob"].copy()
    np.testing.assert_array_equal(small.forward(start="ip")["prob"], whole)
    assert set(small.forward(end="relu")) == {"conv"}
    small.blobs["ip"].data[...] = [[0, 0], [3, 3]]
    np.testing.assert_allclose(small.forward(start="prob")["prob"], 0.5)
    small.forward()
    found = small.backward(prob=np.array([[1, 0], [0, 1]]))["data"].copy()
    gradient = small.params["ip"][0].diff.copy()
    assert np.abs(found).max() > 0
    small.backward(prob=np.array([[1, 0], [0, 1]]))
    np.testing.assert_allclose(
        small.params["ip"][0].diff, 2 * gradient, rtol=1e-5
    )  # they add up, as in Caffe
    small.clear_param_diffs()
    assert not small.params["ip"][0].diff.any()
    inner = small.blobs["ip"].diff.copy()
    assert set(small.backward(start="ip", end="ip")) == {"conv"}
    np.testing.assert_allclose(small.params["ip"][0].diff, gradient, rtol=1e-5)
    np.testing.assert_array_equal(small.blobs["ip"].diff, inner)


def test_old_constructor_saving_and_copying(small: caffe.Net, tmp_path: Path) -> None:
    small.blobs["data"].data[...] = 1
    wanted = small.forward()["prob"].copy()
    for name in ("w.caffemodel", "w.caffemodel.h5"):
        small.save(tmp_path / name)
        for net in (
            caffe.Net(str(tmp_path / "small.prototxt"), str(tmp_path / name), caffe.TEST),
            caffe.Net(str(tmp_path / "small.prototxt"), caffe.TEST, weights=str(tmp_path / name)),
        ):
            np.testing.assert_array_equal(net.forward(data=np.ones((2, 3, 6, 5)))["prob"], wanted)
    other = caffe.Net(str(tmp_path / "small.prototxt"), caffe.TEST)
    other.params["ip"][0].data[...] = 0
    other.copy_from(tmp_path / "w.caffemodel")
    np.testing.assert_array_equal(other.forward(data=np.ones((2, 3, 6, 5)))["prob"], wanted)


def test_mistakes_are_told(small: caffe.Net, tmp_path: Path) -> None:
    for run, said in (
        (lambda: caffe.Net(str(tmp_path / "small.prototxt")), "give the phase"),
        (
            lambda: small.forward(data=np.zeros((1, 3, 6, 5))),
            r"\(2, 3, 6, 5\), \(1, 3, 6, 5\) was given",
        ),
        (lambda: small.forward(image=np.zeros(1)), "'image' is none of data"),
        (lambda: small.forward(blobs=["nothing"]), "no blob is called nothing"),
        (
            lambda: small.forward(start="nothing"),
            "no layer is called 'nothing'; layers: data, conv",
        ),
        (lambda: small.forward(start="prob", end="conv"), "comes after"),
    ):
        with pytest.raises(CaffeCompatError, match=said):
            run()


def test_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, snapshots, going on; blobs after a step are those from before the update."""
    monkeypatch.chdir(tmp_path)
    net = _TEXT.replace(
        'type: "Input" top: "data" input_param {',
        'type: "DummyData" top: "data" dummy_data_param { data_filler { type: "constant" value: '
        "0.5 }",
    )
    net += 'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }'
    net = net.replace(
        'layer { name: "conv"',
        'layer { name: "label" type: "DummyData" top: "label" dummy_data_param { shape { dim: 2 '
        'dim: 2 } data_filler { type: "constant" value: 1 } } }\nlayer { name: "conv"',
        1,
    )
    Path("train.prototxt").write_text(net)
    Path("solver.prototxt").write_text(
        'net: "train.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 6 '
        'snapshot: 3 snapshot_prefix: "s" random_seed: 3 type: "Adam"'
    )
    with pytest.raises(CaffeCompatError, match="use get_solver"):
        caffe.SGDSolver("solver.prototxt")
    solver = caffe.get_solver("solver.prototxt")
    assert isinstance(solver, caffe.AdamSolver)
    weights = solver.net.params["ip"][0].data
    before = weights.copy()
    solver.step(1)
    assert solver.iter == 1
    assert np.abs(weights - before).max() > 1e-3  # the same memory
    ip = solver.net.blobs["ip"].data
    assert float(solver.net.blobs["loss"].data) == pytest.approx(
        ((ip - 1) ** 2).sum() / 4, rel=1e-5
    )
    expected = solver.net.blobs["conv"].data.reshape(2, -1) @ before.T + 0
    np.testing.assert_allclose(ip, expected, rtol=1e-4, atol=1e-6)
    solver.solve()
    assert solver.iter == 6
    last = weights.copy()
    again = caffe.get_solver("solver.prototxt")
    again.solve("s_iter_3.solverstate")
    np.testing.assert_array_equal(again.net.params["ip"][0].data, last)
    assert Path("s_iter_6.caffemodel").exists()
