"""The plan of a whole graph: which of its convolutions run on tiles, and how fast."""

from __future__ import annotations

from caffe_compat.engine.costs import ConvolutionShape
from caffe_compat.engine.plan import Choice, Engine
from caffe_compat.layers.convolution import Convolution
from caffe_compat.network.graph import Graph


def planned(graph: Graph, engine: Engine) -> list[tuple[str, ConvolutionShape, Choice]]:
    """How every Convolution of a graph would run on the CPU.

    Returns
    -------
    list of (layer name, shape, choice), in the graph's order. Layers early in the graph are given
    memory for their transformed kernels first.
    """
    found = []
    left = engine.memory
    for node in graph.nodes:
        if type(node.layer) is not Convolution:
            continue
        bottom = graph.blobs[node.bottoms[0]]
        _, stride, pad, dilation = node.layer.windows(bottom)
        size = bottom[node.layer.channel_axis(bottom) + 1 :]
        conv = ConvolutionShape(
            node.params[0].shape, size, stride, pad, dilation, node.layer.options.group
        )
        choice = engine.choose(conv, left=left)
        left -= choice.memory
        found.append((node.layer.name, conv, choice))
    return found
