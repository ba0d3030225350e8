"""Figure 6: the training schemes, the number of stages, and the distance to the Pose Machine, on
Leeds Sports Pose (PC)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caffe_compat.errors import DataError
from reproduce.benchmarks import check
from reproduce.benchmarks.truth import Benchmarks
from reproduce.drawing.curves import Curve, draw, write_numbers
from reproduce.experiments import trained
from reproduce.experiments.trained import Claim
from reproduce.figures import claims as claims_of_released

SCHEMES = {
    "(i) joint, intermediate supervision": "joint-{}",
    "(ii) stage-wise": "stage-wise-{}",
    "(iii) fine-tuned from (ii)": "fine-tuned-{}",
    "(iv) no intermediate supervision": "no-supervision-{}",
}
LEAD = 10.0  # points around the published lead that count as the same finding
CLOSE = 3.0  # points: what "comes close" means


def claims(results: Mapping[str, Mapping[str, Any]], stages: int) -> list[Claim]:
    """The paper's statements about Figure 6."""
    runs = {
        label: trained.seeds_of(results, name.format(stages)) for label, name in SCHEMES.items()
    }
    machine = trained.seeds_of(results, f"pose-machine-{stages}")
    joint = next(iter(runs.values()))
    return [*_schemes(results, runs), _stages(results), *_lead(results, machine, joint, stages)]


def _schemes(
    results: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Claim]:
    """Figure 6b."""
    joint, wise, tuned, bare = runs.values()
    best = (
        "(b) joint training from scratch with intermediate supervision is the best of the "
        "four schemes"
    )
    found = []
    if all(runs.values()):
        ours = ", ".join(f"{label.split(' ')[0]} {trained.text_of(r)}" for label, r in runs.items())
        good = all(
            trained.at(joint, 0.2) >= trained.at(r, 0.2) - trained.margin(results, joint, r)
            for r in runs.values()
        )
        why = f"{trained.noise_text(results)}; what they make 95 times of 100 counts as equal"
        found.append(Claim("Figure 6", best, "(i) highest", ours, trained.verdict(good), why))
    else:
        missing = ", ".join(label for label, r in runs.items() if not r)
        found.append(trained.absent("Figure 6", best, "(i) highest", f"not trained yet: {missing}"))
    for text, one, wanted in (
        ("(b) stage-wise training (ii) saturates lower than (i)", wise, "lower"),
        ("(b) without intermediate supervision (iv) the result is worse than (i)", bare, "lower"),
        (
            "(b) joint fine-tuning (iii) of the stage-wise network comes close to (i)",
            tuned,
            "close",
        ),
    ):
        if not one or not joint:
            found.append(trained.absent("Figure 6", text, wanted, "not trained yet"))
            continue
        difference, edge = trained.gap(one, joint)[0], trained.margin(results, one, joint)
        good = difference < -edge if wanted == "lower" else difference > -CLOSE
        why = (
            f"lower by more than {edge:.1f}"
            if wanted == "lower"
            else f"not more than {CLOSE:g} lower"
        )
        why = f"confirmed where {why}"
        if one[0].get("iterations") != joint[0].get("iterations"):
            why += (
                f"; each stage has {one[0]['iterations']} iterations, (i) has "
                f"{joint[0]['iterations']}"
            )
        found.append(
            Claim(
                "Figure 6", text, wanted, trained.gap_text(one, joint), trained.verdict(good), why
            )
        )
    return found


