"""Caffe networks and weights, read, run and trained with PyTorch.

>>> from caffe_compat import Net                      # doctest: +SKIP
>>> net = Net.from_files("deploy.prototxt", "released.caffemodel")
>>> blobs = net(data)                                 # {"Mconv5_stage6": tensor, ...}

Nothing here imports torch before a network is run: parsing, converting and inspecting do not need it.
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
    "NetSpec": "spec",
    "LayerSpec": "spec",
    "SolverSpec": "spec",
    "read_net": "prototxt",
    "parse_net": "prototxt",
    "read_solver": "prototxt",
    "Weights": "caffemodel",
    "read_weights": "caffemodel",
    "write_weights": "caffemodel",
    "Net": "net",
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
    from .caffemodel import Weights, read_weights, write_weights
    from .errors import CaffeCompatError, PrototxtError, UnsupportedLayer, WeightError
    from .net import Net
    from .prototxt import parse_net, read_net, read_solver
    from .spec import LayerSpec, NetSpec, SolverSpec


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
