"""How each layer type is said in ONNX: one module for each family of layers.

Converters follow Caffe's rules, not ONNX's attributes of the same name.
"""

from __future__ import annotations

from caffe_compat.conversion import (  # noqa: F401 - each family registers its converters
    onnx_arrange,
    onnx_detection,
    onnx_filters,
    onnx_neuron,
    onnx_normalization,
    onnx_pooling,
    onnx_recurrent,
    onnx_reduction,
    onnx_resize,
)
from caffe_compat.conversion.onnx_steps import CONVERTERS

# Who asks this module for the converters gets them all.
__all__ = ["CONVERTERS"]
