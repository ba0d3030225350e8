"""``cpm-reproduce``: the check and the figures from predictions."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from caffe_compat.errors import DataError
from reproduce.benchmarks import check
from reproduce.benchmarks.benchmark import competitors, unread_methods
from reproduce.benchmarks.measures import EvalResult
from reproduce.benchmarks.mpii import MpiiValidation
from reproduce.benchmarks.published import published
from reproduce.cli import reproduce
from reproduce.drawing.curves import Mark
from reproduce.experiments.results import read_results, stored_folder
from reproduce.figures import claims, fig04, fig05, fig06, fig08, fig12
from reproduce.figures.method_curves import best_first
from reproduce.figures.verdicts import Claim, absent
from reproduce.predict import joint_files
from tests.paths import DATA, needs_data
from tests.pictures import read_picture


@needs_data
def test_check_on_the_real_data() -> None:
    outcomes = check.run(DATA)
    assert len(outcomes) >= 17
    assert {o.verdict for o in outcomes} == {"equal"}, [o for o in outcomes if o.verdict != "equal"]
    result = CliRunner().invoke(reproduce.main, ["check", "--data", str(DATA)])
    assert result.exit_code == 0
    assert "12670" in result.output


def test_missing_data_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(reproduce.main, ["check", "--data", str(tmp_path)])
    assert result.exit_code == 1  # nothing was checked
    assert "missing: release/LSP_prediction_model_MPII_LSP_6s.mat is not in" in result.output
    assert "To be had" in result.output
    for figure in ("fig8", "fig9", "fig10", "fig12"):
        made = CliRunner().invoke(
            reproduce.main, [figure, "--data", str(tmp_path), "-o", str(tmp_path / "out")]
        )
        assert made.exit_code == 2
        assert "Traceback" not in made.output
        assert not (tmp_path / "out").exists()


@needs_data
def test_claims_that_need_no_training(tmp_path: Path) -> None:
    """Each is confirmed or says why it cannot be tested; without data the missing file is named."""
    found = claims.without_training(DATA)
    assert [c.verdict for c in found].count("confirmed") == 3
    assert all(c.why for c in found if c.verdict == "undecided")
    flic = next(c for c in found if c.figure == "Figure 12")
    assert flic.published == "elbow +12.7 and +9.3; wrist +14.8 and +8.9"
    assert flic.ours.count("over Chen") == 4
    # whoever is closest, the lead over another earlier method is no smaller
    signed = re.compile(r"[+-][\d.]+")
    leads = zip(signed.findall(flic.ours), signed.findall(flic.published), strict=True)
    assert all(float(over_one) >= float(over_closest) for over_one, over_closest in leads)
    nothing = claims.without_training(tmp_path)
    assert [c.verdict for c in nothing].count("confirmed") == 1  # the receptive fields
    assert sum(".mat" in c.why for c in nothing) == 3


@needs_data
def test_a_wrong_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    table = published()
    table["check"][1]["value"] = 91.0
    monkeypatch.setattr(check, "published", lambda: table)
    result = CliRunner().invoke(reproduce.main, ["check", "--data", str(DATA)])
    assert result.exit_code == 1
    assert "1 differs" in result.output


@pytest.mark.long
@needs_data
@pytest.mark.parametrize(
    ("name", "file", "panel", "label", "at", "value"),
    [
        ("fig9", "fig09", "total", "CPM (MPII + LSP)", 20, 90.5),
        ("fig12", "fig12", "elbow, by the truth", "CPM (FLIC)", 20, 97.59),
        ("fig8", "fig08", "total", "Newell et al., ECCV'16", 50, 88.43),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_figures(
    tmp_path: Path, name: str, file: str, panel: str, label: str, at: int, value: float
) -> None:
    result = CliRunner().invoke(reproduce.main, [name, "--data", str(DATA), "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / f"{file}.json").read_text())
    assert content["panels"][panel][label]["y"][at] == pytest.approx(value, abs=0.005)
    assert content["provenance"]["command"] == f"cpm-reproduce {name}"
    for ending in ("png", "pdf", "csv"):
        assert (tmp_path / f"{file}.{ending}").stat().st_size > 1000

    rows = json.loads((tmp_path / f"{file}_published.json").read_text())
    assert rows
    assert {r["verdict"] for r in rows} == {"equal"}
    assert "difference" in result.output


@needs_data
def test_fig12_shows_the_released_scripts_norm_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the prediction's own length there are the authors' numbers alone."""
    monkeypatch.setattr(fig12, "draw", lambda *_, **__: None)
    fig12.make(DATA, tmp_path)
    panels = json.loads((tmp_path / "fig12.json").read_text())["panels"]
    (curve,) = panels["elbow, by the prediction"].values()
    assert curve["y"][20] == pytest.approx(97.54, abs=0.005)
    wrists = [curve["y"][20] for curve in panels["wrist, by the truth"].values()]
    assert len(wrists) > 1
    assert wrists == sorted(wrists, reverse=True)


