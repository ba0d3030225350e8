"""Figures 4, 5 and 6 by training, at the smallest size; stops and goes on; the report; receptive
fields."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Run

from caffe_compat import parse_net, read_net, write_weights
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.network.graph import build
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob
from reproduce.benchmarks.published import published
from reproduce.cli import models, reproduce
from reproduce.cli.reproduce_trainings import Trainings
from reproduce.experiments import lab, plans
from reproduce.experiments.pose_machine import PoseMachinePredictor
from reproduce.experiments.results import Earlier, Result, read_result, read_results, stored_folder
from reproduce.figures import fig05
from reproduce.network import netgen, receptive
from reproduce.predict.protocol import DEMO
from reproduce.records import store
from reproduce.records.opening import open_store
from reproduce.report import page as report_page
from reproduce.report.page import Made
from reproduce.runtime import side_by_side
from reproduce.runtime.processes import Group
from reproduce.samples.augment import Augmentation, Settings, augment
from reproduce.samples.schedule import Order
from reproduce.train import logs, run
from tests.paths import DATA, needs_data
from tests.people import dataset

ROOT = Path(__file__).resolve().parents[3]


def _run(*args: object) -> Run:
    return CliRunner().invoke(reproduce.main, [str(a) for a in args])


def test_receptive_fields_of_the_paper() -> None:
    """160 pixels after stage 1, 31×31 on the belief maps, 400 pixels after stage 2, counting 2×2
    pools as the paper does."""
    graph = build(netgen.deploy(netgen.CPMConfig()))
    paper = receptive.stages(graph, small_pools=True)
    assert [f.size for _, f, _ in paper[:2]] == [160, 400]
    assert paper[0][2] is None
    assert {belief.size for _, _, belief in paper[1:] if belief is not None} == {31}
    released = receptive.stages(graph)
    assert [f.size for _, f, _ in released[:2]] == [167, 407]
    result = CliRunner().invoke(models.main, ["rf", "leeds-small"])
    assert result.exit_code == 0, result.output
    assert "31x31 of the belief maps" in result.output


def test_networks_of_figure_4_differ_in_their_field_alone() -> None:
    """From about 16 % to 110 % of the box, parameters within 5 %, no layer narrower than the base."""
    for name in ("cpu", "paper"):
        profile = plans.PROFILES[name]
        found = plans.of_fig4(profile, 3, 1)
        counts = [build(netgen.deploy(e.config)).count for e in found]
        assert max(counts) / min(counts) < 1.05, name
        shares = [plans.field_of(e.config) / e.config.input_size for e in found]
        np.testing.assert_allclose(shares, plans.SHARES, atol=0.03)
        for experiment in found:
            assert experiment.config.towers == profile.config.towers
            assert experiment.config.features == profile.config.features
            assert experiment.config.wide >= profile.config.wide


def test_every_experiment_has_the_papers_shares_of_the_box() -> None:
    """The released network sees 167 of 368 pixels after stage 1 and 407 after stage 2."""
    profile = plans.PROFILES["cpu"]
    for experiment in plans.stages_of_fig6(profile, 3, 2):
        box = experiment.config.input_size
        assert abs(plans.field_of(experiment.config) / box - 167 / 368) < 0.03, experiment.name
        if experiment.config.stages > 1:
            assert 1.09 <= plans.field_of(experiment.config, 2) / box < 1.25, experiment.name


def test_what_a_verdict_hangs_on_is_trained_with_more_seeds() -> None:
    names = [e.name for e in plans.stages_of_fig6(plans.PROFILES["cpu"], 3, 2)]
    assert len(names) == len(set(names))
    assert {n for n in names if n.endswith("-seed2")} == {
        "joint-1-seed2",
        "joint-3-seed2",
        "joint-5-seed2",
        "joint-6-seed2",
        "no-supervision-3-seed2",
    }


def test_dry_run_trains_nothing(tmp_path: Path) -> None:
    for figure in ("fig4", "fig5", "fig6"):
        result = _run(
            figure, "--profile", "paper", "--dry-run", "--work", tmp_path / "w", "--seeds", 2
        )
        assert result.exit_code == 0, result.output
        assert "in all" in result.output
    assert "no-supervision-3-seed2" in result.output
    assert not (tmp_path / "w").exists()
    assert "are assumed, not measured" in result.output


def test_planned_times_are_those_of_the_stored_trainings() -> None:
    """All together take as long as they took; each by itself a few times more or less, since not
    all ran alone."""
    stored = read_results(stored_folder("cpu"))
    profile = plans.PROFILES["cpu"]
    planned = plans.estimates(
        profile, plans.stages_of_fig6(profile, 3, 1), plans.measured_rate(stored.values())
    )
    assert {row.experiment for row in planned} <= stored.keys()
    for row in planned:
        assert 1 / 3 < row.seconds / stored[row.experiment].seconds < 3
    whole = sum(stored[row.experiment].seconds for row in planned)
    assert sum(row.seconds for row in planned) == pytest.approx(whole, rel=0.25)
    two = [replace(r, processes=2, batch=2 * r.batch) for r in stored.values()]
    assert plans.measured_rate(two) == plans.measured_rate(stored.values())
    output = str(_run("fig6", "--profile", "cpu", "--dry-run").output)
    assert "operations/s that the stored trainings made" in output


def test_seconds_of_a_training() -> None:
    """Iterations 0 to 119 of 10 samples; the one at 51 was repeated after a crash."""
    speeds = {0: 10.0, 50: 100.0, 51: 1.0, 100: 50.0}
    log = [{"iteration": i, "speed": speed} for i, speed in speeds.items()]
    log.insert(3, {"iteration": 51, "speed": 20.0})
    # 1 iteration at 10 samples/s, 50 at 100, 1 at 20, 68 at 50
    assert logs.seconds(log, 10, 120) == pytest.approx(1 + 5 + 0.5 + 13.6)


@pytest.mark.slow
@needs_data
def test_everything_at_the_smallest_size(tmp_path: Path) -> None:
    """All trainings, figures and the page, on a hundred images; run again, nothing is trained
    again."""
    args = [
        "all",
        "--profile",
        "smoke",
        "--data",
        DATA,
        "--work",
        tmp_path / "w",
        "-o",
        tmp_path / "report",
    ]
    result = _run(*args, "--workers", 0, "--jobs", 2)
    assert result.exit_code == 0, result.output
    results = read_results(tmp_path / "w" / "smoke" / "results")
    names = {e.name for e in plans.stages_of_fig6(plans.PROFILES["smoke"], 3, 1)}
    assert names < set(results)
    machine = results["pose-machine-3"]
    assert machine.machine is not None
    assert machine.machine["stages"] == 3
    assert machine.people == plans.PROFILES["smoke"].tested
    assert sum(n.startswith("field-") for n in results) == 4  # the fifth is joint-1
    trained = results["joint-3"]
    assert trained.provenance["data"].startswith("LSP 1-1000 and LSPET")
    assert len(trained.gradients) >= 2
    assert (
        fig05.claims(results, 3)[0].verdict == "confirmed"
    )  # the gradients vanish from the first iteration on
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 6
    assert "Not here" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(ids)
    assert not re.findall(r'(?:src|href)="https?:', page)
    before = {p: p.stat().st_mtime for p in (tmp_path / "w").rglob("*.caffemodel")}
    again = _run(*args)
    assert again.output.count("has its result") == len(results)
    assert {p: p.stat().st_mtime for p in (tmp_path / "w").rglob("*.caffemodel")} == before
    drawn = _run(
        "fig6",
        "--profile",
        "smoke",
        "--data",
        DATA,
        "--work",
        tmp_path / "w",
        "-o",
        tmp_path / "figures",
    )
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "figures" / "fig06.pdf").stat().st_size > 1000


def _start(work: Path, out: Path, *args: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "reproduce.cli.reproduce",
        "fig6",
        "--profile",
        "smoke",
        "--data",
        str(DATA),
        "--workers",
        "0",
    ]
    command += ["--work", str(work), "-o", str(out), "--device", "cpu", *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


@pytest.mark.slow
@needs_data
def test_a_killed_plan_goes_on_and_two_share_it(tmp_path: Path) -> None:
    """SIGKILL in the middle of a training: the same command goes on from the snapshot and ends with
    the same numbers."""
    whole = _start(tmp_path / "whole", tmp_path / "f", "--only", "joint-[23]")
    killed = _start(tmp_path / "w", tmp_path / "f", "--only", "joint-[23]")
    assert killed.stdout is not None
    for line in killed.stdout:
        if "pose_iter_3.caffemodel" in line:  # of 6 iterations, of the first of two experiments
            killed.kill()
            break
    killed.communicate()
    assert not list((tmp_path / "w").rglob("results/*.json"))
    assert not list((tmp_path / "w").rglob("*iter_6*"))
    both = [_start(tmp_path / "w", tmp_path / f"f{i}", "--only", "joint-[23]") for i in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(text.count("going on from pose_iter_3.solverstate") for text in said) == 1
    for name in ("joint-2", "joint-3"):  # each made by one of the two, and had by the other
        assert sum(text.count(f"{name}: PCK@0.2") for text in said) == 1
        assert sum(bool(re.search(rf"{name} .*has its result", text)) for text in said) == 1
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    once, again = (read_results(tmp_path / w / "smoke" / "results") for w in ("whole", "w"))
    for name in ("joint-2", "joint-3"):
        for key in ("final_losses", "hits_of_people", "gradients", "total"):
            assert getattr(once[name], key) == getattr(again[name], key), (name, key)


@pytest.mark.long
@needs_data
def test_two_jobs_share_a_plan(tmp_path: Path) -> None:
    """Two processes side by side make one result each; the figure is drawn once, at the end."""
    done = _start(tmp_path / "w", tmp_path / "f", "--only", "joint-[12]", "--jobs", "2")
    said = done.communicate(timeout=300)[0]
    assert done.returncode == 0, said
    for name in ("joint-1", "joint-2"):
        assert said.count(f"{name}: PCK@0.2") == 1, said
    assert said.count("fig06.json") == 1
    places = ("--data", tmp_path, "--work", tmp_path, "-o", tmp_path / "f")
    empty = _run("fig6", "--profile", "smoke", *places, "--jobs", 2)
    assert empty.exit_code == 2
    assert empty.output.count("no training images of LSP or LSPET") == 1


@pytest.mark.long
def test_pose_machine_learns() -> None:
    """A dot of a colour of its own for each part: three stages of trees find them, and later stages
    do not lose them."""
    pytest.importorskip("sklearn")
    import numpy as np

    from reproduce.experiments.pose_machine import (
        PoseMachine,
        PoseMachineConfig,
        PoseMachinePredictor,
        features,
    )

    rng = np.random.default_rng(0)
    size, cells = 64, 8

    def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data = rng.normal(0, 0.02, (4, size, size)).astype(np.float32)
        places = rng.permutation(cells * cells)[:2]
        label = np.zeros((3, cells, cells), np.float32)
        for part, place in enumerate(places):
            y, x = divmod(int(place), cells)
            data[part, y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] += 0.4
            label[part, y, x] = 1
        label[2] = 1 - label[:2].max(0)
        return data, label, places

    machine = PoseMachine(PoseMachineConfig(stages=3, cells=20, trees=5, leaves=5), parts=2)
    machine.fit([(features(d), lab) for d, lab, _ in (sample() for _ in range(60))])
    right = np.zeros(3)
    for _ in range(20):
        data, _, places = sample()
        for stage, maps in enumerate(m[0] for m in machine.maps(data[None])):
            assert maps.shape == (3, cells, cells)
            np.testing.assert_allclose(maps.sum(0), 1, atol=1e-4)
            right[stage] += (maps[:2].reshape(2, -1).argmax(1) == places).sum()
    assert (right >= 36).all(), right
    predictor = PoseMachinePredictor(machine, DEMO.at(size))
    drawn = predictor.predict(rng.integers(0, 256, (70, 50, 3), np.uint8), keep=True).maps
    assert drawn is not None
    assert drawn.shape == (
        3,
        3,
        70,
        50,
    )


def test_missing_data_are_said(tmp_path: Path) -> None:
    result = _run(
        "fig6",
        "--profile",
        "smoke",
        "--data",
        tmp_path,
        "--work",
        tmp_path / "w",
        "-o",
        tmp_path / "f",
    )
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())  # no folder is left behind
    (tmp_path / "lsp").mkdir()  # an empty folder is no data
    nothing = _run(
        "report", "--data", tmp_path, "--results", tmp_path / "lsp", "-o", tmp_path / "r"
    )
    assert nothing.exit_code == 2
    assert "holds no results of experiments" in nothing.output
    assert not (tmp_path / "r").exists()
    stored = ("report", "--data", tmp_path, "--results", stored_folder("cpu"))
    other = _run(*stored, "--profile", "paper", "-o", tmp_path / "r")
    assert other.exit_code == 2
    assert "holds results of the cpu profile (--results), not of --profile paper" in other.output
    assert not (tmp_path / "r").exists()
    (tmp_path / "lsp" / "readme.txt").write_text("no data either")
    page = _run("report", "--data", tmp_path, "--profile", "paper", "-o", tmp_path / "report")
    assert page.exit_code == 1, page.output  # a page about nothing
    said = json.loads((tmp_path / "report" / "report.json").read_text())["missing"]
    figures = {f"Figure {n}" for n in (4, 5, 6, 8, 9, 10, 12)}
    assert {t.split(":")[0] for t in said} == figures | {"What the network believes"}
    assert "Not here" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def _check_measured(trained: Result, work: Path) -> None:
    """What a result says, measured once more from the training's files."""
    laboratory = _lab(work)
    snap = work / trained.experiment / "snap"
    scores = {}
    for iteration in (3, 6):
        model = snap / f"pose_iter_{iteration}.caffemodel"
        scores[iteration], _ = laboratory._score(laboratory._predictor(model))
    assert trained.earlier == Earlier(3, tuple(scores[3].total.tolist()))
    last = scores[6]
    assert trained.total == tuple(last.total.tolist())
    for threshold in (0.1, 0.2):
        hits = last.hits[last.at(threshold)].sum()
        assert sum(trained.hits_of_people[str(threshold)]) == hits
    assert not np.array_equal(scores[3].total, last.total)
    lines = (snap / "pose_log.jsonl").read_text().splitlines()
    assert trained.final_losses == json.loads(lines[-1])["losses"]
    assert set(trained.gradients) == {"0", "1", "5"}  # 2 %, a quarter and all of 6 iterations


