"""Where a number comes from: what is written beside everything that was trained or measured."""

from __future__ import annotations

import datetime
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from caffe_compat import __version__
from reproduce.runtime.processes import usable_cores


@cache
def commit() -> str:
    """The commit of this source tree, ``+`` behind it where files differ from it; "" outside a
    checkout of this project."""
    root = Path(__file__).resolve().parents[2]

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=20, check=True
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    top = git("rev-parse", "--show-toplevel")
    # another one is not ours: a virtual environment may lie inside somebody's repository
    if not top or Path(top).resolve() != root:
        return ""
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


@cache
def processor() -> str:
    """The processor's name and how many cores this process may use."""
    name = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
        )
    except OSError:
        pass
    count = usable_cores()
    return (
        f"{name or platform.processor() or platform.machine()}, {count} "
        f"core{'s' if count > 1 else ''}"
    )


def provenance(command: str, data: str, **more: Any) -> dict[str, Any]:
    """What made some numbers: command, data, version, commit, machine, date."""
    machine = f"{platform.system()} {platform.machine()}, {processor()}"
    return {
        "command": command,
        "data": data,
        "version": __version__,
        "commit": commit(),
        "machine": machine,
        "date": datetime.date.today().isoformat(),
        **more,
    }
