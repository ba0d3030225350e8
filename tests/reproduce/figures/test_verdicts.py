"""The verdicts on the paper's claims about Figures 4, 5 and 6: each rule with made-up numbers."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from reproduce.cli import reproduce
from reproduce.experiments import plans
from reproduce.experiments.results import BINS, Earlier, Result, read_results, stored_folder
from reproduce.figures import fig04, fig05, fig06, verdicts
from reproduce.network import netgen

SCHEMES = ("joint-3", "stage-wise-3", "fine-tuned-3", "no-supervision-3")


def _rising(value: float) -> tuple[float, ...]:
    """PCK that rises linearly to ``value`` at 0.2."""
    return tuple(value * i / 20 for i in range(21))


def _result(name: str, value: float, config: netgen.CPMConfig | None = None, **more: Any) -> Result:
    """A made-up result: PCK rises linearly to ``value`` at 0.2; other people would change
    nothing."""
    thresholds = tuple(i / 100 for i in range(21))
    more.setdefault("hits_of_people", dict.fromkeys(("0.1", "0.2"), (7,) * 1000))
    return Result(
        experiment=name,
        profile="cpu",
        scheme="joint",
        config=config or netgen.CPMConfig(),
        iterations=6000,
        batch=16,
        seed=1,
        people=1000,
        thresholds=thresholds,
        total=_rising(value),
        provenance={},
        **more,
    )


def _results(values: dict[str, float]) -> dict[str, Result]:
    return {name: _result(name, value) for name, value in values.items()}


YES: verdicts.Verdict = "confirmed"
NO: verdicts.Verdict = "contradicted"
OPEN: verdicts.Verdict = "undecided"


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        (lambda: verdicts.ahead(2.1, 2.0), YES),
        (lambda: verdicts.ahead(2.0, 2.0), OPEN),
        (lambda: verdicts.ahead(-2.0, 2.0), OPEN),
        (lambda: verdicts.ahead(-2.1, 2.0), NO),
        (lambda: verdicts.best([(3.0, 1.0), (2.0, 1.0)]), YES),
        (lambda: verdicts.best([(3.0, 1.0), (0.5, 1.0)]), OPEN),
        (lambda: verdicts.best([(0.5, 1.0), (-2.0, 1.0)]), NO),
        (lambda: verdicts.within(0.5, 0.4, 1.0), YES),
        (lambda: verdicts.within(-0.8, 0.4, 1.0), OPEN),
        (lambda: verdicts.within(-1.5, 0.4, 1.0), NO),
        (lambda: verdicts.together([YES, YES]), YES),
        (lambda: verdicts.together([YES, OPEN]), OPEN),
        (lambda: verdicts.together([OPEN, NO, YES]), NO),
        (lambda: verdicts.together([]), OPEN),
        (lambda: verdicts.rises_then_stays([(5, 1), (2, 1), (0.2, 0.5)], 2, 1.0), YES),
        (lambda: verdicts.rises_then_stays([(5, 1), (0.5, 1), (0.2, 0.5)], 2, 1.0), OPEN),
        (lambda: verdicts.rises_then_stays([(5, 1), (-2, 1), (0.2, 0.5)], 2, 1.0), NO),
        (lambda: verdicts.rises_then_stays([(5, 1), (2, 1), (4.0, 0.5)], 2, 1.0), NO),
        (lambda: verdicts.all_fall([0.5, 0.99]), YES),
        (lambda: verdicts.all_fall([0.5, 1.05]), OPEN),
        (lambda: verdicts.all_fall([0.5, 1.2]), NO),
        (lambda: verdicts.all_fall([]), OPEN),
        (lambda: verdicts.all_fall([0.5, math.nan]), OPEN),
        (lambda: verdicts.all_fall([math.nan, 0.5]), OPEN),
        (lambda: verdicts.all_fall([math.nan, 1.2]), NO),
        (lambda: fig05.vanishing(2.0, 0.3, 2.0), YES),
        (lambda: fig05.vanishing(2.0, 0.3, 0.5), OPEN),
        (lambda: fig05.vanishing(-2.0, 0.3, 2.0), NO),
        (lambda: fig05.vanishing(3.0, 0.9, 6.0), YES),
        (lambda: fig05.vanishing(3.0, 1.1, 6.0), NO),  # they vanish with it, too
    ],
)
def test_rules_of_verdicts(rule: Callable[[], str], verdict: str) -> None:
    """Each rule with made-up numbers on both sides of its limits, in points of PCK or decades."""
    assert rule() == verdict


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        # joint, stage-wise, fine-tuned, without supervision; assumed margin 0.99 points
        # the one before was scored for all: the same, less half a point
        ((60, 55, 58.5, 50), [YES, YES, YES, YES]),
        ((60, 55, 59.5, 50), [OPEN, YES, YES, YES]),
        ((60, 59.5, 55, 59.9), [OPEN, OPEN, OPEN, NO]),
        ((50, 55, 60, 60), [NO, NO, NO, NO]),
    ],
)
def test_verdicts_on_the_schemes(values: tuple[float, ...], wanted: list[str]) -> None:
    before = tuple(value - 0.5 for value in values)
    found = fig06.claims(_schemes(values, before), 3)
    assert [c.verdict for c in found[:4]] == wanted
    assert [c.ours for c in found[4:]] == ["-"] * 3


def _schemes(now: tuple[float, ...], before: tuple[float, ...]) -> dict[str, Result]:
    """Joint, stage-wise, fine-tuned, without supervision, at the last two snapshots."""
    return {
        name: _result(name, value, earlier=Earlier(5000, _rising(then)))
        for name, value, then in zip(SCHEMES, now, before, strict=True)
    }


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ((58, 54.5, 57, 49), [YES, YES, YES, YES]),
        ((58, 53.5, 57, 49), [YES, OPEN, YES, YES]),  # stage-wise rose by more than the margin
        ((54, 54.5, 53, 49), [OPEN, OPEN, YES, YES]),  # stage-wise was ahead
    ],
)
def test_verdicts_look_at_the_snapshot_before(before: tuple[float, ...], wanted: list[str]) -> None:
    found = fig06.claims(_schemes((60, 55, 58.5, 50), before), 3)
    assert [c.verdict for c in found[:4]] == wanted
    assert "(i) rose by" in found[0].why


def test_without_hits_of_people_nothing_is_decided() -> None:
    """Ten people could be anybody: a margin of seeds alone would be too kind."""
    values = zip(SCHEMES, (60, 5, 58, 5), strict=True)
    results = {name: _result(name, value, hits_of_people={}) for name, value in values}
    assert {c.verdict for c in fig06.claims(results, 3)} == {OPEN}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((40, 45, 50, 53, 56, 56.2), YES),
        ((40, 45, 50, 50.5, 56, 56.2), OPEN),
        ((40, 45, 50, 48, 56, 56.2), NO),
        ((40, 45, 50, 53, 56, 60), NO),
    ],
)
def test_verdict_on_the_stages(values: tuple[float, ...], wanted: str) -> None:
    results = _results({f"joint-{t}": v for t, v in enumerate(values, 1)})
    (claim,) = (c for c in fig06.claims(results, 3) if c.text.startswith("(c)"))
    assert claim.verdict == wanted


@pytest.mark.parametrize(
    ("network", "machine", "wanted"),
    [(60.0, 29.1, [YES, NO]), (84.3, 53.4, [YES, NO]), (50.0, 50.5, [OPEN, NO])],
)
def test_verdict_on_the_lead(network: float, machine: float, wanted: list[str]) -> None:
    """The made-up curves are half as high at 0.1, so a lead of 30.9 at 0.2 is not 42.4 there."""
    results = _results({"joint-3": network, "pose-machine-3": machine})
    assert [c.verdict for c in fig06.claims(results, 3)[-2:]] == wanted


def test_margins_come_from_seeds() -> None:
    """Two networks of two seeds each: the pooled deviation; without repeats an assumed one, and it
    is said."""
    once = _results({"joint-1": 50.0, "joint-3": 52.0})
    assert verdicts.noise(once) == (verdicts.ASSUMED[0.2], 0, 0)
    assert verdicts.noise(once, 0.1) == (verdicts.ASSUMED[0.1], 0, 0)
    assert "assumed" in verdicts.noise_text(once)
    twice = {**once, **_results({"joint-1-seed2": 51.0, "joint-3-seed2": 55.0})}
    # deviations of (50, 51) and (52, 55): 0.5 and 4.5, over 2 degrees of freedom
    deviation, trainings, networks = verdicts.noise(twice)
    assert deviation == pytest.approx((5.0 / 2) ** 0.5)
    assert (trainings, networks) == (4, 2)
    one, other = (verdicts.seeds_of(twice, n) for n in ("joint-3", "joint-1"))
    # Student's quantile for 2 degrees of freedom
    assert verdicts.lead(twice, one, other)[1] == pytest.approx(4.303 * deviation, rel=1e-3)
    assumed = verdicts.lead(once, one[:1], other[:1])[1]
    assert assumed == pytest.approx(2 * verdicts.ASSUMED[0.2] * 2**0.5)
    assert verdicts.gap(one, other)[0] == pytest.approx(3.0)
    assert verdicts.gap_text(one, other) == "+3.0 points (± 0.0 over people)"
    assert verdicts.text_of(one) == "53.5 ± 2.1"
    people = [
        _result("x", 50.0, hits_of_people={"0.2": hits}) for hits in ((14, 7, 7, 0), (7, 7, 0, 0))
    ]
    # differences of 7, 0, 7, 0 of 14 joints: 25 % on average, deviation 28.9 % over four people
    error = verdicts.gap(people[:1], people[1:])[1]
    assert error == pytest.approx(100 * 0.5 / 3**0.5 / 2)
    # two seeds that are equal by chance do not make the margin 0
    equal = _results({"x": 50.0, "x-seed2": 50.0})
    assert verdicts.lead(equal, people[:1], people[1:])[1] == pytest.approx(1.96 * error)
    bare = [_result("x", 50.0, hits_of_people={})]
    assert verdicts.lead(once, bare, people[1:])[1] == math.inf


@pytest.mark.parametrize("threshold", verdicts.ASSUMED)
def test_the_stored_seeds_differ_by_no_more_than_is_assumed(threshold: float) -> None:
    stored = read_results(stored_folder("cpu"))
    several = [runs for name in stored if len(runs := verdicts.seeds_of(stored, name)) > 1]
    assert len(several) > 3
    for runs in several:
        scores = [run.at(threshold) for run in runs]
        assert statistics.stdev(scores) <= verdicts.ASSUMED[threshold]


def test_number_formats_are_said() -> None:
    def run(amp: str) -> Result:
        return replace(_result("x", 1.0), provenance={"amp": amp})

    assert verdicts.formats_text({"a": [run("")], "b": [run("")]}) == ""
    mixed = {"a": [run("bf16"), run("")], "b": [run("")]}
    assert verdicts.formats_text(mixed) == "bf16: a; float32: a, b"
    results = {"a": run("bf16"), "a-seed2": run(""), "b": run("")}
    assert verdicts.noise_text(results).endswith("1 of these networks also in their number format")


def test_the_order_of_the_last_two_snapshots_is_said() -> None:
    def run(value: float, before: float) -> Result:
        return _result("x", value, earlier=Earlier(5000, _rising(before)))

    stored = _results({"x": 1.0})  # no network was repeated: a margin of 0.99 points
    same = {"a": [run(50, 45)], "b": [run(52, 46)]}
    kept = "the order was the same 1,000 iterations before the end"
    assert verdicts.order_text(stored, same) == kept
    turned = {"a": [run(50, 47)], "b": [run(52, 46)]}
    assert verdicts.order_text(stored, turned).endswith("before the end: a above b")
    assert verdicts.steady(YES, stored, turned) == OPEN
    assert verdicts.steady(NO, stored, same) == NO
    within = {"a": [run(50, 47)], "b": [run(50.5, 46)]}  # half a point is no order
    assert verdicts.order_text(stored, within) == kept
    other = {"a": [_result("x", 1.0)], "b": [run(1, 1)]}
    assert "not all scored" in verdicts.order_text(stored, other)
    trees = replace(_result("x", 30.0), machine={"trees": 3, "images": 3})  # have no snapshots
    assert verdicts.order_text(stored, {"a": [trees], "b": [run(52, 46)]}) == kept


def test_noise_makes_no_training_saturate() -> None:
    """Two seeds far apart widen the margin; a last stage that rose by six points still rises."""
    results = {
        name: _result(name, value, earlier=Earlier(5000, _rising(value - 6)))
        for name, value in {
            "joint-3": 80.0,
            "joint-3-seed2": 84.0,
            "stage-wise-3": 30.0,
            "stage-wise-3-seed2": 34.0,
        }.items()
    }
    saturates = next(c for c in fig06.claims(results, 3) if "saturates" in c.text)
    assert saturates.verdict == OPEN


def test_figure_4_of_the_paper_profile_has_one_box() -> None:
    """Its networks see another box than Figure 6c's network of one stage, which is none of them."""
    paper = plans.PROFILES["paper"]
    plan = plans.of_fig4(paper, 3, 1)
    results = {e.name: replace(_result(e.name, 50.0, e.config), profile="paper") for e in plan}
    alone = replace(_result("joint-1", 50.0, replace(paper.config, stages=1)), profile="paper")
    points = fig04.fields({**results, "joint-1": alone})
    assert [point.experiment for point in points] == [e.name for e in plan]


