"""Blobs as scripts see them: numpy arrays of values and gradients."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from caffe_compat.engine.fingerprint import Fingerprint, fingerprint, fingerprints
from caffe_compat.errors import CaffeCompatError

Array = npt.NDArray[np.float32]


class Blob:
    """A blob: ``data`` and ``diff``, float32 arrays of one shape that may be written.

    Parameters
    ----------
    data : its values.
    ready : called before they are looked at.
    """

    def __init__(self, data: Array, ready: Callable[[], None] = lambda: None) -> None:
        self._data, self._ready = data, ready
        self._memory_of_diff: Array | None = None  # flat; it stays where the blob shrinks
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
            return self._diff_owner.diff.reshape(self._sizes())
        count = math.prod(self._sizes())
        if self._memory_of_diff is None or self._memory_of_diff.size < count:
            self._memory_of_diff = np.zeros(count, np.float32)
        return self._memory_of_diff[:count].reshape(self._sizes())

    def _sizes(self) -> tuple[int, ...]:
        """Sizes of the axes, without a look at the values."""
        return self._data.shape

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
        the next forward pass.

        Raises
        ------
        CaffeCompatError : a negative axis, or more values than a blob can hold.
        """
        if any(size < 0 for size in shape):
            raise CaffeCompatError(f"a blob cannot have the shape {shape}")
        if tuple(shape) != self._data.shape:
            same = math.prod(shape) == self._data.size
            self._data = self._data.reshape(shape).copy() if same else np.zeros(shape, np.float32)

    def _set(self, values: Array) -> None:
        """New values, in the same memory where the shape allows: arrays that a script keeps stay
        current."""
        if values.shape == self._data.shape:
            self._data[...] = values
        else:
            self._data = np.array(values, np.float32, order="C")

    def share_diff(self, other: Blob) -> None:
        """Let another blob's gradient be this one's, too."""
        self._diff_owner = other

    @property
    def has_diff(self) -> bool:
        """Has anybody looked at the gradient, or computed it?"""
        owner = self if self._diff_owner is None else self._diff_owner
        memory = owner._memory_of_diff
        return memory is not None and memory.size >= math.prod(owner._sizes())

    def _set_diff(self, values: Array) -> None:
        if self._diff_owner is not None:
            self._diff_owner._set_diff(values.reshape(self._diff_owner._sizes()))
            return
        if self._memory_of_diff is None or self._memory_of_diff.size < values.size:
            self._memory_of_diff = np.zeros(values.size, np.float32)
        self._memory_of_diff[: values.size] = values.reshape(-1)


class Alias(Blob):
    """Another name of a blob, with a gradient of its own: the copies that Caffe makes of a loss.

    Parameters
    ----------
    of : the blob whose values it has.
    """

    def __init__(self, of: Blob) -> None:
        self._of = of
        super().__init__(of._data, of._ready)

    @property
    def _data(self) -> Array:
        return self._of._data

    @_data.setter
    def _data(self, values: Array) -> None:
        self._of._data = values


@dataclass
class _Memory:
    """What several nets' blobs may share."""

    array: Array | None = None


class ParamBlob(Blob):
    """A parameter of a layer: an array for scripts, and the tensor that the net computes with.

    The array exists from the first look at it. It lies in Caffe's order, whatever order the tensor
    is fastest in, so that a reshaped view of it writes into it. What a script wrote is copied into
    the tensor before the net runs (:meth:`take`), what the net changed is copied into the array
    (:meth:`give`); neither happens where nothing changed.

    Parameters
    ----------
    tensor : the net's parameter.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._memory = tensor, _Memory()
        self._seen: Fingerprint | None = None  # of the array, when it last equalled the tensor
        self._version = -1  # of the tensor, then
        self._ready = lambda: None
        self._memory_of_diff = None
        self._diff_owner = None

    @property
    def _data(self) -> Array:
        if self._memory.array is None:
            self._memory.array = self._values()
            self._remember(fingerprint(torch.from_numpy(self._memory.array)))
        return self._memory.array

    @_data.setter
    def _data(self, values: Array) -> None:
        self._memory.array, self._seen = values, None

    @property
    def held(self) -> bool:
        """Has a script looked at the values, and may it change them at any time?"""
        return self._memory.array is not None

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape) if self._memory.array is None else self._data.shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._sizes()

    @property
    def count(self) -> int:
        return math.prod(self._sizes())

    def _values(self) -> Array:
        return np.array(self._tensor.detach().float().cpu().numpy(), np.float32, order="C")

    def _remember(self, now: Fingerprint) -> None:
        self._seen, self._version = now, self._tensor._version

    def take(self, now: Fingerprint) -> None:
        """Let the net compute with what the array holds.

        Parameters
        ----------
        now : fingerprint of the array.

        Raises
        ------
        CaffeCompatError : the array was given another shape than the parameter's.
        """
        values = torch.from_numpy(self._data)
        if values.numel() != self._tensor.numel():
            raise CaffeCompatError(
                f"a parameter of shape {tuple(self._tensor.shape)} was given the shape "
                f"{self._data.shape}"
            )
        with torch.no_grad():
            self._tensor.copy_(values.reshape(self._tensor.shape))
        self._remember(now)

    def give(self) -> None:
        """Show in the array what happened to the net's parameter."""
        array = self._memory.array
        if array is not None and self._tensor._version != self._version:
            array[...] = self._values().reshape(array.shape)
            self._remember(fingerprint(torch.from_numpy(array)))

    def share(self, other: ParamBlob) -> None:
        """Have another net's values from now on, in the same array.

        Raises
        ------
        CaffeCompatError : the other parameter has another shape.
        """
        if other.shape != self.shape:
            raise CaffeCompatError(f"shapes {self.shape} and {other.shape} cannot be shared")
        if other._tensor is not self._tensor:
            _ = other._data
        self._memory, self._seen = other._memory, None


def take_all(blobs: Iterable[ParamBlob], before: Callable[[], None]) -> None:
    """Let the net compute with what scripts wrote into its parameters.

    Parameters
    ----------
    before : called while the net's parameters are still the old ones, where any will change.
    """
    held = [blob for blob in blobs if blob.held]
    prints = fingerprints([torch.from_numpy(blob._data) for blob in held])
    changed = [(blob, now) for blob, now in zip(held, prints, strict=True) if now != blob._seen]
    if changed:
        before()
    for blob, now in changed:
        blob.take(now)


class Blobs(OrderedDict[str, Blob]):
    """A net's blobs by name.

    Attributes
    ----------
    hidden : blobs that are found by name but not listed: the copies that Caffe makes of a loss, and
        its automatic tops but the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, Blob] = {}

    def __missing__(self, name: str) -> Blob:
        return self.hidden[name]

    def everything(self) -> dict[str, Blob]:
        """Listed and hidden ones."""
        return {**self, **self.hidden}
