"""Width and height of an image from its header, without decoding."""

from __future__ import annotations

import os

from caffe_compat.errors import DataError
from caffe_compat.foreign import check_file
from caffe_compat.picturesize import size_of

_HEAD = 1 << 16  # bytes that are read first: where nearly every file says its size


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of a picture as stored (EXIF rotation is not applied, as MATLAB's imread).

    Raises
    ------
    DataError : missing, an unknown format, or a damaged header.
    """
    name = os.fspath(path)
    if not os.path.lexists(name):
        raise DataError(
            f"{name}: cannot be read: no such image (--skip-missing leaves such people out)"
        )
    check_file(path)
    try:
        with open(name, "rb") as stream:
            head = stream.read(_HEAD)
            size = size_of(head) or size_of(head + stream.read())
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    if size is None:
        raise DataError(f"{name}: is no picture of a known format with a whole header")
    return size
