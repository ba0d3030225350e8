"""``python -m caffe_compat.tools``."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

import caffe_compat.pycaffe as caffe
from caffe_compat.commands import Command
from caffe_compat.definition.prototxt import read_net, read_solver
from caffe_compat.pycaffe.proto import caffe_pb2
from caffe_compat.tools import main
from caffe_compat.training.datum import LMDBReader
from tests.paths import DATA, GOLDEN

_NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 }
  data_filler { type: "constant" value: 0.5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "mean" type: "Reduction" bottom: "conv" top: "mean" reduction_param { operation: MEAN } }
"""
_OLD = """
name: "old" input: "data" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 blobs_lr: 2 inner_product_param { num_output: 2 } }
"""


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(_NET)
    made = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    made.save(tmp_path / "w.caffemodel")
    return tmp_path / "net.prototxt"


@pytest.mark.long
def test_help_and_mistakes(tmp_path: Path, net: Path) -> None:
    """One line for bad input, exit code 2; every command explains itself."""
    for command in main.commands:
        result = _run(command, "--help")
        assert result.exit_code == 0
        assert f"python -m caffe_compat.tools {command}" in result.output
    (tmp_path / "bad.prototxt").write_text('layer { name: "x" type: "ReLU" botom: "a" }')
    for args, said in (
        (("time", tmp_path / "bad.prototxt"), "botom"),
        (("time", tmp_path / "none.prototxt"), "does not exist"),
        (("test", net, "--weights", net), "error"),
        (("draw", net, tmp_path / "x.gif"), "png, svg, pdf, dot"),
        (("draw", net, tmp_path / "none" / "x.png"), "cannot be written"),
        (("upgrade-net", tmp_path / "bad.prototxt", tmp_path / "o"), "botom"),
        (("parse-log", net, tmp_path), "expected a log"),
        (("image-mean", tmp_path / "net.prototxt"), "LMDB"),
        (
            ("extract-features", net, tmp_path / "w.caffemodel", "nothing", tmp_path / "f.h5", 1),
            "no blob is called nothing; blobs: data",
        ),
        (("extract-features", net, tmp_path / "w.caffemodel", "a,b", "c", 1), "2 blobs, 1 targets"),
    ):
        result = CliRunner().invoke(main, [str(a) for a in args])
        assert result.exit_code == 2, args
        assert said in result.output, (args, result.output)
        assert "Traceback" not in result.output
    done = subprocess.run(
        [sys.executable, "-m", "caffe_compat.tools", "draw", str(net), "x.gif"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_time(net: Path) -> None:
    result = _run("time", net, "--iterations", 2)
    assert result.exit_code == 0
    for name in ("conv", "relu", "mean"):
        assert any(line.startswith(name) for line in result.output.splitlines())
    found = json.loads(_run("time", net, "--iterations", 1, "--json").output)
    assert [layer["layer"] for layer in found["layers"]] == ["conv", "relu", "mean"]
    assert all(layer["forward_ms"] > 0 for layer in found["layers"])
    only = json.loads(_run("time", net, "--iterations", 1, "--json", "--forward-only").output)
    assert all(layer["backward_ms"] == 0 for layer in only["layers"])


def test_layers_that_read_classes_are_timed(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "x" type: "Input" top: "x" top: "label" top: "at"
          input_param { shape { dim: [4, 3] } shape { dim: 4 } shape { dim: 4 } } }
        layer { name: "embed" type: "Embed" bottom: "at" top: "e"
          embed_param { num_output: 2 input_dim: 5 bias_term: false } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" }""")
    result = _run("time", tmp_path / "net.prototxt", "--iterations", 1)
    assert result.exit_code == 0, result.output
    assert "loss" in result.output


def test_test(net: Path, tmp_path: Path) -> None:
    found = json.loads(
        _run(
            "test", net, "--weights", tmp_path / "w.caffemodel", "--iterations", 3, "--json"
        ).output
    )
    face = caffe.Net(str(net), caffe.TEST, weights=str(tmp_path / "w.caffemodel"))
    assert found["outputs"]["mean"] == pytest.approx(float(face.forward()["mean"]), rel=1e-5)
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text(
        'input: "a" input_shape { dim: 1 } layer { name: "r" type: "ReLU" bottom: "a" top: "b" }'
    )
    result = CliRunner().invoke(
        main, ["test", str(deploy), "--weights", str(tmp_path / "w.caffemodel")]
    )
    assert result.exit_code == 2
    assert "no data layer in phase TEST" in result.output


def test_what_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    """JSON has no NaN: other programs would refuse it."""
    (tmp_path / "net.prototxt").write_text(
        _NET + 'layer { name: "log" type: "Log" bottom: "mean" top: "odd" log_param { scale: 0 } }'
    )
    weights = tmp_path / "w.caffemodel"
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(str(weights))
    result = _run("test", tmp_path / "net.prototxt", "--weights", weights, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["outputs"] == {"odd": None}


def test_levels_and_stages_of_a_test(tmp_path: Path) -> None:
    """Which layers are scored hangs on them, as in Caffe."""
    layers = "".join(
        f'layer {{ name: "{name}" type: "DummyData" top: "{name}" {rule} dummy_data_param {{ '
        f"shape {{ dim: 1 }} data_filler {{ value: {value} }} }} }}"
        for value, (name, rule) in enumerate(
            (
                ("always", ""),
                ("staged", 'include { stage: "s" }'),
                ("deep", "include { min_level: 2 }"),
            )
        )
    )
    (tmp_path / "net.prototxt").write_text(layers)
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(tmp_path / "w.caffemodel")
    common = ("test", tmp_path / "net.prototxt", "--weights", tmp_path / "w.caffemodel", "--json")
    for options, names in (
        ((), {"always"}),
        (("--stage", "s"), {"always", "staged"}),
        (("--level", "2"), {"always", "deep"}),
    ):
        assert set(json.loads(_run(*common, *options).stdout)["outputs"]) == names


def test_a_mean_time_is_that_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from caffe_compat.tools import timing

    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += 0.25

    assert timing._seconds(work, "cpu", 4) == 0.25


@pytest.mark.golden
@pytest.mark.skipif(
    not (GOLDEN / "lenet_train").exists(), reason="no recorded training (CPM_GOLDEN)"
)
def test_a_recorded_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real Caffe's scores of the weights that it had trained."""
    folder = GOLDEN / "lenet_train"
    monkeypatch.chdir(folder)
    batches = read_solver("solver.prototxt").message.test_iter[0]
    result = _run(
        "test",
        "net.prototxt",
        "--weights",
        "shapes_iter_20.caffemodel",
        "--iterations",
        batches,
        "--json",
    )
    found = json.loads(result.output)["outputs"]
    recorded = json.loads((folder / "losses.json").read_text())["tests"]
    last = recorded[-1] if isinstance(recorded, list) else recorded["20"]
    values = {k: v for k, v in last.items() if k in found}
    assert values
    for name, value in values.items():
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_upgrading(tmp_path: Path, net: Path) -> None:
    (tmp_path / "old.prototxt").write_text(_OLD)
    assert _run("upgrade-net", tmp_path / "old.prototxt", tmp_path / "new.prototxt").exit_code == 0
    text = (tmp_path / "new.prototxt").read_text()
    made = text_format.Parse(text, caffe_pb2.NetParameter())
    assert [layer.type for layer in made.layer] == ["Input", "InnerProduct"]
    assert [p.lr_mult for p in made.layer[1].param] == [1, 2]
    assert made == read_net(tmp_path / "old.prototxt").to_message()
    old = caffe.Net(str(tmp_path / "old.prototxt"), caffe.TEST)
    old.save(tmp_path / "old.caffemodel")
    _run("upgrade-net", tmp_path / "old.caffemodel", tmp_path / "new.caffemodel")
    new = caffe.Net(
        str(tmp_path / "new.prototxt"), caffe.TEST, weights=str(tmp_path / "new.caffemodel")
    )
    np.testing.assert_array_equal(new.params["ip"][0].data, old.params["ip"][0].data)
    (tmp_path / "s.prototxt").write_text(
        'net: "a" base_lr: 0.1 solver_type: ADAM lr_policy: "fixed"'
    )
    _run("upgrade-solver", tmp_path / "s.prototxt", tmp_path / "t.prototxt")
    assert 'type: "Adam"' in (tmp_path / "t.prototxt").read_text()
    assert "solver_type" not in (tmp_path / "t.prototxt").read_text()


def test_mistakes_are_one_line(tmp_path: Path, net: Path) -> None:
    """As of all commands; SIGTERM, too, ends these as it ends those."""
    assert all(isinstance(command, Command) for command in main.commands.values())
    for args in (("time", tmp_path / "none.prototxt"), ("time", net, "--none"), ("none",)):
        result = _run(*args)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1


def test_an_upgraded_model_keeps_its_state(tmp_path: Path, net: Path) -> None:
    model = caffe_pb2.NetParameter()
    model.ParseFromString((tmp_path / "w.caffemodel").read_bytes())
    model.force_backward = True
    model.state.stage.append("deploy")
    (tmp_path / "a.caffemodel").write_bytes(model.SerializeToString())
    assert _run("upgrade-net", tmp_path / "a.caffemodel", tmp_path / "b.caffemodel").exit_code == 0
    again = caffe_pb2.NetParameter()
    again.ParseFromString((tmp_path / "b.caffemodel").read_bytes())
    assert again.force_backward
    assert list(again.state.stage) == ["deploy"]
    for name in ("b.h5", "b.H5"):
        result = _run("upgrade-net", tmp_path / "a.caffemodel", tmp_path / name)
        assert result.exit_code == 2
        assert f"{name}: an HDF5 model holds no definition" in result.stderr
        assert not (tmp_path / name).exists()


def test_weights_of_another_model(tmp_path: Path, net: Path) -> None:
    """Features of the fillers would be numbers like others: what took nothing is said."""
    (tmp_path / "other.prototxt").write_text(net.read_text().replace('"conv"', '"other"'))
    command = ("extract-features", tmp_path / "other.prototxt", tmp_path / "w.caffemodel")
    result = _run(*command, "mean", tmp_path / "f.npz", 1)
    assert result.exit_code == 2
    assert "parameters of none of the layers" in result.stderr
    assert "It has conv; expected other" in result.stderr
    assert not (tmp_path / "f.npz").exists()
    more = (
        net.read_text()
        + """
        layer { name: "new" type: "InnerProduct" bottom: "conv" top: "file"
                inner_product_param { num_output: 2 } }"""
    )
    (tmp_path / "more.prototxt").write_text(more)
    command = ("extract-features", tmp_path / "more.prototxt", tmp_path / "w.caffemodel")
    result = _run(*command, "file", tmp_path / "f.npz", 1)
    assert result.exit_code == 0
    assert "layers not in the file, so that their fillers count: new" in result.stderr
    with np.load(tmp_path / "f.npz") as found:
        assert found["file"].shape == (2, 2)
    caffe.Net(str(tmp_path / "more.prototxt"), caffe.TEST).save(tmp_path / "more.caffemodel")
    result = _run("time", net, "--weights", tmp_path / "more.caffemodel", "--iterations", 1)
    assert "layers in the file only: new" in result.stderr


def test_upgrading_tells_what_it_leaves_out(tmp_path: Path, net: Path) -> None:
    model = caffe_pb2.NetParameter()
    model.ParseFromString((tmp_path / "w.caffemodel").read_bytes())
    layer = model.layer.pop()
    unknown = layer.SerializeToString() + b"\xc0\xb8\x02\x01"  # field 5000, a number
    entry = b"\xa2\x06" + bytes([len(unknown)]) + unknown  # field 100, a layer
    (tmp_path / "fork.caffemodel").write_bytes(model.SerializeToString() + entry)
    result = _run("upgrade-net", tmp_path / "fork.caffemodel", tmp_path / "new.caffemodel")
    assert result.exit_code == 0
    assert f"note: layer '{layer.name}': unknown field(s) #5000" in result.stderr


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "caffemodels").exists(), reason="no real models (CPM_DATA)")
def test_real_old_models_are_upgraded(tmp_path: Path) -> None:
    models = sorted((DATA / "caffemodels").glob("*_v1/*.caffemodel*"))
    assert models
    for model in models:
        target = tmp_path / "new.caffemodel"
        assert _run("upgrade-net", model, target).exit_code == 0
        one, other = caffe_pb2.NetParameter(), caffe_pb2.NetParameter()
        one.ParseFromString(target.read_bytes())
        assert one.layer
        assert not one.layers
        other.ParseFromString(model.read_bytes())
        old = {layer.name: [np.array(b.data) for b in layer.blobs] for layer in other.layers}
        for layer in one.layer:
            for blob, values in zip(layer.blobs, old.get(layer.name, []), strict=True):
                np.testing.assert_array_equal(np.array(blob.data), values)


def test_drawing(net: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.svg", "a.pdf", "a.dot"):
        assert (
            _run("draw", net, tmp_path / name, "--rankdir", "TB", "--phase", "test").exit_code == 0
        )
        assert (tmp_path / name).stat().st_size > 300
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None
    assert picture.shape[0] > picture.shape[1]
    assert _run("draw", net, tmp_path / "b.dot", "--rankdir", "RL", "--display-lrm").exit_code == 0
    assert "rankdir=RL" in (tmp_path / "b.dot").read_text()


_LOG = """Log file created at: 2015/02/10 23:59:58
I0210 23:59:58.500000 25210 solver.cpp:160] Solving LeNet
I0210 23:59:59.000000 25210 solver.cpp:247] Iteration 0, Testing net (#0)
I0210 23:59:59.500000 25210 solver.cpp:298]     Test net output #0: accuracy = 0.0587
I0210 23:59:59.500000 25210 solver.cpp:298]     Test net output #1: loss = 2.34735 (* 1 = 2.34735 loss)
I0210 23:59:59.900000 25210 solver.cpp:191] Iteration 0, loss = 2.30
I0210 23:59:59.900000 25210 solver.cpp:206]     Train net output #0: loss = 2.30 (* 1 = 2.30 loss)
I0210 23:59:59.900000 25210 solver.cpp:403] Iteration 0, lr = 0.01
I0211 00:00:08.500000 25210 solver.cpp:191] Iteration 100 (10 iter/s, 8s/100 iters), loss = nan
I0211 00:00:08.500000 25210 solver.cpp:206]     Train net output #0: loss = nan (* 1 = nan loss)
I0211 00:00:08.500000 25210 sgd_solver.cpp:106] Iteration 100, lr = 0.00992565
I0211 00:00:09.000000 25210 solver.cpp:247] Iteration 100, Testing net (#0)
I0211 00:00:09.500000 25210 solver.cpp:298]     Test net output #0: accuracy = 0.9
I0211 00:00:09.500000 25210 solver.cpp:298]     Test net output #1: loss = 0.25 (* 1 = 0.25 loss)
"""


def test_tables_of_a_log(tmp_path: Path) -> None:
    """Over midnight, with the rate after the outputs, with a loss that is not a number."""
    (tmp_path / "train.log").write_text(_LOG)
    assert _run("parse-log", tmp_path / "train.log", tmp_path / "tables").exit_code == 0
    rows = {}
    for kind in ("train", "test"):
        with open(tmp_path / "tables" / f"train.log.{kind}", newline="") as file:
            rows[kind] = list(csv.DictReader(file))
    assert [r["NumIters"] for r in rows["train"]] == ["0", "100"]
    assert [r["loss"] for r in rows["train"]] == ["2.3", "nan"]
    assert [float(r["LearningRate"]) for r in rows["train"]] == [0.01, 0.00992565]
    assert [float(r["Seconds"]) for r in rows["train"]] == pytest.approx([1.4, 10.0])
    assert [r["accuracy"] for r in rows["test"]] == ["0.0587", "0.9"]
    assert [float(r["LearningRate"]) for r in rows["test"]] == [0.01, 0.00992565]
    assert list(rows["test"][0]) == ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"]


@pytest.mark.parametrize("rate", ["-nan\n", "1e-\n", "0.0058.2\n", "-\n", "1e-0", "0.0", "0.00985"])
def test_a_rate_that_is_no_number_is_not_taken(rate: str, tmp_path: Path) -> None:
    """A training may have gone wrong, and a log may be cut short, in the midst of a number: the
    other lines are read."""
    (tmp_path / "cut.log").write_text(f"{_LOG}\nIteration 200, lr = {rate}")
    assert _run("parse-log", tmp_path / "cut.log", tmp_path).exit_code == 0
    with open(tmp_path / "cut.log.train", newline="") as file:
        assert [row["LearningRate"] for row in csv.DictReader(file)] == ["0.01", "0.00992565"]


def test_the_rate_of_nvcaffes_log(tmp_path: Path) -> None:
    """There it is followed by a comma."""
    text = _LOG.replace("lr = 0.00992565", "lr = 0.00992565, m = 0.9, wd = 0.0005, gs = 1")
    assert text != _LOG
    (tmp_path / "nv.log").write_text(f"{text}\n")
    assert _run("parse-log", tmp_path / "nv.log", tmp_path).exit_code == 0
    with open(tmp_path / "nv.log.train", newline="") as file:
        assert [row["LearningRate"] for row in csv.DictReader(file)] == ["0.01", "0.00992565"]


def _lmdb(folder: Path, pictures: np.ndarray) -> None:
    import lmdb

    with lmdb.open(str(folder)) as env, env.begin(write=True) as transaction:
        for number, picture in enumerate(pictures):
            datum = caffe.io.array_to_datum(picture, number)
            transaction.put(b"%08d" % number, datum.SerializeToString())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("command", ["parse-log", "upgrade-net"])
def test_a_pipe_is_not_waited_for(command: str, tmp_path: Path) -> None:
    """Nobody may ever write into it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = [sys.executable, "-m", "caffe_compat.tools", command]
    done = subprocess.run(
        [*program, str(pipe), str(tmp_path / "out")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {pipe}: is a pipe or a device, expected an ordinary file\n"
    assert not (tmp_path / "out").exists()


def test_means(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), np.uint8)
    _lmdb(tmp_path / "db", pictures)
    result = _run("image-mean", tmp_path / "db", tmp_path / "mean.binaryproto")
    assert result.exit_code == 0
    assert "5 pictures" in result.output
    blob = caffe_pb2.BlobProto()
    blob.ParseFromString((tmp_path / "mean.binaryproto").read_bytes())
    mean = caffe.io.blobproto_to_array(blob)
    assert mean.shape == (1, 3, 4, 6)
    np.testing.assert_allclose(mean[0], pictures.mean(0), rtol=1e-6)
    for name in ("mean.npy", "mean.NPY"):
        _run("image-mean", tmp_path / "db", tmp_path / name)
        np.testing.assert_allclose(np.load(tmp_path / name), pictures.mean(0), rtol=1e-6)
    shown = _run("image-mean", tmp_path / "db").output
    assert f"channel 1: {pictures[:, 1].mean():.6g}" in shown


def test_means_of_encoded_and_of_float_records(tmp_path: Path) -> None:
    """Encoded pictures keep OpenCV's order of colours, which is the order of the others."""
    import lmdb

    pictures = np.random.default_rng(1).integers(0, 256, (3, 3, 4, 6), np.uint8)
    values = np.random.default_rng(2).random((3, 2, 4, 6)).astype(np.float32)
    records: dict[str, list[caffe_pb2.Datum]] = {"encoded": [], "float": []}
    for picture, value in zip(pictures, values, strict=True):
        data = cv2.imencode(".png", picture.transpose(1, 2, 0))[1].tobytes()
        records["encoded"].append(caffe_pb2.Datum(data=data, encoded=True))
        shape = {"channels": 2, "height": 4, "width": 6}
        records["float"].append(caffe_pb2.Datum(**shape, float_data=value.ravel().tolist()))
    for name, expected in (("encoded", pictures), ("float", values)):
        with lmdb.open(str(tmp_path / name)) as env, env.begin(write=True) as transaction:
            for number, datum in enumerate(records[name]):
                transaction.put(b"%08d" % number, datum.SerializeToString())
        _run("image-mean", tmp_path / name, tmp_path / f"{name}.npy")
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected.mean(0), rtol=1e-6)


def test_features_of_several_batches(tmp_path: Path) -> None:
    """In the order of the data, in each kind of target."""
    import h5py

    rows = np.random.default_rng(4).random((6, 3)).astype(np.float32)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["x"] = rows
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'rows.h5'}\n")
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "HDF5Data" top: "x" hdf5_data_param { batch_size: 2 '
        f'source: "{tmp_path / "list.txt"}" }} }}'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
        'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
    )
    made = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    made.save(tmp_path / "w.caffemodel")
    expected = rows @ made.params["ip"][0].data.T
    targets = [tmp_path / name for name in ("f.NPZ", "f.HDF5", "f")]
    files = (tmp_path / "net.prototxt", tmp_path / "w.caffemodel")
    _run("extract-features", *files, "ip,ip,x", ",".join(map(str, targets)), 3)
    with np.load(targets[0]) as file:
        np.testing.assert_allclose(file["ip"], expected, rtol=1e-5)
    with h5py.File(targets[1]) as file:
        np.testing.assert_allclose(file["ip"][()], expected, rtol=1e-5)
    reader = LMDBReader(targets[2])
    for number, row in enumerate(rows):
        datum = caffe_pb2.Datum()
        datum.ParseFromString(reader.raw(number))
        np.testing.assert_array_equal(caffe.io.datum_to_array(datum).ravel(), row)
    reader.close()


