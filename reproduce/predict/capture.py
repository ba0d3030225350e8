"""Frames of video files and cameras, read and written through OpenCV."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError

Image = npt.NDArray[np.uint8]


@contextlib.contextmanager
def open_capture(source: str | int) -> Iterator[Any]:
    """``cv2.VideoCapture`` of a file or of a camera's number, released at the end.

    Raises
    ------
    DataError : it cannot be opened.
    """
    import cv2

    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            what = (
                f"camera {source} cannot be opened"
                if isinstance(source, int)
                else f"{source}: cannot be opened as a video"
            )
            raise DataError(
                f"{what} (missing, no permission, or a format that this OpenCV cannot decode)"
            )
        yield capture
    finally:
        capture.release()


def frames_of(capture: Any, limit: int | None = None) -> Iterator[Image]:
    """Frames (H, W, 3) uint8 B, G, R until the end, or ``limit`` of them."""
    number = 0
    while limit is None or number < limit:
        ok, frame = capture.read()
        if not ok:
            return
        yield np.asarray(frame, np.uint8)
        number += 1


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

        self.path, self._part = path, path.with_name(f".{path.stem}.part.mp4")
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._part), code, rate, size)
        if not self._writer.isOpened():
            raise DataError(f"{path}: this OpenCV ({cv2.__version__}) cannot write MPEG-4 videos")

    def add(self, frame: Image) -> None:
        """Append a frame (H, W, 3) uint8 B, G, R."""
        self._writer.write(frame)

    def close(self) -> None:
        """Complete the file and give it its name."""
        self._writer.release()
        os.replace(self._part, self.path)
