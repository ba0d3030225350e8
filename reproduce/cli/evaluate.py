"""``cpm-evaluate``: predictions scored as the papers score them."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import Command
from caffe_compat.errors import CaffeCompatError
from reproduce.cli.common import (
    BENCHMARK_NAME,
    FILE,
    NameOf,
    Real,
    common,
    data_option,
    emit_json,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from reproduce.benchmarks.benchmark import Benchmark, Floats
    from reproduce.benchmarks.measures import EvalResult
    from reproduce.benchmarks.scoring import Measure

    _Against = Callable[[str], EvalResult]

_AREA = "auc"  # name of the column, and with a part behind it of the part's
_EPILOG = """
\b
Examples:
  cpm-evaluate LSP_prediction_model_LSP_6s.mat --dataset lsp --data DIR
  cpm-evaluate mine.npz theirs.mat --dataset lsp --data DIR --threshold 0.1 --out scores
  cpm-evaluate mine.mat --dataset lsp --measure pcp --data DIR
  cpm-evaluate FLIC_prediction_model_FLIC_4s.mat --dataset flic --protocol release --data DIR
"""


def _norm_names() -> list[str]:
    from reproduce.benchmarks.registry import benchmarks

    return sorted({norm for one in benchmarks().values() for norm in one.norms})


def _warn_other_annotation(
    path: str, called: str, annotation: str, kinds: Iterable[str], against: _Against
) -> None:
    """Person-centric predictions against observer-centric truth (or the reverse) lose many points:
    say so.

    Parameters
    ----------
    called : what the measure is called.
    annotation : the kind of truth that scores are made with.
    kinds : all kinds that there are.
    against : makes the score with a kind.
    """
    from reproduce.benchmarks.benchmark import Missing

    try:
        results = {kind: against(kind) for kind in kinds}
    except Missing as error:
        click.echo(
            f"note: {path}: not compared with the other annotations, which would show whether left "
            f"and right are exchanged: {error}",
            err=True,
        )
        return
    ours = results[annotation].total[-1]
    for other, result in results.items():
        if result.total[-1] > ours + 5:
            click.echo(
                f"warning: {path} scores {called}@{result.thresholds[-1]:g} "
                f"{result.total[-1]:.1f} against {other} annotations, {ours:.1f} against "
                f"{annotation}: these look like {other} predictions (--annotation {other})",
                err=True,
            )


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("predictions", nargs=-1, required=True, type=FILE)
@click.option("--dataset", type=BENCHMARK_NAME, required=True)
@data_option("Folder with lsp/, flic/ or mpii/.")
@click.option(
    "--annotation",
    type=click.Choice(["pc", "oc"]),
    help="LSP: person- or observer-centric truth (default: pc).",
)
@click.option(
    "--protocol",
    type=click.Choice(["paper", "release"]),
    default="paper",
    show_default=True,
    help="FLIC: normalise by the truth (paper) or by the prediction (released script).",
)
@click.option(
    "--measure",
    type=click.Choice(["pck", "pcp"]),
    default="pck",
    show_default=True,
    help="Key points within a distance (PCKh on MPII), or limbs (strict PCP).",
)
@click.option(
    "--norm",
    type=NameOf("norm", _norm_names),
    help="What an error is divided by: torso = left shoulder to right hip (LSP, FLIC), "
    "prediction = the same of the prediction, head = head segment (MPII: 0.6 of the head box), "
    "box = torso box (FLIC), pdj = right shoulder to left hip (FLIC).",
)
@click.option(
    "--base",
    type=click.Choice(["0", "1"]),
    default="1",
    show_default=True,
    help="What the predictions call the first pixel (the data sets and MATLAB: 1; OpenCV: 0). "
    "OpenPose's and COCO's JSON counts from 0 in any case.",
)
@click.option(
    "--threshold",
    "at",
    type=Real(min=0),
    multiple=True,
    help="Of the table, may be given several times; default 0.2, MPII and PCP 0.5.",
)
@click.option("--out", type=FILE, help="Folder for curves (PNG, PDF, SVG) and numbers (CSV, JSON).")
@click.option("--json", "as_json", is_flag=True, help="Table as JSON.")
@common
def main(out: str | None, **options: Any) -> None:
    """Score PREDICTIONS (.mat, .h5, .npz, .json; people and joints in the data set's order): PCK on
    LSP and FLIC, PCKh on MPII.

    Joints of an .npz, .mat or .h5 file that names its parts, as cpm-predict's do, or of COCO JSON
    with categories, may have any order; COCO's results have no names, and have to have the data
    set's.
    MPII is scored on Tompson's validation split; the test set's truth is not public. A file with
    three axes is read as people x joints x 2 or in the reversed order, as MATLAB stores it.
    """
    from caffe_compat.files import results_folder

    with results_folder(out) if out else contextlib.nullcontext():
        _evaluate(out=out, **options)


def _evaluate(
    predictions: tuple[str, ...],
    dataset: str,
    data: str,
    annotation: str | None,
    protocol: str,
    measure: Measure,
    norm: str | None,
    base: str,
    at: tuple[float, ...],
    out: str | None,
    as_json: bool,
) -> None:
    """Score, print, and write into the folder that is there already."""
    import numpy as np

    from reproduce.benchmarks.registry import open_benchmark
    from reproduce.benchmarks.scoring import (
        chosen_annotation,
        chosen_norm,
        score,
    )

    benchmark = open_benchmark(dataset, data)
    limbs = measure == "pcp"
    by = chosen_norm(benchmark, norm or "", measure, of_script=protocol == "release")
    kind = chosen_annotation(benchmark, annotation or "")
    thresholds = np.array(at or [0.5 if limbs else benchmark.threshold])
    groups = benchmark.stick_groups if limbs else benchmark.groups
    called = "PCP" if limbs else "PCKh" if by == "head" else "PCK"

    def scored(predicted: Floats, path: str, grid: Floats | None, truth: str = kind) -> EvalResult:
        return score(benchmark, predicted, measure, by, truth, grid, path)

    curves: dict[str, EvalResult] = {}
    rows: list[dict[str, object]] = []
    for path in predictions:
        predicted = benchmark.read(path, base=int(base))
        result, of_table = scored(predicted, path, None), scored(predicted, path, thresholds)
        _tell_uncounted(result, path, len(predicted), by, "limbs" if limbs else "joints")
        if out:
            name = Path(path).stem if Path(path).stem not in curves else path
            curves[name] = scored(predicted, path, _grid_of_curves(result.thresholds, thresholds))
        if len(benchmark.annotations) > 1:
            against = partial(scored, predicted, path, None)
            _warn_other_annotation(path, called, kind, benchmark.annotations, against)
        rows += _rows(path, of_table, groups, thresholds, _areas(result, groups))
    if len({tuple(row) for row in rows}) > 1:
        raise CaffeCompatError(
            "the files hold different joints and do not fit into one table; score them one by one"
        )
    if as_json:
        emit_json(rows)
    else:
        _print_tables(rows, f"{called}{f'@{thresholds[0]:g}' if len(thresholds) == 1 else ''}, %")
    if out:
        _write(
            curves,
            groups,
            Path(out),
            float(thresholds[0]),
            f"{dataset}_pcp" if limbs else dataset,
            _title(benchmark, called, kind, by),
            rows,
        )


def _tell_uncounted(result: EvalResult, path: str, people: int, norm: str, points: str) -> None:
    """Say how many people are not measured, and how many of the ``points`` have no place."""
    if result.unmeasured:
        click.echo(
            f"{path}: {result.unmeasured} of {people} people are not counted: the truth has "
            f"no length '{norm}' of them",
            err=True,
        )
    if result.placeless:
        click.echo(
            f"{path}: {result.placeless} of {result.counted.sum()} {points} have no place (nan or "
            "infinite) and count as missed",
            err=True,
        )


def _rows(
    path: str,
    result: EvalResult,
    groups: Mapping[str, tuple[str, ...]],
    thresholds: Floats,
    areas: Mapping[str, float],
) -> list[dict[str, object]]:
    """The table's rows of a file of predictions: one for each threshold."""
    rows: list[dict[str, object]] = []
    for threshold in thresholds.tolist():
        row: dict[str, object] = {"predictions": path}
        if len(thresholds) > 1:
            row["threshold"] = threshold
        row |= _scores(result, groups, threshold)
        rows.append({**row, **areas})
    return rows


def _areas(result: EvalResult, groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Per cent under the curves: in total, and of each group of joints that was predicted."""
    parts = {f"{_AREA} {name}": result.auc_of(of) for name, of in groups.items() if result.has(of)}
    return {name: round(area, 2) for name, area in {_AREA: result.auc, **parts}.items()}


def _print_tables(rows: list[dict[str, object]], first: str) -> None:
    """The scores, then the areas under the curves of the parts, which hang on no threshold."""
    parts = [name for name in rows[0] if name.startswith(f"{_AREA} ")]
    scores = [name for name in rows[0] if name not in parts]
    areas = {row["predictions"]: [row["predictions"], *(row[n] for n in parts)] for row in rows}
    click.echo(first)
    click.echo(table([[str(row[name]) for name in scores] for row in rows], scores))
    click.echo("area under the curve, %")
    head = ["predictions", *(name.removeprefix(f"{_AREA} ") for name in parts)]
    click.echo(table([list(map(str, row)) for row in areas.values()], head))


def _grid_of_curves(grid: Floats, thresholds: Floats) -> Floats:
    """Where curves have points: the benchmark's grid, going on by its step as far as the
    thresholds asked for (up to 1), and these."""
    import numpy as np

    steps = np.arange(len(grid), int(min(thresholds.max(), 1) * 100) + 1) / 100
    extra = [t for t in thresholds if not np.isclose(np.append(grid, steps), t).any()]
    return np.sort(np.concatenate([grid, steps, extra]))


def _scores(
    result: EvalResult, groups: Mapping[str, tuple[str, ...]], threshold: float
) -> dict[str, float]:
    """Per cent within a threshold: of each group of joints that was predicted, and in total."""
    scores = {
        name: round(result.group(joints, threshold), 2)
        for name, joints in groups.items()
        if result.has(joints)
    }
    scores["total"] = round(float(result.total[result.at(threshold)]), 2)
    return scores


def _title(benchmark: Benchmark, measure: str, annotation: str, norm: str) -> str:
    """What the curves are of: measure, data set, kind of truth, and what errors are divided by."""
    truth = {"pc": "person-centric", "oc": "observer-centric"}.get(annotation, annotation)
    first = f"{measure} on {benchmark.stem.replace('_', ' ')}, {truth} truth"
    if measure == "PCP":
        return f"{first}\nerrors divided by the limb's own length"
    length = benchmark.norms[norm]
    ends = " to ".join(length.ends) if length.ends else "annotated"
    whose = " of the prediction" if length.of_prediction else ""
    return f"{first}\nerrors divided by: {norm} ({ends}{whose})"


def _write(
    results: dict[str, EvalResult],
    groups: Mapping[str, tuple[str, ...]],
    out: Path,
    at: float,
    dataset: str,
    title: str,
    rows: list[dict[str, object]],
) -> None:
    from caffe_compat.files import csv_cell, write_csv
    from reproduce.drawing.curves import Curve, draw, write_numbers
    from reproduce.runtime.provenance import provenance

    panels = {"total": [Curve(n, r.thresholds, r.total) for n, r in results.items()]}
    for part, joints in groups.items():
        panels[part] = [
            Curve(n, r.thresholds, r.curve(joints)) for n, r in results.items() if r.has(joints)
        ]
    panels = {name: curves for name, curves in panels.items() if curves}
    path = out / f"{dataset}_curves"
    write_numbers(panels, path, provenance("cpm-evaluate", ", ".join(results)))
    draw(
        panels,
        path,
        xlabel="normalised distance",
        ylabel="detection rate, %",
        columns=4 if len(panels) > 4 else 2,
        at=at,
        title=title,
    )
    cells = [[csv_cell(v) if isinstance(v, str) else v for v in row.values()] for row in rows]
    write_csv(out / f"{dataset}_table.csv", [list(rows[0]), *cells])
    click.echo(f"curves and numbers written to {out}")


if __name__ == "__main__":
    main()
