"""One class per Caffe layer type; importing this package fills the registry (and does not import
torch)."""

from __future__ import annotations

from caffe_compat.layers import (  # noqa: F401 - each family registers its layers
    arrange,
    convolution,
    data,
    detection,
    forks,
    inner,
    loss,
    neuron,
    normalization,
    output,
    pooling,
    python,
    recurrent,
    reduction,
)
from caffe_compat.layers.base import Layer, Shape, make, register, registry

__all__ = ["Layer", "Shape", "make", "register", "registry"]
