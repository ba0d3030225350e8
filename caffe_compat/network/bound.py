"""What a network takes and where it takes nothing, known from its shapes before any memory is
taken."""

from __future__ import annotations

import os
from collections.abc import Collection

from caffe_compat.errors import CaffeCompatError, shape_text
from caffe_compat.layers.base import count
from caffe_compat.network.graph import Graph, Node

# The bound in GB, and the environment variable that raises it. VGG-16 with 64 pictures asks for 4.
LIMIT, VARIABLE = 16, "CPM_MAX_NETWORK_GB"
_BYTES = 4  # of a float32


def network_limit() -> int:
    """How many GB a network's blobs and parameters may take: ``CPM_MAX_NETWORK_GB``, else 16.

    Raises
    ------
    CaffeCompatError : the variable is no positive whole number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return LIMIT
    if not (text.isascii() and text.isdigit() and int(text)):
        raise CaffeCompatError(f"{VARIABLE}={text}: expected a whole number of GB")
    return int(text)


def check_network(graph: Graph) -> None:
    """Refuse a network whose blobs, parameters and padding would fill the memory.

    Blobs that share memory, such as those of layers that work in place, count once.

    Raises
    ------
    PrototxtError : names the layer that asks for most, the sizes, and how to raise the limit.
    """
    limit = network_limit()
    kept = [(_bytes(graph, node), node) for node in graph.nodes]
    works = [(node.layer.scratch(node.bottom_shapes) * _BYTES, node) for node in graph.nodes]
    # one layer works at a time, and what it takes for that is free again after it
    total = sum(size for size, _ in kept) + max((size for size, _ in works), default=0)
    if total <= limit * 10**9:
        return
    most, node = max(kept + works, key=lambda pair: pair[0])
    raise node.layer.spec.error(
        f"asks for {most / 1e9:.1f} GB of the {total / 1e9:.1f} GB that the network's blobs, "
        f"parameters and padding take, more than the limit of {limit} GB; use "
        f"smaller inputs or batches, or set {VARIABLE}={-(-total // 10**9)}"
    )


def _bytes(graph: Graph, node: Node) -> int:
    """What a layer adds to the memory of those before it."""
    data = graph.memory.data
    made = [
        shape
        for name, shape in zip(node.tops, node.top_shapes, strict=True)
        if data.get(name, name) == name and name not in node.bottoms
    ]
    owned = [param.shape for param in node.params if param.owner == param.key]
    return sum(count(shape) for shape in (*made, *owned)) * _BYTES


def without_values(graph: Graph) -> set[str]:
    """The blobs that hold no value, as one of their axes is 0."""
    return {name for name, shape in graph.blobs.items() if not count(shape)}


def check_looks(graph: Graph, without_memory: Collection[str]) -> None:
    """Refuse a layer that looks at a blob that Caffe has given no memory.

    Parameters
    ----------
    without_memory : the blobs that have never had a value.

    Raises
    ------
    PrototxtError : names the layer and the blob.
    """
    for node in graph.nodes:
        for name in node.layer.looks_at():
            if name in without_memory:
                raise node.layer.error(
                    f"blob '{name}' has no values ({shape_text(graph.blobs[name])}), and Caffe "
                    "stops where a layer looks at it: give it some, or leave it out"
                )
