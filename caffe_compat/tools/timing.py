"""``time``: how long each layer of a network takes."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import Command
from caffe_compat.errors import CaffeCompatError, printable
from caffe_compat.files import json_text
from caffe_compat.tools.opening import FILE, PHASE, open_net

if TYPE_CHECKING:
    from torch import Tensor

    from caffe_compat.network.net import Net


@click.command(cls=Command)
@click.argument("definition", type=FILE)
@click.option("--weights", type=FILE, help="Weights; without any the fillers' are used.")
@click.option("--phase", type=PHASE, default="TEST", show_default=True, help="Which layers.")
@click.option(
    "--iterations", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--forward-only", is_flag=True, help="Leave the backward passes out.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def time(
    definition: str,
    weights: str | None,
    phase: str,
    iterations: int,
    device: str,
    forward_only: bool,
    as_json: bool,
) -> None:
    """How long each layer of DEFINITION takes, and the whole network.

    Inputs are random. The whole network may take less than its layers together, because layers
    are joined where nobody looks at what is between them.

    \b
    python -m caffe_compat.tools time pose_deploy.prototxt --iterations 5
    """
    import torch

    net, feed = open_net(definition, weights, phase.upper(), 0, ())
    if device != "cpu" and not torch.cuda.is_available():
        raise CaffeCompatError(f"--device {device}: torch finds no GPU here")
    net.to(device)
    shapes = {name: net.graph.blobs[name] for name in net.graph.inputs}
    torch.manual_seed(1)
    # from 0 to 1: where a layer reads classes or places, they are those that exist
    data = {name: torch.rand(shape, device=device) for name, shape in shapes.items()}
    if feed.shapes:
        data.update(feed.batch(0, device))
    forward, backward = _layer_times(net, data, iterations, not forward_only)

    def whole() -> None:
        with torch.no_grad():
            net(**data)

    whole()
    total = _seconds(whole, device, iterations)
    rows = [
        (name, kind, forward[place] * 1e3, backward[place] * 1e3)
        for place, (name, kind) in enumerate((n.layer.name, n.layer.type) for n in net.graph.nodes)
        if place in forward
    ]
    if as_json:
        keys = ("layer", "type", "forward_ms", "backward_ms")
        layers = [dict(zip(keys, row, strict=True)) for row in rows]
        click.echo(json_text({"layers": layers, "network_forward_ms": total * 1e3}, indent=1))
        return
    for name, kind, ahead, back in rows:
        said = f"{printable(name):<24} {kind:<16} forward {ahead:9.3f} ms"
        click.echo(said if forward_only else f"{said}   backward {back:9.3f} ms")
    click.echo(f"layers together: forward {sum(row[2] for row in rows):.1f} ms")
    if not forward_only:
        click.echo(f"layers together: backward {sum(row[3] for row in rows):.1f} ms")
    click.echo(f"network: forward {total * 1e3:.1f} ms (mean of {iterations})")


def _seconds(call: Callable[[], Any], device: str, times: int) -> float:
    """Mean time of a call; waits for a GPU."""
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    wait()
    begin = clock.perf_counter()
    for _ in range(times):
        call()
    wait()
    return (clock.perf_counter() - begin) / times


def _layer_times(
    net: Net, data: dict[str, Tensor], iterations: int, backward: bool
) -> tuple[dict[int, float], dict[int, float]]:
    """Mean forward and backward seconds of each layer, by its place."""
    import torch

    from caffe_compat.engine.plan import using

    net.pack()
    device = next(iter(data.values())).device.type if data else "cpu"
    ahead: dict[int, float] = {}
    back: dict[int, float] = {}
    values = dict(data)
    for place, node in enumerate(net.graph.nodes):
        if node.layer.data:
            continue
        bottoms = [values[name].detach() for name in node.bottoms]
        params = [net.param(param) for param in node.params]

        def run(
            layer: Any = node.layer, params: Any = params, bottoms: Any = bottoms
        ) -> tuple[Tensor, ...]:
            return tuple(layer.forward(params, *bottoms))

        with torch.no_grad(), using(net.engine):
            tops = run()
            ahead[place] = _seconds(run, device, iterations)
        values.update(zip(node.tops, tops, strict=True))
        back[place] = 0.0
        if backward:
            back[place] = _backward_seconds(node.layer, params, bottoms, net, device, iterations)
    return ahead, back


def _backward_seconds(
    layer: Any, params: list[Tensor], bottoms: list[Tensor], net: Net, device: str, times: int
) -> float:
    import torch

    from caffe_compat.engine.plan import using

    leaves = [b.clone().requires_grad_(b.is_floating_point()) for b in bottoms]
    with torch.enable_grad(), using(net.engine):
        tops = [t for t in layer.forward(params, *leaves) if t.requires_grad]
        wanted = [t for t in [*leaves, *params] if t.requires_grad]
        if not tops or not wanted:
            return 0.0
        ones = [torch.ones_like(top) for top in tops]

        def run() -> None:
            torch.autograd.grad(tops, wanted, ones, retain_graph=True, allow_unused=True)

        run()  # torch prepares something in the first pass
        return _seconds(run, device, times)
