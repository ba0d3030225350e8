"""Convolution with small kernels by minimal filtering, every step a matrix product.

A tile of 6×6 input pixels gives m×m output pixels, m = 7 - k. Seen as polynomials, a convolution is
a product, and a product of polynomials is known from its values at six points: tile and kernel are
evaluated there (products with small constant matrices), multiplied place by place, which is where
the channels are mixed, and brought back. A 3×3 kernel then takes 36 products for 16 outputs instead
of 144.

The points are 0, ±2/3, ±3/2 and infinity. They decide the accuracy: pairs of reciprocals keep the
matrices' entries alike, and the largest error stays near 1e-6 of the largest value, where the
textbook's 0, ±1, ±2 loses a digit.

Maps are worked on in bands of tile rows that stay in the cache. In memory a band's transform lies
as (row place, tile, column place, channel), so that nothing is transposed: the mixing of one row
place is a grouped 1×1 convolution. Each row of tiles has one tile too many, whose result nobody
looks at; with it the tiles of a band lie at one distance, and one batched product makes them all.

Source: Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe_compat.engine.buffers import PACK, as_image, maps_like, scratch
from caffe_compat.engine.cuts import TileCut
from caffe_compat.engine.threads import for_each, sharing

SIDE = 6
LARGEST_KERNEL = 5
_POINTS = tuple(Fraction(p) for p in ("0", "2/3", "-2/3", "3/2", "-3/2"))
# Numbers of a band's transforms, before and after the mixing, that are worked on at once. Fewer
# would read the kernel's transform too often, and products of few tiles are slow.
BAND = 6_000_000


@dataclass(frozen=True)
class Filtering(TileCut):
    """How an output is cut into tiles of minimal filtering.

    Attributes
    ----------
    kernel : (kh, kw), each from 1 to :data:`LARGEST_KERNEL`.
    pad : (ph, pw).
    grouped : the channels are mixed by oneDNN's grouped convolution, else by batched products;
        which one is faster hangs on the processor.
    """

    kernel: tuple[int, int]
    pad: tuple[int, int]
    grouped: bool = True

    @property
    def n(self) -> int:
        """Side of an input tile."""
        return SIDE

    @property
    def step(self) -> tuple[int, int]:
        """Output pixels of a tile, down and across."""
        return SIDE + 1 - self.kernel[0], SIDE + 1 - self.kernel[1]

    def kernel_bytes(self, outputs: int, inputs: int) -> int:
        """Memory of a transformed kernel in float32."""
        return 4 * SIDE * SIDE * outputs * inputs

    def prepare(self, weight: Tensor) -> MinimalKernel:
        """The transform of a kernel (O, I, kh, kw)."""
        return MinimalKernel(weight, self)


@dataclass(frozen=True)
class _Matrices:
    """For one axis: ``tile`` (6, 6) evaluates a tile, ``kernel`` (6, k) a kernel, ``back`` (m, 6)
    gives the outputs."""

    tile: Tensor
    kernel: Tensor
    back: Tensor


@lru_cache(maxsize=32)
def _matrices(kernel: int, dtype: torch.dtype) -> _Matrices:
    """The constant matrices, computed in fractions.

    A filter of k taps and m outputs is the transpose of the product of polynomials with k and m
    coefficients: evaluate both at the points (Vandermonde matrices), multiply, interpolate.
    """
    whole = _powers(SIDE)
    interpolate = _inverse(whole)
    tile = [list(column) for column in zip(*interpolate, strict=True)]
    back = [list(column) for column in zip(*_powers(SIDE + 1 - kernel), strict=True)]
    found = (tile, _powers(kernel), back)
    tensors = (
        torch.tensor([[float(v) for v in row] for row in matrix], dtype=torch.float64)
        for matrix in found
    )
    return _Matrices(*(t.to(dtype).contiguous() for t in tensors))


def _powers(count: int) -> list[list[Fraction]]:
    """(6, count): the powers of each point; at infinity the last coefficient alone counts."""
    finite = [[point**j for j in range(count)] for point in _POINTS]
    return [*finite, [Fraction(int(j == count - 1)) for j in range(count)]]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """The inverse of a square matrix, by elimination."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for c in range(size):
        pivot = next(i for i in range(c, size) if rows[i][c])
        rows[c], rows[pivot] = rows[pivot], rows[c]
        rows[c] = [value / rows[c][c] for value in rows[c]]
        for i in range(size):
            if i != c and rows[i][c]:
                rows[i] = [a - rows[i][c] * b for a, b in zip(rows[i], rows[c], strict=True)]
    return [row[size:] for row in rows]


