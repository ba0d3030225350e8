"""Memory and calls that the ways of computing a convolution share."""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from torch import Tensor

# oneDNN's own layout of a weight. It is an internal call of torch for compiled graphs: where it is
# missing, the ways fall back to batched products.
PACK: Any = (
    getattr(torch.ops.mkldnn, "_reorder_convolution_weight", None) if torch._C._has_mkldnn else None
)


def as_image(rows: Tensor) -> Tensor:
    """(rows, channels) as a channels-last image of one line."""
    count, width = rows.shape
    return rows.as_strided(
        (1, width, 1, count), (count * width, 1, count * width, width), rows.storage_offset()
    )


class _Scratch(threading.local):
    """Buffers that are used again, for each thread its own.

    Fresh memory of this size costs more than the work on it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer's memory as a tensor; what was in it is undefined."""
        size = math.prod(shape)
        found = self._buffers.get((name, dtype))
        if found is None or found.numel() < size:
            with torch.inference_mode(False):
                found = self._buffers[name, dtype] = torch.empty(size, dtype=dtype)
        return found[:size].view(shape)


scratch = _Scratch()


def maps_like(x: Tensor, outputs: int, high: int, wide: int) -> Tensor:
    """Room for a layer's maps, N×outputs×high×wide, channels last in memory.

    It is no view of another tensor, so that torch lets whoever gets the maps change them in place.
    """
    size = (len(x), outputs, high, wide)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
