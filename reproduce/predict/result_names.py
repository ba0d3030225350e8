"""Where the results of each input go, so that no input overwrites another's results."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reproduce.predict.capture import name_of

_LONGEST = 100  # characters of a stream's address in a file name
_MOST_BYTES = 200  # of a name: file systems take 255, and endings such as _belief_12.png follow


def candidates_of(source: Path | int | str) -> list[str]:
    """Names that the results of an input may have, the shortest first.

    Parameters
    ----------
    source : a file, a camera's number, or a stream's address.

    Returns
    -------
    Of a file its name without the ending, its whole name, and the whole name with one more folder
    before it each time; of a camera ``camera0``; of a stream its address without its password.
    Names that are too long for a file system end with a number made of the whole of them.
    """
    if isinstance(source, int):
        return [f"camera{source}"]
    if isinstance(source, str):
        address = name_of(source).partition("://")[2]
        plain = re.sub(r"[^A-Za-z0-9.-]+", "_", address).strip("_.")[:_LONGEST] or "stream"
        return [plain, f"{plain}_{hashlib.sha256(source.encode()).hexdigest()[:8]}"]
    folders = Path(os.path.abspath(source)).parts[1:]
    whole = ["_".join(folders[-count:]) for count in range(1, len(folders) + 1)]
    return list(dict.fromkeys(map(_fitting, [source.stem, *whole])))


def _fitting(name: str) -> str:
    """A name that leaves room for endings."""
    encoded = os.fsencode(name)
    if len(encoded) <= _MOST_BYTES:
        return name
    # what is left of a letter that is cut in two goes
    begin = encoded[: _MOST_BYTES - 9].decode(errors="ignore")
    return f"{begin}_{hashlib.sha256(encoded).hexdigest()[:8]}"


def result_names(sources: Sequence[Path | int | str]) -> list[str | None]:
    """A name for the results of each input, no two alike.

    An input gets its shortest candidate that no other input has (:func:`candidates_of`). The names
    depend on which inputs there are and not on their order. Names that differ in large and small
    letters alone count as alike, because some file systems take them for one.

    Returns
    -------
    One name an input; None where every candidate belongs to another input, too.
    """
    candidates = [candidates_of(source) for source in sources]
    level = [0] * len(sources)
    refused: set[int] = set()
    while True:
        names = [own[at] for own, at in zip(candidates, level, strict=True)]
        taken = Counter(n.casefold() for i, n in enumerate(names) if i not in refused)
        alike = [i for i, n in enumerate(names) if i not in refused and taken[n.casefold()] > 1]
        longer = [i for i in alike if level[i] + 1 < len(candidates[i])]
        if not alike:
            return [None if i in refused else name for i, name in enumerate(names)]
        for i in longer:
            level[i] += 1
        stuck = {names[i].casefold() for i in alike} - {names[i].casefold() for i in longer}
        refused |= {i for i in alike if names[i].casefold() in stuck}
