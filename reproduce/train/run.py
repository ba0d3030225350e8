"""Runs a solver on records: progress, log, snapshots, clean interruption, exact resuming."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

from caffe_compat.definition.prototxt import read_solver
from caffe_compat.definition.spec import TRAIN, NetSpec, SolverSpec
from caffe_compat.engine.plan import Mode
from caffe_compat.errors import CaffeCompatError, DataError, SolverError
from caffe_compat.files import TargetError
from caffe_compat.layers import make
from caffe_compat.network.match import LayerMatch
from caffe_compat.training.averages import SHOWN, value_names
from caffe_compat.training.snapshots import learned_weights, read_state
from caffe_compat.training.solver import Solver, Step, train_definition
from caffe_compat.training.sources import BatchSource
from caffe_compat.weights.model import Weights
from reproduce.people import part_names
from reproduce.people.skeletons import mirror_text
from reproduce.runtime.processes import Group
from reproduce.samples.augment import Settings
from reproduce.samples.schedule import CPMSource, Order, source_for
from reproduce.train import logs


@dataclass(frozen=True)
class Options:
    """What ``cpm-train`` adds to a solver definition.

    Attributes
    ----------
    data : record file instead of the one that the definition names.
    workers : processes that make samples.
    device : where to train.
    amp : "" or "bf16".
    compile : run the network through ``torch.compile``.
    warmup : iterations over which the rate rises linearly at the start (not a thing of Caffe's; 0 =
        none).
    max_iter : instead of the definition's.
    order : how samples follow each other.
    parts : names of the parts, where they are not the authors'.
    snapshot_parts : the same, as the snapshot has them that a training goes on from; for
        definitions that name none.
    goes_on : from a snapshot, so that the definition's own ``weights`` are not read.
    engine : how convolutions run on the CPU.
    """

    data: str | None = None
    workers: int = 0
    device: str = "cpu"
    amp: str = ""
    compile: bool = False
    warmup: int = 0
    max_iter: int | None = None
    order: Order = field(default_factory=Order)
    parts: tuple[str, ...] = ()
    snapshot_parts: tuple[str, ...] = ()
    goes_on: bool = False
    engine: Mode = "auto"

    @property
    def for_records(self) -> list[str]:
        """Names of the given options that only a CPMData layer can follow."""
        given = {"data": self.data, "parts": self.parts, "shuffle": self.order.shuffle}
        return [name for name, value in given.items() if value]


def find_root(solver: str | os.PathLike[str]) -> tuple[SolverSpec, Path]:
    """A solver definition, and the folder its names count from: the current one as in Caffe, else
    the solver's own.

    The name of the training net decides, or where it stands in the solver what its layers name.

    Raises
    ------
    PrototxtError : no readable solver, or no training net in it.
    """
    spec = read_solver(solver)
    here, beside = Path("."), Path(solver).resolve().parent
    net = spec.message.net or spec.message.train_net
    names = [net] if net else _sources(train_definition(spec, here)[0])
    is_here = not names or any((here / name).exists() for name in names)
    return spec, here if is_here else beside


def _sources(definition: NetSpec) -> list[str]:
    """The files that a definition's layers name as their ``source``."""
    options = [value for layer in definition.layers for _, value in layer.message.ListFields()]
    return [one.source for one in options if getattr(one, "source", "")]


def latest(
    prefix: str | os.PathLike[str], before: str | os.PathLike[str] | None = None
) -> Path | None:
    """The snapshot with the highest iteration of a prefix.

    Parameters
    ----------
    before : only those of fewer iterations than this snapshot of the prefix.
    """
    folder, name = os.path.split(os.fspath(prefix))
    pattern = re.compile(re.escape(name) + r"_iter_(\d+)\.solverstate(\.h5)?$")
    if not os.path.isdir(folder or "."):
        return None
    found = [
        (int(m[1]), Path(folder, file))
        for file in os.listdir(folder or ".")
        if (m := pattern.match(file))
    ]
    if before is not None:
        limit = pattern.match(os.path.basename(before))
        found = [one for one in found if limit is not None and one[0] < int(limit[1])]
    return max(found)[1] if found else None


