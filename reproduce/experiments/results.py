"""What a training experiment measured, on disk and in memory.

One JSON file holds one :class:`Result`. Files are checked when they are read, so that figures meet
no missing or damaged number.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.foreign import read_json, reading
from reproduce.network import netgen

Floats = npt.NDArray[np.float64]
SEED = "-seed"  # behind the name of an experiment that is trained again with another seed
# Bins of log10 |g| of the gradients' histograms.
BINS = np.linspace(-14, 2, 65)
_BIN_COUNT = len(BINS) - 1


@dataclass(frozen=True)
class Earlier:
    """The score of the snapshot before the last one.

    Attributes
    ----------
    iteration : of that snapshot.
    total : PCK in percent at the thresholds of the result.
    """

    iteration: int
    total: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """What one experiment measured.

    Attributes
    ----------
    experiment : its name in the plan.
    profile : the profile of the plan.
    scheme : training scheme of Figure 6b.
    config : the network.
    iterations : of each of its trainings.
    batch : images in one iteration, of all processes together.
    seed : of fillers, order and augmentation.
    people : LSP test people that were scored.
    thresholds : normalised distances, increasing.
    total : PCK in percent at each threshold, mean over all joints.
    provenance : command, data, hardware, versions and date.
    records : training people, or 0 where it is not told.
    processes : that trained together.
    search : test scales; none where they are not told.
    after : the experiment whose weights it started from, or "".
    hits_of_people : for a threshold as text, how many joints of each person were found.
    gradients : for an iteration as text, histograms of log10 |g| by ``LAYER/weight``.
    final_losses : of each stage at the end.
    seconds : of training, or 0 where it was not measured.
    earlier : the score of the snapshot before, or None.
    machine : settings of the Pose Machine, or None for a network.
    """

    experiment: str
    profile: str
    scheme: str
    config: netgen.CPMConfig
    iterations: int
    batch: int
    seed: int
    people: int
    thresholds: tuple[float, ...]
    total: tuple[float, ...]
    provenance: Mapping[str, Any]
    records: int = 0
    processes: int = 1
    search: tuple[float, ...] = ()
    after: str = ""
    hits_of_people: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    gradients: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict)
    final_losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    earlier: Earlier | None = None
    machine: Mapping[str, Any] | None = None

    def at(self, threshold: float) -> float:
        """PCK at a threshold, in percent."""
        return float(np.interp(threshold, self.thresholds, self.total))

    def earlier_at(self, threshold: float) -> float:
        """PCK of the snapshot before the last one; nan where none was scored."""
        if self.earlier is None:
            return float("nan")
        return float(np.interp(threshold, self.thresholds, self.earlier.total))

    def epoch(self, iteration: int) -> int:
        """The epoch, from 1, in which an iteration (from 0) falls.

        It is 1 where the number of training people is not told.
        """
        return iteration * self.batch // self.records + 1 if self.records else 1


_NEEDED = tuple(
    f.name
    for f in dataclasses.fields(Result)
    if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
)
_KEPT = tuple(f.name for f in dataclasses.fields(Result))


def stored_folder(profile: str) -> Path:
    """Folder of the results that come with the package."""
    return Path(str(resources.files("reproduce"))) / "results" / profile


def read_results(folder: Path) -> dict[str, Result]:
    """Results of a folder by experiment; empty where the folder is missing.

    Raises
    ------
    DataError : a file that is no result, or results that cannot stand in one figure.
    """
    # a hidden file is one that is just being written, or was when its process was killed
    files = sorted(folder.glob("[!.]*.json")) if folder.is_dir() else []
    found: dict[str, Result] = {}
    first_seeds: dict[str, Result] = {}
    for path in files:
        result = read_result(path)
        if result.experiment in found:
            raise DataError(f"{path}: another file of {folder} holds {result.experiment}, too")
        _check_alike(path, result, next(iter(found.values()), result), _MEASURED)
        training = result.experiment.partition(SEED)[0]
        _check_alike(path, result, first_seeds.setdefault(training, result), _TRAINED)
        found[result.experiment] = result
    return found


# What all results of a figure have in common, and what further seeds of one training have.
_MEASURED = ("profile", "people", "search", "thresholds")
_TRAINED = ("config", "scheme", "iterations", "batch", "records", "machine")


def _check_alike(path: Path, result: Result, other: Result, fields: Sequence[str]) -> None:
    """Refuse a result that differs from another one of its folder in one of some fields."""
    for name in fields:
        if getattr(result, name) != getattr(other, name):
            raise DataError(
                f"{path}: has other {name} than {other.experiment} in the same folder; results of "
                "one figure are measured alike, and further seeds of a training differ in nothing "
                "else: give each kind a folder of its own"
            )


def read_result(path: Path) -> Result:
    """One result.

    Raises
    ------
    DataError : the file is no result, or it is damaged.
    """
    what, advice = "result of an experiment", "remove it to make it again"
    content = read_json(path, what, advice=advice)
    lacking = _NEEDED if not isinstance(content, dict) else [n for n in _NEEDED if n not in content]
    if lacking:
        lacks = ", ".join(sorted(lacking))
        raise DataError(f"{path}: is no {what}, it lacks {lacks}; {advice}")
    with reading(path, what, advice=advice):
        return _parse(content)


def _parse(content: Mapping[str, Any]) -> Result:
    """The result in a file's content; raises what a wrong type raises."""
    values = {name: content[name] for name in _KEPT if name in content}
    values["config"] = netgen.CPMConfig.of(content["config"])
    values["thresholds"] = _numbers(content["thresholds"])
    values["total"] = _numbers(content["total"])
    if len(values["total"]) != len(values["thresholds"]):
        raise ValueError("'total' and 'thresholds' have different lengths")
    for name in ("iterations", "batch", "seed", "people"):
        values[name] = int(content[name])
    if (earlier := content.get("earlier")) is not None:
        values["earlier"] = Earlier(int(earlier["iteration"]), _numbers(earlier["total"]))
        if len(values["earlier"].total) != len(values["thresholds"]):
            raise ValueError("'total' of 'earlier' and 'thresholds' have different lengths")
    for name in ("experiment", "profile", "scheme"):
        if not isinstance(content[name], str):
            raise TypeError(f"'{name}' is no text")
    for name in ("provenance", "final_losses", "gradients", "hits_of_people"):
        if not isinstance(content.get(name, {}), Mapping):
            raise TypeError(f"'{name}' is no object")
    about = content["provenance"]
    values["processes"] = int(about.get("processes", 1))
    # results of version 0.1 tell it in words
    told = re.search(r"(\d+) people", str(about.get("data", "")))
    values["records"] = int(content.get("records", told[1] if told else 0))
    if values["records"] < 0 or values["processes"] < 1:
        raise ValueError("'records' or 'processes' is no count")
    values["search"] = _numbers(content.get("search", ()))
    values["seconds"] = float(content.get("seconds", 0.0))
    values["final_losses"] = {k: float(v) for k, v in content.get("final_losses", {}).items()}
    if (machine := content.get("machine")) is not None:
        values["machine"] = {**machine, "trees": int(machine["trees"])}
        values["machine"]["images"] = int(machine["images"])
    hits = content.get("hits_of_people", {})
    values["hits_of_people"] = {key: tuple(map(int, found)) for key, found in hits.items()}
    if any(len(found) != values["people"] for found in values["hits_of_people"].values()):
        raise ValueError("'hits_of_people' has not as many entries as there are 'people'")
    for mark, layers in content.get("gradients", {}).items():
        int(mark)
        if any(len(counts) != _BIN_COUNT for counts in layers.values()):
            raise ValueError(f"a histogram of 'gradients' has not {_BIN_COUNT} bins")
    return Result(**values)


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not np.isfinite(found).all():
        raise ValueError("a number that is not finite")
    return found


