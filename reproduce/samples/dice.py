"""Where the augmentation's random numbers come from: the C library's ``rand()`` as Caffe used it,
or numpy.

Source: ``random_r.c`` of the GNU C library (the TYPE_3 additive feedback generator), described in
its manual pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

RAND_MAX = 2147483647
_SEPARATION, _DEGREE = 3, 31


def glibc_rand(seed: int = 1) -> Iterator[int]:
    """The sequence of ``rand()`` after ``srand(seed)``.

    ``caffe`` never calls ``srand``, which is the same as seed 1.

    Parameters
    ----------
    seed : 0 to 2^32 - 1. The library keeps it as a signed 32-bit number, and takes 1 instead of 0.
    """
    seed &= 0xFFFFFFFF
    signed = seed - (1 << 32) if seed >= 1 << 31 else seed
    state = [signed or 1]
    for _ in range(1, _DEGREE):
        # 16807 * x mod 2^31 - 1 with C's truncated division
        high, low = (
            divmod(abs(state[-1]), 127773) if state[-1] >= 0 else (-(-state[-1] // 127773), 0)
        )
        if state[-1] < 0:
            low = state[-1] - high * 127773
        word = 16807 * low - 2836 * high
        state.append(word + RAND_MAX if word < 0 else word)
    ring = [value & 0xFFFFFFFF for value in state]
    front, rear = _SEPARATION, 0
    produced = 0
    while True:
        ring[front] = (ring[front] + ring[rear]) & 0xFFFFFFFF
        value = ring[front] >> 1
        front = (front + 1) % _DEGREE
        rear = (rear + 1) % _DEGREE
        produced += 1
        if produced > 10 * _DEGREE:  # the library discards the first 310
            yield value


class Dice(Protocol):
    """A source of float32 dice in 0 .. 1."""

    def roll(self) -> np.float32:
        """The next die."""
        ...


@dataclass
class CaffeDice:
    """``float(rand()) / float(RAND_MAX)`` of one process, in sequence over all samples.

    Attributes
    ----------
    seed : of srand; 1 is what Caffe always had.
    rolled : how many were taken; :meth:`skip` brings a new object there.
    """

    seed: int = 1
    rolled: int = 0

    def __post_init__(self) -> None:
        self._rand = glibc_rand(self.seed)
        for _ in range(self.rolled):
            next(self._rand)

    def roll(self) -> np.float32:
        """The next die."""
        self.rolled += 1
        return np.float32(np.float32(next(self._rand)) / np.float32(RAND_MAX))


class SampleDice:
    """Dice of one sample: the same for the same seed, epoch and index, whoever computes it."""

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self._generator = np.random.Generator(
            np.random.Philox(key=[seed & (2**64 - 1), (epoch << 40) + index])
        )

    def roll(self) -> np.float32:
        """The next die."""
        return np.float32(self._generator.random(dtype=np.float32))


class GivenDice:
    """Recorded ``rand()`` values, replayed."""

    def __init__(self, values: Iterator[int]) -> None:
        self._values = iter(values)

    def roll(self) -> np.float32:
        """The next die."""
        return np.float32(np.float32(next(self._values)) / np.float32(RAND_MAX))
