"""Gaussian belief maps: the labels and the centre map.

Cell g of a map with stride s is centred at pixel ``g s + (s - 1) / 2``; a joint adds ``exp(-d² / 2
σ²)`` where ``d² / 2 σ² <= 4.6052``; sums are clipped at 1. All Gaussians of a map are separable
products, made without a loop over pixels.

Source: the CPM data layer of the CPM release (formula and cut-off; recorded labels in the golden
data).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CUTOFF = 4.6052  # -log of 0.01, about three sigma
Floats = npt.NDArray[np.float32]


def gaussians(centers: Floats, height: int, width: int, stride: int, sigma: float) -> Floats:
    """One Gaussian per centre.

    Parameters
    ----------
    centers : (N, 2) x, y in 0-based pixels of the input.
    height, width : of the map, in cells.
    sigma : in pixels of the input.

    Returns
    -------
    (N, height, width) float32.
    """
    start = np.float32(stride / 2.0 - 0.5)
    x = np.arange(width, dtype=np.float32) * np.float32(stride) + start
    y = np.arange(height, dtype=np.float32) * np.float32(stride) + start
    centers = np.asarray(centers, np.float32).reshape(-1, 2)
    dx = (x[None] - centers[:, :1]) ** 2
    dy = (y[None] - centers[:, 1:]) ** 2
    square = dy[:, :, None] + dx[:, None, :]
    exponent = (square / 2.0 / sigma / sigma).astype(np.float32)
    scale = -1.0 / (2.0 * sigma * sigma)
    maps = (
        np.exp(dy.astype(np.float64) * scale)[:, :, None]
        * np.exp(dx.astype(np.float64) * scale)[:, None, :]
    )
    maps[exponent > np.float32(CUTOFF)] = 0
    return maps.astype(np.float32)


def center_map(center: Floats, height: int, width: int, sigma: float) -> Floats:
    """The network's fourth input channel: one Gaussian, (height, width) float32, computed only
    where it is not 0."""
    reach = int(np.ceil(sigma * np.sqrt(2 * CUTOFF))) + 1
    out = np.zeros((height, width), np.float32)
    x, y = float(center[0]), float(center[1])
    left, right = max(0, int(x) - reach), min(width, int(x) + reach + 2)
    top, bottom = max(0, int(y) - reach), min(height, int(y) + reach + 2)
    if left >= right or top >= bottom:
        return out
    gx = np.arange(left, right, dtype=np.float32)
    gy = np.arange(top, bottom, dtype=np.float32)
    dx, dy = (gx - np.float32(x)) ** 2, (gy - np.float32(y)) ** 2
    exponent = ((dy[:, None] + dx[None]) / 2.0 / sigma / sigma).astype(np.float32)
    scale = -1.0 / (2.0 * sigma * sigma)
    patch = (
        np.exp(dy.astype(np.float64) * scale)[:, None] * np.exp(dx.astype(np.float64) * scale)[None]
    )
    patch[exponent > np.float32(CUTOFF)] = 0
    out[top:bottom, left:right] = np.minimum(patch, 1)
    return out


def body_centres(centres: Floats, height: int, width: int, stride: int, sigma: float) -> Floats:
    """The label of the person network: a Gaussian at each body's centre.

    Parameters
    ----------
    centres : (N, 2) x, y in 0-based pixels of the input.
    sigma : in pixels of the input; the centre map's, so that what this network finds is what the
        pose network is told.

    Returns
    -------
    (1, height, width) float32; where people are close the values add up to 1 at most.
    """
    maps = gaussians(centres, height, width, stride, sigma).sum(0, keepdims=True)
    return np.asarray(np.minimum(maps, 1), np.float32)


def part_maps(
    people: list[tuple[Floats, npt.NDArray[np.bool_]]],
    height: int,
    width: int,
    stride: int,
    sigma: float,
) -> Floats:
    """Belief maps of the parts of some people, and the background.

    Parameters
    ----------
    people : for each, (P, 2) joints and (P,) whether the joint has a peak.

    Returns
    -------
    (P + 1, height, width) float32; the last is ``max(1 - max over parts, 0)``.
    """
    parts = len(people[0][0])
    maps = np.zeros((parts + 1, height, width), np.float32)
    for joints, peaked in people:
        chosen = np.flatnonzero(peaked)
        if chosen.size:
            maps[chosen] += gaussians(joints[chosen], height, width, stride, sigma)
    np.minimum(maps[:parts], 1, out=maps[:parts])
    np.maximum(1 - maps[:parts].max(0), 0, out=maps[parts])
    return maps
