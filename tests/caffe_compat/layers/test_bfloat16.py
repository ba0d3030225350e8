"""Places, classes and counts are whole numbers: bfloat16, which has 8 bits, keeps none beyond 256."""

from __future__ import annotations

import pytest
import torch

from caffe_compat import Net, parse_net

_WIDE = """
input: "x" input_shape { dim: 2 dim: 1 dim: 40 dim: 40 }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 1
  kernel_size: 1 weight_filler { type: "constant" value: 1 } } }
"""
_LAYERS = {
    "mask": """layer { name: "pool" type: "Pooling" bottom: "c" top: "p" top: "mask"
      pooling_param { kernel_size: 2 stride: 2 } }""",
    "best": """layer { name: "best" type: "ArgMax" bottom: "c" top: "best"
      argmax_param { top_k: 3 } }""",
    "both": """layer { name: "both" type: "ArgMax" bottom: "c" top: "both"
      argmax_param { out_max_val: true } }""",
}


@pytest.mark.parametrize("name", list(_LAYERS))
def test_places_are_exact(name: str) -> None:
    net = Net(parse_net(_WIDE + _LAYERS[name]))
    # powers of two are exact in both formats, so that the same ones are the largest
    dice = torch.Generator().manual_seed(1)
    orders = torch.stack([torch.randperm(1600, generator=dice) for _ in range(2)])
    x = 2.0 ** -orders.reshape(2, 1, 40, 40).float()
    x = x.clamp_min(2.0**-60)
    with torch.no_grad():
        expected = net(x)[name]
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x)[name]
    assert found.dtype == torch.float32
    assert expected.max() > 256
    if name == "mask":  # where none is among the large ones the first of equal ones counts in both
        assert torch.equal(found, expected)
    else:
        assert torch.equal(found[:, :1], expected[:, :1])


def test_hits_are_counted() -> None:
    net = Net(
        parse_net("""
        input: "x" input_shape { dim: 600 dim: 2 }
        input: "label" input_shape { dim: 600 }
        layer { name: "hits" type: "Accuracy" bottom: "x" bottom: "label" top: "hits" top: "each" }""")
    )
    x = torch.zeros(600, 2)
    x[:, 0] = 1
    label = (torch.arange(600) >= 301).float()
    with torch.no_grad():
        found = net(x=x.bfloat16(), label=label)
    assert found["hits"].item() == pytest.approx(301 / 600)
    assert found["each"].tolist() == [1, 0]
