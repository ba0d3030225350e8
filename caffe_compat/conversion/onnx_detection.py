"""Detectors' layers, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable

from caffe_compat.conversion.onnx_steps import LayerStep, NoForm, converts, fixed


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
