"""Layers that normalise, scale and shift, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from caffe_compat.conversion.onnx_steps import Dims, LayerStep, NoForm, converts, per_channel


@converts("LRN")
def _lrn(step: LayerStep) -> Iterable[str]:
    o, graph, x = step.options, step.graph, step.bottoms[0]
    if step.rank != 4:
        raise NoForm("its bottom is not N×C×H×W")
    if not step.layer.within and step.layer.works_in_place:
        raise NoForm("it works in place, where Caffe overwrites what it is to look at")
    if not step.layer.within:
        yield graph.op("LRN", x, size=o.local_size, alpha=o.alpha, beta=o.beta, bias=o.k)
        return
    half = o.local_size // 2
    mean = graph.op(
        "AveragePool",
        graph.op("Mul", x, x),
        kernel_shape=[o.local_size] * 2,
        pads=[half] * 4,
        count_include_pad=1,
    )
    inside = graph.op("Add", graph.op("Mul", mean, graph.constant(o.alpha)), graph.constant(1.0))
    yield graph.op("Mul", x, graph.op("Pow", inside, graph.constant(-o.beta)))


@converts("MVN")
def _mvn(step: LayerStep) -> Iterable[str]:
    o, graph = step.options, step.graph
    x = step.bottoms[0]
    if step.rank != 4:
        x = graph.reshape(x, step.shapes[0], step.tops[0])
    axes = graph.integers(*([1, 2, 3] if o.across_channels else [2, 3]))
    y = graph.op("Sub", x, graph.op("ReduceMean", x, axes))
    if o.normalize_variance:
        variance = graph.op("ReduceMean", graph.op("Mul", y, y), axes)
        y = graph.op("Div", y, graph.op("Add", graph.op("Sqrt", variance), graph.constant(o.eps)))
    yield y


@converts("BatchNorm")
def _batch_norm(step: LayerStep) -> Iterable[str]:
    graph = step.graph
    if not step.layer.use_global:
        raise NoForm("it takes the statistics of the batch (use_global_stats: false)")
    factor = float(step.params[2].ravel()[0])
    share = np.float64(0.0 if factor == 0 else 1 / factor)
    mean, variance = step.params[0] * share, step.params[1] * share
    std = np.sqrt(variance + step.options.eps)
    rank = max(step.rank, 2)
    centred = graph.op("Sub", step.bottoms[0], graph.constant(per_channel(mean, rank)))
    yield graph.op("Div", centred, graph.constant(per_channel(std, rank)))


@converts("BN")
def _bn(step: LayerStep) -> Iterable[str]:
    graph, layer, o = step.graph, step.layer, step.options
    if len(step.tops) > 1:
        raise NoForm("its further tops")
    if layer.inference:
        scale, shift = (p.astype(np.float64) for p in step.params)
    elif layer.folded:
        raise NoForm("it takes the statistics of the batch (bn_mode: LEARN)")
    else:
        slope, bias, mean, variance = (p.astype(np.float64) for p in step.params)
        scale = slope / np.sqrt(variance + o.eps)
        shift = bias - mean * scale
    scaled = graph.op("Mul", step.bottoms[0], graph.constant(scale))
    yield graph.op("Add", scaled, graph.constant(shift))


@converts("Scale", "Bias")
def _scale(step: LayerStep) -> Iterable[str]:
    graph, layer = step.graph, step.layer
    kind = "Mul" if layer.type == "Scale" else "Add"
    params = list(step.params)
    if len(step.bottoms) > 1:
        small: Dims = step.shapes[1]
        other = step.bottoms[1]
    else:
        first = params.pop(0)
        small = tuple((size,) * len(step.shapes[0][0]) for size in first.shape)
        other = ""
    axis = layer.axis(step.options.axis, step.rank) if small else 0
    tail = step.rank - axis - len(small)
    if other and tail:
        ones: Dims = ((1,) * len(step.shapes[0][0]),) * tail
        other = graph.reshape(other, small, (*small, *ones))
    elif not other:
        other = graph.constant(first.reshape(*first.shape, *[1] * tail))
    top = graph.op(kind, step.bottoms[0], other)
    if layer.type == "Scale" and step.options.bias_term:
        top = graph.op("Add", top, graph.constant(params[0].reshape(*params[0].shape, *[1] * tail)))
    yield top


@converts("Normalize")
def _normalize(step: LayerStep) -> Iterable[str]:
    graph, x = step.graph, step.bottoms[0]
    axes = range(1, step.rank) if step.options.across_spatial else [1]
    total = graph.op("ReduceSum", graph.op("Mul", x, x), graph.integers(*axes))
    norm = graph.op("Sqrt", graph.op("Add", total, graph.constant(step.options.eps)))
    scale = step.params[0]
    factor = graph.constant(per_channel(scale, step.rank) if scale.ndim else scale)
    yield graph.op("Mul", graph.op("Div", x, norm), factor)
