"""Leaving a group of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

_PROGRAM = """
import os
import torch
from reproduce.runtime import processes

def train():
    with processes.group("cpu") as group:
        layer = group.wrap(torch.nn.Linear(2, 2))
        layer(torch.ones(1, 2)).sum().backward()

train()
tasks = sorted(os.listdir("/proc/self/task"))
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in tasks]
print("left:", *(name for name in names if "gloo" in name))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_outlives_the_group(tmp_path: Path) -> None:
    """A thread of gloo that still runs while Python ends may abort the process."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    # the lines of two processes may come into each other
    assert "".join(done.stdout.split()) == "left:left:", done.stdout
