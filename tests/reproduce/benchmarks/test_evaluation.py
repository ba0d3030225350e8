"""Scores against the original evaluation's tables and against the published numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_compat.errors import CaffeCompatError, DataError
from reproduce import evaluate
from reproduce.benchmarks import measures
from reproduce.benchmarks.benchmark import BODY_GROUPS, Benchmark
from reproduce.benchmarks.flic import Flic
from reproduce.benchmarks.lsp import Lsp
from reproduce.benchmarks.mpii import MpiiValidation
from reproduce.benchmarks.registry import open_benchmark
from reproduce.cli.common import emit_json
from reproduce.people import matfile
from reproduce.people.matlab_pixels import from_matlab, to_matlab
from reproduce.people.skeletons import FLIC_POINTS, LSP_JOINTS, PARTS_14
from reproduce.predict import joint_files
from tests.paths import DATA, GOLDEN, listed, needs_data

_TABLES = GOLDEN / "matlab" / "evaluation" / "lsp_flic.json"


def _cases(dataset: str) -> list[Any]:
    """The recorded tables of a data set, as the file lists them."""
    if not _TABLES.exists():
        return listed(iter(()))
    tables = json.loads(_TABLES.read_text())
    return listed((v, k) for k, v in tables.items() if v["dataset"] == dataset)


def _file(case: dict[str, Any]) -> Path:
    if case["name"].startswith("release_"):
        model = str(case["name"]).removeprefix("release_")
        return DATA / "release" / f"LSP_prediction_model_{model}.mat"
    return DATA / "predictions" / str(case["name"]) / f"pred_keypoints_lsp_{case['mode']}.mat"


@needs_data
@pytest.mark.parametrize("case", _cases("lsp"))
def test_lsp_tables(case: dict[str, Any]) -> None:
    """Every competitor's prediction file: the whole PCK curve of each joint and in total, and the
    area under it."""
    predicted = joint_files.read(_file(case))
    result = Lsp(DATA).score(predicted, annotation=case["mode"])
    recorded = np.array(case["pck"])
    np.testing.assert_allclose(result.per_joint, recorded[:, :-1], atol=1e-9)
    np.testing.assert_allclose(result.total, recorded[:, -1], atol=1e-9)
    assert result.auc == pytest.approx(case["auc"], abs=2e-4)
    by_the_door = evaluate(_file(case), "lsp", DATA, annotation=case["mode"])
    np.testing.assert_array_equal(by_the_door.per_joint, result.per_joint)
    if "hit_count" in case:
        assert result.hits[result.at(0.2)].tolist() == [int(h) for h in np.ravel(case["hit_count"])]


@needs_data
@pytest.mark.parametrize("case", _cases("lsp"))
def test_lsp_pcp_and_pdj(case: dict[str, Any]) -> None:
    predicted, mode = joint_files.read(_file(case)), case["mode"]
    limbs = evaluate(predicted, "lsp", DATA, annotation=mode, measure="pcp")
    recorded = np.array(case["pcp"])
    np.testing.assert_allclose(limbs.per_joint, recorded[:, :-1], atol=1e-7)
    np.testing.assert_allclose(limbs.total, recorded[:, -1], atol=1e-7)
    wide = Lsp(DATA).score(predicted, annotation=mode, thresholds=measures.WIDE_THRESHOLDS)
    order = ("ankle", "knee", "hip", "wrist", "elbow", "shoulder", "head")
    pdj = np.stack([wide.curve(BODY_GROUPS[group]) for group in order], 1) / 100
    np.testing.assert_allclose(pdj, np.array(case["pdj"]), atol=1e-9)


@needs_data
@pytest.mark.parametrize("case", _cases("flic"))
def test_flic_kit(case: dict[str, Any]) -> None:
    (joints,) = matfile.load(DATA / "predictions" / "FLIC-joints-OC.mat", "joints")
    truth = np.asarray(joints, np.float64).transpose(2, 1, 0)
    old = case["name"].endswith("_old")
    path = (
        DATA
        / "predictions"
        / case["name"].removesuffix("_old")
        / f"pred_keypoints_flic_oc{'_old' if old else ''}.mat"
    )
    # the comparison kit divides by the diagonal of the torso box, whose size is its last row
    result = measures.pck(
        joint_files.read(path),
        from_matlab(truth[:, :11]),
        np.linalg.norm(truth[:, 11], axis=1),
        FLIC_POINTS,
    )
    recorded = np.array(case["pck"])
    np.testing.assert_allclose(result.per_joint, recorded[:, :-1], atol=1e-7)
    np.testing.assert_allclose(result.total, recorded[:, -1], atol=1e-7)
    assert result.auc == pytest.approx(case["auc"], abs=2e-4)


@needs_data
@pytest.mark.parametrize("case", _cases("flic"))
def test_flic_pcp_and_pdj(case: dict[str, Any]) -> None:
    (joints,) = matfile.load(DATA / "predictions" / "FLIC-joints-OC.mat", "joints")
    truth = np.asarray(joints, np.float64).transpose(2, 1, 0)
    old = case["name"].endswith("_old")
    path = (
        DATA
        / "predictions"
        / case["name"].removesuffix("_old")
        / f"pred_keypoints_flic_oc{'_old' if old else ''}.mat"
    )
    prediction, points = joint_files.read(path), from_matlab(truth[:, :11])
    found = measures.pcp(prediction, points, FLIC_POINTS, Flic.sticks)
    recorded = np.array(case["pcp"])
    np.testing.assert_allclose(found.per_joint, recorded[:, :-1], atol=1e-7)
    np.testing.assert_allclose(found.total, recorded[:, -1], atol=1e-7)
    reference = np.linalg.norm(truth[:, 3] - truth[:, 6], axis=1)
    wide = measures.pck(prediction, points, reference, FLIC_POINTS, measures.WIDE_THRESHOLDS)
    groups = (("Leye", "Reye"), ("nose",), *Flic.groups.values())
    pdj = np.stack([wide.curve(group) for group in groups], 1) / 100
    np.testing.assert_allclose(pdj, np.array(case["pdj"]), atol=1e-9)


@needs_data
@pytest.mark.parametrize("case", _cases("flic_release"))
def test_flic_release(case: dict[str, Any]) -> None:
    """In both normalisations; elbow and wrist give the published 97.59 / 95.03 and the script's
    97.54 / 94.98."""
    from reproduce.people import flic_files

    flic = Flic(DATA)
    examples = flic_files.read_examples(DATA / "flic" / "examples.mat")
    tests = [e for e in examples if matfile.number(e.istest)]
    swapped = [i for i, e in enumerate(tests, 1) if flic_files.joints_of(e)[1]]
    assert swapped == [int(i) for i in case["swapped"]]
    model = case["name"].removeprefix("release_")
    predicted = joint_files.read(DATA / "release" / f"FLIC_prediction_model_{model}.mat")
    elbow, wrist = Flic.groups["elbow"], Flic.groups["wrist"]
    published = {"torso": (97.59, 95.03), "prediction": (97.54, 94.98)}
    for norm, key in (("torso", "pck_gt_norm"), ("prediction", "pck_pred_norm")):
        result = flic.score(predicted, norm=norm)
        np.testing.assert_allclose(result.per_joint, np.array(case[key]), atol=1e-7)
        found = round(result.group(elbow, 0.2), 2), round(result.group(wrist, 0.2), 2)
        assert found == published[norm]
    by_truth = flic.score(predicted)
    for threshold, wanted in (
        (0.05, (62.70, 67.52)),
        (0.10, (89.76, 87.80)),
        (0.20, (97.59, 95.03)),
    ):
        ours = (
            round(by_truth.group(elbow, threshold), 2),
            round(by_truth.group(wrist, threshold), 2),
        )
        assert ours == wanted
    with pytest.raises(CaffeCompatError, match="flic has torso, prediction, box, pdj"):
        flic.score(predicted, norm="head")


@needs_data
@pytest.mark.parametrize("case", _cases("modec"))
def test_modec(case: dict[str, Any]) -> None:
    folder = DATA / "predictions" / str(case["name"])
    (guess,) = matfile.load(folder / "results.mat", "pred_coords")
    paper, own = matfile.load(folder / "results_paper.mat", "pred_coords", "gt_coords")
    guess, paper, own = (np.asarray(a, np.float64).transpose(2, 1, 0) for a in (guess, paper, own))
    own = own[:, ~np.isnan(own[0, :, 0])]
    result = Flic(DATA).score(from_matlab(guess))  # six points, measured by the hips of the truth
    np.testing.assert_allclose(result.per_joint, np.array(case["lsho_rhip"]), atol=1e-7)
    reference = np.linalg.norm(own[:, 0] - own[:, 7], axis=1)
    result = measures.pck(paper, own[:, :6], reference, FLIC_POINTS[:6])
    np.testing.assert_allclose(result.per_joint, np.array(case["paper_lsho_rhip"]), atol=1e-7)


def _mpii_cases() -> list[Any]:
    path = _TABLES.with_name("mpii_pckh.json")
    tables = json.loads(path.read_text()) if path.exists() else {}
    found = {name: t["pckh"] for name, t in tables.items() if isinstance(t, dict) and "pckh" in t}
    return listed((pair, pair[0]) for pair in found.items())


@needs_data
@pytest.mark.parametrize("case", _mpii_cases())
def test_mpii_validation(case: tuple[str, list[Any]]) -> None:
    """The check against the published numbers has their totals: 82.3 and 88.4."""
    name, recorded = case[0], np.array(case[1])
    result = MpiiValidation(DATA).score_file(f"mpii/{name}.h5")
    np.testing.assert_allclose(result.per_joint, recorded[:, :14], atol=1e-7)
    np.testing.assert_allclose(result.total, recorded[:, 15], atol=1e-7)


@needs_data
@pytest.mark.parametrize(
    ("name", "hits", "total", "row"),
    [
        ("MPII_LSP_6s", 12670, 90.50, [97.80, 92.50, 87.05, 83.90, 91.50, 90.85, 89.90]),
        ("LSP_6s", 11805, 84.32, [96.85, 87.10, 80.40, 75.10, 86.50, 83.15, 81.15]),
    ],
)
def test_published_lsp_numbers(name: str, hits: int, total: float, row: list[float]) -> None:
    """The authors' released predictions give the published numbers to the last digit."""
    lsp = Lsp(DATA)
    found = lsp.table(lsp.score_file(f"release/LSP_prediction_model_{name}.mat"))
    assert (found["hits"], found["counted"]) == (hits, 14000)
    assert round(found["total"], 2) == total
    assert [round(found[part], 2) for part in BODY_GROUPS] == row


