"""What scripts for Caffe's Python module rely on, beyond the numbers."""

from __future__ import annotations

import copy
import gc
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe_compat.pycaffe as caffe
from caffe_compat.engine import plan
from caffe_compat.errors import CaffeCompatError, UnsupportedLayer
from caffe_compat.pycaffe.proto import caffe_pb2
from tests.paths import GOLDEN, REPORTED, ROOT, reported

_NET = """
name: "test" force_backward: true
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 5 dim: 2 dim: 3 dim: 4 } shape { dim: 5 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
  num_output: 11 kernel_size: 2 pad: 3 weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 2 } }
  param { decay_mult: 1 } param { decay_mult: 0 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip_blob" inner_product_param {
  num_output: 13 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip_blob" bottom: "label" top: "loss" }
"""
_DEPLOY = """
input: "data" input_shape { dim: 2 dim: 3 dim: 9 dim: 9 } force_backward: true
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def _write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    return caffe.Net(_write(tmp_path, "net.prototxt", _NET), caffe.TRAIN)


@pytest.fixture
def deploy(tmp_path: Path) -> caffe.Net:
    return caffe.Net(_write(tmp_path, "deploy.prototxt", _DEPLOY), caffe.TEST)


# ------------------------------------------------------------ nets


def test_arrays_outlive_the_net(net: caffe.Net) -> None:
    arrays = [b.data for blobs in net.params.values() for b in blobs]
    arrays += [b.diff for b in net.blobs.values()]
    layer = net.layers[1]
    del net
    gc.collect()
    assert sum(float(a.sum()) for a in arrays) != 0
    assert layer.blobs[1].data.sum() == 22


def test_layers_and_names(net: caffe.Net) -> None:
    assert list(net.layer_dict) == list(net._layer_names) == ["data", "conv", "ip", "loss"]
    for name, layer in zip(net._layer_names, net.layers, strict=True):
        assert net.layer_dict[name].type == layer.type
    assert net.inputs == []
    assert net.outputs == ["loss"]
    assert net.bottom_names["loss"] == ["ip_blob", "label"]
    assert net.top_names["data"] == ["data", "label"]
    assert net.blob_loss_weights["loss"] == 1
    assert net.blob_loss_weights["conv"] == 0
    assert [net._blob_names[i] for i in net._top_ids(0)] == ["data", "label"]
    assert [net._blob_names[i] for i in net._bottom_ids(3)] == ["ip_blob", "label"]
    assert len(net._blobs) == len(net.blobs)


def test_forward_and_backward_and_their_parts(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    conv, loss = net.blobs["conv"].data.copy(), net.blobs["loss"].data.copy()
    assert set(net.forward(start="ip", end="ip")) == {"ip_blob"}
    np.testing.assert_array_equal(net.blobs["conv"].data, conv)
    np.testing.assert_array_equal(net.forward(start="loss")["loss"], loss)
    net.backward(start="loss", end="ip")
    assert net.params["ip"][0].diff.any()
    net.clear_param_diffs()
    assert not any(b.diff.any() for blobs in net.params.values() for b in blobs)


def test_models_in_both_formats(net: caffe.Net, tmp_path: Path) -> None:
    net.params["conv"][0].data[...] = 7
    for name in ("a.caffemodel", "a.h5", "a.hdf5", "oddname"):
        path = tmp_path / name
        if name == "a.caffemodel":
            net.save(str(path))
        else:
            net.save_hdf5(str(path))
            assert path.read_bytes().startswith(b"\x89HDF")
        other = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
        other.load_hdf5(str(path)) if name != "a.caffemodel" else other.copy_from(str(path))
        for layer, blobs in net.params.items():
            for one, two in zip(blobs, other.params[layer], strict=True):
                np.testing.assert_array_equal(one.data, two.data)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.caffemodel",
        "a.h5",
        "a.hdf5",
        "net.prototxt",
        "oddname",
    ]


def test_gradients_in_an_hdf5_model(net: caffe.Net, tmp_path: Path) -> None:
    """Beside the values, under the same names; a model without them has no such group."""
    net.forward()
    net.backward()
    net.save_hdf5(str(tmp_path / "a.h5"), write_diff=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"data", "diff"}
        assert set(file["diff"]) == set(file["data"])
        for layer, blobs in net.params.items():
            assert any(blob.diff.any() for blob in blobs)
            for index, blob in enumerate(blobs):
                np.testing.assert_array_equal(file[f"data/{layer}/{index}"], blob.data)
                np.testing.assert_array_equal(file[f"diff/{layer}/{index}"], blob.diff)
    other = caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "a.h5"), caffe.TEST)
    np.testing.assert_array_equal(other.params["ip"][0].data, net.params["ip"][0].data)
    net.save_hdf5(str(tmp_path / "plain.h5"))
    with h5py.File(tmp_path / "plain.h5") as file:
        assert set(file) == {"data"}


def test_gradients_of_a_shared_parameter(tmp_path: Path) -> None:
    """Caffe writes its values with the first layer alone, its gradient with both."""
    text = """
    input: "x" input_shape { dim: 2 dim: 3 } force_backward: true
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false } }"""
    net = caffe.Net(_write(tmp_path, "net.prototxt", text), caffe.TRAIN)
    net.forward(x=np.ones((2, 3)))
    net.backward(b=np.ones((2, 3)))
    net.save_hdf5(str(tmp_path / "a.h5"), write_diff=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert (list(file["data/a"]), list(file["data/b"])) == (["0"], [])
        assert file["diff/a/0"][()].any()
        np.testing.assert_array_equal(file["diff/a/0"], file["diff/b/0"])


def test_a_script_trains_in_one_process() -> None:
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(False)
    with pytest.raises(CaffeCompatError, match=r"set_solver_count\(2\): expected 1; .*torchrun"):
        caffe.set_solver_count(2)
    with pytest.raises(CaffeCompatError, match=r"set_solver_rank\(1\): expected 0; .*torchrun"):
        caffe.set_solver_rank(1)
    with pytest.raises(CaffeCompatError, match=r"set_multiprocess\(True\): expected False; "):
        caffe.set_multiprocess(True)


def test_missing_files_are_runtime_errors(tmp_path: Path, deploy: caffe.Net) -> None:
    there = str(tmp_path / "deploy.prototxt")
    for run in (
        lambda: caffe.Net("none.prototxt", caffe.TEST),
        lambda: caffe.Net(there, "none.caffemodel", caffe.TEST),
        lambda: caffe.Net(there, caffe.TEST, weights="none.caffemodel"),
        lambda: caffe.Net(str(tmp_path), caffe.TEST),
        lambda: caffe.SGDSolver("none.prototxt"),
        lambda: caffe.get_solver("none.prototxt"),
        lambda: deploy.copy_from("none.caffemodel"),
        lambda: deploy.load_hdf5("none.h5"),
    ):
        with pytest.raises(RuntimeError, match="there is no such file"):
            run()


def test_missing_files_of_solvers_are_runtime_errors(tmp_path: Path, net: caffe.Net) -> None:
    """States, and the nets and weights that a definition names."""
    there = tmp_path / "net.prototxt"
    more = "lr_policy: 'fixed' base_lr: 0.1 max_iter: 1"
    solver = caffe.SGDSolver(_write(tmp_path, "good.prototxt", f"net: '{there}' {more}"))
    tests = "test_iter: 1 test_interval: 1"
    bad = [
        _write(tmp_path, f"bad{number}.prototxt", f"{named} {more}")
        for number, named in enumerate(
            (
                "net: 'none.prototxt'",
                "train_net: 'none.prototxt'",
                f"net: '{there}' test_net: 'none.prototxt' {tests}",
                f"net: '{there}' weights: 'none.caffemodel'",
            )
        )
    ]
    runs: list[Callable[[], object]] = [
        lambda: solver.restore("none.solverstate"),
        lambda: solver.solve("none.solverstate"),
        *(partial(caffe.SGDSolver, path) for path in bad),
        *(partial(caffe.get_solver, path) for path in bad),
    ]
    for run in runs:
        with pytest.raises(RuntimeError, match="there is no such file"):
            run()
    assert solver.iter == 0


def test_states_of_nets(tmp_path: Path) -> None:
    text = (
        'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }'
    )
    for name, rule in (
        ("none", ""),
        ("zero", "include { min_level: 0 }"),
        ("one", "include { min_level: 1 }"),
        ("deploy", 'include { stage: "deploy" }'),
        ("train", "include { phase: TRAIN }"),
    ):
        text += f'layer {{ name: "{name}" type: "ReLU" bottom: "data" top: "{name}" {rule} }}\n'
    path = _write(tmp_path, "states.prototxt", text)

    def layers(*args: object, **options: object) -> set[str]:
        return set(caffe.Net(path, *args, **options).layer_dict) - {"data"}  # type: ignore[arg-type]

    assert layers(caffe.TEST) == {"none", "zero"}
    assert layers(caffe.TRAIN) == {"none", "zero", "train"}
    assert layers(caffe.TEST, level=1) == layers(caffe.TEST, 1) == {"none", "zero", "one"}
    assert layers(caffe.TEST, stages=["deploy"]) == {"none", "zero", "deploy"}
    assert layers(caffe.TEST, 0, ["deploy"]) == {"none", "zero", "deploy"}
    assert layers(phase=caffe.TEST, stages=None) == {"none", "zero"}
    text = 'input: "x" input_shape { dim: 1 dim: 2 } layer { name: "p" type: "Power" bottom: "x" '
    text += 'top: "p" include { min_level: 1 } power_param { scale: 5 } }'
    net = caffe.Net(_write(tmp_path, "level.prototxt", text), caffe.TEST, level=1)
    net.blobs["x"].reshape(3, 2)
    net.reshape()
    assert net.blobs["p"].shape == (3, 2)
    np.testing.assert_array_equal(net.forward(x=np.ones((3, 2)))["p"], np.full((3, 2), 5))


def test_sharing(deploy: caffe.Net, tmp_path: Path) -> None:
    """What changes in one net changes in the other, whichever it is, whenever it is."""
    other = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    data = np.random.default_rng(0).standard_normal((2, 3, 9, 9))
    other.params["ip"][0].data[...] *= 2
    assert not np.array_equal(deploy.forward(data=data)["prob"], other.forward(data=data)["prob"])
    other.share_with(deploy)
    np.testing.assert_array_equal(
        deploy.forward(data=data)["prob"], other.forward(data=data)["prob"]
    )
    other.params["ip"][0].data[1] *= -3
    changed = deploy.forward(data=data)["prob"].copy()
    np.testing.assert_array_equal(other.forward(data=data)["prob"], changed)
    deploy.params["conv"][0].data[...] = 1
    assert other.params["conv"][0].data[0, 0, 0, 0] == 1
    np.testing.assert_array_equal(
        other.forward(data=data)["prob"], deploy.forward(data=data)["prob"]
    )
    wrong = caffe.Net(
        _write(tmp_path, "w.prototxt", _DEPLOY.replace("num_output: 5", "num_output: 6")),
        caffe.TEST,
    )
    with pytest.raises(CaffeCompatError, match="layer 'ip'"):
        wrong.share_with(deploy)


def test_whole_sets(deploy: caffe.Net) -> None:
    data = np.random.default_rng(1).standard_normal((5, 3, 9, 9)).astype(np.float32)
    found = deploy.forward_all(blobs=["conv", "ip"], data=data)
    assert {name: a.shape for name, a in found.items()} == {
        "prob": (5, 5),
        "conv": (5, 4, 7, 7),
        "ip": (5, 5),
    }
    np.testing.assert_array_equal(deploy.forward_all(["conv"], data=data)["conv"], found["conv"])
    starts = np.random.default_rng(2).standard_normal((5, 5)).astype(np.float32)
    outputs, gradients = deploy.forward_backward_all(
        blobs=["ip"], diffs=["conv"], data=data, prob=starts
    )
    np.testing.assert_allclose(outputs["prob"], found["prob"], rtol=1e-5)
    assert gradients["data"].shape == data.shape
    assert gradients["conv"].shape == (5, 4, 7, 7)
    deploy.blobs["data"].reshape(5, 3, 9, 9)
    deploy.reshape()
    deploy.forward(data=data)
    expected = deploy.backward(prob=starts)["data"]
    np.testing.assert_allclose(gradients["data"], expected, rtol=1e-3, atol=1e-7)
    for run, said in (
        (lambda: deploy.forward_all(image=data), "no blob is called image"),
        (
            lambda: deploy.forward_backward_all(data=data, prob=starts, ip=starts[:2]),
            "same number of rows",
        ),
    ):
        with pytest.raises(CaffeCompatError, match=said):
            run()


def test_hooks_between_layers(deploy: caffe.Net) -> None:
    called: list[tuple[str, int]] = []
    deploy.before_forward(lambda i: called.append(("before", i)))
    deploy.after_forward(lambda i: called.append(("after", i)))
    deploy.before_backward(lambda i: called.append(("to back", i)))
    deploy.after_backward(lambda i: called.append(("back", i)))
    plain = deploy.forward()["prob"].copy()
    assert [c for c in called if c[0] == "before"] == [("before", i) for i in range(4)]
    assert called[:2] == [("before", 0), ("after", 0)]
    deploy.backward()
    back = [one for one in called if "back" in one[0]]
    assert back == [(kind, i) for i in (3, 2, 1, 0) for kind in ("to back", "back")]
    deploy._hooks.clear()
    np.testing.assert_allclose(deploy.forward()["prob"], plain, rtol=1e-5)


# ------------------------------------------------------------ parameters


def test_every_way_to_write_a_parameter(deploy: caffe.Net) -> None:
    data = np.random.default_rng(3).standard_normal((2, 3, 9, 9))
    weights = deploy.params["conv"][0].data
    assert weights.flags.c_contiguous
    before = deploy.forward(data=data)["prob"].copy()
    for change in (
        lambda: weights.__setitem__((0, 0, 0, 0), 9),
        lambda: weights.reshape(-1).__setitem__(5, 9),  # a view, as of Caffe's arrays
        lambda: weights.ravel().__imul__(1.5),
        lambda: setattr(weights, "flat", np.arange(weights.size) / 100),
        lambda: weights.__setitem__((slice(None), [0, 2]), weights[:, [2, 0]]),
        lambda: deploy.params["ip"][1].data.fill(3),
    ):
        change()
        after = deploy.forward(data=data)["prob"].copy()
        if deploy.params["ip"][1].data[0] != 3:
            assert not np.array_equal(after, before)
        conv = np.zeros((2, 4, 7, 7))
        for y in range(3):
            for x in range(3):
                conv += np.einsum(
                    "nchw,oc->nohw", data[:, :, y : y + 7, x : x + 7], weights[:, :, y, x]
                )
        ip = conv.reshape(2, -1) @ deploy.params["ip"][0].data.T + deploy.params["ip"][1].data
        expected = np.exp(ip - ip.max(1, keepdims=True))
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(after, expected, rtol=2e-3, atol=1e-6)
        before = after


def test_blobs_are_those_of_the_weights_at_that_time(deploy: caffe.Net) -> None:
    """An inner blob that is first looked at after the weights changed is still the old one."""
    weights = deploy.params["conv"][0].data
    deploy.forward(data=np.ones((2, 3, 9, 9)))
    expected = deploy.forward(["conv"], data=np.ones((2, 3, 9, 9)))["conv"].copy()
    deploy.forward(data=np.ones((2, 3, 9, 9)))
    weights *= 2
    np.testing.assert_allclose(deploy.blobs["conv"].data, expected, rtol=1e-5)


def _backward(net: caffe.Net) -> float:
    net.blobs["second"].diff[...] = 1
    net.backward()
    return net.params["second"][0].diff.item()


_CHAIN = """
input: "data" input_shape { dim: 1 dim: 1 } force_backward: true
layer { name: "first" type: "InnerProduct" bottom: "data" top: "first"
  inner_product_param { num_output: 1 weight_filler { value: 2 } } }
