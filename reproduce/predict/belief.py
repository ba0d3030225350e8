"""From the network's belief maps back to the image, and to each part's place.

The way back (eight times larger, crop and padding undone, resized to the image's size) is linear in
each axis; it is composed into one matrix per axis and applied as two matrix products to all parts
and stages at once.

Source: ``applyModel.m`` and the Python notebook of the CPM release (formulas; recorded intermediate
values).
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
from reproduce.runtime.plain_opencv import use_plain_opencv

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


def enlarge(maps: Maps, stride: int) -> Maps:
    """Belief maps enlarged by OpenCV's bicubic interpolation, as the Python demo does it.

    Parameters
    ----------
    maps : (P, h, w) float32.

    Returns
    -------
    (P, stride · h, stride · w) float32.
    """
    import cv2

    use_plain_opencv()
    return np.stack(
        [cv2.resize(one, None, fx=stride, fy=stride, interpolation=cv2.INTER_CUBIC) for one in maps]
    )


def find_in_crop(maps: Maps, place: ScaledInput, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Each part's best place by the Python demo: in the crop, the first in reading order.

    Parameters
    ----------
    maps : (P, cells, cells) of the parts, of one scale.
    place : the crop.
    size : (H, W) of the image.

    Returns
    -------
    Joints (P, 2) x, y in 0-based pixels of the image (between two pixels, as the scale brings it),
    and the belief there (P,). In the scaled image they are whole pixels.
    """
    wide = enlarge(maps, place.boxsize // maps.shape[-1])
    flat = wide.reshape(len(wide), -1)
    best = flat.argmax(1)
    rows, columns = np.divmod(best, wide.shape[-1])
    up, left = place.pad[:2]
    in_scaled = np.stack([columns - left, rows - up], 1).astype(np.float64)
    # The scale was chosen for the height; the width followed it and was rounded.
    scale = place.scaled[0] / size[0]
    scores = flat[np.arange(len(flat)), best].astype(np.float64)
    return (in_scaled + 0.5) / scale - 0.5, scores


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
    # MATLAB's max ignores nan, torch's takes it for the largest value.
    values = torch.where(torch.isnan(values), -torch.inf, values)
    # Of equal values, torch's argmax gives the first in the order of memory. Where the first by
    # columns is asked for, the maxima of the columns are searched, which needs no transposed copy.
    if combination == "demo":
        flat = values.reshape(parts, -1).argmax(1)
        x, y = flat % width, flat // width
    else:
        best, rows = values.max(1).values, values.argmax(1)
        x = best.argmax(1)
        y = rows.gather(1, x[:, None])[:, 0]
    return torch.stack([x, y], 1).cpu().numpy().astype(np.float64)