@pytest.mark.long
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        # at 15, 21, 33, 45, 57, 68, 92 and 115 % of the box; the paper's curve saturates at 82 %
        ((30, 34, 38, 40, 42, 45, 45.5, 45.6), [YES, YES]),
        ((30, 34, 38, 41, 43, 45, 45.5, 45.6), [YES, OPEN]),  # at 57 or 68 %
        ((30, 34, 38, 41, 43, 45, 46, 50), [NO, NO]),  # rises to the end
        ((30, 34, 38, 35, 42, 45, 45.5, 45.6), [NO, YES]),
        ((45, 45, 45, 45, 45, 45.5, 45.5, 45.6), [OPEN, NO]),
        ((10, 50, 49.1, 48.2, 47.3, 46.4, 45.5, 45), [NO, NO]),  # each fall is within its margin
        ((10, 50, 50, 50, 50, 50, 50, 50), [YES, NO]),
        ((30, 34, 38, 41, 44.7, 45, 45.5, 45.6), [YES, NO]),  # at 57 %
    ],
)
def test_verdicts_on_the_receptive_field(values: tuple[float, ...], wanted: list[str]) -> None:
    plan = plans.of_fig4(plans.PROFILES["cpu"], 3, 1)
    pairs = zip(plan, values, strict=True)
    results = {e.name: _result(e.name, value, e.config) for e, value in pairs}
    assert [claim.verdict for claim in fig04.claims(results, 3)] == wanted
    assert [p.score for p in fig04.fields(results)] == pytest.approx(values)
    assert [(few.verdict, few.ours) for few in fig04.claims({}, 3)] == [(OPEN, "-")] * 2


