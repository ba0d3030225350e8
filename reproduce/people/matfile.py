"""MATLAB files, with their gaps, as Python values."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat import foreign
from caffe_compat.errors import DataError, with_article
from reproduce.people import matcheck

_HDF5 = b"\x89HDF"


def load(path: str | os.PathLike[str], *names: str, records: bool = False) -> list[Any]:
    """Variables of a v5 (or v4) .mat file; structs as objects with attributes.

    Parameters
    ----------
    names : the variables to read.
    records : structs as numpy's record arrays, which can be written again.

    Raises
    ------
    DataError : missing file, damaged, or without the variable.
    """
    found = variables(path, *names, records=records)
    missing = [n for n in names if n not in found]
    if missing:
        has = ", ".join(variables(path)) or "none"
        raise DataError(f"{os.fspath(path)}: has no variable '{missing[0]}'; it has {has}")
    return [found[n] for n in names]


def variables(path: str | os.PathLike[str], *names: str, records: bool = False) -> dict[str, Any]:
    """Those variables of a v5 (or v4) .mat file that are there, or all; see :func:`load`.

    Raises
    ------
    DataError : not a .mat file, or one of version 7.3; says what it is.
    """
    from scipy.io import loadmat

    data = foreign.read_bytes(path)
    what = "MATLAB file"
    if data.startswith(_HDF5) or b"MATLAB 7.3" in data[:128]:
        raise DataError(
            f"{os.fspath(path)}: is a MATLAB 7.3 file, which is HDF5 inside; save it with "
            "save('-v7', ...)"
        )
    kind = foreign.kind_of(data[:1024])
    if kind and "MATLAB" not in kind:
        raise DataError(f"{os.fspath(path)}: is {kind}; expected {with_article(what)}")
    with foreign.reading(path, what):
        if 0 not in data[:4]:  # version 4 begins with a number, later ones with text
            matcheck.check(data, foreign.room(path))
        found = loadmat(
            io.BytesIO(data),
            squeeze_me=False,
            struct_as_record=records,
            variable_names=names or None,
        )
    return {name: value for name, value in found.items() if not name.startswith("__")}


def field(struct: Any, name: str) -> Any:
    """A field of a struct, or None where the field is missing or empty."""
    value = getattr(struct, name, None)
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return None
    return value


def number(value: Any) -> float | None:
    """A number that may be stored as number, character or nothing."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return None
        value = value.reshape(-1)[0]
    if isinstance(value, str):
        # MATLAB code that assigns '1' into a numeric array stores the number of the character;
        # digits mean themselves
        return float(value) if value.strip() else None
    return float(value)


def text(value: Any) -> str:
    """A character array."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return str(value)


def images_of(mat: Path, root: str | os.PathLike[str]) -> Path:
    """The folder ``images`` that goes with an annotation file: beside it, or in a folder above it
    up to ``root``, because images and annotations are downloads of their own."""
    above = [mat.parent, *(folder for folder in mat.parents if folder.is_relative_to(root))]
    found = (folder / "images" for folder in above)
    return next((folder for folder in found if folder.is_dir()), mat.parent / "images")