class MinimalKernel:
    """A kernel's transform, ready for use.

    Parameters
    ----------
    weight : (O, I, kh, kw), on the CPU.
    tiling : how the output is cut.
    """

    def __init__(self, weight: Tensor, tiling: Filtering) -> None:
        self.tiling = tiling
        self.outputs, self.inputs = weight.shape[:2]
        high, wide = (_matrices(k, torch.float64).kernel for k in tiling.kernel)
        taps = weight.detach().double()
        places = torch.einsum("ia,oxab,jb->ijox", high, taps, wide).to(weight.dtype)
        self._packed = tiling.grouped and PACK is not None and weight.dtype == torch.float32
        self._parts: list[Any] = [self._ready(part) for part in places]

    @property
    def bytes(self) -> int:
        """Memory of the transform."""
        return self.tiling.kernel_bytes(self.outputs, self.inputs)

    def _ready(self, part: Tensor) -> Any:
        """One row place (6, O, I), as the mixing takes it."""
        if self._packed:
            shape = [1, SIDE * self.inputs, 1, 64]
            return [
                PACK(some.reshape(-1, self.inputs, 1, 1), [0, 0], [1, 1], [1, 1], SIDE, shape)
                for some in torch.split(part, _pieces(self.outputs), 1)
            ]
        return part.transpose(1, 2).contiguous()

    def mix(self, place: int, tiles: Tensor) -> Tensor:
        """The channels of one row place: (tiles, 6·I) to (tiles, 6, O)."""
        count = len(tiles)
        if self._packed:
            some = [_grouped(tiles, part) for part in self._parts[place]]
            if len(some) == 1:
                return some[0]
            mixed = scratch.take("mixed", (count, SIDE, self.outputs), tiles.dtype)
            return torch.cat(some, 2, out=mixed)
        # each of the six products lies by itself; what follows takes them as they lie
        products = scratch.take("products", (SIDE, count, self.outputs), tiles.dtype)
        by_place = tiles.view(count, SIDE, -1).transpose(0, 1)
        return torch.bmm(by_place, self._parts[place], out=products).transpose(0, 1)

    def convolve(
        self, x: Tensor, bias: Tensor | None, *, relu: bool = False, pool: int = 1
    ) -> Tensor:
        """Correlate N×I×H×W; returns N×O×H'×W', channels last in memory. Records no gradient.

        Parameters
        ----------
        relu : cut off what is below 0.
        pool : side of MAX windows without overlap that follow; only whole windows in the step of
            the tiles can be pooled here, see :meth:`pools`.
        """
        size = (x.shape[2], x.shape[3])
        high, wide = self.tiling.output(size)
        made = maps_like(x, self.outputs, -(-high // pool), -(-wide // pool))
        out = made.permute(0, 2, 3, 1)
        images = x.detach().permute(0, 2, 3, 1)
        pieces = [(i, *band) for i in range(len(x)) for band in self._bands(size)]

        def work(piece: tuple[int, int, int]) -> None:
            i, first, rows = piece
            self._band(images[i], first, rows, bias, relu, pool, out[i])

        for_each(pieces, work)
        return made

    def pools(self, kernel: int, stride: int) -> bool:
        """Whether a pooling can be part of :meth:`convolve`."""
        return kernel == stride and all(step % stride == 0 for step in self.tiling.step)

    def _across(self, size: tuple[int, int]) -> int:
        """Tiles in a row of tiles, with those whose results nobody looks at."""
        kernel, step = self.tiling.kernel[1], self.tiling.step[1]
        return self.tiling.tiles(size)[1] + -(-(kernel - 1) // step)

    def _bands(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """(first row of tiles, rows of tiles) of each band: alike, and small enough for the
        cache."""
        down = self.tiling.tiles(size)[0]
        each = SIDE * SIDE * self._across(size) * (self.inputs + self.outputs)
        most = max(1, BAND // each)
        count = -(-down // most)
        if sharing():
            count = max(count, min(down, torch.get_num_threads()))
        edges = [down * i // count for i in range(count + 1)]
        return [(a, b - a) for a, b in pairwise(edges)]

    def _band(
        self,
        image: Tensor,
        first: int,
        rows: int,
        bias: Tensor | None,
        relu: bool,
        pool: int,
        result: Tensor,
    ) -> None:
        """Outputs of some rows of tiles; image (H, W, I), result (H', W', O), pooled."""
        high, wide, _ = image.shape
        (mh, mw), (kh, kw) = self.tiling.step, self.tiling.kernel
        across = self._across((high, wide))
        width = across * mw
        dtype, inputs, outputs = image.dtype, self.inputs, self.outputs
        down_matrices, across_matrices = _matrices(kh, dtype), _matrices(kw, dtype)
        band = self._padded(image, first * mh, rows * mh + kh - 1, width)

        # rows: (6, rows, width·I); columns: (6, rows·across, 6, I)
        count = SIDE * rows * across
        slack = SIDE * inputs
        lines = scratch.take("lines", (count * mw * inputs + slack,), dtype)
        line = width * inputs
        by_place = lines[: count * mw * inputs].view(SIDE, rows, line)
        down = band.as_strided((rows, SIDE, line), (mh * line, line, 1))
        tile = down_matrices.tile.expand(rows, -1, -1)
        torch.bmm(tile, down, out=by_place.transpose(0, 1))
        overlapping = lines.as_strided((count, SIDE, inputs), (mw * inputs, inputs, 1))
        tiles = scratch.take("tiles", (count, SIDE, inputs), dtype)
        torch.bmm(across_matrices.tile.expand(count, -1, -1), overlapping, out=tiles)

        pixels = scratch.take("pixels", (SIDE, rows * across, mw, outputs), dtype)
        back = across_matrices.back.expand(rows * across, -1, -1)
        for place, one in enumerate(tiles.view(SIDE, rows * across, SIDE * inputs)):
            torch.bmm(back, self.mix(place, one), out=pixels[place])
        by_place = pixels.view(SIDE, rows, width * outputs).transpose(0, 1)
        found = scratch.take("found", (rows, mh, width * outputs), dtype)
        torch.bmm(down_matrices.back.expand(rows, -1, -1), by_place, out=found)
        valid = self.tiling.output((high, wide))
        start = first * mh
        shown = found.view(rows * mh, width, outputs)[: valid[0] - start, : valid[1]]
        _finish(shown, bias, relu, pool, result[start // pool : -(-(start + rows * mh) // pool)])

    def _padded(self, image: Tensor, start: int, tall: int, width: int) -> Tensor:
        """What the outputs from row ``start`` on read, (tall, width, I), with its border of zeros;
        a line has room for the tile too many."""
        high, wide, inputs = image.shape
        ph, pw = self.tiling.pad
        band = scratch.take("band", (tall, width, inputs), image.dtype)
        top = start - ph
        # a band may lie in the padding altogether
        above = min(tall, max(0, -top))
        below = min(tall - above, max(0, top + tall - high))
        band[:above].zero_()
        band[tall - below :].zero_()
        seen = band[above : tall - below]
        if len(seen):
            covered = min(wide, width - pw)
            seen[:, :pw].zero_()
            seen[:, pw + covered :].zero_()
            seen[:, pw : pw + covered] = image[top + above : top + tall - below, :covered]
        return band


def _pieces(outputs: int) -> list[int]:
    """How many outputs of a group are mixed at once.

    With 192 of them, or more than 256, oneDNN wants the kernel in a layout that depends on the
    number of tiles, and brings it there in each call, which takes twenty times as long.
    """
    pieces = []
    while outputs > 256 or outputs == 192:
        pieces.append(256 if outputs > 256 else 128)
        outputs -= pieces[-1]
    return [*pieces, outputs]


def _grouped(tiles: Tensor, packed: Any) -> Tensor:
    """(tiles, 6·I) times a packed kernel: (tiles, 6, O)."""
    made = torch.ops.mkldnn._convolution_pointwise(
        as_image(tiles), packed, None, [0, 0], [1, 1], [1, 1], SIDE, "none", [], None
    )
    return cast(Tensor, made.permute(0, 2, 3, 1).view(len(tiles), SIDE, -1))


def _finish(found: Tensor, bias: Tensor | None, relu: bool, pool: int, target: Tensor) -> None:
    """Pooling, bias and ReLU of some rows (h, W, O) into rows of the result (h', W', O).

    A maximum does not change its place by a bias or a ReLU, so the pooling comes first.
    """
    if pool > 1:
        found = _pooled(found, pool)
    if bias is None:
        target.copy_(found)
    else:
        torch.add(found, bias, out=target)
    if relu:
        target.relu_()


def _pooled(found: Tensor, pool: int) -> Tensor:
    """MAX over pool×pool windows without overlap; the last one of an axis may be cut off."""
    if found.shape[0] % pool or found.shape[1] % pool:
        image = found.permute(2, 0, 1)[None]
        return F.max_pool2d(image, pool, ceil_mode=True)[0].permute(1, 2, 0)
    # two maxima of whole lines: torch's pooling takes several times as long on so few rows
    lines = reduce(torch.maximum, (found[i::pool] for i in range(pool)))
    return reduce(torch.maximum, (lines[:, i::pool] for i in range(pool)))


def fits(kernel: tuple[int, ...]) -> bool:
    """Whether a kernel of this size can run by minimal filtering."""
    return len(kernel) == 2 and 1 < max(kernel) <= LARGEST_KERNEL
