"""One file is one benchmark: a made-up fourth one works everywhere, and no name is compared."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

import reproduce.benchmarks
from caffe_compat import Net, write_weights
from caffe_compat.errors import CaffeCompatError
from reproduce.benchmarks.benchmark import Benchmark
from reproduce.benchmarks.flic import Flic
from reproduce.benchmarks.registry import benchmarks, open_benchmark
from reproduce.cli import evaluate, predict
from reproduce.figures.method_curves import draw_methods, score_methods
from reproduce.network import netgen
from reproduce.people.matlab_pixels import to_matlab
from reproduce.people.part_names import named_net
from reproduce.people.skeletons import PARTS_14, named, skeleton
from reproduce.predict import joint_files
from tests.paths import ROOT

FOURTH = '''
"""Gymnasts: a made-up benchmark with its truth in a text file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from reproduce.benchmarks.benchmark import Benchmark, Norm
from reproduce.benchmarks.measures import Stick
from reproduce.people.skeletons import Skeleton
from reproduce.predict.protocol import DEMO


class Gymnasts(Benchmark):
    name = "gymnasts"
    title = "Gymnasts PCK@0.5"
    stem = "GYM"
    folder = "gymnasts"
    joints = ("foot", "hand", "nose")
    skeleton = Skeleton(("nose", "hand", "foot"), ((0, 0), (1, 1), (2, 2)), (), ((0, 1),))
    protocol = replace(DEMO, search=(1.0,), upright=False)
    groups: ClassVar = {"face": ("nose",), "limbs": ("hand", "foot")}
    threshold = 0.5
    thresholds = np.arange(11) / 10
    norms: ClassVar = {"height": Norm(("nose", "foot"))}
    sticks = (Stick("body", ("nose",), ("foot",)), Stick("arm", ("nose",), ("hand",)))
    stick_groups: ClassVar = {"body": ("body",)}

    def _rows(self):
        return json.loads(self.need("gymnasts/truth.json").read_text())

    def people(self):
        return [(self.root / "gymnasts" / row["image"], tuple(row["box"])) for row in self._rows()]

    def truth(self, count, annotation="pc"):
        return np.array([row["joints"] for row in self._rows()], np.float64), self.joints

    def methods(self):
        return {"theirs": self.truth(3)[0] + 1.0}
