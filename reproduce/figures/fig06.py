"""Figure 6: the training schemes, the number of stages, and the distance to the Pose Machine, on
Leeds Sports Pose (PC)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduce.benchmarks.benchmark import Missing
from reproduce.benchmarks.lsp import Lsp
from reproduce.benchmarks.published import published
from reproduce.drawing.curves import Curve, Mark, draw, files_of, write_numbers
from reproduce.experiments.results import Result
from reproduce.figures import claims as claims_of_released
from reproduce.figures import verdicts
from reproduce.figures.verdicts import Claim, Verdict

SCHEMES = {
    "(i) joint, intermediate supervision": "joint-{}",
    "(ii) stage-wise": "stage-wise-{}",
    "(iii) fine-tuned from (ii)": "fine-tuned-{}",
    "(iv) no intermediate supervision": "no-supervision-{}",
}
LEAD = 10.0  # points around the published lead that count as the same finding
CLOSE = 3.0  # points: what "comes close" means
FLAT = 1.5  # points: what "flat" means from 5 to 6 stages, and "saturates"


def claims(results: Mapping[str, Result], stages: int) -> list[Claim]:
    """The paper's statements about Figure 6."""
    runs = {label: verdicts.seeds_of(results, n.format(stages)) for label, n in SCHEMES.items()}
    machine = verdicts.seeds_of(results, f"pose-machine-{stages}")
    joint = next(iter(runs.values()))
    return [*_schemes(results, runs), _stages(results), *_lead(results, machine, joint, stages)]


def _schemes(results: Mapping[str, Result], runs: Mapping[str, Sequence[Result]]) -> list[Claim]:
    """The curves of Figure 6b: one for each training scheme."""
    joint, wise, tuned, bare = runs.values()
    best = (
        "(b) joint training from scratch with intermediate supervision is the best of the "
        "four schemes"
    )
    found = []
    if all(runs.values()):
        ours = ", ".join(f"{n.split(' ')[0]} {verdicts.text_of(r)}" for n, r in runs.items())
        leads = [verdicts.lead(results, joint, other) for other in (wise, tuned, bare)]
        verdict = verdicts.steady(verdicts.best(leads), results, runs)
        why = (
            "confirmed where its lead over each other one is beyond the margins of "
            f"{', '.join(f'{edge:.1f}' for _, edge in leads)} points; "
            f"{verdicts.order_text(results, runs)}. The schemes differ in their work: (ii) trains "
            "each stage by itself with as many iterations as (i) trains all, and (iii) goes on "
            f"from there with as many again.{_rise('(i)', joint)} {verdicts.noise_text(results)}"
        )
        found.append(Claim("Figure 6", best, "(i) highest", ours, verdict, why))
    else:
        missing = ", ".join(label for label, r in runs.items() if not r)
        why = f"not trained yet: {missing}"
        found.append(verdicts.absent("Figure 6", best, "(i) highest", why))
    found.append(_saturates(results, wise, joint))
    text = "(b) without intermediate supervision (iv) the result is worse than (i)"
    if bare and joint:
        ahead, edge = verdicts.lead(results, joint, bare)
        pair = {"(i)": joint, "(iv)": bare}
        verdict = verdicts.steady(verdicts.ahead(ahead, edge), results, pair)
        why = (
            f"confirmed where it is lower by more than {edge:.1f} points; "
            f"{verdicts.order_text(results, pair)}"
        )
        ours = verdicts.gap_text(bare, joint)
        found.append(Claim("Figure 6", text, "lower", ours, verdict, why))
    else:
        found.append(verdicts.absent("Figure 6", text, "lower", "not trained yet"))
    text = "(b) joint fine-tuning (iii) of the stage-wise network comes close to (i)"
    if not tuned or not joint:
        return [*found, verdicts.absent("Figure 6", text, "close", "not trained yet")]
    difference, edge = verdicts.lead(results, tuned, joint)
    verdict = verdicts.within(difference, edge, CLOSE)
    why = f"confirmed where they are within {CLOSE:g} points, {edge:.1f} of margin included"
    ours = verdicts.gap_text(tuned, joint)
    return [*found, Claim("Figure 6", text, "close", ours, verdict, why)]


