"""From the network's belief maps back to the image, and to each part's place.

The way back (eight times larger, crop and padding undone, resized to the image's size) is linear in
each axis; it is composed into one matrix per axis and applied as two matrix products to all parts
and stages at once.

Source: ``applyModel.m`` of the CPM release (formulas; recorded intermediate values).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.lazy import lazy_import
from reproduce.predict.imresize import axis_map
from reproduce.predict.inputs import ScaledInput
from reproduce.predict.protocol import Combination

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_import("torch")

_DENSE = 1 << 25  # entries of a matrix that is written out
Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]


def to_image(
    maps: torch.Tensor,
    place: ScaledInput,
    size: tuple[int, int],
    *,
    shown: tuple[int, int] | None = None,
    background: bool = True,
) -> torch.Tensor:
    """Belief maps of one scale in the original image.

    Parameters
    ----------
    maps : (..., P + 1, cells, cells); the last channel is the background, 1 outside the network's
        input.
    place : where the scaled image lies in the network's input.
    size : (H, W) of the image.
    shown : (h, w): reduced to this size at once, for pictures.
    background : whether the last channel is one.

    Returns
    -------
    (..., P + 1, H, W) float32 on the same device.
    """
    cells = maps.shape[-1]
    axes = []
    for axis in (0, 1):
        back, inside = _back(cells, place.boxsize, place.scaled[axis], place.pad[axis], size[axis])
        if shown is not None:
            reduce = _reduce(size[axis], shown[axis])
            back, inside = reduce @ back, reduce @ inside
        axes.append(
            (torch.from_numpy(back).to(maps.device), torch.from_numpy(inside).to(maps.device))
        )
    (rows, inside_rows), (columns, inside_columns) = axes
    out = torch.matmul(torch.matmul(rows, maps.float()), columns.t())
    if background:
        out[..., -1, :, :] += 1 - inside_rows[:, None] * inside_columns[None]
    return out


@lru_cache(maxsize=4096)
def _back(cells: int, boxsize: int, scaled: int, pad: int, size: int) -> tuple[Maps, Maps]:
    """One axis of the way back: matrix (size, cells), and how much of each pixel comes from inside
    the box (size,)."""
    up = axis_map(cells, boxsize, boxsize / cells).dense()
    undone = np.zeros((scaled, cells))
    position = np.arange(scaled) + pad
    inside = (position >= 0) & (position < boxsize)
    undone[inside] = up[position[inside]]
    down = axis_map(scaled, size, size / scaled)
    if scaled * size > _DENSE:
        covered = down.apply(inside.astype(np.float64), 0)
        return down.apply(undone, 0).astype(np.float32), covered.astype(np.float32)
    matrix = down.dense()
    return (
        (matrix @ undone).astype(np.float32),
        (matrix @ inside.astype(np.float64)).astype(np.float32),
    )


@lru_cache(maxsize=256)
def _reduce(size: int, shown: int) -> Maps:
    return axis_map(size, shown, shown / size).dense().astype(np.float32)


def find_maximum(maps: Maps | torch.Tensor, combination: Combination) -> Floats:
    """Position of each map's maximum, x, y in 0-based pixels; of equals the first in MATLAB's
    memory order.

    The benchmark looks at H×W arrays (smallest x first), the demo at W×H ones (smallest y first).

    Parameters
    ----------
    maps : (P, H, W).

    Returns
    -------
    (P, 2) float64.
    """
    values = torch.as_tensor(maps)
    parts, _, width = values.shape
    values = torch.where(torch.isnan(values), -torch.inf, values)  # MATLAB's max passes over nan
    # torch's argmax gives the first of equals; the far axis' own maxima first, so that no
    # transposed copy is made
    if combination == "demo":
        flat = values.reshape(parts, -1).argmax(1)
        x, y = flat % width, flat // width
    else:
        best, rows = values.max(1).values, values.argmax(1)
        x = best.argmax(1)
        y = rows.gather(1, x[:, None])[:, 0]
    return torch.stack([x, y], 1).cpu().numpy().astype(np.float64)
