"""``import caffe`` for scripts that are to stay as they are.

>>> import caffe_compat.pycaffe.alias
>>> caffe_compat.pycaffe.alias.install()
>>> import caffe
>>> from caffe import layers as L, params as P
>>> from caffe.proto import caffe_pb2

``python -m caffe_compat.pycaffe script.py ARGUMENTS`` does this and runs the script.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from caffe_compat.errors import CaffeCompatError

_FACE = "caffe_compat.pycaffe"


def install() -> None:
    """Let ``import caffe`` and ``import caffe.io`` mean this package, in this process.

    Raises
    ------
    CaffeCompatError : another caffe has been imported already.
    """
    face = importlib.import_module(_FACE)
    if sys.modules.get("caffe", face) is not face:
        raise CaffeCompatError("another 'caffe' has been imported already; call install before")
    names = ["", "pycaffe", "_caffe", "proto", "proto.caffe_pb2"]
    names += [m.name for m in pkgutil.iter_modules(face.__path__) if not m.name.startswith("_")]
    for name in dict.fromkeys(names):
        own = name and name not in ("pycaffe", "_caffe")  # these two are the package itself
        module = importlib.import_module(f"{_FACE}.{name}") if own else face
        sys.modules[f"caffe.{name}".rstrip(".")] = module
