"""Caffe networks and weights, read, run and trained with PyTorch.

>>> from caffe_compat import Net
>>> net = Net.from_files("deploy.prototxt", "small.caffemodel")
>>> net.graph.inputs
('data',)

Shapes are written N×C×H×W: N images, C channels, H rows, W columns. A kernel is O×I×kh×kw with O
outputs and I inputs.

Nothing here imports torch before a network is run: parsing, converting and inspecting do not need
it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CaffeCompatError": "errors",
    "PrototxtError": "errors",
    "UnsupportedLayer": "errors",
    "WeightError": "errors",
    "NetSpec": "definition.spec",
    "LayerSpec": "definition.spec",
    "SolverSpec": "definition.spec",
    "read_net": "definition.prototxt",
    "parse_net": "definition.prototxt",
    "read_solver": "definition.prototxt",
    "Weights": "weights.model",
    "read_weights": "weights.containers",
    "write_weights": "weights.write",
    "Net": "network.net",
}
__all__ = [
    "CaffeCompatError",
    "LayerSpec",
    "Net",
    "NetSpec",
    "PrototxtError",
    "SolverSpec",
    "UnsupportedLayer",
    "WeightError",
    "Weights",
    "__version__",
    "parse_net",
    "read_net",
    "read_solver",
    "read_weights",
    "write_weights",
]

if TYPE_CHECKING:
    from caffe_compat.definition.prototxt import parse_net, read_net, read_solver
    from caffe_compat.definition.spec import LayerSpec, NetSpec, SolverSpec
    from caffe_compat.errors import CaffeCompatError, PrototxtError, UnsupportedLayer, WeightError
    from caffe_compat.network.net import Net
    from caffe_compat.weights.containers import read_weights
    from caffe_compat.weights.model import Weights
    from caffe_compat.weights.write import write_weights


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