@needs_data
def test_people_whom_the_truth_does_not_measure_are_not_counted() -> None:
    """83 people of MPII's split have no torso; perfect predictions find every joint all the same."""
    mpii = MpiiValidation(DATA)
    perfect = mpii.truth(len(mpii.joints))[0]
    result = mpii.score(perfect, norm="torso")
    assert result.total.min() == 100
    assert result.unmeasured == 83
    everybody = mpii.score(perfect)
    assert everybody.unmeasured == 0
    assert everybody.counted.sum() - result.counted.sum() == 673
    file = DATA / "mpii" / "newell.h5"
    scored = _evaluate(file, "--dataset", "mpi", "--norm", "torso", "--data", DATA, "--json")
    assert json.loads(scored.stdout)[0]["total"] == 95.9
    assert "83 of 2958 people are not counted" in scored.stderr
    # a prediction without its own length has missed its joints
    lsp = Lsp(DATA)
    nothing = np.full_like(lsp.truth(len(lsp.joints))[0], np.nan)
    missed = lsp.score(nothing, norm="prediction")
    assert (missed.total.max(), missed.counted.sum(), missed.unmeasured) == (0, 14000, 0)


@needs_data
def test_limbs_count_where_they_are_annotated() -> None:
    mpii = MpiiValidation(DATA)
    limbs = mpii.score_limbs(mpii.truth(len(mpii.joints))[0])
    leg = limbs.names.index("R lower leg")
    # one of them has no length: its two ends are one point, which nothing can find
    assert (limbs.counted[leg], limbs.hits[0, leg]) == (2114, 2113)
    np.testing.assert_allclose(limbs.per_joint, 100 * limbs.hits / limbs.counted)


