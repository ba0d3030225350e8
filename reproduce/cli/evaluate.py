"""``cpm-evaluate``: predictions scored as the papers score them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffe_compat.errors import CaffeCompatError
from reproduce.cli.common import Command, common, emit_json, table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from reproduce.benchmarks.measures import EvalResult
    from reproduce.benchmarks.truth import Benchmarks

    Floats = npt.NDArray[np.float64]

_EPILOG = """
\b
Examples:
  cpm-evaluate LSP_prediction_model_LSP_6s.mat --dataset lsp --data DIR
  cpm-evaluate mine.npz theirs.mat --dataset lsp --data DIR --threshold 0.1 --out scores
  cpm-evaluate mine.mat --dataset lsp --measure pcp --data DIR
  cpm-evaluate FLIC_prediction_model_FLIC_4s.mat --dataset flic --protocol release --data DIR
"""
# what the error is divided by, the data set's own first
_NORMS = {
    "lsp": ("torso", "prediction", "head"),
    "flic": ("torso", "prediction", "box", "pdj"),
    "mpi": ("head", "torso"),
}


def _truth(
    guess: Floats, dataset: str, annotation: str, data: Benchmarks
) -> tuple[Floats, tuple[str, ...]]:
    """(N, J, 2), nan where not annotated, for the joints that the predictions have; their names."""
    import numpy as np

    from reproduce.benchmarks import measures
    from reproduce.people.skeletons import LSP_JOINTS, MPII_JOINTS, PARTS_9

    if dataset == "lsp":
        return (data.lsp_truth if annotation == "pc" else data.lsp_truth_oc)[:, :, :2], LSP_JOINTS
    if dataset == "flic":
        nine, raw = data.flic_tests
        if guess.shape[1] == 9:
            return nine, PARTS_9
        return raw[:, : guess.shape[1]], measures.FLIC_JOINTS[: guess.shape[1]]
    part = data.mpii_valid[0]
    return np.where((part == 0).all(2, keepdims=True), np.nan, part), MPII_JOINTS


def _reference(guess: Floats, truth: Floats, dataset: str, norm: str, data: Benchmarks) -> Floats:
    """(N,) what each person's errors are divided by."""
    import numpy as np

    if dataset == "mpi":
        if norm == "head":
            return data.mpii_valid[1]
        ends = truth[:, 13], truth[:, 2]
    elif dataset == "flic":
        whole = (
            data.flic_tests[0] if guess.shape[1] == 9 else data.flic_tests[1]
        )  # MODEC has no hips of its own
        if norm == "box":
            return data.flic_boxes
        if norm == "prediction" and guess.shape[1] < 8:
            raise CaffeCompatError("--norm prediction needs predicted hips, this file has none")
        points = guess if norm == "prediction" else whole
        ends = (points[:, 3], points[:, 6]) if norm == "pdj" else (points[:, 0], points[:, 7])
    elif norm == "head":
        ends = truth[:, 12], truth[:, 13]
    else:
        points = guess if norm == "prediction" else truth
        ends = points[:, 9], points[:, 2]
    return np.asarray(np.linalg.norm(ends[0] - ends[1], axis=1), np.float64)