def test_where_figure_4_saturates_is_open_while_the_order_changes() -> None:
    plan = plans.of_fig4(plans.PROFILES["cpu"], 3, 1)
    now = (30, 34, 38, 40, 42, 45, 45.5, 45.6)
    before = (29, 33, 37, 39, 46, 44, 44.5, 44.6)  # 57 % stood above the larger fields
    results = {
        e.name: _result(e.name, value, e.config, earlier=Earlier(5000, _rising(earlier)))
        for e, value, earlier in zip(plan, now, before, strict=True)
    }
    place = fig04.claims(results, 3)[1]
    assert place.verdict == OPEN
    assert "the order was another one 1,000 iterations before the end" in place.why


@pytest.mark.parametrize(
    ("margin", "wanted"),
    [(0.1, (1, 1)), (0.6, (1, 2)), (1.5, (1, 3)), (6.0, (0, 3))],
)
def test_where_saturation_begins_is_as_sure_as_the_margins(
    margin: float, wanted: tuple[int, int]
) -> None:
    """Four networks of 40, 45, 45.5 and 45.6 points; flat allows one point."""
    scores = (40, 45, 45.5, 45.6)
    rises = [
        [(large - small, margin) for large in scores[i + 1 :]] for i, small in enumerate(scores)
    ]
    assert fig04.saturates_between(rises, 1.0) == wanted


