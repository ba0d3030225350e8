"""Pooling layers, said in ONNX.

Windows are padded by hand as Caffe lays them, and AVE divides by the window clipped to image plus
padding.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from caffe_compat.conversion.onnx_steps import LayerStep, NoForm, converts, fixed
from caffe_compat.layers.base import LOWEST
from caffe_compat.layers.pooling import pooled_size


def _pool(
    step: LayerStep,
    value: str,
    method: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    floor: bool = False,
    mask: bool = False,
) -> list[str]:
    """Caffe's windows: rounded up by padding behind, those that begin in the far padding cut
    off."""
    graph = step.graph
    # the last window may reach this far behind; a size rounded down needs nothing
    behind = [p + (0 if floor else s - 1) for p, s in zip(pad, stride, strict=True)]
    lowest = LOWEST if method == "MAX" else 0.0
    widths = graph.integers(0, 0, *pad, 0, 0, *behind)
    wide = value
    if any(pad) or any(behind):
        wide = graph.op("Pad", value, widths, graph.constant(lowest), mode="constant")
    options: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(stride)}
    if method == "AVE":
        tops = [graph.op("AveragePool", wide, **options)]
        if any(b > p for b, p in zip(behind, pad, strict=True)):
            area = graph.constant(float(kernel[0] * kernel[1]))
            total = graph.op("Mul", tops[0], area)
            tops = [graph.op("Div", total, _divisors(step, value, tops[0], kernel, stride, pad))]
    else:
        tops = graph.ops("MaxPool", 2 if mask else 1, wide, **options)
    if mask:
        tops[1] = _mask(step, tops[1], [p + b for p, b in zip(pad, behind, strict=True)], pad)
    if any(pad):
        cut = [
            _cut(step, value, axis, k, s, p, floor)
            for axis, k, s, p in zip((2, 3), kernel, stride, pad, strict=True)
        ]
        if any(cut):
            ends = [end or graph.integers(2**31 - 1) for end in cut]
            begin, axes = graph.integers(0, 0), graph.integers(2, 3)
            end = graph.op("Concat", *ends, axis=0)
            tops = [graph.op("Slice", top, begin, end, axes) for top in tops]
    return tops


def _divisors(
    step: LayerStep,
    value: str,
    top: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
) -> str:
    """What Caffe divides the sum of each window by: its length inside image plus padding, along
    both axes. The length is negative where a window begins farther behind; its sum is 0."""
    graph = step.graph
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    lengths = []
    for axis, k, s, p in zip((2, 3), kernel, stride, pad, strict=True):
        count = graph.op("Squeeze", graph.sizes(top, axis))
        numbers = graph.op("Range", zero, count, one)
        begin = graph.op("Sub", graph.op("Mul", numbers, graph.integers(s)), graph.integers(p))
        far = graph.op("Add", graph.sizes(value, axis), graph.integers(p))
        end = graph.op("Min", graph.op("Add", begin, graph.integers(k)), far)
        lengths.append(graph.op("Sub", end, begin))
    rows = graph.op("Unsqueeze", lengths[0], graph.integers(1))
    return graph.op("Cast", graph.op("Mul", rows, lengths[1]), to=1)


def _cut(
    step: LayerStep, value: str, axis: int, kernel: int, stride: int, pad: int, floor: bool
) -> str:
    """How many windows stay along an axis, where the last might begin in the far padding; ""
    where none does."""
    graph, dim = step.graph, step.shapes[0][axis]
    spans = {size + 2 * pad - kernel for size in dim}
    counts = {(s // stride if floor else -((-s) // stride)) + 1 for s in spans}
    stays = {pooled_size(size, kernel, stride, pad, True, floor) for size in dim}
    if fixed(dim) is not None:
        return "" if counts == stays else graph.integers(*stays)
    if kernel >= stride + pad:
        return ""  # no window can begin that far
    # the windows that begin before image plus padding ends: ceil((size + pad) / stride)
    size = graph.op("Add", graph.sizes(value, axis), graph.integers(pad + stride - 1))
    return graph.op("Div", size, graph.integers(stride))


def _mask(step: LayerStep, index: str, more: Sequence[int], pad: Sequence[int]) -> str:
    """Index in the H×W plane of the bottom, from ONNX's index in the whole padded blob."""
    graph = step.graph
    height, width = step.size(2), step.size(3)
    wide = [height + more[0], width + more[1]]
    inside = graph.op("Mod", index, graph.integers(wide[0] * wide[1]))
    row = graph.op("Sub", graph.op("Div", inside, graph.integers(wide[1])), graph.integers(pad[0]))
    column = graph.op(
        "Sub", graph.op("Mod", inside, graph.integers(wide[1])), graph.integers(pad[1])
    )
    place = graph.op("Add", graph.op("Mul", row, graph.integers(width)), column)
    zero = graph.integers(0)
    outside = [
        graph.op("Less", row, zero),
        graph.op("Less", column, zero),
        graph.op("GreaterOrEqual", row, graph.integers(height)),
        graph.op("GreaterOrEqual", column, graph.integers(width)),
    ]
    beyond = outside[0]
    for other in outside[1:]:
        beyond = graph.op("Or", beyond, other)
    return graph.op("Cast", graph.op("Where", beyond, graph.integers(-1), place), to=1)


@converts("Pooling")
def _pooling(step: LayerStep) -> Iterable[str]:
    layer, graph = step.layer, step.graph
    if step.rank != 4:
        raise NoForm("its bottom is not N×C×H×W")
    if layer.works_in_place:
        raise NoForm("it works in place, where Caffe overwrites what it is to look at")
    if len(step.tops) > 1 and (fixed(step.shapes[0][2]) is None or step.options.global_pooling):
        raise NoForm("the second top needs a fixed size")
    if step.options.global_pooling:
        kind = "GlobalMaxPool" if layer.method == "MAX" else "GlobalAveragePool"
        return [graph.op(kind, step.bottoms[0])]
    return _pool(
        step,
        step.bottoms[0],
        layer.method,
        layer.kernel,
        layer.stride,
        layer.pad,
        layer.floor,
        len(step.tops) > 1,
    )


@converts("SPP")
def _spp(step: LayerStep) -> Iterable[str]:
    graph, layer = step.graph, step.layer
    if fixed(step.shapes[0][2]) is None or fixed(step.shapes[0][3]) is None:
        raise NoForm("it needs a fixed size")
    plain = tuple(dim[0] for dim in step.shapes[0])
    parts = [
        _pool(step, step.bottoms[0], layer.method, kernel, kernel, pad)[0]
        for kernel, pad, _ in layer.levels(plain)
    ]
    if len(parts) == 1:
        return parts
    flat = [graph.flat(part, 4, 1) for part in parts]
    return [graph.op("Concat", *flat, axis=1)]
