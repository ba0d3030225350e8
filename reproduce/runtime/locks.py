"""One process at a time works on a target."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import TargetError, atomic_write, results_folder


class Taken(CaffeCompatError):
    """Another process works on the target; the message says which."""


@contextlib.contextmanager
def hold(target: str | os.PathLike[str], called: str = "") -> Iterator[None]:
    """Keep other processes from working on a target; the lock ends with this process, however that
    ends.

    The lock is the file ``.NAME.lock`` beside the target; ``.NAME.holder`` says who has it.

    Parameters
    ----------
    target : a file or folder, which need not exist yet.
    called : what messages call it; default: by its name.

    Raises
    ------
    Taken : in one line who holds it.
    TargetError : the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.abspath(target))
    called = called or os.fspath(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"{path.parent}: cannot be made: {error.strerror or error}") from None
    lock_file, holder = _files(path)
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Taken(
            f"{called}: {_who(holder)} is writing there; wait for its end or choose another target"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"{called}: cannot be locked: {reason}") from None
    try:
        command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:200]
        with atomic_write(holder) as stream:
            text = f"process {os.getpid()} on {platform.node()} ({command})"
            stream.write(text.encode("utf-8", "backslashreplace"))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def hold_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make a folder for results and keep other processes from writing there; where the work fails
    before it wrote anything, the folder is left as it was.

    Raises
    ------
    Taken : in one line who holds it.
    TargetError : the folder cannot be made or written to.
    """
    place, target = Path(folder), Path(folder) / "results"
    before = set(place.iterdir()) if place.is_dir() else set()
    with results_folder(folder), hold(target, called=os.fspath(folder)):
        try:
            yield
        except BaseException:
            lock, holder = _files(target)
            if lock not in before and set(place.iterdir()) == before | {lock, holder}:
                lock.unlink()
            raise


def _files(target: Path) -> tuple[Path, Path]:
    """The lock of a target, and the file that says who has it."""
    return target.with_name(f".{target.name}.lock"), target.with_name(f".{target.name}.holder")


def _who(holder: Path) -> str:
    """Who holds a lock, as far as it was written down."""
    try:
        return holder.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"
