"""Frames of video files and cameras, read and written through OpenCV."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import check_target
from caffe_compat.foreign import check_file, reading
from reproduce.predict.own_pictures import mark_video
from reproduce.records.images import kind_in_words

Image = npt.NDArray[np.uint8]
_MOST_TICKS = 65_535


def name_of(source: int | str) -> str:
    """How messages and results call a camera or a stream; an address without its password."""
    if isinstance(source, int):
        return f"camera {source}"
    address = urlsplit(source)
    return address._replace(netloc=address.netloc.rpartition("@")[2], query="").geturl()


@contextlib.contextmanager
def open_capture(source: str | int) -> Iterator[Any]:
    """``cv2.VideoCapture`` of a file, a camera's number or a stream's address, released at the
    end.

    Raises
    ------
    DataError : it cannot be opened.
    """
    import cv2

    if isinstance(source, str) and "://" not in source:
        if not check_file(source):
            raise DataError(f"{source}: is empty (0 bytes)")
        try:
            source.encode()
        except UnicodeEncodeError:
            raise DataError(f"{source}: the name is not UTF-8, which OpenCV needs") from None
    with reading(name_of(source), "video"):
        capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            called = name_of(source)
            if isinstance(source, int):
                what, missing = f"{called} cannot be opened", "missing"
            elif "://" in source:
                what, missing = f"{called}: cannot be opened as a stream", "no such server"
            else:
                with open(source, "rb") as stream:
                    kind = kind_in_words(stream.read(1024), "a video")
                if kind:
                    raise DataError(f"{source}: is {kind}")
                what, missing = f"{called}: cannot be opened as a video", "missing"
            raise DataError(
                f"{what} ({missing}, no permission, or a format that this OpenCV cannot decode)"
            )
        yield capture
    finally:
        capture.release()


def frames_of(capture: Any, limit: int | None = None) -> Iterator[Image]:
    """Frames (H, W, 3) uint8 B, G, R until the end, or ``limit`` of them."""
    number = 0
    while limit is None or number < limit:
        with reading("the video", "video"):
            ok, frame = capture.read()
        if not ok:
            return
        yield np.asarray(frame, np.uint8)
        number += 1


def _is_whole(path: Path) -> bool:
    """Do the boxes of an MPEG-4 file fill it to its end, the one with the index among them?"""
    size, at, names = path.stat().st_size, 0, set()
    with path.open("rb") as stream:
        while at + 8 <= size:
            stream.seek(at)
            length, name = struct.unpack(">I4s", stream.read(8))
            if length == 1:  # a length of 64 bits follows
                (length,) = struct.unpack(">Q", stream.read(8))
            if length < 8:
                return False
            names.add(name)
            at += length
    return at == size and b"moov" in names


def writable_rate(rate: float) -> float:
    """The nearest rate that an MPEG-4 file can have: a fraction of whole numbers up to 65,535."""
    for digits in (3, 2, 1):
        if round(rate * 10**digits) <= _MOST_TICKS:
            return round(rate, digits)
    return float(min(round(rate), _MOST_TICKS))


class VideoFile:
    """A video file that appears under its name when it is complete.

    Parameters
    ----------
    path : the MPEG-4 file.
    rate : frames a second.
    size : width, height of the frames.

    Raises
    ------
    DataError : this OpenCV cannot write such files.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        import cv2

        self.path = path
        check_target(path)
        self._part = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.mp4")
        code = cv2.VideoWriter.fourcc(*"mp4v")
        with reading(path, "target for a video"):
            self._writer = cv2.VideoWriter(str(self._part), code, writable_rate(rate), size)
        if not self._writer.isOpened():
            raise DataError(f"{path}: this OpenCV ({cv2.__version__}) cannot write MPEG-4 videos")

    def add(self, frame: Image) -> None:
        """Append a frame (H, W, 3) uint8 B, G, R."""
        self._writer.write(frame)

    def close(self) -> None:
        """Complete the file and give it its name.

        Raises
        ------
        DataError : it is not whole; OpenCV itself says nothing of a full disk.
        """
        self._writer.release()
        if not _is_whole(self._part):
            raise DataError(f"{self.path}: cannot be written whole (is the disk full?)")
        mark_video(self._part)
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Remove what was not completed."""
        self._writer.release()
        self._part.unlink(missing_ok=True)
