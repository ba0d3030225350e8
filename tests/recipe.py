"""The weight recipe of the recorded cases: numbers from a seed, in prototxt order."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from caffe_compat.network.graph import Graph
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob


def make(
    graph: Graph, seed: int, shape: tuple[int, ...], wscale: float = 1.0
) -> tuple[Weights, npt.NDArray[np.float32]]:
    """Weights and input of a case."""
    rng = np.random.default_rng(seed)
    layers = []
    for node in graph.nodes:
        blobs = []
        for param in node.params:
            values = rng.standard_normal(param.shape, dtype=np.float32)
            if len(param.shape) > 1:
                values = (
                    values
                    * np.float32(np.sqrt(2.0 / np.prod(param.shape[1:])))
                    * np.float32(wscale)
                )
            else:
                values = values * np.float32(0.05)
            blobs.append(Blob(values.astype(np.float32)))
        if blobs:
            layers.append(LayerBlobs(node.layer.name, node.layer.type, tuple(blobs)))
    x = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.5)
    return Weights(tuple(layers)), x.astype(np.float32)


def digest(array: npt.NDArray[np.float32]) -> str:
    """The hash that a case holds of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
