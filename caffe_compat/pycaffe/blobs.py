"""Blobs as scripts see them: numpy arrays of values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError

Array = npt.NDArray[np.float32]


class Blob:
    """A blob: ``data`` and ``diff``, float32 arrays of one shape that may be written.

    Parameters
    ----------
    data : its values. ready : called before they are looked at.
    """

    def __init__(self, data: Array, ready: Callable[[], None] = lambda: None) -> None:
        self._data, self._ready = data, ready
        self._diff: Array | None = None

    @property
    def data(self) -> Array:
        """Values."""
        self._ready()
        return self._data

    @property
    def diff(self) -> Array:
        """Gradient."""
        if self._diff is None or self._diff.shape != self._data.shape:
            self._diff = np.zeros(self._data.shape, np.float32)
        return self._diff

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.data.shape

    @property
    def count(self) -> int:
        """Number of values."""
        return self.data.size

    def _axis(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise CaffeCompatError(
                f"a blob of {len(self.shape)} axes has no num, channels, height and width: use "
                "shape"
            )
        return self.shape[axis] if axis < len(self.shape) else 1

    num = property(lambda self: self._axis(0), doc="First axis.")
    channels = property(lambda self: self._axis(1), doc="Second axis.")
    height = property(lambda self: self._axis(2), doc="Third axis.")
    width = property(lambda self: self._axis(3), doc="Fourth axis.")

    def reshape(self, *shape: int) -> None:
        """Change the shape; values stay where their number does, else they are 0. Takes effect in
        the next forward pass."""
        if tuple(shape) != self._data.shape:
            same = int(np.prod(shape)) == self._data.size
            self._data = self._data.reshape(shape).copy() if same else np.zeros(shape, np.float32)

    def _set(self, values: Array) -> None:
        """New values, in the same memory where the shape allows: arrays that a script keeps stay
        current."""
        if values.shape == self._data.shape:
            self._data[...] = values
        else:
            self._data = np.array(values, np.float32)

    def _set_diff(self, values: Array) -> None:
        if self._diff is None or self._diff.shape != values.shape:
            self._diff = np.array(values, np.float32)
        else:
            self._diff[...] = values
