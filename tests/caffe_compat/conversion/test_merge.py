"""BatchNorm and Scale layers merged into convolutions: the same blobs from fewer layers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from caffe_compat.conversion.convert import Conversion, convert
from caffe_compat.conversion.merge import merge_batch_norm
from caffe_compat.definition.prototxt import parse_net
from caffe_compat.network.net import Net
from caffe_compat.weights.write import write_weights
from reproduce.cli.convert import main

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 8 } } }'
CONVOLUTION = """layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" %s
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: %s weight_filler { type: "msra" }
  bias_filler { type: "gaussian" } } }"""
NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "%s" batch_norm_param { %s } }'
SCALE = """layer { name: "scale" type: "Scale" bottom: "%s" top: "%s" scale_param { bias_term: true
  filler { type: "gaussian" } bias_filler { type: "gaussian" } } }"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "%s" top: "y" }'


def model(folder: Path, *layers: str) -> Conversion:
    """A model of these layers with weights and statistics that are not trivial."""
    path = folder / "model.caffemodel"
    net = Net(parse_net("\n".join(layers)), seed=5)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for node in net.graph.nodes:
            for index, param in enumerate(node.params):
                tensor = net.param(param)
                values = rng.uniform(0.5, 3, tensor.shape).astype(np.float32)
                if node.layer.type == "BatchNorm" or index == 0:
                    tensor.copy_(torch.from_numpy(values))
    write_weights(path, net.weights(), net.graph.spec)
    return convert(path)


def output(made: Conversion) -> np.ndarray:
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, 9, 8)).astype(np.float32))
    found: np.ndarray = Net(made.graph, made.weights)(x)["y"].detach().numpy()
    return found


@pytest.mark.parametrize("bias", ["true", "false"])
@pytest.mark.parametrize(
    ("norm", "scale"),
    [("conv", "conv"), ("b", "b"), ("b", "s"), ("conv", None), ("b", None)],
)
def test_same_output(tmp_path: Path, bias: str, norm: str, scale: str | None) -> None:
    """In place or not, with and without a bias and a Scale layer."""
    layers = [INPUT, CONVOLUTION % ("", bias), NORM % (norm, "eps: 0.001")]
    layers += [SCALE % (norm, scale)] if scale else []
    made = model(tmp_path, *layers, RELU % (scale or norm))
    merged = merge_batch_norm(made)
    assert [layer.type for layer in merged.net.layers] == ["Input", "Convolution", "ReLU"]
    assert {d.name for d in merged.dropped} == ({"bn", "scale"} if scale else {"bn"})
    expected = output(made)
    assert np.abs(expected).max() > 0.1
    assert np.abs(output(merged) - expected).max() <= 1e-5 * np.abs(expected).max()
    merged.write(tmp_path / "merged.caffemodel", "caffemodel")
    assert np.array_equal(output(convert(tmp_path / "merged.caffemodel")), output(merged))


@pytest.mark.parametrize("name", ["conv", "", "again"])
@pytest.mark.parametrize("norm", ["bn", ""])
def test_layers_of_one_name(tmp_path: Path, name: str, norm: str) -> None:
    """Caffe knows layers by their place: two may have one name, or none."""
    first = CONVOLUTION % ("", "true"), NORM % ("b", "")
    second = """layer { name: "again" type: "Convolution" bottom: "b" top: "d"
      convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "msra" } } }
      layer { name: "bn" type: "BatchNorm" bottom: "d" top: "d" }"""
    layers = [text.replace('"bn"', f'"{norm}"') for text in (*first, second)]
    if name != "again":
        layers = [re.sub('name: "(conv|again)"', f'name: "{name}"', text) for text in layers]
    made = model(tmp_path, INPUT, *layers, RELU % "d")
    merged = merge_batch_norm(made)
    kinds = [layer.type for layer in merged.net.layers]
    assert kinds == ["Input", "Convolution", "Convolution", "ReLU"]
    expected = output(made)
    assert np.abs(output(merged) - expected).max() <= 1e-5 * np.abs(expected).max()


