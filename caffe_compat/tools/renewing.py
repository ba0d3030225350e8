"""``upgrade-net``, ``upgrade-solver``, ``draw``: a definition in another form."""

from __future__ import annotations

import click

from caffe_compat.commands import Command
from caffe_compat.definition.prototxt import read_net, read_solver
from caffe_compat.definition.spec import TEST, TRAIN
from caffe_compat.definition.textformat import dump
from caffe_compat.errors import CaffeCompatError, printable
from caffe_compat.files import write_text
from caffe_compat.foreign import check_file
from caffe_compat.tools.opening import FILE, PHASE


@click.command("upgrade-net", cls=Command)
@click.argument("source", type=FILE)
@click.argument("target", type=click.Path(dir_okay=False))
def upgrade_net(source: str, target: str) -> None:
    """Write a definition or a binary model of any age in the current format.

    \b
    python -m caffe_compat.tools upgrade-net old.prototxt new.prototxt
    python -m caffe_compat.tools upgrade-net old.caffemodel new.caffemodel
    """
    check_file(source)
    with open(source, "rb") as file:
        binary = b"\0" in file.read(4096)
    if not binary:
        write_text(target, read_net(source).to_text())
    else:
        from caffe_compat.weights.containers import read_weights
        from caffe_compat.weights.write import names_hdf5, write_weights

        weights = read_weights(source)
        if weights.net is None:
            why = "; ".join(weights.source.notes) or "only binary models do"
            raise CaffeCompatError(f"{source}: holds no definition that can be written: {why}")
        if names_hdf5(target):
            raise CaffeCompatError(
                f"{target}: an HDF5 model holds no definition; give a name that ends in .caffemodel"
            )
        write_weights(target, weights, weights.net)
        for note in weights.source.notes:
            click.echo(printable(f"note: {note}"), err=True)
    click.echo(f"wrote {target}")


@click.command("upgrade-solver", cls=Command)
@click.argument("source", type=FILE)
@click.argument("target", type=click.Path(dir_okay=False))
def upgrade_solver(source: str, target: str) -> None:
    """Write a solver definition of any age in the current format.

    \b
    python -m caffe_compat.tools upgrade-solver old_solver.prototxt solver.prototxt
    """
    write_text(target, dump(read_solver(source).message))
    click.echo(f"wrote {target}")


@click.command(cls=Command)
@click.argument("definition", type=FILE)
@click.argument("target", type=click.Path(dir_okay=False))
@click.option(
    "--rankdir",
    type=click.Choice(["LR", "TB", "RL", "BT"]),
    default="LR",
    show_default=True,
    help="From left to right, downwards, to the left, or upwards.",
)
@click.option("--phase", type=PHASE, help="Only the layers of this phase; default: all.")
@click.option("--display-lrm", is_flag=True, help="Also the lr_mult of each layer's parameters.")
def draw(definition: str, target: str, rankdir: str, phase: str | None, display_lrm: bool) -> None:
    """Draw DEFINITION to TARGET: .png, .svg, .pdf, or .dot for graphviz.

    \b
    python -m caffe_compat.tools draw pose_deploy.prototxt pose.png --rankdir TB
    """
    from caffe_compat.pycaffe.draw import draw_net_to_file

    number = None if phase is None else {TRAIN: 0, TEST: 1}[phase.upper()]
    draw_net_to_file(read_net(definition).to_message(), target, rankdir, number, display_lrm)
    click.echo(f"wrote {target}")
