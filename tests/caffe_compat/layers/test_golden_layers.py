"""Every recorded layer: forward, backward and parameter gradients equal to the real Caffe's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from caffe_compat import Net, read_net
from caffe_compat.engine.minimal import fits
from caffe_compat.engine.plan import Engine, Mode
from caffe_compat.engine.rates import Rates
from caffe_compat.layers import registry
from tests import measured, tolerances
from tests.paths import GOLDEN, TEST_DEVICE, listed
from tests.replay import backward, forward, relative_error, set_params

_INDEX = GOLDEN / "layers" / "index.json"
_CASES: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []


_LARGE_KERNELS = [c for c in _CASES if {"Convolution", "Deconvolution"} & set(c["layer_types"])]


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _LARGE_KERNELS))
@pytest.mark.parametrize("engine", ["direct", "tiled", "lines", "minimal", "minimal, grouped"])
def test_layer_with_every_convolution_in_one_way(case: dict[str, Any], engine: str) -> None:
    grouped = Engine("minimal", rates=Rates(groups=1e15))
    forced = grouped if engine == "minimal, grouped" else cast(Mode, engine)
    test_layer(case, engine=forced)
    _check_values(case, forced)


def _check_values(case: dict[str, Any], engine: Mode | Engine) -> None:
    """The blobs without gradients, as in prediction: the engine has other ways there."""
    arrays, net = _opened(case, engine)
    with torch.no_grad():
        run = forward(net, arrays)
    blobs = {key[5:]: array for key, array in arrays.items() if key.startswith("blob:")}
    ours = {name: run.blobs[name].detach().numpy() for name in blobs}
    errors = {name: relative_error(ours[name], blob) for name, blob in blobs.items()}
    assert max(errors.values(), default=0) <= tolerances.LAYER, errors
    mode = net.engine.mode
    for (_, conv), choice in net.engine._choices.items():
        possible = not conv.unfit() and (mode != "minimal" or fits(conv.weight[2:]))
        assert choice.kind == (mode if possible else "direct")


def _opened(case: dict[str, Any], engine: Mode | Engine) -> tuple[dict[str, np.ndarray], Net]:
    """What was recorded of a case, and its net with the recorded parameters."""
    with np.load(GOLDEN / "layers" / f"{case['name']}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    spec = read_net(GOLDEN / "layers" / f"{case['name']}.prototxt")
    net = Net(spec, phase=case["phase"], stages=case["stages"], level=case["level"], engine=engine)
    set_params(net, arrays)
    return arrays, net


@pytest.mark.gpu
@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _CASES))
def test_layer_on_the_device(case: dict[str, Any]) -> None:
    test_layer(case, device=TEST_DEVICE)


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _CASES))
def test_layer(case: dict[str, Any], engine: Mode | Engine = "auto", device: str = "cpu") -> None:
    arrays, net = _opened(case, engine)
    run = forward(net.to(device), arrays, device)
    if case["backward"]:
        backward(run, arrays)
    outputs = {key[8:] for key in arrays if key.startswith("topdiff:")}
    in_place = {name for node in net.graph.nodes for name in node.tops if name in node.bottoms}
    errors = {}
    for key, recorded in arrays.items():
        kind, _, name = key.partition(":")
        layer, _, index = name.rpartition("/")
        if kind == "blob":
            errors[key] = relative_error(run.blobs[name].detach().cpu().numpy(), recorded)
        elif kind == "paramafter":
            errors[key] = relative_error(
                run.param(layer, int(index)).detach().cpu().numpy(), recorded
            )
        elif (
            kind == "diff"
            and name not in outputs - in_place
            and name not in run.touched_by_clearing
        ):
            errors[key] = relative_error(run.diff(name), recorded)
        elif kind == "diff" and name in run.touched_by_clearing:
            assert not recorded.any(), "the recorder cleared the margins, the gradient must be 0"
        elif kind == "pdiff":
            errors[key] = relative_error(run.param_diff(layer, int(index)), recorded)
    if "total_loss" in case and net.losses:
        errors["total_loss"] = relative_error(
            np.array(net.loss(run.blobs).item()), np.array(case["total_loss"])
        )
    if errors:
        measured.note(
            "Caffe: small nets, every blob and gradient (of the blob's largest value)",
            max(errors.values()),
        )
    wrong = {key: value for key, value in errors.items() if not value <= tolerances.LAYER}
    assert errors
    assert not wrong


def test_recorded_types_are_registered() -> None:
    """Not one recorded type is missing from the registry."""
    if not _CASES:
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    types = {name for case in _CASES for name in case["layer_types"]}
    assert types <= set(registry())


@pytest.mark.parametrize(
    "path", listed((p, p.stem) for p in sorted((GOLDEN / "layers").glob("*.prototxt")))
)
def test_text_round_trip(path: Path) -> None:
    from caffe_compat import parse_net

    spec = read_net(path)
    assert parse_net(spec.to_text()).to_message() == spec.to_message()
