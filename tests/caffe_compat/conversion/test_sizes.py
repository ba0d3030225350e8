"""Inputs whose size no definition tells: derived from the weights, or said to be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe_compat import CaffeCompatError, Net, parse_net, read_net, write_weights
from caffe_compat.conversion.convert import convert, weights_only
from caffe_compat.conversion.sizes import size_of
from caffe_compat.definition.spec import NetSpec
from caffe_compat.errors import UnknownInput
from caffe_compat.network.graph import build
from caffe_compat.weights import containers
from tests.paths import DATA, needs_data, reported

_HEAD = 'layer { name: "data" type: "Input" top: "data" %s }'
_CONV = """
layer { name: "power" type: "Power" bottom: "data" top: "scaled" power_param { scale: 0.5 } }
layer { name: "conv" type: "Convolution" bottom: "scaled" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 group: %d } }
"""
_FC = """
layer { name: "fc" type: "InnerProduct" bottom: "%s" top: "fc"
        inner_product_param { num_output: 5 } }
"""
_POOL = """
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { kernel_size: 2 stride: 2 } }
"""


def _model(folder: Path, body: str, shape: str) -> tuple[Path, NetSpec]:
    """A model of known size, and its definition without the size."""
    dims = f"input_param {{ shape {{ {shape} }} }}"
    net = Net(parse_net(_HEAD % dims + body))
    bare = parse_net(_HEAD % "" + body)
    write_weights(folder / "m.caffemodel", net.weights(), bare)
    return folder / "m.caffemodel", bare


@pytest.mark.parametrize(
    ("body", "shape", "told"),
    [
        (_CONV % 1 + _FC % "conv", (1, 3, 9, 9), "side 9 of InnerProduct 'fc'"),
        (_CONV % 2 + _FC % "conv", (1, 6, 11, 11), "6 channels"),
        (_CONV % 1 + _POOL + _FC % "pool", (1, 3, 12, 12), "11 to 12 fit"),
        (_FC % "data", (1, 7), "7 values"),
    ],
)
def test_the_weights_determine_the_size(
    tmp_path: Path, body: str, shape: tuple[int, ...], told: str
) -> None:
    path, _ = _model(tmp_path, body, " ".join(f"dim: {d}" for d in shape))
    made = convert(path)
    assert made.graph.blobs["data"] == shape
    assert "×".join(map(str, shape)) in made.notes[0]
    assert told in made.notes[0]
    (tmp_path / "net.prototxt").write_text(_HEAD % "" + body)
    assert convert(path, prototxt=tmp_path / "net.prototxt").graph.blobs["data"] == shape


def test_a_given_size_counts(tmp_path: Path) -> None:
    path, _ = _model(tmp_path, _CONV % 1 + _POOL + _FC % "pool", "dim: 1 dim: 3 dim: 12 dim: 12")
    made = convert(path, input_shapes={"data": (1, 3, 11, 11)})
    assert made.graph.blobs["data"] == (1, 3, 11, 11)
    assert not made.notes


def test_weights_that_do_not_determine_the_size(tmp_path: Path) -> None:
    """A fully convolutional net takes any size: it must be given; the weights convert all the
    same."""
    path, _ = _model(tmp_path, _CONV % 1, "dim: 1 dim: 3 dim: 9 dim: 9")
    with pytest.raises(UnknownInput, match="--input-shape data:") as error:
        convert(path)
    assert error.value.blob == "data"
    loose = weights_only(path, str(error.value))
    for form in ("safetensors", "npz", "caffemodel"):
        loose.write(tmp_path / f"out.{form}", form)
        again = containers.read_weights(tmp_path / f"out.{form}")
        assert {n: [b.shape for b in again[n]] for n in again.names} == {
            "conv": [(4, 3, 3, 3), (4,)]
        }


@pytest.mark.parametrize("path", reported("trainval", "m.caffemodel"))
def test_reported_training_net(path: Path) -> None:
    """The size from the weights, or from the crop_size of a training net that is given."""
    assert convert(path).graph.blobs["data"] == (1, 3, 9, 9)
    made = convert(path, prototxt=path.parent / "train_val.prototxt")
    assert made.graph.blobs["data"] == (1, 3, 9, 9)
    assert {d.name for d in made.dropped} == {"data", "acc", "loss"}


@pytest.mark.parametrize("path", reported("weights_only", "*.caffemodel"))
def test_reported_weights_without_a_net(path: Path, tmp_path: Path) -> None:
    """Whatever is wrong with the network inside, the weights can be had."""
    with pytest.raises(CaffeCompatError) as error:
        convert(path)
    loose = weights_only(path, str(error.value))
    loose.write(tmp_path / "w.npz", "npz")
    again = containers.read_weights(tmp_path / "w.npz")
    assert {layer.name for layer in again.layers} == {layer.name for layer in loose.weights.layers}
    assert again.count == loose.weights.count
    assert again.source.metadata["runs"].startswith("no: ")


@needs_data
@pytest.mark.parametrize(
    "path", sorted(DATA.glob("caffemodels/*/*.caffemodel")), ids=lambda p: p.stem
)
def test_sizes_of_real_models_fit(path: Path) -> None:
    """What is derived makes a network that the weights fit, of the definition's channels."""
    weights = containers.read_weights(path)
    for prototxt in path.parent.glob("*.prototxt"):
        if "layer" not in prototxt.read_text() or prototxt.stem not in (
            path.stem,
            path.parent.name,
        ):
            continue
        net = read_net(prototxt)
        told = build(net).blobs["data"]
        found = size_of(net, "data", weights)
        if found is None:
            assert not any(layer.type == "InnerProduct" for layer in net.layers)
            continue
        shape, _ = found
        assert shape[1] == told[1]
        made = convert(path, prototxt=prototxt, input_shapes={"data": shape}, strict=False)
        assert made.graph.blobs["data"] == shape
