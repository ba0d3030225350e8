"""Results of long work, one JSON line each, so that it can go on where it was stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from caffe_compat.errors import DataError
from caffe_compat.foreign import Unfit, parse_json, read_bytes, reading

_ADVICE = "run without --resume, or choose another --out"


class Journal:
    """Numbered results below one prefix; several processes write a file each and read all of them.

    The first line of a file says what made it; results of something else are refused, not mixed in.
    A line that was cut off is made again.

    Parameters
    ----------
    prefix : files are ``PREFIX_journal0.jsonl``, one per process.
    about : what makes the results (model, scales, ...); JSON.
    resume : keep what is there; otherwise it is removed.
    part : number of this process.

    Raises
    ------
    DataError : ``resume`` and the results there were made otherwise.
    """

    def __init__(self, prefix: Path, about: dict[str, Any], *, resume: bool, part: int = 0) -> None:
        self.prefix, self.about, self.part = prefix, about, part
        self.done: dict[int, Any] = {}
        if resume:
            self.read()
        path = Path(f"{prefix}_journal{part}.jsonl")
        self._file = path.open("a" if resume else "w", encoding="utf-8")
        if not self._file.tell():
            self._write({"about": about})
        else:
            self._file.write("\n")  # whatever a killed process left of its last line ends here

    @property
    def files(self) -> list[Path]:
        """The journals of all processes of this run, in order of their names."""
        return sorted(self.prefix.parent.glob(f"{self.prefix.name}_journal[0-9]*.jsonl"))

    @classmethod
    def remove(cls, prefix: Path) -> None:
        """Take away all files of a prefix."""
        for path in prefix.parent.glob(f"{prefix.name}_journal[0-9]*.jsonl"):
            path.unlink()

    def read(self) -> None:
        """Take in what all processes wrote so far."""
        for path in self.files:
            text = read_bytes(path).decode("utf-8", "replace")
            for line in text.splitlines():
                try:
                    entry = parse_json(line, nan=True)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict):
                    with reading(path, "journal of results", advice=_ADVICE):
                        self._take(entry, path)

    def _take(self, entry: dict[str, Any], path: Path) -> None:
        """Write one result as one line."""
        about = entry.get("about", self.about)
        if about != self.about:
            there = about if isinstance(about, dict) else {}
            names = {*there, *self.about}
            changed = sorted(k for k in names if there.get(k) != self.about.get(k))
            raise DataError(
                f"{path}: was made with other settings ({', '.join(changed)}): {_ADVICE}"
            )
        if "number" in entry:
            number = entry["number"]
            if type(number) is not int or "result" not in entry:
                raise Unfit(f"a line has the number {number!r}")
            self.done[number] = entry["result"]

    def add(self, number: int, result: Any) -> None:
        """Note a result; it is on disk when this returns."""
        self.done[number] = result
        self._write({"number": number, "result": result})

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
