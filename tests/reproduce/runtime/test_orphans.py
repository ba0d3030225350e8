"""Processes that work for another one end with it, however that ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kill.run import WORKS, prepare
from tests.paths import ROOT

_PREFETCH = """
import itertools, time
from reproduce.runtime.prefetch import prefetch
if __name__ == "__main__":
    for _ in prefetch(time.sleep, itertools.repeat(0.01), 2):
        print("work", flush=True)
"""
_SIDE_BY_SIDE = """
import sys
from reproduce.runtime.side_by_side import run_side_by_side
run_side_by_side("pydoc_stand_in", [], 2)
"""
_STAND_IN = """
import time
if __name__ == "__main__":
    while True:
        time.sleep(0.1)
"""
_TRAIN = """
import sys
from reproduce.cli.train import main
if __name__ == "__main__":
    main(sys.argv[1:])
"""


def _below(process: int) -> set[int]:
    """The processes that a process has started, and theirs."""
    found: set[int] = set()
    waiting = [process]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/task/{one}/children").read_text()
            waiting += map(int, text.split())
        found.add(one)
    return found - {process}


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _command(kind: str, folder: Path) -> list[str]:
    """A program that has processes work for it for a long time, and says so when they do."""
    text = {"prefetch": _PREFETCH, "side by side": _SIDE_BY_SIDE, "train": _TRAIN}[kind]
    (folder / "program.py").write_text(text)
    (folder / "pydoc_stand_in.py").write_text(_STAND_IN)
    words: list[str] = []
    if kind == "train":
        source = folder / "source"
        source.mkdir()
        prepare(source)
        words = [*WORKS["train with 2 workers"].start(source, folder, False), "--max-iter", "99999"]
    return [sys.executable, str(folder / "program.py"), *words]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", ["prefetch", "side by side", "train"])
def test_workers_end_with_a_parent_that_was_killed(kind: str, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        _command(kind, tmp_path),
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )
    assert parent.stdout is not None
    try:
        if kind == "side by side":
            while len(_below(parent.pid)) < 2:
                assert parent.poll() is None
                time.sleep(0.05)
            time.sleep(1)  # they have begun to watch
        else:
            assert parent.stdout.readline()
        workers = _below(parent.pid)
        assert len(workers) >= 2
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    try:
        for _ in range(300):
            if not any(map(_alive, workers)):
                break
            time.sleep(0.1)
        assert not [worker for worker in workers if _alive(worker)]
    finally:
        for worker in filter(_alive, workers):
            os.kill(worker, signal.SIGKILL)
        parent.stdout.close()