HEAD = (
    "experiment",
    "scheme",
    "stages",
    "iterations × batch",
    "minutes",
    "PCK@0.1",
    "PCK@0.2",
    "PCK@0.2 one snapshot before",
    "people",
    "made",
)


def rows(results: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """Every result with its provenance, as text under :data:`HEAD`."""
    found: list[tuple[str, ...]] = []
    for name, result in sorted(results.items()):
        work, scheme = f"{result.iterations} × {result.batch}", result.scheme
        if result.machine is not None:
            work = f"{result.machine['trees']} rounds, {result.machine['images']} images"
            scheme = "boosted trees"
        about = dict(result.provenance)
        if result.machine is None:
            about["numbers"] = about.get("amp") or "float32"
        about["commit"] = f"commit {about.get('commit') or 'not kept'}"
        told = [
            about[k]
            for k in ("machine", "device", "numbers", "date", "version", "commit")
            if about.get(k)
        ]
        before = "-" if result.earlier is None else f"{result.earlier_at(0.2):.2f}"
        found.append(
            (
                name,
                scheme,
                str(result.config.stages),
                work,
                f"{result.seconds / 60:.0f}" if result.seconds else "-",
                f"{result.at(0.1):.2f}",
                f"{result.at(0.2):.2f}",
                before,
                str(result.people),
                ", ".join(map(str, told)),
            )
        )
    return found