def test_features(tmp_path: Path, net: Path) -> None:
    targets = [tmp_path / "f.npz", tmp_path / "f.h5", tmp_path / "features"]
    result = _run(
        "extract-features",
        net,
        tmp_path / "w.caffemodel",
        "conv,conv,conv",
        ",".join(map(str, targets)),
        3,
    )
    assert result.exit_code == 0
    face = caffe.Net(str(net), caffe.TEST, weights=str(tmp_path / "w.caffemodel"))
    expected = np.concatenate([face.forward(["conv"])["conv"].copy() for _ in range(3)])
    with np.load(targets[0]) as file:
        np.testing.assert_allclose(file["conv"], expected, rtol=1e-5)
    reader = LMDBReader(targets[2])
    assert list(reader.keys) == [b"%010d" % i for i in range(6)]
    datum = caffe_pb2.Datum()
    datum.ParseFromString(reader.raw(5))
    np.testing.assert_allclose(caffe.io.datum_to_array(datum), expected[5], rtol=1e-5)
    reader.close()
    again = CliRunner().invoke(
        main,
        [
            "extract-features",
            str(net),
            str(tmp_path / "w.caffemodel"),
            "conv",
            str(targets[2]),
            "1",
        ],
    )
    assert again.exit_code == 2
    assert "exists already" in again.output
    twice = f"{tmp_path / 'new.npz'},{tmp_path}/./new.npz"
    same = CliRunner().invoke(
        main,
        ["extract-features", str(net), str(tmp_path / "w.caffemodel"), "data,conv", twice, "1"],
    )
    assert same.exit_code == 2
    assert "a file of its own" in same.output
    assert not (tmp_path / "new.npz").exists()


