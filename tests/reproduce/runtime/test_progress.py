"""What long work says of itself where nobody watches."""

from __future__ import annotations

import io
import sys

import pytest

from reproduce.runtime.progress import Lines, progress


def test_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps of ten seconds: every third says how far the work is, and nothing else is said."""
    now = [0.0]
    with Lines(20, "images", clock=lambda: now[0]) as lines:
        for _ in range(7):
            now[0] += 10
            lines.update(2)
    assert capsys.readouterr().err.splitlines() == [
        "6 of 20 images, 0.2 a second, 0:01:10 left",
        "12 of 20 images, 0.2 a second, 0:00:40 left",
    ]
    with Lines(None, "frames", clock=lambda: now[0]) as lines:
        now[0] += 31
        lines.update(31)
    assert capsys.readouterr().err == "31 frames, 1 a second\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirected run gets lines, a terminal a bar, and a process that is not the first nothing."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(progress(3, "images"), Lines)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(3, "images") as bar:
        bar.update(3)
    assert "3/3" in terminal.getvalue()
    with progress(3, "images", shown=False) as bar:
        bar.update(3)
    assert terminal.getvalue().count("3/3") == 1
