"""What our numbers say to a claim of the paper: confirmed, contradicted or undecided.

A verdict never says more than its numbers. A difference counts where it is larger than the margin,
which is what two equally good networks may differ by in 95 of 100 cases, by their seeds and by the
choice of the test people. A claim of several parts is confirmed where all its parts are, and
contradicted where one of them is. It is undecided where the snapshot before the last one said the
opposite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reproduce.experiments.results import SEED, Floats, Result

Verdict = Literal["confirmed", "contradicted", "undecided"]
# Standard deviation of the PCK over seeds at 0.1 and 0.2, in points, where no network was trained
# twice. The pairs that come with the package have no larger one.
ASSUMED = {0.1: 0.6, 0.2: 0.35}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what our numbers say to it.

    Attributes
    ----------
    figure : the figure or section it stands in.
    text : the statement.
    published : the paper's numbers, as text.
    ours : our numbers, as text; "-" where there are none.
    verdict : what our numbers say.
    why : the rule, and what weakens it.
    source : what our number was made from.
    again : the command that makes it again.
    """

    figure: str
    text: str
    published: str
    ours: str
    verdict: Verdict
    why: str = ""
    source: str = ""
    again: str = ""

    @property
    def tested(self) -> bool:
        """Whether there are numbers of ours; where there are none, ``why`` says what is missing."""
        return self.ours != "-"


def absent(figure: str, text: str, published: str, why: str) -> Claim:
    """A claim without the numbers to test it: undecided."""
    return Claim(figure, text, published, "-", "undecided", why)


def equal(good: bool) -> Verdict:
    """A claim about a number that is exact on both sides: no margin, no doubt."""
    return "confirmed" if good else "contradicted"


def ahead(lead: float, margin: float) -> Verdict:
    """Rule for "one is better than the other": a lead beyond the margin, or a deficit beyond it."""
    if lead > margin:
        return "confirmed"
    return "contradicted" if lead < -margin else "undecided"


def best(leads: Iterable[tuple[float, float]]) -> Verdict:
    """Rule for "the best of all": ahead of each other one.

    Parameters
    ----------
    leads : (lead, margin) over each of the others, in points.
    """
    return together(ahead(lead, margin) for lead, margin in leads)


def within(difference: float, margin: float, limit: float) -> Verdict:
    """Rule for "about the same": inside the limit, whatever the margin adds to it."""
    if abs(difference) + margin <= limit:
        return "confirmed"
    return "contradicted" if abs(difference) - margin > limit else "undecided"


def together(parts: Iterable[Verdict]) -> Verdict:
    """A claim of several parts."""
    found = set(parts)
    if "contradicted" in found:
        return "contradicted"
    return "undecided" if "undecided" in found or not found else "confirmed"


def rises_then_stays(steps: Sequence[tuple[float, float]], top: int, limit: float) -> Verdict:
    """Rule for "rises up to here and is flat afterwards".

    Parameters
    ----------
    steps : (difference, margin) from each value to the next.
    top : how many of the steps rise; the others stay within ``limit``.
    """
    rising = [ahead(step, margin) for step, margin in steps[:top]]
    staying = [within(step, margin, limit) for step, margin in steps[top:]]
    return together([*rising, *staying])


def all_fall(ratios: Sequence[float]) -> Verdict:
    """Rule for "falls in all": every ratio of after to before is below 1.

    A growth by more than a tenth contradicts; a ratio that is not a number decides nothing.
    """
    if any(ratio > 1.1 for ratio in ratios):
        return "contradicted"
    fall = all(ratio < 1 for ratio in ratios)
    return "confirmed" if fall and ratios else "undecided"


def seeds_of(results: Mapping[str, Result], name: str) -> list[Result]:
    """All seeds of an experiment."""
    return [r for key, r in results.items() if key == name or key.startswith(name + SEED)]


def curve(runs: Sequence[Result]) -> tuple[Floats, Floats]:
    """Thresholds and the mean curve over the seeds."""
    return np.array(runs[0].thresholds), np.mean([r.total for r in runs], axis=0)


def at(runs: Sequence[Result], threshold: float) -> float:
    """Mean PCK at a threshold."""
    return float(np.mean([r.at(threshold) for r in runs]))


def noise(results: Mapping[str, Result], threshold: float = 0.2) -> tuple[float, int, int]:
    """Standard deviation of the PCK between trainings that differ in their seed alone.

    Returns
    -------
    The pooled deviation, of how many trainings, of how many networks. Where no network was trained
    more than once, it is :data:`ASSUMED`, of 0 trainings.
    """
    groups = [seeds_of(results, name) for name in results if SEED not in name]
    several = [[r.at(threshold) for r in group] for group in groups if len(group) > 1]
    if not several:
        return ASSUMED[threshold], 0, 0
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(float(((np.array(v) - np.mean(v)) ** 2).sum()) for v in several)
    return math.sqrt(squares / freedom), sum(map(len, several)), len(several)


def noise_text(results: Mapping[str, Result]) -> str:
    """Where the margins of the verdicts come from."""
    deviation, trainings, networks = noise(results)
    if not trainings:
        return f"Seeds are assumed to differ by {deviation:g} points; none was repeated"
    text = (
        f"Seeds differ by {deviation:.2f} points (standard deviation, {trainings} trainings of "
        f"{networks} networks)"
    )
    groups = [seeds_of(results, name) for name in results if SEED not in name]
    mixed = sum(len(_formats(group)) > 1 for group in groups)
    return f"{text}; {mixed} of these networks also in their number format" if mixed else text


