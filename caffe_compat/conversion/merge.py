"""Merges BatchNorm and Scale layers into the convolutions before them.

In the test phase both are one factor and one summand a channel, which a convolution can have in its
own weights and bias: the same blobs come out of fewer layers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from caffe_compat.conversion.convert import Conversion
from caffe_compat.conversion.deploy import Dropped
from caffe_compat.definition.spec import LayerSpec
from caffe_compat.layers.convolution import Convolution
from caffe_compat.layers.normalization import BatchNorm, Scale
from caffe_compat.network.graph import Graph, Node, build
from caffe_compat.network.match import match
from caffe_compat.weights.model import LayerBlobs
from caffe_compat.weights.wire import Blob

Floats: TypeAlias = npt.NDArray[np.float64]
# by the index of the layer, since two layers may have one name, or none
Blobs: TypeAlias = dict[int, tuple[Blob, ...]]


def merge_batch_norm(made: Conversion) -> Conversion:
    """The model without those BatchNorm layers, and the Scale layers after them, that a Convolution
    can do.

    A BatchNorm layer stays where something else reads what the convolution makes, where weights are
    shared, or where the statistics are the batch's own; a Scale layer where it does more than one
    factor a channel. Computed in double precision and rounded once.

    Returns
    -------
    The model with the merged layers among ``dropped``, and a note on each BatchNorm that stays. Its
    blobs are those of ``made``, up to rounding; blobs between the merged layers are gone.
    """
    wiring = _Wiring(made.graph)
    trained = [node for node in made.graph.nodes if node.params]
    stored = zip(trained, made.weights.layers, strict=True)
    blobs: Blobs = {node.index: entry.blobs for node, entry in stored}
    layers = {node.index: node.layer.spec for node in made.graph.nodes}
    dropped, notes = list(made.dropped), list(made.notes)
    norms = [node for node in made.graph.nodes if isinstance(node.layer, BatchNorm)]
    if not norms:
        notes.append("there is no BatchNorm layer to merge")
    for norm in norms:
        convolution = wiring.makers[norm.index]
        if reason := _obstacle(norm, convolution, wiring):
            notes.append(f"BatchNorm '{norm.layer.name}' stays: {reason}")
            continue
        scale = _scale_after(norm, wiring)
        merged = [norm] if scale is None else [norm, scale]
        place = convolution.index
        blobs[place] = _folded(blobs[place], *_effect(norm, scale, blobs))
        layers[place] = _with_bias(convolution.layer.spec, merged[-1].tops[0])
        why = f"merged into '{convolution.layer.name}'"
        for node in merged:
            del blobs[node.index], layers[node.index]
            dropped.append(Dropped(node.layer.name, node.layer.type, why))
    return _rebuilt(made, layers, blobs, dropped, notes)


def _rebuilt(
    made: Conversion,
    layers: dict[int, LayerSpec],
    blobs: Blobs,
    dropped: list[Dropped],
    notes: list[str],
) -> Conversion:
    net = replace(made.net, layers=tuple(layers.values()))
    shapes = {name: made.graph.blobs[name] for name in made.graph.inputs}
    graph = build(net, input_shapes=shapes)
    entries = tuple(
        LayerBlobs(layer.name, layer.type, blobs[place])
        for place, layer in layers.items()
        if place in blobs
    )
    weights = replace(made.weights, layers=entries, net=net)
    return replace(
        made,
        graph=graph,
        weights=weights,
        match=match(graph, weights, frozenset(layer.name for layer in dropped)),
        dropped=tuple(dropped),
        notes=tuple(notes),
    )


class _Wiring:
    """Who reads what of whom; of a blob that is written in place, each layer's own version.

    Attributes
    ----------
    makers : index of a layer to the layer that wrote its first bottom.
    readers : index of a layer to those that read what it wrote.
    users : how many layers use a parameter, by the parameter's key.
    """

    def __init__(self, graph: Graph) -> None:
        self.makers: dict[int, Node] = {}
        self.readers: dict[int, list[Node]] = {node.index: [] for node in graph.nodes}
        self.users = Counter(param.owner for node in graph.nodes for param in node.params)
        wrote: dict[str, Node] = {}
        for node in graph.nodes:
            for blob in node.bottoms:
                self.readers[wrote[blob].index].append(node)
            if node.bottoms:
                self.makers[node.index] = wrote[node.bottoms[0]]
            wrote.update(dict.fromkeys(node.tops, node))

    def shares(self, node: Node) -> bool:
        """Does another layer use parameters of this one?"""
        return any(self.users[param.owner] > 1 for param in node.params)


def _obstacle(norm: Node, before: Node, wiring: _Wiring) -> str:
    """Why a BatchNorm layer cannot be merged into the layer before it; "" where it can."""
    name = before.layer.name
    if isinstance(norm.layer, BatchNorm) and not norm.layer.use_global:
        return "it normalises by the statistics of the batch"
    if type(before.layer) is not Convolution or len(before.tops) != 1:
        return f"before it stands '{name}' ({before.layer.type}), no Convolution with one top"
    if before.layer.channel_axis(before.bottom_shapes[0]) != 1:
        return f"the channels of '{name}' are not its second axis"
    if len(wiring.readers[before.index]) > 1:
        return f"other layers read the blob of '{name}', too"
    if wiring.shares(before) or wiring.shares(norm):
        return "weights are shared"
    return ""


def _scale_after(norm: Node, wiring: _Wiring) -> Node | None:
    """The Scale layer that alone reads a BatchNorm layer and has one factor a channel, if any."""
    readers = wiring.readers[norm.index]
    if len(readers) != 1 or not isinstance(readers[0].layer, Scale):
        return None
    (scale,) = readers
    if len(scale.bottoms) > 1 or wiring.shares(scale):
        return None
    axis = scale.layer.axis(scale.layer.options.axis, len(scale.bottom_shapes[0]))
    channels = norm.params[0].shape
    return scale if axis == 1 and scale.params[0].shape == channels else None


def _effect(norm: Node, scale: Node | None, blobs: Blobs) -> tuple[Floats, Floats]:
    """Factor and summand of each channel of a BatchNorm layer and the Scale layer after it."""
    mean, variance, count = (_double(blob) for blob in blobs[norm.index])
    share = 0.0 if count[0] == 0 else 1 / count[0]
    factor = 1 / np.sqrt(variance * share + norm.layer.options.eps)
    summand = -mean * share * factor
    if scale is not None:
        weight, *bias = (_double(blob) for blob in blobs[scale.index])
        factor, summand = factor * weight, summand * weight + (bias[0] if bias else 0)
    return factor, summand


def _folded(stored: tuple[Blob, ...], factor: Floats, summand: Floats) -> tuple[Blob, ...]:
    """Weights and bias of a convolution whose channels are multiplied and shifted."""
    weight, *biases = (_double(blob) for blob in stored)
    weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    bias = summand + (biases[0] * factor if biases else 0)
    return Blob(weight.astype(np.float32)), Blob(bias.astype(np.float32))


def _double(blob: Blob) -> Floats:
    return np.asarray(blob.data, dtype=np.float64)


def _with_bias(convolution: LayerSpec, top: str) -> LayerSpec:
    """The convolution with a bias, writing the blob that the merged layers wrote."""
    changed = convolution.with_blobs(convolution.bottoms, [top])
    changed.message.convolution_param.ClearField("bias_term")
    return changed
