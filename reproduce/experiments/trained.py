"""What Figures 4, 5 and 6 share: results of experiments on disk, and claims compared with them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from reproduce.network import netgen
from reproduce.people.skeletons import LSP_JOINTS

Floats = npt.NDArray[np.float64]
ASSUMED = 0.35  # points between two seeds of a network, where none was repeated
Verdict = Literal["confirmed", "not confirmed", "not testable here"]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what our numbers say to it.

    Attributes
    ----------
    figure, text : where and what. published, ours : numbers as text. verdict, why : in words.
    source : what our number was made from. again : the command that makes it again.
    """

    figure: str
    text: str
    published: str
    ours: str
    verdict: Verdict
    why: str = ""
    source: str = ""
    again: str = ""


def verdict(good: bool) -> Verdict:
    """The word for a claim that was tested."""
    return "confirmed" if good else "not confirmed"


def config(run: Mapping[str, Any]) -> netgen.CPMConfig:
    """The network of a result."""
    return netgen.CPMConfig(**{**run["config"], "towers": tuple(run["config"]["towers"])})


def epoch(run: Mapping[str, Any], iteration: int) -> int:
    """The epoch, from 1, in which an iteration (from 0) falls; 1 where the number of people is not
    told."""
    found = re.search(r"(\d+) people", run["provenance"]["data"])
    return iteration * run["batch"] // int(found[1]) + 1 if found else 1


def stored(profile: str) -> Path:
    """Folder of the results that come with the package."""
    return Path(str(resources.files("reproduce"))) / "results" / profile


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Results of a folder by experiment.

    Raises
    ------
    DataError : a file that is no result.
    """
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return {content["experiment"]: content for content in map(read_one, files)}


def read_one(path: Path) -> dict[str, Any]:
    """One result.

    Raises
    ------
    DataError : it is none, or cut off.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a result of an experiment ({error}); remove it to make "
            "it again"
        ) from None
    needed = {
        "experiment",
        "profile",
        "config",
        "iterations",
        "batch",
        "seed",
        "scheme",
        "people",
        "thresholds",
        "total",
        "provenance",
    }
    if not isinstance(content, dict) or (lacking := sorted(needed - content.keys())):
        lacks = ", ".join(lacking) if isinstance(content, dict) else "everything"
        raise DataError(
            f"{path}: is no result of an experiment, it lacks {lacks}; remove it to make it again"
        )
    return content


HEAD = (
    "experiment",
    "scheme",
    "stages",
    "iterations × batch",
    "minutes",
    "PCK@0.1",
    "PCK@0.2",
    "people",
    "made",
)


def rows(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Every result with its provenance, as text under :data:`HEAD`."""
    found = []
    for name, r in sorted(results.items()):
        about, by, scheme = r["provenance"], f"{r['iterations']} × {r['batch']}", r["scheme"]
        if "machine" in r:
            by, scheme = (
                f"{r['machine']['trees']} rounds, {r['machine']['images']} images",
                "boosted trees",
            )
        minutes = f"{r['seconds'] / 60:.0f}" if "seconds" in r else "-"
        made = ", ".join(
            str(about[k]) for k in ("machine", "device", "date", "commit") if about.get(k)
        )
        scores = [f"{at([r], t):.2f}" for t in (0.1, 0.2)]
        found.append(
            (name, scheme, str(r["config"]["stages"]), by, minutes, *scores, str(r["people"]), made)
        )
    return found


def seeds_of(results: Mapping[str, Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """All seeds of an experiment."""
    return [r for key, r in results.items() if key == name or key.startswith(f"{name}-seed")]


def curve(runs: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    """Thresholds and the mean curve over the seeds."""
    return np.array(runs[0]["thresholds"]), np.mean([r["total"] for r in runs], axis=0)


def at(runs: Sequence[Mapping[str, Any]], threshold: float) -> float:
    """Mean PCK at a threshold."""
    x, y = curve(runs)
    return float(np.interp(threshold, x, y))


def noise(
    results: Mapping[str, Mapping[str, Any]], threshold: float = 0.2
) -> tuple[float, int, int]:
    """Standard deviation of the PCK between trainings that differ in their seed, pooled; how many
    trainings and networks.

    Without any network that was trained more than once it is :data:`ASSUMED`, of 0 trainings.
    """
    runs = [seeds_of(results, name) for name in results if "-seed" not in name]
    several = [
        [float(np.interp(threshold, r["thresholds"], r["total"])) for r in group]
        for group in runs
        if len(group) > 1
    ]
    if not several:
        return ASSUMED, 0, 0
    freedom = sum(len(v) - 1 for v in several)
    pooled = float(np.sqrt(sum(((np.array(v) - np.mean(v)) ** 2).sum() for v in several) / freedom))
    return pooled, sum(map(len, several)), len(several)


def noise_text(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the margins of the verdicts come from."""
    deviation, trainings, networks = noise(results)
    if not trainings:
        return f"Seeds are assumed to differ by {deviation:g} points; none was repeated"
    return (
        f"Seeds differ by {deviation:.2f} points (standard deviation, {trainings} trainings "
        f"of {networks} networks)"
    )


def margin(
    results: Mapping[str, Mapping[str, Any]],
    one: Sequence[Mapping[str, Any]],
    other: Sequence[Mapping[str, Any]],
) -> float:
    """What two networks' PCK may differ by although they are equally good, 95 times of 100.

    Student's quantile, so that a deviation estimated from few repeated trainings does not pass for
    a sure one; an assumed deviation counts twice.
    """
    from scipy.stats import t

    deviation, trainings, networks = noise(results)
    factor = float(t.ppf(0.975, trainings - networks)) if trainings else 2.0
    return factor * deviation * math.sqrt(1 / len(one) + 1 / len(other))


def gap(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], threshold: float = 0.2
) -> tuple[float, float]:
    """Difference of two networks' PCK, and its standard error over the test people (nan where they
    are not stored).

    The error is of the paired differences: what another thousand people would change, not what
    another training would.
    """
    difference = at(one, threshold) - at(other, threshold)
    key = str(threshold)
    people = [
        [r["hits_of_people"][key] for r in runs if "hits_of_people" in r] for runs in (one, other)
    ]
    if not all(people):
        return difference, math.nan
    first, second = (100 * np.mean(hits, axis=0) / len(LSP_JOINTS) for hits in people)
    return difference, float(np.std(first - second, ddof=1) / math.sqrt(len(first)))


def gap_text(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """``-2.1 points (± 0.5 over people)``."""
    difference, error = gap(one, other)
    return f"{difference:+.1f} points" + (
        "" if math.isnan(error) else f" (± {error:.1f} over people)"
    )


def text_of(runs: Sequence[Mapping[str, Any]], threshold: float = 0.2) -> str:
    """``61.3`` or, with several seeds, ``61.3 ± 0.4``."""
    values = [float(np.interp(threshold, r["thresholds"], r["total"])) for r in runs]
    return f"{np.mean(values):.1f}" + (
        f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    )


def absent(figure: str, text: str, published: str, why: str) -> Claim:
    """A claim without the numbers to test it."""
    return Claim(figure, text, published, "-", "not testable here", why)