def _formats(runs: Iterable[Result]) -> set[str]:
    """The number formats that some networks were trained in."""
    return {str(r.provenance.get("amp") or "float32") for r in runs if r.machine is None}


def formats_text(groups: Mapping[str, Sequence[Result]]) -> str:
    """Which networks were trained in which number format; "" where all are of one."""
    names: dict[str, list[str]] = {}
    for name, runs in groups.items():
        for found in sorted(_formats(runs)):
            names.setdefault(found, []).append(name)
    if len(names) < 2:
        return ""
    return "; ".join(f"{found}: {', '.join(who)}" for found, who in sorted(names.items()))


def lead(
    results: Mapping[str, Result],
    one: Sequence[Result],
    other: Sequence[Result],
    threshold: float = 0.2,
) -> tuple[float, float]:
    """By how many points of PCK the first network is ahead of the other, and the margin: what the
    two may differ by although they are equally good, 95 times of 100.

    The margin adds, as squares, what other seeds and what other test people would change. Student's
    quantile is taken for the seeds, so that a deviation estimated from few repeated trainings does
    not pass for a sure one; an assumed deviation counts twice. Where the hits of the people are not
    stored, the margin is infinite: such a difference decides nothing.
    """
    from scipy.stats import t

    deviation, trainings, networks = noise(results, threshold)
    factor = float(t.ppf(0.975, trainings - networks)) if trainings else 2.0
    seeds = factor * deviation * math.sqrt(1 / len(one) + 1 / len(other))
    difference, people = gap(one, other, threshold)
    margin = math.inf if math.isnan(people) else math.hypot(seeds, 1.96 * people)
    return difference, margin


def gap(
    one: Sequence[Result], other: Sequence[Result], threshold: float = 0.2
) -> tuple[float, float]:
    """Difference of two networks' PCK, and its standard error over the test people.

    The error is of the paired differences: what another thousand people would change, not what
    another training would. It is nan where the hits of people are not stored.
    """
    difference = at(one, threshold) - at(other, threshold)
    key = str(threshold)
    hits = [
        [r.hits_of_people[key] for r in runs if key in r.hits_of_people] for runs in (one, other)
    ]
    if not all(hits):
        return difference, math.nan
    parts = one[0].config.parts
    first, second = (100 * np.mean(found, axis=0) / parts for found in hits)
    return difference, float(np.std(first - second, ddof=1) / math.sqrt(len(first)))


def gap_text(one: Sequence[Result], other: Sequence[Result]) -> str:
    """``-2.1 points (± 0.5 over people)``."""
    difference, error = gap(one, other)
    spread = "" if math.isnan(error) else f" (± {error:.1f} over people)"
    return f"{difference:+.1f} points{spread}"


def text_of(runs: Sequence[Result], threshold: float = 0.2) -> str:
    """``61.3`` or, with several seeds, ``61.3 ± 0.4``."""
    values = [r.at(threshold) for r in runs]
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def last_rise(runs: Sequence[Result]) -> float:
    """By how many points the PCK@0.2 rose from the snapshot before to the last one; nan where that
    was not scored."""
    return float(np.mean([r.at(0.2) - r.earlier_at(0.2) for r in runs]))


def _before(runs: Sequence[Result]) -> float:
    """PCK@0.2 of the snapshot before the last one; trees have none and count as they are."""
    now_or_before = [r.at(0.2) if r.machine is not None else r.earlier_at(0.2) for r in runs]
    return float(np.mean(now_or_before))


def turned(results: Mapping[str, Result], groups: Mapping[str, Sequence[Result]]) -> list[str]:
    """Pairs of networks whose PCK@0.2 differs by more than their margin, and that stood the other
    way round at the snapshot before the last one: ``a above b`` as they stood."""
    found = []
    for one, other in itertools.permutations(groups, 2):
        now, edge = lead(results, groups[one], groups[other])
        before = _before(groups[one]) - _before(groups[other])
        if now > edge and before < 0:
            found.append(f"{other} above {one}")
    return found


def steady(
    verdict: Verdict,
    results: Mapping[str, Result],
    groups: Mapping[str, Sequence[Result]],
) -> Verdict:
    """The verdict, or "undecided" where the snapshot before the last one had another order."""
    return "undecided" if turned(results, groups) else verdict


def order_text(results: Mapping[str, Result], groups: Mapping[str, Sequence[Result]]) -> str:
    """Whether the order of networks was the same at the snapshot before the last one; differences
    within their margin are no order."""
    trained = [r for runs in groups.values() for r in runs if r.machine is None]
    earlier = [r.earlier for r in trained]
    if not trained or None in earlier:
        return "the snapshots before the last were not all scored"
    moments = {r.iterations - e.iteration for r, e in zip(trained, earlier, strict=True) if e}
    moment = f"{' or '.join(f'{n:,}' for n in sorted(moments))} iterations before the end"
    others = turned(results, groups)
    if not others:
        return f"the order was the same {moment}"
    return f"the order was another one {moment}: {', '.join(others)}"


def title(results: Mapping[str, Result], text: str) -> str:
    """A figure's title with profile and box, so that nobody takes it for the paper's own."""
    profiles = sorted({r.profile for r in results.values()})
    boxes = sorted({r.config.input_size for r in results.values()})
    sizes = " and ".join(f"{size} × {size}" for size in boxes)
    return f"{text}\nprofile {' and '.join(profiles)}, box of {sizes} pixels"
