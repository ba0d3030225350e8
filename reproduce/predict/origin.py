"""What made a result, and which results of an earlier run still hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caffe_compat.errors import DataError
from caffe_compat.foreign import check_file, read_json, reading
from reproduce.runtime.journal import differing

_WHAT = "result of cpm-predict"
_DIGITS = 16
# How a message calls what differs; what is not here is called by its name.
_WORDS = {
    "model": "another model",
    "prototxt": "another definition",
    "person_model": "another person network",
    "person_prototxt": "another definition of the person network",
    "person": "another search for people",
    "input": "another file of the same name",
    "boxes": "other boxes",
    "range": "another --range or --octave",
    "min_score": "another --min-score",
    "stages": "other --stages",
    "scales": "other --scales",
    "protocol": "another --protocol",
    "detect": "another --detect",
    "amp": "another --amp",
    "limit": "another --limit",
}


def digest(path: str | os.PathLike[str]) -> str:
    """The first digits of a file's SHA-256: whether a result is of these very contents.

    Raises
    ------
    DataError : it cannot be read.
    """
    check_file(path)
    found = hashlib.sha256()
    with reading(path, "file"), open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:_DIGITS]


def as_stored(about: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a result as JSON gives it back, so that it can be compared with what was kept."""
    return dict(json.loads(json.dumps(about)))


def made_by(result: Path) -> dict[str, Any] | None:
    """What made the result in a file; empty where it does not say, None where it is damaged."""
    try:
        content = read_json(result, _WHAT, nan=True)
    except DataError:
        return None
    made = content.get("made_by") if isinstance(content, Mapping) else None
    return made if isinstance(made, dict) else {}


class Resumption:
    """Counts the results of an earlier run that are kept, and those that are made again and why.

    Attributes
    ----------
    kept : how many are kept.
    again : how many are made again for each reason.
    """

    def __init__(self) -> None:
        self.kept = 0
        self.again: Counter[str] = Counter()

    def holds(self, there: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> bool:
        """Was a result made by just what makes ours? The answer is counted.

        Parameters
        ----------
        there : what made the result (:func:`made_by`).
        ours : what would make it now.
        """
        if there is None:
            self.again["damaged"] += 1
        elif not there:
            self.again["it is not said what made them"] += 1
        elif changed := differing(there, ours):
            self.drop(1, changed)
        else:
            self.kept += 1
            return True
        return False

    def drop(self, count: int, settings: Iterable[str]) -> None:
        """Count results that were made with other settings."""
        if count:
            self.again[in_words(settings)] += count

    def join(self, other: Resumption) -> None:
        """Add what another process counted."""
        self.kept += other.kept
        self.again.update(other.again)

    def __str__(self) -> str:
        """One line for the user; "" where there were no results."""
        count = sum(self.again.values())
        if not count:
            return f"--resume: {self.kept} kept, nothing is made again" if self.kept else ""
        why = "; ".join(f"{number} × {reason}" for reason, number in self.again.most_common())
        results = "1 result is" if count == 1 else f"{count} results are"
        return f"--resume: {self.kept} kept, {results} made again ({why})"


def in_words(settings: Iterable[str]) -> str:
    """Settings that differ, as a message calls them."""
    return ", ".join(_WORDS.get(name, name) for name in sorted(settings))
