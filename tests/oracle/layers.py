"""Naive numpy references: loops that follow the formulas, one output value at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    group: int,
) -> Array:
    """N×C×H×W cross-correlation."""
    n, _, h, w = x.shape
    o, per, kh, kw = weight.shape
    oh = (h + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((n, o, oh, ow))
    for i in range(n):
        for f in range(o):
            first = f // (o // group) * per
            for y in range(oh):
                for q in range(ow):
                    total = 0.0 if bias is None else bias[f]
                    for ch in range(per):
                        for a in range(kh):
                            for b in range(kw):
                                yy = y * stride[0] - pad[0] + a * dilation[0]
                                xx = q * stride[1] - pad[1] + b * dilation[1]
                                if 0 <= yy < h and 0 <= xx < w:
                                    total += weight[f, ch, a, b] * x[i, first + ch, yy, xx]
                    out[i, f, y, q] = total
    return out


def _pooled(size: int, kernel: int, stride: int, pad: int, padded: bool) -> int:
    out = int(np.ceil((size + 2 * pad - kernel) / stride)) + 1
    if padded and (out - 1) * stride >= size + pad:
        out -= 1
    return out


def pooling(
    x: Array, method: str, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> Array:
    """Caffe's windows: rounded up, clipped; MAX from -FLT_MAX, AVE over the window inside image
    plus padding."""
    n, c, h, w = x.shape
    padded = any(pad)
    oh, ow = (
        _pooled(h, kernel[0], stride[0], pad[0], padded),
        _pooled(w, kernel[1], stride[1], pad[1], padded),
    )
    out = np.zeros((n, c, oh, ow))
    for i in range(n):
        for ch in range(c):
            for y in range(oh):
                for q in range(ow):
                    y0, x0 = y * stride[0] - pad[0], q * stride[1] - pad[1]
                    y1, x1 = min(y0 + kernel[0], h + pad[0]), min(x0 + kernel[1], w + pad[1])
                    area = (y1 - y0) * (x1 - x0)
                    window = x[
                        i, ch, max(y0, 0) : max(min(y1, h), 0), max(x0, 0) : max(min(x1, w), 0)
                    ]
                    if method == "MAX":
                        out[i, ch, y, q] = window.max() if window.size else -3.4028234663852886e38
                    else:
                        out[i, ch, y, q] = window.sum() / area if area else np.nan
    return out


def lrn_across(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """Each value over the sum of squares of its neighbours in channel direction."""
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - size // 2) : c + size // 2 + 1]
        out[:, c] = x[:, c] / (k + alpha / size * (near**2).sum(1)) ** beta
    return out