def test_pck_by_eye() -> None:
    truth = np.array([[[0.0, 0], [10, 0], [np.nan, np.nan]]])
    guess = np.array([[[0.0, 2], [10, 6], [5, 5]]])
    result = measures.pck(guess, truth, np.array([20.0]), "abc", np.array([0.0, 0.1, 0.2, 0.3]))
    assert result.per_joint[:, :2].tolist() == [[0, 0], [100, 0], [100, 0], [100, 100]]
    assert result.total.tolist() == [0, 50, 50, 100]
    assert result.counted.tolist() == [1, 1, 0]
    assert result.auc == pytest.approx((0 / 2 + 50 + 50 + 100 / 2) / 3)
    with pytest.raises(CaffeCompatError, match="differ in size"):
        measures.pck(guess, truth[:, :2], np.array([20.0]), "abc")


def test_a_joint_at_the_threshold_is_found() -> None:
    """An error of 4 pixels of 20 is a fifth, which counts, in the curve and for each person; a
    joint without truth counts for nobody."""
    truth = np.array([[[0.0, 0], [10, 0]], [[0, 0], [np.nan, np.nan]]])
    guess = truth + np.array([[[4.0, 0], [0, 4.5]], [[0, 3], [0, 0]]])
    lengths = np.array([20.0, 20.0])
    assert measures.hits_of_people(guess, truth, lengths, 0.2).tolist() == [1, 1]
    assert measures.pck(guess, truth, lengths, "ab", np.array([0.2])).hits.tolist() == [[2, 0]]


