"""Where the augmentation's random numbers come from: the C library's ``rand()`` as Caffe used it,
or numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from caffe_compat.training.draws import RAND_MAX


class Dice(Protocol):
    """A source of float32 dice in 0 .. 1."""

    def roll(self) -> np.float32:
        """Throw the next die."""
        ...


class CaffeDice:
    """``float(rand()) / float(RAND_MAX)`` of one process, in sequence over all samples.

    Parameters
    ----------
    rand : values of ``rand()``, such as :func:`caffe_compat.training.draws.glibc_rand` gives.
    """

    def __init__(self, rand: Iterator[int]) -> None:
        self._rand = rand

    def roll(self) -> np.float32:
        """Throw the next die."""
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
