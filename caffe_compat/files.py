"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from caffe_compat.errors import CaffeCompatError


class TargetError(CaffeCompatError):
    """An output file that cannot be written."""


def ending(path: str | os.PathLike[str]) -> str:
    """What a file's name says of its format: ".h5" of "F.H5", "" where it says nothing."""
    return os.path.splitext(os.fspath(path))[1].lower()


def _refusal(name: str, error: Exception) -> TargetError:
    """What is said where the system refuses to write a file; a folder that is not there is named,
    since nobody expects the file itself to be there."""
    reason = getattr(error, "strerror", None) or error
    folder = os.path.dirname(name)
    if isinstance(error, FileNotFoundError) and folder and not os.path.exists(folder):
        reason = f"the folder {folder} does not exist; make it, or choose another one"
    return TargetError(f"{name}: cannot be written: {reason}")


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
        raise _refusal(name, error) from None
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
        if mode is None:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if stream:
            with os.fdopen(handle, "wb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
        else:
            os.close(handle)
            yield temporary
            _sync(temporary)
        # not only of an older file's: a library may have put a file of its own here
        if stat.S_IMODE(os.stat(temporary).st_mode) != mode:
            os.chmod(temporary, mode)
        os.replace(temporary, name)
        temporary = ""
    except OSError as error:
        raise _refusal(name, error) from None
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
    _try(os.path.dirname(os.path.abspath(name)), os.path.basename(name), name)


def _try(folder: str, base: str, name: str) -> None:
    """Make a file in a folder and remove it; ``name`` is what a message calls the target."""
    try:
        handle, temporary = _create(folder, base, 0o600)
        os.close(handle)
        os.unlink(temporary)
    except (OSError, ValueError) as error:
        raise _refusal(name, error) from None


def open_to_append(path: str | os.PathLike[str]) -> IO[str]:
    """A text file, such as a log, that grows at its end, from a new line on: a kill may have left
    half a line, which must not spoil the next one.

    Raises
    ------
    TargetError : says why it cannot be written.
    """
    name = os.fspath(path)
    _mode_of(name)
    try:
        _end_line(name)
        return open(name, "a", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _refusal(name, error) from None


def _end_line(name: str) -> None:
    """Give a text file's last line its end, where it has none."""
    with open(name, "a+b") as text:
        size = text.seek(0, os.SEEK_END)
        text.seek(max(0, size - 1))
        if size and text.read() != b"\n":
            text.write(b"\n")


@contextlib.contextmanager
def results_folder(path: str | os.PathLike[str]) -> Iterator[None]:
    """A folder for results, made at once, so that work is not lost for want of a place; where the
    work fails before it wrote anything, a folder that was not there before is gone again.

    Raises
    ------
    TargetError : the folder cannot be made or written to.
    """
    was_there = os.path.isdir(path)
    make_folder(path)
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):  # something was written
                os.rmdir(path)
        raise


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
    _try(name, "results", name)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, whole or not at all.

    Raises
    ------
    TargetError : as :func:`atomic_write`.
    """
    with atomic_write(path) as stream:
        stream.write(text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> None:
    """Write a value as JSON, whole or not at all; what is no finite number becomes null.

    Parameters
    ----------
    indent : spaces for each level; None puts everything on one line.

    Raises
    ------
    TargetError : as :func:`atomic_write`.
    """
    write_text(path, json_text(value, indent=indent))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON; what is no finite number becomes null.

    Parameters
    ----------
    indent : spaces for each level; None puts everything on one line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def csv_cell(text: str) -> str:
    """A name for a cell of a CSV file: spreadsheets take one that begins with = + - or @ for a
    formula, so that such a name gets an apostrophe in front."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV, whole or not at all; names among the cells are made by :func:`csv_cell`.

    Raises
    ------
    TargetError : as :func:`atomic_write`.
    """
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


@contextlib.contextmanager
def write_hdf5(path: str | os.PathLike[str], **options: Any) -> Iterator[Any]:
    """An HDF5 file to fill, written as :func:`atomic_write` does.

    Parameters
    ----------
    options : of ``h5py.File``.

    Raises
    ------
    TargetError : cannot be written, a full disk among the reasons.
    """
    import h5py

    with atomic_write(path, stream=False) as temporary, open(temporary, "w+b", 0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w", **options) as file:
            yield file
        if sink.error is not None:
            raise sink.error


class _Sink(io.RawIOBase):
    """A file that takes every write, and remembers the first that the disk refused.

    The HDF5 library does not survive a write that fails: it ends the process when it tries again.
    So it is told that all is well, and finds the small pieces that it reads again in memory; large
    ones are values, which it never reads.
    """

    _SMALL = 1 << 16

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._kept: dict[int, bytes] = {}
        self._at = 0
        self._end = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        if self.error is None:
            try:
                self._raw.truncate(self._end)
            except OSError as error:
                self.error = error
        return self._end

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                self._raw.seek(self._at + done)
                done += self._raw.write(view[done:]) or 0
            except OSError as error:
                self.error = error
        if self.error is not None and len(view) <= self._SMALL:
            self._kept[self._at] = bytes(view)
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._end - self._at))
        kept = self._kept.get(self._at, b"")[:wanted]
        if not kept:
            self._raw.seek(self._at)
            kept = (self._raw.read(wanted) or b"").ljust(wanted, b"\0")
        view[: len(kept)] = kept
        self._at += len(kept)
        return len(kept)
