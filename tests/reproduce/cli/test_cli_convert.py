"""``cpm-convert`` and ``cpm-models`` as a user runs them."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from caffe_compat import Net, parse_net, read_weights, write_weights
from caffe_compat.engine import rates
from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import atomic_write
from caffe_compat.weights import containers
from reproduce.cli import convert, models
from reproduce.predict.predictor import Predictor
from tests.nets import TEXT, model_file, same_blobs, small
from tests.paths import DATA, cases, needs_data, reported


def _run(*args: object) -> Result:
    return CliRunner().invoke(convert.main, [str(a) for a in args])


def test_default_output(tmp_path: Path) -> None:
    path, _, _ = model_file(tmp_path)
    result = _run(path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "small.safetensors").exists()
    assert "conv" in result.stdout
    assert "4×3×3×3 4" in result.stdout
    assert "not a Convolutional Pose Machine" in result.stdout


@pytest.mark.parametrize("to", ["safetensors", "pth", "npz", "h5", "caffemodel"])
def test_permissions_follow_the_umask(tmp_path: Path, to: str) -> None:
    path, _, _ = model_file(tmp_path)
    before = os.umask(0o027)
    try:
        made = json.loads(_run(path, "--to", to, "--json").stdout)["output"]
    finally:
        os.umask(before)
    assert os.stat(made).st_mode & 0o777 == 0o640


def test_onnx_is_told_by_its_ending(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    path, _, _ = model_file(tmp_path)
    made = _run(path, "-o", tmp_path / "net.onnx")
    assert made.exit_code == 0, made.output
    again = _run(tmp_path / "net.onnx")
    assert again.exit_code == 2
    assert "this is an ONNX model" in again.stderr


def test_no_weights_alone_as_onnx(tmp_path: Path) -> None:
    """The reason is said, and nothing is written."""
    path, _, _ = model_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Softmax", b"Xxxxxxx"))
    result = _run(path, "--to", "onnx")
    assert result.exit_code == 2
    assert "Xxxxxxx" in result.stderr
    assert _run(path, "--fixed-batch").exit_code == 2
    assert os.listdir(tmp_path) == [path.name]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """safetensors cannot write them and that is said; .npz can."""
    path, _, _ = model_file(tmp_path, os.fsdecode(b"net\xff.caffemodel"))
    result = _run(path)
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr
    assert _run(path, "--to", "npz").exit_code == 0


def test_a_definition_without_the_models_layers(tmp_path: Path) -> None:
    """An empty one, for example: nothing would be converted."""
    path, _, _ = model_file(tmp_path)
    (tmp_path / "other.prototxt").write_text("")
    result = _run(path, "--prototxt", tmp_path / "other.prototxt")
    assert result.exit_code == 2
    assert "other.prototxt has none of the layers that hold its parameters" in result.stderr
    assert not (tmp_path / "small.safetensors").exists()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_files_of_the_system_have_no_size() -> None:
    result = _run("/proc/self/environ", "-o", "x.npz")
    assert result.exit_code == 2
    assert "is empty (0 bytes)" in result.stderr


def test_json_report(tmp_path: Path) -> None:
    path, net, _ = model_file(tmp_path)
    report = json.loads(_run(path, "--json").stdout)
    assert report["parameters"] == net.graph.count
    assert report["totals"] == {"no parameters": 4, "matched": 4}
    assert report["sha256"] == read_weights(path).source.sha256()
    assert [layer["name"] for layer in report["layers"]][:2] == ["input", "conv"]


@pytest.mark.parametrize("to", ["safetensors", "pth", "npz", "h5", "caffemodel"])
def test_formats(tmp_path: Path, to: str) -> None:
    path, _, _ = model_file(tmp_path)
    made = json.loads(_run(path, "--to", to, "--json").stdout)["output"]
    back = _run(made, "--to", "caffemodel", "-o", tmp_path / "back.caffemodel")
    assert back.exit_code == 0, back.output
    assert same_blobs(read_weights(tmp_path / "back.caffemodel"), read_weights(path))


def _bad_inputs(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    path, _, _ = model_file(tmp_path)
    data = path.read_bytes()
    files = {
        "truncated": data[: len(data) - 10],
        "empty": b"",
        "html": b"<html><body>Not found</body></html>",
        "text": TEXT.encode(),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    }
    for name, content in files.items():
        (tmp_path / f"{name}.caffemodel").write_bytes(content)
    (tmp_path / "wrong.prototxt").write_text(
        TEXT.replace("num_output: 5", "num_output: 6").replace('"conv"', '"other"', 1)
    )
    (tmp_path / "typo.prototxt").write_text(TEXT.replace("kernel_size", "kernel_sise"))
    (tmp_path / "right.prototxt").write_text(TEXT)
    return {
        "truncated": ([tmp_path / "truncated.caffemodel"], "truncated|damaged"),
        "empty": ([tmp_path / "empty.caffemodel"], "empty"),
        "html": ([tmp_path / "html.caffemodel"], "HTML"),
        "prototxt as model": ([tmp_path / "text.caffemodel"], "is text"),
        "picture": ([tmp_path / "png.caffemodel"], "PNG image"),
        "wrong prototxt": ([path, "--prototxt", tmp_path / "wrong.prototxt"], "3 problem"),
        "typo": (
            [path, "--prototxt", tmp_path / "typo.prototxt"],
            "typo.prototxt:5: .*did you mean 'kernel_size'",
        ),
        "model as prototxt": ([path, "--prototxt", path], "binary file"),
        "directory": ([tmp_path], "directory"),
        "missing": ([tmp_path / "none.caffemodel"], "No such file"),
        "unwritable": (
            [path, "-o", tmp_path / "no" / "such.safetensors"],
            f"such.safetensors: cannot be written: the folder {tmp_path / 'no'} does not exist",
        ),
        "target is a directory": ([path, "--to", "pth", "-o", tmp_path], "is a directory"),
        "onto itself": ([path, "-o", path], "model itself"),
        "ending of another format": (
            [path, "--to", "safetensors", "-o", tmp_path / "net.onnx"],
            "'.onnx' does not belong to --to safetensors; expected .safetensors$",
        ),
        "verify and write": (
            [path, "--verify", tmp_path / "x.npz", "-o", tmp_path / "y.npz"],
            "leave out -o and --to",
        ),
        "bad input shape": ([path, "--input-shape", "data:1,x"], "expected NAME:N,C,H,W"),
        "unknown input": ([path, "--input-shape", "dta:1,3,9,12"], "no input is called dta"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "truncated",
        "empty",
        "html",
        "prototxt as model",
        "picture",
        "wrong prototxt",
        "typo",
        "model as prototxt",
        "directory",
        "missing",
        "unwritable",
        "target is a directory",
        "onto itself",
        "ending of another format",
        "verify and write",
        "bad input shape",
        "unknown input",
    ],
)
def test_bad_input(tmp_path: Path, case: str) -> None:
    args, says = _bad_inputs(tmp_path)[case]
    before = sorted(os.listdir(tmp_path))
    result = _run(*args)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    import re

    assert re.search(says, result.stderr, re.DOTALL), result.stderr
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.long
def test_full_disk(tmp_path: Path) -> None:
    """A write that fails in the middle leaves nothing behind."""
    path, _, _ = model_file(tmp_path)

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    for to in ("safetensors", "npz", "caffemodel", "pth"):
        code = "from reproduce.cli.convert import main; main()"
        result = subprocess.run(
            [sys.executable, "-B", "-c", code, str(path), "--to", to],
            preexec_fn=limit,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 2, result.stderr
        assert "cannot be written: File too large" in result.stderr or to == "safetensors"
        assert result.stderr.count("\n") == 1
        assert os.listdir(tmp_path) == ["small.caffemodel"]


def test_torch_does_not_cover_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails behind others: torch raises an error of its own about it."""
    path, _, _ = model_file(tmp_path)

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    @contextlib.contextmanager
    def on_a_full_disk(name: str) -> Iterator[Full]:
        with atomic_write(name):
            yield Full()

    monkeypatch.setattr(containers, "atomic_write", on_a_full_disk)
    result = _run(path, "--to", "pth")
    assert result.exit_code == 2, result.exception
    assert result.stderr.endswith("small.pth: cannot be written: No space left on device\n")
    assert os.listdir(tmp_path) == ["small.caffemodel"]


