"""Progress of long work: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

EVERY = 30.0  # seconds between two lines


def progress(total: int | None, unit: str, *, shown: bool = True) -> Any:
    """A progress bar (tqdm) on a terminal; where the output goes to a file, :class:`Lines`.

    Parameters
    ----------
    total : how many there are; None where nobody knows.
    unit : what is counted, for example "images".
    shown : False keeps silent: of several processes one speaks.
    """
    if shown and not sys.stderr.isatty():
        return Lines(total, unit)
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", disable=not shown)


class Lines:
    """Says every half minute how far the work is.

    >>> with Lines(2000, "images", every=0) as lines:  # doctest: +SKIP
    ...     lines.update(500)
    500 of 2000 images, 12.5 a second, 0:02:00 left
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        *,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n = 0
        self._total = total
        self._unit = unit
        self._every = every
        self._clock = clock
        self._start = self._said = clock()

    def update(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        self.n += count
        now = self._clock()
        if now - self._said < self._every:
            return
        self._said = now
        rate = self.n / max(now - self._start, 1e-9)
        text = f"{self.n} {self._unit}, {rate:.3g} a second"
        if self._total:
            seconds = round((self._total - self.n) / max(rate, 1e-9))
            left = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            text = f"{self.n} of {self._total} {self._unit}, {rate:.3g} a second, {left} left"
        print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is said at the end: the command does that."""
