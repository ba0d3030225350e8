"""What an option asks for happens: each value here differs from the default, and from those of the
options beside it, so that one that is dropped or exchanged shows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from caffe_compat import read_net, read_weights
from caffe_compat.training import datum
from reproduce.cli import convert, export, models, train
from reproduce.network import netgen
from reproduce.people import annotation
from reproduce.predict import videos
from reproduce.predict.person_finder import PersonFinder
from reproduce.predict.predictor import Predictor
from reproduce.records import store
from reproduce.records.opening import open_store
from reproduce.train import run
from tests.nets import model_file
from tests.people import dataset
from tests.predicting import run_predict, write_film, write_model, write_picture


def _run(command: Any, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def _done(command: Any, *words: object) -> str:
    result = _run(command, *words)
    assert result.exit_code == 0, result.output
    return result.output


# ------------------------------------------------------------ records


def test_lmdb(tmp_path: Path) -> None:
    people = dataset(tmp_path, 8)  # the fifth is of the validation split
    annotation.write_json(tmp_path / "a.json", people)
    common = ("lmdb", tmp_path / "a.json", "--data", tmp_path, "--workers", 0)
    for validation in (False, True):
        for jpeg in (False, True):
            out = tmp_path / f"out{validation}{jpeg}"
            more = ["--validation"] * validation + ["--jpeg"] * jpeg
            _done(export.main, *common, "--seed", 3, "-o", out, *more)
            opened = open_store(out)
            assert isinstance(opened, store.LMDBStore)
            wanted = store.plan(people, validation=validation, seed=3)
            assert len(opened) == wanted.total == (7 if validation else 8)
            for i, person in enumerate(wanted.annotations):
                found = opened.record(i).annotation
                assert found.annolist_index == person.annolist_index
                np.testing.assert_allclose(found.joints, person.joints, rtol=1e-6)
            (raw,) = {datum.decode(opened.reader.raw(i)).encoded for i in range(len(opened))}
            assert raw is jpeg
            opened.close()
    shown = _done(export.main, "show", tmp_path / "outFalseFalse", "2")
    assert "record 0000002 (3 of 8)" in shown
    key = open_store(tmp_path / "outFalseFalse").record(2).annotation
    assert f"scale {key.scale:.4f}" in shown


def test_preview_throws_the_dice_of_its_seed(tmp_path: Path) -> None:
    store.export_lmdb(store.plan(dataset(tmp_path, 3), seed=4), tmp_path, tmp_path / "l")
    made = []
    for number, seed in enumerate((5, 6, 5)):
        path = tmp_path / f"{number}.png"
        _done(export.main, "preview", tmp_path / "l", "--n", 3, "--seed", seed, "-o", path)
        made.append(path.read_bytes())
    assert made[0] == made[2] != made[1]


# ------------------------------------------------------------ definitions and weights


def test_proto(tmp_path: Path) -> None:
    _done(
        *(export.main, "proto", "-o", tmp_path, "--stages", 2, "--input", 64),
        *("--channels", "8,9,10,11,12,13", "--kernels", "9,5,7", "--sigma-center", 6),
        *("--first-mult", 3, "--later-mult", 2, "--target-dist", 0.75, "--batch", 5),
    )
    net = read_net(tmp_path / "pose_train_test.prototxt")
    layers = {layer.name: layer.message for layer in net.layers}

    def size(name: str) -> tuple[int, int, float]:
        layer = layers[name]
        kernel = layer.convolution_param.kernel_size[0]
        return layer.convolution_param.num_output, kernel, layer.param[0].lr_mult

    assert [size(f"conv{i}_stage1") for i in (1, 2, 3)] == [(n, 9, 3) for n in (8, 9, 10)]
    assert size("conv4_stage1")[:2] == (11, 5)
    assert {size(f"conv{i}_stage1")[0] for i in (5, 6)} == {12}
    assert size("Mconv1_stage2") == (13, 7, 2)
    data = next(layer.message for layer in net.layers if layer.type == "CPMData")
    assert data.transform_param.sigma_center == 6
    assert data.transform_param.target_dist == 0.75
    assert data.cpmdata_param.batch_size == 5


def test_random_weights_of_a_seed(tmp_path: Path) -> None:
    made = []
    for number, seed in enumerate((7, 8, 7)):
        path = tmp_path / f"{number}.caffemodel"
        _done(models.main, "random", "--stages", 2, "--input", 64, "--seed", seed, "-o", path)
        made.append(read_weights(path)["conv1_stage1"][0].data.copy())
    assert np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[1])


def test_tolerance_decides(tmp_path: Path) -> None:
    path, net, _ = model_file(tmp_path)
    import torch

    x = torch.randn(1, 3, 9, 12)
    with torch.no_grad():
        blobs = {name: blob.numpy() for name, blob in net.all_blobs(x).items() if name != "data"}
        dump = {f"blob:{name}": 1.001 * blob for name, blob in blobs.items()}
    dump["in:data"] = x.numpy()
    np.savez(tmp_path / "d.npz", allow_pickle=False, **dump)
    for tolerance, code in ((1e-4, 1), (0.01, 0)):
        command = [path, "--verify", tmp_path / "d.npz", "--tolerance", tolerance]
        assert _run(convert.main, *command).exit_code == code


def test_a_fixed_batch_is_fixed(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    path, _, _ = model_file(tmp_path)
    for more in ([], ["--fixed-batch"]):
        out = tmp_path / f"{len(more)}.onnx"
        _done(convert.main, path, "--to", "onnx", "-o", out, *more)
        batch = onnx.load(out).graph.input[0].type.tensor_type.shape.dim[0]
        assert bool(batch.dim_value) is bool(more)


def test_dialect_overrides(tmp_path: Path) -> None:
    path, _, _ = model_file(tmp_path)
    for dialect in ("fork", "upstream"):
        out = tmp_path / f"{dialect}.npz"
        said = json.loads(_done(convert.main, path, "--dialect", dialect, "--json", "-o", out))
        assert said["dialect"] == dialect


# ------------------------------------------------------------ trainings


def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Begins(Exception):
        """With what a training would begin."""

    def begin(spec: object, root: object, options: run.Options, given: object) -> None:
        raise Begins(options)

    config = netgen.CPMConfig(stages=1, parts=3, input_size=64)
    net = netgen.train_test(config, netgen.DataConfig())
    (tmp_path / "net.prototxt").write_text(net.to_text())
    (tmp_path / "s.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    monkeypatch.setattr(run, "make_solver", begin)
    words = ["--warmup", 11, "--dice", "caffe", "--seed", 12, "--shuffle", "--workers", 0]
    words += ["--data", "elsewhere", "--max-iter", 13, "--parts", "a,b,c", "--engine", "direct"]
    words += ["--device", "cpu", "--amp", "bf16", "--compile"]
    with pytest.raises(Begins) as raised:
        CliRunner().invoke(
            train.main,
            [str(tmp_path / "s.prototxt"), *map(str, words)],
            catch_exceptions=False,
        )
    (options,) = raised.value.args
    assert (options.warmup, options.max_iter, options.workers) == (11, 13, 0)
    assert (options.order.dice, options.order.seed, options.order.shuffle) == ("caffe", 12, True)
    assert (options.data, options.parts, options.engine) == ("elsewhere", ("a", "b", "c"), "direct")
    assert (options.amp, options.compile) == ("bf16", True)


def _small_training(folder: Path) -> Path:
    """A solver of two iterations."""
    (folder / "net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 '
        'dim: 3 } } } layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p" '
        'inner_product_param { num_output: 3 } } layer { name: "l" type: "EuclideanLoss" '
        'bottom: "p" bottom: "y" top: "l" }'
    )
    (folder / "s.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 2 display: 1 '
        'snapshot_prefix: "snap/s"'
    )
    return folder / "s.prototxt"


def test_the_log_of_a_training_is_where_it_was_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "own.jsonl"
    _done(train.main, _small_training(tmp_path), "--log", log, "--device", "cpu", "--workers", 0)
    assert [json.loads(line)["iteration"] for line in log.read_text().splitlines()] == [0, 1]
    assert not (tmp_path / "snap" / "s_log.jsonl").exists()


def test_the_log_of_a_training_is_a_table_where_its_name_says_so(tmp_path: Path) -> None:
    """A training that goes on appends to it."""
    words = [_small_training(tmp_path), "--log", tmp_path / "own.csv", "--device", "cpu"]
    words += ["--workers", 0]
    _done(train.main, *words)
    _done(train.main, *words, "--snapshot", "latest", "--max-iter", 3)
    with (tmp_path / "own.csv").open(newline="") as log:
        rows = list(csv.DictReader(log))
    assert list(rows[0]) == ["iteration", "loss", "losses.l", "rate", "speed", "left"]
    assert [int(row["iteration"]) for row in rows] == [0, 1, 2]
    assert all(float(row["losses.l"]) == float(row["loss"]) for row in rows)


def test_a_table_of_another_training_is_refused(tmp_path: Path) -> None:
    """Before an iteration is made; so is one table for solvers of different losses."""
    solver, table = _small_training(tmp_path), tmp_path / "own.csv"
    other = tmp_path / "other.prototxt"
    other.write_text(solver.read_text().replace("snap/s", "snap/other"))
    table.write_text("iteration,loss\n0,1\n")
    for solvers, says in (
        ([solver], "own.csv: its columns are not those of this training, whose losses and"),
        ([solver, other], "own.csv: a table has the losses of one solver for columns"),
    ):
        words = [*solvers, "--log", table, "--device", "cpu", "--workers", 0]
        result = CliRunner().invoke(train.main, [str(word) for word in words])
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert table.read_text() == "iteration,loss\n0,1\n"
        assert not list((tmp_path / "snap").glob("*.caffemodel"))


# ------------------------------------------------------------ predictions


def test_a_definition_for_weights_without_one(tmp_path: Path) -> None:
    """An HDF5 model holds none."""
    write_model(tmp_path / "m.caffemodel", 1)
    weights = read_weights(tmp_path / "m.caffemodel")
    assert weights.net is not None
    (tmp_path / "m.prototxt").write_text(weights.net.to_text())
    from caffe_compat import write_weights

    write_weights(tmp_path / "m.h5", weights, weights.net)
    picture = write_picture(tmp_path / "a.png")
    common = [picture, "--model", tmp_path / "m.h5", "--out", tmp_path / "out"]
    assert run_predict(*common).exit_code == 2
    done = run_predict(*common, "--prototxt", tmp_path / "m.prototxt")
    assert done.exit_code == 0, done.output


class _Loads(Exception):
    """What a network would be loaded with."""


def _loads(*_: object, **given: object) -> None:
    raise _Loads(given)


def test_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "m.caffemodel", 1)
    picture = write_picture(tmp_path / "a.png")
    words = ["--model", tmp_path / "m.caffemodel", "--amp", "bf16", "--engine", "direct"]
    monkeypatch.setattr(Predictor, "load", _loads)
    with pytest.raises(_Loads) as raised:
        run_predict(picture, *words, errors=True)
    (given,) = raised.value.args
    assert (given["amp"], given["engine"]) == ("bf16", "direct")


def test_predict_with_a_person_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "m.caffemodel", 1)
    picture = write_picture(tmp_path / "a.png")
    words = ["--model", tmp_path / "m.caffemodel", "--person-model", tmp_path / "m.caffemodel"]
    words += ["--person-threshold", 0.25, "--person-scales", "0.6,1.1", "--detect", "person"]
    monkeypatch.setattr(PersonFinder, "load", _loads)
    with pytest.raises(_Loads) as raised:
        run_predict(picture, *words, errors=True)
    (given,) = raised.value.args
    assert given["threshold"] == 0.25
    assert tuple(given["search"]) == (0.6, 1.1)


def test_all_that_is_not_done_is_listed(tmp_path: Path) -> None:
    """50 lines on the screen, and every one in a file, which a run without failures removes."""
    write_model(tmp_path / "m.caffemodel", 1)
    folder = tmp_path / "in"
    picture = write_picture(folder / "good.png")
    bad = [folder / f"bad{i:02}.png" for i in range(53)]
    for path in bad:
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    common = ["--model", tmp_path / "m.caffemodel", "--out", tmp_path / "out"]
    done = run_predict(folder, *common)
    assert done.exit_code == 1
    assert done.stderr.count("not done: ") == 51
    assert "not done: 3 more; all in" in done.stderr
    listed = (tmp_path / "out" / "not_done.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in listed] == [str(path) for path in bad]
    assert run_predict(picture, *common).exit_code == 0
    assert not (tmp_path / "out" / "not_done.txt").exists()


def test_a_video_keeps_its_rate(tmp_path: Path) -> None:
    write_model(tmp_path / "m.caffemodel", 1)
    film = write_film(tmp_path / "film.avi", frames=3)  # of 10 frames a second
    done = run_predict(film, "--model", tmp_path / "m.caffemodel", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "film_keypoints.json").read_text())
    assert content["rate"] == 10
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "film_skeleton.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    drawn.release()


def test_a_cameras_recording_has_the_cameras_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame each eighth of a second."""
    now = [0.0]
    monkeypatch.setattr("reproduce.predict.videos.time.monotonic", lambda: now[0])
    rates: list[float] = []

    class File:
        """Takes every frame."""

        def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
            rates.append(rate)

        def add(self, frame: object) -> None:
            """Nothing to do."""

    monkeypatch.setattr(videos, "VideoFile", File)
    film = videos._Recording(tmp_path / "camera.mp4")
    for _ in range(40):
        now[0] += 0.125
        film.add(np.zeros((4, 4, 3), np.uint8))
    assert rates == [pytest.approx(8)]
