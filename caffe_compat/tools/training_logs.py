"""``parse-log``: the tables of a training's log."""

from __future__ import annotations

import csv
import io as streams
import math
import re
from collections.abc import Iterator
from pathlib import Path

import click

from caffe_compat.commands import Command
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import make_folder, write_text
from caffe_compat.foreign import check_file
from caffe_compat.tools.opening import FILE

_STAMP = re.compile(r"[IWEF]\d+ (\d{1,2}):(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_ITERATION = re.compile(r"Iteration (\d{1,18})(?!\d)")
_RATE = re.compile(r"lr = ([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?=[,\s]|$)")
_OUTPUT = re.compile(r"(Train|Test) net output #(\d+): (\S+) = (\S+)")


def parse_log(lines: Iterator[str]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The rows of training and of testing of a log that ``caffe train`` wrote.

    Returns
    -------
    Two lists of dictionaries: ``NumIters``, ``Seconds`` since the first line, ``LearningRate``, and
    the net's outputs by name.
    """
    rows: dict[str, list[dict[str, float]]] = {"Train": [], "Test": []}
    iteration: int | None = None
    rate: float | None = None
    first: float | None = None
    days, now = 0.0, 0.0
    for line in lines:
        stamp = _STAMP.match(line)
        if stamp:
            hours, minutes, seconds = stamp.groups()
            at = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            if first is None:
                first = at
            elif at + days < now - 43_200:  # the clock began anew: midnight
                days += 86_400
            now = at + days
        if found := _ITERATION.search(line):
            iteration = int(found[1])
        if found := _RATE.search(line):
            rate = float(found[1])
            for row in reversed(rows["Train"]):  # the rate follows the outputs of its iteration
                if row["NumIters"] != iteration:
                    break
                row["LearningRate"] = rate
        output = _OUTPUT.search(line)
        if output is None or iteration is None:
            continue
        kind, number, name, value = output.groups()
        if not rows[kind] or rows[kind][-1]["NumIters"] != iteration or number == "0":
            elapsed = now - (first or 0.0)
            known = float("nan") if rate is None else rate
            rows[kind].append({"NumIters": iteration, "Seconds": elapsed, "LearningRate": known})
        row = rows[kind][-1]
        try:
            row[name if name not in row else f"{name}_{number}"] = float(value)
        except ValueError:
            continue
    # what was tested before the first rate was printed had that one
    for row in rows["Test"] + rows["Train"]:
        if math.isnan(row["LearningRate"]) and rows["Train"]:
            row["LearningRate"] = rows["Train"][0]["LearningRate"]
    return rows["Train"], rows["Test"]


@click.command("parse-log", cls=Command)
@click.argument("log", type=FILE)
@click.argument("folder", type=click.Path(file_okay=False), default=".")
@click.option("--delimiter", default=",", show_default=True, help="Between the columns.")
def parse_log_command(log: str, folder: str, delimiter: str) -> None:
    """Tables of a log that `caffe train` wrote: FOLDER/LOG.train and FOLDER/LOG.test (CSV).

    \b
    python -m caffe_compat.tools parse-log train.log tables
    """
    check_file(log)
    with open(log, encoding="utf-8", errors="replace") as lines:
        # the last line of a killed training may be cut short, in the midst of a number
        train, tested = parse_log(line for line in lines if line.endswith("\n"))
    if not train and not tested:
        raise DataError(f"{log}: no line with a net's output; expected a log of 'caffe train'")
    if len(delimiter) != 1:
        raise CaffeCompatError(f"--delimiter '{delimiter}': expected one character")
    make_folder(folder)
    for kind, rows in (("train", train), ("test", tested)):
        target = Path(folder) / f"{Path(log).name}.{kind}"
        text = streams.StringIO()
        names = dict.fromkeys(name for row in rows for name in row)
        columns = list(names) or ["NumIters", "Seconds", "LearningRate"]
        writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(target, text.getvalue())
        click.echo(f"wrote {target}: {len(rows)} rows")
