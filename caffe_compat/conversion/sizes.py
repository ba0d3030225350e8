"""The size of an input that a definition does not tell, from the weights that must fit it.

Channels come from the first convolution, the side from the first InnerProduct: its weights say how
many values it reads, and only some sides of the picture make so many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from caffe_compat.conversion.deploy import input_layer, is_data
from caffe_compat.definition.spec import TEST, LayerSpec, NetSpec
from caffe_compat.errors import CaffeCompatError
from caffe_compat.layers.base import Shape, count
from caffe_compat.network.graph import build
from caffe_compat.network.wiring import upstream
from caffe_compat.weights.model import Weights

_MOST = 1024  # longest side that is tried
_KEEPING = (
    "AbsVal",
    "BatchNorm",
    "Bias",
    "Dropout",
    "ELU",
    "Exp",
    "LRN",
    "Log",
    "MVN",
    "PReLU",
    "Power",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Split",
    "TanH",
)


def size_of(net: NetSpec, blob: str, weights: Weights) -> tuple[Shape, str] | None:
    """Work out the shape of an input.

    Parameters
    ----------
    net : definition, rules not applied; a training net or a deploy net.
    blob : the input.
    weights : the trained parameters.

    Returns
    -------
    The shape with batch 1, and a sentence that says where it comes from; None where the weights do
    not determine it. Pictures are taken for square.
    """
    layers = [layer for layer in net.filter(TEST).layers if not is_data(layer)]
    reader = _reader(layers, blob)
    if reader is None or reader.name not in weights:
        return None
    stored = weights[reader.name][0]
    if not stored.data.size:  # another layer owns it
        return None
    if reader.type == "InnerProduct":
        values = stored.data.size // max(reader.message.inner_product_param.num_output, 1)
        return (1, values), f"{values} values, which InnerProduct '{reader.name}' reads"
    if len(stored.shape) < 2:
        return None
    channels = stored.shape[1] * reader.message.convolution_param.group
    sides = _sides(net, layers, blob, channels, weights)
    if sides is None:
        return None
    side, told = sides
    where = f"{channels} channels of convolution '{reader.name}'"
    return (1, channels, side, side), f"{where}, {told}"


def _reader(layers: Sequence[LayerSpec], blob: str) -> LayerSpec | None:
    """The first convolution or InnerProduct that a blob reaches, past layers that keep shapes."""
    names = {blob}
    for layer in layers:
        if not names.intersection(layer.bottoms):
            continue
        if layer.type in ("Convolution", "InnerProduct"):
            return layer
        if layer.type not in _KEEPING:
            return None
        names.update(layer.tops)
    return None


def _above(layers: Sequence[LayerSpec], blob: str) -> tuple[LayerSpec, ...] | None:
    """The first InnerProduct and all that it depends on; None where that is more than the blob."""
    last = next((i for i, layer in enumerate(layers) if layer.type == "InnerProduct"), None)
    if last is None:
        return None
    reader = layers[last]
    places, given = upstream(layers[:last], reader.bottoms)
    return (*(layers[place] for place in places), reader) if given == {blob} else None


def _fitting(net: NetSpec, blob: str, channels: int, wanted: int) -> Iterator[int]:
    """Sides for which the last layer has so many weights."""
    for side in range(1, _MOST + 1):
        first = input_layer({blob: (1, channels, side, side)})
        try:
            graph = build(replace(net, layers=(first, *net.layers)))
        except CaffeCompatError:
            continue  # too small for a kernel, or two branches that do not meet
        size = count(graph.nodes[-1].params[0].shape)
        if size > wanted:
            return
        if size == wanted:
            yield side


def _sides(
    net: NetSpec, layers: Sequence[LayerSpec], blob: str, channels: int, weights: Weights
) -> tuple[int, str] | None:
    """The side of the picture, and the words that say why."""
    path = _above(layers, blob)
    if path is None or path[-1].name not in weights:
        return None
    wanted = weights[path[-1].name][0].data.size
    found = list(_fitting(replace(net, layers=path), blob, channels, wanted))
    if not found:
        return None
    # rounding in strides lets a few sides fit; the roundest (in binary) is the likeliest
    side = max(found, key=lambda one: one & -one)
    told = f"side {side} of InnerProduct '{path[-1].name}'"
    if len(found) > 1:
        told += f" ({found[0]} to {found[-1]} fit; --input-shape gives another one)"
    return side, told
