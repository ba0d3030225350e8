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

if TYPE_CHECKING:
    import cv2
else:  # commands list benchmarks and protocols without waiting for OpenCV
    cv2 = lazy_import("cv2")

Image = npt.NDArray[np.uint8]
# A picture of this size takes 450 MB unpacked; the environment variable raises it.
MAX_PIXELS, LIMIT_VARIABLE = 150_000_000, "CPM_MAX_PIXELS"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*")
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


def pixel_limit() -> int:
    """How many pixels a picture may have: ``CPM_MAX_PIXELS``, else 150 million.

    Raises
    ------
    DataError : the variable is no positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isdigit() or not int(text):
        raise DataError(f"{LIMIT_VARIABLE}={text}: expected a number of pixels")
    return int(text)


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) that the head of a picture claims; None for a format unknown here."""
    try:
        if data.startswith(_PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(_JPEG):
            return _jpeg_size(data)
        if data.startswith(b"GIF8"):
            return struct.unpack_from("<HH", data, 6)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data.startswith(_TIFF):
            return _tiff_size(data)
    except (struct.error, IndexError):
        pass
    return None


def _segments(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """Size of a JPEG and where its first scan begins (-1: nowhere)."""
    size, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return size, at
        if marker in (0x01, *range(0xD0, 0xD9)):
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return size, -1


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    return _segments(data)[0]


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        packed = int.from_bytes(data[24:30], "little")
        return (packed & 0xFFFFFF) + 1, (packed >> 24) + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    found = {}
    for i in range(count):
        tag, kind = struct.unpack_from(f"{order}HH", data, at + 2 + 12 * i)
        letter = {3: "H", 4: "I"}.get(kind)
        if letter:
            (found[tag],) = struct.unpack_from(f"{order}{letter}", data, at + 10 + 12 * i)
    if _TIFF_WIDTH not in found or _TIFF_HEIGHT not in found:
        return None
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _is_cut(data: bytes) -> bool:
    """Does a JPEG or PNG lack its end?"""
    if data.startswith(_JPEG):
        try:
            _, scan = _segments(data)
        except struct.error:
            return True
        return scan < 0 or data.find(b"\xff\xd9", scan) < 0
    return data.startswith(_PNG) and data.rfind(b"IEND") < 0


def decode(data: bytes, *, upright: bool = False) -> Image:
    """Decode a picture as (H, W, 3) uint8 B, G, R; grey, 16-bit, transparent and CMYK ones too.

    Parameters
    ----------
    upright : turn it as its EXIF data say, as people see it; data sets are annotated on the pixels
        as stored.

    Raises
    ------
    DataError : too large, cut short, of floating point numbers, or no picture.
    """
    import cv2

    if not data:
        raise DataError("is empty (0 bytes)")
    size, limit = size_of(data), pixel_limit()
    if size is not None and size[0] * size[1] > limit:
        raise DataError(
            f"claims {size[0]} × {size[1]} pixels, more than the {limit:,} that are read; set "
            f"{LIMIT_VARIABLE} to read it all the same"
        )
    if _is_cut(data):
        raise DataError("is cut short: the end of the picture is missing; copy it again")
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    depth = cv2.IMREAD_ANYDEPTH if data.startswith(_TIFF) else 0
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | depth)
    except cv2.error as error:
        raise DataError(f"cannot be decoded as an image: {_last(error)}") from None
    if image is None:
        text = not any(byte < 9 or 13 < byte < 32 for byte in data[:1024])
        kind = kind_of(data[:1024]) or ("text, not a picture" if text else "")
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
