"""The same work by several processes on one machine, each with its share of the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from caffe_compat.errors import CaffeCompatError
from reproduce.runtime.processes import usable_cores

_ERROR = "error: "  # how a command's line of error begins
# Runs a module as "python -m" does, in a process that ends with the one that started it.
_START = """
import runpy, sys
from reproduce.runtime.processes import end_with_parent
del sys.argv[0]
end_with_parent(int(sys.argv.pop(0)), gently=True)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass
class _Voice:
    """What one process says, passed on line by line. A line of error waits for the next one, since
    the last one may be raised instead."""

    label: str
    last: str = ""
    held: str = ""

    def pass_on(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.last = line.rstrip() or self.last
                self.tell()
                self.held = line
                if not line.startswith(_ERROR):
                    self.tell()

    def tell(self) -> None:
        """Say the line that waits."""
        if self.held:
            print(f"{self.label} {self.held}", end="", flush=True)
        self.held = ""


def run_side_by_side(module: str, arguments: Sequence[str], count: int) -> bool:
    """Start ``python -m MODULE ARGUMENTS`` several times and pass on what the processes say.

    Each gets an equal share of the cores as its threads. SIGINT and SIGTERM go to all of them, so
    that each can write its snapshot; they do so, too, when this process is killed.

    Parameters
    ----------
    module : with a ``__main__`` part.
    count : how many processes.

    Returns
    -------
    True when all ended by themselves, False when they were interrupted.

    Raises
    ------
    CaffeCompatError : one of them failed; the message is the last line that it said, or the signal
        that ended it.
    """
    threads = str(max(1, usable_cores() // count))
    command = [sys.executable, "-c", _START, str(os.getpid()), module, *arguments]
    children = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"},
        )
        for _ in range(count)
    ]
    voices = [_Voice(f"[{number + 1}]") for number in range(count)]

    def interrupt(signal_number: int, frame: object) -> None:
        interrupted.set()
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    interrupted = threading.Event()
    readers = [
        threading.Thread(target=voice.pass_on, args=(child.stdout,))
        for voice, child in zip(voices, children, strict=True)
    ]
    before = _catch(interrupt)
    try:
        for reader in readers:
            reader.start()
        for child in children:
            child.wait()
        for reader in readers:
            reader.join()
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
        for number, handler in before.items():
            signal.signal(number, handler)
    ended = list(zip(voices, children, strict=True))
    failed = [_reason(voice, child.returncode) for voice, child in ended if child.returncode]
    raised = failed[0] if failed and not interrupted.is_set() else None
    for voice, child in ended:
        if not child.returncode or voice.last != raised:
            voice.tell()
    if raised is not None:
        raise CaffeCompatError(
            raised.removeprefix(_ERROR) or f"{' '.join([module, *arguments])} failed"
        )
    return not interrupted.is_set()


def _reason(voice: _Voice, code: int) -> str:
    """Why a process failed."""
    if code > 0:
        return voice.last
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return (
        f"process {voice.label} was ended by {name}, perhaps for lack of memory; the same command "
        "goes on where it was"
    )


def _catch(handler: Callable[[int, object], None]) -> dict[int, Any]:
    """Handle SIGINT and SIGTERM, where this is the main thread; the handlers that were there."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
