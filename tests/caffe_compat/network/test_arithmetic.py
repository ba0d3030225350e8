"""Caffe's arithmetic where another one would do as well: gradients are products, tops are cleared
before they are filled, and a layer reads what its blobs hold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import caffe_compat.pycaffe as caffe
from caffe_compat import parse_net
from caffe_compat.errors import CaffeCompatError, PrototxtError
from caffe_compat.network.graph import build
from tests.caffe_compat.network.test_passes import FORCE, X, face, layer, passes


@pytest.mark.parametrize("top", ["r", "x"])
def test_a_gradient_that_is_not_finite_is_multiplied_by_zero(top: str, tmp_path: Path) -> None:
    """The derivative of the cube is taken as 3 y^3 / y: nan where ReLU made y 0."""
    cube = layer("Power", top, "y", "power_param { power: 3 }")
    net = face(tmp_path, FORCE + X + layer("ReLU", "x", top, name="relu") + cube)
    np.testing.assert_equal(passes(net, [1, -2, 3], "y"), [3, math.nan, 27])


def test_relu_reads_the_bottom_that_another_layer_has_overwritten(tmp_path: Path) -> None:
    """f is x's memory, and holds -x by the time of the backward pass. Power in place adds 1: its
    slope is written over its gradient and squared."""
    branch = layer("Flatten", "x", "f") + layer("Power", "f", "f", "power_param { scale: -1 }", "p")
    net = face(tmp_path, FORCE + X + layer("ReLU", "x", "r") + branch)
    net.blobs["x"].data[...] = [1, -2, 3]
    net.forward()
    net.blobs["r"].diff[...] = 5
    net.blobs["f"].diff[...] = 0
    net.backward()
    assert net.blobs["x"].diff.ravel().tolist() == [1, 6, 1]


@pytest.mark.parametrize(("method", "value"), [("MAX", -np.finfo(np.float32).max), ("AVE", 0)])
@pytest.mark.parametrize("sizes", ["kernel_size: 1", "kernel_size: 3 pad: 1"])
def test_pooling_in_place_sees_what_it_has_filled(
    method: str, value: float, sizes: str, tmp_path: Path
) -> None:
    size = X.replace("dim: 1 dim: 3", "dim: 1 dim: 1 dim: 1 dim: 3")
    pool = layer("Pooling", "x", "x", f"pooling_param {{ pool: {method} {sizes} }}", "pool")
    net = face(tmp_path, FORCE + size + pool + layer("Power", "x", "y"))
    assert passes(net, [1, -2, 3], "y") == [0, 0, 0]
    assert net.blobs["y"].data.ravel().tolist() == [value] * 3


def test_crop_in_place_takes_no_gradient(tmp_path: Path) -> None:
    crop = layer("Crop", "x e", "x", "crop_param { axis: 1 }", "crop")
    net = face(tmp_path, FORCE + X + X.replace('"x"', '"e"') + crop + layer("Power", "x", "y"))
    assert passes(net, [1, -2, 3], "y") == [0, 0, 0]


def test_dropout_of_everything(tmp_path: Path) -> None:
    """0 times 1 / (1 - 1)."""
    drop = layer("Dropout", "x", "y", "dropout_param { dropout_ratio: 1 }")
    net = face(tmp_path, FORCE + X + drop)
    np.testing.assert_equal(passes(net, [1, -2, 3], "y"), [math.nan] * 3)
    net = face(tmp_path, FORCE + X + drop, caffe.TEST)
    assert passes(net, [1, -2, 3], "y") == [1, 1, 1]


def _dummy(filler: str) -> str:
    return layer("DummyData", "", "d", f"dummy_data_param {{ shape {{ dim: 4 }} {filler} }}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (X.replace("dim: 1", "dim: 1 " * 32), "33 axes; Caffe's blobs have at most 32"),
        (_dummy('data_filler { type: "gaussian" std: 0 }'), "std 0 must be above 0"),
        (_dummy('data_filler { type: "foo" }'), "unknown filler 'foo'"),
        (_dummy('data_filler { type: "bilinear" }'), "square kernels"),
        (X + layer("Exp", "x", "y", "exp_param { base: inf }"), "base: must be finite"),
        (X + layer("Exp", "x", "y", "exp_param { base: nan }"), "base: must be finite"),
    ],
)
def test_definitions_that_caffe_refuses(text: str, says: str) -> None:
    with pytest.raises(CaffeCompatError, match=says) as caught:
        build(parse_net(text))
    assert isinstance(caught.value, PrototxtError)


def test_as_many_axes_as_caffe_has() -> None:
    assert len(build(parse_net(X.replace("dim: 1", "dim: 1 " * 31))).blobs["x"]) == 32


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("base: 10 shift: 400", [math.inf, math.inf, math.nan]),
        ("shift: 1000", [math.inf, math.inf, math.nan]),
    ],
)
def test_a_shift_beyond_the_numbers(options: str, wanted: list[float], tmp_path: Path) -> None:
    """The factor in front is infinite, as in Caffe; infinite times 0 is no number."""
    net = face(tmp_path, X + layer("Exp", "x", "y", f"exp_param {{ {options} }}"))
    net.blobs["x"].data[...] = [1, 0, -1e4]
    net.forward()
    np.testing.assert_equal(net.blobs["y"].data.ravel().tolist(), wanted)


def test_bounds_in_the_wrong_order(tmp_path: Path) -> None:
    """Caffe takes the upper bound first, so that the lower one has the last word."""
    net = face(tmp_path, X + layer("Clip", "x", "y", "clip_param { min: 1 max: -1 }"))
    net.blobs["x"].data[...] = [-5, 0, 5]
    net.forward()
    assert net.blobs["y"].data.ravel().tolist() == [1, 1, 1]
