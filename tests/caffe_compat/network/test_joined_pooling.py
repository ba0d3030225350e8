"""A convolution, its ReLU and a MAX pooling run as one only where that gives the same map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from caffe_compat import Net, parse_net
from caffe_compat.engine.plan import MODES, Mode

_NET = """
input: "x" input_shape {{ dim: 2 dim: 3 dim: 21 dim: 17 }}
layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ num_output: 6
  kernel_size: 3 {conv} weight_filler {{ type: "gaussian" std: 0.3 }} }} }}
layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" {relu} }}
layer {{ name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {{ {pool} }} }}
"""


@pytest.mark.parametrize("engine", MODES)
@pytest.mark.parametrize(
    ("conv", "relu", "pool"),
    [
        ("pad: 1", "", "kernel_size: 2 stride: 2"),
        ("pad: 1", "", "kernel_size: 3 stride: 2"),
        ("pad: 1", "", "kernel_size: 3 stride: 2 pad: 1"),  # DeepLab
        ("pad: 1", "", "kernel_size: 3 stride: 1 pad: 1"),  # SSD
        ("pad: 1", "", "kernel_size: 2 stride: 3"),
        ("pad: 1", "", "kernel_size: 2 stride: 2 round_mode: FLOOR"),
        ("pad: 1", "", "kernel_h: 3 kernel_w: 2 stride: 2"),
        ("pad: 1", "", "kernel_size: 2 stride_h: 2 stride_w: 1"),
        ("pad: 1", "", "kernel_size: 2 stride: 2 pool: AVE"),
        ("pad: 1", "", "global_pooling: true"),
        ("pad: 2 dilation: 2", "", "kernel_size: 2 stride: 2"),
        ("pad: 1 group: 3", "", "kernel_size: 2 stride: 2"),
        ("pad: 1 stride: 2", "", "kernel_size: 2 stride: 2"),
        ("pad: 1", "relu_param { negative_slope: 0.1 }", "kernel_size: 2 stride: 2"),
    ],
)
def test_what_is_joined_equals_layer_by_layer(
    conv: str, relu: str, pool: str, engine: Mode
) -> None:
    """Asked for the pooled blob alone, and for the blob between as well, which takes every layer by
    itself; that one is held against torch."""
    net = Net(parse_net(_NET.format(conv=conv, relu=relu, pool=pool)), seed=3, engine=engine)
    x = torch.randn(2, 3, 21, 17, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        joined = net(x)["p"]
        apart = net(x, blobs=["c", "p"])
    weight, bias = (torch.from_numpy(blob.data) for blob in net.weights()["c"])
    words = conv.replace(":", "").split()
    given = {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    numbers = {"stride": 1, "dilation": 1, "group": 1, **given}
    made = F.conv2d(
        x, weight, bias, numbers["stride"], numbers["pad"], numbers["dilation"], numbers["group"]
    )
    torch.testing.assert_close(
        apart["c"], F.leaky_relu(made, 0.1 if relu else 0), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(joined, apart["p"], atol=1e-4, rtol=1e-4)
