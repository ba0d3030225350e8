"""The log of a training: a JSON line for each report, or a row of a CSV table."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.files import csv_cell, ending, json_text
from caffe_compat.foreign import reading


def is_table(path: str | os.PathLike[str]) -> bool:
    """Does the name of a log ask for CSV?"""
    return ending(path) == ".csv"


def row(report: Mapping[str, Any]) -> dict[str, float]:
    """A report as cells by column: what it has of each loss is ``losses.NAME``."""
    cells: dict[str, float] = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            cells.update({f"{name}.{key}": number for key, number in value.items()})
        else:
            cells[name] = value
    return cells


def text(log: IO[str], report: Mapping[str, Any]) -> str:
    """What a log grows by; a new table begins with its columns.

    Parameters
    ----------
    log : open at its end.
    report : numbers by name; those of the losses and of other outputs each in a mapping.
    """
    if not is_table(log.name):
        return json_text(report) + "\n"
    cells = row(report)
    values = _line(cells.values())
    return values if log.tell() else _head(cells) + values


def check_table(path: str | os.PathLike[str], columns: Sequence[str]) -> None:
    """See that rows of a training can be appended to a table, if it is there.

    Parameters
    ----------
    columns : of the training.

    Raises
    ------
    DataError : it has other columns, or is no table.
    """
    if not os.path.exists(path):
        return
    head = _head(columns)
    with reading(path, "log"), open(path, encoding="utf-8", errors="replace", newline="") as log:
        found = log.read(len(head))
    if found not in ("", head):
        raise DataError(
            f"{os.fspath(path)}: its columns are not those of this training, whose losses and "
            f"outputs are {', '.join(name for name in columns if '.' in name)}; give --log another "
            "name"
        )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The reports of a log of JSON lines; one that a crash cut off is left out."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            report = json.loads(line)
            if isinstance(report, dict):
                found.append(report)
    return found


def seconds(log: Sequence[Mapping[str, Any]], samples: int, iterations: int) -> float:
    """How long a training took, from the speeds in its log. A report's speed is taken for the
    iterations since the report before it, the last one's also for those after it; of reports that
    repeat an iteration the last one counts.

    Parameters
    ----------
    samples : of an iteration.
    iterations : of the training, from 0.
    """
    speeds = {report["iteration"]: report["speed"] for report in log}
    reported = sorted(speeds)
    ends = [*reported[:-1], iterations - 1]
    counts = np.diff([-1, *ends])
    return float(sum(n * samples / speeds[i] for n, i in zip(counts, reported, strict=True)))


def _head(columns: Iterable[str]) -> str:
    return _line(csv_cell(name) for name in columns)


def _line(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(list(cells))
    return line.getvalue()
