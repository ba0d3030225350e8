"""Convolution with large kernels on overlapping tiles in the frequency domain, every step a matrix
product.

A tile of n×n input pixels gives m×m output pixels, m = n - k + 1. Its discrete Fourier transform is
two products with small constant matrices, one per axis; per frequency the channels are mixed by a
product of (tiles × I) with (I × O); two more products bring the m valid pixels back. Nothing is
transposed in memory: tiles lie as (tile, re/im, frequency, channel), and the channel mixing of all
frequencies is a grouped 1×1 convolution on that layout.

With A = Ar + i Ai the tile's transform and W = Wr + i Wi the kernel's (conjugated: Caffe
correlates), the product has the rows (Ar, Ai) Wr + (-Ai, Ar) Wi: the second pair of rows comes from
a second constant matrix, and both products add into one buffer.

The kernel's stride and dilation are 1 here; the plan in :mod:`caffe_compat.engine.plan` sends
others elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe_compat.engine.buffers import PACK, as_image, maps_like, scratch
from caffe_compat.engine.cuts import TileCut
from caffe_compat.engine.threads import for_each, sharing

# The frequencies along the width from the first one to before the last one.
Block = tuple[int, int]
# floats of tiles' transforms that are worked on at once: more leaves the last-level cache
BLOCK = 40_000_000


@dataclass(frozen=True)
class Tiling(TileCut):
    """How an output of a size is cut.

    Attributes
    ----------
    n : side of an input tile.
    kernel : (kh, kw).
    pad : (ph, pw).
    """

    n: int
    kernel: tuple[int, int]
    pad: tuple[int, int]

    @property
    def step(self) -> tuple[int, int]:
        """Height and width of what one tile gives, in output pixels."""
        return self.n - self.kernel[0] + 1, self.n - self.kernel[1] + 1

    @property
    def half(self) -> int:
        """Frequencies along the width: a real signal's other half is its mirror image."""
        return self.n // 2 + 1

    @property
    def all(self) -> Block:
        """All frequencies along the width."""
        return 0, self.half

    def blocks(self) -> list[Block]:
        """The frequencies along the width, in a block for each thread.

        On many cores the blocks would be too thin; torch then shares out each product by itself.
        """
        count = min(torch.get_num_threads(), self.half) if sharing() else 1
        edges = [self.half * i // count for i in range(count + 1)]
        return list(pairwise(edges))

    @property
    def frequencies(self) -> int:
        """How many frequencies a tile has."""
        return self.n * self.half

    def kernel_bytes(self, outputs: int, inputs: int) -> int:
        """Memory of a transformed kernel in float32."""
        return 8 * self.frequencies * outputs * inputs

    def prepare(self, weight: Tensor) -> Kernel:
        """The transform of a kernel (O, I, kh, kw)."""
        return Kernel(weight, self)


@dataclass(frozen=True)
class _Matrices:
    """The constant matrices of a block of h frequencies along the width."""

    row: Tensor  # (2h, n): width to re and im of h frequencies
    column: Tensor  # (2n, 2n): (row, re/im) to (re/im, frequency)
    turned: Tensor  # (2n, 2n): the same to (-im/re, frequency)
    upright: Tensor  # (2mh, 2n): back to (row, re/im)
    back: Tensor  # (mw, 2h)


@lru_cache(maxsize=256)
def _matrices(tiling: Tiling, dtype: torch.dtype, block: Block) -> _Matrices:
    n, (mh, mw) = tiling.n, tiling.step
    place = torch.arange(n, dtype=torch.float64)
    across = place[slice(*block)]

    def angle(a: Tensor, b: Tensor) -> Tensor:
        # the product modulo n first: whole turns would cost digits
        return 2 * math.pi * torch.remainder(a[:, None] * b[None], n) / n

    t = angle(across, place)
    row = torch.cat([t.cos(), -t.sin()])
    t = angle(place, place)
    c, s = t.cos(), t.sin()
    # re' = re cos + im sin, im' = im cos - re sin, inputs interleaved by row
    column = torch.stack([torch.stack([c, s], 2), torch.stack([-s, c], 2)]).reshape(2 * n, 2 * n)
    turned = torch.cat([-column[n:], column[:n]])
    t = angle(place[:mh], place)
    c, s = t.cos() / n, t.sin() / n
    upright = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1).reshape(
        2 * mh, 2 * n
    )
    t = angle(place[:mw], across)
    weight = _weights(tiling, torch.float64)[slice(*block)]
    back = torch.cat([t.cos() * weight, -t.sin() * weight], 1) / n
    return _Matrices(*(m.to(dtype).contiguous() for m in (row, column, turned, upright, back)))


