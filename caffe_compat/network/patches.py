"""Images that differ from a known one in a rectangle only: large maps are computed in that
rectangle's reach.

The test protocol puts a scaled photograph into a grey box; outside of what a convolution sees of
the photograph, its map is that of the empty box, which hangs on the weights alone. Here that map is
computed once and kept; of each image only the rectangle that differs goes through the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caffe_compat.engine import plan
from caffe_compat.engine.fingerprint import Fingerprint, fingerprints
from caffe_compat.layers.arrange import Slice
from caffe_compat.layers.convolution import Convolution
from caffe_compat.layers.pooling import Pooling
from caffe_compat.network.fuse import PooledConvolution
from caffe_compat.network.graph import Node

# first row, first column, row after the last, column after the last
Rect = tuple[int, int, int, int]
_WORTH = 0.8  # rectangles with a larger share of the map are not cut out


@dataclass
class Background:
    """The known image and its maps.

    Attributes
    ----------
    data : (1, C, H, W) the known input.
    maps : its blobs, filled as they are needed.
    made_with : fingerprints of the weights that the maps were made with.
    """

    data: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)
    made_with: list[Fingerprint] = field(default_factory=list)

    def check(self, weights: Sequence[Tensor]) -> None:
        """Forget the maps if the weights changed."""
        found = fingerprints(weights)
        if found != self.made_with:
            self.maps, self.made_with = {}, found


@dataclass
class Patch:
    """A blob of one image.

    Attributes
    ----------
    active : (1, C, h, w) what lies in ``rect``.
    background : (1, C, H, W) what lies outside.
    """

    active: Tensor
    rect: Rect
    background: Tensor

    def whole(self) -> Tensor:
        """The whole blob: the background with the rectangle put into it."""
        out = self.background.clone(memory_format=torch.channels_last)
        top, left, bottom, right = self.rect
        out[:, :, top:bottom, left:right] = self.active
        return out

    def window(self, rect: Rect) -> Tensor:
        """A rectangle of the blob, which may reach over its border: 0 there."""
        top, left, bottom, right = rect
        height, width = self.background.shape[2:]
        shape = (1, self.background.shape[1], bottom - top, right - left)
        out = self.background.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        whole = (0, 0, height, width)
        for source, place in ((self.background, whole), (self.active, self.rect)):
            rows = max(top, place[0]), min(bottom, place[2])
            columns = max(left, place[1]), min(right, place[3])
            if rows[0] < rows[1] and columns[0] < columns[1]:
                seen = source[:, :, _from(rows, place[0]), _from(columns, place[1])]
                out[:, :, _from(rows, top), _from(columns, left)] = seen
        return out


def _from(span: tuple[int, int], first: int) -> slice:
    """A span of rows or columns, counted from another first one."""
    return slice(span[0] - first, span[1] - first)


def start(data: Tensor, rect: Rect, background: Background) -> Patch | None:
    """An image as a patch; None where the rectangle is empty or so large that it is not worth
    it."""
    height, width = data.shape[2:]
    area = max(0, rect[2] - rect[0]) * max(0, rect[3] - rect[1])
    if background.data.shape[1:] != data.shape[1:] or not 0 < area < _WORTH * height * width:
        return None
    return Patch(data[:, :, rect[0] : rect[2], rect[1] : rect[3]], rect, background.data)


def cut(node: Node, patch: Patch) -> dict[str, Patch] | None:
    """The tops of a Slice along the channels; None for other layers."""
    if type(node.layer) is not Slice or not node.layer.separable([tuple(patch.background.shape)]):
        return None
    active, background = (
        node.layer.forward([], patch.active),
        node.layer.forward([], patch.background),
    )
    if active[0].shape[1] == patch.active.shape[1]:
        return None  # cut along another axis
    return {
        name: Patch(a, patch.rect, b)
        for name, a, b in zip(node.tops, active, background, strict=True)
    }


def _reach(
    first: int, last: int, kernel: int, pad: int, size: int, pool: int, stride: int, pooled: int
) -> tuple[int, int]:
    """Pooled positions (from, to) that see any of the input positions first..last-1."""
    begin, end = max(0, first + pad - kernel + 1), min(size, last + pad)
    return max(0, -(-(begin - pool + 1) // stride)), min(pooled, (end - 1) // stride + 1)


def step(
    fused: PooledConvolution, patch: Patch, params: Sequence[Tensor], known: Background
) -> Patch:
    """Convolution, ReLU and pooling of a patch."""
    layer, pool = fused.conv.layer, fused.pool.layer
    assert isinstance(layer, Convolution)
    assert isinstance(pool, Pooling)
    shape = tuple(patch.background.shape)
    (kh, kw), _, (ph, pw), _ = layer.windows(shape)
    size = layer.output_shapes([shape])[0][2:]
    pooled = pool.output_shapes([layer.output_shapes([shape])[0]])[0][2:]
    name = fused.pool.tops[0]
    if name not in known.maps:
        known.maps[name] = fused.run({fused.conv.bottoms[0]: patch.background}, params)
    k, s = pool.kernel[0], pool.stride[0]
    top, bottom = _reach(patch.rect[0], patch.rect[2], kh, ph, size[0], k, s, pooled[0])
    left, right = _reach(patch.rect[1], patch.rect[3], kw, pw, size[1], k, s, pooled[1])
    rows = top * s, min(size[0], (bottom - 1) * s + k)
    columns = left * s, min(size[1], (right - 1) * s + k)
    # the convolution's pixel y sees the input's y - pad ... y - pad + kernel - 1
    seen = patch.window(
        (rows[0] - ph, columns[0] - pw, rows[1] - ph + kh - 1, columns[1] - pw + kw - 1)
    )
    bias = params[1] if len(params) > 1 else None
    active = plan.convolve_pooled(seen, params[0], bias, (0, 0), k, s, (bottom - top, right - left))
    return Patch(active, (top, left, bottom, right), known.maps[name])
