"""Convolutional Pose Machines (Wei et al., CVPR 2016), reproduced on :mod:`caffe_compat`.

Shapes use N people, P parts, J joints of a file, S stages, H rows and W columns; a place is (x, y)
in pixels that count from 0.
"""

from __future__ import annotations

from caffe_compat import __version__

__all__ = ["__version__"]
