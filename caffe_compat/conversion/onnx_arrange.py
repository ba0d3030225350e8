"""Layers that only move values, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from caffe_compat.conversion.onnx_steps import LayerStep, NoForm, converts, fixed


@converts("Concat")
def _concat(step: LayerStep) -> Iterable[str]:
    yield step.graph.op("Concat", *step.bottoms, axis=step.layer.chosen_axis(step.rank))


@converts("Slice")
def _slice(step: LayerStep) -> Iterable[str]:
    axis = step.layer.chosen_axis(step.rank)
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
    begin = step.layer.begin([tuple(dim[0] for dim in shape) for shape in step.shapes])[start:]
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
