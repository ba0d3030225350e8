"""``cpm-reproduce check --model``: a copy of a released model against published predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from reproduce.benchmarks.proof import candidates
from reproduce.benchmarks.published import published
from reproduce.cli import reproduce
from reproduce.network.identify import Identity, models_folder, released
from reproduce.predict import joint_files
from tests.paths import DATA, needs_data

_MODEL = models_folder() / "leeds-small" / "pose.caffemodel"
_PEOPLE = [n for entry in published()["photographs"] for n in entry["people"]]


def _run(*args: object) -> Result:
    return CliRunner().invoke(reproduce.main, ["check", *map(str, args)])


@pytest.mark.long
@needs_data
def test_another_network_fails_with_a_table() -> None:
    result = _run("--model", _MODEL, "--data", DATA)
    assert result.exit_code == 1
    for number in set(_PEOPLE):
        assert sum(f"im{number}.jpg" in line for line in result.stdout.splitlines()) == 2
    assert result.stdout.count("differs") == len(_PEOPLE)
    assert "those of no released model" in result.stdout
    found = json.loads(_run("--model", _MODEL, "--data", DATA, "--json").stdout)
    assert found["equal_to"] == []
    assert len(found["photographs"]) == len(_PEOPLE)


@pytest.mark.long
@needs_data
@pytest.mark.parametrize("moved", [0.0, 1.0, 2.0])
def test_what_was_published_is_met(moved: float, tmp_path: Path) -> None:
    """With the embedded network's own stored predictions in the published file's place it is met,
    a pixel aside too, and two pixels aside not."""
    (tmp_path / "lsp").symlink_to(DATA / "lsp")
    (tmp_path / "release").mkdir()
    own = joint_files.read(models_folder() / "leeds-small" / "lsp_predictions.json")
    own[1658 - 1001, 3, 0] += moved
    entries = published()["photographs"]
    joint_files.write_mat(tmp_path / entries[0]["file"], own)
    joint_files.write_mat(tmp_path / entries[1]["file"], np.zeros_like(own))
    result = _run("--model", _MODEL, "--data", tmp_path)
    assert result.exit_code == (0 if moved < 1.5 else 1), result.output
    assert ("those of released model 1" in result.stdout) == (moved < 1.5)


def test_which_predictions_belong_to_a_model() -> None:
    """The file's name chooses; a model without published predictions is compared with all."""
    by_name = {m.name: m for m in released()}
    for name in ("mpii-lsp", "lsp"):
        found = candidates(Identity(6, 14, (by_name[name],), by_name[name]))
        assert [entry.model for entry in found] == [name]
    for name in ("mpii", "mpii-vgg"):
        assert len(candidates(Identity(6, 14, (by_name[name],), by_name[name]))) == 2


def test_missing_files_are_named(tmp_path: Path) -> None:
    result = _run("--model", _MODEL, "--data", tmp_path)
    assert result.exit_code == 2
    assert "lsp" in result.stderr
