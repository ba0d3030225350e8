"""``cpm-reproduce``: the paper's figures and the check against its numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from caffe_compat.commands import FAILED_CHECK, CommandGroup
from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import results_folder
from reproduce.cli.common import (
    FILE,
    MODEL,
    common,
    data_option,
    device_option,
    emit_json,
    examples,
    json_option,
    out_option,
    prototxt_option,
    say_line,
    table,
)
from reproduce.cli.reproduce_trainings import Trainings, stages_option, training_options
from reproduce.runtime.locks import hold_folder

if TYPE_CHECKING:
    from reproduce.benchmarks.check import Outcome
    from reproduce.figures.verdicts import Claim
    from reproduce.report.page import Made

_COMPARING = ("fig9", "fig12")  # figures that show other methods' predictions, too
_FIGURES = {"fig8": "fig08", "fig9": "fig09", "fig10": "fig10", "fig12": "fig12"}


@click.group(
    cls=CommandGroup,
    epilog=examples(
        "cpm-reproduce check --data DATA",
        "cpm-reproduce fig9 --data DATA -o figures",
        "cpm-reproduce fig6 --stages 3 --data DATA --work runs --jobs 2",
        "cpm-reproduce fig6 --stored -o figures",
        "cpm-reproduce report --data DATA -o report",
    ),
)
@common
def main() -> None:
    """The paper's figures from predictions, and the regression check against published numbers."""


@main.command(
    epilog=examples(
        "cpm-reproduce check --data DATA",
        "cpm-reproduce check --data DATA --model pose_iter_985000_addLEEDS.caffemodel",
    )
)
@data_option("Folder with lsp/, flic/, mpii/, release/ ...")
@click.option(
    "--model",
    type=MODEL,
    help="A weight file, or a name of 'cpm-models list', instead: does it predict LSP's test "
    "images 1630, 1640, 1658 as the authors published it?",
)
@prototxt_option("Deploy definition")
@device_option
@json_option
def check(data: str, model: str | None, prototxt: str | None, device: str, as_json: bool) -> None:
    """Compare every published number whose data are present; exit 1 if one differs, 2 if data
    cannot be used.

    With --model, compare a copy of a released model with the authors' published predictions.
    """
    from reproduce.benchmarks.check import run

    if model is not None:
        _prove(model, prototxt, device, data, as_json)
        return
    if prototxt is not None:
        raise CaffeCompatError("--prototxt goes with --model")
    outcomes = run(data)
    if as_json:
        emit_json([dataclasses.asdict(o) for o in outcomes])
    else:
        click.echo(_comparison(outcomes))
        for verdict, text in dict.fromkeys((o.verdict, o.missing) for o in outcomes if o.missing):
            say_line(f"{verdict}: {text}")
        verdicts = [o.verdict for o in outcomes]
        counts = {v: verdicts.count(v) for v in ("equal", "differs", "missing", "refused")}
        click.echo(", ".join(f"{n} {v}" for v, n in counts.items() if n or v != "refused"))
    refused = [o.missing for o in outcomes if o.verdict == "refused"]
    if refused:
        raise CaffeCompatError(refused[0])
    if any(o.verdict == "differs" for o in outcomes):
        sys.exit(FAILED_CHECK)
    if all(o.verdict == "missing" for o in outcomes):
        click.echo(f"nothing was checked: {data} holds none of the data (--data)", err=True)
        sys.exit(FAILED_CHECK)


def _tell_page(made: Made, data: str, own_results: bool) -> None:
    """Name a page and say what it left out. Where it computed no published number again and shows
    no trainings of the user's own it proves nothing: end with the code of a failed check."""
    click.echo(str(made.page))
    left_out = made.numbers - made.computed
    if not made.computed and not own_results:
        click.echo(
            f"nothing was checked: {data} holds none of the data that the published numbers are "
            "computed from (--data)",
            err=True,
        )
        sys.exit(FAILED_CHECK)
    if left_out:
        click.echo(
            f"{left_out} of {made.numbers} numbers left out: their data are not in {data} (--data) "
            "or cannot be used; the page says which",
            err=True,
        )


