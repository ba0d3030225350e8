"""What a convolution costs in each way: the cost model that the plan chooses by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from caffe_compat.engine.lines import LineTiling
from caffe_compat.engine.minimal import SIDE, Filtering
from caffe_compat.engine.rates import Rates
from caffe_compat.engine.tiled import Tiling

Way = Tiling | LineTiling | Filtering
_CALLS = 2e-4  # seconds of a dozen operations for one


@dataclass(frozen=True)
class ConvolutionShape:
    """A convolution's shapes, as the plan sees them.

    Attributes
    ----------
    weight : (O, I / group, kh, kw).
    size : (H, W) of the input.
    stride, pad, dilation : one number for each spatial axis.
    group : number of groups.
    """

    weight: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    group: int

    def unfit(self) -> str:
        """Why it cannot run in another way than the direct one; "" if it can."""
        if len(self.size) != 2:
            return "not two spatial axes"
        if any(s != 1 for s in self.stride):
            return f"stride {'x'.join(map(str, self.stride))}"
        if any(d != 1 for d in self.dilation):
            return "dilation"
        if self.group != 1:
            return f"{self.group} groups"
        if max(self.weight[2:]) == 1:
            return "kernel 1: a plain product"
        return ""

    def tiling(self, side: int) -> Tiling:
        """The tiling of this convolution with input tiles of a side."""
        return Tiling(
            side, cast("tuple[int, int]", self.weight[2:]), cast("tuple[int, int]", self.pad)
        )

    def lines(self, n: int) -> LineTiling:
        """The rows of this convolution in pieces of so many input pixels."""
        return LineTiling(
            n, cast("tuple[int, int]", self.weight[2:]), cast("tuple[int, int]", self.pad)
        )

    def filtering(self, rates: Rates) -> Filtering:
        """Tiles of minimal filtering for it, the channels mixed in the faster way."""
        return Filtering(
            cast("tuple[int, int]", self.weight[2:]),
            cast("tuple[int, int]", self.pad),
            rates.groups > rates.products,
        )


def direct_seconds(conv: ConvolutionShape, rates: Rates) -> float:
    """Estimated time of torch's convolution of one image."""
    out = [s + 2 * p - k + 1 for s, p, k in zip(conv.size, conv.pad, conv.weight[2:], strict=True)]
    operations = (
        2.0 * conv.weight[0] * conv.weight[1] * conv.weight[2] * conv.weight[3] * out[0] * out[1]
    )
    return operations / (rates.direct if conv.weight[1] >= 16 else rates.direct_narrow)


def seconds_of(conv: ConvolutionShape, way: Way, rates: Rates) -> float:
    """Estimated time of another way for one image, with the kernel's transform at hand."""
    if isinstance(way, Tiling):
        return _tiled(conv, way, rates)
    return _lines(conv, way, rates) if isinstance(way, LineTiling) else _minimal(conv, way, rates)


def _tiled(conv: ConvolutionShape, tiling: Tiling, rates: Rates) -> float:
    outputs, inputs = conv.weight[:2]
    n, h, (mh, mw), (kh, kw) = tiling.n, tiling.half, tiling.step, tiling.kernel
    th, tw = tiling.tiles((conv.size[0], conv.size[1]))
    tiles, high, wide = th * tw, th * mh + kh - 1, tw * mw + kw - 1
    lines = 4.0 * n * h * inputs * high * tw + 4.0 * mw * h * outputs * th * mh * tw
    columns = 8.0 * n * n * h * inputs * tiles + 16.0 * n * mh * h * outputs * tiles
    mix = 8.0 * tiling.frequencies * inputs * outputs * tiles
    if tiling.frequencies % 32 == 0:
        # tiles whose addresses differ by large powers of two fight for the same cache lines
        mix *= 1.6
    copied = 8.0 * (high * wide * inputs + th * mh * tw * mw * outputs)
    return (
        _CALLS
        + lines / rates.lines
        + columns / rates.columns
        + mix / rates.mix
        + tiling.kernel_bytes(outputs, inputs) / rates.kernel_bytes
        + copied / rates.copy
    )


def _lines(conv: ConvolutionShape, way: LineTiling, rates: Rates) -> float:
    outputs, inputs = conv.weight[:2]
    n, h, m, kh = way.n, way.half, way.step, way.kernel[0]
    size = conv.size[0], conv.size[1]
    pieces, rows = way.pieces(size), way.output(size)[0]
    places, column = rows * pieces, 2 * kh * inputs
    lines = 4.0 * n * h * (rows + kh - 1) * inputs * pieces + 4.0 * m * h * outputs * places
    mix = 4.0 * h * column * outputs * places
    copied = 8.0 * h * column * places
    return (
        _CALLS
        + lines / rates.lines
        + mix / rates.products
        + way.kernel_bytes(outputs, inputs) / rates.kernel_bytes
        + copied / rates.copy
    )


def _minimal(conv: ConvolutionShape, way: Filtering, rates: Rates) -> float:
    outputs, inputs = conv.weight[:2]
    (mh, mw), kw = way.step, way.kernel[1]
    th, tw = way.tiles((conv.size[0], conv.size[1]))
    tiles = th * (tw + -(-(kw - 1) // mw))
    # two products a side: rows of a band, then columns of each tile; and back
    each = 2.0 * SIDE * (SIDE * mw * inputs + SIDE * SIDE * inputs)
    each += 2.0 * SIDE * (SIDE * mw * outputs + mh * mw * outputs)
    mix = 2.0 * SIDE * SIDE * inputs * outputs * tiles
    copied = 8.0 * tiles * mh * mw * (inputs + outputs)
    return (
        _CALLS
        + each * tiles / rates.thin
        + mix / (rates.groups if way.grouped else rates.products)
        + way.kernel_bytes(outputs, inputs) / rates.kernel_bytes
        + copied / (2 * rates.copy)
    )
