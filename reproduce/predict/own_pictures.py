"""Which pictures and videos a run has made: they say so themselves.

A picture's name alone tells nothing: somebody's photograph may be called ``beach_skeleton.png``.
PNG files hold the program's name as their ``Software``, MPEG-4 files in a box of free space at
their end.
"""

from __future__ import annotations

import contextlib
import re
import struct
from pathlib import Path
from typing import Any

from caffe_compat.errors import DataError
from caffe_compat.foreign import read_json

PROGRAM = "convolutional-pose-machines cpm-predict"
_MARK = PROGRAM.encode()
_NAME = re.compile(r"(.+)_(skeleton|people|belief(_[0-9]+)?)\.(png|mp4)", re.DOTALL)
_HEAD = 128  # bytes of a PNG in which its first texts stand


def is_made(path: Path) -> bool:
    """Did an earlier run make a picture or video?

    Results from before there were marks name no pictures: beside such a one the name counts.
    """
    found = _NAME.fullmatch(path.name)
    if found is None or not path.is_file():
        return False
    return _is_marked(path) or _is_older(path.with_name(f"{found[1]}_keypoints.json"))


def _is_marked(path: Path) -> bool:
    """Does a file hold the mark? One that cannot be read is nobody's: whoever needs the picture
    says what is wrong with it."""
    try:
        with path.open("rb") as stream:
            if path.suffix == ".png":
                return _MARK in stream.read(_HEAD)
            stream.seek(max(0, path.stat().st_size - len(_MARK)))
            return stream.read() == _MARK
    except OSError:
        return False


def _is_older(result: Path) -> bool:
    """Is it a result of ours that does not name its pictures?"""
    content: Any = None
    with contextlib.suppress(DataError):  # there is none, or it is damaged
        content = read_json(result, "result of cpm-predict", nan=True)
    return isinstance(content, dict) and "made_by" in content and "pictures" not in content


def check_place(path: Path) -> None:
    """See that no picture is written over that is somebody else's.

    Raises
    ------
    DataError : there is one.
    """
    if path.exists() and not is_made(path):
        raise DataError(
            f"{path}: is there and was not made by cpm-predict; move it, or choose another folder "
            "with --out"
        )


def mark_video(path: Path) -> None:
    """Append the mark to an MPEG-4 file."""
    with path.open("ab") as stream:
        stream.write(struct.pack(">I4s", 8 + len(_MARK), b"free") + _MARK)
