"""Kills commands at random moments, lets them go on, and compares with what nobody killed.

Each command runs in a forked process, which has everything imported: a kill costs the work itself
and not the start of an interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from caffe_compat import Net, write_weights
from caffe_compat.definition.textformat import dump
from caffe_compat.training.datum import LMDBReader
from caffe_compat.training.snapshots import read_state
from reproduce.cli import convert, export, predict, reproduce, train
from reproduce.experiments.results import read_result
from reproduce.network import netgen
from reproduce.people import annotation
from reproduce.records import store
from tests.nets import TINY_MACHINE
from tests.people import dataset, leeds

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
_LONGEST = 120  # seconds of a command


@dataclass(frozen=True)
class Work:
    """A command that is killed.

    Attributes
    ----------
    start : (input folder, output folder, again) gives the arguments of its first run, or of one
        that goes on.
    main : the command.
    result : what is in the output folder when it is done, to compare; raises where it is not done.
    """

    main: Any
    start: Callable[[Path, Path, bool], list[str]]
    result: Callable[[Path], Any]


def prepare(folder: Path) -> None:
    """Inputs of all commands."""
    people = dataset(folder, 40)
    annotation.write_json(folder / "people.json", people)
    store.export_lmdb(store.plan(people[:10], seed=1), folder, folder / "records", jpeg=True)
    net = Net(netgen.deploy(replace(TINY_MACHINE, input_size=96)), seed=2)
    write_weights(folder / "small.caffemodel", net.weights(), net.graph.spec)
    leeds(folder / "leeds", tested=10)
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for i in range(6):
        image = cv2.resize(rng.integers(0, 256, (9, 7, 3), np.uint8), (70, 90))
        cv2.imwrite(str(folder / "pictures" / f"{i}.png"), image)
    writer = cv2.VideoWriter(
        str(folder / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (70, 90)
    )
    for _ in range(8):
        writer.write(cv2.resize(rng.integers(0, 256, (9, 7, 3), np.uint8), (70, 90)))
    writer.release()


def _export(source: Path, out: Path, again: bool) -> list[str]:
    names = [str(source / "people.json"), "--data", str(source), "-o", str(out / "lmdb")]
    return ["lmdb", *names, "--workers", "2"]


def _exported(out: Path) -> Any:
    """Every person once: without a seed, the order is another in each export."""
    reader = LMDBReader(out / "lmdb")
    opened = store.LMDBStore(out / "lmdb")
    found = sorted(opened.record(i).annotation.annolist_index for i in range(len(opened)))
    reader.close()
    assert not (out / "lmdb.partial").exists()
    return found


def _train(workers: int) -> Callable[[Path, Path, bool], list[str]]:
    def start(source: Path, out: Path, again: bool) -> list[str]:
        if not again or not (out / "solver.prototxt").exists():
            data = netgen.DataConfig(source=str(source / "records"), batch_size=2, target_dist=0.3)
            net = netgen.train_test(TINY_MACHINE, data)
            (out / "net.prototxt").write_text(net.to_text())
            values = {"max_iter": 8, "snapshot": 2, "display": 1, "solver_mode": None}
            spec = netgen.solver(net="net.prototxt", prefix="snap/pose", base_lr=1e-4, **values)
            (out / "solver.prototxt").write_text(dump(spec.message))
        begun = any((out / "snap").glob("*.solverstate")) if (out / "snap").is_dir() else False
        more = ["--snapshot", "latest"] if again and begun else []
        device = ["--device", "cpu", "--workers", str(workers)]
        return [str(out / "solver.prototxt"), *device, "--shuffle", *more]

    return start


def _trained(out: Path) -> Any:
    state = read_state(out / "snap" / "pose_iter_8.solverstate")
    history = [array.tolist() for array in state.history]
    return (out / "snap" / "pose_iter_8.caffemodel").read_bytes(), state.iteration, history


def _predict(workers: int) -> Callable[[Path, Path, bool], list[str]]:
    def start(source: Path, out: Path, again: bool) -> list[str]:
        model = ["--model", str(source / "small.caffemodel"), "--out", str(out / "found")]
        few = ["--scales", "1", "--device", "cpu", "--workers", str(workers)]
        inputs = [str(source / "pictures"), str(source / "walk.avi")]
        return [*inputs, *model, *few, *(["--resume"] if again else [])]

    return start


def _predicted(out: Path) -> Any:
    folder = out / "found"
    video = json.loads((folder / "walk_keypoints.json").read_text())["frames"]
    with np.load(folder / "predictions.npz") as found:
        return found["joints"].tolist(), found["image"].tolist(), video


_EXPERIMENT = "joint-3"


def _reproduce(source: Path, out: Path, again: bool) -> list[str]:
    which = ["fig6", "--profile", "smoke", "--only", _EXPERIMENT, "--train-only"]
    where = ["--data", str(source / "leeds"), "--work", str(out / "work")]
    return [*which, *where, "--device", "cpu", "--workers", "0"]


def _reproduced(out: Path) -> Any:
    """The last weights, and their scores."""
    folder = out / "work" / "smoke"
    found = read_result(folder / "results" / f"{_EXPERIMENT}.json")
    (weights,) = (folder / _EXPERIMENT / "snap").glob(f"*_iter_{found.iterations}.caffemodel")
    return weights.read_bytes(), found.total


def _convert(source: Path, out: Path, again: bool) -> list[str]:
    return [str(source / "small.caffemodel"), "-o", str(out / "small.npz")]


def _converted(out: Path) -> Any:
    with np.load(out / "small.npz") as found:
        return {name: found[name].tolist() for name in found.files if name != "__metadata__"}


WORKS: dict[str, Work] = {
    "export": Work(export.main, _export, _exported),
    "train": Work(train.main, _train(0), _trained),
    "train with 2 workers": Work(train.main, _train(2), _trained),
    "predict": Work(predict.main, _predict(0), _predicted),
    "predict with 2 workers": Work(predict.main, _predict(2), _predicted),
    "reproduce": Work(reproduce.main, _reproduce, _reproduced),
    "convert": Work(convert.main, _convert, _converted),
}


def start(main: Any, arguments: list[str], log: Path) -> int:
    """Run a command in a process group of its own; its number."""
    # Ctrl-C waits while the child is not yet, or no longer, inside the command: there it would
    # unwind into the test runner, whose copy the child is
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with contextlib.suppress(OSError):  # whoever of the two comes first
            os.setpgid(child, child)
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["command", *arguments]
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            sys.stdout.flush()
        finally:
            os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code (negative: a signal) of a child, or None where it still runs then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def finish(work: Work, source: Path, out: Path, *, again: bool) -> None:
    """Run a command to its end."""
    log = out / "log.txt"
    child = start(work.main, work.start(source, out, again), log)
    code = wait(child, _LONGEST)
    if code != 0:
        if code is None:
            os.killpg(child, signal.SIGKILL)
        raise AssertionError(f"ended with {code}: {log.read_text()[-2000:]}")


def kill(name: str, source: Path, count: int, seed: int = 0) -> dict[str, int]:
    """Kill a command ``count`` times, and let it go on each time.

    Returns
    -------
    How many were killed by which signal, and how many were done before.

    Raises
    ------
    AssertionError : something was lost.
    """
    work, dice = WORKS[name], random.Random(f"{seed}/{name}")
    counts: dict[str, int] = {"done before": 0}
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        finish(work, source, whole, again=False)
        expected = work.result(whole)
        # the first run warmed the disk's cache; this one tells how long the others take
        second = Path(folder) / "second"
        second.mkdir()
        begin = time.monotonic()
        finish(work, source, second, again=False)
        length = time.monotonic() - begin
        assert work.result(second) == expected, f"{name}: two runs that nobody killed differ"
        for number in range(count):
            out = Path(folder) / f"{number}"
            out.mkdir()
            again = False
            for _ in range(dice.choice((1, 1, 2))):
                child = start(work.main, work.start(source, out, again), out / "log.txt")
                again = True
                if wait(child, dice.uniform(0, length)) is not None:
                    counts["done before"] += 1
                    break
                chosen = dice.choice(SIGNALS)
                # Ctrl-C and kill -9 of a terminal go to the whole group
                (os.killpg if dice.random() < 0.5 else os.kill)(child, chosen)
                if wait(child, 30) is None:
                    os.killpg(child, signal.SIGKILL)
                    raise AssertionError(f"{name}: did not end after {chosen.name}")
                counts[chosen.name] = counts.get(chosen.name, 0) + 1
            try:
                done = work.result(out) == expected
            except (OSError, KeyError, ValueError, Exception):
                done = False
            if not done:
                finish(work, source, out, again=True)
            found = work.result(out)
            assert found == expected, f"{name}: kill {number} lost something ({out})"
            shutil.rmtree(out)
    return counts
