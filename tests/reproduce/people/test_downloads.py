"""The tree of downloads that README shows: every command finds its files below ``--data``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from reproduce.cli import export
from reproduce.people.annotation import read_json
from tests.paths import DATA, GOLDEN, ROOT, needs_data

_SETS = GOLDEN / "matlab" / "datasets"


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """FLIC and MPII as README's tree has them, with the images that are here."""
    if not _SETS.is_dir():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    mpii = tmp_path / "mpii"
    annotations = mpii / "mpii_human_pose_v1_u12_2" / "mpii_human_pose_v1_u12_1.mat"
    for source, target in (
        (_SETS / "flic_examples.mat", tmp_path / "flic" / "examples.mat"),
        (_SETS / "mpii_release.mat", annotations),
        (DATA / "release" / "Tompson_valid" / "detections.mat", mpii / "detections.mat"),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for name in ("flic", "mpii"):
        shutil.copytree(DATA / name / "images", tmp_path / name / "images")
    return tmp_path


def _run(*args: object) -> None:
    result = CliRunner().invoke(export.main, [str(a) for a in args])
    assert result.exit_code == 0, result.output


@needs_data
@pytest.mark.golden
@pytest.mark.parametrize("name", ["flic", "mpi"])
def test_annotations_and_records_from_one_tree(name: str, downloads: Path, tmp_path: Path) -> None:
    _run("json", name, "--data", downloads, "-o", tmp_path / "a.json")
    assert read_json(tmp_path / "a.json")
    _run("lmdb", tmp_path / "a.json", "--data", downloads, "-o", tmp_path / "a", "--jpeg")


@needs_data
@pytest.mark.golden
def test_a_missing_image_names_the_way_out(downloads: Path, tmp_path: Path) -> None:
    people = tmp_path / "a.json"
    _run("json", "flic", "--data", downloads, "-o", people)
    gone = downloads / "flic" / read_json(people)[0].image
    gone.unlink()
    for command, option in (
        (["json", "flic", "-o", tmp_path / "b.json"], "--skip-missing"),
        (["lmdb", people, "-o", tmp_path / "b"], "--skip-bad"),
    ):
        full = [*map(str, command), "--data", str(downloads)]
        result = CliRunner().invoke(export.main, full)
        assert result.exit_code == 2
        assert gone.name in result.stderr
        assert option in result.stderr
        _run(*full, option)


def test_readme_shows_the_folders_that_are_looked_for() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("DOWNLOADS/\n")[2].partition("```")[0]
    for name in ("lsp/", "lspet/", "flic/", "mpii/", "examples.mat", "detections.mat", "valid.h5"):
        assert name in tree
