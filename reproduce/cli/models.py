"""``cpm-models``: the networks that come with the toolkit and the released ones."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import CommandGroup
from caffe_compat.errors import CaffeCompatError, UnknownInput, shape_text
from caffe_compat.files import check_target
from reproduce.cli.common import (
    FILE,
    MODEL,
    SEED,
    check_input_size,
    common,
    emit_json,
    engine_option,
    examples,
    json_option,
    prototxt_option,
    say_line,
    table,
)

if TYPE_CHECKING:
    from caffe_compat.engine.costs import ConvolutionShape
    from caffe_compat.engine.plan import Choice
    from caffe_compat.engine.rates import Rates
    from caffe_compat.network.graph import Graph
    from reproduce.network.receptive import LayerField


@click.group(
    cls=CommandGroup,
    epilog=examples(
        "cpm-models list",
        "cpm-models info leeds-small",
        "cpm-models rf pose_iter_985000_addLEEDS.caffemodel",
    ),
)
@common
def main() -> None:
    """Networks in models/ and the models that the authors released."""


@main.command("list", epilog=examples("cpm-models list --json"))
@json_option
def list_(as_json: bool) -> None:
    """List all known networks."""
    from reproduce.network.identify import embedded_weights, how_to_get, released

    rows = [(name, "in models/", "", str(file)) for name, file in embedded_weights().items()]
    rows += [(m.name, f"released {m.id}", m.published, m.file) for m in released()]
    if as_json:
        emit_json(
            [dict(zip(("name", "kind", "published", "file"), row, strict=True)) for row in rows]
        )
        return
    click.echo(table(rows, ("name", "kind", "published", "file")))
    click.echo(f"\n{how_to_get()}")


@main.command(epilog=examples("cpm-models info leeds-small"))
@click.argument("name")
def info(name: str) -> None:
    """Tell what is known about a network."""
    from reproduce.network.identify import (
        embedded_models,
        how_to_get,
        released_named,
        weights_of,
    )

    if name in embedded_models():
        click.echo((embedded_models()[name] / "README.md").read_text(encoding="utf-8"))
        return
    model = released_named(name)
    if model is None:
        raise CaffeCompatError(f"no model is called '{name}'; see 'cpm-models list'")
    click.echo(f"{model.title}: released model {model.id}")
    click.echo(f"file        {model.file}\ndefinition  {model.prototxt}")
    click.echo(
        f"network     {model.stages} stages, "
        f"{f'{model.parts} parts' if model.parts else 'one map of body centres'}, "
        f"{model.parameters:,} parameters"
    )
    click.echo(f"used by     {model.demo}")
    click.echo(f"published   {model.published}")
    click.echo(f"here        {weights_of(model) or 'no: ' + how_to_get()}")


@main.command(
    epilog=examples(
        "cpm-models path leeds-small",
        'cpm-convert "$(cpm-models path leeds-small)" --to npz',
    )
)
@click.argument("name")
def path(name: str) -> None:
    """Print the file of a network, for --model."""
    from reproduce.network.identify import model_file

    click.echo(model_file(name))


@main.command(epilog=examples("cpm-models random --like mpii-vgg -o random.caffemodel"))
@click.option(
    "--like",
    "model",
    default="mpii",
    show_default=True,
    help="The released model (name or number) whose architecture it gets.",
)
@click.option("--stages", type=click.IntRange(1, 64), help="Another number of stages.")
@click.option(
    "--parts", type=click.IntRange(1, 1000), help="Another number of parts, without the background."
)
@click.option("--input", "size", default=368, show_default=True, help="Input height and width.")
@click.option("--seed", default=1, show_default=True, type=SEED, help="For Caffe's fillers.")
@click.option("-o", "--out", required=True, type=FILE, help="The .caffemodel to write.")
@click.option("--json", "as_json", is_flag=True, help="Say what was written as JSON.")
def random(
    model: str,
    stages: int | None,
    parts: int | None,
    size: int,
    seed: int,
    out: str,
    as_json: bool,
) -> None:
    """Write a freshly filled (untrained) pose machine as a .caffemodel, definition included."""
    check_input_size(size)
    check_target(out)
    from caffe_compat import write_weights
    from caffe_compat.network.net import Net
    from reproduce.network.identify import released
    from reproduce.network.netgen import deploy

    like = next((m for m in released() if model in (m.name, str(m.id), m.file)), None)
    if like is None:
        known = ", ".join(m.name for m in released())
        raise CaffeCompatError(f"--like {model}: the released models are {known}")
    if parts is not None and not like.parts:
        raise CaffeCompatError(f"--parts: the network '{like.name}' has one map and no parts")
    if stages == 1 and not like.parts:
        raise CaffeCompatError(
            "--stages 1: a network of one map is known by its stages handing the map on; give 2 or "
            "more"
        )
    changes = {"stages": stages, "parts": parts}
    config = like.config(size, **{k: v for k, v in changes.items() if v is not None})
    made = Net(deploy(config), seed=seed)
    write_weights(out, made.weights(), made.graph.spec)
    if as_json:
        emit_json({"written": out, "parameters": made.graph.count})
        return
    say_line(f"{out}: written, {made.graph.count:,} parameters")


@main.command(
    epilog=examples(
        "cpm-models plan leeds-small --input 368x368", "cpm-models plan leeds-small --calibrate"
    )
)
@click.argument("model", type=MODEL)
@prototxt_option("Definition")
@click.option("--input", "size", help="HxW of the input (default: the definition's).")
@engine_option
@click.option("--calibrate", is_flag=True, help="Measure this machine's rates anew, and keep them.")
@json_option
def plan(
    model: str,
    prototxt: str | None,
    size: str | None,
    engine: Any,
    calibrate: bool,
    as_json: bool,
) -> None:
    """Tell how each convolution of MODEL runs on the CPU, and why (a released name, a weight file
    or a prototxt), and by which rates.

    The choice follows rates that are measured once per machine and kept in the user's cache folder;
    CPM_RATES=default ignores them and takes the built-in ones.
    """
    from torch import get_num_threads

    from caffe_compat.engine import rates
    from caffe_compat.engine.plan import Engine
    from caffe_compat.network.planned import planned

    found, source = rates.calibrate() if calibrate else rates.rates_in_use()
    layers = planned(_graph(model, prototxt, size), Engine(engine, rates=found))
    if as_json:
        if calibrate:
            _say_rates(found, source, err=True)
        emit_json([_plan_facts(*layer) for layer in layers])
        return
    head = ("layer", "convolution", "input", "runs", "tile", "MB", "est. ms", "why")
    click.echo(table([_plan_row(*layer) for layer in layers], head))
    total = sum(choice.memory for _, _, choice in layers) / 1e6
    built_in = found == rates.Rates()
    cores = rates.BUILT_IN_OF if built_in else f"{get_num_threads()} thread(s) of this machine"
    click.echo(
        f"transformed kernels take {total:.0f} MB; times are the cost model's, of one image on "
        f"{cores}"
    )
    _say_rates(found, source)


def _say_rates(rates: Rates, source: str, *, err: bool = False) -> None:
    """Print the rates of the cost model and where they come from."""
    say_line(f"rates, in 1e9 a second, {source}:", err=err)
    for name, value in dataclasses.asdict(rates).items():
        click.echo(f"  {name} {value / 1e9:.0f}", err=err)


def _plan_facts(layer: str, conv: ConvolutionShape, choice: Choice) -> dict[str, Any]:
    """How a layer runs, for ``plan --json``."""
    return {
        "layer": layer,
        "weight": list(conv.weight),
        "input": list(conv.size),
        "kind": choice.kind,
        "tile": choice.tiling.n if choice.tiling else None,
        "kernel_bytes": choice.memory,
        "why": choice.why,
        "direct_ms": round(choice.direct * 1e3, 3),
        "chosen_ms": round(choice.seconds * 1e3, 3),
    }


def _plan_row(layer: str, conv: ConvolutionShape, choice: Choice) -> tuple[str, ...]:
    """How a layer runs, as a row of ``plan``'s table."""
    channels_out, channels_in, *kernel = conv.weight
    estimate = f"{choice.direct * 1e3:.1f} -> {choice.seconds * 1e3:.1f}" if choice.direct else "-"
    return (
        layer,
        f"{channels_in}->{channels_out} k{'x'.join(map(str, kernel))}",
        "x".join(map(str, conv.size)),
        choice.kind,
        f"{choice.tiling.n}" if choice.tiling else "-",
        f"{choice.memory / 1e6:.1f}" if choice.memory else "-",
        estimate,
        choice.why,
    )


