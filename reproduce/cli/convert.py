"""``cpm-convert``: any Caffe model to PyTorch, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import FAILED_CHECK, Command
from caffe_compat.errors import CaffeCompatError, shape_text
from caffe_compat.files import check_target
from reproduce.cli.common import (
    FILE,
    MODEL,
    Real,
    common,
    emit_json,
    parse_shapes,
    say_line,
    table,
)

if TYPE_CHECKING:
    from caffe_compat.conversion.convert import Conversion, WeightsOnly
    from caffe_compat.conversion.verify import Comparison
    from reproduce.network.identify import Identity

_ENDINGS = {
    "safetensors": ".safetensors",
    "pth": ".pth",
    "npz": ".npz",
    "caffemodel": ".converted.caffemodel",
    "h5": ".caffemodel.h5",
    "onnx": ".onnx",
}

# the last suffix of a name is enough to tell the format
_BY_ENDING = {Path(f"model{ending}").suffix: name for name, ending in _ENDINGS.items()}
_TOLERANCE = 1e-4
_TOLD = ("left out", "unused", "mismatch", "missing")  # statuses whose reason is printed

_EPILOG = """
\b
Examples:
  cpm-convert pose_iter_985000_addLEEDS.caffemodel
  cpm-convert lenet.caffemodel --prototxt lenet.prototxt --to pth
  cpm-convert converted.safetensors --to caffemodel -o again.caffemodel
  cpm-convert model.caffemodel --to onnx --dynamic-size
  cpm-convert resnet.caffemodel --merge-batch-norm --to onnx
  cpm-convert model.caffemodel --verify caffe_blobs.npz
