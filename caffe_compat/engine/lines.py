"""Convolution of few channels with large kernels: in the frequency domain along the rows only.

A piece of n pixels of a row gives m pixels of the output's row, m = n - k + 1. Its discrete Fourier
transform is a product with a small constant matrix; for each frequency the kernel's rows and the
channels together are one matrix, so that the column of pixels above and below is part of the same
product; another product brings the m valid pixels back.

On tiles (:mod:`caffe_compat.engine.tiled`) the way back is two products for each output channel,
and with three input channels, as in a network's first layer, that is more work than the
convolution itself. Here it is one.

With A = Ar + i Ai the transform of a piece and W = Wr + i Wi the kernel's (conjugated: Caffe
correlates), the product's real part is (Ar, Ai)(Wr, -Wi) and its imaginary part (Ar, Ai)(Wi, Wr).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe_compat.engine.buffers import maps_like, scratch
from caffe_compat.engine.cuts import Cut
from caffe_compat.engine.threads import bands, for_each


@dataclass(frozen=True)
class LineTiling(Cut):
    """How an output's rows are cut.

    Attributes
    ----------
    n : input pixels of a piece.
    kernel : (kh, kw).
    pad : (ph, pw).
    """

    n: int
    kernel: tuple[int, int]
    pad: tuple[int, int]

    @property
    def step(self) -> int:
        """Output pixels of a piece."""
        return self.n - self.kernel[1] + 1

    @property
    def half(self) -> int:
        """Frequencies: a real signal's other half is its mirror image."""
        return self.n // 2 + 1

    def pieces(self, size: tuple[int, int]) -> int:
        """Pieces of a row for an input size."""
        return -(-self.output(size)[1] // self.step)

    def kernel_bytes(self, outputs: int, inputs: int) -> int:
        """Memory of a transformed kernel in float32."""
        return 16 * self.half * self.kernel[0] * outputs * inputs

    def prepare(self, weight: Tensor) -> LineKernel:
        """The transform of a kernel (O, I, kh, kw)."""
        return LineKernel(weight, self)


@lru_cache(maxsize=64)
def _matrices(way: LineTiling, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(2h, n): a piece's transform, real parts first; (m, 2h): the way back."""
    n, h = way.n, way.half
    # the product modulo n first: whole turns would cost digits
    turns = torch.remainder(torch.arange(h)[:, None] * torch.arange(n), n)
    angle = 2 * math.pi * turns.double() / n
    there = torch.cat([angle.cos(), -angle.sin()])
    count = torch.full((h,), 2.0, dtype=torch.float64)  # each frequency with its mirror image
    count[0] = 1
    if n % 2 == 0:
        count[-1] = 1
    back = (there * torch.cat([count, count])[:, None] / n).t()[: way.step]
    return there.to(dtype).contiguous(), back.to(dtype).contiguous()


class LineKernel:
    """A kernel's transform, ready for use.

    Parameters
    ----------
    weight : (O, I, kh, kw), on the CPU.
    tiling : how the rows are cut.
    """

    def __init__(self, weight: Tensor, tiling: LineTiling) -> None:
        self.tiling = tiling
        self.outputs, self.inputs = weight.shape[:2]
        there, _ = _matrices(tiling, torch.float64)
        taps = there[:, : tiling.kernel[1]]
        both = torch.einsum("fx,oiyx->fyio", taps, weight.detach().double())
        real, imaginary = both.reshape(2, tiling.half, -1, self.outputs)
        # 'there' holds the transform, its conjugate is wanted: the sign of the imaginary part turns
        parts = torch.cat([real, imaginary], 1), torch.cat([-imaginary, real], 1)
        self._parts = [part.to(weight.dtype).contiguous() for part in parts]

    @property
    def bytes(self) -> int:
        """Memory of the transform."""
        return self.tiling.kernel_bytes(self.outputs, self.inputs)

    def convolve(self, x: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
        """Correlate N×I×H×W; returns N×O×H'×W', channels last in memory. Records no gradient.

        Parameters
        ----------
        relu : cut off what is below 0.
        """
        high, wide = self.tiling.output((x.shape[2], x.shape[3]))
        made = maps_like(x, self.outputs, high, wide)
        out = made.permute(0, 2, 3, 1)

        def keep(image: int, first: int, found: Tensor) -> None:
            target = out[image, first : first + len(found)]
            if relu:
                torch.clamp_min(found, 0, out=target)
            else:
                target.copy_(found)

        self.each_band(x, bias, self.bands(high, wide), keep)
        return made

    def bands(self, high: int, wide: int, stride: int = 1) -> list[tuple[int, int]]:
        """Rows from the first one to before the last one of bands that stay in a core's cache, at
        least one for each core.

        Parameters
        ----------
        high : all rows.
        wide : width of the output.
        stride : the output's rows that one of these rows stands for.
        """
        pieces = -(-wide // self.tiling.step)
        each = 2 * self.tiling.half * pieces * self.outputs * stride
        return bands(high, each)

    def each_band(
        self,
        x: Tensor,
        bias: Tensor | None,
        bands: list[tuple[int, int]],
        keep: Callable[[int, int, Tensor], None],
    ) -> None:
        """Make the output in bands of rows, on several threads.

        Parameters
        ----------
        bands : rows from the first one to before the last one; they may overlap.
        keep : is given image, first row and the rows (rows, W', O), which hold until it returns.
        """
        transforms = [self._transform(image) for image in x.detach().permute(0, 3, 2, 1)]
        wide = self.tiling.output((x.shape[2], x.shape[3]))[1]

        def work(piece: tuple[int, int, int]) -> None:
            image, first, last = piece
            keep(image, first, self._rows(transforms[image], first, last, wide, bias))

        for_each([(i, *band) for i in range(len(x)) for band in bands], work)

    def _transform(self, image: Tensor) -> Tensor:
        """(pieces, 2h, H + 2 ph, I): the transforms of an image (W, H, I)."""
        way = self.tiling
        wide, high, inputs = image.shape
        kw, (ph, pw) = way.kernel[1], way.pad
        pieces = way.pieces((high, wide))
        width = pieces * way.step + kw - 1
        padded = F.pad(image, (0, 0, ph, ph, pw, max(0, width - pw - wide)))[:width].contiguous()
        line = padded.shape[1] * inputs
        windows = padded.as_strided((pieces, way.n, line), (way.step * line, line, 1))
        there, _ = _matrices(way, image.dtype)
        found = image.new_empty(pieces, 2 * way.half, line)
        for_each(range(pieces), lambda i: torch.mm(there, windows[i], out=found[i]))
        return found

    def _rows(
        self, transform: Tensor, start: int, stop: int, wide: int, bias: Tensor | None
    ) -> Tensor:
        """The output's rows from one to before another: (rows, W', O)."""
        way, inputs, outputs = self.tiling, self.inputs, self.outputs
        h, m, kh = way.half, way.step, way.kernel[0]
        pieces, line, rows = len(transform), transform.shape[2], stop - start
        places, column = rows * pieces, kh * inputs
        # a place's column of pixels lies in one run: the rows of a frequency follow each other
        seen = transform.as_strided(
            (h, rows, pieces, 2, column),
            (line, inputs, 2 * h * line, h * line, 1),
            transform.storage_offset() + start * inputs,
        )
        columns = scratch.take("columns", (h, rows, pieces, 2, column), transform.dtype)
        columns.copy_(seen)
        products = scratch.take("products", (2, h, places, outputs), transform.dtype)
        for part, made in zip(self._parts, products, strict=True):
            torch.bmm(columns.view(h, places, 2 * column), part, out=made)
        if bias is not None:  # a constant is the lowest frequency
            products[0, 0] += bias * way.n
        pixels = scratch.take("pixels", (places, m, outputs), transform.dtype)
        _, back = _matrices(way, transform.dtype)
        by_place = products.view(2 * h, places, outputs).transpose(0, 1)
        torch.bmm(back.expand(places, -1, -1), by_place, out=pixels)
        return pixels.view(rows, pieces * m, outputs)[:, :wide]