def test_the_best_method_comes_first() -> None:
    """By the total at the last threshold, whatever it was before."""

    def method(*total: float) -> EvalResult:
        nothing = np.zeros(0, np.int64)
        points = np.array([0.1, 0.2])
        return EvalResult(points, np.zeros((2, 0)), np.array(total), nothing, nothing, ())

    results = {"slow": method(10, 60), "best": method(40, 90), "early": method(50, 70)}
    assert list(best_first(results)) == ["best", "early", "slow"]


@needs_data
def test_the_lead_over_the_pose_machine_is_said_in_its_own_kind_of_truth_too() -> None:
    """It was published observer-centric; scored so it is far better, and the lead smaller."""
    (claim,) = (c for c in claims.without_training(DATA) if c.figure == "Figure 6")
    assert claim.why.endswith("the leads are +33.9 and +15.3")


@needs_data
def test_that_lead_needs_no_truth_of_another_kind(tmp_path: Path) -> None:
    """The number that was published can be held against ours without it; a damaged file leaves its
    claim alone undecided."""
    _linked(tmp_path, "lsp", "release")
    machine = tmp_path / claims.MACHINE
    machine.parent.mkdir(parents=True)
    machine.symlink_to(DATA / claims.MACHINE)
    (claim,) = (c for c in claims.without_training(tmp_path) if c.figure == "Figure 6")
    assert claim.verdict == "confirmed"
    assert "LSP-joints-OC.mat is not in" in claim.why
    machine.unlink()
    machine.write_bytes((DATA / claims.MACHINE).read_bytes()[:4000])
    found = {c.figure: c for c in claims.without_training(tmp_path)}
    assert found["Figure 6"].verdict == "undecided"
    assert "is no readable MATLAB file" in found["Figure 6"].why
    assert found["Figure 9"].verdict == "confirmed"
    with pytest.raises(DataError, match="no readable MATLAB file"):
        fig06.make(read_results(stored_folder("cpu")), tmp_path, {}, data=tmp_path)


def _linked(folder: Path, *names: str) -> None:
    """Folders of the data in another one."""
    for name in names:
        (folder / name).symlink_to(DATA / name)


