"""Naive numpy references of the forks' layers, and of those that BVLC's Caffe got later, from their
published definitions: one value at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def depthwise(x: Array, weight: Array, bias: Array, stride: int, pad: int, dilation: int) -> Array:
    """Each channel with its own filter (C, 1, k, k)."""
    n, c, h, w = x.shape
    k = weight.shape[2]
    oh = (h + 2 * pad - dilation * (k - 1) - 1) // stride + 1
    ow = (w + 2 * pad - dilation * (k - 1) - 1) // stride + 1
    out = np.zeros((n, c, oh, ow))
    for i, ch, y, q in np.ndindex(n, c, oh, ow):
        total = bias[ch]
        for a, b in np.ndindex(k, k):
            yy, xx = y * stride - pad + a * dilation, q * stride - pad + b * dilation
            if 0 <= yy < h and 0 <= xx < w:
                total += weight[ch, 0, a, b] * x[i, ch, yy, xx]
        out[i, ch, y, q] = total
    return out


def permute(x: Array, order: Sequence[int]) -> Array:
    """Axes in another order, the unnamed ones behind in theirs."""
    full = [*order, *(axis for axis in range(x.ndim) if axis not in order)]
    out = np.zeros([x.shape[axis] for axis in full])
    for place in np.ndindex(*out.shape):
        source = [0] * x.ndim
        for axis, index in zip(full, place, strict=True):
            source[axis] = index
        out[place] = x[tuple(source)]
    return out


def normalize(x: Array, scale: Array, across: bool, eps: float) -> Array:
    """L2 norm of each place, or of the whole image."""
    out = np.zeros_like(x)
    for i, c, y, q in np.ndindex(*x.shape):
        values = x[i].ravel() if across else x[i, :, y, q]
        norm = math.sqrt(sum(v * v for v in values) + eps)
        out[i, c, y, q] = x[i, c, y, q] / norm * (scale if scale.ndim == 0 else scale[c])
    return out


def axpy(factor: Array, x: Array, y: Array) -> Array:
    """``a · x + y``."""
    out = np.zeros_like(x)
    for i, c, a, b in np.ndindex(*x.shape):
        out[i, c, a, b] = factor[i, c].item() * x[i, c, a, b] + y[i, c, a, b]
    return out


def swish(x: Array, beta: float) -> Array:
    """Each value by the logistic function of beta times itself."""
    out = np.zeros(x.shape)
    for place, value in np.ndenumerate(x):
        out[place] = value / (1 + math.exp(-beta * value))
    return out


def clip(x: Array, least: float, most: float) -> Array:
    """Each value, or the limit that it is beyond."""
    out = np.zeros(x.shape)
    for place, value in np.ndenumerate(x):
        out[place] = least if value < least else most if value > most else value
    return out


def shuffle(x: Array, group: int) -> Array:
    """Channel j of group g goes to place j · groups + g."""
    out = np.zeros_like(x)
    size = x.shape[1] // group
    for g in range(group):
        for j in range(size):
            out[:, j * group + g] = x[:, g * size + j]
    return out


def unpool(x: Array, mask: Array, height: int, width: int) -> Array:
    """Each value at the place that the mask names."""
    out = np.zeros((*x.shape[:2], height, width))
    for i, c, y, q in np.ndindex(*x.shape):
        place = int(mask[i, c, y, q])
        out[i, c, place // width, place % width] = x[i, c, y, q]
    return out


def nearest(x: Array, tall: int, wide: int) -> Array:
    """Each value fills a rectangle."""
    n, c, h, w = x.shape
    out = np.zeros((n, c, h * tall, w * wide))
    for i, ch, y, q in np.ndindex(*out.shape):
        out[i, ch, y, q] = x[i, ch, y // tall, q // wide]
    return out


def interp(x: Array, height: int, width: int) -> Array:
    """Bilinear, corners on corners."""
    n, c, h, w = x.shape
    out = np.zeros((n, c, height, width))
    for y, q in np.ndindex(height, width):
        sy = y * (h - 1) / (height - 1) if height > 1 else 0.0
        sx = q * (w - 1) / (width - 1) if width > 1 else 0.0
        y0, x0 = int(sy), int(sx)
        y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
        fy, fx = sy - y0, sx - x0
        out[:, :, y, q] = (1 - fy) * ((1 - fx) * x[:, :, y0, x0] + fx * x[:, :, y0, x1]) + fy * (
            (1 - fx) * x[:, :, y1, x0] + fx * x[:, :, y1, x1]
        )
    return out


def reorg(x: Array, stride: int, reverse: bool) -> Array:
    """darknet's loop over the bottom's places, on flat memory."""
    n, c, h, w = x.shape
    out = np.zeros(x.size)
    flat = x.ravel()
    deep = c // (stride * stride)
    for b, k, j, i in np.ndindex(n, c, h, w):
        near = i + w * (j + h * (k + c * b))
        offset = k // deep
        w2, h2 = i * stride + offset % stride, j * stride + offset // stride
        far = w2 + w * stride * (h2 + h * stride * (k % deep + deep * b))
        if reverse:
            out[far] = flat[near]
        else:
            out[near] = flat[far]
    if reverse:
        return out.reshape(n, deep, h * stride, w * stride)
    return out.reshape(n, c * stride * stride, h // stride, w // stride)


def bn(x: Array, blobs: Sequence[Array], eps: float) -> Array:
    """One channel at a time; blobs: scale, shift, mean, variance."""
    scale, shift, mean, variance = (blob.ravel() for blob in blobs)
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        out[:, c] = (x[:, c] - mean[c]) / math.sqrt(variance[c] + eps) * scale[c] + shift[c]
    return out


def smooth_l1(
    a: Array, b: Array, inside: Array | None, outside: Array | None, sigma: float
) -> float:
    """Sum over all values, divided by the first dimension."""
    total = 0.0
    for place in np.ndindex(*a.shape):
        d = float(a[place] - b[place])
        if inside is not None:
            d *= float(inside[place])
        loss = 0.5 * (sigma * d) ** 2 if abs(d) < 1 / sigma**2 else abs(d) - 0.5 / sigma**2
        total += loss * (1.0 if outside is None else float(outside[place]))
    return total / len(a)


def _round(value: float) -> int:
    return int(math.floor(abs(value) + 0.5) * math.copysign(1, value))


def roi_pooling(x: Array, rois: Array, pooled: tuple[int, int], scale: float) -> Array:
    """The maximum of each bin."""
    out = np.zeros((len(rois), x.shape[1], *pooled))
    h, w = x.shape[2:]
    for r, c, i, j in np.ndindex(*out.shape):
        x1, y1, x2, y2 = (_round(v * scale) for v in rois[r, 1:])
        tall, wide = max(y2 - y1 + 1, 1) / pooled[0], max(x2 - x1 + 1, 1) / pooled[1]
        top, bottom = math.floor(i * tall) + y1, math.ceil((i + 1) * tall) + y1
        left, right = math.floor(j * wide) + x1, math.ceil((j + 1) * wide) + x1
        window = x[
            int(rois[r, 0]),
            c,
            min(max(top, 0), h) : min(max(bottom, 0), h),
            min(max(left, 0), w) : min(max(right, 0), w),
        ]
        out[r, c, i, j] = window.max() if window.size else 0.0
    return out


def psroi_pooling(x: Array, rois: Array, depth: int, group: int, scale: float) -> Array:
    """The mean of each bin in the channel that belongs to it."""
    out = np.zeros((len(rois), depth, group, group))
    h, w = x.shape[2:]
    for r, d, i, j in np.ndindex(*out.shape):
        x1, y1 = (_round(v) * scale for v in rois[r, 1:3])
        x2, y2 = ((_round(v) + 1) * scale for v in rois[r, 3:5])
        tall, wide = max(y2 - y1, 0.1) / group, max(x2 - x1, 0.1) / group
        top, bottom = math.floor(i * tall + y1), math.ceil((i + 1) * tall + y1)
        left, right = math.floor(j * wide + x1), math.ceil((j + 1) * wide + x1)
        window = x[
            int(rois[r, 0]),
            (d * group + i) * group + j,
            min(max(top, 0), h) : min(max(bottom, 0), h),
            min(max(left, 0), w) : min(max(right, 0), w),
        ]
        out[r, d, i, j] = window.mean() if window.size else 0.0
    return out


def prior_boxes(
    place: tuple[int, int],
    image: tuple[int, int],
    sizes: Sequence[tuple[float, float | None]],
    ratios: Sequence[float],
    offset: float,
) -> Array:
    """Boxes of every place; ``ratios`` without 1, inverses spelled out; one step per place."""
    rows = []
    for y in range(place[0]):
        for x in range(place[1]):
            cy, cx = (y + offset) * image[0] / place[0], (x + offset) * image[1] / place[1]
            for small, large in sizes:
                shapes = [(int(small), int(small))]
                if large is not None:
                    shapes.append((math.sqrt(int(small) * int(large)),) * 2)  # type: ignore[arg-type]
                shapes += [(int(small) / math.sqrt(r), int(small) * math.sqrt(r)) for r in ratios]  # type: ignore[misc]
                for tall, wide in shapes:
                    rows.append(
                        [
                            (cx - wide / 2) / image[1],
                            (cy - tall / 2) / image[0],
                            (cx + wide / 2) / image[1],
                            (cy + tall / 2) / image[0],
                        ]
                    )
    return np.array(rows).ravel()


def detections(
    boxes: Array, scores: Array, background: int, least: float, threshold: float, keep: int
) -> list[tuple[int, float, int]]:
    """(label, score, index) of one image from decoded boxes (P×4) and scores (P×classes)."""
    found: list[tuple[int, float, int]] = []
    for label in range(scores.shape[1]):
        if label == background:
            continue
        order = sorted(
            (i for i in range(len(boxes)) if scores[i, label] > least),
            key=lambda i: -scores[i, label],
        )
        kept: list[int] = []
        for i in order:
            if all(_overlap(boxes[i], boxes[j]) <= threshold for j in kept):
                kept.append(i)
        found += [(label, float(scores[i, label]), i) for i in kept]
    if keep >= 0:
        found = sorted(sorted(found, key=lambda row: -row[1])[:keep], key=lambda row: row[0])
    return found


def _overlap(a: Array, b: Array) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    tall = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    common = wide * tall
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))