def _prove(model: str, prototxt: str | None, device: str, data: str, as_json: bool) -> None:
    """The table of ``check --model``; exit 1 if no published predictions are met."""
    from reproduce.benchmarks.lsp import Lsp
    from reproduce.benchmarks.proof import NEAR, candidates, prove
    from reproduce.network.identify import identify, released
    from reproduce.predict.predictor import Predictor

    predictor = Predictor.load(model, prototxt=prototxt, protocol=Lsp.protocol, device=device)
    identity = identify(predictor.net.graph, model)
    entries = candidates(identity)
    proofs = prove(predictor, data, entries)
    equal = [
        entry.model
        for entry in entries
        if all(proof.equal for proof in proofs if proof.model == entry.model)
    ]
    titles = {m.name: f"{m.id} ({m.title})" for m in released()}
    if as_json:
        emit_json(
            {
                "model": model,
                "structure": identity.text,
                "near": NEAR,
                "equal_to": equal,
                "photographs": [dataclasses.asdict(proof) for proof in proofs],
            }
        )
    else:
        click.echo(f"{model}: {identity.text}")
        rows = [
            (
                proof.photograph,
                titles[proof.model],
                f"{proof.near} of {len(proof.distances)}",
                f"{sum(proof.distances) / len(proof.distances):.1f}",
                f"{max(proof.distances):.1f} ({proof.worst})",
                "equal" if proof.equal else "differs",
            )
            for proof in proofs
        ]
        head = (
            "photograph",
            "published of model",
            "equal",
            "mean px",
            "largest px",
            "verdict",
        )
        click.echo(table(rows, head))
        with_predictions = {entry.model for entry in entries}
        silent = [m for m in identity.candidates if m.name not in with_predictions]
        if identity.named in silent or (silent and not identity.named):
            names = ", ".join(titles[m.name] for m in silent)
            click.echo(f"no predictions on these photographs were published of model {names}")
        if equal:
            click.echo(f"the predictions are those of released model {titles[equal[0]]}")
        else:
            click.echo("the predictions are those of no released model")
    if not equal:
        sys.exit(FAILED_CHECK)


def _comparison(outcomes: Sequence[Outcome]) -> str:
    """A table of published, ours and ours − published."""
    rows = []
    for o in outcomes:
        ours = (
            "-"
            if o.ours is None
            else " ".join(f"{v:g}" if v == int(v) else f"{v:.2f}" for v in o.ours)
        )
        difference = "-" if o.difference is None else f"{o.difference:+.3f}"
        rows.append(
            (
                o.name,
                " ".join(f"{v:g}" for v in o.published),
                ours,
                difference,
                f"{o.tolerance:g}",
                o.verdict,
            )
        )
    return table(rows, ("check", "published", "ours", "difference", "tolerance", "verdict"))


def _command(name: str, module: str) -> None:
    @main.command(name, epilog=examples(f"cpm-reproduce {name} --data DATA -o figures"))
    @data_option("Folder with the data and predictions.")
    @out_option("Folder for the results.", default="figures")
    def figure(data: str, out: str) -> None:
        from caffe_compat.files import write_json
        from reproduce.benchmarks.benchmark import FLIC_FILE, LSP_FILE, unread_methods
        from reproduce.benchmarks.check import run
        from reproduce.benchmarks.published import source_of

        made = importlib.import_module(f"reproduce.figures.{module}")
        folder = Path(out)
        outcomes: list[Outcome] = []
        with hold_folder(folder):
            paths = list(made.make(Path(data), folder))
            if made.CHECKED:
                outcomes = run(data, made.CHECKED)
                numbers = folder / f"{module}_published.json"
                write_json(numbers, [dataclasses.asdict(o) for o in outcomes])
                paths.append(numbers)
        if name in _COMPARING and not any(Path(data).glob("predictions/*/")):
            what = f"note: no other methods' predictions in {data} (predictions/METHOD/)"
            alone = f"the curves are the authors' alone{source_of('predictions/')}"
            click.echo(f"{what}: {alone}", err=True)
        if name in _COMPARING and (unread := unread_methods(Path(data))):
            say_line(
                f"note: left out: predictions/{', predictions/'.join(unread)}: no {LSP_FILE} or "
                f"{FLIC_FILE} in there",
                err=True,
            )
        for path in paths:
            click.echo(str(path))
        if outcomes:
            click.echo()
            click.echo(_comparison(outcomes))

    files = "numbers as JSON and CSV, picture as PNG and PDF"
    if name == "fig10":
        files = "who is shown as JSON and CSV, picture as PNG and PDF"
    figure.help = f"Regenerate Figure {name.removeprefix('fig')} ({files})."


for _name, _module in _FIGURES.items():
    _command(_name, _module)