TINY = replace(plans.PROFILES["smoke"].config, stages=2)


def _histograms(decade: float, share: float = 1.0) -> dict[str, list[int]]:
    """All convolutions of the tiny network: a share of the weights has gradients of one size, the
    others are exactly 0 and not counted."""
    found = {}
    for name, size in fig05._sizes(_result("x", 1.0, TINY)).items():
        counts = np.histogram(np.full(round(share * size), decade), BINS)[0]
        found[f"{name}/weight"] = [int(n) for n in counts]
    return found


def _with_gradients(name: str, gradients: dict[str, dict[str, list[int]]]) -> Result:
    return _result(name, 50.0, TINY, gradients=gradients)


def test_gradients_that_are_0_count() -> None:
    """They vanish altogether: the weights that no bin counted stand in the lowest one."""
    supervised = {"9": _histograms(-1.0), "99": _histograms(-2.0)}
    nothing = {"9": _histograms(-1.0), "99": _histograms(-2.0)}
    for name in ("conv1_stage1/weight", "conv2_stage1/weight"):
        nothing["9"][name] = [0] * len(nothing["9"][name])
    results = {
        "joint-2": _with_gradients("joint-2", supervised),
        "no-supervision-2": _with_gradients("no-supervision-2", nothing),
    }
    vanish, calm = fig05.claims(results, 2)
    assert vanish.verdict == YES
    assert "10^-13.9 without" in vanish.ours
    assert calm.verdict == YES
    mostly = [_with_gradients("x", {"9": _histograms(-1.0, 0.25)})]
    for name, counts in fig05._layers(mostly, "9").items():
        assert counts[0] == pytest.approx(0.75 * sum(counts), abs=1), name
    # three quarters are 0, so the median is, too
    assert set(np.round(list(fig05.medians(mostly, "9").values()))) == {-14}


