"""Small networks and model files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_compat import Net, parse_net, write_weights
from caffe_compat.definition.spec import NetSpec
from reproduce.network.netgen import CPMConfig

# A pose machine that runs in milliseconds.
TINY_MACHINE = CPMConfig(
    stages=2,
    input_size=64,
    towers=(4, 4, 8),
    features=4,
    wide=8,
    belief=8,
    tower_kernel=5,
    stage_kernel=5,
    filler="msra",
)
# One with the kernels and the multiples of 16 channels that each way of the engine is made for.
ENGINE_MACHINE = CPMConfig(
    stages=2,
    input_size=64,
    towers=(8, 16, 16),
    features=16,
    wide=16,
    belief=16,
    tower_kernel=3,
    stage_kernel=9,
    filler="msra",
)

TEXT = """
name: "small"
input: "data" input_shape { dim: 1 dim: 3 dim: 9 dim: 12 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } bias_filler { value: 0.25 } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def small() -> Net:
    """The network of :data:`TEXT` with a seed."""
    return Net(parse_net(TEXT), seed=7)


def model_file(folder: Path, name: str = "small.caffemodel") -> tuple[Path, Net, NetSpec]:
    """A caffemodel with its definition inside."""
    net = small()
    write_weights(folder / name, net.weights(), net.graph.spec)
    return folder / name, net, net.graph.spec


def same_blobs(a: object, b: object) -> bool:
    """Bit-identical weights under the same names."""
    left, right = ({e.name: e.blobs for e in w.layers} for w in (a, b))  # type: ignore[attr-defined]
    return left.keys() == right.keys() and all(
        len(left[n]) == len(right[n])
        and all(
            x.data.dtype == y.data.dtype and np.array_equal(x.data, y.data)
            for x, y in zip(left[n], right[n], strict=True)
        )
        for n in left
    )
