"""What Figures 4, 5 and 6 share: results of experiments on disk, and claims compared with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Verdict = Literal["confirmed", "not confirmed", "not testable here"]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what our numbers say to it.

    Attributes
    ----------
    figure, text : where and what. published, ours : numbers as text. verdict, why : in words.
    """

    figure: str
    text: str
    published: str
    ours: str
    verdict: Verdict
    why: str = ""


def stored(profile: str) -> Path:
    """Folder of the results that come with the package."""
    return Path(str(resources.files("reproduce"))) / "results" / profile


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Results of a folder by experiment."""
    found = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        content = json.loads(path.read_text(encoding="utf-8"))
        found[content["experiment"]] = content
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


def text_of(runs: Sequence[Mapping[str, Any]], threshold: float = 0.2) -> str:
    """``61.3`` or, with several seeds, ``61.3 ± 0.4``."""
    values = [float(np.interp(threshold, r["thresholds"], r["total"])) for r in runs]
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def absent(figure: str, text: str, published: str, why: str) -> Claim:
    """A claim without the numbers to test it."""
    return Claim(figure, text, published, "-", "not testable here", why)
