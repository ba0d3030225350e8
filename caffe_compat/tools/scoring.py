"""``test``: the scores of weights."""

from __future__ import annotations

import click

from caffe_compat.commands import Command
from caffe_compat.errors import printable
from caffe_compat.files import json_text
from caffe_compat.tools.opening import FILE, open_test_net


@click.command(cls=Command)
@click.argument("definition", type=FILE)
@click.option("--weights", type=FILE, required=True, help="The weights to test.")
@click.option(
    "--iterations", type=click.IntRange(1), default=50, show_default=True, help="Batches."
)
@click.option("--level", type=int, default=0, show_default=True, help="Level of the net's state.")
@click.option("--stage", "stages", multiple=True, help="Stage of the net's state (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def test(
    definition: str,
    weights: str,
    iterations: int,
    level: int,
    stages: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score weights: the mean of DEFINITION's outputs over batches of its TEST data layers.

    \b
    python -m caffe_compat.tools test train_test.prototxt --weights snap.caffemodel --iterations 100
    """
    import torch

    from caffe_compat.training.averages import add_share

    net, feed = open_test_net(definition, weights, level, stages, "test on (a deploy net?)")
    total: dict[str, float] = {}
    mean_loss = 0.0
    with torch.no_grad():
        for number in range(iterations):
            wanted = dict.fromkeys([*net.graph.outputs, *net.losses])
            names = [n for n in wanted if n in net.graph.blobs]
            found = net(blobs=names, **feed.batch(number, "cpu"))
            if net.losses:
                mean_loss += float(net.loss(found)) / iterations
            shown = {name: found[name] for name in net.graph.outputs if name in found}
            add_share(total, shown, iterations)
    if as_json:
        click.echo(json_text({"batches": iterations, "loss": mean_loss, "outputs": total}))
        return
    if net.losses:
        click.echo(f"loss: {mean_loss:.6g}")
    for name, value in total.items():
        click.echo(printable(f"{name} = {value:.6g}"))