@pytest.mark.long
@needs_data
def test_results_of_another_plan_are_refused(tmp_path: Path) -> None:
    """Other settings than those of a begun or finished experiment, or a damaged result: one line,
    nothing is lost."""
    args = (
        "fig6",
        "--profile",
        "smoke",
        "--data",
        DATA,
        "--work",
        tmp_path / "w",
        "-o",
        tmp_path / "f",
        "--workers",
        0,
    )
    only = ("--only", "joint-1")
    assert _run(*args, *only).exit_code == 0
    result = tmp_path / "w" / "smoke" / "results" / "joint-1.json"
    whole = result.read_text()
    trained = read_results(result.parent)["joint-1"]
    people = plans.PROFILES["smoke"].people  # fewer than have images
    assert trained.records == people
    assert f" {people} people " in trained.provenance["data"]
    assert trained.epoch(25) == 2
    _check_measured(trained, tmp_path / "w" / "smoke")
    for text, said in (
        (
            whole.replace('"iterations": 6', '"iterations": 7'),
            "another iterations (7) than this plan's (6)",
        ),
        (whole[:100], "no readable result"),
        ('{"experiment": "joint-1"}', "it lacks batch, config, iterations"),
    ):
        result.write_text(text)
        again = _run(*args, *only)
        assert again.exit_code == 2
        assert said in again.output
        assert result.read_text() == text
    result.unlink()
    solver = tmp_path / "w" / "smoke" / "joint-1" / "pose_solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 6", "max_iter: 60"))
    begun = _run(*args, *only)
    assert begun.exit_code == 2
    assert "begun with other settings" in begun.output


