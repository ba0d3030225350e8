"""Figure 4: accuracy against the size of the receptive field, one-stage networks with about the
same number of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reproduce.benchmarks.check import published
from reproduce.drawing.curves import Curve, draw, write_numbers
from reproduce.experiments.plans import SHARES, field_of
from reproduce.experiments.results import Result
from reproduce.figures import verdicts
from reproduce.figures.verdicts import Claim

FLAT = 2.0  # points: what "saturates" allows beyond the paper's place of saturation


@dataclass(frozen=True)
class Point:
    """One network of the figure.

    Attributes
    ----------
    experiment : its name.
    field : receptive field in pixels of the input, from the graph.
    share : the same as a share of the box.
    score : PCK@0.2 in percent, mean over the seeds.
    """

    experiment: str
    field: int
    share: float
    score: float


def fields(results: Mapping[str, Result]) -> list[Point]:
    """The networks of the figure that have a result, by field."""
    found = []
    for name, result in results.items():
        if not (name == "joint-1" or name.startswith("field-")) or "-seed" in name:
            continue
        size = field_of(result.config)
        score = verdicts.at(verdicts.seeds_of(results, name), 0.2)
        found.append(Point(name, size, size / result.config.input_size, score))
    return sorted(found, key=lambda point: point.field)


def saturation() -> float:
    """The share of the box at which the paper's curve saturates."""
    said = published()["fig4"]
    return float(said["saturates"]) / float(said["box"])


def claims(results: Mapping[str, Result], stages: int) -> list[Claim]:
    """The paper's statement about Figure 4."""
    said = published()["fig4"]
    text = "accuracy grows with the receptive field and saturates"
    wanted = f"grows, saturates near {said['saturates']} of {said['box']} px ({saturation():.0%})"
    points = fields(results)
    if len(points) < len(SHARES):
        why = f"{len(points)} of {len(SHARES)} networks trained"
        return [verdicts.absent("Figure 4", text, wanted, why)]
    top = min(range(len(points)), key=lambda i: abs(points[i].share - saturation()))
    runs = [verdicts.seeds_of(results, point.experiment) for point in points]

    def step(one: int, other: int) -> tuple[float, float]:
        edge = verdicts.margin(results, runs[one], runs[other])
        return points[other].score - points[one].score, edge

    grows = verdicts.ahead(*step(0, top))
    falls = [verdicts.ahead(*step(i, i + 1)) for i in range(top)]
    stays = verdicts.within(*step(top, len(points) - 1), FLAT)
    # an undecided single step does not make the growth from end to end doubtful, a fall does
    verdict = verdicts.together([grows, stays, *(f for f in falls if f == "contradicted")])
    ours = ", ".join(f"{p.field} px ({p.share:.0%}) {p.score:.1f}" for p in points)
    why = (
        f"confirmed where it is higher at {points[top].share:.0%} of the box than at "
        f"{points[0].share:.0%}, no step on the way falls, and from there to "
        f"{points[-1].share:.0%} it stays within {FLAT:g} points; "
        f"{verdicts.order_text({p.experiment: r for p, r in zip(points, runs, strict=True)})}. "
        f"{verdicts.noise_text(results)}"
    )
    return [Claim("Figure 4", text, wanted, ours, verdict, why)]


def make(
    results: Mapping[str, Result],
    out: Path,
    about: Mapping[str, Any],
    stages: int = 3,
    data: Path | None = None,
) -> list[Path]:
    """Numbers and picture of what there is; ``data`` is for Figure 6 alone."""
    points = fields(results)
    if not points:
        return []
    shares, scores = (np.array([getattr(p, name) for p in points]) for name in ("share", "score"))
    line = Curve("one stage, about equal parameters", 100 * shares, scores)
    shown = {p.experiment: results[p.experiment] for p in points}
    path = out / "fig04"
    panels = {"PCK@0.2 on Leeds Sports Pose, one stage": [line]}
    pixels = {p.experiment: p.field for p in points}
    write_numbers(panels, path, {**about, "receptive fields in pixels": pixels})
    draw(
        panels,
        path,
        xlabel="receptive field, % of the box's side",
        ylabel="PCK@0.2, %",
        columns=1,
        at=float(line.x[-1]),
        title=verdicts.title(shown, "Receptive field"),
        points=True,
        line=(100 * saturation(), "the paper's saturates"),
    )
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
