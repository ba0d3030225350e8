"""Figure 4: accuracy against the size of the receptive field, one-stage networks with about the
same number of parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reproduce.benchmarks.published import published
from reproduce.drawing.curves import Curve, draw, files_of, write_numbers
from reproduce.experiments.plans import PROFILES, SHARES, field_of, of_fig4
from reproduce.experiments.results import Result
from reproduce.figures import verdicts
from reproduce.figures.verdicts import Claim, Verdict

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
        if "-seed" in name or not _belongs(name, result):
            continue
        size = field_of(result.config)
        score = verdicts.at(verdicts.seeds_of(results, name), 0.2)
        found.append(Point(name, size, size / result.config.input_size, score))
    return sorted(found, key=lambda point: point.field)


def _belongs(name: str, result: Result) -> bool:
    """Is a network one of the figure's? Some profiles share Figure 6c's network of one stage with
    it, others have that one at another size."""
    if name != "joint-1":
        return name.startswith("field-")
    if result.profile not in PROFILES:
        return False
    planned = of_fig4(PROFILES[result.profile], stages=1, seeds=1)
    return (name, result.config) in [(one.name, one.config) for one in planned]


def saturation() -> float:
    """The share of the box at which the paper's curve saturates."""
    said = published()["fig4"]
    return float(said["saturates"]) / float(said["box"])


def _place_text() -> str:
    """Where the paper's curve saturates, as text beside the line in the picture."""
    said = published()["fig4"]
    return (
        f"the paper's curve\nsaturates: {saturation():.0%}\n"
        f"({said['saturates']} of {said['box']} px, {said['data']})"
    )


def claims(results: Mapping[str, Result], stages: int) -> list[Claim]:
    """The paper's statements about Figure 4."""
    said = published()["fig4"]
    grow = "accuracy grows with the receptive field and saturates"
    place = "it saturates at the paper's share of the box"
    wanted = f"{said['saturates']} of {said['box']} px ({saturation():.0%}) on {said['data']}"
    points = fields(results)
    if len(points) < len(SHARES):
        why = f"{len(points)} of {len(SHARES)} networks trained"
        return [
            verdicts.absent("Figure 4", grow, "grows, saturates", why),
            verdicts.absent("Figure 4", place, wanted, why),
        ]
    groups = {p.experiment: verdicts.seeds_of(results, p.experiment) for p in points}
    runs = list(groups.values())

    def rise(one: int, other: int) -> tuple[float, float]:
        """From one network to another one, in points, and its margin."""
        return verdicts.lead(results, runs[other], runs[one])

    last = len(points) - 1
    top = min(range(len(points)), key=lambda i: abs(points[i].share - saturation()))
    grows = verdicts.ahead(*rise(0, top))
    # an undecided step does not make the growth from end to end doubtful, a fall does
    pairs = itertools.combinations(range(top + 1), 2)
    falls = [v for v in (verdicts.ahead(*rise(*pair)) for pair in pairs) if v == "contradicted"]
    stays = verdicts.within(*rise(top, last), FLAT)
    verdict = verdicts.steady(verdicts.together([grows, stays, *falls]), results, groups)
    ours = ", ".join(f"{p.field} px ({p.share:.0%}) {p.score:.1f}" for p in points)
    formats = verdicts.formats_text({f"{p.field} px": groups[p.experiment] for p in points})
    why = (
        f"confirmed where it is higher at {points[top].share:.0%} of the box than at "
        f"{points[0].share:.0%}, no larger field up to there is worse than a smaller one by more "
        f"than the margin, and from there to {points[-1].share:.0%} it stays within {FLAT:g} "
        f"points; {verdicts.order_text(results, groups)}. {verdicts.noise_text(results)}"
        f"{f'. Trained in {formats}' if formats else ''}"
    )
    found = [Claim("Figure 4", grow, "grows, saturates", ours, verdict, why)]
    rises = [[rise(i, j) for j in range(i + 1, last + 1)] for i in range(last + 1)]
    earliest, latest = saturates_between(rises, FLAT)
    after = next((i for i, p in enumerate(points) if p.share >= saturation()), last)
    near = range(max(after - 1, 0), after + 1)
    ours = f"{points[earliest].share:.0%}"
    if latest > earliest:
        ours += f" to {points[latest].share:.0%}"
    why = (
        f"the smallest field that no larger one beats by more than {FLAT:g} points; confirmed "
        "where it is, whatever the margins add, one of the two next to the paper's place, "
        f"{' and '.join(f'{points[i].share:.0%}' for i in near)}, though {said['data']} shows "
        "upper bodies and Leeds whole people; "
        f"{verdicts.order_text(results, groups)}"
    )
    verdict = verdicts.together([grows, _is_among(near, earliest, latest)])
    verdict = verdicts.steady(verdict, results, groups)
    return [*found, Claim("Figure 4", place, wanted, ours, verdict, why)]


def saturates_between(
    rises: Sequence[Sequence[tuple[float, float]]], limit: float
) -> tuple[int, int]:
    """The first network that saturation may begin at, and the first that it surely has begun at.

    Parameters
    ----------
    rises : for each network, (difference, margin) to each larger one, in points.
    limit : what larger ones may be better by where it has begun.
    """
    may = (i for i, larger in enumerate(rises) if all(d - edge <= limit for d, edge in larger))
    sure = (i for i, larger in enumerate(rises) if all(d + edge <= limit for d, edge in larger))
    return next(may), next(sure)  # nothing is larger than the last one: it is among both


def _is_among(near: Sequence[int], earliest: int, latest: int) -> Verdict:
    """Whether saturation begins at one of these networks, when it begins between these two."""
    if earliest in near and latest in near:
        return "confirmed"
    return "contradicted" if latest < min(near) or earliest > max(near) else "undecided"


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
        line=(100 * saturation(), _place_text()),
    )
    return files_of(path)
