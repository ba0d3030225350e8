"""Files that scripts name."""

from __future__ import annotations

import os

from caffe_compat.errors import CaffeCompatError


class MissingFile(CaffeCompatError, RuntimeError):
    """A file that is not there; a ``RuntimeError``, as in Caffe."""


def existing(path: str | os.PathLike[str], what: str) -> str:
    """The path, if there is such a file.

    Raises
    ------
    MissingFile : there is none; says in which folder it was looked for.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        where = "" if os.path.isabs(name) else f" (current folder: {os.getcwd()})"
        raise MissingFile(f"{what} '{name}': there is no such file{where}")
    return name
