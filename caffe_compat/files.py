"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from caffe_compat.errors import CaffeCompatError


class TargetError(CaffeCompatError):
    """An output file that cannot be written."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, stream: bool = True) -> Iterator[Any]:
    """Write next to ``path`` under a temporary name and rename at the end.

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
    if os.path.isdir(name):
        raise TargetError(f"{name}: is a directory, expected a file name to write to")
    temporary = ""
    try:
        suffix = os.path.splitext(name)[1]
        handle, temporary = tempfile.mkstemp(
            prefix=f".{os.path.basename(name)[:60]}.", suffix=suffix, dir=folder
        )
        if stream:
            with os.fdopen(handle, "wb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
        else:
            os.close(handle)
            yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, name)
        temporary = ""
    except OSError as error:
        raise TargetError(f"{name}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