def _weights(tiling: Tiling, dtype: torch.dtype) -> Tensor:
    """(h,): how often each frequency along the width counts, with its mirror image."""
    weight = torch.full((tiling.half,), 2.0, dtype=dtype)
    weight[0] = 1
    if tiling.n % 2 == 0:
        weight[-1] = 1
    return weight


@lru_cache(maxsize=64)
def _kernel_matrix(tiling: Tiling, dtype: torch.dtype) -> Tensor:
    """(2F, kh·kw): real and imaginary parts of every frequency's conjugated transform."""
    (kh, kw), n, h = tiling.kernel, tiling.n, tiling.half
    y, x = torch.arange(kh, dtype=torch.float64), torch.arange(kw, dtype=torch.float64)
    fy, fx = torch.arange(n, dtype=torch.float64), torch.arange(h, dtype=torch.float64)
    turns = torch.remainder(fy[:, None, None, None] * y[:, None] + fx[:, None, None] * x, n)
    angle = (2 * math.pi * turns / n).reshape(n * h, kh * kw)
    return torch.cat([angle.cos(), angle.sin()]).to(dtype)


class Kernel:
    """A kernel's transform, ready for :func:`convolve`.

    Parameters
    ----------
    weight : (O, I, kh, kw), on the CPU.
    tiling : how the tiles are cut.
    """

    def __init__(self, weight: Tensor, tiling: Tiling) -> None:
        self.tiling = tiling
        self.outputs, self.inputs = weight.shape[:2]
        taps = weight.detach().permute(2, 3, 0, 1).reshape(weight.shape[2] * weight.shape[3], -1)
        both = torch.mm(_kernel_matrix(tiling, weight.dtype), taps)
        parts = both.view(2, tiling.n, tiling.half, self.outputs, self.inputs)
        self.packed = PACK is not None and weight.dtype == torch.float32
        blocks = tiling.blocks()
        made: list[Any] = [None] * len(blocks)

        def ready(i: int) -> None:
            made[i] = [self._ready(part[:, slice(*blocks[i])]) for part in parts]

        # on the threads that will use them: oneDNN's layouts hang on the number of cores
        for_each(range(len(blocks)), ready)
        self.blocks: dict[Block, list[Any]] = dict(zip(blocks, made, strict=True))

    @property
    def bytes(self) -> int:
        """Memory of the transform."""
        return self.tiling.kernel_bytes(self.outputs, self.inputs)

    def _ready(self, part: Tensor) -> Any:
        """The real or the imaginary part of a block (n, h, O, I), as the mixing takes it."""
        part = part.reshape(-1, self.outputs, self.inputs)
        frequencies = len(part)
        if self.packed:
            shape = [1, frequencies * self.inputs, 1, 32]
            return PACK(
                part.reshape(-1, self.inputs, 1, 1), [0, 0], [1, 1], [1, 1], frequencies, shape
            )
        return part.transpose(1, 2).contiguous()

    def mix(self, block: Block, plain: Tensor, turned: Tensor, out: Tensor) -> None:
        """``plain`` times Wr plus ``turned`` times Wi per frequency: (rows, F·I) to (rows, F·O)."""
        rows, frequencies = len(plain), self.tiling.n * (block[1] - block[0])
        if self.packed:
            out.zero_()
            for x, part in zip((plain, turned), self.blocks[block], strict=True):
                torch.ops.mkldnn._convolution_pointwise_(
                    as_image(out),
                    as_image(x),
                    part,
                    None,
                    [0, 0],
                    [1, 1],
                    [1, 1],
                    frequencies,
                    "add",
                    1.0,
                    None,
                    [],
                    None,
                )
            return
        target = out.view(rows, frequencies, self.outputs).transpose(0, 1)
        for beta, (x, part) in enumerate(zip((plain, turned), self.blocks[block], strict=True)):
            torch.baddbmm(
                target,
                x.view(rows, frequencies, self.inputs).transpose(0, 1),
                part,
                beta=beta,
                out=target,
            )

    def convolve(self, x: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
        """Correlate N×I×H×W; returns N×O×H'×W', channels last in memory. Records no gradient.

        Parameters
        ----------
        relu : cut off what is below 0.
        """
        tiling = self.tiling
        th, tw = tiling.tiles((x.shape[2], x.shape[3]))
        made = maps_like(x, self.outputs, *tiling.output((x.shape[2], x.shape[3])))
        out = made.permute(0, 2, 3, 1)
        # as many images at once as stay in the cache: one for large maps, several share the
        # kernel's transform for small ones
        each = th * tw * 2 * tiling.frequencies * (2 * self.inputs + self.outputs)
        count = max(1, BLOCK // each)
        with torch.no_grad():
            for i in range(0, len(x), count):
                self._convolve(x.detach()[i : i + count], bias, out[i : i + count], relu)
        return made

    def _convolve(self, x: Tensor, bias: Tensor | None, out: Tensor, relu: bool) -> None:
        """Some images at once, each block of frequencies on a thread of its own.

        A block gives its part of every output pixel; the parts are added at the end.
        """
        blocks = list(self.blocks)
        parts = [self._pixels(x.shape, x.dtype, f"pixels {i}") for i in range(len(blocks))]

        def work(i: int) -> None:
            self._block(x, blocks[i], bias if i == 0 else None, parts[i])

        def add(j: int) -> None:
            left = j * parts[0].shape[3]
            target = out[:, :, left : left + parts[0].shape[3]]
            shown = [part[j, :, : target.shape[1], : target.shape[2]] for part in parts]
            whole = reduce(Tensor.add_, shown)
            if relu:
                torch.clamp_min(whole, 0, out=target)
            else:
                target.copy_(whole)

        for_each(range(len(blocks)), work)
        for_each(range(parts[0].shape[0]), add)

    def _pixels(self, shape: torch.Size, dtype: torch.dtype, name: str) -> Tensor:
        """A buffer for the pixels of all tiles: (tiles across, N, height of all tiles, mw, O)."""
        (mh, mw), (th, tw) = self.tiling.step, self.tiling.tiles((shape[2], shape[3]))
        return scratch.take(name, (tw, shape[0], th * mh, mw, self.outputs), dtype)

    def _block(self, x: Tensor, block: Block, bias: Tensor | None, pixels: Tensor) -> None:
        """What a block of frequencies adds to each pixel."""
        tiling, outputs = self.tiling, self.outputs
        batch, _, height, width = x.shape
        n, h = tiling.n, block[1] - block[0]
        (mh, mw), (kh, kw), (ph, pw) = tiling.step, tiling.kernel, tiling.pad
        th, tw = tiling.tiles((height, width))
        high, wide = th * mh + kh - 1, tw * mw + kw - 1
        m = _matrices(tiling, x.dtype, block)
        pads = (pw, wide - pw - width, ph, high - ph - height)
        columns = (("plain", m.column), ("turned", m.turned))
        plain, turned = _transform(x, tiling, block, high, pads, columns)
        count = tw * batch * th
        mixed = scratch.take("mixed", (count, 2 * n, h * outputs), x.dtype)
        rows = 2 * count
        self.mix(block, plain.view(rows, -1), turned.view(rows, -1), mixed.view(rows, -1))
        if bias is not None:  # a constant is the lowest frequency
            mixed.view(count, 2, n * h, outputs)[:, 0, 0] += bias * (n * n)
        found = scratch.take("found", (count, 2 * mh, h * outputs), x.dtype)
        torch.bmm(m.upright.expand(count, -1, -1), mixed, out=found)
        back = m.back.expand(count * mh, -1, -1)
        lines = found.view(count * mh, 2 * h, outputs)
        torch.bmm(back, lines, out=pixels.view(count * mh, mw, outputs))


def _transform(
    x: Tensor,
    tiling: Tiling,
    block: Block,
    high: int,
    pads: tuple[int, int, int, int],
    columns: tuple[tuple[str, Tensor], ...],
) -> list[Tensor]:
    """Tiles' transforms of N×C×H×W padded to ``high`` rows (left, right, up, down).

    Returns
    -------
    For each (name of the buffer, column matrix): (tiles across, N, tiles down, 2n, h·C).
    """
    batch, channels = x.shape[:2]
    n, h, (mh, mw) = tiling.n, block[1] - block[0], tiling.step
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *pads))
    th, tw = (high - tiling.kernel[0] + 1) // mh, (padded.shape[2] - tiling.kernel[1] + 1) // mw
    lines = padded.reshape(batch * high, padded.shape[2], channels)
    found = [
        scratch.take(name, (tw, batch, th, 2 * n, h * channels), x.dtype) for name, _ in columns
    ]
    rows = scratch.take("rows", (batch * high, 2 * h, channels), x.dtype)
    row = _matrices(tiling, x.dtype, block).row.expand(batch * high, -1, -1)
    for j in range(tw):
        torch.bmm(row, lines[:, j * mw : j * mw + n], out=rows)
        for b in range(batch):
            # the rows of a tile, re and im of each, lie one after the other; tiles overlap
            size, steps = (th, 2 * n, h * channels), (mh * 2 * h * channels, h * channels, 1)
            over = rows.as_strided(size, steps, b * high * 2 * h * channels)
            for out, (_, column) in zip(found, columns, strict=True):
                torch.bmm(column.expand(th, -1, -1), over, out=out[j, b])
    return found