def _stages(results: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Figure 6c."""
    text, wanted = "(c) accuracy rises to 5 stages and is flat at 6", "rises to 5, flat at 6"
    by_stage = {t: trained.seeds_of(results, f"joint-{t}") for t in range(1, 7)}
    if not all(by_stage.values()):
        missing = ", ".join(str(t) for t, r in by_stage.items() if not r)
        return trained.absent("Figure 6", text, wanted, f"not trained yet: stages {missing}")

    def step(t: int) -> tuple[float, float]:
        return trained.gap(by_stage[t + 1], by_stage[t])[0], trained.margin(
            results, by_stage[t], by_stage[t + 1]
        )

    steps = [step(t) for t in range(1, 6)]
    whole = trained.gap(by_stage[5], by_stage[1])[0]
    rising = whole > trained.margin(results, by_stage[1], by_stage[5]) and all(
        d > -edge for d, edge in steps[:4]
    )
    flat = abs(steps[4][0]) <= steps[4][1]
    ours = ", ".join(f"{t}: {trained.text_of(r)}" for t, r in by_stage.items())
    why = f"no step down and 6 like 5 within {steps[4][1]:.1f}, 5 above 1"
    return Claim("Figure 6", text, wanted, ours, trained.verdict(rising and flat), why)


def _lead(
    results: Mapping[str, Mapping[str, Any]],
    machine: Sequence[Mapping[str, Any]],
    joint: Sequence[Mapping[str, Any]],
    stages: int,
) -> list[Claim]:
    """Figure 6a: who is ahead, and by how much at 0.1 and 0.2."""
    published = check.published()["fig6"]["lead"]
    ahead = (
        f"(a) our {stages}-stage network is ahead of our {stages}-stage Pose Machine at 0.1 and 0.2"
    )
    distance = "(a) by as much as the paper's"
    wanted = ", ".join(f"+{value}" for value in published)
    if not machine or not joint:
        why = "the Pose Machine or the network is not trained yet"
        return [
            trained.absent("Figure 6", ahead, "ahead", why),
            trained.absent("Figure 6", distance, wanted, why),
        ]
    leads = [trained.gap(joint, machine, t)[0] for t in (0.1, 0.2)]
    both = f"at 0.2 network {trained.text_of(joint)}, Pose Machine {trained.text_of(machine)}"
    edge = trained.margin(results, joint, machine)
    why = f"ahead by more than {edge:.1f} at both"
    found = [Claim("Figure 6", ahead, "ahead", both, trained.verdict(min(leads) > edge), why)]
    if stages != 3:
        return [*found, trained.absent("Figure 6", distance, wanted, "published for 3 stages")]
    good = all(abs(lead - value) <= LEAD for lead, value in zip(leads, published, strict=True))
    why = (
        f"both are far smaller than the paper's; within {LEAD:g} points of the published lead "
        "counts"
    )
    ours = ", ".join(f"{lead:+.1f}" for lead in leads)
    return [*found, Claim("Figure 6", distance, wanted, ours, trained.verdict(good), why)]


def _released(data: Path) -> list[Curve]:
    """What the paper's Figure 6a is about, from the released predictions that there are below a
    folder."""
    found = []
    files = {
        "released CPM, 6 stages": claims_of_released.LSP,
        "released Pose Machine": claims_of_released.MACHINE,
    }
    for label, name in files.items():
        with contextlib.suppress(DataError):
            result = Benchmarks(data).lsp_score(name)
            found.append(Curve(label, result.thresholds, result.total))
    return found


def make(
    results: Mapping[str, Mapping[str, Any]],
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
    panels: dict[str, list[Curve]] = {}
    versus = {
        f"our network, {stages} stages": trained.seeds_of(results, f"joint-{stages}"),
        f"our Pose Machine, {stages} stages": trained.seeds_of(results, f"pose-machine-{stages}"),
    }
    if all(versus.values()):
        ours = [Curve(label, *trained.curve(runs)) for label, runs in versus.items()]
        panels["(a) against the Pose Machine"] = ours + (
            _released(data) if data is not None else []
        )
    schemes = {
        label: trained.seeds_of(results, name.format(stages)) for label, name in SCHEMES.items()
    }
    if any(schemes.values()):
        panels[f"(b) training schemes, {stages} stages"] = [
            Curve(label, *trained.curve(runs)) for label, runs in schemes.items() if runs
        ]
    counts = {t: trained.seeds_of(results, f"joint-{t}") for t in range(1, 7)}
    if any(counts.values()):
        panels["(c) number of stages"] = [
            Curve(f"{t} stage{'s' if t > 1 else ''}", *trained.curve(runs))
            for t, runs in counts.items()
            if runs
        ]
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
        title="PCK on Leeds Sports Pose, person-centric",
    )
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
