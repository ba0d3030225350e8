"""Generated prototxts equal in meaning to the official ones and to what the original generator
wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from caffe_compat import read_net, read_solver
from caffe_compat.conversion.deploy import derive
from reproduce.network import netgen
from tests.paths import GOLDEN, cases, listed

_INDEX = GOLDEN / "proto" / "genProto" / "index.json"
_CASES: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []


def _config(case: dict[str, Any]) -> tuple[netgen.CPMConfig, netgen.DataConfig]:
    config = netgen.CPMConfig(stages=case["stage"], parts=case["nparts"])
    return config, netgen.DataConfig(source=case["lmdb"], np_in_lmdb=case.get("np_in_lmdb"))


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _CASES))
def test_generator(case: dict[str, Any]) -> None:
    folder = _INDEX.parent / case["name"]
    config, data = _config(case)
    assert (
        netgen.train_test(config, data).to_message()
        == read_net(folder / "pose_train_test.prototxt").to_message()
    )
    assert (
        netgen.deploy(config).to_message() == read_net(folder / "pose_deploy.prototxt").to_message()
    )
    made = netgen.solver(prefix=f"{case['directory']}/caffemodel/pose")
    assert made.message == read_solver(folder / "pose_solver.prototxt").message


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _CASES))
def test_deploy_is_inside_train_test(case: dict[str, Any]) -> None:
    """What conversion derives from a training net is the official deploy net, layer by layer."""
    folder = _INDEX.parent / case["name"]
    derived, dropped = derive(read_net(folder / "pose_train_test.prototxt"))
    official = read_net(folder / "pose_deploy.prototxt")
    assert [layer.message for layer in derived.layers] == [
        layer.message for layer in official.layers
    ]
    assert {d.type for d in dropped} == {"CPMData", "Slice", "EuclideanLoss", "Dropout"}


@pytest.mark.parametrize("path", cases("proto", "*/pose_deploy*.prototxt"))
def test_official_deploy_nets_are_generated(path: Path) -> None:
    official = read_net(path)
    stages = sum(layer.name.startswith("Mconv5_stage") for layer in official.layers) + 1
    maps = next(
        la for la in official.layers if la.name == "conv7_stage1"
    ).message.convolution_param.num_output
    made = netgen.deploy(netgen.CPMConfig(stages=stages, parts=maps - 1))
    assert [layer.message for layer in made.layers] == [layer.message for layer in official.layers]