def _rise(label: str, runs: Sequence[Result]) -> str:
    """A sentence on what the last iterations brought; "" where that is not known."""
    rise = verdicts.last_rise(runs)
    return "" if math.isnan(rise) else f" {label} rose by {rise:.1f} points at the end."


def _saturates(
    results: Mapping[str, Result], wise: Sequence[Result], joint: Sequence[Result]
) -> Claim:
    """Stage-wise training must be lower, and have stopped to improve."""
    text = "(b) stage-wise training (ii) saturates lower than (i)"
    if not wise or not joint:
        return verdicts.absent("Figure 6", text, "lower", "not trained yet")
    pair = {"(i)": joint, "(ii)": wise}
    ahead, edge = verdicts.lead(results, joint, wise)
    rise = verdicts.last_rise(wise)
    # one that still rises may overtake, which decides nothing either way
    stopped: Verdict = "confirmed" if rise + edge <= FLAT else "undecided"
    lower = verdicts.steady(verdicts.ahead(ahead, edge), results, pair)
    why = (
        f"confirmed where it is lower by more than {edge:.1f} points and its last stage rose by "
        f"no more than {FLAT:g} points at the end, margin included; "
        f"{verdicts.order_text(results, pair)}."
        f"{_rise('(ii)', wise)}{_rise('(i)', joint)}"
    )
    ours = verdicts.gap_text(wise, joint)
    return Claim("Figure 6", text, "lower", ours, verdicts.together([lower, stopped]), why)


def _stages(results: Mapping[str, Result]) -> Claim:
    """The curves of Figure 6c: one for each number of stages."""
    text, wanted = "(c) accuracy rises to 5 stages and is flat at 6", "rises to 5, flat at 6"
    by_stage = {t: verdicts.seeds_of(results, f"joint-{t}") for t in range(1, 7)}
    if not all(by_stage.values()):
        missing = ", ".join(str(t) for t, r in by_stage.items() if not r)
        return verdicts.absent("Figure 6", text, wanted, f"not trained yet: stages {missing}")
    steps = [verdicts.lead(results, by_stage[t + 1], by_stage[t]) for t in range(1, 6)]
    ours = ", ".join(f"{t}: {verdicts.text_of(r)}" for t, r in by_stage.items())
    edges = ", ".join(f"{edge:.1f}" for _, edge in steps)
    named = {str(t): runs for t, runs in by_stage.items()}
    formats = verdicts.formats_text(named)
    why = (
        f"confirmed where each step up to 5 rises by more than its margin ({edges} points) and 6 "
        f"is within {FLAT:g} points of 5, margin included; {verdicts.order_text(results, named)}"
        f"{f'. Trained in {formats}' if formats else ''}"
    )
    verdict = verdicts.steady(verdicts.rises_then_stays(steps, 4, FLAT), results, named)
    return Claim("Figure 6", text, wanted, ours, verdict, why)


