"""What the benchmarks share: the machine, timing one after the other in turn, and the report."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import torch

from caffe_compat.files import make_folder, write_json
from reproduce.runtime.provenance import processor


def parser(about: str) -> argparse.ArgumentParser:
    """The command line of a benchmark.

    Parameters
    ----------
    about : its module's docstring.
    """
    return argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def network_parser(about: str, *, stages: int | None, threads: int = 2) -> argparse.ArgumentParser:
    """The command line of a benchmark of a network.

    Parameters
    ----------
    about : its module's docstring.
    stages, threads : the defaults; stages None: as released.
    """
    command = parser(about)
    command.add_argument("--json", type=Path, help="file for the numbers")
    command.add_argument("--stages", type=int, default=stages)
    command.add_argument("--size", type=int, default=368, help="height of the input")
    command.add_argument("--threads", type=int, default=threads)
    return command


def machine() -> str:
    """Processor, threads and versions."""
    threads = torch.get_num_threads()
    return (
        f"{processor()}, {threads} {'thread' if threads == 1 else 'threads'}, "
        f"torch {torch.__version__}, OpenCV {cv2.__version__}"
    )


def seconds_of(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round.

    In each round all are called once, one after the other, so that what else the machine does
    meets all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds_of(run))
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each one's seconds."""
    return {name: statistics.median(values) for name, values in times.items()}


def keep(path: Path | None, report: Mapping[str, object]) -> None:
    """Write the numbers as JSON, where a file was asked for."""
    if path is not None:
        make_folder(path.parent)
        write_json(path, dict(report))