layer { name: "second" type: "InnerProduct" bottom: "first" top: "second"
  inner_product_param { num_output: 1 weight_filler { value: 3 } } }
"""


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda net: net.forward(start="second")["second"].item(), 6),
        (_backward, 2),
        (lambda net: net.save("saved.caffemodel") or net.blobs["first"].data.item(), 2),
        (lambda net: net.copy_from("other.caffemodel") or net.blobs["first"].data.item(), 2),
        (lambda net: net.copy_from("other.caffemodel") or _backward(net), 2),
    ],
)
def test_the_last_pass_keeps_its_weights(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[caffe.Net], float],
    expected: int,
) -> None:
    """Inner blobs that nobody has looked at are those of the weights at the time of the pass."""
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path, "chain.prototxt", _CHAIN)
    net, other = caffe.Net(path, caffe.TEST), caffe.Net(path, caffe.TEST)
    other.params["first"][0].data[...] = 100
    other.save("other.caffemodel")
    net.forward(data=[[1]])
    net.params["first"][0].data[...] = 100
    assert use(net) == expected


def test_blobs_that_a_new_pass_does_not_reach(tmp_path: Path) -> None:
    """Those behind ``end`` keep their values; those of another size wait for the next pass."""
    text = _CHAIN + 'layer { name: "third" type: "ReLU" bottom: "second" top: "third" }'
    net = caffe.Net(_write(tmp_path, "chain.prototxt", text), caffe.TEST)
    net.forward(data=[[1]])
    net.forward(end="first", data=[[50]])
    assert net.blobs["first"].data.item() == 100
    assert net.blobs["second"].data.item() == 6
    net.forward()
    net.blobs["data"].reshape(3, 1)
    net.reshape()
    assert net.blobs["first"].shape == (3, 1)


@pytest.mark.parametrize("phase", [caffe.TEST, caffe.TRAIN])
def test_up_to_a_layer_runs_nothing_behind_it(phase: int, tmp_path: Path) -> None:
    """Two layers work in place on what the first one made; they run once when they are asked
    for."""
    text = """
        input: "data" input_shape { dim: 1 dim: 4 }
        layer { name: "first" type: "Power" bottom: "data" top: "x" power_param { shift: 1 } }
        layer { name: "cut" type: "ReLU" bottom: "x" top: "x" }
        layer { name: "twice" type: "Power" bottom: "x" top: "x" power_param { scale: 2 } }
        layer { name: "out" type: "Power" bottom: "x" top: "out" power_param { shift: 0.5 } }"""
    net = caffe.Net(_write(tmp_path, "net.prototxt", text), phase)
    assert net.forward(end="first", data=[[-3, 1, -5, 3]])["x"].tolist() == [[-2, 2, -4, 4]]
    assert net.forward(end="cut")["x"].tolist() == [[0, 2, 0, 4]]
    assert net.forward(start="twice")["out"].tolist() == [[0.5, 4.5, 0.5, 8.5]]
    assert net.blobs["x"].data.tolist() == [[0, 4, 0, 8]]


def test_weights_of_a_layer_of_another_kind(tmp_path: Path) -> None:
    """A layer of the name that has no parameters is none that the file's may pass over: Caffe
    compares the numbers of their blobs."""
    text = """
        input: "data" input_shape {{ dim: 1 dim: 3 }}
        layer {{ name: "same" type: "InnerProduct" bottom: "data" top: "same"
          inner_product_param {{ num_output: 3 }} }}
        layer {{ name: "out" bottom: "same" top: "out" type: {} }}"""
    old = _write(
        tmp_path,
        "old.prototxt",
        text.format('"InnerProduct" inner_product_param { num_output: 3 }'),
    )
    new = _write(tmp_path, "new.prototxt", text.format('"TanH"'))
    caffe.Net(old, caffe.TEST).save(tmp_path / "old.caffemodel")
    net = caffe.Net(new, caffe.TEST)
    net.params["same"][0].data[...] = 5
    with pytest.raises(CaffeCompatError, match=r"layer 'out'.*has no parameters"):
        net.copy_from(tmp_path / "old.caffemodel")
    assert (net.params["same"][0].data == 5).all()
    with pytest.raises(CaffeCompatError, match="layer 'out'"):
        caffe.Net(new, str(tmp_path / "old.caffemodel"), caffe.TEST)


def test_weights_under_a_sharers_name(tmp_path: Path) -> None:
    """Of layers that share a parameter the file's last one counts."""
    text = _CHAIN.replace("{ num_output", "{ bias_term: false num_output")
    net = caffe.Net(_write(tmp_path, "apart.prototxt", text), caffe.TEST)
    net.save(str(tmp_path / "both.caffemodel"))
    shared = text.replace("inner_product_param", 'param { name: "w" } inner_product_param')
    path = _write(tmp_path, "shared.prototxt", shared)
    both = caffe.Net(path, caffe.TEST)
    both.copy_from(str(tmp_path / "both.caffemodel"))
    assert both.params["first"][0].data.item() == 3
    only = caffe.Net(
        _write(tmp_path, "only.prototxt", text.replace('"first"', '"1st"')), caffe.TEST
    )
    only.save(str(tmp_path / "only.caffemodel"))
    one = caffe.Net(path, caffe.TEST)
    one.copy_from(str(tmp_path / "only.caffemodel"))
    assert one.params["first"][0].data.item() == 3


