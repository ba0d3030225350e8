"""How the output of a convolution is cut, in the ways that make it piece by piece. Stride and
dilation are 1 there."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Cut:
    """An output that is made in pieces.

    Attributes
    ----------
    kernel : (kh, kw).
    pad : (ph, pw).
    """

    kernel: tuple[int, int]
    pad: tuple[int, int]

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Output size (height, width) of an input size."""
        (kh, kw), (ph, pw) = self.kernel, self.pad
        return size[0] + 2 * ph - kh + 1, size[1] + 2 * pw - kw + 1


class TileCut(Cut, ABC):
    """An output that is made in tiles."""

    @property
    @abstractmethod
    def step(self) -> tuple[int, int]:
        """Output pixels of a tile, down and across."""

    def tiles(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tiles down and across for an input size."""
        out, step = self.output(size), self.step
        return -(-out[0] // step[0]), -(-out[1] // step[1])