def test_leeds_norm_of_the_head_is_from_the_neck_to_its_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lsp = Lsp(tmp_path)
    truth = np.zeros((1, len(lsp.joints), 2))
    truth[0, lsp.joints.index("neck")] = (10, 20)
    truth[0, lsp.joints.index("head")] = (13, 16)  # 5 pixels away
    monkeypatch.setattr(Lsp, "_person_centric", (truth, tmp_path))
    assert lsp.reference("head", truth).tolist() == [5]
    found = lsp.score(truth + np.array([2.5, 0]), norm="head", thresholds=np.array([0.4, 0.5]))
    assert found.total.tolist() == [0, 100]


def test_mat_round_trip(tmp_path: Path) -> None:
    joints = from_matlab(np.random.default_rng(0).uniform(1, 100, (5, 14, 2)))
    joint_files.write_mat(tmp_path / "p.mat", joints)
    np.testing.assert_array_equal(joint_files.read(tmp_path / "p.mat"), joints)
    (tmp_path / "bad.mat").write_bytes(b"nothing")
    with pytest.raises(DataError):
        joint_files.read(tmp_path / "bad.mat")
    from scipy.io import savemat
    from scipy.sparse import csc_array

    savemat(tmp_path / "sparse.mat", {"prediction_all": csc_array(np.eye(3))})
    with pytest.raises(DataError, match=r"no array of real numbers \(a sparse"):
        joint_files.read(tmp_path / "sparse.mat")


def _evaluate(*args: object) -> Any:
    from click.testing import CliRunner

    from reproduce.cli import evaluate

    return CliRunner().invoke(evaluate.main, [str(a) for a in args])