def parts_of_snapshot(state: Path | None) -> tuple[str, ...]:
    """The parts' names in the model of a solver state.

    Raises
    ------
    SolverError : the state or its model is missing or damaged; names the snapshot before it.
    """
    if state is None:
        return ()
    try:
        return part_names.of_weights(learned_weights(read_state(state), state))
    except CaffeCompatError as error:
        prefix = os.fspath(state).rpartition("_iter_")[0]
        earlier = latest(prefix, before=state)
        advice = f"; the one before it is --snapshot {earlier}" if earlier is not None else ""
        raise SolverError(f"{error}{advice}") from None


def make_solver(
    spec: SolverSpec, root: Path, options: Options, weights: Weights | None = None
) -> Solver:
    """A solver with its CPMData layers fed by worker processes.

    Raises
    ------
    CaffeCompatError : definition, data or weights that cannot be used.
    """
    if options.max_iter is not None:
        spec = _changed(spec, max_iter=options.max_iter)
    if options.goes_on:  # a snapshot brings its own weights; these may have been moved away
        spec = _changed(spec, weights=[])
    sources: dict[str, BatchSource] = {}
    definition, state = train_definition(spec, root)
    parts = _parts(definition, options)
    if parts:
        spec = replace(spec, network=part_names.with_parts(definition.name, parts))
    for layer in definition.filter(TRAIN, state.level, state.stages).layers:
        if layer.type == "CPMData":
            sources[layer.name] = source_for(
                make(layer, TRAIN),
                root,
                options.order,
                workers=options.workers,
                data=options.data,
                parts=parts,
            )
    if not sources and (given := options.for_records):
        raise SolverError(
            f"{', '.join(given)}: for a CPMData layer, which this training net does not have"
        )
    made = Solver(
        spec,
        root=root,
        weights=weights,
        sources=sources,
        device=options.device,
        amp=options.amp,
        engine=options.engine,
        share=(options.order.rank, options.order.world),
    )
    made.warnings += [
        f"layer '{name}': with transform_body_joint: false mirror images keep left parts on the "
        "left, as in Caffe: set it to true, or flip_prob: 0"
        for name, source in sources.items()
        if isinstance(source, CPMSource) and _mixes_sides(source.maker.settings)
    ]
    made.warnings += [
        mirror_text(source.maker.settings.skeleton)
        for source in sources.values()
        if parts and isinstance(source, CPMSource) and source.maker.settings.flip_prob > 0
    ]
    if options.warmup:
        made.rate_scale = lambda iteration: min(1.0, (iteration + 1) / options.warmup)
    if options.compile:
        import torch

        made.wrap(lambda module: torch.compile(module))  # type: ignore[arg-type, return-value]
    return made


def initial_weights(spec: SolverSpec, root: Path) -> str:
    """The weight files that a solver's definition itself begins with, separated by commas."""
    names = [name for text in spec.message.weights for name in text.split(",")]
    return ",".join(str(root / name) for name in names)


def _changed(spec: SolverSpec, **fields: Any) -> SolverSpec:
    """A solver's definition with other values of some fields; an empty list removes a repeated
    one."""
    message = type(spec.message)()
    message.CopyFrom(spec.message)
    for name, value in fields.items():
        message.ClearField(name)
        if value != []:
            setattr(message, name, value)
    return replace(spec, message=message)


def _parts(definition: NetSpec, options: Options) -> tuple[str, ...]:
    """Names of the parts; none where they are the authors'.

    Raises
    ------
    SolverError : the options ask for other names than the definition tells.
    """
    told = part_names.in_name(definition.name)
    parts = options.parts or told or options.snapshot_parts
    if told and parts != told:
        raise SolverError(
            f"--parts: {', '.join(parts)} are asked for, but the definition names its parts "
            f"{', '.join(told)}: leave --parts out, or correct the name in the definition"
        )
    return parts


