"""MATLAB's imresize (bicubic, with antialiasing), as one linear map per axis.

``out = ceil(scale * in)`` for a scale, or the given size; output pixel u (from 1) is centred at
``u / scale + (1 - 1 / scale) / 2``; with ``q = min(scale, 1)`` its taps are ``floor(c - 2 / q)``
and the next ``ceil(4 / q) + 1``, weighted by Keys' cubic (a = -0.5) of ``q (c - i)``, normalised,
mirrored at the borders. Axes go in the order of ascending scale, rows first on a tie; each pass is
rounded to the input's class.

Source: behaviour of MATLAB's imresize as recorded from MATLAB (R2015b to R2019b).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


def cubic(x: Floats) -> Floats:
    """Keys' cubic with a = -0.5."""
    a = np.abs(x)
    # The powers are computed first, as MATLAB does. Another order changes the last bit, and with
    # it the rounding of a grey level that is exactly in the middle of two.
    square, cube = a * a, a * a * a
    near = 1.5 * cube - 2.5 * square + 1
    far = -0.5 * cube + 2.5 * square - 4 * a + 2
    return np.where(a <= 1, near, np.where(a <= 2, far, 0.0))


@dataclass(frozen=True, eq=False)
class AxisMap:
    """A sparse linear map along one axis.

    Attributes
    ----------
    size_in, size_out : lengths.
    index : (size_out, taps) source positions, from 0.
    weight : their weights.
    """

    size_in: int
    size_out: int
    index: npt.NDArray[np.int64]
    weight: Floats

    def dense(self) -> Floats:
        """The matrix (size_out, size_in)."""
        matrix = np.zeros((self.size_out, self.size_in))
        rows = np.arange(self.size_out)
        # One tap after the other: at the border several taps are mirrored to the same pixel.
        for tap in range(self.index.shape[1]):
            matrix[rows, self.index[:, tap]] += self.weight[:, tap]
        return matrix

    def apply(self, array: Array, axis: int) -> Floats:
        """Map one axis of an array; sums in float64, in the order of the taps."""
        moved = np.moveaxis(array, axis, 0)
        shape = (self.size_out,) + (1,) * (moved.ndim - 1)
        out = np.zeros((self.size_out, *moved.shape[1:]))
        for tap in range(self.index.shape[1]):
            out += self.weight[:, tap].reshape(shape) * moved[self.index[:, tap]]
        return np.moveaxis(out, 0, axis)


@lru_cache(maxsize=512)
def axis_map(
    size_in: int, size_out: int, scale: float, antialias: bool = True, first: int = 0
) -> AxisMap:
    """imresize along one axis.

    Parameters
    ----------
    scale : as given to imresize, which is not always size_out / size_in.
    first : make the outputs from this one on only, ``size_out`` of them.
    """
    q = min(scale, 1.0) if antialias else 1.0
    width = 4 / q
    u = np.arange(first + 1, first + size_out + 1, dtype=np.float64)
    center = u / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(center - width / 2)
    taps = math.ceil(width) + 2
    position = left[:, None] + np.arange(taps)
    weight = q * cubic(q * (center[:, None] - position))
    # cumsum adds one number after the other, as MATLAB's sum does; numpy's sum adds in pairs.
    weight /= np.cumsum(weight, 1)[:, -1:]
    mirrored = np.mod(position.astype(np.int64) - 1, 2 * size_in)
    index = np.where(mirrored < size_in, mirrored, 2 * size_in - 1 - mirrored)
    used = weight.any(0)
    return AxisMap(size_in, size_out, index[:, used], weight[:, used])


def output_size(shape: Sequence[int], scale: float) -> tuple[int, int]:
    """Rows and columns that imresize with a scale gives."""
    return math.ceil(scale * shape[0]), math.ceil(scale * shape[1])


def to_class(values: Floats, dtype: Any) -> Array:
    """Convert as MATLAB does: integers are rounded half away from zero and saturated."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(
            np.copysign(np.floor(np.abs(values) + 0.5), values), info.min, info.max
        ).astype(dtype)
    return values.astype(dtype)


def imresize(image: Array, target: float | tuple[int, int], *, antialias: bool = True) -> Array:
    """Resize rows and columns.

    Parameters
    ----------
    image : (H, W) or (H, W, C), uint8, float32 or float64.
    target : a scale, or (rows, columns).

    Returns
    -------
    The resized image in the same class.

    Raises
    ------
    ValueError : a size or scale that is not positive.
    """
    height, width = image.shape[:2]
    if isinstance(target, tuple):
        size, scales = target, (target[0] / height, target[1] / width)
    else:
        size, scales = output_size(image.shape, target), (float(target), float(target))
    if min(size) < 1 or min(scales) <= 0:
        raise ValueError(f"cannot resize {height}×{width} to {size[0]}×{size[1]}")
    out: Array = image
    for axis in sorted((0, 1), key=lambda a: scales[a]):
        mapped = axis_map(image.shape[axis], size[axis], scales[axis], antialias)
        out = to_class(mapped.apply(out, axis), image.dtype)
    return out


def imresize_region(image: Array, scale: float, rows: range, columns: range) -> Array:
    """A rectangle of ``imresize(image, scale)``, the same to the last bit, without the rest.

    Every pixel of the result depends on few of the image, so that a small part of a picture
    enlarged a hundred times takes no more memory than that part.

    Parameters
    ----------
    rows, columns : of the resized image, inside it.

    Raises
    ------
    ValueError : the resized image would have no pixel.
    """
    height, width = output_size(image.shape, scale)
    if min(height, width) < 1 or scale <= 0:
        raise ValueError(f"cannot resize {image.shape[0]}×{image.shape[1]} by {scale}")
    down = axis_map(image.shape[0], len(rows), float(scale), first=rows.start)
    across = axis_map(image.shape[1], len(columns), float(scale), first=columns.start)
    # MATLAB begins with the axis of the smaller scale, and with the rows where both are equal, as
    # here. Only the columns that the second step reads are resized in the first one.
    left, right = int(across.index.min()), int(across.index.max()) + 1
    strip = to_class(down.apply(image[:, left:right], 0), image.dtype)
    moved = AxisMap(right - left, len(columns), across.index - left, across.weight)
    return to_class(moved.apply(strip, 1), image.dtype)
