"""What ``cpm-reproduce`` trains for fig4, fig5, fig6 and all: the options, and the trainings by one
process, by several side by side, or by those that torchrun starts."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from caffe_compat.commands import INTERRUPTED
from caffe_compat.errors import CaffeCompatError
from reproduce.cli.common import FILE, WORKERS, data_option, device_option, silent, table

if TYPE_CHECKING:
    from reproduce.experiments.plans import Experiment, Profile

_F = TypeVar("_F", bound=Callable[..., Any])
_MODULE = "reproduce.cli.reproduce"  # that further processes run


# not of fig4, which compares networks of one stage
stages_option = click.option(
    "--stages",
    default=3,
    show_default=True,
    type=click.IntRange(1, 6),
    help="Of the networks compared.",
)


def training_options(function: _F) -> _F:
    """How large everything is, where it is kept, and who trains."""
    options = (
        data_option("Folder with lsp/ and lspet/; for the report also the predictions."),
        click.option(
            "--profile",
            type=click.Choice(["smoke", "cpu", "paper"]),
            default="cpu",
            show_default=True,
            help="How large everything is; the code is the same.",
        ),
        click.option(
            "--seeds",
            default=1,
            show_default=True,
            type=click.IntRange(1, 1000),
            help="Trainings of the networks of 1, --stages, 5 and 6 stages and of that without "
            "intermediate supervision, the others are trained once; fig4: of each.",
        ),
        click.option(
            "--work",
            default="experiments",
            show_default=True,
            type=FILE,
            help="Trainings and records.",
        ),
        device_option,
        click.option(
            "--workers",
            default=1,
            show_default=True,
            type=WORKERS,
            help="Processes that make samples.",
        ),
        click.option(
            "--jobs",
            default=1,
            show_default=True,
            type=click.IntRange(1, 64),
            help="Processes that train side by side, each with its share of the cores.",
        ),
        click.option("--train-only", is_flag=True, help="Draw nothing."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@dataclass(frozen=True)
class Trainings:
    """The trainings of one command.

    Attributes
    ----------
    command : fig4, fig5, fig6 or all.
    data : folder with lsp/ and lspet/.
    profile, seeds, device, workers : as the options say.
    work : folder of trainings and records; each profile has a folder of its own in it.
    results : folder of results; None: ``WORK/PROFILE/results``.
    only : pattern that the names of experiments must match.
    stages : of the networks compared; without effect on fig4's, which have one.
    """

    command: str
    data: str
    profile: str
    seeds: int
    work: str
    device: str
    workers: int
    results: str | None = None
    only: str | None = None
    stages: int = 3

    @property
    def sizes(self) -> Profile:
        """The numbers of the profile."""
        from reproduce.experiments import plans

        return plans.PROFILES[self.profile]

    @property
    def folder(self) -> Path:
        """Where the results are written."""
        return Path(self.results) if self.results else self._place / "results"

    @property
    def record(self) -> str:
        """The command, as results and figures keep it."""
        seeds = ["--seeds", str(self.seeds)] if self.seeds > 1 else []
        return " ".join([self.command, "--profile", self.profile, *self._stages, *seeds])

    @property
    def _stages(self) -> list[str]:
        """The option ``--stages``, which fig4 does not have."""
        return [] if self.command == "fig4" else ["--stages", str(self.stages)]

    @property
    def _place(self) -> Path:
        return Path(self.work) / self.profile

    @cached_property
    def wanted(self) -> list[Experiment]:
        """The experiments, each once.

        Raises
        ------
        CaffeCompatError : ``only`` matches no name.
        """
        from reproduce.experiments import plans

        makers = {
            "fig4": [plans.of_fig4],
            "fig5": [plans.of_fig5],
            "fig6": [plans.stages_of_fig6],
            "all": [plans.stages_of_fig6, plans.of_fig5, plans.of_fig4],
        }[self.command]
        plan = {e.name: e for make in makers for e in make(self.sizes, self.stages, self.seeds)}
        found = [e for e in plan.values() if fnmatch.fnmatchcase(e.name, self.only or "*")]
        if not found:
            raise CaffeCompatError(
                f"--only {self.only}: no experiment is called so; there are {', '.join(plan)}"
            )
        return found

    def run(self, jobs: int) -> bool:
        """Train what has no result yet.

        Parameters
        ----------
        jobs : processes that train side by side.

        Returns
        -------
        True where all is trained and this process is to draw it; False in all but the first of
        torchrun's processes.

        Raises
        ------
        SystemExit : the trainings were interrupted; the first process ends with exit code 130.
        CaffeCompatError : a training cannot be made; the message says which and why.
        """
        from reproduce.experiments.lab import Lab
        from reproduce.runtime import processes
        from reproduce.runtime.device import choose
        from reproduce.runtime.side_by_side import run_side_by_side

        places = Path(self.data), self._place, self.folder
        Lab(self.sizes, *places, silent).check_data(self.wanted)
        if jobs > 1 and not run_side_by_side(_MODULE, self._arguments(), jobs):
            _end_interrupted()
        with processes.group(choose(self.device)) as group:
            say = click.echo if group.first else silent
            lab = Lab(
                self.sizes,
                *places,
                say,
                device=group.device,
                workers=self.workers,
                group=group,
                command=self.record,
            )
            finished = lab.run(self.wanted)
        if group.first and not finished:
            _end_interrupted()
        return group.first

    def _arguments(self) -> list[str]:
        """The command line of one of several processes that train side by side."""
        options: dict[str, object] = {
            "data": self.data,
            "profile": self.profile,
            "seeds": self.seeds,
            "work": self.work,
            "device": self.device,
            "workers": self.workers,
        }
        if self.results is not None:
            options["results"] = self.results
        if self.only is not None:
            options["only"] = self.only
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return [self.command, *words, *self._stages, "--train-only"]

    def print_plan(self) -> None:
        """What each experiment will take, by the trainings that are done or else by the stored
        ones."""
        from reproduce.experiments import plans
        from reproduce.experiments.results import read_results, stored_folder

        own = read_results(self.folder)
        measured = own or read_results(stored_folder(self.profile))
        rate = plans.measured_rate(measured.values())
        rows = plans.estimates(self.sizes, self.wanted, rate)
        lines = [
            (
                row.experiment,
                row.scheme,
                str(row.iterations),
                f"{row.operations / 1e12:.1f}",
                f"{row.memory / 1e6:.0f}",
                _hours(row.seconds),
            )
            for row in rows
        ]
        click.echo(f"profile {self.profile}: {self.sizes.about}")
        click.echo(table(lines, ("experiment", "scheme", "iterations", "TFLOP", "MB", "time")))
        origin = f"the trainings in {self.folder} made" if own else "the stored trainings made"
        if not rate:
            origin = "are assumed, not measured"
        click.echo(
            f"in all {_hours(sum(row.seconds for row in rows))}, one after the other, at the "
            f"{rate or self.sizes.operations:.1e} operations/s that {origin}"
        )


def _end_interrupted() -> NoReturn:
    """Say how to go on, and end with the code that keeps a shell from its next command."""
    click.echo("interrupted; the same command goes on", err=True)
    sys.exit(INTERRUPTED)


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