@pytest.mark.parametrize("to", ["npz", "onnx"])
def test_strict(to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnx", reason="the extra onnx is not installed")
    filled = tmp_path / f"filled.{to}"
    path, _, _ = model_file(tmp_path)
    (tmp_path / "more.prototxt").write_text(
        TEXT
        + 'layer { name: "new" type: "InnerProduct" bottom: "fc" top: "new" inner_product_param '
        "{ num_output: 2 "
        'weight_filler { type: "xavier" } } }'
    )
    refused = _run(path, "--prototxt", tmp_path / "more.prototxt")
    assert refused.exit_code == 2
    assert "layer 'new'" in refused.stderr
    assert not (tmp_path / "small.safetensors").exists()
    made = _run(
        path, "--prototxt", tmp_path / "more.prototxt", "--no-strict", "--to", to, "-o", filled
    )
    assert made.exit_code == 0, made.output
    assert "filled as the definition says: 'new'" in made.stdout
    if to == "onnx":
        return
    again = read_weights(filled)
    assert again["new"][0].shape == (2, 5)
    assert np.any(again["new"][0].data)


def test_a_definition_that_was_given_is_used_or_refused(tmp_path: Path) -> None:
    """Another one would be written in its place; and a file that holds a network says so, whatever
    it was made of."""
    text = """
        layer { name: "data" type: "Input" top: "data" %s }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c"
          convolution_param { num_output: 2 kernel_size: 3 } }"""
    spec = parse_net(text % "input_param { shape { dim: [1, 3, 9, 9] } }")
    write_weights(tmp_path / "m.caffemodel", Net(spec).weights(), spec)
    (tmp_path / "in.prototxt").write_text(text % "")
    command = [tmp_path / "m.caffemodel", "--prototxt", tmp_path / "in.prototxt"]
    refused = _run(*command, "-o", tmp_path / "a.npz")
    assert refused.exit_code == 2
    assert "--input-shape data:" in refused.stderr
    assert not (tmp_path / "a.npz").exists()
    loose = tmp_path / "loose.caffemodel"
    write_weights(loose, Net(spec).weights(), parse_net(text % ""))
    assert _run(loose, "-o", tmp_path / "b.npz").exit_code == 0
    assert containers.read_weights(tmp_path / "b.npz").source.metadata["runs"].startswith("no: ")
    shape = ["--input-shape", "data:1,3,9,9"]
    assert _run(tmp_path / "b.npz", *shape, "-o", tmp_path / "c.npz").exit_code == 0
    assert "runs" not in containers.read_weights(tmp_path / "c.npz").source.metadata


def test_a_training_net_without_a_test_phase(tmp_path: Path) -> None:
    """SSD's form: a file for training whose data layer is of phase TRAIN, another one to test."""
    data = """layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
      data_param { source: "nowhere" batch_size: 2 } }"""
    body = """
      layer { name: "c" type: "Convolution" bottom: "data" top: "c"
        convolution_param { num_output: 2 kernel_size: 3 } }
      layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
        inner_product_param { num_output: 3 } }"""
    loss = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }'
    known = parse_net('input: "data" input_shape { dim: [1, 4, 7, 7] }' + body)
    write_weights(tmp_path / "m.caffemodel", Net(known, seed=2).weights(), known)
    (tmp_path / "train.prototxt").write_text(data + body + loss)
    command = [tmp_path / "m.caffemodel", "--prototxt", tmp_path / "train.prototxt"]
    done = _run(*command, "-o", tmp_path / "a.npz", "--input-shape", "data:1,4,7,7")
    assert done.exit_code == 0, done.output
    assert "training net, made a deploy net" in done.output
    assert same_blobs(
        containers.read_weights(tmp_path / "a.npz"), read_weights(tmp_path / "m.caffemodel")
    )
    unknown = _run(*command, "-o", tmp_path / "b.npz")
    assert unknown.exit_code == 0, unknown.output  # the InnerProduct tells the size
    (tmp_path / "train.prototxt").write_text(data + body.replace('bottom: "c"', 'bottom: "x"'))
    broken = _run(*command, "-o", tmp_path / "c.npz", "--input-shape", "data:1,4,7,7")
    assert broken.exit_code == 2
    assert "unknown blob" in broken.stderr
    assert not (tmp_path / "c.npz").exists()


