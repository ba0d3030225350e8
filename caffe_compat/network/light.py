"""Layers that are done before several cores have begun on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe_compat.layers.arrange import Concat
from caffe_compat.layers.neuron import ReLU
from caffe_compat.layers.pooling import Pooling
from caffe_compat.layers.reduction import Eltwise
from caffe_compat.network.graph import Node

# Their work is little more than reading their bottoms.
_LIGHT = (Concat, Eltwise, Pooling, ReLU)
# Values of a bottom from which on a second core is worth its while.
_MANY = 1_000_000


def is_light(node: Node, bottoms: Sequence[Tensor]) -> bool:
    """Whether a layer's forward pass on these bottoms is best left to one core of the CPU."""
    return (
        isinstance(node.layer, _LIGHT)
        and not torch.is_grad_enabled()
        and all(bottom.device.type == "cpu" and bottom.numel() < _MANY for bottom in bottoms)
    )