@pytest.mark.long
@needs_data
def test_evaluate_command(tmp_path: Path) -> None:
    files = [DATA / "release" / f"LSP_prediction_model_{n}.mat" for n in ("MPII_LSP_6s", "LSP_6s")]
    result = _evaluate(*files, "--dataset", "lsp", "--data", DATA, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "90.5" in result.output
    assert "84.32" in result.output
    assert {p.suffix for p in tmp_path.iterdir()} == {".png", ".pdf", ".svg", ".csv", ".json"}
    drawn = (tmp_path / "lsp_curves.svg").read_text()
    assert "PCK on LSP, person-centric truth" in drawn
    assert "errors divided by: torso (Lsho to Rhip)" in drawn
    table = list(csv.DictReader((tmp_path / "lsp_table.csv").read_text().splitlines()))
    as_json = json.loads(_evaluate(*files, "--dataset", "lsp", "--data", DATA, "--json").stdout)
    assert table == [{name: str(value) for name, value in row.items()} for row in as_json]
    panels = json.loads((tmp_path / "lsp_curves.json").read_text())["panels"]
    points = list(csv.reader((tmp_path / "lsp_curves.csv").read_text().splitlines()))[1:]
    for row, name in zip(as_json, panels["total"], strict=True):
        for panel, curves in panels.items():
            place = [i for i, x in enumerate(curves[name]["x"]) if abs(x - 0.2) < 1e-9]
            percent = curves[name]["y"][place[0]]
            assert round(percent, 2) == row[panel]
            assert [panel, name, "0.2", f"{percent:.4f}"] in points
    wide = _evaluate(
        files[1], "--dataset", "lsp", "--data", DATA, "--threshold", 0.5, "--out", tmp_path / "w"
    )
    assert "92.49" in wide.output
    assert "92.5" in (tmp_path / "w" / "lsp_curves.svg").read_text()
    flic = DATA / "release" / "FLIC_prediction_model_FLIC_4s.mat"
    for protocol, elbow in (("paper", 97.59), ("release", 97.54)):
        rows = json.loads(
            _evaluate(
                flic, "--dataset", "flic", "--data", DATA, "--protocol", protocol, "--json"
            ).stdout
        )
        assert rows[0]["elbow"] == elbow
    rows = json.loads(
        _evaluate(DATA / "mpii" / "newell.h5", "--dataset", "mpi", "--data", DATA, "--json").stdout
    )
    assert rows[0]["total"] == 88.43


@needs_data
@pytest.mark.golden
def test_evaluate_measures_and_norms(tmp_path: Path) -> None:
    """PCP and the other reference lengths through the command, against the recorded tables; any
    threshold, several at once."""
    if not _TABLES.exists():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    tables = [
        t
        for t in json.loads(_TABLES.read_text()).values()
        if not t["name"].startswith(("release", "MODEC"))
    ]
    of_lsp = [t for t in tables if t["dataset"] == "lsp" and t["mode"] == "pc"]
    of_flic = [t for t in tables if t["dataset"] == "flic" and not t["name"].endswith("_old")]
    for case in (of_lsp[0], of_flic[0]):
        path = (
            DATA
            / "predictions"
            / case["name"]
            / f"pred_keypoints_{case['dataset']}_{case['mode']}.mat"
        )
        common = [path, "--dataset", case["dataset"], "--data", DATA, "--json"]
        rows = json.loads(
            _evaluate(
                *common, "--measure", "pcp", "--threshold", "0.3", "--threshold", "0.5"
            ).stdout
        )
        assert [r["total"] for r in rows] == [round(case["pcp"][i][-1], 2) for i in (30, 50)]
        if case["dataset"] == "flic":
            box = json.loads(_evaluate(*common, "--norm", "box").stdout)
            assert box[0]["total"] == pytest.approx(
                case["pck"][20][-1], abs=0.2
            )  # the kit's own boxes differ a little
            rows = json.loads(_evaluate(*common, "--norm", "pdj").stdout)
            assert rows[0]["wrist"] == round(100 * case["pdj"][20][4], 2)
        else:
            rows = json.loads(_evaluate(*common, "--threshold", "0.123").stdout)
            assert case["pck"][12][-1] <= rows[0]["total"] <= case["pck"][13][-1]
            head = json.loads(_evaluate(*common, "--norm", "head").stdout)
            assert head[0]["total"] < json.loads(_evaluate(*common).stdout)[0]["total"]
    zero = [joint_files.read(path).tolist(), tmp_path / "zero.json"]
    zero[1].write_text(json.dumps(zero[0]))
    one = json.loads(_evaluate(path, "--dataset", "flic", "--data", DATA, "--json").stdout)[0]
    other = json.loads(
        _evaluate(zero[1], "--dataset", "flic", "--data", DATA, "--json", "--base", "0").stdout
    )[0]
    assert {**one, "predictions": ""} == {**other, "predictions": ""}
    result = _evaluate(path, "--dataset", "flic", "--norm", "head", "--data", DATA)
    assert result.exit_code == 2
    assert "flic has torso" in result.stderr
    assert (
        _evaluate(
            path, "--dataset", "flic", "--norm", "box", "--measure", "pcp", "--data", DATA
        ).exit_code
        == 2
    )


@needs_data
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--dataset lsp --protocol release", "--protocol release chooses the norm of PCK on flic"),
        ("--dataset flic --protocol release --measure pcp", "not with --measure pcp"),
        ("--dataset flic --protocol release --norm torso", "with no --norm"),
        ("--dataset flic --annotation pc", "--annotation pc: flic has oc"),
        ("--dataset mpi --annotation oc", "--annotation oc: mpi has pc"),
    ],
)
def test_options_without_effect_are_refused(arguments: str, says: str) -> None:
    file = DATA / "release" / "LSP_prediction_model_LSP_6s.mat"
    result = _evaluate(file, *arguments.split(), "--data", DATA)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


