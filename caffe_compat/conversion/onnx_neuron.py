"""Layers that compute each value by itself, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from caffe_compat.conversion.onnx_steps import LayerStep, converts, per_channel


@converts("ReLU")
def _relu(step: LayerStep) -> Iterable[str]:
    slope = step.options.negative_slope
    if slope:
        yield step.graph.op("LeakyRelu", step.bottoms[0], alpha=slope)
    else:
        yield step.graph.op("Relu", step.bottoms[0])


@converts("PReLU")
def _prelu(step: LayerStep) -> Iterable[str]:
    slope = step.params[0].reshape(-1)
    values = slope if len(slope) == 1 else per_channel(slope, max(step.rank, 2))
    yield step.graph.op("PRelu", step.bottoms[0], step.graph.constant(values))


@converts("ELU")
def _elu(step: LayerStep) -> Iterable[str]:
    yield step.graph.op("Elu", step.bottoms[0], alpha=step.options.alpha)


@converts("Sigmoid", "TanH", "AbsVal", "BNLL", "Dropout", "Split")
def _simple(step: LayerStep) -> Iterable[str]:
    kind = {
        "Sigmoid": "Sigmoid",
        "TanH": "Tanh",
        "AbsVal": "Abs",
        "BNLL": "Softplus",
        "Dropout": "Identity",
        "Split": "Identity",
    }[step.layer.type]
    for _ in step.tops:
        yield step.graph.op(kind, step.bottoms[0])


@converts("Silence")
def _silence(step: LayerStep) -> Iterable[str]:
    return ()


@converts("Swish")
def _swish(step: LayerStep) -> Iterable[str]:
    graph, x = step.graph, step.bottoms[0]
    gate = graph.op("Sigmoid", graph.op("Mul", x, graph.constant(step.options.beta)))
    yield graph.op("Mul", x, gate)


@converts("Clip")
def _clip(step: LayerStep) -> Iterable[str]:
    graph, o = step.graph, step.options
    low, high = graph.constant(o.min), graph.constant(o.max)
    if o.min <= o.max:
        yield graph.op("Clip", step.bottoms[0], low, high)
    else:  # Caffe then gives min everywhere, ONNX's Clip max
        yield graph.op("Max", graph.op("Min", step.bottoms[0], high), low)


def _affine(step: LayerStep, value: str, scale: float, shift: float) -> str:
    if scale != 1:
        value = step.graph.op("Mul", value, step.graph.constant(scale))
    return step.graph.op("Add", value, step.graph.constant(shift)) if shift else value


@converts("Power")
def _power(step: LayerStep) -> Iterable[str]:
    o = step.options
    y = _affine(step, step.bottoms[0], o.scale, o.shift)
    if o.power == 1:
        yield step.graph.op("Identity", y)
    else:
        yield step.graph.op("Pow", y, step.graph.constant(o.power))


@converts("Exp")
def _exp(step: LayerStep) -> Iterable[str]:
    o = step.options
    log = 1.0 if o.base == -1 else float(np.log(o.base))
    yield step.graph.op("Exp", _affine(step, step.bottoms[0], o.scale * log, o.shift * log))


@converts("Log")
def _log(step: LayerStep) -> Iterable[str]:
    o = step.options
    y = step.graph.op("Log", _affine(step, step.bottoms[0], o.scale, o.shift))
    factor = 1.0 if o.base == -1 else 1 / float(np.log(o.base))
    yield step.graph.op("Mul", y, step.graph.constant(factor))


@converts("Threshold")
def _threshold(step: LayerStep) -> Iterable[str]:
    above = step.graph.op("Greater", step.bottoms[0], step.graph.constant(step.options.threshold))
    yield step.graph.op("Cast", above, to=1)