def test_every_layer_and_every_seed_must_be_calm() -> None:
    """A convolution beside the longest way counts, and so does the worst of the seeds."""
    calm = {"9": _histograms(-1.0), "99": _histograms(-2.0)}
    grown = {"9": _histograms(-1.0), "99": _histograms(-2.0)}
    beside = "conv1_stage2"
    assert beside not in fig05.way(_result("x", 1.0, TINY))
    grown["99"][f"{beside}/weight"] = _histograms(0.0)[f"{beside}/weight"]
    bare = _with_gradients("no-supervision-2", calm)
    for second, wanted in ((calm, YES), (grown, NO)):
        results = {
            "joint-2-seed2": _with_gradients("joint-2-seed2", second),
            "joint-2": _with_gradients("joint-2", calm),
            "no-supervision-2": bare,
        }
        claim = fig05.claims(results, 2)[1]
        assert claim.verdict == wanted
        assert (beside in claim.ours) == (wanted == NO)
        assert "of 2 trainings" in claim.why


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"people": 10, "hits_of_people": {}}, "has other people than joint-1 in the same folder"),
        ({"profile": "paper"}, "has other profile than joint-1"),
        (
            {"thresholds": [0.0, 0.2], "total": [0.0, 50.0], "earlier": None},
            "has other thresholds than joint-1",
        ),
        ({"hits_of_people": {"0.2": [1, 2]}}, "'hits_of_people' has not as many entries"),
        ({"gradients": {"x": {}}}, "invalid literal for int"),
        ({"gradients": {"9": {"conv1_stage1/weight": [1] * 10}}}, "has not 64 bins"),
        ({"experiment": "joint-1"}, "holds joint-1, too"),
    ],
)
def test_results_that_do_not_fit_are_refused(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """One line, and no figure is begun."""
    stored = json.loads((stored_folder("cpu") / "joint-1.json").read_text())
    (tmp_path / "joint-1.json").write_text(json.dumps(stored))
    other = {**stored, "experiment": "joint-2", **change}
    (tmp_path / "joint-2.json").write_text(json.dumps(other))
    words = ["report", "--data", str(tmp_path), "--results", str(tmp_path)]
    page = CliRunner().invoke(reproduce.main, [*words, "-o", str(tmp_path / "report")])
    assert page.exit_code == 2
    assert says in page.output
    assert not (tmp_path / "report").exists()


def test_margins_are_of_the_threshold() -> None:
    """Seeds that differ at 0.1 alone."""
    results = _results({"a": 50.0, "b": 40.0})
    low = results["a"].total
    results["a-seed2"] = replace(results["a"], total=(*low[:10], low[10] - 5, *low[11:]))
    one, other = (verdicts.seeds_of(results, name) for name in ("a", "b"))
    assert verdicts.lead(results, one, other, 0.1)[1] > 1
    assert verdicts.lead(results, one, other, 0.2)[1] == 0


def test_numbers_of_a_histogram() -> None:
    """Half of the weights in each of two bins: 10^-2 and 10^0, from the bins' middles."""
    counts = np.histogram([-1.9] * 5 + [0.1] * 5, BINS)[0].tolist()
    low, middle, high = fig05.quantiles(counts)
    assert low == pytest.approx(-1.95, abs=1e-9)
    assert -1.75 <= middle <= 0
    assert high == pytest.approx(0.2, abs=1e-9)
    expected = math.sqrt((10 ** (2 * -1.875) + 10 ** (2 * 0.125)) / 2)
    assert fig05.spread(counts) == pytest.approx(expected)


def test_the_paper_s_mark_in_figure_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(fig06, "draw", lambda *_, **words: drawn.update(words))
    results = _results({"joint-3": 50.0, "pose-machine-3": 40.0})
    fig06.make(results, tmp_path, {})
    ((mark,),) = drawn["marks"].values()
    assert (mark.x, mark.y) == (0.2, 84.32)
    assert mark.label == "the paper: LSP model, 6 stages  84.3"