@needs_data
def test_the_door_refuses_what_there_is_not() -> None:
    truth = Lsp(DATA).truth(14)[0]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"measure": "pcx"}, "no measure 'pcx'; there are pck, pcp"),
        ({"annotation": "xx"}, "--annotation xx: lsp has pc, oc"),
        ({"thresholds": []}, r"thresholds \[\]: expected one number or several"),
        ({"thresholds": [[0.1]]}, "expected one number or several"),
    ]
    for options, says in wrong:
        with pytest.raises(CaffeCompatError, match=says):
            evaluate(truth, "lsp", DATA, **options)
    for measure in ("pck", "pcp"):
        with pytest.raises(CaffeCompatError, match=r"shape \(1000, 14, 3\), expected \(people"):
            evaluate(np.zeros((1000, 14, 3)), "lsp", DATA, measure=measure)
    one = evaluate(truth, "lsp", DATA, thresholds=0.2)
    assert one.total.tolist() == [100]
    with pytest.raises(CaffeCompatError, match="one threshold has no area"):
        _ = one.auc


@needs_data
def test_other_annotation_is_noticed() -> None:
    """Person-centric predictions against observer-centric truth give 72.64 instead of 90.50: said,
    not swallowed."""
    path = DATA / "release" / "LSP_prediction_model_MPII_LSP_6s.mat"
    result = _evaluate(path, "--dataset", "lsp", "--data", DATA, "--annotation", "oc")
    assert "72.64" in result.stdout
    assert "--annotation pc" in result.stderr
    assert "warning" not in _evaluate(path, "--dataset", "lsp", "--data", DATA).stderr
    limbs = ("--measure", "pcp", "--annotation", "oc")
    result = _evaluate(path, "--dataset", "lsp", "--data", DATA, *limbs, "--json")
    total = json.loads(result.stdout)[0]["total"]
    assert "scores PCP@0.5 " in result.stderr
    assert f"against pc annotations, {total:.1f} against oc" in result.stderr


@needs_data
def test_formats_score_alike(tmp_path: Path) -> None:
    import h5py

    path = DATA / "release" / "LSP_prediction_model_LSP_6s.mat"
    joints = joint_files.read(path)
    stored = to_matlab(joints)
    np.savez(tmp_path / "a.npz", joints=stored)
    (tmp_path / "a.json").write_text(json.dumps(stored.tolist()))
    for name, array in (("a.h5", stored), ("b.h5", stored.transpose(2, 1, 0))):
        with h5py.File(tmp_path / name, "w") as file:
            file["preds"] = array
    for name in ("a.npz", "a.json", "a.h5", "b.h5"):
        np.testing.assert_array_equal(joint_files.read(tmp_path / name), joints)


