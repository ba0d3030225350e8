"""``cpm-train``: Caffe's training, continued or begun."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import Command
from reproduce.cli.common import (
    FILE,
    MODELS,
    POSITIVE,
    SEED,
    WORKERS,
    common,
    device_option,
    engine_option,
    say_line,
    silent,
)

if TYPE_CHECKING:
    from caffe_compat.definition.spec import SolverSpec
    from caffe_compat.training.solver import Solver
    from caffe_compat.weights.model import Weights
    from reproduce.runtime.processes import Group
    from reproduce.train.run import Options, Progress

_EPILOG = """
\b
Examples:
  cpm-train pose_solver.prototxt --workers 2
  cpm-train pose_solver.prototxt --weights released.caffemodel
  cpm-train pose_solver.prototxt --snapshot latest
  cpm-train pose_solver_stage1.prototxt pose_solver_stage2.prototxt pose_solver_stage3.prototxt
  cpm-train pose_solver.prototxt --weights released.caffemodel --fresh 'conv7_*' --parts nose,...
  torchrun --nproc_per_node 4 -m reproduce.cli.train pose_solver.prototxt
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("solvers", nargs=-1, required=True, type=FILE)
@click.option(
    "--weights",
    type=MODELS,
    help="Start from these weights (files, or names of 'cpm-models list'), by layer name; a,b: the "
    "later one counts where both have a layer.",
)
@click.option(
    "--fresh",
    multiple=True,
    metavar="PATTERN",
    help="Layers that do not take the weights, e.g. 'Mconv5_*'.",
)
@click.option(
    "--snapshot",
    type=FILE,
    help="Go on from a .solverstate, or from the 'latest' of the snapshot prefix, with the batches "
    "that would have come next (Caffe begins with the first record again); without it a training "
    "begins anew.",
)
@click.option("--data", type=FILE, help="Record file (LMDB or HDF5) instead of the definition's.")
@device_option
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=WORKERS,
    help="Processes that make samples (0: none).",
)
@click.option(
    "--amp", type=click.Choice(["bf16"]), help="Forward and backward in bfloat16 where safe."
)
@engine_option
@click.option("--compile", "compile_", is_flag=True, help="Compile the network with torch.compile.")
@click.option("--max-iter", type=POSITIVE, help="Instead of the definition's.")
@click.option(
    "--warmup",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**31 - 1),
    help="Iterations of linearly rising rate (not in Caffe).",
)
@click.option(
    "--shuffle", is_flag=True, help="Another record order in each epoch (Caffe: key order)."
)
@click.option(
    "--dice",
    type=click.Choice(["numpy", "caffe"]),
    default="numpy",
    show_default=True,
    help="'caffe' replays the C library's rand() as Caffe did.",
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=SEED,
    help="Where random numbers begin: those of the dice and of the order of records. A new "
    "training with the --weights of an earlier one needs another number, to see other distortions.",
)
@click.option(
    "--parts",
    default="",
    help="Names of the parts, where they are not the authors': left_knee,right_knee,... (default: "
    "those that the definition or the snapshot names).",
)
@click.option(
    "--log",
    "log_path",
    type=FILE,
    help="Append JSON lines here, or rows of CSV where the name ends in .csv (default: JSON lines "
    "beside the snapshots).",
)
@common
def main(
    solvers: tuple[str, ...],
    weights: str | None,
    fresh: tuple[str, ...],
    snapshot: str | None,
    data: str | None,
    device: str,
    workers: int,
    amp: str | None,
    engine: Any,
    compile_: bool,
    max_iter: int | None,
    warmup: int,
    shuffle: bool,
    dice: Any,
    seed: int,
    parts: str,
    log_path: str | None,
) -> None:
    """Train as SOLVERS say, as 'caffe train' does; several run one after the other, each from the
    weights of the one before.

    Names in the definition count from the current folder, as in Caffe, or else from the solver's
    own folder. Ctrl-C and SIGTERM write a snapshot and end with exit code 0, as in Caffe; the same
    command with '--snapshot latest', in place of --weights and --fresh, goes on exactly. Without
    --snapshot the training begins anew: files of an earlier one under the same snapshot prefix are
    moved aside into the folder PREFIX_earlier1 (or 2, 3, ...) first. Under torchrun, N processes
    with batch size B train as one with batch size N·B does.
    """
    from caffe_compat.files import check_target, make_folder
    from caffe_compat.training import snapshots
    from caffe_compat.weights import containers
    from reproduce.runtime import processes
    from reproduce.runtime.device import bf16_note, choose
    from reproduce.samples.schedule import Order
    from reproduce.train import logs, run
    from reproduce.train.earlier import is_of

    _refuse_together(weights, fresh, snapshot)
    plan = [run.find_root(solver) for solver in solvers]
    prefixes = [snapshots.prefix_of(spec, root, new_folder=True) for spec, root in plan]
    first, state = _where_to_begin(prefixes, snapshot)
    if log_path is not None:
        check_target(log_path)
        _refuse_table_of_several(solvers, log_path)
    with processes.group(choose(device)) as group:
        say: Callable[[str], None] = say_line if group.first else silent
        if note := bf16_note(amp or "", group.device):
            say(note)
        if log_path and snapshot is None and os.path.isfile(log_path) and os.path.getsize(log_path):
            say(f"{log_path} has reports of an earlier training; those of this one follow them")
        options = run.Options(
            data=data,
            workers=workers,
            device=group.device,
            amp=amp or "",
            compile=compile_,
            warmup=warmup,
            max_iter=max_iter,
            order=Order(shuffle=shuffle, dice=dice, seed=seed, rank=group.rank, world=group.world),
            parts=tuple(parts.split(",")) if parts else (),
            snapshot_parts=run.parts_of_snapshot(state),
            goes_on=state is not None,
            engine=engine,
        )
        given = run.without(containers.read_list(weights), fresh) if weights else None
        for number in range(first, len(plan)):
            if len(plan) > 1:
                say(f"{solvers[number]} ({number + 1} of {len(plan)})")
            made = _make_solver(*plan[number], options, given, weights)
            made.prefix = prefixes[number]
            make_folder(os.path.dirname(prefixes[number]) or ".")
            # what stands there is this training's own only where it goes on from there
            anew = state is None or not is_of(state, prefixes[number])
            if state is not None:
                made.restore(state)
                say(f"going on from {state}, iteration {made.iteration}")
                state = None
            made.wrap(group.wrap)
            own = "" if options.goes_on else run.initial_weights(*plan[number])
            began_from = (weights or own or None) if number == first else None
            _tell_beginning(made, began_from, group, say)
            run.check_length(made)
            if log_path is not None and logs.is_table(log_path):
                logs.check_table(log_path, run.log_columns(made))
            idle = run.nothing_left(made)
            if idle:
                say(_nothing_left(made, solvers[number], max_iter))
                run.last_test(made, say)
            elif not _train(made, group, say, prefixes[number:], log_path, anew, began_from):
                say(_how_to_go_on(made, len(plan) > 1, snapshot, weights, fresh))
                return
            given = made.net.weights()
        if not idle:
            say("finished")


