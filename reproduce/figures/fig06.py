"""Figure 6: the training schemes, the number of stages, and the distance to the Pose Machine, on Leeds Sports Pose (PC)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import training
from .common import Curve, draw, write_numbers
from .training import Claim

SCHEMES = {
    "(i) joint, intermediate supervision": "joint-{}",
    "(ii) stage-wise": "stage-wise-{}",
    "(iii) fine-tuned from (ii)": "fine-tuned-{}",
    "(iv) no intermediate supervision": "no-supervision-{}",
}
LEAD = 10.0
NOISE = 1.0  # points: what two seeds of one network may differ by


def claims(results: Mapping[str, Mapping[str, Any]], stages: int) -> list[Claim]:
    """The paper's statements about Figure 6."""
    runs = {label: training.seeds_of(results, name.format(stages)) for label, name in SCHEMES.items()}
    joint, wise, tuned, bare = runs.values()
    found = []
    best = "(b) joint training from scratch with intermediate supervision is the best of the four schemes"
    if all(runs.values()):
        values = {label: training.at(r, 0.2) for label, r in runs.items()}
        ours = ", ".join(f"{label.split(' ')[0]} {training.text_of(r)}" for label, r in runs.items())
        top = max(values.values())
        verdict: training.Verdict = "confirmed" if training.at(joint, 0.2) >= top - NOISE else "not confirmed"
        found.append(Claim("6", best, "(i) highest", ours, verdict, f"within {NOISE:g} point counts as equal"))
    else:
        missing = ", ".join(label for label, r in runs.items() if not r)
        found.append(training.absent("6", best, "(i) highest", f"not trained yet: {missing}"))
    pairs = (
        ("(b) stage-wise training saturates lower", wise, joint, -1),
        ("(b) without intermediate supervision the result is worse", bare, joint, -1),
        ("(b) joint fine-tuning of the stage-wise network comes close to (i)", tuned, joint, 0),
    )
    for text, one, other, sign in pairs:
        if not one or not other:
            found.append(training.absent("6", text, "lower" if sign else "close", "not trained yet"))
            continue
        gap = training.at(one, 0.2) - training.at(other, 0.2)
        good = gap < -NOISE if sign else gap > -3 * NOISE
        said: training.Verdict = "confirmed" if good else "not confirmed"
        found.append(Claim("6", text, "lower" if sign else "close", f"{gap:+.1f} points", said))
    by_stage = {t: training.seeds_of(results, f"joint-{t}") for t in range(1, 7)}
    text = "(c) accuracy rises to 5 stages and is flat at 6"
    if all(by_stage.values()):
        scores = [training.at(r, 0.2) for r in by_stage.values()]
        rising = scores[4] > scores[0] and all(b > a - NOISE for a, b in itertools.pairwise(scores[:5]))
        flat = abs(scores[5] - scores[4]) <= 2 * NOISE
        ours = ", ".join(training.text_of(r) for r in by_stage.values())
        found.append(Claim("6", text, "rises to 5, flat at 6", ours, "confirmed" if rising and flat else "not confirmed"))
    else:
        missing = ", ".join(str(t) for t, r in by_stage.items() if not r)
        found.append(training.absent("6", text, "rises to 5, flat at 6", f"not trained yet: stages {missing}"))
    return [*found, _lead(training.seeds_of(results, f"pose-machine-{stages}"), joint, stages)]


def _lead(machine: list[Mapping[str, Any]], joint: list[Mapping[str, Any]], stages: int) -> Claim:
    """Figure 6a: the distance to the Pose Machine at 0.1 and 0.2."""
    text = "(a) the 3-stage network leads the Pose Machine by 42.4 points at 0.1 and 30.9 at 0.2"
    if stages != 3 or not machine or not joint:
        return training.absent("6", text, "+42.4, +30.9", "the Pose Machine or the network is not trained yet")
    leads = [training.at(joint, t) - training.at(machine, t) for t in (0.1, 0.2)]
    both = f"network {training.text_of(joint)}, Pose Machine {training.text_of(machine)} at 0.2"
    ours = f"{leads[0]:+.1f}, {leads[1]:+.1f} ({both})"
    good = all(abs(lead - wanted) <= LEAD for lead, wanted in zip(leads, (42.4, 30.9), strict=True))
    why = f"a lead within {LEAD:g} points of the published one counts; both are smaller than the paper's"
    return Claim("6", text, "+42.4, +30.9", ours, "confirmed" if good else "not confirmed", why)


def make(results: Mapping[str, Mapping[str, Any]], out: Path, about: Mapping[str, Any], stages: int = 3) -> list[Path]:
    """Numbers and picture of what there is."""
    panels: dict[str, list[Curve]] = {}
    versus = {
        f"network, {stages} stages": training.seeds_of(results, f"joint-{stages}"),
        f"Pose Machine, {stages} stages": training.seeds_of(results, f"pose-machine-{stages}"),
    }
    if all(versus.values()):
        panels["(a) against the Pose Machine"] = [Curve(label, *training.curve(runs)) for label, runs in versus.items()]
    schemes = {label: training.seeds_of(results, name.format(stages)) for label, name in SCHEMES.items()}
    if any(schemes.values()):
        panels[f"(b) training schemes, {stages} stages"] = [
            Curve(label, *training.curve(runs)) for label, runs in schemes.items() if runs
        ]
    counts = {t: training.seeds_of(results, f"joint-{t}") for t in range(1, 7)}
    if any(counts.values()):
        panels["(c) number of stages"] = [
            Curve(f"{t} stage{'s' if t > 1 else ''}", *training.curve(runs)) for t, runs in counts.items() if runs
        ]
    if not panels:
        return []
    path = out / "fig06"
    write_numbers(panels, path, about)
    draw(panels, path, xlabel="normalised distance", ylabel="detection rate, %", columns=len(panels), at=0.2, own_legends=True,
         title="PCK on Leeds Sports Pose, person-centric")  # fmt: skip
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
