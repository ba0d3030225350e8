"""A network that would fill the memory is refused before any memory is taken."""

from __future__ import annotations

import pytest
import torch

from caffe_compat import Net, parse_net
from caffe_compat.errors import CaffeCompatError, PrototxtError
from caffe_compat.network.bound import check_network
from caffe_compat.network.graph import build

# no blob is larger than Caffe allows; together they take 24 GB
_LARGE = """
name: "n" input: "data" input_shape { dim: 1 dim: 2 dim: 31 dim: 31 }
layer { name: "up" type: "Deconvolution" bottom: "data" top: "up" convolution_param {
  num_output: 2 kernel_size: 1054 stride: 1018 bias_term: false weight_filler { type: "bilinear" }
  group: 2 } }
layer { name: "relu" type: "ReLU" bottom: "up" top: "up" }
layer { name: "again" type: "Power" bottom: "up" top: "again" }
layer { name: "half" type: "Slice" bottom: "again" top: "a" top: "b" slice_param { slice_point: 1 } }
"""
_FEW = 'name: "n" input: "data" input_shape { dim: 1 dim: 1 dim: 5 dim: 5 }'


def test_too_large_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CPM_MAX_NETWORK_GB", raising=False)
    with pytest.raises(PrototxtError) as caught:
        Net(parse_net(_LARGE))
    said = str(caught.value)
    assert said.startswith("<text>:3: layer 'up': asks for 8.0 GB of the 24.0 GB")
    assert "limit of 16 GB" in said
    assert said.endswith("set CPM_MAX_NETWORK_GB=24")
    assert "\n" not in said


def test_the_limit_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPM_MAX_NETWORK_GB", "24")
    check_network(build(parse_net(_LARGE)))
    monkeypatch.setenv("CPM_MAX_NETWORK_GB", "23")
    with pytest.raises(PrototxtError, match="limit of 23 GB"):
        check_network(build(parse_net(_LARGE)))
    for text in ("0", "-1", "x", "1.5", "²"):
        monkeypatch.setenv("CPM_MAX_NETWORK_GB", text)
        with pytest.raises(CaffeCompatError, match="expected a whole number of GB"):
            Net(parse_net(_FEW))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Pooling", "pooling_param { kernel_size: 40001 stride: 40000 pad: 40000 }"),
        ("Pooling", "pooling_param { pool: AVE kernel_size: 40001 stride: 40000 pad: 40000 }"),
        ("Im2col", "convolution_param { kernel_size: 1 stride: 40000 pad: 40000 }"),
    ],
)
def test_padding_counts(kind: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blobs with a wide border between them."""
    monkeypatch.delenv("CPM_MAX_NETWORK_GB", raising=False)
    layer = f'layer {{ name: "x" type: "{kind}" bottom: "data" top: "y" {options} }}'
    with pytest.raises(PrototxtError, match=r"layer 'x': asks for 25\.6 GB"):
        Net(parse_net(_FEW + layer))


def test_more_neighbours_than_channels() -> None:
    """Channels beyond the last are none, however many the layer asks for."""
    data = torch.rand(1, 3, 2, 2)
    found = []
    for size in (5, 2_000_000_001):
        options = f"lrn_param {{ local_size: {size} alpha: {size} beta: 1 }}"
        text = f'layer {{ name: "x" type: "LRN" bottom: "data" top: "y" {options} }}'
        shape = _FEW.replace("dim: 1 dim: 1 dim: 5 dim: 5", "dim: 1 dim: 3 dim: 2 dim: 2")
        found.append(Net(parse_net(shape + text))(data)["y"])
    torch.testing.assert_close(found[1], found[0])