@main.command(epilog=examples("cpm-models rf leeds-small"))
@click.argument("model", type=MODEL)
@prototxt_option("Definition")
@json_option
def rf(model: str, prototxt: str | None, as_json: bool) -> None:
    """Tell what each layer of MODEL sees: of the image, and of the previous stage's belief maps."""
    from reproduce.network import receptive

    graph = _graph(model, prototxt, None)
    rows = receptive.table(graph)
    if as_json:
        emit_json([_field_facts(row) for row in rows])
        return
    head = ("layer", "type", "kernel", "stride", "sees px", "steps px", "of belief maps")
    click.echo(table([_field_row(row) for row in rows], head))
    both = zip(receptive.stages(graph), receptive.stages(graph, small_pools=True), strict=True)
    for (name, own, maps), (_, paper, _) in both:
        seen = ""
        if maps:
            seen = ", all" if maps.whole else f", {maps.size}x{maps.size}"
            seen += " of the belief maps"
        note = (
            f" ({paper.size} if its 3x3 pools counted as 2x2, as in the paper's figures)"
            if paper != own
            else ""
        )
        image = "the whole picture" if own.whole else f"{own.size} pixels"
        say_line(f"{name}: {image}{seen}{note}")


def _field_facts(row: LayerField) -> dict[str, Any]:
    """What a layer sees, for ``rf --json``."""
    return {
        "layer": row.layer,
        "type": row.type,
        "kernel": row.kernel,
        "stride": row.stride,
        "image": row.image.size,
        "jump": row.image.jump,
        "whole_image": row.image.whole,
        "belief_maps": row.belief.size if row.belief else None,
    }


