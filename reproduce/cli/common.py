"""What all commands share: errors in one line, exit codes, tables, options."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from caffe_compat import __version__
from caffe_compat.errors import CaffeCompatError, printable
from caffe_compat.files import json_text
from caffe_compat.picturesize import LIMIT_VARIABLE, MAX_PIXELS

_F = TypeVar("_F", bound=Callable[..., Any])


class FilePath(click.Path):
    """A file or folder name on the command line; an empty one is no name."""

    name = "path"

    def __init__(self) -> None:
        # who opens the file says what is wrong with it, so that one bad picture costs itself alone
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if not os.fspath(value):
            self.fail("is empty; expected the name of a file or folder", param, ctx)
        return super().convert(value, param, ctx)


class ModelName(FilePath):
    """A weight file on the command line, or the name of a network of ``cpm-models list``."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The weight file that is meant."""
        from reproduce.network.identify import model_file

        return model_file(str(super().convert(value, param, ctx)))


class ModelNames(FilePath):
    """Weight files or names of networks on the command line, with commas between them."""

    name = "models"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The weight files that are meant, with commas between them."""
        names = str(super().convert(value, param, ctx)).split(",")
        return ",".join(MODEL.convert(name.strip(), param, ctx) for name in names if name.strip())


class Device(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A device's name on the command line; whether this machine has it is seen when it is used."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what no machine has."""
        from reproduce.runtime.device import check_name

        check_name(value)
        return value


class Real(click.FloatRange):
    """A number on the command line that is neither nan nor infinite."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse nan and infinity, which pass every comparison of a range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number to work with", param, ctx)
        return number


class AnyReal(click.types.FloatParamType):
    """The same without a range, so that ``--help`` shows none."""

    name = Real.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse nan and infinity."""
        return Real().convert(value, param, ctx)


class DataFolder(FilePath):
    """A folder of data sets on the command line; without it there is nothing to do."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse a folder that does not exist, and what is none."""
        folder = super().convert(value, param, ctx)
        if not os.path.isdir(folder):
            found = "is no folder" if os.path.exists(folder) else "no such folder"
            raise CaffeCompatError(f"{os.fspath(folder)}: {found} (--data)")
        return folder


FILE = FilePath()
DATA_FOLDER = DataFolder()
MODEL = ModelName()
MODELS = ModelNames()
POSITIVE = click.IntRange(min=1, max=2**31 - 1)
SEED = click.IntRange(min=0, max=2**63 - 1)
WORKERS = click.IntRange(min=0, max=256)


_STEP, _LARGEST_INPUT = 8, 10_000  # pixels


def check_input_size(side: int) -> None:
    """Refuse an input that the networks' three poolings do not divide, or that no memory holds.

    Raises
    ------
    CaffeCompatError : says which sizes there are.
    """
    if side % _STEP or not _STEP <= side <= _LARGEST_INPUT:
        raise CaffeCompatError(
            f"--input {side}: expected a multiple of {_STEP} from {_STEP} to {_LARGEST_INPUT}"
        )


class NameOf(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """One of some names that are looked up when they are needed, so that a command starts
    quickly.

    Parameters
    ----------
    kind : what the names are of, for messages.
    names : gives the names.
    """

    def __init__(self, kind: str, names: Callable[[], Iterable[str]]) -> None:
        self.name, self.names = kind, names

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(self.names())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = list(self.names())
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        return value


def _benchmark_names() -> Iterable[str]:
    from reproduce.benchmarks.registry import benchmarks

    return benchmarks()


def _protocol_names() -> Iterable[str]:
    from reproduce.predict.protocol import PROTOCOLS

    return PROTOCOLS


BENCHMARK_NAME = NameOf("benchmark", _benchmark_names)
PROTOCOL_NAME = NameOf("protocol", _protocol_names)


def examples(*lines: str) -> str:
    """The end of a command's ``--help``: commands to copy, one a line."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def common(function: _F) -> _F:
    """``--version`` and ``--debug``."""
    function = click.option(
        "--debug", is_flag=True, expose_value=False, help="Show a traceback for bad input."
    )(function)
    return click.version_option(__version__, package_name="convolutional-pose-machines")(function)


def say_line(text: str, *, err: bool = False) -> None:
    """Print one line that holds names out of files that others wrote: they cannot move the cursor
    or begin lines of their own."""
    click.echo(printable(text), err=err)


def silent(anything: object) -> None:
    """Takes what is to be said, and says nothing: what all processes but the first do."""


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Left-aligned columns."""
    lines = [list(head), *[[printable(str(cell)) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    out = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    out.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(out)


def emit_json(value: Any) -> None:
    """Machine-readable output on stdout; what is no finite number becomes null."""
    click.echo(json_text(value, indent=1))


def parse_shapes(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """``NAME:1,4,368,368`` options as a dict; for click's ``callback``."""
    shapes = {}
    for value in values:
        name, _, dims = value.rpartition(":")
        try:
            shape = tuple(int(d) for d in dims.replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise click.BadParameter(
                f"'{value}': expected NAME:N,C,H,W, for example data:1,4,368,368"
            )
        shapes[name] = shape
    return shapes


def data_option(what: str) -> Callable[[_F], _F]:
    """``--data``, the folder with data sets, models or predictions; ``what`` it holds."""
    return click.option("--data", default=".", show_default=True, type=DATA_FOLDER, help=what)


def out_option(what: str, default: str) -> Callable[[_F], _F]:
    """``-o`` or ``--out``, the folder that a command writes to; ``what`` it is for."""
    return click.option("-o", "--out", default=default, show_default=True, type=FILE, help=what)


def joints_option(function: _F) -> _F:
    """``--joints``, how many joints the people of an LMDB have."""
    return click.option(
        "--joints",
        type=click.IntRange(1, 255),
        help="Joints per person in an LMDB (default: as many as its records show, 16 in the "
        "authors' MPI and LEEDS).",
    )(function)


def prototxt_option(what: str) -> Callable[[_F], _F]:
    """``--prototxt``, for weights that hold no definition; ``what`` kind of definition it is."""
    return click.option("--prototxt", type=FILE, help=f"{what}, if the model holds none.")


def json_option(function: _F) -> _F:
    """``--json``, for a command that prints something else without it."""
    return click.option("--json", "as_json", is_flag=True, help="As JSON.")(function)


def pixels_option(function: _F) -> _F:
    """``--max-pixels``, how large a picture may be; it sets CPM_MAX_PIXELS for this command."""

    def use(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
        if value is None:
            return
        before = os.environ.get(LIMIT_VARIABLE)
        os.environ[LIMIT_VARIABLE] = str(value)

        def restore() -> None:
            if before is None:
                os.environ.pop(LIMIT_VARIABLE, None)
            else:
                os.environ[LIMIT_VARIABLE] = before

        context.call_on_close(restore)

    return click.option(
        "--max-pixels",
        type=POSITIVE,
        expose_value=False,
        callback=use,
        help=f"Largest picture that is read, width times height (default: {LIMIT_VARIABLE}, "
        f"else {MAX_PIXELS}).",
    )(function)


def device_option(function: _F) -> _F:
    """``--device``, where the network computes."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        type=Device(),
        help="cpu, cuda, cuda:N or auto.",
    )(function)


def engine_option(function: _F) -> _F:
    """``--engine``, how convolutions run on the CPU."""
    return click.option(
        "--engine",
        type=click.Choice(["auto", "direct", "tiled", "lines", "minimal"]),
        default="auto",
        show_default=True,
        help="How convolutions run on the CPU; see 'cpm-models plan'.",
    )(function)
