"""Pictures that others made, decoded with care: their size is read before they are unpacked, and
one that is cut short is refused rather than filled up with grey."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.foreign import kind_of, read_bytes
from caffe_compat.lazy import lazy_import
from caffe_compat.picturesize import JPEG, PNG, TIFF, check_pixels, jpeg_segments

if TYPE_CHECKING:
    import cv2
else:  # commands list benchmarks and protocols without waiting for OpenCV
    cv2 = lazy_import("cv2")

Image = npt.NDArray[np.uint8]


def _is_cut(data: bytes) -> bool:
    """Does a JPEG or PNG lack its end?"""
    if data.startswith(JPEG):
        try:
            _, scan = jpeg_segments(data)
        except struct.error:
            return True
        return scan < 0 or data.find(b"\xff\xd9", scan) < 0
    return data.startswith(PNG) and data.rfind(b"IEND") < 0


def decode(data: bytes, *, upright: bool = False) -> Image:
    """Decode a picture as (H, W, 3) uint8 B, G, R; grey, 16-bit, transparent and CMYK ones too.

    Parameters
    ----------
    upright : turn it as its EXIF data say, as people see it; data sets are annotated on the pixels
        as stored.

    Raises
    ------
    DataError : larger than ``CPM_MAX_PIXELS`` allows, cut short, of floating point numbers, or no
        picture.
    """
    import cv2

    if not data:
        raise DataError("is empty (0 bytes)")
    check_pixels(data)
    if _is_cut(data):
        raise DataError("is cut short: the end of the picture is missing; copy it again")
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    depth = cv2.IMREAD_ANYDEPTH if data.startswith(TIFF) else 0
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | depth)
    except cv2.error as error:
        raise DataError(f"cannot be decoded as an image: {_last(error)}") from None
    if image is None:
        kind = kind_in_words(data[:1024], "a picture")
        raise DataError(
            f"is {kind}" if kind else "cannot be decoded as an image (damaged, or not an image)"
        )
    if image.dtype == np.uint16:
        image = np.right_shift(image, 8).astype(np.uint8)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise DataError(
            f"holds pixels of type {image.dtype}, whose range is not known; save it with 8 or 16 "
            "bits per channel"
        )
    return np.asarray(image, np.uint8)


def kind_in_words(head: bytes, expected: str) -> str:
    """What a file is by its first bytes, if it is not what was expected; "" where they tell
    nothing."""
    text = not any(byte < 9 or 13 < byte < 32 for byte in head)
    return kind_of(head) or (f"text, not {expected}" if text else "")


def _last(error: Exception) -> str:
    """The sentence of an OpenCV error, without its file and line."""
    text = " ".join(str(error).split())
    return text.rpartition("error: ")[2][:120] or text[:120]


def read_image(path: str | os.PathLike[str], *, upright: bool = False) -> Image:
    """Read and :func:`decode` a picture.

    Raises
    ------
    DataError : missing, no ordinary file, or not decodable; begins with the file's name.
    """
    name = os.fspath(path)
    if not os.path.lexists(name):
        raise DataError(f"{name}: no such image")
    data = read_bytes(path)
    try:
        return decode(data, upright=upright)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