'''


@pytest.fixture
def fourth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The benchmark's one file in the folder of benchmarks, and its data."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "gymnasts.py").write_text(FOURTH)
    path = [*reproduce.benchmarks.__path__, str(code)]
    monkeypatch.setattr(reproduce.benchmarks, "__path__", path)
    folder = tmp_path / "data" / "gymnasts"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (60, 50, 3), np.uint8))
        joints = [[20.0, 55.0], [40.0, 30.0], [20.0 + i, 5.0]]
        rows.append({"image": f"{i}.png", "box": [5, 5, 40, 50], "joints": joints})
    (folder / "truth.json").write_text(json.dumps(rows))
    yield tmp_path / "data"
    sys.modules.pop("reproduce.benchmarks.gymnasts", None)


def _run(command: object, *args: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in args])  # type: ignore[arg-type]


@pytest.mark.long
def test_a_fourth_benchmark_is_one_file(fourth: Path, tmp_path: Path) -> None:
    """It is predicted on, scored, and drawn; the commands list it."""
    assert "gymnasts" in benchmarks()
    assert "gymnasts" in _run(predict.main, "--help").output
    config = netgen.CPMConfig(
        stages=1,
        parts=3,
        input_size=96,
        towers=(4, 4, 4),
        features=4,
        wide=4,
        belief=4,
        tower_kernel=3,
        filler="msra",
    )
    net = Net(netgen.deploy(config), seed=2)
    model = tmp_path / "small.caffemodel"
    write_weights(model, net.weights(), net.graph.spec)
    out = tmp_path / "out"
    run = ("--dataset", "gymnasts", "--data", fourth, "--model", model, "--out", out)
    result = _run(predict.main, *run, "--workers", "0")
    assert result.exit_code == 0, result.output
    joints = joint_files.read(out / "GYM_prediction_model_small.mat")
    assert joints.shape == (3, 3, 2)
    told = ("foot", "nose", "hand")  # the same network, whose parts are called so
    write_weights(model, net.weights(), named_net(net.graph.spec, told))
    result = _run(predict.main, *run, "--workers", "0")
    assert result.exit_code == 0, result.output
    by_name = joint_files.read(out / "GYM_prediction_model_small.mat")
    # without names its three channels were nose, hand and foot; the file begins with the foot
    np.testing.assert_array_equal(by_name, joints[:, [2, 0, 1]])
    score = json.loads((out / "GYM_score_small.json").read_text())
    assert score["benchmark"] == "Gymnasts PCK@0.5"
    assert set(score) >= {"face", "limbs", "total", "auc"}

    theirs = tmp_path / "theirs.json"
    in_a_file = to_matlab(open_benchmark("gymnasts", fourth).truth(3)[0] + 1)
    theirs.write_text(json.dumps(in_a_file.tolist()))
    scored = ("--dataset", "gymnasts", "--data", fourth, "--json")
    row = json.loads(_run(evaluate.main, theirs, *scored).stdout)[0]
    assert (row["face"], row["limbs"], row["total"]) == (100, 100, 100)
    assert [name for name in row if name.startswith("auc")] == ["auc", "auc face", "auc limbs"]
    printed = _run(evaluate.main, theirs, *scored[:-1]).stdout.splitlines()
    assert printed[4:6] == ["area under the curve, %", printed[5]]
    assert printed[5].split() == ["predictions", "face", "limbs"]
    assert printed[7].split() == [str(theirs), str(row["auc face"]), str(row["auc limbs"])]
    row = json.loads(_run(evaluate.main, theirs, *scored, "--measure", "pcp").stdout)[0]
    assert row["body"] == 100
    wrong = _run(evaluate.main, theirs, *scored, "--norm", "torso")
    assert wrong.exit_code == 2
    assert "gymnasts has height" in wrong.stderr

    benchmark = open_benchmark("gymnasts", fourth)
    files = draw_methods(benchmark, score_methods(benchmark), out / "gym", {}, "Gymnasts")
    panels = json.loads(files[0].read_text())["panels"]
    assert list(panels) == ["total", "face", "limbs"]
    assert panels["total"]["theirs"]["y"][-1] == 100


def test_no_benchmark_is_told_by_its_name() -> None:
    """Nothing compares a data set's name, or looks whether it is one of some."""
    names = {*benchmarks(), "mpii", "leeds", "lspet", "MPI", "LSP", "FLIC", "LEEDS"}
    found = []
    for path in sorted((ROOT / "reproduce").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                values = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                if values & names:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", benchmarks().values(), ids=lambda kind: kind.name)
def test_a_benchmark_names_joints_that_it_has(kind: type[Benchmark]) -> None:
    """Rows of tables, limbs and reference lengths are of its own joints; each network part has its
    place in a result file."""
    for joints in kind.groups.values():
        assert set(joints) <= set(kind.counted or kind.joints)
    for norm in kind.norms.values():
        assert set(norm.ends or ()) <= set(kind.joints)
    sticks = {stick.name for stick in kind.sticks}
    assert all(set(names) <= sticks for names in kind.stick_groups.values())
    assert {end for s in kind.sticks for end in (*s.first, *s.second)} <= set(kind.joints)
    parts = np.arange(2 * len(kind.skeleton), dtype=np.float64).reshape(-1, 2)
    np.testing.assert_array_equal(kind.to_parts(kind.to_file(parts)[None])[0], parts)
    assert kind.threshold in kind.thresholds


@pytest.mark.parametrize("kind", benchmarks().values(), ids=lambda kind: kind.name)
def test_a_network_that_names_its_parts_may_have_any_order(
    kind: type[Benchmark], tmp_path: Path
) -> None:
    """Its parts go to their joints by name; other names are refused, whatever their number is."""
    parts = np.arange(2 * len(kind.skeleton), dtype=np.float64).reshape(-1, 2)
    names = kind.skeleton.parts[::-1]
    network = named(names, mirrored=False)
    kind(tmp_path).check_parts(network)
    np.testing.assert_array_equal(kind.to_file(parts[::-1], network), kind.to_file(parts))
    kind(tmp_path).check_parts(skeleton(len(names)))
    refused = [skeleton(len(names) + 1), named(("tail", *names[1:]), mirrored=False)]
    larger = named(("tail", *names), mirrored=False)
    if kind.no_other_parts:
        refused.append(larger)
    else:
        kind(tmp_path).check_parts(larger)
        more = np.concatenate([[[-1.0, -1.0]], parts[::-1]])
        np.testing.assert_array_equal(kind.to_file(more, larger), kind.to_file(parts))
    for other in refused:
        with pytest.raises(CaffeCompatError, match="needs"):
            kind(tmp_path).check_parts(other)


def test_the_head_of_a_whole_body_is_not_flics() -> None:
    """FLIC's is the nose."""
    with pytest.raises(
        CaffeCompatError,
        match=r"the network's parts are head, neck, .* flic needs just these, .*: Lsho",
    ):
        Flic("").check_parts(named(PARTS_14, mirrored=False))


def test_an_unknown_benchmark_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(CaffeCompatError, match="flic, lsp, mpi, mpi-valid"):
        open_benchmark("mpiii", tmp_path)
