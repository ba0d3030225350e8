"""``caffe.coord_map``: where a pixel of one top lies in another, and cropping one to the other.

A map is (axis, a, b): the coordinate ``x`` along every axis from ``axis`` on lies at ``a x + b``.
The axis None stands for "any".

Source: ``caffe/coord_map.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_compat.errors import CaffeCompatError
from caffe_compat.pycaffe.net_spec import Function, Top, layers

Map = tuple[Any, Any, Any]
_SAME: Map = (None, 1, 0)
PASS_THROUGH_LAYERS = (
    "AbsVal",
    "BNLL",
    "BatchNorm",
    "Bias",
    "Dropout",
    "ELU",
    "Eltwise",
    "Exp",
    "LRN",
    "Log",
    "MVN",
    "PReLU",
    "Power",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Split",
    "TanH",
    "Threshold",
)
_ONE_SIDED = {"pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"}


class UndefinedMapException(CaffeCompatError):
    """A layer does not keep places, or how is not known."""


class AxisMismatchException(CaffeCompatError):
    """Two maps begin at different axes."""


class UnconnectedTops(CaffeCompatError, RuntimeError):
    """No way of layers that keep places leads from one top to the other."""


class ImpossibleCrop(CaffeCompatError, AssertionError):
    """One top cannot be cropped to the other."""


def conv_params(fn: Function) -> tuple[Any, Any, Any, Any]:
    """(axis, stride, extent of the kernel, pad) of a layer with windows; arrays, one value or one
    per axis.

    Raises
    ------
    ImpossibleCrop : the layer gives its sizes by side (kernel_h, stride_w, ...).
    """
    options = fn.params.get("convolution_param", fn.params.get("pooling_param", fn.params))
    if sided := _ONE_SIDED & set(options):
        raise ImpossibleCrop(f"{fn.type_name}: {', '.join(sorted(sided))} is not supported here")
    kernel = np.array(options["kernel_size"], ndmin=1)
    dilation = np.array(options.get("dilation", 1), ndmin=1)
    stride, pad = (np.array(options.get(n, d), ndmin=1) for n, d in (("stride", 1), ("pad", 0)))
    return options.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[Any, Any]:
    """(axis, offset) of a Crop layer."""
    options = fn.params.get("crop_param", fn.params)
    return options.get("axis", 2), np.array(options.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map from a layer's bottom to its top.

    Raises
    ------
    UndefinedMapException : the layer's type keeps no places.
    """
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, kernel, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = conv_params(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return _SAME
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # maps count from the channels, which are not cropped
    raise UndefinedMapException(f"where pixels go is not known of a layer of type {fn.type_name}")


def compose(base_map: Map, next_map: Map) -> Map:
    """First ``next_map``, then ``base_map``.

    Raises
    ------
    AxisMismatchException : they begin at different axes.
    """
    axis, a, b = base_map
    other, c, d = next_map
    if axis is not None and other is not None and axis != other:
        raise AxisMismatchException(f"maps from axis {axis} and from axis {other} on")
    return (other if axis is None else axis), a * c, a * d + b


def inverse(of: Map) -> Map:
    """The map back."""
    axis, a, b = of
    return axis, 1 / a, -b / a


def _places(top: Top, stop: dict[Top, Map] | None = None) -> tuple[dict[Top, Map], Top | None]:
    """Map of every top that ``top`` comes from to ``top``; ends early at one of ``stop``."""
    found = {top: _SAME}
    todo = [top]
    while todo:
        one = todo.pop()
        if stop is not None and one in stop:
            return found, one
        try:
            step = coord_map(one.fn)
        except UndefinedMapException:
            continue
        # a Crop layer's second bottom only lends its size
        bottoms = one.fn.inputs[:1] if one.fn.type_name == "Crop" else one.fn.inputs
        for bottom in bottoms:
            found[bottom] = compose(found[one], step)
            todo.append(bottom)
    return found, None


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """Where a place of ``top_from`` lies in ``top_to``, by a top that both come from.

    Raises
    ------
    UnconnectedTops : there is none on a way of layers that keep places.
    """
    sources, _ = _places(top_from)
    targets, shared = _places(top_to, stop=sources)
    if shared is None:
        raise UnconnectedTops(
            "the tops have no common source from which layers that keep places lead to both"
        )
    return compose(targets[shared], inverse(sources[shared]))


def crop(top_from: Top, top_to: Top) -> Any:
    """A Crop layer that cuts ``top_from`` to what ``top_to`` shows.

    Raises
    ------
    ImpossibleCrop : their scales differ, or the cut would begin outside or between pixels.
    """
    axis, a, b = coord_map_from_to(top_from, top_to)
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    if not (a == 1).all():
        raise ImpossibleCrop(f"scale mismatch: one pixel is {a} pixels of the other top")
    if not (b <= 0).all():
        raise ImpossibleCrop(f"the crop would begin outside, {b} before the first pixel")
    if not (np.round(b) == b).all():
        raise ImpossibleCrop(f"the crop would begin between pixels (offset {-b})")
    offset = [int(one) for one in -np.round(b)]
    axis = 1 if axis is None else axis
    return layers.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": offset})
