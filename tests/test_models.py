"""Every network in models/: its files fit each other and its README."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from caffe_compat import read_net, read_solver
from caffe_compat.conversion.convert import convert
from reproduce.network import identify

_FOLDERS = sorted(p.parent for p in identify.models_folder().glob("*/pose_deploy.prototxt"))


def test_there_is_a_folder() -> None:
    assert identify.models_folder().is_dir()
    assert (identify.models_folder() / "released.toml").exists()


@pytest.mark.parametrize("folder", _FOLDERS, ids=lambda p: p.name)
def test_model_folder(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    weights = folder / "pose.caffemodel"
    assert weights.stat().st_size <= 12e6
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in readme
    read_solver(folder / "pose_solver.prototxt")
    made = convert(weights)
    official = read_net(folder / "pose_deploy.prototxt")
    assert [la.message for la in made.net.layers] == [la.message for la in official.layers]
    assert read_net(folder / "pose_train_test.prototxt").layers
    assert identify.identify(made.graph).stages >= 1
    for name in ("score.json", "score_one_scale.json"):
        score = json.loads((folder / name).read_text())
        assert f"{score['total']:.2f}" in readme
        assert score["people"] == 1000
