"""Layers that read sequences, said in ONNX.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from caffe_compat.conversion.onnx_steps import LayerStep, converts


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