def _refuse_together(weights: str | None, fresh: Sequence[str], snapshot: str | None) -> None:
    """Refuse options that exclude each other, or that miss the one they go with."""
    from caffe_compat.errors import SolverError

    if weights is not None and snapshot is not None:
        raise SolverError(
            "give --weights or --snapshot, not both: a snapshot brings its own weights"
        )
    if fresh and weights is None:
        raise SolverError("--fresh goes with --weights")


def _refuse_table_of_several(solvers: Sequence[str], log_path: str) -> None:
    """Refuse one table for solvers whose losses differ."""
    from caffe_compat.errors import SolverError
    from reproduce.train.logs import is_table

    if len(solvers) > 1 and is_table(log_path):
        raise SolverError(
            f"--log {log_path}: a table has the losses of one solver for columns, and there are "
            f"{len(solvers)}; give a name that ends in .jsonl"
        )


def _tell_beginning(
    solver: Solver, weights: str | None, group: Group, say: Callable[[str], None]
) -> None:
    """Say which layers took the weights of the file, where there is one, and what to note."""
    from reproduce.train import run

    if weights is not None:
        say(f"weights of {weights}:")
        for line in run.taken(solver.net.loaded):
            say(f"  {line}")
    for line in solver.warnings if group.first else ():
        say_line(f"note: {line}", err=True)


def _where_to_begin(prefixes: Sequence[str], snapshot: str | None) -> tuple[int, Path | None]:
    """Which solver is the first to run, and the snapshot that it goes on from.

    Parameters
    ----------
    prefixes : what the snapshots' names begin with, of each solver.
    snapshot : as the user gave it.

    Raises
    ------
    SolverError : two solvers have one prefix; or there is no such snapshot, or no single one.
    """
    from caffe_compat.errors import SolverError
    from reproduce.train import run

    if len({os.path.abspath(prefix) for prefix in prefixes}) < len(prefixes):
        raise SolverError(
            "two solvers have the same snapshot_prefix and would overwrite each other's snapshots"
        )
    if snapshot is None:
        return 0, None
    if snapshot != "latest":
        if len(prefixes) > 1:
            raise SolverError("several solvers go on with '--snapshot latest'")
        return 0, Path(snapshot)
    found = [
        (i, path) for i, prefix in enumerate(prefixes) if (path := run.latest(prefix)) is not None
    ]
    if not found:
        raise SolverError(
            f"no snapshot {prefixes[0]}_iter_*.solverstate to go on from: leave out --snapshot "
            "to begin a training"
        )
    return found[-1]


