"""The face of pycaffe: scripts written for Caffe's Python module run on this one.

>>> import caffe_compat.pycaffe as caffe  # doctest: +SKIP
>>> caffe.set_mode_cpu()  # doctest: +SKIP
>>> net = caffe.Net("pose_deploy.prototxt", "pose.caffemodel", caffe.TEST)  # doctest: +SKIP
>>> net.blobs["data"].data[...] = image  # doctest: +SKIP
>>> maps = net.forward()["Mconv5_stage6"]  # doctest: +SKIP

``net.blobs`` and ``net.params`` hold numpy arrays that may be read and written; a forward pass
takes what they hold and leaves its results in them. Not here: ``caffe.io``, ``caffe.draw``,
``caffe.layers`` (``reproduce.network.netgen`` generates pose machines) and Python layers.

What differs from Caffe: the split copies that Caffe inserts are not in ``blobs``; inner blobs are
computed when they are first looked at, not in ``forward`` itself; after a solver's step a
parameter's ``diff`` is its gradient, not the update.

Source: ``_caffe.cpp``, ``pycaffe.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

from caffe_compat.pycaffe.blobs import Blob
from caffe_compat.pycaffe.mode import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from caffe_compat.pycaffe.nets import TEST, TRAIN, Layer, Net
from caffe_compat.pycaffe.solvers import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Layer",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
]
