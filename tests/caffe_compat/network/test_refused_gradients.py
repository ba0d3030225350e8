"""Gradients that Caffe's backward pass stops at: forward passes work, backward ones are refused
when they reach the layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, parse_net
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.errors import PrototxtError
from caffe_compat.training.solver import Solver

FORCE = "force_backward: true "


def blob(name: str, *shape: int) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    shape_text = f"input_param {{ shape {{ {dims} }} }}"
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" {shape_text} }} '


def layer(kind: str, bottoms: str, tops: str, rest: str = "") -> str:
    names = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    names += "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "the_{kind}" type: "{kind}" {names} {rest} }} '


def learned(bottom: str, top: str, outputs: int) -> str:
    return layer("InnerProduct", bottom, top, f"inner_product_param {{ num_output: {outputs} }}")


def face(folder: Path, text: str) -> caffe.Net:
    (folder / "net.prototxt").write_text(text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TRAIN)
    for name in net.inputs:
        net.blobs[name].data[...] = 1
    return net


D = blob("d", 2, 3)
T = blob("t", 2)
INDEX = blob("i", 2)
H = blob("h", 1, 1, 3, 3)
RATED = "loss_weight: 1"
EMBED = "embed_param { num_output: 2 input_dim: 4 }"
RECURRENT = (
    D
    + blob("s", 2, 1, 3)
    + learned("d", "f", 1)
    + layer("LSTM", "s f", "y", f"{RATED} recurrent_param {{ num_output: 2 }}")
)


@pytest.mark.parametrize(
    ("text", "kind", "bottom"),
    [
        (FORCE + D + layer("Threshold", "d", "y"), "Threshold", ""),
        (FORCE + D + layer("ArgMax", "d", "y"), "ArgMax", ""),
        (FORCE + D + T + layer("Accuracy", "d t", "y"), "Accuracy", "d"),
        (FORCE + T + layer("Embed", "t", "y", EMBED), "Embed", "t"),
        (D + learned("d", "y", 2) + layer("Threshold", "y", "z", RATED), "Threshold", ""),
        (D + T + learned("d", "y", 2) + layer("Accuracy", "y t", "a", RATED), "Accuracy", "y"),
        (D + T + learned("d", "y", 2) + layer("Accuracy", "y t", "a"), "", ""),
        (
            D
            + learned("d", "f", 1)
            + layer("Flatten", "f", "i", "flatten_param { axis: 0 }")
            + layer("BatchReindex", "d i", "y", RATED),
            "BatchReindex",
            "i",
        ),
        (D + learned("d", "f", 1) + layer("Filter", "d f", "y", RATED), "Filter", "f"),
        (
            D + blob("e", 2, 1) + learned("e", "f", 1) + layer("HingeLoss", "d f", "l"),
            "HingeLoss",
            "f",
        ),
        (
            D + learned("d", "f", 3) + layer("SigmoidCrossEntropyLoss", "d f", "l"),
            "SigmoidCrossEntropyLoss",
            "f",
        ),
        (D + learned("d", "f", 1) + layer("SoftmaxWithLoss", "d f", "l"), "SoftmaxWithLoss", "f"),
        (FORCE + D + INDEX + layer("BatchReindex", "d i", "y"), "BatchReindex", "i"),
        (FORCE + D + INDEX + layer("Filter", "d i", "y"), "Filter", "i"),
        (
            D
            + T
            + H
            + layer("Scale", "h", "k", "scale_param { axis: 2 }")
            + layer("InfogainLoss", "d t k", "l"),
            "InfogainLoss",
            "k",
        ),
        (FORCE + D + T + H + layer("InfogainLoss", "d t h", "l"), "InfogainLoss", "h"),
        (D + T + H + learned("d", "e", 3) + layer("InfogainLoss", "e t h", "l"), "", ""),
        (D + blob("e", 2, 3) + learned("d", "f", 3) + layer("EuclideanLoss", "e f", "l"), "", ""),
        (FORCE + D + T + layer("SoftmaxWithLoss", "d t", "l"), "", ""),
        (RECURRENT, "LSTM", "f"),
    ],
)
def test_where_the_backward_pass_stops(text: str, kind: str, bottom: str, tmp_path: Path) -> None:
    net = face(tmp_path, text)
    for blobs in net.params.values():  # so that every blob holds ones
        for number, param in enumerate(blobs):
            param.data[...] = number
    net.forward()
    if not kind:
        net.backward()
        return
    what = f"'{bottom}'" if bottom else "has no gradient"
    with pytest.raises(PrototxtError, match=f"the_{kind}.*{kind}.*{what}.*propagate_down") as told:
        net.backward()
    assert "\n" not in str(told.value)


def test_only_a_layer_that_the_pass_reaches(tmp_path: Path) -> None:
    text = FORCE + D + learned("d", "y", 2) + layer("Threshold", "y", "z")
    net = face(tmp_path, text)
    net.params["the_InnerProduct"][0].data[...] = 1
    net.forward()
    net.blobs["y"].diff[...] = 1
    net.backward(start="the_InnerProduct")
    assert net.blobs["d"].diff.any()
    with pytest.raises(PrototxtError, match="Threshold"):
        net.backward()


def _kept_away(text: str) -> str:
    return text.replace(RATED, f"{RATED} propagate_down: false propagate_down: false")


def test_a_bottom_that_no_gradient_goes_to(tmp_path: Path) -> None:
    """``propagate_down: false`` helps, but not below a layer that has no backward pass at all."""
    net = face(tmp_path, _kept_away(RECURRENT))
    net.forward()
    net.backward()
    above = layer("Power", "z", "w", f"{RATED} propagate_down: false")
    text = D + learned("d", "y", 2) + layer("Threshold", "y", "z") + above
    net = face(tmp_path, text)
    net.forward()
    net.backward()
    own = text.replace('top: "z"', 'top: "z" propagate_down: false')
    net = face(tmp_path, own.replace(f"{RATED} propagate_down: false", RATED))
    net.forward()
    with pytest.raises(PrototxtError, match="Threshold has no gradient"):
        net.backward()


def _by_loss(text: str) -> None:
    net = Net(parse_net(text), phase="TRAIN")
    found = net.all_blobs(d=torch.ones(2, 3))
    loss = net.loss(found)
    assert np.isfinite(loss.item())
    loss.backward()


def _by_solver(text: str) -> None:
    data = text.replace("Input", "DummyData").replace("input_param", "dummy_data_param")
    Solver(parse_solver(f"net_param {{ {data} }} base_lr: 1 lr_policy: 'fixed'")).step()


@pytest.mark.parametrize("run", [_by_loss, _by_solver])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (D + learned("d", "y", 2) + layer("Threshold", "y", "z", RATED), "Threshold"),
        (
            D + learned("d", "y", 3) + layer("SigmoidCrossEntropyLoss", "d y", "z"),
            "SigmoidCrossEntropyLoss",
        ),
    ],
)
def test_in_a_training(run: Callable[[str], None], text: str, kind: str) -> None:
    with pytest.raises(PrototxtError, match=kind):
        run(text)
