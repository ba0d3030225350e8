"""Layers that compute with whole blobs or along an axis, said in ONNX.

Of equal values ArgMax takes the higher index, as Caffe does.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from caffe_compat.conversion.onnx_steps import LayerStep, converts
from caffe_compat.definition import schema


@converts("Eltwise")
def _eltwise(step: LayerStep) -> Iterable[str]:
    graph, layer = step.graph, step.layer
    first = 1 if layer.loses_first else 0
    bottoms = step.bottoms[first:]
    if layer.operation == "SUM":
        parts = [
            bottom if factor == 1 else graph.op("Mul", bottom, graph.constant(factor))
            for bottom, factor in zip(bottoms, layer.coefficients[first:], strict=True)
        ]
        yield graph.op("Sum", *parts)
    elif layer.operation == "MAX":
        yield graph.op("Max", *bottoms)
    else:
        top = step.bottoms[0]
        for bottom in bottoms[1:]:
            top = graph.op("Mul", top, bottom)
        yield top


@converts("Axpy")
def _axpy(step: LayerStep) -> Iterable[str]:
    graph, factor = step.graph, step.bottoms[0]
    if step.rank != 4:
        factor = graph.op("Unsqueeze", factor, graph.integers(*range(step.rank, 4)))
    yield graph.op("Add", graph.op("Mul", factor, step.bottoms[1]), step.bottoms[2])


@converts("Reduction")
def _reduction(step: LayerStep) -> Iterable[str]:
    graph, x = step.graph, step.bottoms[0]
    operation = schema.enum_name(step.options, "operation")
    axes = range(step.layer.axis(step.options.axis, step.rank), step.rank)
    if operation == "ASUM":
        x = graph.op("Abs", x)
    elif operation == "SUMSQ":
        x = graph.op("Mul", x, x)
    kind = "ReduceMean" if operation == "MEAN" else "ReduceSum"
    total = graph.op(kind, x, graph.integers(*axes), keepdims=0)
    yield graph.op("Mul", total, graph.constant(step.options.coeff))


@converts("Softmax")
def _softmax(step: LayerStep) -> Iterable[str]:
    axis = step.layer.axis(step.options.axis, step.rank)
    yield step.graph.op("Softmax", step.bottoms[0], axis=axis)


@converts("ArgMax")
def _argmax(step: LayerStep) -> Iterable[str]:
    graph, o = step.graph, step.options
    along = step.layer.has("axis")
    axis = step.layer.axis(o.axis, step.rank) if along else 1
    x = step.bottoms[0] if along else graph.flat(step.bottoms[0], step.rank, 1)
    if along:
        size = step.size(axis)
    else:
        size = math.prod([step.size(a) for a in range(1, step.rank)])
    # the higher index comes first: of the reversed row the lower
    back = graph.op(
        "Slice",
        x,
        graph.integers(-1),
        graph.integers(-(2**31)),
        graph.integers(axis),
        graph.integers(-1),
    )
    values, index = graph.ops("TopK", 2, back, graph.integers(o.top_k), axis=axis)
    place = graph.op("Cast", graph.op("Sub", graph.integers(size - 1), index), to=1)
    if along:
        yield graph.op("Identity", values if o.out_max_val else place)
        return
    if o.out_max_val:
        one = graph.integers(1)
        place = graph.op(
            "Concat", graph.op("Unsqueeze", place, one), graph.op("Unsqueeze", values, one), axis=1
        )
    top = step.tops[0]
    yield graph.op("Reshape", place, graph.integers(0, *(dim[0] for dim in top[1:])))