"""


def _report(made: Conversion, identity: Identity, output: str) -> dict[str, Any]:
    source = made.weights.source
    return {
        "source": source.path,
        "sha256": source.sha256(),
        "container": source.container,
        "format": source.format,
        "dialect": source.dialect or "no difference",
        "dialect_evidence": list(source.evidence),
        "notes": [*made.notes, *source.notes],
        "definition": made.origin,
        "model": identity.text,
        "stages": identity.stages,
        "parts": identity.parts,
        "released": [m.id for m in ([identity.named] if identity.named else identity.candidates)],
        "inputs": {name: list(made.graph.blobs[name]) for name in made.graph.inputs},
        "outputs": {name: list(made.graph.blobs[name]) for name in made.graph.outputs},
        "parameters": made.graph.count,
        "layers": [
            {
                "name": r.name,
                "type": r.type,
                "shapes": [list(s) for s in r.shapes],
                "status": r.status,
                "detail": r.detail,
            }
            for r in made.match.rows
        ],
        "dropped": [{"name": d.name, "type": d.type, "reason": d.reason} for d in made.dropped],
        "totals": made.match.totals(),
        "output": output,
    }


def _print(report: dict[str, Any]) -> None:
    rows = [
        (
            r["name"],
            r["type"],
            " ".join(map(shape_text, r["shapes"])),
            f"{r['status']}: {r['detail']}" if r["status"] in _TOLD else r["status"],
        )
        for r in report["layers"]
    ]
    rows += [(d["name"], d["type"], "", f"left out: {d['reason']}") for d in report["dropped"]]
    click.echo(table(rows, ("layer", "type", "parameters", "status")))
    click.echo()
    form = f" {report['format']}" if report["format"] else ""
    say_line(f"source      {report['source']} ({report['container']}{form})")
    evidence = f" ({report['dialect_evidence'][0]})" if report["dialect_evidence"] else ""
    say_line(f"dialect     {report['dialect']}{evidence}")
    say_line(f"definition  {report['definition']}")
    say_line(f"model       {report['model']}")
    shapes = [f"{n} {shape_text(s)}" for n, s in {**report["inputs"], **report["outputs"]}.items()]
    say_line(f"blobs       {', '.join(shapes)}")
    totals = ", ".join(f"{count} {status}" for status, count in report["totals"].items())
    click.echo(
        f"totals      {len(report['layers'])} layers ({totals}), {report['parameters']:,} "
        "parameters"
    )
    for note in report["notes"]:
        say_line(f"note        {note}")


def _verify(made: Conversion, dump: str, tolerance: float, as_json: bool) -> Comparison:
    from caffe_compat.conversion.verify import load_dump, verify
    from caffe_compat.network.net import Net

    arrays = load_dump(dump)
    report = verify(Net(made.graph, made.weights, strict=False), arrays, tolerance=tolerance)
    if as_json:
        emit_json(
            {
                "verified": report.first is None,
                "tolerance": report.tolerance,
                "blobs": [c.__dict__ for c in report.checks],
                "first": report.first.blob if report.first else None,
                "causes": list(report.causes),
                "notes": list(report.notes),
            }
        )
        return report
    rows = [
        (c.blob, f"{c.layer} ({c.type})", f"{c.error:.2e}", f"{c.scale:.3g}", c.verdict)
        for c in report.checks
    ]
    click.echo(table(rows, ("blob", "layer", "max error", "max value", "verdict")))
    click.echo()
    for note in report.notes:
        say_line(f"note: {note}")
    if report.first is None:
        click.echo(
            f"all {len(report.checks)} blobs agree within {tolerance:g} of each blob's "
            "largest value"
        )
    else:
        first = report.first
        where = first.detail or f"by {first.error:.3g} (largest recorded value {first.scale:.3g})"
        say_line(
            f"first difference: blob '{first.blob}' of layer '{first.layer}' ({first.type}), "
            f"{where}"
        )
        for cause in report.causes:
            say_line(f"likely cause: {cause}")
    return report


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("model", type=MODEL)
@click.option("--prototxt", type=FILE, help="Deploy definition; default: the one inside the model.")
@click.option(
    "--to",
    type=click.Choice(list(_ENDINGS)),
    help="Output format; default: by -o's ending, else safetensors.",
)
@click.option("-o", "--out", type=FILE, help="Output file; default: MODEL with another ending.")
@click.option(
    "--dialect",
    type=click.Choice(["upstream", "fork"]),
    help="Schema of a binary model, if detection errs.",
)
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    callback=parse_shapes,
    metavar="NAME:N,C,H,W",
    help="Size of an input that the definition does not tell.",
)
@click.option(
    "--strict/--no-strict",
    default=True,
    show_default=True,
    help="--no-strict fills missing parameters and drops superfluous ones, as Caffe does.",
)
@click.option(
    "--merge-batch-norm",
    "merge",
    is_flag=True,
    help="Put BatchNorm and Scale layers into the convolutions before them.",
)
@click.option(
    "--fixed-batch", is_flag=True, help="For ONNX: the batch of the definition only, no other."
)
@click.option(
    "--dynamic-size", is_flag=True, help="For ONNX: heights and widths of inputs may change, too."
)
@click.option(
    "--verify",
    "dump",
    type=FILE,
    help="Compare with recorded blobs (.npz) instead of converting.",
)
@click.option(
    "--tolerance",
    type=Real(min=0),
    help=f"For --verify, as a fraction of a blob's largest value (default: {_TOLERANCE}).",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@common
def main(
    model: str,
    prototxt: str | None,
    to: str | None,
    out: str | None,
    dialect: Any,
    shapes: dict[str, tuple[int, ...]],
    strict: bool,
    merge: bool,
    fixed_batch: bool,
    dynamic_size: bool,
    dump: str | None,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Convert a Caffe MODEL to PyTorch (or between formats), and say layer by layer what was done.

    Reads .caffemodel of any age and schema, .caffemodel.h5, and what this command wrote. The
    network comes from the definition inside the model, training-only layers left out, or from
    --prototxt. Nothing is written unless every parameter fits. Of a model whose own definition
    cannot be run here (unknown layers, an input of unknown size) the weights alone are written.
    """
    from caffe_compat.conversion.convert import convert, weights_only
    from caffe_compat.conversion.merge import merge_batch_norm
    from caffe_compat.errors import UnknownInput, UnsupportedLayer

    if dump is None and tolerance is not None:
        raise CaffeCompatError("--tolerance goes with --verify")
    if dump is not None:
        _check_beside_verify(out, to, merge)
    chosen = _format(out, to)
    if (fixed_batch or dynamic_size) and chosen != "onnx":
        raise CaffeCompatError("--fixed-batch and --dynamic-size are for --to onnx")
    try:
        made = convert(
            model, prototxt=prototxt, dialect=dialect, input_shapes=shapes, strict=strict
        )
    except (UnsupportedLayer, UnknownInput) as error:
        # a definition that was given on purpose must be usable
        asked = prototxt is not None
        # and ONNX files hold a network, not weights alone
        if dump is not None or asked or merge or chosen == "onnx":
            raise
        target = _output(model, prototxt, out, chosen)
        loose = weights_only(model, str(error), dialect=dialect)
        loose.write(target, chosen)
        _report_weights(loose, target, as_json)
        return
    if dump is not None:
        report = _verify(made, dump, _TOLERANCE if tolerance is None else tolerance, as_json)
        raise SystemExit(0 if report.first is None else FAILED_CHECK)
    if merge:
        made = merge_batch_norm(made)
    target = _output(model, prototxt, out, chosen)
    sizes = {}
    if chosen == "onnx":
        sizes = {"dynamic_batch": not fixed_batch, "dynamic_size": dynamic_size}
    name = made.weights.source.metadata.get("source_file") or model
    facts = _write(made, target, chosen, name, sizes)
    if as_json:
        emit_json(facts)
    else:
        _print(facts)
        say_line(f"written     {target} ({Path(target).stat().st_size / 1e6:.1f} MB)")


