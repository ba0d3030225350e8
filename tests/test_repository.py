"""The repository as a newcomer finds it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.tools.loaded import tool


def _tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if out.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in out.stdout.splitlines()]


@pytest.mark.parametrize("page", ["layers", "experiments"])
def test_made_pages_are_current(page: str) -> None:
    made = getattr(tool("make_docs"), f"{page}_page")()
    assert (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") == made, "run 'make docs'"


def test_made_tables_are_current() -> None:
    make_docs = tool("make_docs")
    for path in make_docs.MEASURED:
        text = path.read_text(encoding="utf-8")
        assert make_docs.with_table(path) == text, f"{path.name}: run 'make docs'"


@pytest.mark.long
@pytest.mark.parametrize(("required", "ends"), [("", 0), ("1", 1)])
def test_ci_does_not_pass_by_skipping(required: str, ends: int, tmp_path: Path) -> None:
    """Without recorded outputs a golden test skips; where they have to be there it fails."""
    empty = {"CPM_GOLDEN": str(tmp_path), "CPM_REQUIRE_GOLDEN": required}
    test = "tests/caffe_compat/training/test_golden_lenet.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **empty},
    )
    assert done.returncode == ends, done.stdout
    assert ("CPM_REQUIRE_GOLDEN is set" in done.stdout) == bool(required)


def test_no_data_files_are_copied_in() -> None:
    for path in _tracked():
        assert path.suffix not in (".npz", ".mat", ".mdb", ".solverstate"), path
        if path.suffix == ".jpg":  # a photograph has its licence beside it
            assert path.with_suffix(".LICENSE").exists(), path


def test_readme_gives_the_two_commands_and_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in readme
    assert "make test" in readme
    assert "BSD-3-Clause" in readme
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for command in re.findall(r"^    (cpm-\w+) =", setup, re.M):
        assert f"`{command}" in readme, command
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_python_is_documented() -> None:
    """Every public function and class of both packages has a docstring."""
    import ast

    missing = []
    for path in _tracked("caffe_compat/*.py", "reproduce/*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                missing.append(f"{path.name}:{node.name}")
        if not ast.get_docstring(tree):
            missing.append(path.name)
    assert not missing
