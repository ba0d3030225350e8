"""How large a picture is by its first bytes, and how large one may be: both are known before it is
unpacked."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable

from caffe_compat.errors import DataError

# A picture of this size takes 450 MB unpacked; the environment variable raises it.
MAX_PIXELS, LIMIT_VARIABLE = 150_000_000, "CPM_MAX_PIXELS"
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*")
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_SUN = b"\x59\xa6\x6a\x95"
_JP2, _J2K = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
_GAP = rb"(?:\s|#[^\n]*\n)+"  # comments are gaps, too
# formats whose heads are text
_TEXTS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"P[1-6]%b(?P<width>\d+)%b(?P<height>\d+)" % (_GAP, _GAP),  # PBM, PGM, PPM
        rb"P[Ff]\s+(?P<width>\d+)\s+(?P<height>\d+)",  # PFM
        rb"P7\s.*?WIDTH\s+(?P<width>\d+)\s+HEIGHT\s+(?P<height>\d+)",  # PAM
        rb"#\?.*?[-+]Y\s+(?P<height>\d+)\s+[-+]X\s+(?P<width>\d+)",  # Radiance
    )
)
_HEAD = 4096  # bytes of a text head that are looked at


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
        for magic, read in _READERS:
            if data.startswith(magic):
                return read(data)
        if data[4:8] == b"ftyp":
            return _avif_size(data)
        for pattern in _TEXTS:
            if found := pattern.match(data, 0, _HEAD):
                return int(found["width"]), int(found["height"])
    except (struct.error, IndexError, ValueError):
        pass
    return None


def check_pixels(data: bytes) -> None:
    """Refuse a compressed picture that would be too large once it is unpacked.

    Raises
    ------
    DataError : says its size, and how to read it all the same.
    """
    size, limit = size_of(data), pixel_limit()
    if size is not None and size[0] * size[1] > limit:
        raise DataError(
            f"claims {size[0]} × {size[1]} pixels, more than the {limit:,} that are read; set "
            f"{LIMIT_VARIABLE} (or --max-pixels) to read it all the same"
        )


def jpeg_segments(data: bytes) -> tuple[tuple[int, int] | None, int]:
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


def _bmp_size(data: bytes) -> tuple[int, int]:
    (head,) = struct.unpack_from("<I", data, 14)
    # OS/2's head of 12 bytes has 16-bit sizes
    width, height = struct.unpack_from("<HH" if head == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _jp2_size(data: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">II", data, data.index(b"ihdr") + 4)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        # two numbers of 24 bits
        low, high = struct.unpack_from("<IH", data, 24)
        return (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _avif_size(data: bytes) -> tuple[int, int] | None:
    """The largest of the images that an AVIF file is put together from."""
    sizes = [
        struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data)
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


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


_READERS: tuple[
    tuple[bytes | tuple[bytes, ...], Callable[[bytes], tuple[int, int] | None]], ...
] = (
    (PNG, lambda data: struct.unpack_from(">II", data, 16)),
    (JPEG, lambda data: jpeg_segments(data)[0]),
    (b"GIF8", lambda data: struct.unpack_from("<HH", data, 6)),
    (b"BM", _bmp_size),
    (b"RIFF", _webp_size),
    (TIFF, _tiff_size),
    (_SUN, lambda data: struct.unpack_from(">II", data, 4)),
    (_J2K, lambda data: struct.unpack_from(">II", data, 8)),
    (_JP2, _jp2_size),
)