def _score(
    path: str,
    dataset: str,
    annotation: str,
    norm: str,
    data: Benchmarks,
    measure: str = "pck",
    thresholds: Floats | None = None,
    base: int = 1,
) -> EvalResult:
    import numpy as np

    from reproduce.benchmarks import measures
    from reproduce.predict import joint_files

    guess = joint_files.read(path) + (1 - base)
    truth, names = _truth(guess, dataset, annotation, data)
    if guess.shape != truth.shape:
        raise CaffeCompatError(
            f"{path}: holds {guess.shape[0]} people with {guess.shape[1]} joints, the benchmark "
            f"has {truth.shape[0]} with "
            f"{truth.shape[1]}"
        )
    wide = dataset == "mpi" or measure == "pcp"
    grid = (
        thresholds
        if thresholds is not None
        else (measures.WIDE_THRESHOLDS if wide else measures.LSP_THRESHOLDS)
    )
    if measure == "pcp":
        sticks = {
            "lsp": measures.LSP_STICKS,
            "flic": measures.FLIC_STICKS,
            "mpi": measures.MPII_STICKS,
        }[dataset]
        if guess.shape[1] < 8:
            raise CaffeCompatError(f"{path}: has no hips, PCP needs the torso")
        table = measures.pcp(guess, truth, grid, sticks)
        counted = np.full(len(sticks.names), len(truth))
        hits = np.rint(table[:, :-1] / 100 * len(truth)).astype(np.int64)
        return measures.EvalResult(grid, table[:, :-1], table[:, -1], counted, hits, sticks.names)
    reference = _reference(guess, truth, dataset, norm, data)
    if dataset == "mpi":
        chosen = list(measures.MPII_COUNTED)
        guess, truth, names = guess[:, chosen], truth[:, chosen], tuple(names[i] for i in chosen)
    return measures.pck(guess, truth, reference, grid, names)


def _groups(dataset: str, measure: str) -> dict[str, tuple[int, ...]]:
    if measure == "pcp":
        if dataset == "flic":
            return {"upper arm": (0, 2), "forearm": (1, 3), "torso": (4,)}
        return {
            "torso": (9,),
            "upper leg": (1, 2),
            "lower leg": (0, 3),
            "upper arm": (5, 6),
            "forearm": (4, 7),
            "head": (8,),
        }
    from reproduce.benchmarks.measures import FLIC_GROUPS, LSP_GROUPS, MPII_COUNTED, MPII_GROUPS

    if dataset == "lsp":
        return LSP_GROUPS
    if dataset == "flic":
        return FLIC_GROUPS
    return {
        name: tuple(MPII_COUNTED.index(j) for j in joints) for name, joints in MPII_GROUPS.items()
    }


