"""Runs readers over damaged files in forked processes with limits, and keeps what fails.

A failure is: the process died; an exception that is not ours; more than 2 GB; more than 10 s.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caffe_compat.errors import CaffeCompatError
from tests.fuzz.mutate import mutate
from tests.fuzz.readers import READERS, imported
from tests.fuzz.seeds import make_seeds

MEMORY, SECONDS = 2 << 30, 10
_BATCH = 250  # inputs of one forked process


@dataclass
class Outcome:
    """What became of a reader's inputs.

    Attributes
    ----------
    counts : "read", "refused", "failed". failures : what failed, and the file.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)


def try_reader(name: str, path: Path) -> str:
    """Read a file: "read", "refused", or what went wrong."""
    try:
        READERS[name].call(path)
    except CaffeCompatError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, MemoryError):
            return f"memory: {error}"
        return "refused" if len(str(error)) < 5000 else "a message of a whole page"
    except MemoryError:
        return "memory"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if "/caffe_compat/" in f.filename or "/reproduce/" in f.filename]
        where = ours[-1] if ours else last[-1]
        return f"{type(error).__name__} @ {Path(where.filename).name}:{where.lineno}: {error}"[:300]
    return "read"


def _limited(work: Callable[[], Iterator[str]], answers: int) -> None:
    """Child: do the work with limits, one line of answer for each input."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    for line in work():
        os.write(answers, (line.replace("\n", " ") + "\n").encode("utf-8", "backslashreplace"))
    os._exit(0)


def forked(work: Callable[[], Iterator[str]], seconds: float = SECONDS) -> tuple[list[str], str]:
    """Run work in a child.

    Returns
    -------
    The answers that came, and how the child ended: "" where it finished, else what stopped it.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            _limited(work, write)
        finally:
            os._exit(70)
    os.close(write)
    data = b""
    ended = ""
    deadline = time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            ended = f"took more than {seconds:g} s"
            break
        part = os.read(read, 1 << 16)
        if not part:
            break
        data += part
        deadline = time.monotonic() + seconds
    os.close(read)
    _, status = os.waitpid(child, 0)
    if not ended and status:
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        ended = f"died of {signal.Signals(killed).name}" if killed else f"ended with {status >> 8}"
    return data.decode("utf-8", "replace").splitlines(), ended


def _input(name: str, seeds: list[Path], seed: int, number: int) -> tuple[str, bytes]:
    dice = random.Random(f"{seed}/{name}/{number}")
    path = dice.choice(seeds)
    return path.name, mutate(path.name, path.read_bytes(), dice)


def fuzz(
    name: str, seeds: list[Path], count: int, *, seed: int = 0, keep: Path | None = None
) -> Outcome:
    """Run a reader over ``count`` damaged files.

    Parameters
    ----------
    seeds : sound files. seed : of the dice. keep : folder for the inputs that fail.
    """
    outcome = Outcome()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    number = 0
    while number < count:
        first = number

        def work(first: int = first) -> Iterator[str]:
            for i in range(first, min(first + _BATCH, count)):
                file, data = _input(name, seeds, seed, i)
                path = folder / file
                path.write_bytes(data)
                yield try_reader(name, path)

        answers, ended = forked(work)
        if ended:
            answers.append(ended)
        for i, answer in enumerate(answers, first):
            known = answer in ("read", "refused")
            outcome.counts[answer if known else "failed"] += 1
            if not known:
                file, data = _input(name, seeds, seed, i)
                outcome.failures.append((answer, f"{name}-{seed}-{i}-{file}"))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / outcome.failures[-1][1]).write_bytes(data)
        number = first + max(1, len(answers))
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


@contextlib.contextmanager
def seeds() -> Iterator[dict[str, list[Path]]]:
    """Sound files for all readers, in a temporary folder."""
    imported()
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as folder:
        yield make_seeds(Path(folder))
