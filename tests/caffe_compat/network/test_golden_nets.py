"""Whole networks against the real Caffe: the official deploy nets, small pose machines, public
models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe_compat import Net, read_net, read_weights
from caffe_compat.conversion.convert import convert
from caffe_compat.engine.plan import MODES, Mode
from caffe_compat.network.graph import build
from tests import measured, recipe, tolerances
from tests.paths import DATA, GOLDEN, TEST_DEVICE, cases, needs_data
from tests.replay import absolute_error, relative_error


def _deploy_net(path: Path, engine: Mode = "auto") -> tuple[Net, np.ndarray, dict[str, np.ndarray]]:
    case = json.loads(path.read_text())
    spec = read_net(
        GOLDEN / case["prototxt"]
        if (GOLDEN / case["prototxt"]).exists()
        else path.parent / case["prototxt"]
    )
    weights, x = recipe.make(build(spec), case["seed"], tuple(case["input_shape"]))
    with np.load(path.with_suffix(".npz")) as file:
        return Net(spec, weights, engine=engine), x, {key: file[key] for key in file.files}


@pytest.mark.parametrize("path", cases("deploy", "*.json"))
@pytest.mark.parametrize("cores", [1, 2], indirect=True)
@pytest.mark.parametrize("engine", MODES)
def test_deploy(path: Path, engine: Mode, cores: int) -> None:
    net, x, recorded = _deploy_net(path, engine)
    with torch.no_grad():
        ours = net(torch.from_numpy(x), blobs=recorded)
    worst = max(absolute_error(ours[name].numpy(), blob) for name, blob in recorded.items())
    measured.note(
        "Caffe: official deploy nets, belief maps (absolute; standard deviation 2 to 4)", worst
    )
    assert worst <= tolerances.DEPLOY


@pytest.mark.gpu
@pytest.mark.parametrize("path", cases("deploy", "*.json"))
def test_deploy_on_the_device(path: Path) -> None:
    net, x, recorded = _deploy_net(path)
    net = net.to(TEST_DEVICE)
    with torch.no_grad():
        ours = net(torch.from_numpy(x).to(TEST_DEVICE), blobs=recorded)
    worst = max(absolute_error(ours[name].cpu().numpy(), blob) for name, blob in recorded.items())
    assert worst <= tolerances.DEPLOY


@pytest.mark.parametrize("path", cases("tiny", "*.npz"))
@pytest.mark.parametrize(
    "ending", [".caffemodel", ".caffemodel.h5", "_v1.caffemodel", "_double.caffemodel"]
)
@pytest.mark.parametrize("engine", MODES)
def test_tiny(path: Path, ending: str, engine: Mode) -> None:
    """The same weights in four containers; every blob, Caffe's split copies included."""
    with np.load(path) as file:
        recorded = {key: file[key] for key in file.files}
    net = Net(
        read_net(path.with_suffix(".prototxt")),
        read_weights(path.with_name(path.stem + ending)),
        engine=engine,
    )
    with torch.no_grad():
        ours = net.all_blobs(torch.from_numpy(recorded.pop("x")))
    errors = {
        key: relative_error(ours[key.removeprefix("blob:")].numpy(), blob)
        for key, blob in recorded.items()
    }
    assert errors
    measured.note(
        "Caffe: small pose machines, every blob (of the blob's largest value)", max(errors.values())
    )
    assert max(errors.values()) <= tolerances.TINY


@pytest.mark.parametrize("path", cases("tiny", "*/snap/*.caffemodel"))
def test_snapshot_of_a_training_net(path: Path) -> None:
    """The deploy net inside a snapshot gives what Caffe's separate deploy file gave with its
    weights."""
    folder = path.parent.parent
    with np.load(folder / "deploy_io.npz") as file:
        recorded = {key: file[key] for key in file.files}
    x = recorded.pop("x")
    made = convert(path)
    official = Net(read_net(folder / "pose_deploy.prototxt"), read_weights(path), strict=False)
    own = Net(made.graph, made.weights)
    assert [n.layer.name for n in own.graph.nodes] == [n.layer.name for n in official.graph.nodes]
    with torch.no_grad():
        for net in (official, own):
            ours = net.all_blobs(torch.from_numpy(x))
            for key, blob in recorded.items():
                assert (
                    relative_error(ours[key.removeprefix("blob:")].numpy(), blob) <= tolerances.TINY
                )


@needs_data
@pytest.mark.parametrize("path", cases("models", "*.json"))
@pytest.mark.parametrize("cores", [1, 2], indirect=True)
@pytest.mark.parametrize("engine", MODES)
def test_public_model(path: Path, engine: Mode, cores: int) -> None:
    case = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as file:
        recorded = {key: file[key] for key in file.files}
    root = DATA / "caffemodels"
    inputs = {key[3:]: torch.from_numpy(a) for key, a in recorded.items() if key.startswith("in:")}
    made = convert(
        root / case["model"],
        prototxt=root / case["prototxt"],
        input_shapes={name: tuple(t.shape) for name, t in inputs.items()},
    )
    params = {n.layer.name: [list(p.shape) for p in n.params] for n in made.graph.nodes if n.params}
    assert params == case["params"]
    assert sorted(made.graph.outputs) == sorted(case["outputs"])
    net = Net(made.graph, made.weights, engine=engine)
    for name in net.graph.inputs:
        # labels that nobody gave; MemoryData's have the recorded shape from the first pass on
        label = recorded.get(f"blob:{name}")
        shape = net.graph.blobs[name] if label is None else label.shape
        inputs.setdefault(name, torch.zeros(shape))
    with torch.no_grad():
        ours = net.all_blobs(**inputs)
    blobs = {key[5:]: blob for key, blob in recorded.items() if key.startswith("blob:")}
    errors = {name: relative_error(ours[name].numpy(), blob) for name, blob in blobs.items()}
    assert errors
    measured.note(
        "Caffe: public models, every blob (of the blob's largest value)", max(errors.values())
    )
    assert max(errors.values()) <= tolerances.MODEL
