"""Generated prototxts equal in meaning to the official ones and to what the original generator
wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from caffe_compat import read_net, read_solver
from caffe_compat.conversion.deploy import derive
from caffe_compat.network.graph import build
from reproduce.cli import export
from reproduce.network import netgen
from reproduce.network.identify import identify
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


@pytest.mark.parametrize(
    "path",
    [*cases("proto", "*/pose_deploy*.prototxt"), *cases("release2", "*/pose_deploy*.prototxt")],
)
def test_official_deploy_nets_are_generated(path: Path) -> None:
    """From what identification says of the file, and from the command."""
    official = read_net(path)
    found = identify(build(official))
    assert found.candidates
    height, width = build(official).blobs[found.image][2:]
    made = netgen.deploy(
        found.candidates[0].config(height, input_width=width if width != height else 0)
    )
    assert made.to_message() == official.to_message()


@pytest.mark.parametrize("path", cases("release2", "*/pose_deploy*.prototxt"))
def test_command_writes_the_official_deploy_net(path: Path, tmp_path: Path) -> None:
    found = identify(build(read_net(path)))
    options = ["--front", "vgg", *(["--person"] if found.person else [])]
    result = CliRunner().invoke(export.main, ["proto", "-o", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    made = read_net(tmp_path / "pose_deploy.prototxt")
    assert made.to_message() == read_net(path).to_message()
