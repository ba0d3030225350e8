"""``cpm-train`` on networks that are no pose machines: pictures from LMDBs and lists, rows, and
what it says where there is nothing to train on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from caffe_compat import read_weights
from caffe_compat.definition.prototxt import read_net, read_solver
from caffe_compat.definition.textformat import dump
from caffe_compat.training.snapshots import read_state
from reproduce.cli import train
from reproduce.train.run import Options, make_solver
from tests import tolerances
from tests.paths import cases, reported
from tests.reproduce.train.test_training import _prepare


def _train(*args: object) -> Result:
    return CliRunner().invoke(
        train.main, [*map(str, args), "--workers", "0", "--device", "cpu"], catch_exceptions=False
    )


@pytest.mark.parametrize("path", cases("lenet_train", "solver.prototxt"))
def test_lenet_from_an_lmdb(path: Path, tmp_path: Path) -> None:
    """The lines, the tests and the files of ``caffe train``."""
    folder = shutil.copytree(path.parent, tmp_path / "lenet")
    for snapshot in folder.glob("shapes*"):
        snapshot.unlink()
    result = _train(folder / "solver.prototxt", "--weights", folder / "init.caffemodel")
    assert result.exit_code == 0, result.output
    recorded = json.loads((folder / "losses.json").read_text())
    log = [json.loads(line) for line in (folder / "shapes_log.jsonl").read_text().splitlines()]
    printed = recorded["iterations"][:-1]
    assert [line["loss"] for line in log] == pytest.approx(
        [entry["loss"] for entry in printed], rel=tolerances.PRINTED
    )
    tests = [line for line in result.output.splitlines() if line.startswith("test net 0")]
    assert len(tests) == len(recorded["tests"])
    for line, entry in zip(tests, recorded["tests"], strict=True):
        assert f"accuracy {entry['accuracy']:.4g}, loss {entry['loss']:.4g}" in line
    assert read_state(folder / "shapes_iter_20.solverstate").iteration == 20


@pytest.mark.parametrize("path", reported("hdf5_data", "s_*.prototxt"))
def test_reported_data_layers(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is trained, or refused in one line that names the layer."""
    monkeypatch.chdir(shutil.copytree(path.parent, tmp_path / "nets"))
    result = _train(path.name)
    solver = read_solver(path.name)
    data = read_net(solver.message.net).layers[0]
    if data.type in ("HDF5Data", "DummyData"):
        assert result.exit_code == 0, result.output
        assert Path(f"{solver.message.snapshot_prefix}_iter_2.caffemodel").exists()
        return
    assert result.exit_code == 2
    assert result.output.count("error:") == 1
    assert f"layer '{data.name}'" in result.output
    assert not list(Path().glob("*.caffemodel"))


@pytest.mark.parametrize("path", reported("sigmoid_train", "solver.prototxt"))
def test_reported_sigmoid_training(path: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(path.parent, tmp_path / "nets")
    result = _train(folder / "solver.prototxt")
    assert result.exit_code == 0, result.output
    assert (folder / "o_iter_3.caffemodel").exists()


def test_a_net_inside_the_solver_listens_to_the_options(tmp_path: Path) -> None:
    """``--data`` and ``--seed`` reach the data layer of a ``net_param``."""
    path = _prepare(tmp_path, max_iter=1, snapshot=0)
    spec = read_solver(path)
    spec.message.net_param.CopyFrom(read_net(tmp_path / "net.prototxt").to_message())
    spec.message.net_param.layer[0].cpmdata_param.source = "not-there"
    spec.message.ClearField("net")
    path.write_text(dump(spec.message))
    weights = []
    for seed in (1, 2, 1):
        result = _train(path, "--data", tmp_path / "records", "--shuffle", "--seed", seed)
        assert result.exit_code == 0, result.output
        (model,) = tmp_path.glob("snap2/*.caffemodel")
        weights.append(read_weights(model)["Mconv5_stage2"][1].data.tolist())
    assert weights[0] == weights[2] != weights[1]
    assert _train(path).exit_code == 2


@pytest.mark.parametrize("option", [["--data", "x"], ["--shuffle"], ["--parts", "a,b"]])
@pytest.mark.parametrize("path", cases("lenet_train", "solver.prototxt"))
def test_options_of_records_need_records(path: Path, option: list[str], tmp_path: Path) -> None:
    folder = shutil.copytree(path.parent, tmp_path / "lenet")
    result = _train(folder / "solver.prototxt", *option)
    assert result.exit_code == 2
    assert "for a CPMData layer" in result.output


_ROWS = """
layer { name: "d" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "%s" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "loss" }
"""


def _small(folder: Path, name: str, **settings: str) -> Path:
    """A solver of a small network whose trained layer has this name."""
    (folder / "net.prototxt").write_text(_ROWS % name)
    fields = {"net": '"net.prototxt"', "base_lr": "0.1", "lr_policy": '"fixed"', "max_iter": "1"}
    text = "\n".join(f"{key}: {value}" for key, value in {**fields, **settings}.items())
    (folder / "solver.prototxt").write_text(text)
    return folder / "solver.prototxt"


def test_hdf5_snapshots_that_cannot_be_written_are_refused_before_training(tmp_path: Path) -> None:
    before = _small(tmp_path, "", snapshot_format="HDF5"), tmp_path / "net.prototxt"
    result = _train(before[0])
    assert result.exit_code == 2
    assert "HDF5 model cannot hold" in result.output
    assert "snapshot_format: BINARYPROTO" in result.output
    assert set(tmp_path.iterdir()) == set(before)
    assert _train(_small(tmp_path, "")).exit_code == 0


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_model_in_place_of_a_snapshot(tmp_path: Path, form: str) -> None:
    path = _small(tmp_path, "a", snapshot_format=form)
    assert _train(path).exit_code == 0
    (model,) = tmp_path.glob("*.caffemodel*")
    result = _train(path, "--snapshot", model)
    assert result.exit_code == 2
    assert "is a model (.caffemodel)" in result.output
    assert "--weights" in result.output


def test_weights_and_snapshot_exclude_each_other(tmp_path: Path) -> None:
    result = _train(_prepare(tmp_path), "--weights", "a.caffemodel", "--snapshot", "latest")
    assert result.exit_code == 2
    assert "not both" in result.output


@pytest.mark.parametrize(("flip_prob", "said"), [(0.5, True), (0.0, False)])
def test_mirror_images_that_mix_sides_are_said(
    flip_prob: float, said: bool, tmp_path: Path
) -> None:
    """Caffe exchanges left and right only where it transforms the joints."""
    path = _prepare(tmp_path, max_iter=1, snapshot=0)
    spec = read_solver(path)
    net = read_net(tmp_path / "net.prototxt").to_message()
    net.layer[0].transform_param.transform_body_joint = False
    net.layer[0].transform_param.flip_prob = flip_prob
    spec.message.net_param.CopyFrom(net)
    spec.message.ClearField("net")
    warnings = make_solver(spec, tmp_path, Options()).warnings
    assert any("mirror images keep left parts on the left" in line for line in warnings) == said
