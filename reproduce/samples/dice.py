"""Where the augmentation's random numbers come from: the C library's ``rand()`` as Caffe used it,
or numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from caffe_compat.training.draws import RAND_MAX, glibc_rand


class Dice(Protocol):
    """A source of float32 dice in 0 .. 1."""

    def roll(self) -> np.float32:
        """Throw the next die."""
        ...


@dataclass
class CaffeDice:
    """``float(rand()) / float(RAND_MAX)`` of one process, in sequence over all samples.

    Attributes
    ----------
    seed : of srand; 1 is what Caffe always had.
    rolled : how many were taken; a new object begins behind as many.
    """

    seed: int = 1
    rolled: int = 0

    def __post_init__(self) -> None:
        self._rand = glibc_rand(self.seed)
        for _ in range(self.rolled):
            next(self._rand)

    def roll(self) -> np.float32:
        """Throw the next die."""
        self.rolled += 1
        return np.float32(np.float32(next(self._rand)) / np.float32(RAND_MAX))


class SampleDice:
    """Dice of one sample: the same for the same seed, epoch and index, whoever computes it."""

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self._generator = np.random.Generator(
            np.random.Philox(key=[seed & (2**64 - 1), (epoch << 40) + index])
        )

    def roll(self) -> np.float32:
        """Throw the next die."""
        return np.float32(self._generator.random(dtype=np.float32))


class GivenDice:
    """Recorded ``rand()`` values, replayed."""

    def __init__(self, values: Iterator[int]) -> None:
        self._values = iter(values)

    def roll(self) -> np.float32:
        """Throw the next die."""
        return np.float32(np.float32(next(self._values)) / np.float32(RAND_MAX))