def test_layers_of_one_name_stay_in_their_places(tmp_path: Path) -> None:
    text = _DEPLOY + 'layer { name: "ip" type: "ReLU" bottom: "prob" top: "relu" }'
    net = caffe.Net(_write(tmp_path, "same.prototxt", text), caffe.TEST)
    assert list(net._layer_names) == ["input", "conv", "ip", "prob", "ip"]
    types = ["Input", "Convolution", "InnerProduct", "Softmax", "ReLU"]
    assert [layer.type for layer in net.layers] == types
    assert [len(layer.blobs) for layer in net.layers] == [0, 2, 2, 0, 0]


def test_touched_parameters_cost_one_transform(tmp_path: Path) -> None:
    """A script that looks at parameters in each round makes no new transform, one that writes them
    makes one."""
    net = caffe.Net(
        _write(
            tmp_path,
            "large.prototxt",
            'input: "data" input_shape { dim: 1 dim: 16 dim: 30 dim: 30 } layer { name: "c" type: "Convolution" '
            'bottom: "data" top: "c" convolution_param { num_output: 32 kernel_size: 11 pad: 5 '
            'weight_filler { type: "gaussian" std: 0.1 } } }',
        ),
        caffe.TEST,
    )
    net._net.engine = plan.Engine("tiled")

    def transform() -> object:
        _ = net.params["c"][0].data.mean()
        net.forward()
        ((_, _, made),) = net._net.engine._kernels.values()
        return made

    first = transform()
    assert all(transform() is first for _ in range(3))
    net.params["c"][0].data[3] += 1
    second = transform()
    assert second is not first
    assert all(transform() is second for _ in range(3))