def _write(
    made: Conversion, target: str, chosen: str, name: str, sizes: dict[str, bool]
) -> dict[str, Any]:
    """Write the network; what is to be reported of it.

    Parameters
    ----------
    chosen : the format.
    name : file name of the model, from which its kind is told where the network is not enough.
    sizes : for ONNX, which sizes may change.
    """
    from caffe_compat.conversion.onnx import silenced
    from reproduce.network.identify import identify
    from reproduce.people import part_names

    identity = identify(made.graph, name)
    metadata = {"model": identity.text}
    if parts := part_names.of_model(made):
        metadata["parts"] = ",".join(parts)
    part_names.kept(made).write(target, chosen, metadata=metadata, **sizes)
    facts = _report(made, identity, target)
    if chosen == "onnx":
        facts["notes"] += [
            f"blob '{blob}' is read by Silence alone, so it is an output of the ONNX model"
            for blob in silenced(made.graph)
        ]
    return facts


def _check_beside_verify(out: str | None, to: str | None, merge: bool) -> None:
    """See that no option changes or writes a network that is only compared.

    Raises
    ------
    CaffeCompatError : one does.
    """
    if merge:
        raise CaffeCompatError(
            "--merge-batch-norm changes the blobs that --verify compares: give one of the two"
        )
    if out is not None or to is not None:
        raise CaffeCompatError("--verify writes nothing: leave out -o and --to")


def _output(model: str, prototxt: str | None, out: str | None, to: str) -> str:
    """The file to write, which is never one of those that were read."""
    target = _target(model, out, to)
    for what, name in (("model", model), ("definition", prototxt)):
        if name is not None and Path(target).resolve() == Path(name).resolve():
            raise CaffeCompatError(f"{target} is the {what} itself; choose another file with -o")
    return target


def _report_weights(loose: WeightsOnly, target: str, as_json: bool) -> None:
    """What was done where the network cannot be built."""
    source = loose.weights.source
    layers = [
        {"name": e.name, "type": e.type, "shapes": [list(b.shape) for b in e.blobs]}
        for e in loose.weights.layers
    ]
    if as_json:
        emit_json(
            {
                "source": source.path,
                "sha256": source.sha256(),
                "container": source.container,
                "format": source.format,
                "notes": list(source.notes),
                "runs": False,
                "reason": loose.reason,
                "parameters": loose.weights.count,
                "layers": layers,
                "output": target,
            }
        )
        return
    rows = [
        (e.name, e.type or "unknown", " ".join(shape_text(b.shape) for b in e.blobs), "weights")
        for e in loose.weights.layers
    ]
    click.echo(table(rows, ("layer", "type", "parameters", "status")))
    click.echo()
    say_line(f"source      {source.path} ({source.container})")
    click.echo(f"totals      {len(rows)} layers with {loose.weights.count:,} parameters")
    for note in source.notes:
        say_line(f"note        {note}")
    say_line(f"weights only: the network cannot be built here: {loose.reason}")
    click.echo("to run it   give a definition of supported layers and known sizes with --prototxt")
    say_line(f"written     {target} ({Path(target).stat().st_size / 1e6:.1f} MB)")


def _format(out: str | None, to: str | None) -> str:
    """The output's format, of ``--to`` or of the name's ending; a name that says another one is
    refused.

    Raises
    ------
    CaffeCompatError : unknown ending, or one that belongs to another format.
    """
    if out is None:
        return to or "safetensors"
    ending = Path(out).suffix.lower()
    said = _BY_ENDING.get(ending)
    known = ", ".join(_BY_ENDING)
    if to is None:
        if said is None:
            raise CaffeCompatError(
                f"-o {out}: no format has the ending '{ending}'; known: {known}; or say --to"
            )
        return said
    if (said is not None and said != to) or (to == "h5" and said is None):
        fitting = ", ".join(name for name, format_ in _BY_ENDING.items() if format_ == to)
        raise CaffeCompatError(
            f"-o {out}: the ending '{ending}' does not belong to --to {to}; expected {fitting}"
        )
    return to


def _target(model: str, out: str | None, to: str) -> str:
    """The output's name: as given, else the model's with another ending; beside the model, but not
    where its owner made it read-only, or where it came with this package."""
    from reproduce.network.identify import embedded_models

    if out is not None:
        check_target(out)
        return out
    stem = Path(model).name
    for ending in (
        ".caffemodel.h5",
        ".converted.caffemodel",
        ".caffemodel",
        ".safetensors",
        ".pth",
        ".npz",
    ):
        if stem.endswith(ending):
            stem = stem[: -len(ending)]
            break
    for name, folder in embedded_models().items():
        if Path(model).parent.resolve() == folder.resolve():
            click.echo(f"note: {name} came with this package; the output goes here", err=True)
            return name + _ENDINGS[to]
    beside = Path(model).with_name(stem + _ENDINGS[to])
    if beside.parent.resolve().parts[1:2] in (("dev",), ("proc",)):  # /dev/stdin < model
        raise CaffeCompatError(f"{model}: no folder for results; give the result's name with -o")
    writable = os.access(model, os.W_OK) and os.stat(model).st_mode & 0o222
    if writable and os.access(beside.parent, os.W_OK):
        return str(beside)
    click.echo(f"note: {model} is read-only; the output goes into this folder", err=True)
    return beside.name


if __name__ == "__main__":
    main()