def test_verify(tmp_path: Path) -> None:
    """Equal blobs pass; a dump made with flipped input channels is recognised as such."""
    import torch

    path, net, _ = model_file(tmp_path)
    x = torch.randn(1, 3, 9, 12)
    with torch.no_grad():
        blobs = {f"blob:{k}": v.numpy() for k, v in net.all_blobs(x).items()}
        np.savez(tmp_path / "good.npz", allow_pickle=False, **{"in:data": x.numpy(), **blobs})
        weight = net.param(net.graph.nodes[1].params[0])
        weight.copy_(weight[:, [2, 1, 0]].clone())
        swapped = {f"blob:{k}": v.numpy() for k, v in net.all_blobs(x).items()}
        np.savez(tmp_path / "bad.npz", allow_pickle=False, **{"in:data": x.numpy(), **swapped})
    good = _run(path, "--verify", tmp_path / "good.npz")
    assert good.exit_code == 0, good.output
    assert "agree" in good.stdout
    bad = _run(path, "--verify", tmp_path / "bad.npz", "--json")
    report = json.loads(bad.stdout)
    assert bad.exit_code == 1
    assert report["first"] == "conv"
    assert report["causes"]
    assert _run(path, "--verify", tmp_path / "none.npz").exit_code == 2


def test_verify_compares_a_blob_called_x(tmp_path: Path) -> None:
    """The name is that of the only input where the dump does not name the input otherwise."""
    net = Net(
        parse_net(
            """layer { name: "in" type: "Input" top: "data" input_param { shape { dim: [1, 3] } } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "y"
          inner_product_param { num_output: 2 } }
        layer { name: "x" type: "Power" bottom: "y" top: "x" power_param { scale: 2 } }"""
        )
    )
    write_weights(tmp_path / "m.caffemodel", net.weights(), net.graph.spec)
    data = np.ones((1, 3), np.float32)
    wrong = np.full((1, 2), 100, np.float32)
    np.savez(tmp_path / "d.npz", data=data, x=wrong)
    result = _run(tmp_path / "m.caffemodel", "--verify", tmp_path / "d.npz")
    assert result.exit_code == 1, result.output
    np.savez(tmp_path / "e.npz", x=data, y=np.zeros((1, 2), np.float32))
    result = _run(tmp_path / "m.caffemodel", "--verify", tmp_path / "e.npz")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("given", "recorded", "verdict"),
    [(-1, 5, "differs"), (-1, np.nan, "equal"), (1, np.nan, "differs"), (1, 0, "equal")],
)
def test_verify_takes_nan_for_no_other_number(given: float, recorded: float, verdict: str) -> None:
    """The logarithm of -1 is none."""
    from caffe_compat.conversion.verify import verify

    net = Net(
        parse_net('input: "x" input_shape { dim: 2 } layer { type: "Log" bottom: "x" top: "y" }')
    )
    dump = {
        "x": np.array([given, np.e], np.float32),
        "y": np.array([recorded, 1], np.float32),
    }
    (found,) = [check for check in verify(net, dump).checks if check.blob == "y"]
    assert found.verdict == verdict


