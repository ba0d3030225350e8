"""Options of losses that later Caffe has, against numpy by the formula."""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe_compat import Net, PrototxtError, parse_net
from tests.paths import REPORTED, ROOT

_RANDOM = np.random.default_rng(5)
X = _RANDOM.standard_normal((2, 3, 4, 5)).astype(np.float32)
TARGET = _RANDOM.integers(0, 2, X.shape).astype(np.float32)
LABEL = _RANDOM.integers(0, 3, (2, 4, 5)).astype(np.float32)
MATRIX = (2 * np.eye(3) + 0.1 + _RANDOM.random((3, 3))).astype(np.float32)
LABEL[0, 0, :3] = 255
TARGET[0, 0, 0] = 255


def _run(layer: str, **inputs: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The tops of a layer, and the gradient of the loss by its first input."""
    shapes = "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {d}" for d in array.shape)} }} '
        for name, array in inputs.items()
    )
    net = Net(parse_net(shapes + layer), phase="TRAIN")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    first = next(iter(tensors.values())).requires_grad_()
    found = net(**tensors)
    found["loss"].backward()
    assert first.grad is not None
    return {name: t.detach().numpy() for name, t in found.items()}, first.grad.numpy()


SIGMOID = (
    'force_backward: true layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "x" '
    'bottom: "t" top: "loss" loss_param { %s } }'
)


@pytest.mark.parametrize(
    ("options", "divisor"),
    [
        ("", X.shape[0]),
        ("normalize: false", X.shape[0]),
        ("normalize: true", "valid"),
        ("normalization: VALID", "valid"),
        ("normalization: FULL", X.size),
        ("normalization: NONE", 1),
        ("normalization: BATCH_SIZE normalize: true", X.shape[0]),
    ],
)
@pytest.mark.parametrize("ignore", ["", "ignore_label: 255"])
def test_sigmoid_cross_entropy(options: str, divisor: int | str, ignore: str) -> None:
    target = TARGET if ignore else np.minimum(TARGET, 1)
    valid = target != 255
    sigmoid = 1 / (1 + np.exp(-X.astype(np.float64)))
    each = -(target * np.log(sigmoid) + (1 - target) * np.log(1 - sigmoid))
    by = valid.sum() if divisor == "valid" else divisor
    found, gradient = _run(SIGMOID % f"{options} {ignore}", x=X, t=target)
    np.testing.assert_allclose(found["loss"], each[valid].sum() / by, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.where(valid, sigmoid - target, 0) / by, atol=1e-6)


INFOGAIN = (
    'force_backward: true layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "label" '
    'bottom: "h" top: "loss" top: "p" loss_weight: 1 loss_weight: 0 %s }'
)


@pytest.mark.parametrize(
    ("options", "ignores", "divisor"),
    [
        ("loss_param { ignore_label: 255 }", True, "valid"),
        ("infogain_loss_param { axis: 1 } loss_param { ignore_label: 255 }", True, "valid"),
        ("infogain_loss_param { axis: -3 } loss_param { normalization: FULL }", False, 40),
        ("infogain_loss_param { axis: 1 } loss_param { normalize: false }", False, 2),
    ],
)
def test_infogain_of_scores(options: str, ignores: bool, divisor: int | str) -> None:
    label = LABEL if ignores else np.where(LABEL == 255, 0, LABEL)
    valid = label != 255
    p = np.exp(X.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    gains = MATRIX[np.where(valid, label, 0).astype(int)].transpose(0, 3, 1, 2)
    by = valid.sum() if divisor == "valid" else divisor
    found, gradient = _run(INFOGAIN % options, x=X, label=label, h=MATRIX[None, None])
    loss = -((gains * np.log(p)).sum(1) * valid).sum() / by
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["p"], p, rtol=1e-5)
    slope = (p * gains.sum(1, keepdims=True) - gains) * valid[:, None] / by
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_infogain_axis_out_of_range() -> None:
    with pytest.raises(PrototxtError, match="axis 7 is out of range"):
        _run(INFOGAIN % "infogain_loss_param { axis: 7 }", x=X, label=LABEL, h=MATRIX[None, None])


@pytest.mark.parametrize("weights", ["", "loss_weight: 1", "loss_weight: 1 loss_weight: 0"])
def test_a_second_top_of_the_softmax_loss_is_refused(weights: str) -> None:
    """Whatever loss_weight says, and with the way to the probabilities."""
    text = (
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" '
        f'top: "p" {weights} }}'
    )
    with pytest.raises(PrototxtError, match="second top is refused, as by Caffe; put a Softmax"):
        _run(text, x=X, label=np.zeros_like(LABEL))


def test_softmax_loss_of_an_impossible_class() -> None:
    """Caffe takes the logarithm of the smallest normal float32; the gradient reaches the score."""
    text = (
        'force_backward: true layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" '
        'bottom: "label" top: "loss" }'
    )
    x = np.array([[-np.inf, 1, 2], [-1e9, 1, 2]], np.float32)
    found, gradient = _run(text, x=x, label=np.array([0, 0], np.float32))
    assert found["loss"] == pytest.approx(-math.log(np.finfo(np.float32).tiny))
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, (p - [1, 0, 0]) / 2, atol=1e-6)


def test_infogain_loss_of_an_impossible_class() -> None:
    """A class that the matrix gives no weight costs nothing, however impossible it is."""
    x = np.array([[1, -np.inf, 2]], np.float32)
    text = INFOGAIN % "infogain_loss_param { axis: 1 }"
    matrix = np.eye(3, dtype=np.float32)[None, None]
    found, gradient = _run(text, x=x, label=np.array([0], np.float32), h=matrix)
    assert found["loss"] == pytest.approx(math.log(1 + math.e))
    np.testing.assert_allclose(gradient, found["p"] - [[1, 0, 0]], atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
def test_derivatives_of_the_softmax_loss_by_torch_func() -> None:
    """Its gradient, a derivative along a direction, one image at a time, and a second derivative."""
    text = """
    input: "x" input_shape { dim: 1 dim: 3 } input: "label" input_shape { dim: 1 }
    layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" }
    """
    net = Net(parse_net(text), phase="TRAIN")

    def loss(x: torch.Tensor) -> torch.Tensor:
        top: torch.Tensor = net(x=x[None], label=torch.zeros(1))["loss"]
        return top

    x = torch.tensor([0.5, 1.0, 2.0])
    p = torch.softmax(x, 0)
    slope = p - torch.tensor([1.0, 0.0, 0.0])
    direction = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(torch.func.grad(loss)(x), slope)
    torch.testing.assert_close(torch.func.jvp(loss, (x,), (direction,))[1], slope @ direction)
    torch.testing.assert_close(torch.func.vmap(loss)(x[None]), -p[:1].log())
    torch.testing.assert_close(torch.func.hessian(loss)(x), torch.diag(p) - torch.outer(p, p))


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_of_nan(norm: str) -> None:
    """Caffe's margin is the larger of 0 and nan, in that order: 0."""
    text = (
        'layer { name: "l" type: "HingeLoss" bottom: "x" bottom: "label" top: "loss" '
        f"hinge_loss_param {{ norm: {norm} }} }}"
    )
    x = np.array([[np.nan, 1, 2], [0, np.nan, -3]], np.float32)
    found, gradient = _run(text, x=x, label=np.array([1, 1], np.float32))
    margins = np.array([[0, 0, 3], [1, 0, 0]])
    assert found["loss"] == (margins if norm == "L1" else margins**2).sum() / 2
    slope = np.sign(margins) if norm == "L1" else 2 * margins
    np.testing.assert_array_equal(gradient, slope / 2)


def _reported(name: str) -> Path:
    path = REPORTED / "bugs" / "losses" / name
    if not path.exists():
        pytest.skip(f"no reported inputs at {REPORTED} (set CPM_REPORTED)")
    return path


def _script(path: Path, folder: Path) -> str:
    """What a reported script prints, run in a copy of its folder."""
    place = shutil.copytree(path.parent, folder / "scripts")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, path.name]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "values"), [("t.py", 17), ("more.py", 19)], ids=["losses", "layers"]
)
def test_reported_values(name: str, values: int, tmp_path: Path) -> None:
    """The scripts print ours beside numpy's; a single 0 there says that they have none."""
    said = _script(_reported(name), tmp_path)
    pairs = re.findall(r"got \[(.*)\] want \[(.*)\]", said)
    known = [pair for pair in pairs if pair[1] != "0"]
    assert len(known) == values
    for ours, theirs in known:
        np.testing.assert_allclose(_numbers(ours), _numbers(theirs), rtol=1e-5, atol=1e-6)
    refused = [line for line in said.splitlines() if line.startswith("EXC")]
    assert all("STOCHASTIC pooling is not supported" in line for line in refused)


@pytest.mark.long
def test_reported_infogain(tmp_path: Path) -> None:
    """Scores in, softmax inside, as BVLC's Caffe has it."""
    said = _script(_reported("infogain.py"), tmp_path)
    wanted = re.search(r"should be (\S+)", said)
    ours = re.search(r"scores in: (\S+)", said)
    assert wanted and ours
    assert float(ours[1]) == pytest.approx(float(wanted[1]), rel=1e-5)


@pytest.mark.long
def test_reported_propagate_down(tmp_path: Path) -> None:
    """``false`` leaves what is below without a gradient, and nothing else."""
    lines = _script(_reported("prop.py"), tmp_path).splitlines()
    for line in lines:
        option, _, gradients = line.partition(" {")
        found = ast.literal_eval("{" + gradients)
        without = {name for name, size in found.items() if size is None}
        assert without == ({"a.weight", "a.bias"} if "false" in option else set())
    assert len(lines) == 3
