"""Processes side by side: nothing that one of them says is lost or said twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe_compat.errors import CaffeCompatError
from reproduce.runtime.side_by_side import run_side_by_side


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    (folder / "said_by_one.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    return "said_by_one"


def test_an_error_that_is_raised_is_not_printed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    module = _module(tmp_path, monkeypatch, "print('begin')\nprint('error: no data')\nexit(2)\n")
    with pytest.raises(CaffeCompatError, match=r"^no data$"):
        run_side_by_side(module, [], 2)
    said = capfd.readouterr().out
    assert said.count("begin") == 2
    assert "no data" not in said


def test_a_process_that_is_killed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it said last is no reason."""
    text = "import os\nprint('iteration 50', flush=True)\nos.kill(os.getpid(), 9)\n"
    with pytest.raises(CaffeCompatError, match=r"^process \[1\] was ended by SIGKILL"):
        run_side_by_side(_module(tmp_path, monkeypatch, text), [], 1)
    assert capfd.readouterr().out == "[1] iteration 50\n"


def test_a_line_of_error_that_is_not_the_end_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "print('error: left out')\nprint('going on')\nprint('error: at the end')\n"
    assert run_side_by_side(_module(tmp_path, monkeypatch, text), [], 1)
    assert capfd.readouterr().out.splitlines() == [
        "[1] error: left out",
        "[1] going on",
        "[1] error: at the end",
    ]