def test_verify_names_the_cause(tmp_path: Path) -> None:
    import torch

    from caffe_compat import Net, parse_net, write_weights

    text = (
        'input: "a" input_shape { dim: 1 dim: 3 dim: 7 dim: 9 } layer { name: "c" type: '
        '"Convolution" bottom: "a" top: "c" '
        'convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "msra" } } }'
    )
    net = Net(parse_net(text))
    write_weights(tmp_path / "m.caffemodel", net.weights(), net.graph.spec)
    x = torch.randn(1, 3, 7, 9)
    with torch.no_grad():
        np.savez(
            tmp_path / "rgb.npz", **{"in:a": x.numpy(), "blob:c": net(x[:, [2, 1, 0]])["c"].numpy()}
        )
        weight = net.param(net.graph.nodes[1].params[0])
        weight.copy_(weight.flip(2, 3).clone())
        np.savez(tmp_path / "flipped.npz", **{"in:a": x.numpy(), "blob:c": net(x)["c"].numpy()})
    assert "R, G, B" in _run(tmp_path / "m.caffemodel", "--verify", tmp_path / "rgb.npz").stdout
    assert "flipped" in _run(tmp_path / "m.caffemodel", "--verify", tmp_path / "flipped.npz").stdout


@pytest.mark.parametrize("path", cases("tiny", "*/snap/*.caffemodel"))
def test_snapshot_needs_nothing_else(path: Path, tmp_path: Path) -> None:
    result = _run(path, "-o", tmp_path / "m.safetensors", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["dialect"] == "fork"
    assert report["stages"] >= 1
    dump = path.parent.parent / "deploy_io.npz"
    assert _run(tmp_path / "m.safetensors", "--verify", dump).exit_code == 0


@needs_data
@pytest.mark.parametrize(
    "path", sorted(DATA.glob("caffemodels/*/*.caffemodel")), ids=lambda p: p.stem
)
def test_public_models_against_opencv(path: Path, tmp_path: Path) -> None:
    """Each public model converts, and gives what OpenCV's own Caffe importer gives on the same
    input."""
    import cv2
    import torch

    from caffe_compat import Net
    from caffe_compat.conversion.convert import convert as convert_file

    prototxts = [
        p
        for p in path.parent.glob("*.prototxt")
        if "solver" not in p.name and "train" not in p.name
    ]
    exact = [p for p in prototxts if p.stem == path.stem]
    prototxt = (exact or prototxts)[0]
    result = _run(path, "--prototxt", prototxt, "-o", tmp_path / "m.safetensors")
    assert result.exit_code == 0, result.output
    made = convert_file(tmp_path / "m.safetensors")
    net = Net(made.graph, made.weights)
    name = net.graph.inputs[0]
    x = np.random.default_rng(0).standard_normal(net.graph.blobs[name]).astype(np.float32)
    given = {
        n: torch.from_numpy(x) if n == name else torch.zeros(net.graph.blobs[n])
        for n in net.graph.inputs
    }
    outputs = [n for n in net.graph.outputs if n not in net.graph.inputs]
    with torch.no_grad():
        ours = net(blobs=outputs, **given)
    if "MemoryData" in prototxt.read_text():
        return  # OpenCV has no MemoryData; the recorded blobs of real Caffe cover these
    peer = cv2.dnn.readNetFromCaffe(str(prototxt), str(path))
    peer.setInput(x)
    for output in outputs:
        maker = next(n.layer.name for n in reversed(net.graph.nodes) if output in n.tops)
        theirs = peer.forward(maker)
        np.testing.assert_allclose(
            ours[output].numpy().reshape(-1), theirs.reshape(-1), rtol=1e-4, atol=1e-5
        )


def test_models_command() -> None:
    runner = CliRunner()
    listed = runner.invoke(models.main, ["list"])
    assert listed.exit_code == 0
    assert "pose_iter_985000_addLEEDS.caffemodel" in listed.stdout
    assert "CPM_MODELS" in listed.stdout
    info = runner.invoke(models.main, ["info", "flic"])
    assert "4 stages, 9 parts" in info.stdout
    assert runner.invoke(models.main, ["info", "nothing"]).exit_code == 2
    assert runner.invoke(models.main, ["path", "mpii"]).exit_code == 2


def test_models_path_finds_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPM_MODELS", str(tmp_path))
    (tmp_path / "pose_iter_40000.caffemodel").write_bytes(b"x")
    found = CliRunner().invoke(models.main, ["path", "flic"])
    assert found.stdout.strip() == str(tmp_path / "pose_iter_40000.caffemodel")


def test_a_released_name_takes_no_other_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is predicted; the file's own name takes it as what it is."""
    monkeypatch.setenv("CPM_MODELS", str(tmp_path / "none"))
    missing = CliRunner().invoke(models.main, ["path", "mpii-vgg"])
    assert f"no pose_iter_320000.caffemodel in {tmp_path / 'none'} (no such folder)" in (
        missing.output
    )
    monkeypatch.setenv("CPM_MODELS", str(tmp_path))
    file = tmp_path / "pose_iter_320000.caffemodel"
    made = CliRunner().invoke(
        models.main, ["random", "--stages", "2", "--input", "64", "-o", str(file)]
    )
    assert made.exit_code == 0, made.output
    with pytest.raises(CaffeCompatError, match=f"{file}: is not mpii-vgg: .* 2 stage") as caught:
        Predictor.load("mpii-vgg")
    assert "that one has 6 stages and 29,852,058 parameters" in str(caught.value)
    assert len(Predictor.load(str(file)).outputs) == 2


def test_released_models_are_identified_by_structure() -> None:
    from caffe_compat.network.graph import build
    from reproduce.network import identify, netgen

    for model in identify.released():
        graph = build(netgen.deploy(model.config()))
        assert graph.count == model.parameters
        found = identify.identify(graph, f"/somewhere/{model.file}")
        assert found.named == model
        assert (found.stages, found.parts) == (model.stages, model.parts)
        assert identify.identify(graph, "renamed.caffemodel").named is None
        assert model in identify.identify(graph).candidates
    assert identify.identify(small().graph).stages == 0


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["convert", "models", "export", "train", "predict", "reproduce", "evaluate"]
)
def test_help_is_quick(name: str) -> None:
    """No command imports torch, OpenCV or matplotlib to show its help."""
    code = (
        f"import sys\nfrom reproduce.cli.{name} import main\ntry:\n    main(['--help'])\nexcept "
        "SystemExit as e:\n"
        "    assert not e.code\nheavy = {'torch', 'cv2', 'matplotlib', 'h5py', 'scipy'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "Usage" in out.stdout


def test_plan(tmp_path: Path) -> None:
    """What runs how, as a table and as JSON; at another input size; forced; bad sizes."""
    from reproduce.cli import models

    out = tmp_path / "net.caffemodel"
    assert (
        CliRunner().invoke(models.main, ["random", "--stages", "2", "-o", str(out)]).exit_code == 0
    )
    result = CliRunner().invoke(models.main, ["plan", str(out)])
    assert result.exit_code == 0, result.output
    assert "Mconv3_stage2" in result.output
    rows = json.loads(
        CliRunner().invoke(models.main, ["plan", str(out), "--json", "--input", "184x368"]).stdout
    )
    kinds = {row["layer"]: row["kind"] for row in rows}
    assert kinds["Mconv3_stage2"] == "tiled"
    assert kinds["conv1_stage1"] == "lines"
    assert kinds["Mconv4_stage2"] == "direct"
    assert next(row for row in rows if row["layer"] == "conv2_stage1")["input"] == [92, 184]
    direct = json.loads(
        CliRunner().invoke(models.main, ["plan", str(out), "--json", "--engine", "direct"]).stdout
    )
    assert {row["kind"] for row in direct} == {"direct"}
    assert CliRunner().invoke(models.main, ["plan", str(out), "--input", "184"]).exit_code == 2


def test_plan_says_by_which_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in ones, measured ones that are kept, and measured ones that cannot be."""
    monkeypatch.setattr(rates, "_measure", lambda: rates.Rates(direct=300e9))
    plan = ["plan", "leeds-small"]

    built_in = CliRunner().invoke(models.main, plan).stdout
    assert "rates, in 1e9 a second, built in, two cores of an AMD EPYC:\n  direct 230\n" in built_in
    assert "of one image on two cores of an AMD EPYC\n" in built_in

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    threads = torch.get_num_threads()
    kept = CliRunner().invoke(models.main, [*plan, "--calibrate"]).stdout
    assert f"of one image on {threads} thread(s) of this machine\n" in kept
    assert f"measured on this machine, kept in {rates.rates_file()}:\n" in kept
    assert f"\n  direct {300 * threads}\n" in kept
    assert rates.rates_file().exists()

    monkeypatch.setenv("XDG_CACHE_HOME", str(rates.rates_file()))
    unkept = CliRunner().invoke(models.main, [*plan, "--calibrate", "--json"])
    assert "measured on this machine, not kept: " in unkept.stderr
    assert "kept in" not in unkept.stderr
    assert json.loads(unkept.stdout)


@pytest.mark.parametrize("path", reported("weights_only", "*.caffemodel"))
@pytest.mark.parametrize("as_json", [False, True])
def test_weights_of_a_network_that_cannot_be_built(
    path: Path, as_json: bool, tmp_path: Path
) -> None:
    """They are converted all the same; the report says so and what is missing to run it.

    Where the network can be built and its own weights do not fit it, nothing is written.
    """
    result = _run(path, "-o", tmp_path / "w.safetensors", *(["--json"] if as_json else []))
    if "do not fit the network" in result.stderr:
        assert result.exit_code == 2
        assert not (tmp_path / "w.safetensors").exists()
        return
    assert result.exit_code == 0, result.output
    assert (tmp_path / "w.safetensors").exists()
    if as_json:
        report = json.loads(result.stdout)
        assert (report["runs"], bool(report["reason"])) == (False, True)
    else:
        assert "weights only: the network cannot be built here" in result.stdout
        assert "--prototxt" in result.stdout


def test_the_definition_is_not_written_over(tmp_path: Path) -> None:
    """As the model is not: it may be the only copy."""
    path, _, _ = model_file(tmp_path)
    definition = tmp_path / "net.prototxt"
    definition.write_text(TEXT)
    link = tmp_path / "link.npz"
    link.symlink_to(definition)
    for target in (definition, link):
        result = _run(path, "--prototxt", definition, "--to", "npz", "-o", target)
        assert result.exit_code == 2
        assert "is the definition itself; choose another file with -o" in result.stderr
    assert definition.read_text() == TEXT


def test_a_dump_that_proves_nothing(tmp_path: Path) -> None:
    """An input equals itself whatever the weights are, so that it is no proof; what was not
    compared is said."""
    path, net, _ = model_file(tmp_path)
    data = np.zeros((1, 3, 9, 12), np.float32)
    np.savez(tmp_path / "input.npz", data=data)
    result = _run(path, "--verify", tmp_path / "input.npz")
    assert result.exit_code == 2
    assert "no blob that this network computes; it has data" in result.stderr
    conv = net.all_blobs(_tensor(data))["conv"].detach().numpy()
    np.savez(tmp_path / "more.npz", data=data, conv=conv, stranger=data)
    result = _run(path, "--verify", tmp_path / "more.npz")
    assert result.exit_code == 0, result.output
    assert "note: not compared, for this network has no such blobs: stranger" in result.stdout


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)