def kernel_gradient(x: Tensor, gradient: Tensor, tiling: Tiling) -> Tensor:
    """Gradient (O, I, kh, kw) of a convolution's kernel.

    The gradient's tiles (m×m, zeros around) are correlated with the input's: per frequency a
    product over all tiles, and only the kernel's own pixels are brought back.

    Parameters
    ----------
    x : (N, I, H, W) the convolution's input.
    gradient : (N, O, H', W') of its output.
    """
    inputs, outputs = x.shape[1], gradient.shape[1]
    th, tw = tiling.tiles((x.shape[2], x.shape[3]))
    per_image = th * tw * 2 * tiling.frequencies * (inputs + 2 * outputs)
    count = max(1, BLOCK // per_image)
    both = x.new_zeros(2, tiling.frequencies, outputs, inputs)
    for part, grad in zip(torch.split(x, count), torch.split(gradient, count), strict=True):
        _add_kernel_gradient(both, part, grad, tiling)
    # the inverse at the kernel's pixels: the transposed matrix of the kernel's transform, each
    # frequency with its mirror image
    n, h = tiling.n, tiling.half
    weight = _weights(tiling, x.dtype) / (n * n)
    matrix = _kernel_matrix(tiling, x.dtype).view(2, n, h, -1) * weight[:, None]
    matrix[1] *= -1  # the stored matrix is the conjugated transform's
    taps = torch.mm(matrix.reshape(2 * n * h, -1).t(), both.view(2 * n * h, -1))
    return taps.view(*tiling.kernel, outputs, inputs).permute(2, 3, 0, 1)


def _add_kernel_gradient(both: Tensor, x: Tensor, gradient: Tensor, tiling: Tiling) -> None:
    height, width = x.shape[2:]
    inputs, outputs = x.shape[1], gradient.shape[1]
    n, (mh, mw), (kh, kw), (ph, pw) = tiling.n, tiling.step, tiling.kernel, tiling.pad
    th, tw = tiling.tiles((height, width))
    high, wide = th * mh + kh - 1, tw * mw + kw - 1
    rows = 2 * th * tw * len(x)
    frequencies = tiling.frequencies

    def view(transforms: Tensor, channels: int) -> Tensor:
        return transforms.view(rows, frequencies, channels).transpose(0, 1)

    # tiles of the gradient do not overlap: m×m pixels, then zeros
    cut = F.pad(
        gradient.permute(0, 2, 3, 1),
        (0, 0, 0, tw * mw - gradient.shape[3], 0, th * mh - gradient.shape[2]),
    )
    apart = cut.new_zeros(len(x), th, n, tw, n, outputs)
    apart[:, :, :mh, :, :mw] = cut.view(len(x), th, mh, tw, mw, outputs)
    m = _matrices(tiling, x.dtype, tiling.all)
    (seen,) = _transform(
        x,
        tiling,
        tiling.all,
        high,
        (pw, wide - pw - width, ph, high - ph - height),
        (("plain", m.column),),
    )
    # re and im of conj(G) X: rows (G_re, G_im) and (-G_im, G_re) against (X_re, X_im)
    image = apart.view(len(x), th * n, tw * n, outputs).permute(0, 3, 1, 2)
    columns = (("gradient", m.column), ("turned gradient", m.turned))
    for part, mine in enumerate(
        _transform(image, Tiling(n, (1, 1), (0, 0)), tiling.all, th * n, (0, 0, 0, 0), columns)
    ):
        both[part].baddbmm_(view(mine, outputs).transpose(1, 2), view(seen, inputs))
