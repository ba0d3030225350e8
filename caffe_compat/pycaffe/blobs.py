"""Blobs as scripts see them: numpy arrays of values and gradients."""

from __future__ import annotations

from collections import OrderedDict
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
        self._diff_owner: Blob | None = None

    @property
    def data(self) -> Array:
        """Values."""
        self._ready()
        return self._data

    @property
    def diff(self) -> Array:
        """Gradient."""
        if self._diff_owner is not None:
            return self._diff_owner.diff.reshape(self._data.shape)
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

    def share_diff(self, other: Blob) -> None:
        """Let another blob's gradient be this one's, too."""
        self._diff_owner = other

    @property
    def has_diff(self) -> bool:
        """Has anybody looked at the gradient, or computed it?"""
        owner = self if self._diff_owner is None else self._diff_owner
        return owner._diff is not None and owner._diff.size == self._data.size

    def _set_diff(self, values: Array) -> None:
        if self._diff_owner is not None:
            self._diff_owner._set_diff(values.reshape(self._diff_owner._data.shape))
        elif self._diff is None or self._diff.shape != values.shape:
            self._diff = np.array(values, np.float32)
        else:
            self._diff[...] = values


class Blobs(OrderedDict[str, Blob]):
    """A net's blobs by name.

    Attributes
    ----------
    hidden : blobs that are found by name but not listed: the copies that Caffe makes of a loss.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, Blob] = {}

    def __missing__(self, name: str) -> Blob:
        return self.hidden[name]

    def everything(self) -> dict[str, Blob]:
        """Listed and hidden ones."""
        return {**self, **self.hidden}