def _lead(
    results: Mapping[str, Result],
    machine: Sequence[Result],
    joint: Sequence[Result],
    stages: int,
) -> list[Claim]:
    """Figure 6a: who is ahead, and by how much at 0.1 and 0.2."""
    printed = published()["fig6"]["lead"]
    text = (
        f"(a) our {stages}-stage network is ahead of our {stages}-stage Pose Machine at 0.1 and 0.2"
    )
    distance = "(a) by as much as the paper's"
    wanted = ", ".join(f"+{value}" for value in printed)
    if not machine or not joint:
        why = "the Pose Machine or the network is not trained yet"
        return [
            verdicts.absent("Figure 6", text, "ahead", why),
            verdicts.absent("Figure 6", distance, wanted, why),
        ]
    leads = [verdicts.lead(results, joint, machine, threshold) for threshold in (0.1, 0.2)]
    both = "; ".join(
        f"at {threshold} network {verdicts.text_of(joint, threshold)}, Pose Machine "
        f"{verdicts.text_of(machine, threshold)}"
        for threshold in (0.1, 0.2)
    )
    pair = {"network": joint, "Pose Machine": machine}
    edges = " and ".join(f"{edge:.1f}" for _, edge in leads)
    why = (
        f"confirmed where it is ahead by more than {edges} points; "
        f"{verdicts.order_text(results, pair)}"
    )
    ahead = verdicts.steady(verdicts.best(leads), results, pair)
    found = [Claim("Figure 6", text, "ahead", both, ahead, why)]
    if stages != 3:
        why = "published for 3 stages"
        return [*found, verdicts.absent("Figure 6", distance, wanted, why)]
    pairs = zip(leads, printed, strict=True)
    verdict = verdicts.together(verdicts.within(d - value, e, LEAD) for (d, e), value in pairs)
    why = (
        f"confirmed within {LEAD:g} points of the published leads, margin included; both our "
        "network and our Pose Machine are far smaller than the paper's, and the published leads "
        "are also those of the released predictions, which are a 6-stage network's"
    )
    ours = ", ".join(f"{value:+.1f}" for value, _ in leads)
    return [*found, Claim("Figure 6", distance, wanted, ours, verdict, why)]


def _released(data: Path) -> list[Curve]:
    """What the paper's Figure 6a is about, from the released predictions that there are below a
    folder.

    Raises
    ------
    CaffeCompatError : predictions that cannot be read.
    """
    found = []
    files = {
        "released CPM, 6 stages": claims_of_released.LSP,
        "released Pose Machine, observer-centric": claims_of_released.MACHINE,
    }
    for label, name in files.items():
        with contextlib.suppress(Missing):
            result = Lsp(data).score_file(name)
            found.append(Curve(label, result.thresholds, result.total))
    return found


def make(
    results: Mapping[str, Result],
    out: Path,
    about: Mapping[str, Any],
    stages: int = 3,
    data: Path | None = None,
) -> list[Path]:
    """Numbers and picture of what there is.

    Parameters
    ----------
    data : folder with released predictions, which panel (a) shows beside ours.
    """
    panels, marks = _panels(results, stages, data)
    if not panels:
        return []
    path = out / "fig06"
    write_numbers(panels, path, about)
    draw(
        panels,
        path,
        xlabel="normalised distance",
        ylabel="detection rate, %",
        columns=len(panels),
        at=0.2,
        own_legends=True,
        title=verdicts.title(results, "PCK on Leeds Sports Pose, person-centric"),
        marks=marks,
    )
    return files_of(path)


def _panels(
    results: Mapping[str, Result], stages: int, data: Path | None
) -> tuple[dict[str, list[Curve]], dict[str, list[Mark]]]:
    """The panels that there are results for, and the published numbers in them."""
    panels: dict[str, list[Curve]] = {}
    marks: dict[str, list[Mark]] = {}
    versus = {
        f"our network, {stages} stages": verdicts.seeds_of(results, f"joint-{stages}"),
        f"our Pose Machine, {stages} stages": verdicts.seeds_of(results, f"pose-machine-{stages}"),
    }
    if all(versus.values()):
        panel = "(a) against the Pose Machine"
        ours = [Curve(label, *verdicts.curve(runs)) for label, runs in versus.items()]
        panels[panel] = ours + (_released(data) if data is not None else [])
        total = published()["lsp"]["total"][0]
        marks[panel] = [Mark(0.2, total, f"the paper: LSP model, 6 stages  {total:.1f}")]
    schemes = {
        label: verdicts.seeds_of(results, name.format(stages)) for label, name in SCHEMES.items()
    }
    if any(schemes.values()):
        panels[f"(b) training schemes, {stages} stages"] = [
            Curve(label, *verdicts.curve(runs)) for label, runs in schemes.items() if runs
        ]
    counts = {t: verdicts.seeds_of(results, f"joint-{t}") for t in range(1, 7)}
    if any(counts.values()):
        panels["(c) number of stages"] = [
            Curve(f"{t} stage{'s' if t > 1 else ''}", *verdicts.curve(runs))
            for t, runs in counts.items()
            if runs
        ]
    return panels, marks