@pytest.mark.parametrize(
    ("computed", "own_results", "code", "says"),
    [
        (20, False, 0, "index.html"),
        (3, False, 0, "17 of 20 numbers left out: their data are not in"),
        (0, False, 1, "nothing was checked: "),
        (0, True, 0, "20 of 20 numbers left out: their data are not in"),
    ],
)
def test_a_report_says_at_its_end_what_it_left_out(
    computed: int,
    own_results: bool,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made(tmp_path / "index.html", 20, computed)
    monkeypatch.setattr(report_page, "make", lambda *_: made)
    results = ["--results", stored_folder("cpu")] if own_results else []
    result = _run("report", "--data", tmp_path, "-o", tmp_path / "report", *results)
    assert result.exit_code == code, result.output
    assert says in result.output.splitlines()[-1]


@pytest.mark.parametrize("command", ["fig4", "fig5", "fig6", "all"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_trainings_keep_the_shell_from_going_on(
    command: str, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.Lab, "check_data", lambda *_: None)
    monkeypatch.setattr(lab.Lab, "run", lambda *_: False)
    monkeypatch.setattr(side_by_side, "run_side_by_side", lambda *_: False)
    words = [command, "--data", tmp_path, "--work", tmp_path / "w", "--jobs", jobs]
    for more in (["--train-only"], ["-o", tmp_path / "out"]):
        result = _run(*words, *more)
        assert result.exit_code == 130, result.output
        assert result.stderr == "interrupted; the same command goes on\n"
    assert not (tmp_path / "out").exists()
    # torchrun asks the first of its processes alone
    second = contextlib.nullcontext(Group(1, 2, "cpu"))
    monkeypatch.setattr("reproduce.runtime.processes.group", lambda _: second)
    if jobs == 1:
        assert _run(*words, "--train-only").exit_code == 0


def test_of_torchruns_processes_one_makes_the_page_without_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no training images the processes part before they have joined a group."""
    monkeypatch.setenv("RANK", "1")
    page = tmp_path / "page"
    result = _run("all", "--data", tmp_path, "--work", tmp_path / "w", "-o", page)
    assert (result.exit_code, result.output) == (0, "")
    assert not page.exists() or not list(page.iterdir())


def test_all_draws_no_results_of_another_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Figure 6's command refuses is not drawn by the command for everything either."""

    def refuse(trainings: Trainings, jobs: int) -> bool:
        raise CaffeCompatError("joint-3.json: was made with another iterations")

    monkeypatch.setattr(Trainings, "run", refuse)
    result = _run("all", "--data", tmp_path, "--work", tmp_path / "w", "-o", tmp_path / "page")
    assert result.exit_code == 2
    assert "another iterations" in result.output
    assert not (tmp_path / "page").exists()


def test_the_epoch_is_counted_by_the_people_trained_on(tmp_path: Path) -> None:
    stored = stored_folder("cpu") / "joint-3.json"
    assert read_result(stored).epoch(5999) == 10
    file = tmp_path / "joint-3.json"
    text = stored.read_text()
    file.write_text(text.replace('"batch": 16', '"batch": 16, "records": 100'))
    assert read_result(file).epoch(5999) == 960
    file.write_text(text.replace("10000 people", "0 people"))
    assert read_result(file).epoch(5999) == 1


def _lab(work: Path, processes: int = 1) -> lab.Lab:
    """A laboratory of the smoke profile, as one of some processes."""
    group = Group(0, processes, "cpu")
    return lab.Lab(plans.PROFILES["smoke"], DATA, work, work / "results", print, group=group)


def test_processes_share_the_batch_of_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images an iteration, however many processes there are."""
    monkeypatch.setattr(Group, "any", lambda _, flag: flag)  # the others are not really there
    (experiment,) = plans.of_fig4(plans.PROFILES["smoke"], 3, 1)[:1]
    for processes, images in ((1, 4), (2, 2), (4, 1)):
        folder = tmp_path / str(processes)
        _lab(tmp_path, processes)._write(experiment, folder, tmp_path / "leeds.lmdb")
        text = (folder / "pose_train_test.prototxt").read_text()
        assert f"batch_size: {images}\n" in text
        # another number of processes goes on with the same samples
        _lab(tmp_path)._write(experiment, folder, tmp_path / "leeds.lmdb")
        assert "batch_size: 4\n" in (folder / "pose_train_test.prototxt").read_text()
    with pytest.raises(CaffeCompatError, match=r"3 processes cannot share .* batches of 4 images"):
        _lab(tmp_path, 3).run([experiment])
    assert not (tmp_path / "results").exists()


class _Begins(Exception):
    """A training would begin."""


def _begun(
    laboratory: lab.Lab,
    experiment: plans.Experiment,
    suffix: str,
    before: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Path, run.Options, Weights | None]:
    """With what one of an experiment's trainings begins: its folder, options and weights."""

    def begin(_: object, *given: object) -> None:
        raise _Begins(*given)

    monkeypatch.setattr(run, "make_solver", begin)
    with pytest.raises(_Begins) as raised:
        laboratory._train(experiment, laboratory.work / experiment.name, suffix, before, {})
    folder, options, weights = raised.value.args
    return folder, options, weights


def _model(path: Path, value: float) -> None:
    """A weight file that this value tells from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    net = parse_net('layer { name: "mark" type: "Bias" }')
    blob = Blob(np.full(1, value, np.float32))
    write_weights(path, Weights((LayerBlobs("mark", "Bias", (blob,)),)), net)


def test_an_experiment_trains_its_own_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of the same name in the current folder; at its size, on its process's share of the
    people, from nothing, with the profile's warm-up."""
    monkeypatch.setattr(Group, "any", lambda _, flag: flag)
    (experiment,) = plans.of_fig4(plans.PROFILES["smoke"], 3, 1)[:1]
    size = experiment.config.input_size
    laboratory = _lab(tmp_path / "work", 2)
    laboratory.profile = replace(laboratory.profile, warmup=4)
    laboratory.group = Group(1, 2, "cpu")
    folder = laboratory.work / experiment.name
    _lab(tmp_path / "work", 2)._write(experiment, folder, tmp_path / "leeds.lmdb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pose_train_test.prototxt").write_text("name: 'another'")
    root, options, weights = _begun(laboratory, experiment, "", [], monkeypatch)
    assert root == folder
    assert options.order == Order(True, "numpy", experiment.seed, rank=1, world=2)
    assert options.warmup == 4
    assert weights is None
    transform = read_net(folder / "pose_train_test.prototxt").layers[0].message.transform_param
    assert transform.target_dist == pytest.approx(41 / 35 * size / 368, abs=1e-5)
    assert transform.sigma_center == pytest.approx(21 * size / 368, abs=1e-4)


def test_a_training_goes_on_from_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 3 from stage 2's weights, fine-tuning from the stage-wise training's last ones."""
    found = {e.name: e for e in plans.stages_of_fig6(plans.PROFILES["smoke"], 3, 1)}
    stagewise, tuned = found["stage-wise-3"], found["fine-tuned-3"]
    laboratory = _lab(tmp_path)
    for experiment in (stagewise, tuned):
        folder = tmp_path / experiment.name
        laboratory._write(experiment, folder, tmp_path / "leeds.lmdb")
    models = [
        tmp_path
        / stagewise.name
        / "snap"
        / f"pose_stage{stage}_iter_{stagewise.iterations}.caffemodel"
        for stage in (1, 2, 3)
    ]
    _model(models[0], 1)
    _model(models[1], 2)
    _, _, weights = _begun(laboratory, stagewise, "_stage3", ["_stage1", "_stage2"], monkeypatch)
    assert weights is not None
    assert weights["mark"][0].data.tolist() == [2]
    _model(models[2], 3)
    laboratory.results.mkdir()
    content = json.loads((stored_folder("cpu") / "stage-wise-3.json").read_text())
    content["iterations"] = stagewise.iterations
    (laboratory.results / "stage-wise-3.json").write_text(json.dumps(content))
    _, _, weights = _begun(laboratory, tuned, "", [], monkeypatch)
    assert weights is not None
    assert weights["mark"][0].data.tolist() == [3]


def test_people_are_taken_evenly_from_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory = _lab(tmp_path)
    laboratory.profile = replace(laboratory.profile, people=3)
    laboratory.__dict__["_people"] = list(range(101))
    planned: list[list[int]] = []
    monkeypatch.setattr(store, "plan", lambda people, seed: planned.append(people))
    monkeypatch.setattr(store, "export_lmdb", lambda *_, **__: None)
    laboratory.records()
    assert planned == [[0, 50, 100]]


def test_the_pose_machines_context_is_from_trees_that_did_not_see_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each half of the images gets its beliefs from the other half's trees."""
    pytest.importorskip("sklearn")
    from reproduce.experiments.pose_machine import PoseMachine, PoseMachineConfig, features

    rng = np.random.default_rng(0)
    samples = []
    for _ in range(6):
        label = np.zeros((3, 8, 8), np.float32)
        label[0, 2, 2] = label[1, 5, 5] = 1
        label[2] = 1 - label[:2].max(0)
        data = rng.normal(0, 0.1, (4, 64, 64)).astype(np.float32)
        samples.append((features(data), label))
    fitted: dict[int, np.ndarray] = {}
    asked: list[tuple[int, np.ndarray]] = []

    class Trees:
        """Remembers the cells that it was fitted on."""

        def __init__(self, **_: object) -> None:
            self.classes_ = np.arange(3)

        def fit(self, rows: np.ndarray, _: np.ndarray) -> Trees:
            fitted[id(self)] = rows
            return self

        def predict_proba(self, rows: np.ndarray) -> np.ndarray:
            asked.append((id(self), rows))
            return np.full((len(rows), 3), 1 / 3)

    monkeypatch.setattr("sklearn.ensemble.HistGradientBoostingClassifier", Trees)
    machine = PoseMachine(PoseMachineConfig(stages=2, cells=5, trees=1, leaves=2), parts=2)
    machine.fit(samples)
    assert asked
    for trees, rows in asked:
        seen = {row.tobytes() for row in fitted[trees]}
        assert seen.isdisjoint(row.tobytes() for row in rows)
    assert {trees for trees, _ in asked} == {id(trees) for trees in machine.stages[0]}


def test_a_pose_machine_learns_from_people_as_they_are(tmp_path: Path) -> None:
    """At equal distances in the records, without any of the data layer's dice."""
    from reproduce.experiments.pose_machine import features, training_samples

    people = dataset(tmp_path, 9)
    store.export_lmdb(store.plan(people, seed=4), tmp_path, tmp_path / "records")
    found = training_samples(tmp_path / "records", 64, 3)
    assert len(found) == 3
    released = DEMO.at(64)
    settings = Settings(
        stride=8,
        crop_size_x=64,
        crop_size_y=64,
        target_dist=released.target_dist,
        sigma_center=released.sigma,
    )
    as_it_is = Augmentation(1.0, 0.0, 0, 0, False)
    records = open_store(tmp_path / "records")
    for number, (described, label) in zip((0, 4, 8), found, strict=True):
        record = records.record(number)
        sample = augment(record.image, record.annotation, settings, as_it_is)
        np.testing.assert_array_equal(described, features(sample.data))
        np.testing.assert_array_equal(label, sample.label)
    records.close()
    assert len(training_samples(tmp_path / "records", 64, 100)) == 9


@needs_data
def test_a_pose_machine_is_tested_as_a_network_is(tmp_path: Path) -> None:
    class Machine:
        """As far as the test asks."""

        parts, stages = 14, (None,)

        def maps(self, data: np.ndarray) -> list[np.ndarray]:
            return [np.random.default_rng(0).random((len(data), 15, 8, 8), np.float32)]

    laboratory = _lab(tmp_path)
    predictor = PoseMachinePredictor(Machine(), laboratory._protocol.at(64))  # type: ignore[arg-type]
    result, predicted = laboratory._score(predictor)
    assert predicted.shape == (laboratory.profile.tested, 14, 2)
    assert result.counted.sum() == 14 * laboratory.profile.tested


@pytest.mark.long
@needs_data
def test_people_without_their_image_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, image in (("lsp", "im0001.jpg"), ("lspet", "im00001.jpg")):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        (folder / "joints.mat").symlink_to(DATA / name / "joints.mat")
        (folder / "images" / image).symlink_to(DATA / name / "images" / image)
    laboratory = replace(_lab(tmp_path), data=tmp_path)
    assert len(laboratory._people) == 2
    said = capsys.readouterr().out
    trained, _ = published()["training"]["lsp"]
    left = f"{trained - 2} of {trained} training people are left out: image not there (lspet/"
    assert said.startswith(left)


def test_the_paper_profile_reaches_the_published_loss() -> None:
    """It trains, with as many people, at least as long as the training whose loss is known."""
    training = published()["training"]
    profile = plans.PROFILES["paper"]
    assert profile.iterations >= training["final_loss_iteration"]
    assert profile.baseline.images == training["lsp"][0]


def test_the_weights_of_an_earlier_experiment_are_its_last_trainings(tmp_path: Path) -> None:
    """By their name: a copied folder's files may have the times of the copying."""
    laboratory, name = _lab(tmp_path), "stage-wise-3"
    with pytest.raises(CaffeCompatError, match="are needed and not there; run it first"):
        laboratory.weights_of(name)
    laboratory.results.mkdir()
    shutil.copy(stored_folder("cpu") / f"{name}.json", laboratory.results)
    iterations = read_result(laboratory.results / f"{name}.json").iterations
    folder = tmp_path / name / "snap"
    folder.mkdir(parents=True)
    final = folder / f"pose_stage3_iter_{iterations}.caffemodel"
    final.touch()
    for other in ("pose_stage3_iter_500", f"pose_stage2_iter_{iterations}"):
        (folder / f"{other}.caffemodel").touch()
    assert laboratory.weights_of(name) == final
    final.unlink()
    with pytest.raises(CaffeCompatError, match="final weights"):
        laboratory.weights_of(name)


@pytest.mark.parametrize(
    ("changed", "value", "names"),
    [
        ("people", 999, ["joint-3", "joint-5"]),
        ("search", [1.0], ["joint-3", "joint-5"]),
        ("batch", 64, ["joint-3-seed2", "joint-3"]),
        ("iterations", 600, ["joint-3-seed2", "joint-3"]),
        ("records", 100, ["joint-3-seed2", "joint-3-seed3"]),
        ("scheme", "fine-tuned", ["joint-3-seed2", "joint-3"]),
    ],
)
def test_results_of_one_figure_are_measured_alike(
    changed: str, value: object, names: list[str], tmp_path: Path
) -> None:
    """Else the mean of some seeds would be that of different trainings."""
    text = (stored_folder("cpu") / "joint-3.json").read_text()
    content = {**json.loads(text), "hits_of_people": {}}
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, "experiment": name}))
    (tmp_path / ".joint-3.1f.json").write_text('{"experiment": ')  # killed while it was written
    assert sorted(read_results(tmp_path)) == sorted(names)
    other = {**content, "experiment": names[1], changed: value}
    (tmp_path / f"{names[1]}.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match=f"has other {changed} than {names[0]} in the same folder"):
        read_results(tmp_path)


@pytest.mark.slow
@needs_data
def test_several_processes_train_one_network(tmp_path: Path) -> None:
    """As the paper profile runs on several GPUs: torchrun, here two processes on the CPU."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "reproduce.cli.reproduce",
        "fig6",
    ]
    command += [
        "--profile",
        "smoke",
        "--data",
        str(DATA),
        "--workers",
        "0",
        "--work",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    command += ["--only", "joint-2", "-o", str(tmp_path / "f")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("joint-2: PCK@0.2") == 1
    assert done.stdout.count("fig06.json") == 1
    trained = read_results(tmp_path / "smoke" / "results")["joint-2"]
    assert trained.processes == 2
    assert trained.batch == plans.PROFILES["smoke"].batch
    assert len(trained.gradients) >= 2  # another --stages may draw them
    definition = (tmp_path / "smoke" / "joint-2" / "pose_train_test.prototxt").read_text()
    assert f"batch_size: {trained.batch // 2}\n" in definition
    alone = subprocess.run(
        [sys.executable, *command[5:]], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert alone.returncode == 0, alone.stderr  # the same plan, whose result is there
    assert "joint-2 (1 of 1): has its result" in alone.stdout


@pytest.mark.long
@needs_data
@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no Chromium on the path (Debian's package chromium)"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_report_in_a_browser(tmp_path: Path) -> None:
    """At the width of a desk and of a phone: no console error, no missing picture, nothing too wide
    or too small to read."""
    made = _run("report", "--data", DATA, "-o", tmp_path / "report")
    assert made.exit_code == 0, made.output
    look = [sys.executable, str(ROOT / "tools" / "look_at_page.py")]
    page = tmp_path / "report" / "index.html"
    seen = subprocess.run([*look, str(page)], capture_output=True, text=True, timeout=300)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert seen.stdout.count("nothing wrong") == 2
    page.write_text(
        page.read_text().replace(
            "</body>", '<img alt="x" src="gone.png"><script>console.error("no")</script></body>'
        )
    )
    wrong = subprocess.run([*look, str(page)], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 1
    assert "pictures are missing" in wrong.stdout
    assert "console" in wrong.stdout


@pytest.mark.long
def test_stored_results_and_their_report(tmp_path: Path) -> None:
    """What comes with the package says where it is from, is of the profile's plan, and makes the
    page on any machine."""
    plan = {
        e.name: e
        for make in (plans.stages_of_fig6, plans.of_fig4)
        for e in make(plans.PROFILES["cpu"], 3, 3)
    }
    stored = read_results(stored_folder("cpu"))
    for name, result in stored.items():
        assert name in plan
        assert result.people == plans.PROFILES["cpu"].tested
        about = {"command", "commit", "version", "torch", "data", "date", "device"}
        assert about <= set(result.provenance)
        if plan[name].kind == "network":
            assert result.iterations == plan[name].iterations
            assert result.config == plan[name].config
    page = _run("report", "--data", tmp_path, "-o", tmp_path / "report")
    assert page.exit_code == 1, page.output  # stored results alone check nothing
    assert "nothing was checked" in page.output
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert all(name in text for name in stored)
    assert "Equal to the original programs" in text
    # trained from an installed package, which does not know its commit
    assert text.count("commit not kept") == sum(not r.provenance["commit"] for r in stored.values())
    assert "cpm-reproduce fig6 --profile cpu --stages 3 --seeds 2 --data DIR" in text
    assert "cpm-reproduce fig4 --profile cpu --data DIR" in text


def test_stored_commands_are_understood(tmp_path: Path) -> None:
    """Whoever wants a stored result again can give the command that it names."""
    commands = {
        result.provenance["command"] for result in read_results(stored_folder("cpu")).values()
    }
    assert len(commands) > 1
    for command in commands:
        program, *words = command.split()
        assert program == "cpm-reproduce"
        plan = _run(*words, "--dry-run", "--work", tmp_path / "w")
        assert plan.exit_code == 0, plan.output
