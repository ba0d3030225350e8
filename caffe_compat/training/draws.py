"""The random numbers of Caffe's data layers: its own generator, and the C library's ``rand()``.

Sources: ``rng.hpp`` and ``common.cpp`` of BVLC Caffe (an mt19937 whose 32-bit outputs are used as
they are); ``random_r.c`` of the GNU C library (the TYPE_3 additive feedback generator), described
in its manual pages.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import Any

import numpy as np
import numpy.typing as npt

RAND_MAX = 2147483647
_SEPARATION, _DEGREE = 3, 31
_SKIP = 1 << 16  # outputs that are thrown away at once on the way to a later one


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
        last = state[-1]
        high = last // 127773 if last >= 0 else -(-last // 127773)
        low = last - high * 127773
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


def shuffle_as_libstdcxx(items: MutableSequence[Any], rand: Iterator[int]) -> None:
    """Shuffle in place as ``std::random_shuffle`` of the GNU C++ library does with ``rand()``."""
    for last in range(1, len(items)):
        other = next(rand) % (last + 1)
        items[last], items[other] = items[other], items[last]


class Twister:
    """The raw 32-bit outputs of an mt19937, at any place of the sequence.

    Parameters
    ----------
    seed : its low 32 bits are used, as Caffe does.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed & 0xFFFFFFFF
        self._restart()

    def _restart(self) -> None:
        self._generator = np.random.RandomState(self._seed)
        self._place = 0

    def take(self, count: int) -> npt.NDArray[np.uint32]:
        """The next outputs."""
        self._place += count
        return self._generator.randint(0, 2**32, count, dtype=np.uint32)

    def at(self, place: int, count: int) -> npt.NDArray[np.uint32]:
        """Outputs number ``place`` and on, counted from 0."""
        if place < self._place:
            self._restart()
        while self._place < place:
            self.take(min(_SKIP, place - self._place))
        return self.take(count)

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit - 1``, as Boost's ``uniform_int`` makes it of an output."""
        # Boost divides the 2^32 outputs into equal buckets and draws again behind the last one
        size = 2**32 // limit
        while (found := int(self.take(1)[0]) // size) >= limit:
            pass
        return found


class Draws:
    """Caffe's main generator while a net is set up: data layers take their seeds from it in turn.

    Parameters
    ----------
    seed : of ``caffe.set_random_seed`` or the solver's ``random_seed``.
    reader_thread : a Data layer takes one number more, for the thread that reads records, as Caffe
        of 2016 (the CPM release's) does; later Caffe has no such thread.
    """

    def __init__(self, seed: int = 1, *, reader_thread: bool = True) -> None:
        self.reader_thread = reader_thread
        self._generator = Twister(seed)
        self._seed = seed & 0xFFFFFFFF
        self._streams = 0

    def draw(self) -> int:
        """The next number."""
        return int(self._generator.take(1)[0])

    def stream(self) -> tuple[int, int]:
        """Two numbers that nobody else gets, for a layer whose numbers are not Caffe's; its numbers
        stay as they are."""
        self._streams += 1
        return self._seed, self._streams