@needs_data
def test_joints_of_named_parts_may_have_any_order(tmp_path: Path) -> None:
    """The order of the network's parts, as cpm-predict writes its pictures' people."""
    from scipy.io import savemat

    released = joint_files.read(DATA / "release" / "LSP_prediction_model_LSP_6s.mat")
    benchmark = open_benchmark("lsp", DATA)
    parts = benchmark.skeleton.parts
    joints = to_matlab(benchmark.to_parts(released))
    assert parts != benchmark.joints
    np.savez(tmp_path / "a.npz", joints=joints, parts=np.array(parts), scores=np.ones(3))
    cells = np.array(parts, object)[:, None]
    savemat(tmp_path / "a.mat", {"prediction_all": joints.transpose(1, 2, 0), "parts": cells})
    for name in ("a.npz", "a.mat"):
        np.testing.assert_array_equal(benchmark.read(tmp_path / name), released)
    # against the observer-centric truth alone, as the same joints without names
    alone = tmp_path / "alone"
    (alone / "predictions").mkdir(parents=True)
    truth = "predictions/LSP-joints-OC.mat"
    (alone / truth).symlink_to(DATA / truth)
    scored = _evaluate(
        tmp_path / "a.npz", "--dataset", "lsp", "--annotation", "oc", "--data", alone
    )
    assert scored.exit_code == 0, scored.output
    folder = tmp_path / "predictions" / "Mine"
    folder.mkdir(parents=True)
    (tmp_path / "a.mat").rename(folder / "pred_keypoints_lsp_pc.mat")
    (tmp_path / "lsp").symlink_to(DATA / "lsp")
    np.testing.assert_array_equal(Lsp(tmp_path).methods()["Mine"], released)
    np.savez(tmp_path / "b.npz", joints=joints, parts=np.array(["nose", *parts[1:]]))
    result = _evaluate(tmp_path / "b.npz", "--dataset", "lsp", "--data", DATA)
    assert result.exit_code == 2
    assert "its parts are nose, neck" in result.stderr


@pytest.mark.parametrize(
    ("kind", "joint", "misses"),
    [
        (Lsp, "Rank", {"lower leg": 50}),
        (Lsp, "Rkne", {"lower leg": 50, "upper leg": 50}),
        (Lsp, "Lwri", {"forearm": 50}),
        (Lsp, "Lelb", {"forearm": 50, "upper arm": 50}),
        (Lsp, "head", {"head": 0}),
        (Flic, "Lwri", {"forearm": 50}),
        (Flic, "Relb", {"forearm": 50, "upper arm": 50}),
    ],
)
def test_rows_of_limbs_are_of_their_joints(
    kind: type[Benchmark], joint: str, misses: dict[str, float]
) -> None:
    """One joint far away costs the limbs that end there, and no other row."""
    names = kind.joints if kind is Lsp else FLIC_POINTS
    truth = np.random.default_rng(0).uniform(10, 90, (1, len(names), 2))
    moved = truth.copy()
    moved[0, names.index(joint)] += 1000
    found = measures.pcp(moved, truth, names, kind.sticks, np.array([0.5]))
    rows = {name: found.group(limbs, 0.5) for name, limbs in kind.stick_groups.items()}
    assert rows == {**dict.fromkeys(rows, 100), **misses}


def test_a_limb_that_nobody_has_is_in_no_total() -> None:
    """One person without ankles: the lower legs have no number, the total is that of the others."""
    truth = np.random.default_rng(0).uniform(10, 90, (1, len(LSP_JOINTS), 2))
    truth[:, [LSP_JOINTS.index("Rank"), LSP_JOINTS.index("Lank")]] = np.nan
    found = measures.pcp(np.nan_to_num(truth), truth, LSP_JOINTS, Lsp.sticks, np.array([0.5]))
    lacking = [
        name for name, share in zip(found.names, found.per_joint[0], strict=True) if np.isnan(share)
    ]
    assert lacking == ["R lower leg", "L lower leg"]
    assert found.total.tolist() == [100]


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json([{"ankle": float("nan"), "total": 100.0}])
    assert json.loads(capsys.readouterr().out) == [{"ankle": None, "total": 100.0}]


