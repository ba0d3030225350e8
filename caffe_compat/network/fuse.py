"""Layers that run as one step where nobody sees what is between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from caffe_compat.engine import plan
from caffe_compat.layers.convolution import Convolution
from caffe_compat.layers.neuron import ReLU
from caffe_compat.layers.pooling import Pooling
from caffe_compat.network.graph import Node


@dataclass(frozen=True)
class PooledConvolution:
    """A convolution, its ReLU and the MAX pooling after it."""

    conv: Node
    pool: Node

    @property
    def top(self) -> str:
        """The blob that it makes."""
        return self.pool.tops[0]

    def run(self, values: Mapping[str, Tensor], params: Sequence[Tensor]) -> Tensor:
        """Compute the pooling's top from the convolution's bottom."""
        x = values[self.conv.bottoms[0]]
        layer, pool = self.conv.layer, self.pool.layer
        assert isinstance(layer, Convolution)
        assert isinstance(pool, Pooling)
        shape = layer.output_shapes([tuple(x.shape)])[0]
        size = pool.output_shapes([shape])[0][2:]
        pad = layer.windows(tuple(x.shape))[2]
        bias = params[1] if len(params) > 1 else None
        return plan.convolve_pooled(
            x, params[0], bias, (pad[0], pad[1]), pool.kernel[0], pool.stride[0], (size[0], size[1])
        )


@dataclass(frozen=True)
class RectifiedConvolution:
    """A convolution and its ReLU, which needs no memory of its own."""

    conv: Node

    @property
    def top(self) -> str:
        """The blob that it makes."""
        return self.conv.tops[0]

    def run(self, values: Mapping[str, Tensor], params: Sequence[Tensor]) -> Tensor:
        """Compute the ReLU's top from the convolution's bottom."""
        x = values[self.conv.bottoms[0]]
        layer = self.conv.layer
        assert isinstance(layer, Convolution)
        _, stride, pad, dilation = layer.windows(tuple(x.shape))
        bias = params[1] if len(params) > 1 else None
        return plan.convolve(
            x, params[0], bias, stride, pad, dilation, layer.options.group, relu=True
        )


Step = PooledConvolution | RectifiedConvolution


def find(
    nodes: Sequence[Node],
    keep: set[str],
    last: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[int, Step | None]:
    """Steps by the place of their first layer; None at the places of their other layers.

    Parameters
    ----------
    nodes : the layers that run, in order.
    keep : blobs that somebody wants.
    last : the last place that needs a blob.
    shapes : of the blobs.
    """
    found: dict[int, Step | None] = {}
    for place, (conv, relu, pool) in enumerate(zip(nodes, nodes[1:], nodes[2:], strict=False)):
        blob = conv.tops[0]
        alone = (
            blob not in keep
            and last[blob] == place + 2
            and conv.tops == relu.bottoms == relu.tops == pool.bottoms
        )
        if (
            alone
            and len(conv.tops) == len(pool.tops) == 1
            and _pools(conv, relu, pool, shapes[conv.bottoms[0]])
        ):
            found[place] = PooledConvolution(conv, pool)
            found[place + 1] = found[place + 2] = None
    for place, (conv, relu) in enumerate(pairwise(nodes)):
        if (
            place not in found
            and len(conv.bottoms) == len(conv.tops) == 1
            and conv.tops == relu.bottoms == relu.tops
            and _rectifies(conv, relu, shapes[conv.bottoms[0]])
        ):
            found[place], found[place + 1] = RectifiedConvolution(conv), None
    return found


def _rectifies(conv: Node, relu: Node, bottom: tuple[int, ...]) -> bool:
    """A convolution of N×C×H×W that moves by one place, and a plain ReLU."""
    layer = conv.layer
    if type(layer) is not Convolution or type(relu.layer) is not ReLU or len(bottom) != 4:
        return False
    if relu.layer.options.negative_slope or layer.channel_axis(bottom) != 1:
        return False
    return layer.windows(bottom)[1] == (1, 1)


def _pools(conv: Node, relu: Node, pool: Node, bottom: tuple[int, ...]) -> bool:
    """A convolution without groups that moves by one place, a plain ReLU, and a MAX pooling of
    square windows without padding."""
    layer, window = conv.layer, pool.layer
    if (
        type(layer) is not Convolution
        or layer.options.group != 1
        or type(window) is not Pooling
        or not _rectifies(conv, relu, bottom)
    ):
        return False
    kernel, _, _, dilation = layer.windows(bottom)
    if dilation != (1, 1) or max(kernel) == 1:
        return False
    square = window.kernel[0] == window.kernel[1] and window.stride[0] == window.stride[1]
    whole = (
        window.kernel[0] >= window.stride[0]
        and not any(window.pad)
        and not window.floor
        and not window.options.global_pooling
        and not window.works_in_place
    )
    return window.method == "MAX" and square and whole
