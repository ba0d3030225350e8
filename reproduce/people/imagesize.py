"""Width and height of an image from its header, without decoding."""

from __future__ import annotations

import os
import struct

from caffe_compat.errors import DataError
from caffe_compat.foreign import check_file


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of a JPEG or PNG as stored (EXIF rotation is not applied, as MATLAB's
    imread).

    Raises
    ------
    DataError : missing, another format, or a damaged header.
    """
    name = os.fspath(path)
    if not os.path.lexists(name):
        raise DataError(
            f"{name}: cannot be read: no such image (--skip-missing leaves such people out)"
        )
    check_file(path)
    try:
        with open(name, "rb") as stream:
            head = stream.read(24)
            if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 24:
                width, height = struct.unpack(">II", head[16:24])
                return int(width), int(height)
            if head[:2] == b"\xff\xd8":
                stream.seek(2)
                while True:
                    byte = stream.read(1)
                    while byte == b"\xff":
                        byte = stream.read(1)
                    if not byte:
                        break
                    marker = byte[0]
                    if marker in (0x01, *range(0xD0, 0xD8)):
                        continue
                    (size,) = struct.unpack(">H", stream.read(2))
                    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                        _, height, width = struct.unpack(">BHH", stream.read(5))
                        return int(width), int(height)
                    stream.seek(size - 2, os.SEEK_CUR)
                    if stream.read(1) != b"\xff":
                        break
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    except struct.error:
        pass
    raise DataError(f"{name}: is no JPEG or PNG file with a whole header")