NAMED = 'param { name: "w" }'
SHARING = (CONVOLUTION % (NAMED, "true")).replace('"conv"', '"also"')
OTHER = 'layer { name: "other" type: "Power" bottom: "conv" top: "z" }'


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([CONVOLUTION % ("", "true"), NORM % ("b", "use_global_stats: false")], "of the batch"),
        ([CONVOLUTION % ("", "true"), NORM % ("b", ""), OTHER], "other layers read"),
        ([CONVOLUTION % (NAMED, "true"), NORM % ("b", ""), SHARING], "shared"),
        (
            ['layer { name: "conv" type: "Power" bottom: "x" top: "conv" }', NORM % ("b", "")],
            "Power",
        ),
    ],
)
def test_stays(tmp_path: Path, layers: list[str], reason: str) -> None:
    made = model(tmp_path, INPUT, *layers, RELU % "b")
    merged = merge_batch_norm(made)
    assert merged.net.layers == made.net.layers
    assert len(merged.notes) == 1 + len(made.notes)
    assert reason in merged.notes[-1]


def test_a_name_alone_is_not_shared(tmp_path: Path) -> None:
    made = model(tmp_path, INPUT, CONVOLUTION % (NAMED, "true"), NORM % ("b", ""), RELU % "b")
    assert [d.name for d in merge_batch_norm(made).dropped] == ["bn"]


def test_missing_weights_are_filled_before(tmp_path: Path) -> None:
    """Without --strict the definition may have layers that the file has no weights of."""
    model(tmp_path, INPUT, CONVOLUTION % ("", "true"), RELU % "conv")
    layers = [INPUT, CONVOLUTION % ("", "true"), NORM % ("b", ""), RELU % "b"]
    (tmp_path / "net.prototxt").write_text("\n".join(layers))
    made = convert(tmp_path / "model.caffemodel", prototxt=tmp_path / "net.prototxt", strict=False)
    merged = merge_batch_norm(made)
    assert "filled as the definition says: 'bn'" in merged.notes[-1]
    assert [layer.type for layer in merged.net.layers] == ["Input", "Convolution", "ReLU"]
    np.testing.assert_allclose(output(merged), output(made), rtol=1e-5)


def test_nothing_to_merge_is_said(tmp_path: Path) -> None:
    made = model(tmp_path, INPUT, CONVOLUTION % ("", "true"), RELU % "conv")
    assert "no BatchNorm" in merge_batch_norm(made).notes[-1]


def test_other_scales_stay(tmp_path: Path) -> None:
    scale = """layer { name: "scale" type: "Scale" bottom: "b" top: "s"
      scale_param { axis: 2 num_axes: 1 filler { type: "gaussian" } } }"""
    made = model(tmp_path, INPUT, CONVOLUTION % ("", "true"), NORM % ("b", ""), scale, RELU % "s")
    merged = merge_batch_norm(made)
    assert [layer.name for layer in merged.net.layers] == ["x", "conv", "scale", "relu"]
    assert np.allclose(output(merged), output(made), atol=1e-5)


def test_command(tmp_path: Path) -> None:
    model(tmp_path, INPUT, CONVOLUTION % ("", "false"), NORM % ("b", ""), RELU % "b")
    source, target = tmp_path / "model.caffemodel", tmp_path / "merged.caffemodel"
    result = CliRunner().invoke(main, [str(source), "--merge-batch-norm", "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert "merged into 'conv'" in result.output
    assert np.allclose(output(convert(target)), output(convert(source)), atol=1e-5)


def test_command_never_skips_it(tmp_path: Path) -> None:
    """Of a network that cannot be built nothing can be merged: no weights alone are written."""
    model(tmp_path, INPUT, CONVOLUTION % ("", "false"), NORM % ("b", ""), RELU % "b")
    source, target = tmp_path / "model.caffemodel", tmp_path / "merged.npz"
    source.write_bytes(source.read_bytes().replace(b"ReLU", b"Xxxx"))
    result = CliRunner().invoke(main, [str(source), "--merge-batch-norm", "-o", str(target)])
    assert result.exit_code == 2
    assert "Xxxx" in result.output
    assert not target.exists()
