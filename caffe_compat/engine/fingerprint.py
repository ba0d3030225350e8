"""Have weights changed? Told from their values, because nothing else can be relied on.

torch counts the changes that it makes to a tensor itself. Changes through ``tensor.data``, through
a numpy array that shares the memory or through a pointer are not counted, so whoever keeps what was
computed from weights must look at the weights themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from caffe_compat.engine.threads import for_each

_ROW = 512  # 64-bit words of a tensor that one sum covers
_LARGE = 1024 * _ROW  # from here on a second thread costs less than it saves


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is remembered of a tensor's values; equal ones mean equal values, to the bit.

    The memory is read as 64-bit words, each is multiplied by a fixed random odd number, and rows
    of words are summed modulo 2^64. An odd factor loses nothing, so a change of one value always
    shows; changes of several values would have to cancel in every row.

    Factors act on the low bits of a word more than on its high bits, of the highest bit not at all:
    two changes of it in one row would cancel. Were words read from the first byte on, it would be
    the sign of a value. Therefore they begin two bytes later, in the middle of a float32: the
    highest bit is then one of the least in a value, and no sign stands above the 48th.

    Attributes
    ----------
    layout : shape, strides and type.
    sums : of the rows.
    rest : the bytes before the first row and after the last one.
    """

    layout: tuple[object, ...]
    sums: Tensor
    rest: bytes

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Fingerprint)
            and self.layout == other.layout
            and self.rest == other.rest
            and torch.equal(self.sums, other.sums)
        )

    __hash__ = None  # type: ignore[assignment]


@torch.no_grad()
def fingerprint(tensor: Tensor) -> Fingerprint:
    """The fingerprint of a tensor's values.

    Parameters
    ----------
    tensor : on the CPU, of any shape and type.
    """
    layout = (tuple(tensor.shape), tensor.stride(), tensor.dtype)
    values = _in_memory_order(tensor.detach()).view(torch.uint8).numpy()
    shift = 2 if tensor.element_size() >= 4 else 1
    rows = max(len(values) - shift, 0) // (8 * _ROW)
    end = shift + rows * 8 * _ROW
    rest = values[:shift].tobytes() + values[end:].tobytes()
    if not rows:
        return Fingerprint(layout, torch.empty(0, dtype=torch.int64), rest)
    words = torch.frombuffer(values, dtype=torch.int64, count=rows * _ROW, offset=shift)
    sums = torch.mv(words.view(rows, _ROW), _factors())
    return Fingerprint(layout, sums, rest)


def fingerprints(tensors: Sequence[Tensor]) -> list[Fingerprint]:
    """The fingerprints of several tensors, worked out on two cores where torch uses more than one.

    torch's own threads would share out each sum, and wait for each other longer than the sums take
    on a machine that is busy with something else.
    """
    found: list[Fingerprint | None] = [None] * len(tensors)

    def work(place: int) -> None:
        found[place] = fingerprint(tensors[place])

    largest_first = sorted(range(len(tensors)), key=lambda i: -tensors[i].numel())
    large = sum(t.numel() for t in tensors) > _LARGE
    for_each(largest_first, work, cores=2 if large else 1)
    return cast("list[Fingerprint]", found)


def _in_memory_order(tensor: Tensor) -> Tensor:
    """All values as one row, without a copy where the memory has no gaps."""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


@lru_cache(maxsize=1)
def _factors() -> Tensor:
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(1)
        return torch.randint(-(2**62), 2**62, (_ROW,), generator=generator) | 1
