"""MATLAB files, with their gaps, as Python values."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from caffe_compat.errors import DataError


def load(path: str | os.PathLike[str], *names: str) -> list[Any]:
    """Variables of a v5 (or v4) .mat file; structs as objects with attributes.

    Raises
    ------
    DataError : missing file, damaged, or without the variable.
    """
    from scipy.io import loadmat

    name = os.fspath(path)
    try:
        found = loadmat(name, squeeze_me=False, struct_as_record=False)
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except Exception as error:  # scipy raises many kinds for damaged files
        raise DataError(f"{name}: is no readable MATLAB file: {error}") from None
    missing = [n for n in names if n not in found]
    if missing:
        has = ", ".join(k for k in found if not k.startswith("__"))
        raise DataError(f"{name}: has no variable '{missing[0]}'; it has {has}")
    return [found[n] for n in names]


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
