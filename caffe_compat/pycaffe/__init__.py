"""The face of pycaffe: scripts written for Caffe's Python module run on this one.

>>> import caffe_compat.pycaffe as caffe  # doctest: +SKIP
>>> caffe.set_mode_cpu()  # doctest: +SKIP
>>> net = caffe.Net("pose_deploy.prototxt", "pose.caffemodel", caffe.TEST)  # doctest: +SKIP
>>> net.blobs["data"].data[...] = image  # doctest: +SKIP
>>> maps = net.forward()["Mconv5_stage6"]  # doctest: +SKIP

``net.blobs`` and ``net.params`` hold numpy arrays that may be read and written; a forward pass
takes what they hold and leaves its results in them. docs/pycaffe.md shows ten scripts.
``python -m caffe_compat.pycaffe script.py`` runs a script that says ``import caffe``.

Beside it: ``io`` (pictures), ``layers``, ``params`` and ``NetSpec`` (definitions in Python),
``Classifier``, ``Detector``, ``Layer`` (layers in Python), ``draw``, ``coord_map``,
``proto.caffe_pb2`` (Caffe's messages).

Values, gradients and what is refused are Caffe's, its peculiarities included: layers that work in
place read overwritten data in ``backward``, what shares memory changes together, an output's diff
stays what was put there. What differs stands on that page.

Source: ``_caffe.cpp``, ``pycaffe.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

from caffe_compat.pycaffe import classifier, coord_map, detector, draw, io, net_spec, proto
from caffe_compat.pycaffe.blobs import Blob
from caffe_compat.pycaffe.classifier import Classifier
from caffe_compat.pycaffe.detector import Detector
from caffe_compat.pycaffe.mode import (
    Timer,
    has_nccl,
    init_log,
    layer_type_list,
    log,
    set_device,
    set_logging_disabled,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from caffe_compat.pycaffe.net_spec import NetSpec, layers, params, to_proto
from caffe_compat.pycaffe.nets import TEST, TRAIN, Net
from caffe_compat.pycaffe.proto import caffe_pb2
from caffe_compat.pycaffe.python_layers import Layer
from caffe_compat.pycaffe.solvers import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)

__version__ = "1.0.0"  # of the Caffe whose interface this is; scripts compare with it

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "__version__",
    "caffe_pb2",
    "classifier",
    "coord_map",
    "detector",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "set_device",
    "set_logging_disabled",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