@main.command(
    epilog=examples("cpm-reproduce fig11"),
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def fig11() -> None:
    """Say why Figure 11 cannot be made, whatever options are given."""
    raise CaffeCompatError(
        "Figure 11, PCKh by viewpoint on MPII's test set, cannot be made: the truth and the "
        "viewpoints of that set are not public; for MPII see cpm-reproduce fig8"
    )


_TRAINED = {"fig4": "fig04", "fig5": "fig05", "fig6": "fig06"}


def _training_command(name: str, module: str) -> None:
    @main.command(
        name,
        epilog=examples(
            f"cpm-reproduce {name} --dry-run",
            f"cpm-reproduce {name} --data DATA --work runs --jobs 2",
            f"cpm-reproduce {name} --stored -o figures",
        ),
    )
    @training_options
    @click.option("--results", type=FILE, help="Folder of results (default: WORK/PROFILE/results).")
    @click.option(
        "--only", help="Only experiments whose name matches this pattern, e.g. 'joint-*'."
    )
    @click.option(
        "--dry-run", is_flag=True, help="Print the plan with estimated operations, memory and time."
    )
    @click.option(
        "--stored", is_flag=True, help="Train nothing: draw the results that come with the package."
    )
    @out_option("Folder for the figure.", default="figures")
    def figure(
        jobs: int, train_only: bool, dry_run: bool, stored: bool, out: str, **options: Any
    ) -> None:
        trainings = Trainings(name, **options)
        if stored:
            _refuse_with_stored()
        elif dry_run:
            trainings.print_plan()
            return
        with contextlib.nullcontext() if train_only else results_folder(out):
            if not stored and not trainings.run(jobs):
                return
            if not train_only:
                _draw_trainings(trainings, module, stored, Path(out))

    if name != "fig4":
        stages_option(figure)
    figure.help = (
        f"Figure {name.removeprefix('fig')} by training: runs what has no result yet, "
        "goes on where it was stopped."
    )


def _draw_trainings(trainings: Trainings, module: str, stored: bool, out: Path) -> None:
    """The figure of what was trained, or of the stored results, and what it says to the claims."""
    from reproduce.experiments.results import read_results, stored_folder
    from reproduce.runtime.provenance import provenance

    figure = importlib.import_module(f"reproduce.figures.{module}")
    folder = stored_folder(trainings.profile) if stored else trainings.folder
    found = read_results(folder)
    about = provenance(f"cpm-reproduce {trainings.record}", str(folder))
    with hold_folder(out):
        paths = figure.make(found, out, about, trainings.stages, Path(trainings.data))
        if not paths:
            raise CaffeCompatError(f"{folder}: holds no results for this figure yet")
    for path in paths:
        click.echo(str(path))
    if trainings.profile == "smoke":
        return
    for claim in figure.claims(found, trainings.stages):
        click.echo(_verdict(claim))


def _verdict(claim: Claim) -> str:
    """A claim, what our numbers say to it, and by which rule; or why there are none."""
    said = f"{claim.text}: {claim.verdict} (published {claim.published}, ours {claim.ours})"
    if not claim.why:
        return said
    return f"{said}; {'the rule: ' if claim.tested else ''}{claim.why}"


def _refuse_with_stored() -> None:
    """Refuse options that ``--stored``, which only draws, leaves without effect."""
    context = click.get_current_context()
    named = ("train_only", "dry_run", "results", "work", "only", "jobs", "seeds", "workers")
    for name in (*named, "device"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise CaffeCompatError(f"--stored and {option} exclude each other")


@main.command(epilog=examples("cpm-reproduce report --data DATA -o report"))
@data_option("Folder with the data and predictions.")
@click.option(
    "--profile",
    type=click.Choice(["smoke", "cpu", "paper"]),
    help="Whose stored results are shown (default: those of --results, else cpu).",
)
@click.option(
    "--results",
    type=FILE,
    help="Folder of results (default: those that come with the package).",
)
@stages_option
@out_option("Folder for the page.", default="report")
def report(data: str, profile: str | None, results: str | None, stages: int, out: str) -> None:
    """One page with every figure, claim and number: OUT/index.html. Trains nothing; what is missing
    is said."""
    from reproduce.experiments.results import read_results, stored_folder
    from reproduce.report import page as made

    folder = Path(results) if results else stored_folder(profile or "cpu")
    stored = read_results(folder)
    if not stored and results:
        raise CaffeCompatError(
            f"{folder}: holds no results of experiments (--results); expected the folder that "
            "cpm-reproduce fig6 makes, WORK/PROFILE/results"
        )
    theirs = next((result.profile for result in stored.values()), profile or "cpu")
    if profile not in (None, theirs):
        raise CaffeCompatError(
            f"{folder}: holds results of the {theirs} profile (--results), not of --profile "
            f"{profile}"
        )
    with hold_folder(out):
        page = made.make(Path(data), Path(out), folder, theirs, click.echo, stages)
    _tell_page(page, data, bool(results))


@main.command(
    "all",
    epilog=examples(
        "cpm-reproduce all --profile cpu --data DATA --work runs -o report",
        "cpm-reproduce all --data DATA --work runs --jobs 2",
    ),
)
@training_options
@stages_option
@out_option("Folder for the page.", default="report")
def all_(jobs: int, train_only: bool, out: str, **options: Any) -> None:
    """All trainings that have no result yet, then the report. Without training images the report
    shows what is there."""
    from reproduce.experiments.lab import NoTrainingImages
    from reproduce.runtime.processes import is_first

    trainings = Trainings("all", **options)
    if train_only:
        trainings.run(jobs)
        return
    with results_folder(out):
        try:
            if not trainings.run(jobs):
                return
        except NoTrainingImages as error:
            if not is_first():  # of torchrun's processes one makes the page
                return
            click.echo(f"trainings: left out: {error}", err=True)
        _report_trainings(trainings, Path(out))


def _report_trainings(trainings: Trainings, out: Path) -> None:
    """The page with what was trained; with the stored results where nothing was."""
    from reproduce.experiments.results import read_results, stored_folder
    from reproduce.report import page as made

    results, data = trainings.folder, trainings.data
    trained = bool(read_results(results))
    if not trained:
        results = stored_folder(trainings.profile)
        click.echo("the report shows the trainings' results that come with the package")
    with hold_folder(out):
        page = made.make(Path(data), out, results, trainings.profile, click.echo, trainings.stages)
    _tell_page(page, data, trained)


for _name, _module in _TRAINED.items():
    _training_command(_name, _module)

if __name__ == "__main__":
    main()
