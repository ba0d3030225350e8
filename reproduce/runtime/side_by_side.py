"""The same work by several processes on one machine, each with its share of the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from caffe_compat.errors import CaffeCompatError

_ERROR = "error: "  # how a command's line of error begins
# Runs a module as "python -m" does, in a process that ends with the one that started it.
_START = """
import runpy, sys
from reproduce.runtime.processes import end_with_parent
del sys.argv[0]
end_with_parent(int(sys.argv.pop(0)), gently=True)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


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
    CaffeCompatError : one of them failed; the message is the last line that it said. Other last
        lines of others that failed are printed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // count))
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
    last = [""] * count

    def pass_on(number: int) -> None:
        stream = children[number].stdout
        assert stream is not None
        with stream:
            for line in stream:
                last[number] = line.rstrip() or last[number]
                if not line.startswith(_ERROR):  # that is said once, at the end
                    print(f"[{number + 1}] {line}", end="", flush=True)

    def interrupt(signal_number: int, frame: object) -> None:
        interrupted.set()
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    interrupted = threading.Event()
    readers = [threading.Thread(target=pass_on, args=(i,)) for i in range(count)]
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
    ended = zip(children, last, strict=True)
    failed = list(dict.fromkeys(text for child, text in ended if child.returncode))
    shown = failed if interrupted.is_set() else failed[1:]
    for text in shown:
        print(text, file=sys.stderr, flush=True)
    if failed and not interrupted.is_set():
        raise CaffeCompatError(
            failed[0].removeprefix(_ERROR) or f"{' '.join([module, *arguments])} failed"
        )
    return not interrupted.is_set()


def _catch(handler: Callable[[int, object], None]) -> dict[int, Any]:
    """Handle SIGINT and SIGTERM, where this is the main thread; the handlers that were there."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