def _mixes_sides(settings: Settings) -> bool:
    """Would a mirror image show parts on the other side?"""
    return settings.flip_prob > 0 and settings.exchanged != settings.skeleton.flip


def without(weights: Weights, patterns: Sequence[str]) -> Weights:
    """Weights less the layers whose names match a pattern (``Mconv5_*``): those start anew.

    Raises
    ------
    SolverError : a pattern that matches no layer.
    """
    names = [layer.name for layer in weights.layers]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise SolverError(f"--fresh {pattern}: matches no layer of the weights")
    kept = tuple(
        layer
        for layer in weights.layers
        if not any(fnmatch.fnmatchcase(layer.name, p) for p in patterns)
    )
    return replace(weights, layers=kept)


_TAKEN = ("matched", "reshaped")


def taken(rows: Sequence[LayerMatch]) -> list[str]:
    """Lines that say what became of initial weights: which layers took them, which were filled, and
    what of the file has no place.

    Parameters
    ----------
    rows : :attr:`caffe_compat.network.net.Net.loaded`.
    """
    groups = (
        ("layer(s) took their weights from the file", [r for r in rows if r.status in _TAKEN]),
        ("layer(s) were filled anew", [r for r in rows if r.status == "missing"]),
        ("layer(s) of the file have no place here", [r for r in rows if r.status == "unused"]),
    )
    lines = []
    for what, found in groups:
        names = f": {', '.join(row.name for row in found)}" if found else ""
        lines.append(f"{len(found)} {what}{names}")
    return lines


def check_length(solver: Solver) -> None:
    """See that the definition says how long to train.

    Raises
    ------
    SolverError : it has no ``max_iter``.
    """
    if solver.spec.message.max_iter < 1:
        raise SolverError("the solver has no max_iter: nothing to do")


def nothing_left(solver: Solver) -> bool:
    """Whether a training that goes on from a snapshot is as far already as it is to come."""
    return bool(solver.iteration >= solver.spec.message.max_iter)


