"""Results of long work, one JSON line each, so that it can go on where it was stopped."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from caffe_compat.foreign import Unfit, parse_json, read_bytes, reading

_ADVICE = "run without --resume, or choose another --out"


def differing(there: Any, ours: Mapping[str, Any]) -> set[str]:
    """The settings in which what made two results differs; what one does not name is None."""
    stored = there if isinstance(there, Mapping) else {}
    return {key for key in {*stored, *ours} if stored.get(key) != ours.get(key)}


class Journal:
    """Numbered results below one prefix; several processes write a file each and read all of them.

    A line that says what makes the results stands before them. Results of something else are set
    aside, never mixed in; they stay in the file. A line that was cut off is made again.

    Parameters
    ----------
    prefix : files are ``PREFIX_journal0.jsonl``, one per process.
    about : what makes the results (model, scales, ...); JSON.
    resume : keep what is there; otherwise it is removed.
    part : number of this process.

    Attributes
    ----------
    done : the results by their numbers.
    aside : numbers of results that something else made.
    changed : the settings in which that differs.
    """

    def __init__(self, prefix: Path, about: dict[str, Any], *, resume: bool, part: int = 0) -> None:
        self.prefix, self.about, self.part = prefix, about, part
        self.done: dict[int, Any] = {}
        self._made: dict[int, float] = {}  # when each of them was made
        self.aside: set[int] = set()
        self.changed: set[str] = set()
        if resume:
            self.read()
        path = Path(f"{prefix}_journal{part}.jsonl")
        self._file = path.open("a" if resume else "w", encoding="utf-8")
        if self._file.tell():
            self._file.write("\n")  # whatever a killed process left of its last line ends here
        self._write({"about": about})

    @property
    def files(self) -> list[Path]:
        """The journals of all processes of this run, in order of their names."""
        return self._files(self.prefix)

    @staticmethod
    def _files(prefix: Path) -> list[Path]:
        name = glob.escape(prefix.name)  # it may be called [1]
        return sorted(prefix.parent.glob(f"{name}_journal[0-9]*.jsonl"))

    @classmethod
    def remove(cls, prefix: Path) -> None:
        """Take away all files of a prefix."""
        for path in cls._files(prefix):
            path.unlink()

    def read(self) -> None:
        """Take in what all processes wrote so far."""
        self.aside, self.changed = set(), set()
        for path in self.files:
            text = read_bytes(path).decode("utf-8", "replace")
            about: Any = None  # nothing counts before it is said what made it
            for line in text.splitlines():
                try:
                    entry = parse_json(line, nan=True)
                except (ValueError, RecursionError):
                    continue
                if not isinstance(entry, dict):
                    continue
                if "about" in entry:
                    about = entry["about"]
                    continue
                with reading(path, "journal of results", advice=_ADVICE):
                    self._check(entry)
                if about == self.about:
                    self._take(entry)
                else:
                    self.aside.add(entry["number"])
                    self.changed |= differing(about, self.about)
        self.aside -= self.done.keys()

    def _take(self, entry: dict[str, Any]) -> None:
        """Take in a result, unless a newer one of the same number is there: a person's may stand
        in the files of several processes."""
        number, made = entry["number"], entry.get("time", 0.0)
        if number not in self.done or made >= self._made.get(number, 0.0):
            self.done[number], self._made[number] = entry["result"], made

    @staticmethod
    def _check(entry: dict[str, Any]) -> None:
        """Raise where an entry is no numbered result."""
        number = entry.get("number")
        if type(number) is not int or "result" not in entry:
            raise Unfit(f"a line has the number {number!r}")
        if not isinstance(entry.get("time", 0.0), int | float):
            raise Unfit(f"a line has the time {entry['time']!r}")

    def add(self, number: int, result: Any) -> None:
        """Note a result; it is on disk when this returns."""
        self.done[number], self._made[number] = result, time.time()
        self._write({"number": number, "result": result, "time": self._made[number]})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
