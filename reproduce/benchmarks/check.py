"""The regression check: published numbers against ours, on whatever data are present."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from caffe_compat.errors import CaffeCompatError
from reproduce.benchmarks.benchmark import Benchmark, Missing
from reproduce.benchmarks.published import published
from reproduce.benchmarks.registry import benchmarks, open_benchmark
from reproduce.network.identify import models_folder

_ROUNDING = 1e-9  # the difference of two printed numbers may be off by this much


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One check.

    Attributes
    ----------
    name : what is checked.
    published : the published number or numbers.
    ours : our numbers; None where data are missing.
    difference : the largest, ours less published.
    tolerance : the largest difference that counts as equal.
    verdict : "equal", "differs", "missing" or "refused" (a file is there and cannot be used).
    source : where the published number stands.
    missing : which file is not there, and where it is to be had; or why it is refused.
    """

    name: str
    published: list[float]
    ours: list[float] | None
    difference: float | None
    tolerance: float
    verdict: str
    source: str
    missing: str = ""


def measure(check: Mapping[str, Any], benchmark: Benchmark) -> list[float]:
    """Our value(s) of a check.

    Raises
    ------
    Missing : a file that it needs is not there.
    """
    result = benchmark.score_file(check["file"], norm=check.get("norm", ""))
    if check["measure"] == "auc":
        return [result.auc]
    if check["measure"] == "lead":
        other = benchmark.score_file(check["other"])
        return [
            float(result.total[result.at(t)] - other.total[other.at(t)]) for t in check["threshold"]
        ]
    at = result.at(check["threshold"])
    if check["measure"] == "hits":
        return [float(result.hits[at].sum())]
    if check["measure"] == "total":
        return [float(result.total[at])]
    if check["measure"] == "groups":
        names = check.get("groups", list(benchmark.groups))
        return [result.group(benchmark.groups[name], check["threshold"]) for name in names]
    raise CaffeCompatError(f"published.toml: unknown measure '{check['measure']}'")


def run(root: str | os.PathLike[str], names: Sequence[str] | None = None) -> list[Outcome]:
    """Every check of published.toml, or those of some benchmarks."""
    table = published()
    opened = {name: open_benchmark(name, root) for name in benchmarks()}
    outcomes = []
    for check in table["check"]:
        benchmark = opened[check["benchmark"]]
        if names is not None and benchmark.name not in names:
            continue
        value = check["value"] if isinstance(check["value"], list) else [check["value"]]
        expected = [float(v) for v in value]
        outcomes.append(
            _outcome(check["name"], expected, check, partial(measure, check, benchmark))
        )
    for name, benchmark in opened.items():
        if names is None or name in names:
            files = sorted(models_folder().glob(f"*/{name}_predictions.json"))
            outcomes += [_embedded(file, benchmark) for file in files]
    return outcomes


def _embedded(file: Path, benchmark: Benchmark) -> Outcome:
    """The stored score of a model in models/ against its stored predictions, scored anew."""
    stored = json.loads((file.parent / "score.json").read_text(encoding="utf-8"))
    label = f"{benchmark.stem}-{benchmark.annotations[0].upper()}"
    name = f"{file.parent.name} (embedded model), {label}, joints within {benchmark.threshold:g}"
    source = "stored when the model was embedded; not a published number"
    about = {"tolerance": 0, "source": source}

    def hits() -> list[float]:
        result = benchmark.score(benchmark.read(file), source=str(file))
        return [float(result.hits[result.at(benchmark.threshold)].sum())]

    return _outcome(name, [stored["hits"]], about, hits)


def _outcome(
    name: str,
    expected: list[float],
    about: Mapping[str, Any],
    measured: Callable[[], list[float]],
) -> Outcome:
    """The verdict on our numbers.

    Parameters
    ----------
    about : has the tolerance and the source.
    measured : gives our numbers, or raises what is wrong with the data.
    """
    ours, difference = None, None
    verdict, missing = "missing", ""
    try:
        ours = measured()
    except Missing as error:
        missing = str(error)
    except CaffeCompatError as error:
        verdict, missing = "refused", str(error)
    else:
        differences = [a - b for a, b in zip(ours, expected, strict=True)]
        difference = max(differences, key=lambda d: (math.isnan(d), abs(d)))
        verdict = "equal" if abs(difference) <= about["tolerance"] + _ROUNDING else "differs"
    return Outcome(
        name=name,
        published=expected,
        ours=ours,
        difference=difference,
        tolerance=about["tolerance"],
        verdict=verdict,
        source=about["source"],
        missing=missing,
    )
