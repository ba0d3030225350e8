"""The first values of a network's parameters: stored ones, or what their fillers draw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caffe_compat.network.fillers import fill
from caffe_compat.network.graph import Graph, Node
from caffe_compat.network.match import Key, Match
from caffe_compat.weights.wire import Blob


def first_values(
    graph: Graph, found: Match | None, generator: torch.Generator
) -> dict[Key, Tensor]:
    """The values of each parameter that owns its memory, by its key.

    Parameters
    ----------
    found : the stored blobs; layers that share a parameter have the same values there.
    generator : what the fillers draw from.

    Returns
    -------
    float32, in Caffe's shapes.

    Raises
    ------
    PrototxtError : a parameter that is shared under another shape.
    """
    values: dict[Key, Tensor] = {}
    for node in graph.nodes:
        stored = found.blobs.get(node.index, ()) if found else ()
        for i, param in enumerate(node.params):
            owner = graph.nodes[param.owner[0]].params[param.owner[1]]
            if owner.shape != param.shape:
                raise node.layer.error(
                    "sharing a param under another shape is not supported", "param"
                )
            if stored and not stored[i].is_elsewhere:
                values[param.owner] = _of_blob(stored[i], param.shape)
            elif param.owner == param.key:
                values[param.key] = _filled(node, i, generator)
    return values


def _of_blob(blob: Blob, shape: tuple[int, ...]) -> Tensor:
    # a copy: a network that learns changes neither the weights that it was given nor their file
    return torch.from_numpy(np.array(blob.data, np.float32).reshape(shape))


def _filled(node: Node, number: int, generator: torch.Generator) -> Tensor:
    tensor = torch.empty(node.params[number].shape)
    known = node.layer.initial()
    if known is None:
        fill(tensor, node.layer.fillers()[number], generator)
    else:
        tensor.copy_(torch.from_numpy(known[number]))
    return tensor