# ------------------------------------------------------------ solvers


@pytest.fixture
def solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> caffe.SGDSolver:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, "net.prototxt", _NET)
    _write(
        tmp_path,
        "solver.prototxt",
        'net: "net.prototxt" test_iter: 2 test_interval: 10 base_lr: 0.01 momentum: 0.9 '
        'weight_decay: 0 lr_policy: "inv" gamma: 0.0001 power: 0.75 max_iter: 20 '
        'snapshot_prefix: "model" snapshot_after_train: false',
    )
    return caffe.SGDSolver("solver.prototxt")


def test_a_solver(solver: caffe.SGDSolver) -> None:
    assert solver.iter == 0
    assert len(solver.test_nets) == 1
    assert solver.param.max_iter == 20
    solver.solve()
    assert solver.iter == 20
    net = solver.net
    del solver
    gc.collect()
    assert np.isfinite(net.forward()["loss"])


def test_what_a_script_wrote_counts_everywhere(solver: caffe.SGDSolver) -> None:
    """In the test nets, whose latest pass stays one of the old weights, and in a snapshot."""
    (tested,) = solver.test_nets
    tested.forward()
    solver.net.params["conv"][0].data[...] = 0
    solver.net.params["conv"][1].data[...] = 7
    assert solver.test_nets[0].params["conv"][1].data[0] == 7
    assert (tested.blobs["conv"].data != 7).any()
    tested.forward()
    assert (tested.blobs["conv"].data == 7).all()
    solver.snapshot()
    assert caffe.Net("net.prototxt", "model_iter_0.caffemodel", 1).params["conv"][1].data[0] == 7


