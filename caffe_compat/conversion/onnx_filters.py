"""Convolutions and other layers that multiply by learned weights, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from caffe_compat.conversion.onnx_steps import LayerStep, NoForm, converts, fixed
from caffe_compat.layers.base import Shape


def _windowed(step: LayerStep, kind: str, inputs: Sequence[str], shape: Shape, group: int) -> str:
    """An operator that moves the layer's windows over a bottom of this shape."""
    kernel, stride, pad, dilation = step.layer.windows(shape)
    return step.graph.op(
        kind,
        *inputs,
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
        group=group,
    )


@converts("Convolution", "ConvolutionDepthwise", "Deconvolution")
def _filters(step: LayerStep) -> Iterable[str]:
    shape = step.shapes[0]
    plain = tuple(dim[0] for dim in shape)
    layer = step.layer
    if layer.type != "ConvolutionDepthwise" and layer.channel_axis(plain) != 1:
        raise NoForm("its channel axis is not axis 1")
    kernel, _, pad, dilation = layer.windows(plain)
    if any(
        size is not None and size + 2 * p < d * (k - 1) + 1
        for size, k, p, d in zip(map(fixed, shape[2:]), kernel, pad, dilation, strict=True)
        if layer.type != "Deconvolution"
    ):
        raise NoForm("its kernel is larger than the padded input")
    group = plain[1] if layer.type == "ConvolutionDepthwise" else step.options.group
    params = [step.graph.constant(p) for p in step.params]
    kind = "ConvTranspose" if layer.type == "Deconvolution" else "Conv"
    for bottom in step.bottoms:
        yield _windowed(step, kind, (bottom, *params), plain, group)


@converts("Im2col")
def _im2col(step: LayerStep) -> Iterable[str]:
    plain = tuple(dim[0] for dim in step.shapes[0])
    if step.layer.channel_axis(plain) != 1 or len(plain) != 4:
        raise NoForm("only N×C×H×W has a form")
    kernel, *_ = step.layer.windows(plain)
    places = kernel[0] * kernel[1]
    channels = step.size(1)
    one = np.eye(places, dtype=np.float32).reshape(1, places, 1, *kernel)
    filters = np.tile(one, (channels, 1, 1, 1, 1)).reshape(channels * places, 1, *kernel)
    inputs = (step.bottoms[0], step.graph.constant(filters))
    yield _windowed(step, "Conv", inputs, plain, channels)


@converts("InnerProduct")
def _inner_product(step: LayerStep) -> Iterable[str]:
    graph, axis = step.graph, step.layer.axis(step.options.axis, step.rank)
    if not axis:
        raise NoForm("axis 0 makes one row of the whole batch")
    weight = step.params[0] if step.options.transpose else step.params[0].T
    lead = step.tops[0][:axis]
    x = graph.reshape(step.bottoms[0], step.shapes[0], (*lead, (len(weight),) * len(lead[0])))
    top = graph.op("MatMul", x, graph.constant(weight))
    yield graph.op("Add", top, graph.constant(step.params[1])) if len(step.params) > 1 else top


@converts("Embed")
def _embed(step: LayerStep) -> Iterable[str]:
    graph = step.graph
    index = graph.op("Cast", step.bottoms[0], to=7)
    top = graph.op("Gather", graph.constant(step.params[0]), index, axis=0)
    yield graph.op("Add", top, graph.constant(step.params[1])) if len(step.params) > 1 else top