@needs_data
def test_the_points_that_flic_annotates_may_be_named(tmp_path: Path) -> None:
    """Eleven points, as other methods predict them, in any order."""
    flic = Flic(DATA)
    points = flic.truth(len(FLIC_POINTS))[0]
    names = np.array(FLIC_POINTS[::-1])
    np.savez(tmp_path / "a.npz", joints=to_matlab(points)[:, ::-1], parts=names)
    np.testing.assert_array_equal(flic.read(tmp_path / "a.npz"), points)
    body = np.zeros((len(points), len(PARTS_14), 2))  # whose head is another one
    np.savez(tmp_path / "b.npz", joints=body, parts=np.array(PARTS_14))
    with pytest.raises(
        DataError, match=r"its parts are head, neck, .* flic needs just these, .*: Lsho"
    ):
        flic.read(tmp_path / "b.npz")


def test_evaluate_bad_input(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.txt").write_text("x")
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    for name in ("a.json", "a.txt", "a.npz", "none.mat"):
        result = _evaluate(tmp_path / name, "--dataset", "lsp", "--data", tmp_path)
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_a_joint_that_openpose_did_not_find_has_no_place(tmp_path: Path) -> None:
    person = {"pose_keypoints_2d": [1.0, 2.0, 0.5, 0, 0, 0]}
    (tmp_path / "a.json").write_text(json.dumps({"people": [person]}))
    found = joint_files.read(tmp_path / "a.json")
    np.testing.assert_array_equal(found, [[[1.0, 2.0], [np.nan, np.nan]]])


def test_a_folder_for_curves_goes_with_its_scoring(tmp_path: Path) -> None:
    """Where nothing could be scored, no empty folder stays."""
    (tmp_path / "a.json").write_text("{}")
    common = ("--dataset", "lsp", "--data", tmp_path, "--out", tmp_path / "new")
    assert _evaluate(tmp_path / "a.json", *common).exit_code == 2
    assert not (tmp_path / "new").exists()


@needs_data
def test_joints_without_a_place_are_counted(tmp_path: Path) -> None:
    """They are misses, which is said: a file of nan alone would be a table of zeros."""
    joints = to_matlab(joint_files.read(DATA / "release" / "LSP_prediction_model_LSP_6s.mat"))
    joints[:2, 3] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", joints=joints)
    result = _evaluate(tmp_path / "a.npz", "--dataset", "lsp", "--data", DATA)
    assert result.exit_code == 0
    assert "2 of 14000 joints have no place (nan or infinite) and count as missed" in result.stderr
    limbs = _evaluate(
        tmp_path / "a.npz", "--dataset", "lsp", "--measure", "pcp", "--data", DATA
    ).stderr
    assert "4 of 10000 limbs have no place" in limbs  # the leg and the torso of each
    # a part that the network does not have is none of the joints that are scored
    mpii = MpiiValidation(DATA)
    whole = mpii.truth(len(mpii.joints))[0]
    ours = np.stack([mpii.to_file(parts) for parts in mpii.to_parts(np.nan_to_num(whole))])
    assert np.isnan(ours).any()
    assert mpii.score(ours).placeless == 0
    ours[:, mpii.joints.index("head")] = np.nan
    known = int(np.isfinite(whole[:, mpii.joints.index("head")].sum(1)).sum())
    assert mpii.score(ours).placeless == known < len(whole)


def test_areas_by_hand() -> None:
    """Errors of 0.05 and 0.25 at thresholds 0, 0.1 and 0.3."""
    truth = np.array([[[10.0, 10.0], [50.0, 90.0]]])
    found = truth + np.array([[[3.0, 4.0], [0.0, 25.0]]])
    grid = np.array([0, 0.1, 0.3])
    result = measures.pck(found, truth, np.array([100.0]), ["head", "ankle"], grid)
    assert result.auc_of(["head"]) == pytest.approx((0.1 * 50 + 0.2 * 100) / 0.3)
    assert result.auc_of(["ankle"]) == pytest.approx(0.2 * 50 / 0.3)
    assert result.auc_of(["head", "ankle"]) == pytest.approx(result.auc)
