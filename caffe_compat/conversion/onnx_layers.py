"""How each layer type is said in ONNX.

Converters follow Caffe's rules, not ONNX's attributes of the same name: pooling windows are padded
by hand, ties in ArgMax go to the higher index, AVE divides by the window clipped to image plus
padding.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from caffe_compat.conversion.onnx_steps import (
    CONVERTERS,
    Dims,
    LayerStep,
    NoForm,
    converts,
    fixed,
)
from caffe_compat.definition import schema
from caffe_compat.layers.pooling import pooled_size

# This module fills the table: who asks it for the converters gets them all.
__all__ = ["CONVERTERS"]

_LOWEST = -3.4028234663852886e38


# ------------------------------------------------------------ filters


@converts("Convolution", "ConvolutionDepthwise", "Deconvolution")
def _filters(step: LayerStep) -> Iterable[str]:
    shape = step.shapes[0]
    plain = tuple(dim[0] for dim in shape)
    layer = step.layer
    if layer.type != "ConvolutionDepthwise" and layer.channel_axis(plain) != 1:
        raise NoForm("its channel axis is not axis 1")
    kernel, stride, pad, dilation = layer.windows(plain)
    if any(
        size is not None and size + 2 * p < d * (k - 1) + 1
        for size, k, p, d in zip(map(fixed, shape[2:]), kernel, pad, dilation, strict=True)
        if layer.type != "Deconvolution"
    ):
        raise NoForm("its kernel is larger than the padded input")
    group = plain[1] if layer.type == "ConvolutionDepthwise" else step.options.group
    params = [step.graph.constant(p) for p in step.params]
    for bottom in step.bottoms:
        yield step.graph.op(
            "ConvTranspose" if layer.type == "Deconvolution" else "Conv",
            bottom,
            *params,
            kernel_shape=kernel,
            strides=stride,
            pads=[*pad, *pad],
            dilations=dilation,
            group=group,
        )


@converts("Im2col")
def _im2col(step: LayerStep) -> Iterable[str]:
    plain = tuple(dim[0] for dim in step.shapes[0])
    if step.layer.channel_axis(plain) != 1 or len(plain) != 4:
        raise NoForm("only N×C×H×W has a form")
    kernel, stride, pad, dilation = step.layer.windows(plain)
    places = kernel[0] * kernel[1]
    channels = step.size(1)
    one = np.eye(places, dtype=np.float32).reshape(1, places, 1, *kernel)
    filters = np.tile(one, (channels, 1, 1, 1, 1)).reshape(channels * places, 1, *kernel)
    yield step.graph.op(
        "Conv",
        step.bottoms[0],
        step.graph.constant(filters),
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
        group=channels,
    )


@converts("InnerProduct")
def _inner_product(step: LayerStep) -> Iterable[str]:
    graph, axis = step.graph, step.layer.axis(step.options.axis, step.rank)
    weight = step.params[0] if step.options.transpose else step.params[0].T
    lead = step.tops[0][:axis]
    x = graph.reshape(step.bottoms[0], step.shapes[0], (*lead, (len(weight),) * len(lead[0])))
    top = graph.op("MatMul", x, graph.constant(weight)) if axis else x
    if not axis:
        raise NoForm("axis 0 makes one row of the whole batch")
    yield graph.op("Add", top, graph.constant(step.params[1])) if len(step.params) > 1 else top


@converts("Embed")
def _embed(step: LayerStep) -> Iterable[str]:
    graph = step.graph
    index = graph.op("Cast", step.bottoms[0], to=7)
    top = graph.op("Gather", graph.constant(step.params[0]), index, axis=0)
    yield graph.op("Add", top, graph.constant(step.params[1])) if len(step.params) > 1 else top


# ------------------------------------------------------------ pooling


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
    padded = any(pad)
    # the last window may reach this far behind; a size rounded down needs nothing
    behind = [p + (0 if floor else s - 1) for p, s in zip(pad, stride, strict=True)]
    lowest = _LOWEST if method == "MAX" else 0.0
    widths = graph.integers(0, 0, *pad, 0, 0, *behind)
    wide = value
    if any(pad) or any(behind):
        wide = graph.op("Pad", value, widths, graph.constant(lowest), mode="constant")
    options: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(stride)}
    if method == "AVE":
        area = float(kernel[0] * kernel[1])
        tops = [graph.op("AveragePool", wide, **options)]
        if any(b != p for b, p in zip(behind, pad, strict=True)):
            # share of each window that lies inside image plus padding
            inside = graph.op(
                "Pad",
                graph.op("ConstantOfShape", _with_ones(step, value), value=_one()),
                graph.integers(0, 0, *pad, 0, 0, *pad),
                graph.constant(1.0),
            )
            extra = [b - p for b, p in zip(behind, pad, strict=True)]
            inside = graph.op(
                "Pad", inside, graph.integers(0, 0, 0, 0, 0, 0, *extra), graph.constant(0.0)
            )
            share = graph.op("AveragePool", inside, **options)
            # whole numbers again: a mean of zeros and ones is not exact
            count = graph.op("Round", graph.op("Mul", share, graph.constant(area)))
            total = graph.op("Mul", tops[0], graph.constant(area))
            tops = [graph.op("Div", total, count)]
    else:
        tops = graph.ops("MaxPool", 2 if mask else 1, wide, **options)
    if mask:
        tops[1] = _mask(step, tops[1], [p + b for p, b in zip(pad, behind, strict=True)], pad)
    if padded:
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


def _one() -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])


def _with_ones(step: LayerStep, value: str) -> str:
    """The shape 1×1×H×W of a value."""
    graph = step.graph
    return graph.op("Concat", graph.integers(1, 1), graph.sizes(value, 2, 3), axis=0)


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
        for kernel, pad, _ in layer._levels(plain)
    ]
    if len(parts) == 1:
        return parts
    flat = [graph.flat(part, 4, 1) for part in parts]
    return [graph.op("Concat", *flat, axis=1)]


# ------------------------------------------------------------ normalisation


@converts("LRN")
def _lrn(step: LayerStep) -> Iterable[str]:
    o, graph, x = step.options, step.graph, step.bottoms[0]
    if step.rank != 4:
        raise NoForm("its bottom is not N×C×H×W")
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


def _channels(values: Any, rank: int) -> Any:
    """Values of the channels, ready for broadcasting over a blob."""
    return np.asarray(values, np.float32).reshape(-1, *[1] * (rank - 2))


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
    centred = graph.op("Sub", step.bottoms[0], graph.constant(_channels(mean, rank)))
    yield graph.op("Div", centred, graph.constant(_channels(std, rank)))


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
    factor = graph.constant(_channels(scale, step.rank) if scale.ndim else scale)
    yield graph.op("Mul", graph.op("Div", x, norm), factor)


# ------------------------------------------------------------ one value at a time


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
    values = slope if len(slope) == 1 else _channels(slope, max(step.rank, 2))
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
    low, high = step.graph.constant(step.options.min), step.graph.constant(step.options.max)
    yield step.graph.op("Clip", step.bottoms[0], low, high)


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


# ------------------------------------------------------------ arithmetic over blobs


@converts("Eltwise")
def _eltwise(step: LayerStep) -> Iterable[str]:
    graph, layer = step.graph, step.layer
    if layer.operation == "SUM":
        parts = [
            bottom if factor == 1 else graph.op("Mul", bottom, graph.constant(factor))
            for bottom, factor in zip(step.bottoms, layer.coefficients, strict=True)
        ]
        yield graph.op("Sum", *parts)
    elif layer.operation == "MAX":
        yield graph.op("Max", *step.bottoms)
    else:
        top = step.bottoms[0]
        for bottom in step.bottoms[1:]:
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


# ------------------------------------------------------------ moving values


@converts("Concat")
def _concat(step: LayerStep) -> Iterable[str]:
    yield step.graph.op("Concat", *step.bottoms, axis=step.layer._axis(step.rank))


@converts("Slice")
def _slice(step: LayerStep) -> Iterable[str]:
    axis = step.layer._axis(step.rank)
    sizes = [fixed(top[axis]) for top in step.tops]
    known = [size for size in sizes if size is not None]
    if len(known) != len(sizes):
        raise NoForm("it cuts an axis whose size changes with the input")
    if len(known) == 1:
        return [step.graph.op("Identity", step.bottoms[0])]
    split = step.graph.integers(*known)
    return step.graph.ops("Split", len(known), step.bottoms[0], split, axis=axis)


@converts("Flatten", "Reshape")
def _reshape(step: LayerStep) -> Iterable[str]:
    yield step.graph.reshape(step.bottoms[0], step.shapes[0], step.tops[0])


@converts("Tile")
def _tile(step: LayerStep) -> Iterable[str]:
    repeats = [1] * step.rank
    repeats[step.layer.axis(step.options.axis, step.rank)] = step.options.tiles
    yield step.graph.op("Tile", step.bottoms[0], step.graph.integers(*repeats))


@converts("Crop")
def _crop(step: LayerStep) -> Iterable[str]:
    graph = step.graph
    start = step.layer.axis(step.options.axis, step.rank)
    begin = step.layer._begin([tuple(dim[0] for dim in shape) for shape in step.shapes])[start:]
    axes = range(start, step.rank)
    if start == step.rank:
        yield graph.op("Identity", step.bottoms[0])
        return
    first = graph.integers(*begin)
    end = graph.op("Add", graph.sizes(step.bottoms[1], *axes), first)
    yield graph.op("Slice", step.bottoms[0], first, end, graph.integers(*axes))


@converts("BatchReindex")
def _batch_reindex(step: LayerStep) -> Iterable[str]:
    index = step.graph.op("Cast", step.bottoms[1], to=7)
    yield step.graph.op("Gather", step.bottoms[0], index, axis=0)


@converts("Parameter")
def _parameter(step: LayerStep) -> Iterable[str]:
    yield step.graph.op("Identity", step.graph.constant(step.params[0]))


@converts("Permute")
def _permute(step: LayerStep) -> Iterable[str]:
    yield step.graph.op("Transpose", step.bottoms[0], perm=step.layer.order(step.rank))


@converts("ShuffleChannel")
def _shuffle(step: LayerStep) -> Iterable[str]:
    order = np.arange(step.size(1)).reshape(step.options.group, -1).T.ravel()
    yield step.graph.op("Gather", step.bottoms[0], step.graph.integers(*order.tolist()), axis=1)


@converts("Reorg")
def _reorg(step: LayerStep) -> Iterable[str]:
    graph, s = step.graph, step.options.stride
    c, h, w = (step.size(axis) for axis in (1, 2, 3))
    deep = c // (s * s)
    shape = (s, s, deep, h, w) if step.options.reverse else (deep, h, s, w, s)
    order = (0, 3, 4, 1, 5, 2) if step.options.reverse else (0, 3, 5, 1, 2, 4)
    wide = graph.op("Reshape", step.bottoms[0], graph.integers(0, *shape))
    turned = graph.op("Transpose", wide, perm=order)
    yield graph.op("Reshape", turned, graph.integers(0, *(dim[0] for dim in step.tops[0][1:])))


# ------------------------------------------------------------ sizes


@converts("Upsample")
def _upsample(step: LayerStep) -> Iterable[str]:
    graph, layer = step.graph, step.layer
    if len(step.bottoms) == 1:
        scales = graph.constant(np.array([1, 1, *layer.scale], np.float32))
        yield graph.op(
            "Resize",
            step.bottoms[0],
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return
    height, width = fixed(step.tops[0][2]), fixed(step.tops[0][3])
    if height is None or width is None:
        raise NoForm("with a mask it needs a fixed size")
    values = graph.flat(step.bottoms[0], 4, 2)
    places = graph.op("Cast", graph.flat(step.bottoms[1], 4, 2), to=7)
    size = graph.op(
        "Concat", graph.sizes(step.bottoms[0], 0, 1), graph.integers(height * width), axis=0
    )
    empty = graph.op("ConstantOfShape", size)
    filled = graph.op("ScatterElements", empty, places, values, axis=2)
    yield graph.op("Reshape", filled, graph.integers(0, 0, height, width))


@converts("Interp")
def _interp(step: LayerStep) -> Iterable[str]:
    graph, o = step.graph, step.options
    x = step.bottoms[0]
    if o.pad_beg or o.pad_end:
        ends = graph.integers(*[o.pad_end or 2**31 - 1] * 2)
        x = graph.op("Slice", x, graph.integers(*[-o.pad_beg] * 2), ends, graph.integers(2, 3))
    height, width = fixed(step.tops[0][2]), fixed(step.tops[0][3])
    if height is not None and width is not None:
        sizes = graph.integers(height, width)
    else:
        one = graph.integers(1)
        small = graph.op("Sub", graph.sizes(x, 2, 3), one)
        small = graph.op("Div", small, graph.integers(o.shrink_factor))
        sizes = graph.op("Add", graph.op("Mul", small, graph.integers(o.zoom_factor)), one)
    yield graph.op(
        "Resize",
        x,
        "",
        "",
        sizes,
        axes=[2, 3],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )


# ------------------------------------------------------------ detectors


@converts("PriorBox")
def _prior_box(step: LayerStep) -> Iterable[str]:
    sizes = [tuple(dim[0] for dim in shape) for shape in step.shapes]
    for shape in step.shapes:
        if fixed(shape[2]) is None or fixed(shape[3]) is None:
            raise NoForm("its boxes need a fixed size")
    yield step.graph.op("Identity", step.graph.constant(step.layer.boxes(sizes)))


@converts("ROIPooling")
def _roi_pooling(step: LayerStep) -> Iterable[str]:
    graph = step.graph
    rois = graph.op("Reshape", step.bottoms[1], graph.integers(-1, 5))
    yield graph.op(
        "MaxRoiPool",
        step.bottoms[0],
        rois,
        pooled_shape=list(step.layer.pooled),
        spatial_scale=step.options.spatial_scale,
    )


# ------------------------------------------------------------ sequences


@converts("LSTMUnit")
def _lstm_unit(step: LayerStep) -> Iterable[str]:
    cont = step.graph.op("Unsqueeze", step.bottoms[2], step.graph.integers(2))
    return _lstm_step(step, step.bottoms[0], step.bottoms[1], cont)


def _lstm_step(step: LayerStep, cell: str, gates: str, cont: str) -> tuple[str, str]:
    graph = step.graph
    enter, keep, leave, new = graph.ops("Split", 4, gates, axis=2, num_outputs=4)
    kept = graph.op("Mul", graph.op("Mul", cont, graph.op("Sigmoid", keep)), cell)
    added = graph.op("Mul", graph.op("Sigmoid", enter), graph.op("Tanh", new))
    cell = graph.op("Add", kept, added)
    return cell, graph.op("Mul", graph.op("Sigmoid", leave), graph.op("Tanh", cell))


@converts("LSTM", "RNN")
def _recurrent(step: LayerStep) -> Iterable[str]:
    """Unrolled over its steps, from zeros: what Caffe carries from pass to pass has no form."""
    graph, layer = step.graph, step.layer
    count, streams = step.size(0), step.size(1)
    size = step.options.num_output

    def linear(value: str, weight: int, bias: int | None = None) -> str:
        top = graph.op("MatMul", value, graph.constant(step.params[weight].T))
        return top if bias is None else graph.op("Add", top, graph.constant(step.params[bias]))

    driven = linear(graph.flat(step.bottoms[0], step.rank, 2), 0, 1)
    if layer.static:
        driven = graph.op("Add", driven, linear(graph.flat(step.bottoms[2], 9, 1), 2))
    parts = graph.ops("Split", count, driven, axis=0, num_outputs=count)
    conts = graph.ops(
        "Split",
        count,
        graph.op("Unsqueeze", step.bottoms[1], graph.integers(2)),
        axis=0,
        num_outputs=count,
    )
    given = step.bottoms[2 + layer.static :]
    zeros = graph.constant(np.zeros((1, streams, size), np.float32))
    states = list(given) or [zeros] * layer.states
    outs = []
    last = len(step.params) - 1
    for part, cont in zip(parts, conts, strict=True):
        before = graph.op("Mul", states[0], cont)
        if layer.type == "LSTM":
            gates = graph.op("Add", part, linear(before, last))
            cell, hidden = _lstm_step(step, states[1], gates, cont)
            states, out = [hidden, cell], hidden
        else:
            hidden = graph.op("Tanh", graph.op("Add", part, linear(before, last - 2)))
            states, out = [hidden], graph.op("Tanh", linear(hidden, last - 1, last))
        outs.append(out)
    top = graph.op("Concat", *outs, axis=0)
    return [top, *(graph.op("Identity", state) for state in states)] if given else [top]
