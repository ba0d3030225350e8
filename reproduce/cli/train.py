"""``cpm-train``: Caffe's training, continued or begun."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .common import Command, common

_EPILOG = """
\b
Examples:
  cpm-train pose_solver.prototxt --workers 2
  cpm-train pose_solver.prototxt --weights released.caffemodel
  cpm-train pose_solver.prototxt --snapshot latest
  torchrun --nproc_per_node 4 -m reproduce.cli.train pose_solver.prototxt
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("solver", type=click.Path())
@click.option("--weights", type=click.Path(), help="Start from these weights, by layer name.")
@click.option("--snapshot", type=click.Path(), help="Go on from a .solverstate, or 'latest' of the snapshot prefix.")
@click.option("--data", type=click.Path(), help="Record file (LMDB or HDF5) instead of the definition's.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N or auto.")
@click.option("--workers", default=1, show_default=True, help="Processes that make samples (0: none).")
@click.option("--amp", type=click.Choice(["bf16"]), help="Forward and backward in bfloat16 where safe.")
@click.option("--compile", "compile_", is_flag=True, help="Compile the network with torch.compile.")
@click.option("--max-iter", type=int, help="Instead of the definition's.")
@click.option("--warmup", default=0, show_default=True, help="Iterations of linearly rising rate (not in Caffe).")
@click.option("--shuffle", is_flag=True, help="Another record order in each epoch (Caffe: key order).")
@click.option("--dice", type=click.Choice(["numpy", "caffe"]), default="numpy", show_default=True,
              help="'caffe' replays the C library's rand() as Caffe did.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Of the dice and the order.")
@click.option("--log", "log_path", type=click.Path(), help="Append JSON lines here (default: beside the snapshots).")
@common
def main(
    solver: str, weights: str | None, snapshot: str | None, data: str | None, device: str, workers: int,
    amp: str | None, compile_: bool, max_iter: int | None, warmup: int, shuffle: bool, dice: Any, seed: int,
    log_path: str | None,
) -> None:  # fmt: skip
    """Train as SOLVER says, as 'caffe train' does.

    Names in the definition count from the current folder, as in Caffe, or else from the solver's own folder. Ctrl-C
    and SIGTERM write a snapshot and end; '--snapshot latest' goes on exactly. Under torchrun, N processes with batch size B
    train as one with batch size N·B does.
    """
    from caffe_compat import containers
    from caffe_compat.errors import SolverError
    from reproduce import distributed, training
    from reproduce.device import choose
    from reproduce.samples import Order

    spec, root = training.find_root(solver)
    with distributed.group(choose(device)) as group, contextlib.ExitStack() as stack:
        say: Callable[[str], None] = click.echo if group.first else _silent
        options = training.Options(
            data=data, workers=workers, device=group.device, amp=amp or "", compile=compile_, warmup=warmup,
            max_iter=max_iter, order=Order(shuffle=shuffle, dice=dice, seed=seed, rank=group.rank, world=group.world),
        )  # fmt: skip
        made = training.make_solver(spec, root, options, containers.read(weights) if weights else None)
        prefix = root / spec.message.snapshot_prefix
        prefix.parent.mkdir(parents=True, exist_ok=True)
        if snapshot:
            path = training.latest(prefix) if snapshot == "latest" else Path(snapshot)
            if path is None:
                raise SolverError(f"no snapshot {prefix}_iter_*.solverstate to go on from")
            made.restore(path)
            say(f"going on from {path}, iteration {made.iteration}")
        made.wrap(group.wrap)
        for line in made.warnings if group.first else ():
            click.echo(f"note: {line}", err=True)
        log = None
        if group.first:
            log = stack.enter_context(open(log_path or f"{prefix}_log.jsonl", "a", encoding="utf-8"))
        finished = training.run(made, log=log, say=say, group=group)
        say("finished" if finished else "interrupted; go on with --snapshot latest")


def _silent(line: str) -> None:
    """What all processes but the first say."""


if __name__ == "__main__":
    main()
