"""Merges BatchNorm and Scale layers into the convolutions before them.

In the test phase both are one factor and one summand a channel, which a convolution can have in its
own weights and bias: the same blobs come out of fewer layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from caffe_compat.conversion.convert import Conversion
from caffe_compat.conversion.deploy import Dropped
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.network.graph import build
from caffe_compat.network.match import match
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob

Floats: TypeAlias = npt.NDArray[np.float64]


def merge_batch_norm(made: Conversion) -> Conversion:
    """The model without those BatchNorm layers, and the Scale layers after them, that a Convolution
    can do.

    A layer stays where something else reads what the convolution makes, where weights are shared,
    where the statistics are the batch's own, or where a Scale layer does more than one factor a
    channel; a note says so of each BatchNorm. Computed in double precision and rounded once.

    Returns
    -------
    The model with the merged layers among ``dropped``. Its blobs are those of ``made``, up to
    rounding; blobs between the merged layers are gone.
    """
    layers = list(made.net.layers)
    blobs = {entry.name: entry.blobs for entry in made.weights.layers}
    dropped, notes = list(made.dropped), list(made.notes)
    for norm in [layer for layer in layers if layer.type == "BatchNorm"]:
        convolution = _maker(layers, norm)
        reason = _obstacle(layers, convolution, norm)
        if convolution is None or reason:
            notes.append(f"BatchNorm '{norm.name}' stays: {reason}")
            continue
        scale = _only_reader(layers, norm)
        merged = [norm]
        if scale is not None and _is_per_channel(scale, blobs, len(blobs[norm.name][0].data)):
            merged.append(scale)
        factor, summand = _effect(norm, merged[1:], blobs)
        weight, bias = _weights_of(convolution, blobs)
        weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        bias = bias * factor + summand
        blobs[convolution.name] = (
            Blob(weight.astype(np.float32)),
            Blob(bias.astype(np.float32)),
        )
        place = layers.index(convolution)
        layers[place] = _with_bias(convolution, merged[-1].tops[0])
        for layer in merged:
            layers.remove(layer)
            del blobs[layer.name]
            dropped.append(Dropped(layer.name, layer.type, f"merged into '{convolution.name}'"))
    net = replace(made.net, layers=tuple(layers))
    entries = tuple(
        LayerBlobs(layer.name, layer.type, blobs[layer.name])
        for layer in layers
        if layer.name in blobs
    )
    return _rebuilt(made, net, entries, dropped, notes)


def _rebuilt(
    made: Conversion,
    net: NetSpec,
    entries: tuple[LayerBlobs, ...],
    dropped: list[Dropped],
    notes: list[str],
) -> Conversion:
    shapes = {name: made.graph.blobs[name] for name in made.graph.inputs}
    graph = build(net, input_shapes=shapes)
    weights: Weights = replace(made.weights, layers=entries, net=net)
    found = match(graph, weights, frozenset(layer.name for layer in dropped))
    return replace(
        made,
        graph=graph,
        weights=weights,
        match=found,
        dropped=tuple(dropped),
        notes=tuple(notes),
    )


def _maker(layers: list[LayerSpec], reader: LayerSpec) -> LayerSpec | None:
    """The layer whose top ``reader`` sees: the last one before it that writes its bottom."""
    before = layers[: layers.index(reader)]
    return next((one for one in reversed(before) if reader.bottoms[0] in one.tops), None)


def _readers(layers: list[LayerSpec], maker: LayerSpec) -> list[LayerSpec]:
    """All layers that see what ``maker`` writes into its first top, up to where that is written
    anew."""
    blob, found = maker.tops[0], []
    for layer in layers[layers.index(maker) + 1 :]:
        if blob in layer.bottoms:
            found.append(layer)
        if blob in layer.tops:
            break
    return found


def _only_reader(layers: list[LayerSpec], maker: LayerSpec) -> LayerSpec | None:
    readers = _readers(layers, maker)
    return readers[0] if len(readers) == 1 else None


def _obstacle(layers: list[LayerSpec], maker: LayerSpec | None, norm: LayerSpec) -> str:
    """Why a BatchNorm layer cannot be merged into the layer before it; "" where it can."""
    options = norm.message.batch_norm_param
    if options.HasField("use_global_stats") and not options.use_global_stats:
        return "it normalises by the statistics of the batch"
    if maker is None or maker.type != "Convolution" or len(maker.tops) != 1:
        return f"before it stands {'no layer' if maker is None else maker.type}, no Convolution"
    if maker.message.convolution_param.axis != 1:
        return f"the channels of '{maker.name}' are not its second axis"
    if _only_reader(layers, maker) is None:
        return f"other layers read the blob of '{maker.name}', too"
    if any(param.name for layer in (maker, norm) for param in layer.params):
        return "weights are shared"
    return ""


def _is_per_channel(scale: LayerSpec, blobs: dict[str, tuple[Blob, ...]], channels: int) -> bool:
    """Is a layer a Scale layer that multiplies each channel by a number of its own?"""
    if scale.type != "Scale" or len(scale.bottoms) != 1 or any(p.name for p in scale.params):
        return False
    return scale.message.scale_param.axis == 1 and blobs[scale.name][0].data.shape == (channels,)


def _effect(
    norm: LayerSpec, scales: list[LayerSpec], blobs: dict[str, tuple[Blob, ...]]
) -> tuple[Floats, Floats]:
    """Factor and summand of each channel of a BatchNorm layer and the Scale layer after it."""
    mean, variance, count = (_double(blob) for blob in blobs[norm.name])
    share = 0.0 if count[0] == 0 else 1 / count[0]
    factor = 1 / np.sqrt(variance * share + norm.message.batch_norm_param.eps)
    summand = -mean * share * factor
    for scale in scales:
        weight, *bias = (_double(blob) for blob in blobs[scale.name])
        factor, summand = factor * weight, summand * weight + (bias[0] if bias else 0)
    return factor, summand


def _weights_of(
    convolution: LayerSpec, blobs: dict[str, tuple[Blob, ...]]
) -> tuple[Floats, Floats]:
    weight, *bias = (_double(blob) for blob in blobs[convolution.name])
    return weight, bias[0] if bias else np.zeros(len(weight))


def _double(blob: Blob) -> Floats:
    return np.asarray(blob.data, dtype=np.float64)


def _with_bias(convolution: LayerSpec, top: str) -> LayerSpec:
    """The convolution with a bias, writing the blob that the merged layers wrote."""
    changed = convolution.with_blobs(convolution.bottoms, [top])
    options: Any = changed.message.convolution_param
    options.ClearField("bias_term")
    return changed
