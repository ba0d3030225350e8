"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from typing import Any

from caffe_compat.errors import CaffeCompatError


class TargetError(CaffeCompatError):
    """An output file that cannot be written."""


def _create(folder: str, name: str, mode: int) -> tuple[int, str]:
    """A new file beside a target: never one that is there already, nor what a link points to.

    The system itself takes the umask off ``mode``, so that nobody has to change the umask to ask
    for it.
    """
    stem, suffix = os.path.splitext(name)
    for _ in range(100):
        path = os.path.join(folder, f".{stem[:40]}.{secrets.token_hex(4)}{suffix[:20]}")
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), path
    raise FileExistsError(0, "no free temporary name")


def _mode_of(name: str) -> int | None:
    """Permissions of a file that will be replaced; None where there is none."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"{name}: cannot be written: {reason}") from None
    if stat.S_ISDIR(found.st_mode):
        raise TargetError(f"{name}: is a directory, expected a file name to write to")
    if not stat.S_ISREG(found.st_mode):
        raise TargetError(f"{name}: is a device or a pipe, expected a file name to write to")
    return stat.S_IMODE(found.st_mode)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, stream: bool = True) -> Iterator[Any]:
    """Write next to ``path`` under a temporary name and rename at the end.

    A file that is replaced hands its permissions on.

    Yields
    ------
    A binary stream, or with ``stream=False`` the temporary file's name (for writers that open it
    themselves).

    Raises
    ------
    TargetError : no such folder, no permission, a directory, a full disk. The temporary file is
        removed and an older file of that name stays as it was.
    """
    name = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(name))
    mode = _mode_of(name)
    temporary = ""
    try:
        handle, temporary = _create(
            folder, os.path.basename(name), 0o666 if mode is None else mode & 0o600
        )
        if stream:
            with os.fdopen(handle, "wb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
        else:
            os.close(handle)
            yield temporary
            _sync(temporary)
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, name)
        temporary = ""
    except OSError as error:
        raise TargetError(f"{name}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _sync(path: str) -> None:
    """What a library wrote must be on the disk before the file gets its name."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_target(path: str | os.PathLike[str]) -> None:
    """See that a file can be written, before the work for it begins.

    Raises
    ------
    TargetError : says why not.
    """
    name = os.fspath(path)
    _mode_of(name)
    try:
        handle, temporary = _create(
            os.path.dirname(os.path.abspath(name)), os.path.basename(name), 0o600
        )
        os.close(handle)
        os.unlink(temporary)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"{name}: cannot be written: {reason}") from None


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder for results, or see that the one that is there can be written to.

    Raises
    ------
    TargetError : says why not.
    """
    name = os.fspath(path)
    try:
        os.makedirs(name, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = "a file has this name" if os.path.isfile(name) else ""
        reason = reason or getattr(error, "strerror", None) or str(error)
        raise TargetError(f"{name}: this folder cannot be made: {reason}") from None
    check_target(os.path.join(name, "results"))


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> None:
    """Write a value as JSON, whole or not at all.

    Parameters
    ----------
    indent : spaces for each level; None puts everything on one line.

    Raises
    ------
    TargetError : as :func:`atomic_write`.
    """
    with atomic_write(path) as stream:
        stream.write(json.dumps(value, indent=indent).encode())
