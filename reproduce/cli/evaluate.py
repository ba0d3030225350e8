"""``cpm-evaluate``: predictions scored as the papers score them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffe_compat.errors import CaffeCompatError

from .common import Command, common, emit_json, table

if TYPE_CHECKING:
    from reproduce.benchmarks import Benchmarks
    from reproduce.evaluation import EvalResult

_EPILOG = """
\b
Examples:
  cpm-evaluate LSP_prediction_model_LSP_6s.mat --dataset lsp --data DIR
  cpm-evaluate mine.npz theirs.mat --dataset lsp --data DIR --out scores
  cpm-evaluate FLIC_prediction_model_FLIC_4s.mat --dataset flic --protocol release --data DIR
"""


def _score(path: str, dataset: str, annotation: str, protocol: str, data: Benchmarks) -> EvalResult:
    import numpy as np

    from reproduce import evaluation, predictions

    guess = predictions.read(path)
    if dataset == "lsp":
        return evaluation.score_lsp(guess, data.lsp_truth if annotation == "pc" else data.lsp_truth_oc)
    if dataset == "flic":
        if guess.shape[1] == 9:
            normalise = "truth" if protocol == "paper" else "prediction"
            return evaluation.score_flic(guess, data.flic_tests[0], normalise=normalise)
        raw = data.flic_tests[1]
        reference = np.linalg.norm(raw[:, 0] - raw[:, 7], axis=1)
        joints = guess.shape[1]
        return evaluation.pck(guess, raw[:, :joints], reference, names=evaluation.FLIC_JOINTS[:joints])
    return evaluation.score_mpii(guess, *data.mpii_valid)


def _groups(dataset: str) -> dict[str, tuple[int, ...]]:
    from reproduce.evaluation import FLIC_GROUPS, LSP_GROUPS, MPII_COUNTED, MPII_GROUPS

    if dataset == "lsp":
        return LSP_GROUPS
    if dataset == "flic":
        return FLIC_GROUPS
    return {name: tuple(MPII_COUNTED.index(j) for j in joints) for name, joints in MPII_GROUPS.items()}


def _warn_other_annotation(path: str, annotation: str, result: EvalResult, data: Benchmarks) -> None:
    """Person-centric predictions against observer-centric truth (or the reverse) lose many points: say so."""
    from reproduce.benchmarks import Missing

    other = "oc" if annotation == "pc" else "pc"
    try:
        there = _score(path, "lsp", other, "paper", data)
    except Missing:
        return
    gain = there.total[-1] - result.total[-1]
    if gain > 5:
        click.echo(
            f"warning: {path} scores {there.total[-1]:.1f} against {other} annotations, {result.total[-1]:.1f} against "
            f"{annotation}: these look like {other} predictions (--annotation {other})", err=True
        )  # fmt: skip


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("predictions", nargs=-1, required=True, type=click.Path())
@click.option("--dataset", type=click.Choice(["lsp", "flic", "mpi"]), required=True)
@click.option("--data", default=".", show_default=True, type=click.Path(), help="Folder with lsp/, flic/ or mpii/.")
@click.option("--annotation", type=click.Choice(["pc", "oc"]), default="pc", show_default=True,
              help="LSP: person- or observer-centric truth.")  # fmt: skip
@click.option("--protocol", type=click.Choice(["paper", "release"]), default="paper", show_default=True,
              help="FLIC: normalise by the truth (paper) or by the prediction (released script).")  # fmt: skip
@click.option("--threshold", type=float, help="Of the table; default 0.2, MPII 0.5.")
@click.option("--out", type=click.Path(), help="Folder for curves (PNG, PDF) and numbers (CSV, JSON).")
@click.option("--json", "as_json", is_flag=True, help="Table as JSON.")
@common
def main(
    predictions: tuple[str, ...], dataset: str, data: str, annotation: str, protocol: str, threshold: float | None,
    out: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Score PREDICTIONS (.mat, .h5, .npz, .json; 1-based, the data set's joint order): PCK on LSP and FLIC, PCKh on MPII.

    MPII is scored on Tompson's validation split; the test set's truth is not public.
    """
    from reproduce.benchmarks import Benchmarks

    store = Benchmarks(data)
    at = threshold if threshold is not None else (0.5 if dataset == "mpi" else 0.2)
    groups = _groups(dataset)
    results: dict[str, EvalResult] = {}
    rows: list[dict[str, object]] = []
    for path in predictions:
        result = _score(path, dataset, annotation, protocol, store)
        results[Path(path).stem if Path(path).stem not in results else path] = result
        if dataset == "lsp":
            _warn_other_annotation(path, annotation, result, store)
        kept = {name: joints for name, joints in groups.items() if max(joints) < len(result.names)}
        rows.append({
            "predictions": path,
            **{name: round(result.group(joints, at), 2) for name, joints in kept.items()},
            "total": round(float(result.total[result.at(at)]), 2),
            "auc": round(result.auc, 2),
        })  # fmt: skip
    if len({tuple(row) for row in rows}) > 1:
        raise CaffeCompatError("the files hold different joints and do not fit into one table; score them one by one")
    if as_json:
        emit_json(rows)
    else:
        head = list(rows[0])
        click.echo(f"{'PCKh' if dataset == 'mpi' else 'PCK'}@{at:g}, %")
        click.echo(table([[str(row[name]) for name in head] for row in rows], head))
    if out:
        _write(results, groups, Path(out), at, dataset, rows)


def _write(
    results: dict[str, EvalResult], groups: dict[str, tuple[int, ...]], out: Path, at: float, dataset: str,
    rows: list[dict[str, object]],
) -> None:  # fmt: skip
    from caffe_compat.files import atomic_write
    from reproduce.figures.common import Curve, draw, provenance, write_numbers

    out.mkdir(parents=True, exist_ok=True)
    panels = {"total": [Curve(n, r.thresholds, r.total) for n, r in results.items()]}
    for part, joints in groups.items():
        panels[part] = [
            Curve(n, r.thresholds, r.per_joint[:, list(joints)].mean(1)) for n, r in results.items()
            if max(joints) < len(r.names)
        ]  # fmt: skip
    panels = {name: curves for name, curves in panels.items() if curves}
    path = out / f"{dataset}_curves"
    write_numbers(panels, path, provenance("cpm-evaluate", ", ".join(results)))
    draw(panels, path, xlabel="normalised distance", ylabel="detection rate, %", columns=4 if len(panels) > 4 else 2, at=at)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(out / f"{dataset}_table.csv") as stream:
        stream.write(text.getvalue().encode())
    click.echo(f"curves and numbers written to {out}")


if __name__ == "__main__":
    main()
