"""``cpm-reproduce``: the paper's figures and the check against its numbers."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import FAILED_CHECK, Group, common, emit_json, table

if TYPE_CHECKING:
    from reproduce.check import Outcome

_FIGURES = {"fig8": "fig08", "fig9": "fig09", "fig10": "fig10", "fig12": "fig12"}


@click.group(cls=Group)
@common
def main() -> None:
    """The paper's figures from predictions, and the regression check against published numbers."""


@main.command()
@click.option("--data", default=".", show_default=True, type=click.Path(), help="Folder with lsp/, flic/, mpii/, release/ ...")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(data: str, as_json: bool) -> None:
    """Compare every published number whose data are present; exit 1 if one differs."""
    from reproduce.check import run

    outcomes = run(data)
    if as_json:
        emit_json([dataclasses.asdict(o) for o in outcomes])
    else:
        click.echo(_comparison(outcomes))
        for text in dict.fromkeys(o.missing for o in outcomes if o.missing):
            click.echo(f"missing: {text}")
        counts = {v: sum(o.verdict == v for o in outcomes) for v in ("equal", "differs", "missing")}
        click.echo(", ".join(f"{n} {v}" for v, n in counts.items()))
    if any(o.verdict == "differs" for o in outcomes):
        sys.exit(FAILED_CHECK)


def _comparison(outcomes: Sequence[Outcome]) -> str:
    """A table of published, ours and ours − published."""
    rows = []
    for o in outcomes:
        ours = "-" if o.ours is None else " ".join(f"{v:g}" if v == int(v) else f"{v:.2f}" for v in o.ours)
        difference = "-" if o.difference is None else f"{o.difference:+.3f}"
        rows.append((o.name, " ".join(f"{v:g}" for v in o.published), ours, difference, f"{o.tolerance:g}", o.verdict))
    return table(rows, ("check", "published", "ours", "difference", "tolerance", "verdict"))


def _command(name: str, module: str) -> None:
    @main.command(name)
    @click.option("--data", default=".", show_default=True, type=click.Path(), help="Folder with the data and predictions.")
    @click.option("-o", "--out", default="figures", show_default=True, type=click.Path(), help="Folder for the results.")
    def figure(data: str, out: str) -> None:
        from caffe_compat.files import atomic_write
        from reproduce.benchmarks import Benchmarks
        from reproduce.check import run

        made = importlib.import_module(f"reproduce.figures.{module}")
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        for path in made.make(Benchmarks(data), folder):
            click.echo(str(path))
        if made.KINDS:
            outcomes = run(data, made.KINDS)
            with atomic_write(folder / f"{module}_published.json") as stream:
                stream.write(json.dumps([dataclasses.asdict(o) for o in outcomes], indent=1).encode())
            click.echo(f"{folder / f'{module}_published.json'}\n")
            click.echo(_comparison(outcomes))

    figure.help = f"Regenerate Figure {name.removeprefix('fig')} (numbers as JSON and CSV, picture as PNG and PDF)."


for _name, _module in _FIGURES.items():
    _command(_name, _module)

if __name__ == "__main__":
    main()