def _make_solver(
    spec: SolverSpec, root: Path, options: Options, given: Weights | None, weights: str | None
) -> Solver:
    """The solver of a definition.

    Parameters
    ----------
    given : the weights that it begins with.
    weights : what the user called them.

    Raises
    ------
    CaffeCompatError : definition, data or weights that cannot be used.
    """
    from caffe_compat.errors import WeightError
    from reproduce.train import run

    try:
        return run.make_solver(spec, root, options, given)
    except WeightError as error:
        if weights is None:
            raise
        named = re.match("layer '([^']+)'", error.problems[0]) if error.problems else None
        example = f", for example --fresh {named[1]}" if named else ""
        hint = f"layers that are to start anew are named with --fresh{example}"
        raise WeightError(
            f"{weights}: the weights do not fit the network; {hint}", error.problems
        ) from None


def _train(
    solver: Solver,
    group: Group,
    say: Callable[[str], None],
    prefixes: Sequence[str],
    log_path: str | None,
    anew: bool,
    weights: str | None,
) -> bool:
    """Train, with the log and the reports for TensorBoard. Was it finished, not interrupted?

    Parameters
    ----------
    prefixes : of the snapshots of this training and of those that follow it.
    anew : move away what earlier trainings left under the prefixes.
    weights : the files that the training took its weights from.
    """
    from caffe_compat.files import check_target, open_to_append
    from reproduce.runtime.locks import hold
    from reproduce.train import run

    with contextlib.ExitStack() as stack:
        log = None
        watch: Callable[[Progress], None] = silent
        if group.first:
            # two trainings would overwrite each other's snapshots
            stack.enter_context(hold(prefixes[0]))
            log_file = log_path or f"{prefixes[0]}_log.jsonl"
            check_target(log_file)
        if anew:
            # every process has read its weights, which may be among the files
            group.any(False)
            if group.first:
                _move_aside(prefixes, (weights or "").split(","), say)
        if group.first:
            log = stack.enter_context(open_to_append(log_file))
            watch = _tensorboard(f"{prefixes[0]}_tensorboard", stack)
        return run.run(solver, log=log, say=say, watch=watch, group=group)


def _nothing_left(solver: Solver, name: str, max_iter: int | None) -> str:
    """A line for a snapshot that is as far as the training is to come, or further."""
    asked = f"max_iter {solver.spec.message.max_iter} of {name}"
    if max_iter is not None:
        asked = f"--max-iter {max_iter}"
    return (
        f"the snapshot is at iteration {solver.iteration} and {asked} asks for no more, so "
        "nothing is trained"
    )


def _move_aside(
    prefixes: Sequence[str], weights: Sequence[str], say: Callable[[str], None]
) -> None:
    """Move what earlier trainings left under the prefixes of a training that begins anew and of
    those that follow it: '--snapshot latest' would take theirs.

    Parameters
    ----------
    prefixes : the first one is held already.
    weights : the files that the training took its weights from.
    """
    from reproduce.runtime.locks import hold
    from reproduce.train.earlier import move_aside

    with contextlib.ExitStack() as stack:
        for prefix in prefixes[1:]:
            stack.enter_context(hold(prefix))
        for prefix in prefixes:
            moved = move_aside(prefix)
            if moved is not None:
                say(moved.text(weights))


def _how_to_go_on(
    solver: Solver,
    several: bool,
    snapshot: str | None,
    weights: str | None,
    fresh: Sequence[str],
) -> str:
    """A line for an interrupted training: the options with which the same command goes on.

    'latest' is another snapshot than this training's last one where it began from a snapshot with
    later ones beside it; then its name is said.
    """
    from caffe_compat.training import snapshots
    from reproduce.train import run

    prefix = str(solver.prefix)
    hdf5 = solver.spec.message.snapshot_format == 0
    last = snapshots.paths(prefix, solver.iteration, hdf5)[1]
    which = "latest" if several or run.latest(prefix) == last else shlex.quote(str(last))
    line = f"interrupted at iteration {solver.iteration}; to go on, give the same command"
    if snapshot == which:
        return f"{line} again"
    given = {f"--snapshot {snapshot}": snapshot, "--weights": weights, "--fresh": fresh}
    instead = " and ".join(name for name, value in given.items() if value)
    return f"{line} with --snapshot {which}" + (f" in place of {instead}" if instead else "")


def _tensorboard(folder: str, stack: contextlib.ExitStack) -> Callable[[Progress], None]:
    """Writes reports for TensorBoard, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return silent
    writer: Any = SummaryWriter(folder)
    stack.callback(writer.close)

    def watch(report: Progress) -> None:
        for name, value in {
            "loss": report.loss,
            **report.losses,
            **report.outputs,
            "rate": report.rate,
            "speed": report.speed,
        }.items():
            writer.add_scalar(name, value, report.iteration)

    return watch


if __name__ == "__main__":
    main()
