"""Layers that make maps larger or smaller, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from caffe_compat.conversion.onnx_steps import LayerStep, NoForm, converts, fixed


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
