"""Convolutional Pose Machines (Wei et al., CVPR 2016), reproduced on :mod:`caffe_compat`."""

from __future__ import annotations

from caffe_compat import __version__

__all__ = ["__version__"]
