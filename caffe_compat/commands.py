"""What all command lines share: bad input in one line, exit codes, an end by a signal that leaves
nothing half-written."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click

from caffe_compat.errors import CaffeCompatError, printable

BAD_INPUT, FAILED_CHECK, INTERRUPTED, TERMINATED = 2, 1, 130, 143
_READER_LEFT = 141  # as the shell says it of a program that SIGPIPE ended


@contextlib.contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, from the inside: what it writes under a temporary
    name is removed on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _invoke(command: click.Command, run: Callable[[], Any]) -> Any:
    """Run a command; Ctrl-C ends it with exit code 130 and says how to go on."""
    try:
        with _unwound_by_sigterm():
            return run()
    except KeyboardInterrupt:
        resume = any(parameter.name == "resume" for parameter in command.params)
        again = "the same command with --resume goes on" if resume else "run the command again"
        click.echo(f"\ninterrupted; {again}", err=True)
        sys.exit(INTERRUPTED)


# Raised by a group without a command, where the help is what is wanted; click has it since 8.2.
_HELP_INSTEAD: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


@contextlib.contextmanager
def _usage_in_one_line() -> Iterator[None]:
    """What click refuses, which it would say in four lines, becomes one of our exceptions."""
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, _HELP_INSTEAD):
            raise
        said = " ".join(error.format_message().split()).rstrip(".")
        advice = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        raise CaffeCompatError(f"{said}{advice}") from error


@contextlib.contextmanager
def _quiet_without_reader() -> Iterator[None]:
    """Where whoever reads the output has left ('| head'), the command ends without a word."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python writes what it still holds at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_READER_LEFT)


class Reporting(click.Command):
    """A click command or group that turns click's exceptions and ours into one line and exit code
    2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        return run_reporting(lambda: super(Reporting, self).main(*args, **kwargs))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options; what is wrong with them is one line."""
        with _usage_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an unknown command of a group is one line."""
        with _usage_in_one_line(), _quiet_without_reader():
            return super().invoke(ctx)


class Command(Reporting):
    """One of our commands; an interruption ends with exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        return _invoke(self, lambda: super(Command, self).invoke(ctx))


class CommandGroup(Reporting, click.Group):
    """A group of our commands."""

    command_class = Command


def run_reporting(call: Callable[[], Any]) -> Any:
    """Run a command; bad input ends with its message on stderr and exit code 2, with a traceback
    under ``--debug``."""
    for stream in (sys.stdout, sys.stderr):
        # file names may be broken UTF-8: printing them must not end the program
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return call()
    except CaffeCompatError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except MemoryError:
        click.echo("error: not enough memory for this input", err=True)
        sys.exit(BAD_INPUT)
    except OSError as error:  # the system's own words: a full disk, no permission, no such folder
        if "--debug" in sys.argv:
            raise
        where = printable(str(error.filename)) if error.filename else "the output"
        click.echo(f"error: {where}: {error.strerror or error}", err=True)
        sys.exit(BAD_INPUT)