@pytest.mark.long
@needs_data
def test_a_method_whose_file_is_called_otherwise_is_named(tmp_path: Path) -> None:
    _linked(tmp_path, "lsp", "release")
    people = joint_files.read(DATA / "release" / "LSP_prediction_model_LSP_6s.mat")
    assert not unread_methods(DATA)
    for folder, name in (("Mine", "pred_keypoints_lsp.mat"), ("Ours", "pred_keypoints_lsp_pc.mat")):
        (tmp_path / "predictions" / folder).mkdir(parents=True)
        joint_files.write_mat(tmp_path / "predictions" / folder / name, people)
    (tmp_path / "predictions" / "Empty").mkdir()
    clearing = tmp_path / "predictions" / "Npz\x1b[2J"
    clearing.mkdir()
    (clearing / "predictions.npz").touch()
    command = ["fig9", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    made = CliRunner().invoke(reproduce.main, command)
    assert made.exit_code == 0, made.output
    unread = "predictions/Mine, predictions/Npz\\x1b[2J"
    assert f"left out: {unread}: no pred_keypoints_lsp_pc.mat" in made.stderr
    drawn = (tmp_path / "out" / "fig09.csv").read_text()
    assert "Ours" in drawn
    assert "Mine" not in drawn


@pytest.mark.long
@needs_data
def test_a_damaged_file_costs_its_own_check(tmp_path: Path) -> None:
    _linked(tmp_path, "lsp", "flic", "mpii")
    (tmp_path / "release").mkdir()
    for file in (DATA / "release").glob("*.mat"):
        (tmp_path / "release" / file.name).symlink_to(file)
    file = tmp_path / "release" / "LSP_prediction_model_MPII_LSP_6s.mat"
    people = joint_files.read(file)[:10]
    file.unlink()
    joint_files.write_mat(file, people)
    outcomes = check.run(tmp_path)
    verdicts = {outcome.verdict for outcome in outcomes}
    assert verdicts == {"equal", "missing", "refused"}
    refused = {outcome.missing for outcome in outcomes if outcome.verdict == "refused"}
    assert all("holds 10 people with 14 joints" in text for text in refused)
    result = CliRunner().invoke(reproduce.main, ["check", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "refused: release/LSP_prediction_model_MPII_LSP_6s.mat: holds 10" in result.stdout
    assert " equal, " in result.stdout
    montage = ["fig10", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    figure = CliRunner().invoke(reproduce.main, montage)
    assert figure.exit_code == 2
    assert "holds 10 people with 14 joints" in figure.stderr


@needs_data
def test_a_montage_of_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    _linked(tmp_path, "release")
    images = tmp_path / "lsp" / "images"
    images.mkdir(parents=True)
    (tmp_path / "lsp" / "joints.mat").symlink_to(DATA / "lsp" / "joints.mat")
    for number in (1001, 1002):
        (images / f"im{number}.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    result = CliRunner().invoke(
        reproduce.main, ["fig10", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "none of the 2 images can be read; the first: " in result.stderr
    assert "im1001.jpg" in result.stderr
    assert "Git LFS" in result.stderr


def test_methods_have_names_of_their_own(tmp_path: Path) -> None:
    """The curve of one would replace another's, even the authors'."""
    for method in ("A", "B"):
        folder = tmp_path / "predictions" / method
        folder.mkdir(parents=True)
        (folder / "p.mat").touch()
        (folder / "algorithm.txt").write_text("Yang et al., CVPR'16\nmore\n")
    with pytest.raises(DataError, match=r"B/algorithm\.txt: is called 'Yang .*', as those of .*/A"):
        competitors(tmp_path, "p.mat", [])
    (tmp_path / "predictions" / "B" / "algorithm.txt").write_text("CPM (LSP)")
    assert sorted(competitors(tmp_path, "p.mat", [])) == ["CPM (LSP)", "Yang et al., CVPR'16"]
    with pytest.raises(
        DataError, match=r"is called 'CPM \(LSP\)', as the authors' predictions are"
    ):
        competitors(tmp_path, "p.mat", ["CPM (LSP)"])


@needs_data
def test_montage_of_predictions(tmp_path: Path) -> None:

    result = CliRunner().invoke(reproduce.main, ["fig10", "--data", str(DATA), "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    people = json.loads((tmp_path / "fig10.json").read_text())["people"]
    assert {p["person"].split()[0] for p in people} == {"LSP", "FLIC"}
    height, width = read_picture(tmp_path / "fig10.png").shape[:2]
    assert width > 1000
    with open(tmp_path / "fig10.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["person", "left out"], *([p["person"], ""] for p in people)]
    page = (tmp_path / "fig10.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", page)
    assert box is not None
    assert float(box[1]) / float(box[2]) == pytest.approx(width / height, rel=1e-3)


def test_the_choice_of_pictures_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    from reproduce.figures import fig10

    written: list[str] = []
    monkeypatch.setattr(cv2, "putText", lambda _, text, *others: written.append(text))
    fig10._strip("LSP", [np.zeros((fig10.TILE[1], fig10.TILE[0], 3), np.uint8)], here=50)
    assert written == ["LSP: the authors' released predictions of 1 of the 50 people here"]


def test_verdict_and_rule_are_apart() -> None:
    claim = Claim("Figure 6", "(b) it leads", "first", "56.3", "contradicted", "confirmed where")
    said = "(b) it leads: contradicted (published first, ours 56.3)"
    assert reproduce._verdict(claim) == f"{said}; the rule: confirmed where"
    assert reproduce._verdict(replace(claim, why="")) == said
    missing = absent("Figure 6", "it leads", "first", "not trained yet")
    assert reproduce._verdict(missing).endswith("ours -); not trained yet")


@needs_data
def test_scoring_needs_no_torch() -> None:
    code = (
        f"import sys\nsys.modules['torch'] = None\nfrom reproduce.benchmarks.check import run\n"
        f"assert {{o.verdict for o in run({str(DATA)!r})}} == {{'equal'}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_papers_numbers_are_drawn_as_marks(tmp_path: Path) -> None:
    """What the paper itself says gets its mark, at its threshold; what is only known from released
    predictions has none: it would stand on their curve."""
    from reproduce.benchmarks.flic import Flic
    from reproduce.benchmarks.lsp import Lsp
    from reproduce.benchmarks.mpii import MpiiValidation
    from reproduce.figures.method_curves import published_marks

    def places(found: dict[str, list[Mark]]) -> dict[str, list[tuple[float, float]]]:
        return {name: [(mark.x, mark.y) for mark in marks] for name, marks in found.items()}

    assert places(published_marks(Lsp(tmp_path))) == {"total": [(0.2, 90.5), (0.2, 84.32)]}
    assert places(published_marks(Flic(tmp_path))) == {
        "elbow": [(0.2, 97.59)],
        "wrist": [(0.2, 95.03)],
    }
    assert published_marks(MpiiValidation(tmp_path)) == {}


@pytest.mark.parametrize("second", [80.0, 100.0, math.nan])
def test_one_wrong_number_of_a_row_differs(second: float) -> None:
    about = {"tolerance": 0.005, "source": ""}
    wanted = [1.0, 90.0]
    assert check._outcome("x", wanted, about, lambda: [1.0, second]).verdict == "differs"
    assert check._outcome("x", wanted, about, lambda: [1.004, 90.0]).verdict == "equal"


@needs_data
@pytest.mark.parametrize("by", [-0.1, 0.1])
def test_a_claim_from_released_predictions_can_be_contradicted(
    by: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = published()
    table["lsp"]["total"][1] += by
    monkeypatch.setattr(claims, "published", lambda: table)
    found = {claim.figure: claim.verdict for claim in claims.without_training(DATA)}
    assert found["Figure 9"] == "contradicted"


def test_pictures_are_chosen_from_all() -> None:
    from reproduce.figures.fig10 import _spread

    assert _spread(list(range(100)), 3) == [0, 50, 99]
    assert _spread([1, 2], 3) == [1, 2]


@pytest.mark.long
@pytest.mark.parametrize("figure", [fig04, fig05, fig06])
def test_every_file_of_a_figure_is_listed(figure: ModuleType, tmp_path: Path) -> None:
    listed = figure.make(read_results(stored_folder("cpu")), tmp_path, {})
    assert sorted(listed) == sorted(tmp_path.iterdir())


def test_own_methods_in_figure_8(tmp_path: Path) -> None:
    """What cpm-predict writes on the validation split is a curve, and the title says no more that
    there is none; two files of one name are refused."""
    folder = tmp_path / "mpii"
    folder.mkdir()
    dice = np.random.default_rng(8)
    part = dice.uniform(10, 200, (5, 16, 2))
    with h5py.File(folder / "valid.h5", "w") as file:
        file["imgname"] = np.array([b"a.jpg"] * 5)
        file["center"], file["scale"] = part.mean(1), np.ones(5)
        file["part"], file["normalize"] = part, np.full(5, 20.0)
    with h5py.File(folder / "newell.h5", "w") as file:
        file["preds"] = part + 100
    benchmark = MpiiValidation(tmp_path)
    texts = []
    for figure in ("before", "after"):
        (tmp_path / figure).mkdir()
        fig08.make(tmp_path, tmp_path / figure)
        texts.append((tmp_path / figure / "fig08.svg").read_text(encoding="utf-8"))
        benchmark.write(folder / "MPI_valid_prediction_model_mine.mat", benchmark.truth(16)[0])
    assert list(benchmark.methods()) == ["Newell et al., ECCV'16", "mine"]
    assert ["no curve of a CPM" in text for text in texts] == [True, False]
    curves = json.loads((tmp_path / "after" / "fig08.json").read_text())["panels"]["total"]
    assert curves["mine"]["y"][-1] == 100
    half = benchmark.truth(16)[0]
    half[:2] = np.nan
    benchmark.write(folder / "MPI_valid_prediction_model_half.mat", half)
    fig08.make(tmp_path, tmp_path / "after")
    curves = json.loads((tmp_path / "after" / "fig08.json").read_text())["panels"]["total"]
    assert curves["half (28 of 70 joints not predicted)"]["y"][-1] == 60
    shutil.copy(folder / "newell.h5", folder / "mine.h5")
    with pytest.raises(DataError, match=r"mine\.mat: is called 'mine', as another file"):
        benchmark.methods()