def _warn_other_annotation(
    path: str, annotation: str, result: EvalResult, data: Benchmarks
) -> None:
    """Person-centric predictions against observer-centric truth (or the reverse) lose many points:
    say so."""
    from reproduce.benchmarks.truth import Missing

    other = "oc" if annotation == "pc" else "pc"
    try:
        there = _score(path, "lsp", other, "torso", data)
    except Missing:
        return
    gain = there.total[-1] - result.total[-1]
    if gain > 5:
        click.echo(
            f"warning: {path} scores {there.total[-1]:.1f} against {other} annotations, "
            f"{result.total[-1]:.1f} against "
            f"{annotation}: these look like {other} predictions (--annotation {other})",
            err=True,
        )


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("predictions", nargs=-1, required=True, type=click.Path())
@click.option("--dataset", type=click.Choice(["lsp", "flic", "mpi"]), required=True)
@click.option(
    "--data",
    default=".",
    show_default=True,
    type=click.Path(),
    help="Folder with lsp/, flic/ or mpii/.",
)
@click.option(
    "--annotation",
    type=click.Choice(["pc", "oc"]),
    default="pc",
    show_default=True,
    help="LSP: person- or observer-centric truth.",
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
    type=click.Choice(sorted({n for names in _NORMS.values() for n in names})),
    help="What an error is divided by: torso = left shoulder to right hip (LSP, FLIC), "
    "prediction = the same of the "
    "prediction, head = head segment (MPII: 0.6 of the head box), box = torso box (FLIC), pdj = "
    "right shoulder to "
    "left hip (FLIC).",
)
@click.option(
    "--base",
    type=click.Choice(["0", "1"]),
    default="1",
    show_default=True,
    help="What the predictions call the first pixel (the data sets and MATLAB: 1; OpenCV: 0).",
)
@click.option(
    "--threshold",
    "at",
    type=click.FloatRange(min=0),
    multiple=True,
    help="Of the table, may be given several times; default 0.2, MPII and PCP 0.5.",
)
@click.option(
    "--out", type=click.Path(), help="Folder for curves (PNG, PDF, SVG) and numbers (CSV, JSON)."
)
@click.option("--json", "as_json", is_flag=True, help="Table as JSON.")
@common
def main(
    predictions: tuple[str, ...],
    dataset: str,
    data: str,
    annotation: str,
    protocol: str,
    measure: str,
    norm: str | None,
    base: str,
    at: tuple[float, ...],
    out: str | None,
    as_json: bool,
) -> None:
    """Score PREDICTIONS (.mat, .h5, .npz, .json; the data set's joint order): PCK on LSP and FLIC,
    PCKh on MPII.

    MPII is scored on Tompson's validation split; the test set's truth is not public. A file with
    three axes is read as people x joints x 2 or in the reversed order, as MATLAB stores it.
    """
    import numpy as np

    from reproduce.benchmarks.truth import Benchmarks

    if norm is not None and norm not in _NORMS[dataset]:
        raise CaffeCompatError(f"--norm {norm}: {dataset} has {', '.join(_NORMS[dataset])}")
    if norm is not None and measure == "pcp":
        raise CaffeCompatError(
            "--norm has no meaning for PCP, which divides by each limb's own length"
        )
    by = norm or (
        "prediction" if dataset == "flic" and protocol == "release" else _NORMS[dataset][0]
    )
    store = Benchmarks(data)
    thresholds = np.array(at or ([0.5] if dataset == "mpi" or measure == "pcp" else [0.2]))
    groups = _groups(dataset, measure)
    results: dict[str, EvalResult] = {}
    rows: list[dict[str, object]] = []
    for path in predictions:
        result = _score(path, dataset, annotation, by, store, measure, base=int(base))
        table_of = _score(path, dataset, annotation, by, store, measure, thresholds, int(base))
        results[Path(path).stem if Path(path).stem not in results else path] = result
        if dataset == "lsp":
            _warn_other_annotation(
                path, annotation, _score(path, dataset, annotation, "torso", store), store
            )
        kept = {name: joints for name, joints in groups.items() if max(joints) < len(result.names)}
        for i, threshold in enumerate(thresholds):
            rows.append(
                {
                    "predictions": path,
                    **({"threshold": float(threshold)} if len(thresholds) > 1 else {}),
                    **{
                        name: round(float(table_of.per_joint[i, list(joints)].mean()), 2)
                        for name, joints in kept.items()
                    },
                    "total": round(float(table_of.total[i]), 2),
                    "auc": round(result.auc, 2),
                }
            )
    if len({tuple(row) for row in rows}) > 1:
        raise CaffeCompatError(
            "the files hold different joints and do not fit into one table; score them one by one"
        )
    if as_json:
        emit_json(rows)
    else:
        head = list(rows[0])
        name = "PCP" if measure == "pcp" else "PCKh" if by == "head" else "PCK"
        click.echo(f"{name}{f'@{thresholds[0]:g}' if len(thresholds) == 1 else ''}, %")
        click.echo(table([[str(row[name]) for name in head] for row in rows], head))
    if out:
        _write(
            results,
            groups,
            Path(out),
            float(thresholds[0]),
            f"{dataset}_pcp" if measure == "pcp" else dataset,
            rows,
        )


def _write(
    results: dict[str, EvalResult],
    groups: dict[str, tuple[int, ...]],
    out: Path,
    at: float,
    dataset: str,
    rows: list[dict[str, object]],
) -> None:
    from caffe_compat.files import atomic_write
    from reproduce.drawing.curves import Curve, draw, write_numbers
    from reproduce.runtime.provenance import provenance

    out.mkdir(parents=True, exist_ok=True)
    panels = {"total": [Curve(n, r.thresholds, r.total) for n, r in results.items()]}
    for part, joints in groups.items():
        panels[part] = [
            Curve(n, r.thresholds, r.per_joint[:, list(joints)].mean(1))
            for n, r in results.items()
            if max(joints) < len(r.names)
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
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(out / f"{dataset}_table.csv") as stream:
        stream.write(text.getvalue().encode())
    click.echo(f"curves and numbers written to {out}")


if __name__ == "__main__":
    main()
