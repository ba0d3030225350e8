"""Predictions in, scores out: the door to the benchmarks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from reproduce.benchmarks.benchmark import Benchmark
from reproduce.benchmarks.measures import EvalResult
from reproduce.benchmarks.registry import benchmarks, open_benchmark

Floats = npt.NDArray[np.float64]
Measure = Literal["pck", "pcp"]


def evaluate(
    predictions: str | os.PathLike[str] | Floats,
    dataset: str,
    data: str | os.PathLike[str],
    *,
    measure: Measure = "pck",
    norm: str = "",
    annotation: str = "",
    thresholds: Sequence[float] | float | None = None,
) -> EvalResult:
    """Score predictions as the papers do; what ``cpm-evaluate`` prints.

    >>> found = np.zeros((1000, 14, 2))  # every joint of LSP's test people in the picture's corner
    >>> result = evaluate(found, "lsp", "data", thresholds=[0.1, 0.2])
    >>> result.total.tolist(), int(result.counted.sum())
    ([0.0, 0.0], 14000)

    Parameters
    ----------
    predictions : a file (.mat, .h5, .npz, .json), or (N, J, 2) in 0-based pixels; people and joints
        in the data set's order (joints of a file that names its parts may have any).
    dataset : "lsp", "flic" or "mpi" (its validation split).
    data : folder with ``lsp/``, ``flic/`` or ``mpii/``.
    measure : "pck", key points within a distance (PCKh on MPII); "pcp", limbs.
    norm : what an error is divided by; default: the paper's. PCP has none.
    annotation : "pc" or "oc" truth, where the data set has both; default: its first.
    thresholds : fractions of the reference length, or one; default: the benchmark's grid.

    Returns
    -------
    The curve of each joint (or limb) and in total, in percent.

    Raises
    ------
    CaffeCompatError : files that cannot be read; other people or joints than the data set has; a
        measure, norm or annotation that there is not; no thresholds.
    """
    if measure not in get_args(Measure):
        raise CaffeCompatError(f"no measure '{measure}'; there are {', '.join(get_args(Measure))}")
    grid = None if thresholds is None else np.atleast_1d(np.asarray(thresholds, np.float64))
    if grid is not None and not (grid.size and grid.ndim == 1 and np.isfinite(grid).all()):
        raise CaffeCompatError(f"thresholds {thresholds}: expected one number or several")
    benchmark = open_benchmark(dataset, data)
    if isinstance(predictions, str | os.PathLike):
        source, predicted = os.fspath(predictions), benchmark.read(predictions)
    else:
        source, predicted = "predictions", np.asarray(predictions, np.float64)
    by = chosen_norm(benchmark, norm, measure)
    kind = chosen_annotation(benchmark, annotation)
    return score(benchmark, predicted, measure, by, kind, grid, source)


def chosen_annotation(benchmark: Benchmark, annotation: str) -> str:
    """The kind of truth of a scoring: the one that is asked for, or the data set's first.

    Raises
    ------
    CaffeCompatError : the data set has no such truth.
    """
    if annotation and annotation not in benchmark.annotations:
        known = ", ".join(benchmark.annotations)
        raise CaffeCompatError(f"--annotation {annotation}: {benchmark.name} has {known}")
    return annotation or benchmark.annotations[0]


def chosen_norm(
    benchmark: Benchmark, norm: str, measure: Measure, *, of_script: bool = False
) -> str:
    """The norm of a scoring: the one that is asked for, the released script's, or the paper's.

    Raises
    ------
    CaffeCompatError : the benchmark has no such norm or no released script with another one, both
        were asked for, or PCP, which has none.
    """
    if of_script and (norm or measure == "pcp" or not benchmark.script_norm):
        scripts = [name for name, one in benchmarks().items() if one.script_norm]
        raise CaffeCompatError(
            f"--protocol release chooses the norm of PCK on {', '.join(scripts)}: it goes with no "
            "other data set, with no --norm and not with --measure pcp"
        )
    if norm and norm not in benchmark.norms:
        known = ", ".join(benchmark.norms)
        raise CaffeCompatError(f"--norm {norm}: {benchmark.name} has {known}")
    if norm and measure == "pcp":
        raise CaffeCompatError(
            "--norm has no meaning for PCP, which divides by each limb's own length"
        )
    return norm or (benchmark.script_norm if of_script else benchmark.paper_norm())


def score(
    benchmark: Benchmark,
    predicted: Floats,
    measure: Measure,
    norm: str,
    annotation: str,
    thresholds: Floats | None,
    source: str,
) -> EvalResult:
    """Predictions scored by a benchmark that is open; see :func:`evaluate`."""
    if measure == "pcp":
        return benchmark.score_limbs(
            predicted, annotation=annotation, thresholds=thresholds, source=source
        )
    return benchmark.score(
        predicted, norm=norm, annotation=annotation, thresholds=thresholds, source=source
    )
