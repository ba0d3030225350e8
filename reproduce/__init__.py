"""Convolutional Pose Machines (Wei et al., CVPR 2016), reproduced on :mod:`caffe_compat`.

>>> from reproduce import Predictor
>>> predictor = Predictor.load("pose.caffemodel", device="cpu")
>>> len(predictor.predict_file("photo.png"))
1

Shapes use N people, P parts, J joints of a file, S stages, H rows and W columns; a place is (x, y)
in pixels that count from 0: the middle of the first pixel is (0, 0).

Nothing here is imported before it is used, torch with the first prediction.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from caffe_compat import __version__

_HOME = {
    "Annotation": "people.annotation",
    "EvalResult": "benchmarks.measures",
    "HDF5Store": "records.hdf5",
    "LMDBStore": "records.store",
    "Prediction": "predict.prediction",
    "Predictor": "predict.predictor",
    "Record": "records.layout",
    "evaluate": "benchmarks.scoring",
    "open_store": "records.opening",
    "read_json": "people.annotation",
}
__all__ = [
    "Annotation",
    "EvalResult",
    "HDF5Store",
    "LMDBStore",
    "Prediction",
    "Predictor",
    "Record",
    "__version__",
    "evaluate",
    "open_store",
    "read_json",
]

if TYPE_CHECKING:
    from reproduce.benchmarks.measures import EvalResult
    from reproduce.benchmarks.scoring import evaluate
    from reproduce.people.annotation import Annotation, read_json
    from reproduce.predict.prediction import Prediction
    from reproduce.predict.predictor import Predictor
    from reproduce.records.hdf5 import HDF5Store
    from reproduce.records.layout import Record
    from reproduce.records.opening import open_store
    from reproduce.records.store import LMDBStore


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