def test_targets_are_tried_before_anything_is_written(tmp_path: Path, net: Path) -> None:
    """A target that cannot be written costs no other one, and no input is written over."""
    weights, good = tmp_path / "w.h5", tmp_path / "good.npz"
    weights.write_bytes((tmp_path / "w.caffemodel").read_bytes())
    before = weights.read_bytes()
    features = ("extract-features", net, weights)
    (tmp_path / "train.log").write_text(
        "I0101 10:00:00.0 1 x] Iteration 0, loss = 1\n"
        "I0101 10:00:00.0 1 x]     Train net output #0: loss = 1\n"
    )
    for args, said in (
        ((*features, "conv,mean", f"{good},{tmp_path / 'none' / 'x.npz'}", 1), "none does not"),
        ((*features, "conv,mean", f"{good},{tmp_path / 'none' / 'x'}", 1), "none does not exist"),
        ((*features, "conv,mean", f"{good},", 1), "a target has no name"),
        ((*features, "conv", weights, 1), "is read, too"),
        (("parse-log", tmp_path / "train.log", "/proc/none"), "this folder cannot be made"),
    ):
        result = _run(*args)
        assert result.exit_code == 2, args
        assert said in result.output, (args, result.output)
    assert not good.exists()
    assert weights.read_bytes() == before
