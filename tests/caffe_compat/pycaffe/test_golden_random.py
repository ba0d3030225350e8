"""Networks that nobody chose, through the face of pycaffe: every blob, every gradient, what is
refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, read_net
from caffe_compat.errors import CaffeCompatError
from caffe_compat.training.feed import DataFeed
from tests import measured, tolerances
from tests.paths import cases
from tests.replay import set_params

Arrays = dict[str, npt.NDArray[np.float32]]

# Cases that are not followed, each with the reason. An entry whose case agrees is an error.
NOT_FOLLOWED = {
    "mvn_black_image_train.json": (
        "a channel that is constant: Caffe divides the rounding error of its mean, which hangs on "
        "the order in which the BLAS adds, by its own size; here the mean is exact and the top 0"
    ),
}


@pytest.mark.parametrize("path", cases("random", "*.json"))
def test_random(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # HDF5Output layers write where they are told
    case = json.loads(path.read_text())
    arrays: Arrays = {}
    if path.with_suffix(".npz").exists():
        with np.load(path.with_suffix(".npz")) as file:
            arrays = {key: file[key] for key in file.files}
    if not case["accepted"]:
        with pytest.raises(CaffeCompatError) as caught:
            list(_differences(path, case, arrays))
        assert "\n" not in str(caught.value)
        return
    errors = dict(_differences(path, case, arrays))
    wrong = {key: error for key, error in errors.items() if not error <= tolerances.RANDOM}
    if path.name in NOT_FOLLOWED:
        assert wrong, "agrees: take it out of the table"
        return
    assert not wrong
    measured.note(
        "Caffe: random nets, every blob and gradient (of the array's largest value)",
        max(errors.values(), default=0.0),
    )


@pytest.mark.parametrize("path", cases("random", "*.npz"))
def test_random_in_a_training(path: Path) -> None:
    """The parameters' gradients, too, where a solver takes them from autograd."""
    case = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        arrays: Arrays = {key: file[key] for key in file.files}
    if case["forward_only"] or case["reshape"] or path.with_suffix(".json").name in NOT_FOLLOWED:
        return
    spec = read_net(path.with_suffix(".prototxt"))
    stages = tuple(case["stages"])
    feed = DataFeed(spec, case["phase"], Path("."), None, case["level"], stages)
    net = Net(
        spec, phase=case["phase"], level=case["level"], stages=stages, input_shapes=feed.shapes
    )
    set_params(net, arrays)
    data = {name: torch.from_numpy(value) for name, value in _of(arrays, "in")}
    found = net.all_blobs(**data, **feed.batch(0, "cpu"))
    total = net.loss(found) if net.losses else torch.zeros(())
    taking_part = {top for step in net.graph.steps if step.backward for top in step.tops}
    for name, value in _of(arrays, "topdiff"):
        if name in taking_part:
            total = total + (found[name] * torch.from_numpy(value)).sum()
    if total.requires_grad:
        total.backward()
    for node in net.graph.nodes:
        for index, param in enumerate(node.params):
            if not node.layer.trainable:
                continue
            tensor = net.param(param)
            ours = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            recorded = arrays[f"pdiff:{node.layer.name}/{index}"]
            assert _difference(ours.numpy(), recorded) <= tolerances.RANDOM, node.layer.name


def _differences(path: Path, case: dict[str, Any], arrays: Arrays) -> Iterator[tuple[str, float]]:
    """What was recorded, replayed: each array with its difference."""
    net = caffe.Net(
        str(path.with_suffix(".prototxt")),
        caffe.TRAIN if case["phase"] == "TRAIN" else caffe.TEST,
        level=case["level"],
        stages=case["stages"],
    )
    if case["accepted"]:
        _compare_names(net, case)
    for name, value in _of(arrays, "param"):
        _param(net, name).data[...] = value
    for blobs in net.params.values():
        for blob in blobs:
            blob.diff[...] = 0
    _put(net, arrays, "in")
    net.forward()
    for name, value in _of(arrays, "blob"):
        yield f"blob:{name}", _difference(net.blobs[name].data, value)
    for name, value in _of(arrays, "paramafter"):
        yield f"paramafter:{name}", _difference(_param(net, name).data, value)
    if case["reshape"]:
        for name, shape in case["reshape"].items():
            net.blobs[name].reshape(*shape)
        net.reshape()
        _put(net, arrays, "in2")
        net.forward()
        for name, value in _of(arrays, "blob2"):
            yield f"blob2:{name}", _difference(net.blobs[name].data, value)
    if case["forward_only"]:
        return
    _backward(net, arrays)
    for name, value in _of(arrays, "diff"):
        yield f"diff:{name}", _difference(net.blobs[name].diff, value)
    for name, value in _of(arrays, "pdiff"):
        yield f"pdiff:{name}", _difference(_param(net, name).diff, value)
    if case["twice"]:
        net.forward()
        _backward(net, arrays)
        for name, value in _of(arrays, "pdiff2"):
            yield f"pdiff2:{name}", _difference(_param(net, name).diff, value)


def _compare_names(net: caffe.Net, case: dict[str, Any]) -> None:
    assert list(net.inputs) == case["inputs"]
    assert list(net.outputs) == case["outputs"]
    assert [name for name in net.blobs if "_split_" not in name] == case["blobs"]
    layers = zip(net._layer_names, net.layers, strict=True)
    assert [[name, layer.type] for name, layer in layers if "_split" not in name] == case["layers"]
    params = [[name, [list(b.shape) for b in blobs]] for name, blobs in net.params.items()]
    assert params == case["params"]


def _of(arrays: Arrays, kind: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for key, value in arrays.items():
        if key.startswith(f"{kind}:"):
            yield key.removeprefix(f"{kind}:"), value


def _put(net: caffe.Net, arrays: Arrays, kind: str) -> None:
    for name, value in _of(arrays, kind):
        net.blobs[name].data[...] = value


def _param(net: caffe.Net, name: str) -> Any:
    layer, _, index = name.rpartition("/")
    return net.params[layer][int(index)]


def _backward(net: caffe.Net, arrays: Arrays) -> None:
    for name, value in _of(arrays, "topdiff"):
        net.blobs[name].diff[...] = value
    net.backward()


def _difference(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """Largest difference over the largest recorded value; 0 below what counts, inf where shapes or
    places of nan and infinity differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf")
    a, b = ours[finite].astype(np.float64), theirs[finite].astype(np.float64)
    if not a.size:
        return 0.0
    largest = np.abs(a - b).max()
    if largest <= tolerances.RANDOM_ABSOLUTE:
        return 0.0
    return float(largest / max(np.abs(b).max(), 1e-30))