class Interrupted:
    """Turns SIGINT and SIGTERM into a flag, so that a training ends between two iterations."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __enter__(self) -> Interrupted:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Progress:
    """A line of the log.

    Attributes
    ----------
    iteration : counted from 0.
    loss : mean over the last ``average_loss`` iterations.
    losses : of each stage, this iteration.
    outputs : the net's other outputs (an accuracy; of several values each, ``name[i]``), this
        iteration.
    rate : learning rate.
    speed : samples per second since the last line.
    left : seconds to go at this speed.
    """

    iteration: int
    loss: float
    losses: dict[str, float]
    rate: float
    speed: float
    left: float
    outputs: dict[str, float] = field(default_factory=dict)

    def text(self) -> str:
        """One line for the terminal."""
        parts = " ".join(
            f"{name.removeprefix('loss_')} {value:.2f}" for name, value in self.losses.items()
        )
        others = "".join(f"  {name} {value:.4g}" for name, value in self.outputs.items())
        hours, minutes = divmod(int(self.left) // 60, 60)
        return (
            f"iteration {self.iteration}  loss {self.loss:.3f}  ({parts}){others}  "
            f"lr {self.rate:.3g}  "
            f"{self.speed:.1f} samples/s  {hours}:{minutes:02d} h left"
        )


def run(
    solver: Solver,
    *,
    log: IO[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Callable[[Progress], None] = lambda report: None,
    group: Group | None = None,
) -> bool:
    """Train to ``max_iter``, with the definition's display, tests and snapshots.

    Parameters
    ----------
    log : grows by JSON lines, or by rows of a table where its name ends in .csv.
    say : gets lines for people.
    watch : gets each report.
    group : the processes that train together; the first writes the snapshots.

    Returns
    -------
    True when finished, False when interrupted (a snapshot was written).

    Raises
    ------
    SolverError : no ``max_iter``; or the loss became infinite or nan: says iteration and layer.
    DataError : the data ended or cannot be read; a snapshot was written.
    TargetError : the log cannot be written; a snapshot was, if that could be.
    """
    group = group or Group(0, 1, str(solver.device))
    check_length(solver)
    began = solver.iteration
    try:
        with Interrupted() as interrupted:

            def stop() -> bool:  # all processes end between the same two batches, whoever was asked
                return group.any(interrupted.asked)

            for report in _reports(solver, stop, group, say):
                if log is not None:
                    _append(log, report)
                watch(report)
                say(report.text())
    except (DataError, TargetError, OSError):
        # the weights are good: keep what was learned so far, where the disk has room for it, even
        # if nobody listens any more
        if group.first and solver.iteration > began:
            with contextlib.suppress(TargetError, OSError):
                say(f"snapshot {solver.snapshot()[0]}")
        raise
    settings = solver.spec.message
    finished = solver.iteration >= settings.max_iter
    more = not finished or (settings.snapshot_after_train and solver.iteration > began)
    if group.first and more and solver.saved != solver.iteration:
        model, _ = solver.snapshot()
        say(f"snapshot {model}")
    if finished:
        last_test(solver, say)
    return bool(finished)


def last_test(solver: Solver, say: Callable[[str], None]) -> None:
    """Run the test nets at the end of a training, where the definition asks for that, as Caffe
    does."""
    interval = solver.spec.message.test_interval
    if interval and solver.iteration % interval == 0:
        for line in solver.test_lines():
            say(line)


def _append(log: IO[str], report: Progress) -> None:
    """Write a line of the log.

    Raises
    ------
    TargetError : the disk is full, for example.
    """
    try:
        log.write(logs.text(log, report.__dict__))
        log.flush()
    except OSError as error:
        raise TargetError(f"{log.name}: cannot be written: {error.strerror or error}") from None


def _reports(
    solver: Solver, stop: Callable[[], bool], group: Group, say: Callable[[str], None]
) -> Iterator[Progress]:
    settings = solver.spec.message
    first = next((shape[0] for shape in solver.feed.shapes.values() if shape), 1)
    batch = first * settings.iter_size * group.world
    since, count = time.monotonic(), 0
    while solver.iteration < settings.max_iter and not stop():
        if (
            settings.test_interval
            and solver.iteration % settings.test_interval == 0
            and (solver.iteration or settings.test_initialization)
        ):
            for line in solver.test_lines(stop):
                say(line)
            if stop():
                return
        done = solver.step()
        count += batch
        if settings.display and done.iteration % settings.display == 0:
            now = time.monotonic()
            speed = count / max(now - since, 1e-9)
            since, count = now, 0
            left = (settings.max_iter - solver.iteration) * batch / speed
            yield _report(solver, done, group, speed, left)
        if group.first and settings.snapshot and solver.iteration % settings.snapshot == 0:
            model, _ = solver.snapshot()
            say(f"snapshot {model}")


def _report(solver: Solver, done: Step, group: Group, speed: float, left: float) -> Progress:
    """A line of the log; losses are means over all processes."""
    loss = group.mean(done.smoothed)
    losses, others = (
        {name: group.mean(done.outputs[name]) for name in names} for names in _names(solver)
    )
    return Progress(done.iteration, loss, losses, done.rate, speed, left, others)


def _names(solver: Solver) -> tuple[list[str], list[str]]:
    """Names of the values that a report tells: of the losses, and of the net's other outputs."""
    losses = solver.net.losses
    others = [name for name in solver.net.graph.outputs if name not in losses]
    return _values_of(solver, losses), _values_of(solver, others)


def _values_of(solver: Solver, names: Sequence[str]) -> list[str]:
    counts = {name: math.prod(solver.net.graph.blobs[name]) for name in names}
    return [
        value
        for name, count in counts.items()
        if count <= SHOWN
        for value in value_names(name, count)
    ]


def log_columns(solver: Solver) -> list[str]:
    """The columns of a CSV log of a training."""
    losses, others = (dict.fromkeys(names, 0.0) for names in _names(solver))
    return list(logs.row(Progress(0, 0.0, losses, 0.0, 0.0, 0.0, others).__dict__))