def test_steps_test_and_write_snapshots(
    solver: caffe.SGDSolver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As often as the definition says, whoever makes the steps."""
    text = (tmp_path / "solver.prototxt").read_text().replace("max_iter: 20", "max_iter: 6")
    text = text.replace("test_interval: 10", "test_interval: 3")
    _write(tmp_path, "solver.prototxt", text + " snapshot: 2")
    caplog.set_level(logging.INFO, "caffe")
    other = caffe.SGDSolver("solver.prototxt")
    other.step(3)
    assert [p.name for p in tmp_path.glob("*.solverstate")] == ["model_iter_2.solverstate"]
    assert len(caplog.messages) == 1
    other.solve()
    assert sorted(p.name for p in tmp_path.glob("*.solverstate"))[1:] == [
        "model_iter_4.solverstate",
        "model_iter_6.solverstate",
    ]
    assert [m.split(": loss ")[0] for m in caplog.messages] == ["test net 0"] * 3
    caplog.clear()
    _write(tmp_path, "solver.prototxt", text + " test_initialization: false")
    quiet = caffe.SGDSolver("solver.prototxt")
    quiet.step(3)
    assert not caplog.messages  # the first test is that of iteration 3
    quiet.step(1)
    assert len(caplog.messages) == 1


def test_passes_and_steps_take_turns_in_the_data(tmp_path: Path, solver: caffe.SGDSolver) -> None:
    import h5py

    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["data"], file["label"] = np.arange(5.0).reshape(5, 1), np.zeros(5)
    _write(tmp_path, "rows.txt", str(tmp_path / "rows.h5"))
    net = (
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" '
        'hdf5_data_param { source: "rows.txt" batch_size: 1 } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        "inner_product_param { num_output: 2 } }"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    _write(tmp_path, "net.prototxt", net)
    solver = caffe.SGDSolver("solver.prototxt")
    seen = []
    for go in (solver.net.forward, lambda: solver.step(1)) * 2:
        go()
        seen.append(solver.net.blobs["data"].data.item())
    assert seen == [0, 1, 2, 3]


def test_updates_by_hand(solver: caffe.SGDSolver) -> None:
    """The rate of the first iteration is 0.01."""
    weights = solver.net.layers[1].blobs[0].data
    weights[...] = 0
    solver.net.layers[1].blobs[0].diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(weights, -0.01, rtol=1e-6)
    assert solver.iter == 1


def test_own_training_loop_is_the_step(solver: caffe.SGDSolver) -> None:
    """Forward, backward and update by a script give what ``step`` gives."""
    other = caffe.SGDSolver("solver.prototxt")
    for _ in range(3):
        solver.step(1)
        other.net.clear_param_diffs()
        other.net.forward()
        other.net.backward()
        other.apply_update()
    for name, blobs in solver.net.params.items():
        for one, two in zip(blobs, other.net.params[name], strict=True):
            np.testing.assert_allclose(one.data, two.data, rtol=1e-4, atol=1e-6)


def test_callbacks(solver: caffe.SGDSolver) -> None:
    seen: list[str] = []
    weights = solver.net.params["ip"][0]

    def ready() -> None:
        seen.append("ready")
        assert weights.diff.any()
        weights.diff[...] = 0  # the update must not move them

    solver.add_callback(lambda: seen.append("start"), ready)
    before = weights.data.copy()
    conv = solver.net.params["conv"][0].data.copy()
    solver.step(2)
    assert seen == ["start", "ready"] * 2
    np.testing.assert_array_equal(weights.data, before)
    assert not np.array_equal(solver.net.params["conv"][0].data, conv)


def test_weights_shared_with_a_solver(solver: caffe.SGDSolver) -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(net)
    solver.step(2)
    for name, blobs in solver.net.params.items():
        for one, two in zip(blobs, net.params[name], strict=True):
            np.testing.assert_array_equal(one.data, two.data)
    net.params["ip"][0].data[...] = 0
    solver.step(1)
    assert np.abs(net.params["ip"][0].data).max() < 0.1


_SOLVERS = (
    sorted((GOLDEN / "solver").glob("*/trajectory.npz")) if (GOLDEN / "solver").is_dir() else []
)


@pytest.mark.golden
@pytest.mark.parametrize(
    "path",
    _SOLVERS
    or [pytest.param(None, marks=pytest.mark.skip(reason="no recorded trainings (CPM_GOLDEN)"))],
    ids=lambda p: p.parent.name if p else "absent",
)
def test_after_a_step_the_diff_is_the_update(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.chdir(path.parent)
    with np.load(path) as file:
        recorded = {key: file[key] for key in file.files}
    solver = caffe.get_solver("solver.prototxt")
    for key, value in recorded.items():
        if key.startswith("w0:"):
            layer, _, index = key[3:].rpartition("/")
            solver.net.params[layer][int(index)].data[...] = value
    settings = json.loads((path.parent / "case.json").read_text())
    assert settings
    solver.step(1)
    found = 0
    for key, value in recorded.items():
        kind, _, name = key.partition(":")
        if kind in ("update1", "w1"):
            layer, _, index = name.rpartition("/")
            blob = solver.net.params[layer][int(index)]
            ours = blob.diff if kind == "update1" else blob.data
            np.testing.assert_allclose(
                ours, value, rtol=0, atol=2e-5 * max(1e-3, np.abs(value).max())
            )
            found += 1
    assert found


# ------------------------------------------------------------ Python layers


class Scaled(caffe.Layer):
    """Multiplies; counts its set-ups."""

    made = 0

    def setup(self, bottom: object, top: object) -> None:
        type(self).made += 1
        self.factor = float(self.param_str or 2)

    def reshape(self, bottom: object, top: object) -> None:
        top[0].reshape(*bottom[0].data.shape)  # type: ignore[index]

    def forward(self, bottom: object, top: object) -> None:
        top[0].data[...] = self.factor * bottom[0].data  # type: ignore[index]

    def backward(self, top: object, propagate_down: object, bottom: object) -> None:
        bottom[0].diff[...] = self.factor * top[0].diff  # type: ignore[index]


class WithBlob(caffe.Layer):
    """Has a parameter."""

    def setup(self, bottom: object, top: object) -> None:
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 4

    def reshape(self, bottom: object, top: object) -> None:
        top[0].reshape(1)  # type: ignore[index]

    def forward(self, bottom: object, top: object) -> None:
        top[0].data[0] = self.blobs[0].data[0]  # type: ignore[index]

    def backward(self, top: object, propagate_down: object, bottom: object) -> None:
        self.blobs[0].diff[0] = 1


class Failing(caffe.Layer):
    """Raises."""

    def reshape(self, bottom: object, top: object) -> None:
        raise ZeroDivisionError("in the user's own code")


class Fed(caffe.Layer):
    """Gives what the script hands to it, as the data layers of Fast R-CNN do."""

    def setup(self, bottom: object, top: object) -> None:
        self.rows: list[float] = [float(self.param_str_)]

    def set_roidb(self, rows: list[float]) -> None:
        self.rows = rows

    def reshape(self, bottom: object, top: object) -> None:
        top[0].reshape(len(self.rows))  # type: ignore[index]

    def forward(self, bottom: object, top: object) -> None:
        top[0].data[...] = self.rows  # type: ignore[index]


class Phase(caffe.Layer):
    """Gives its phase."""

    def reshape(self, bottom: object, top: object) -> None:
        top[0].reshape()  # type: ignore[index]

    def forward(self, bottom: object, top: object) -> None:
        top[0].data[()] = self.phase  # type: ignore[index]


def _python(layer: str, more: str = "", bottom: str = 'bottom: "data"') -> str:
    return (
        f'layer {{ name: "{layer}" type: "Python" {bottom} top: "{layer}" '
        f'python_param {{ module: "{__name__}" layer: "{layer}" {more} }} }}\n'
    )


def test_layers_in_python(tmp_path: Path) -> None:
    head = 'input: "data" input_shape { dim: 2 dim: 3 } force_backward: true\n'
    text = head + _python("Scaled", 'param_str: "10"') + _python("WithBlob", bottom="")
    path = _write(tmp_path, "python.prototxt", text)
    net = caffe.Net(path, caffe.TEST)
    found = net.forward(data=np.full((2, 3), 8))
    np.testing.assert_array_equal(found["Scaled"], np.full((2, 3), 80))
    assert found["WithBlob"][0] == 4
    net.blobs["Scaled"].diff[...] = 7
    np.testing.assert_array_equal(net.backward()["data"], np.full((2, 3), 70))
    net.blobs["data"].reshape(5, 4, 3)
    net.reshape()
    assert net.forward()["Scaled"].shape == (5, 4, 3)
    net.params["WithBlob"][0].data[0] += 1
    net.save(str(tmp_path / "w.caffemodel"))
    again = caffe.Net(path, caffe.TEST, weights=str(tmp_path / "w.caffemodel"))
    assert again.params["WithBlob"][0].data[0] == 5
    assert again.forward()["WithBlob"][0] == 5
    for phase in (caffe.TRAIN, caffe.TEST):
        only = caffe.Net(_write(tmp_path, "p.prototxt", _python("Phase", bottom="")), phase)
        assert only.forward()["Phase"] == phase
    with pytest.raises(ZeroDivisionError, match="the user's own code"):
        caffe.Net(_write(tmp_path, "f.prototxt", head + _python("Failing")), caffe.TEST)


def test_a_script_hands_data_to_its_python_layer(tmp_path: Path) -> None:
    """``net.layers[i]`` stands for the script's own object."""
    text = _python("Fed", 'param_str: "3"', bottom="")
    text += 'layer { name: "r" type: "ReLU" bottom: "Fed" top: "r" }'
    path = _write(tmp_path, "fed.prototxt", text)
    net = caffe.Net(path, caffe.TRAIN)
    assert (net.layers[0].type, len(net.layers[0].blobs)) == ("Python", 0)
    np.testing.assert_array_equal(net.forward()["r"], [3])
    net.layers[0].set_roidb([1, 2])
    np.testing.assert_array_equal(net.forward()["r"], [1, 2])
    net.layer_dict["Fed"].rows = [4, 5, 6]
    np.testing.assert_array_equal(net.forward()["r"], [4, 5, 6])
    with pytest.raises(AttributeError, match="a layer of type ReLU has no 'rows'"):
        print(net.layers[1].rows)
    with pytest.raises(AttributeError, match="'rows' of a layer of type ReLU cannot be set"):
        net.layers[1].rows = []
    with pytest.raises(AttributeError, match="'type' of a layer of type Python cannot be set"):
        net.layers[0].type = "another"
    assert repr(net.layers[1]) == "<layer of type ReLU, 0 blob(s)>"
    assert copy.copy(net.layers[1]).type == "ReLU"
    assert copy.copy(net.layers[0]).rows == [4, 5, 6]


def test_a_solver_trains_on_what_its_python_layer_was_given(tmp_path: Path) -> None:
    text = _python("Fed", 'param_str: "1"', bottom="") + (
        'layer { name: "s" type: "Reshape" bottom: "Fed" top: "s" '
        "reshape_param { shape { dim: -1 dim: 1 } } }\n"
        'layer { name: "ip" type: "InnerProduct" bottom: "s" top: "ip" inner_product_param '
        '{ num_output: 1 bias_term: false weight_filler { type: "constant" value: 1 } } }\n'
        'layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }'
    )
    _write(tmp_path, "net.prototxt", text)
    lines = f'net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 9'
    solver = caffe.SGDSolver(_write(tmp_path, "solver.prototxt", lines))
    solver.net.layers[0].set_roidb([10, 20])
    solver.step(1)
    assert solver.net.params["ip"][0].data.item() == 1 - 30


def test_inputs_are_repeated_as_numpy_does(tmp_path: Path) -> None:
    """A captioner hands (N,) to a blob of T x N; only the number of items must be right."""
    text = 'input: "cont" input_shape { dim: 2 dim: 3 }\n'
    text += 'layer { name: "r" type: "ReLU" bottom: "cont" top: "r" }'
    net = caffe.Net(_write(tmp_path, "net.prototxt", text), caffe.TEST)
    np.testing.assert_array_equal(net.forward(cont=[[1], [2]])["r"], [[1] * 3, [2] * 3])
    for shape in ((1, 3), (3,), (), (2, 2), (2, 3, 1), (1, 2, 3)):
        with pytest.raises(CaffeCompatError, match=r"'cont' is \(2, 3\), .* was given"):
            net.forward(cont=np.zeros(shape))
    np.testing.assert_array_equal(net.blobs["cont"].data, [[1] * 3, [2] * 3])
    net.blobs["cont"].reshape(1, 1)
    np.testing.assert_array_equal(net.forward(cont=np.array([7]))["r"], [[7]])
    np.testing.assert_array_equal(net.forward(cont=np.full((1, 1, 1), 8))["r"], [[8]])


@pytest.mark.long
def test_a_file_alone_runs_nothing(tmp_path: Path) -> None:
    """A module that only the definition names is not imported, whatever it is."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\nclass Layer: pass\n")
    text = _python("Scaled").replace(__name__, "evil")
    path = _write(tmp_path, "net.prototxt", 'input: "data" input_shape { dim: 1 }\n' + text)
    code = f"import caffe_compat.pycaffe as caffe\ncaffe.Net({path!r}, caffe.TEST)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "UnsupportedLayer" in done.stderr
    assert "imported" not in done.stdout + done.stderr.replace("import", "", 1).replace(
        "imports", ""
    )
    with pytest.raises(UnsupportedLayer, match="register"):
        caffe.Net(path, caffe.TEST)


# ------------------------------------------------------------ the module itself


def test_what_the_module_says() -> None:
    assert caffe.has_nccl() is False
    assert caffe.__version__ == "1.0.0"
    assert caffe.solver_count() == 1
    assert caffe.solver_rank() == 0
    timer = caffe.Timer()
    timer.start()
    timer.stop()
    assert timer.ms >= 0
    caffe.set_mode_cpu()
    caffe.set_device(0)
    caffe.init_log(1)
    caffe.log("not shown")
    caffe.set_logging_disabled()
    caffe.set_logging_disabled(False)
    for name in caffe.__all__:
        assert hasattr(caffe, name)


def test_what_the_messages_module_says() -> None:
    assert caffe.io.caffe_pb2 is caffe_pb2
    assert caffe_pb2.Phase.Value("TEST") == caffe.TEST == caffe_pb2.TEST
    assert caffe_pb2.Phase.Name(caffe.TRAIN) == "TRAIN"
    assert {"Phase", "NetParameter"} <= set(dir(caffe_pb2))
    with pytest.raises(AttributeError, match="no message or enum 'Phases'"):
        print(caffe_pb2.Phases)
    labels = text_format.Parse(
        'item { name: "n01" label: 1 display_name: "dog" }', caffe_pb2.LabelMap()
    )
    assert [(item.label, item.display_name) for item in labels.item] == [(1, "dog")]
    detector = caffe_pb2.SolverParameter(eval_type="detection", ap_version="11point")
    assert 'eval_type: "detection"' in text_format.MessageToString(detector)


@pytest.mark.long
@pytest.mark.skipif(
    not (REPORTED / "bugs" / "python_layer").is_dir(), reason="no reported inputs (CPM_REPORTED)"
)
def test_the_reported_python_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REPORTED / "bugs" / "python_layer"
    monkeypatch.chdir(folder)
    code = (
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, '.')\n"
        "import mylayers, numpy, caffe_compat.pycaffe as caffe\n"
        "print(caffe.Net('net.prototxt', caffe.TEST).forward(data=numpy.ones((1, 3, 4, 4)))['d'].max())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.stdout.strip() == "3.0", done.stderr


# what pycaffe refuses, too: a net without its phase, and a GPU where there is none
_REFUSED = {"Net(str(path), 1) numeric phase and old 2-arg Net(proto, weights)": "give the phase"}
if not torch.cuda.is_available():
    _REFUSED["set_mode_gpu without gpu"] = "torch finds no GPU here"


@pytest.mark.long
@pytest.mark.parametrize("path", reported("pycaffe", "t.py"))
def test_reported_idioms(path: Path, tmp_path: Path) -> None:
    """The script tries one idiom after the other, in a folder of its own."""
    shutil.copytree(path.parent, tmp_path / "cases" / "pycaffe")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "cases/pycaffe/t.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("PASS") for line in lines) >= 38
    assert not [line for line in lines if line.startswith("FAIL")]
    refused = dict(line[5:].split(" -> ") for line in lines if line.startswith("EXC"))
    assert refused.keys() == _REFUSED.keys()
    for idiom, why in _REFUSED.items():
        assert why in refused[idiom]
