"""How much room records take, and whether the disk has it."""

from __future__ import annotations

import shutil
from pathlib import Path

from caffe_compat.errors import DataError
from reproduce.records import layout

RECORD_BYTES = 4096  # that a record takes beside its picture, at most


def raw_bytes(width: int, height: int) -> int:
    """Bytes in a database of a record with a raw picture, at most."""
    return 4 * max(width, layout.MIN_WIDTH) * height + RECORD_BYTES


def check_space(target: Path, need: float) -> None:
    """Refuse when the disk cannot hold so many bytes more, with 5 % to spare.

    Raises
    ------
    DataError : says how many there are.
    """
    folder = target.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need * 1.05 > free:
        raise DataError(
            f"{target}: needs {need / 1e6:,.1f} MB, {folder} has {free / 1e6:,.1f} MB free"
        )


def map_size(need: int, partial: Path) -> int:
    """How much address space a database may take: twice what it will hold, so that a limit on it
    (``ulimit -v``) is met by large exports alone."""
    return 2 * (need + written(partial)) + (64 << 20)


def written(partial: Path) -> int:
    """Bytes of the records that are there already."""
    data = partial / "data.mdb"
    return data.stat().st_size if data.exists() else 0