def _field_row(row: LayerField) -> tuple[str, ...]:
    """What a layer sees, as a row of ``rf``'s table."""
    layer = map(str, (row.layer, row.type, row.kernel, row.stride))
    image = row.image.text, str(row.image.jump)
    return (*layer, *image, row.belief.text if row.belief else "-")


def _graph(model: str, prototxt: str | None, size: str | None) -> Graph:
    """The graph of a weight file or a prototxt, at an input size."""
    from caffe_compat import read_net
    from caffe_compat.conversion.convert import convert
    from caffe_compat.network.graph import build

    if model.endswith((".prototxt", ".pbtxt")):
        if prototxt is not None:
            raise CaffeCompatError(
                f"--prototxt {prototxt}: {model} is a definition itself; give one of the two"
            )
        try:
            graph = build(read_net(model))
        except UnknownInput as error:
            raise CaffeCompatError(
                f"{model}: does not tell the size of its input '{error.blob}'; give a deploy "
                "definition, or a model, for which cpm-convert has --input-shape"
            ) from None
    else:
        graph = convert(model, prototxt=prototxt).graph
    if size is None:
        return graph
    try:
        height, width = (int(v) for v in size.lower().split("x"))
    except ValueError:
        raise CaffeCompatError(f"--input '{size}': expected HxW, for example 368x368") from None
    name = graph.inputs[0] if graph.inputs else ""
    if not name or len(graph.blobs[name]) != 4:
        has = f"the first input '{name}' is {shape_text(graph.blobs[name])}" if name else "no input"
        raise CaffeCompatError(f"--input {size}: expected an input N×C×H×W, found {has}")
    return build(graph.spec, input_shapes={name: (*graph.blobs[name][:2], height, width)})


if __name__ == "__main__":
    main()
