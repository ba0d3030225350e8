"""Curves of several methods on one benchmark: what Figures 8, 9 and 12 have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reproduce.benchmarks.benchmark import Benchmark
from reproduce.benchmarks.measures import EvalResult
from reproduce.benchmarks.published import published
from reproduce.drawing.curves import Curve, Mark, draw, files_of, write_numbers


def score_methods(benchmark: Benchmark) -> dict[str, EvalResult]:
    """Every method's predictions on a benchmark, scored by the paper's norm.

    Raises
    ------
    DataError : the truth, or a file of predictions, is not readable.
    """
    return {
        label: benchmark.score(predicted, source=label)
        for label, predicted in benchmark.methods().items()
    }


def curves(
    results: Mapping[str, EvalResult], groups: Mapping[str, tuple[str, ...]]
) -> dict[str, list[Curve]]:
    """A panel for each group of joints, with a curve for each method that has them.

    Parameters
    ----------
    groups : joints of each panel; the panel of no joints shows the total.
    """
    return {
        panel: [
            Curve(label, one.thresholds, one.curve(joints) if joints else one.total)
            for label, one in results.items()
            if one.has(joints)
        ]
        for panel, joints in groups.items()
    }


def published_marks(benchmark: Benchmark) -> dict[str, list[Mark]]:
    """The paper's own numbers of a benchmark by row of its table ("total" for all joints).

    What is only known from released predictions is left out: those are curves.
    """
    found: dict[str, list[Mark]] = {}
    for check in published()["check"]:
        if check["benchmark"] != benchmark.name or not check["source"].startswith("paper"):
            continue
        if check["measure"] == "total":
            pairs = [("total", check["value"])]
        elif check["measure"] == "groups":
            names = check.get("groups", list(benchmark.groups))
            pairs = list(zip(names, check["value"], strict=True))
        else:
            continue
        for name, value in pairs:
            found.setdefault(name, []).append(Mark(float(check["threshold"]), float(value)))
    return found


def best_first(results: Mapping[str, EvalResult]) -> dict[str, EvalResult]:
    """Methods in the order of their total at the last threshold."""
    order = sorted(results, key=lambda label: -results[label].total[-1])
    return {label: results[label] for label in order}


def draw_methods(
    benchmark: Benchmark,
    results: Mapping[str, EvalResult],
    path: Path,
    about: Mapping[str, object],
    title: str,
    xlabel: str = "normalised distance",
) -> list[Path]:
    """A benchmark's total and every row of its table as curves: numbers and picture.

    Parameters
    ----------
    path : of the files, without ending.
    about : where the numbers come from.

    Returns
    -------
    The files.
    """
    panels = curves(best_first(results), {"total": (), **benchmark.groups})
    write_numbers(panels, path, about)
    draw(
        panels,
        path,
        xlabel=xlabel,
        ylabel="detection rate, %",
        columns=4,
        at=benchmark.threshold,
        title=title,
        marks=published_marks(benchmark),
    )
    return files_of(path)
