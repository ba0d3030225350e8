"""The numbers that the paper and the release publish, and where the files are to be had."""

from __future__ import annotations

import sys
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def published() -> dict[str, Any]:
    """The content of ``published.toml``: every number that the paper and the release publish."""
    return tomllib.loads(
        (resources.files("reproduce.benchmarks") / "published.toml").read_text(encoding="utf-8")
    )


def source_of(name: str) -> str:
    """The end of a message that a file is missing: where it is to be had; "" where that is not
    known.

    Parameters
    ----------
    name : of the file below the folder of data sets.
    """
    where = published()["where"].get(name.split("/")[0])
    return f". To be had: {where}" if where else ""
