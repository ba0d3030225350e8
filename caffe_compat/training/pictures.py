"""Sources of pictures with labels: ``Data`` reads them from an LMDB, ``ImageData`` from files.

Sources: ``data_layer.cpp``, ``image_data_layer.cpp``, ``io.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.definition import schema
from caffe_compat.errors import DataError
from caffe_compat.foreign import read_bytes, read_text
from caffe_compat.layers.base import Layer, Shape
from caffe_compat.picturesize import LIMIT_VARIABLE, check_pixels, pixel_limit
from caffe_compat.training.datum import LMDBReader
from caffe_compat.training.draws import Draws, Twister
from caffe_compat.training.sources import Batch, find_file, register_source
from caffe_compat.training.transformer import Color, Transformer

Picture = npt.NDArray[Any]


def decode_picture(data: bytes | memoryview, color: Color, what: str) -> Picture:
    """Decode a compressed picture, (C, H, W) uint8, channels B, G, R (and alpha).

    Parameters
    ----------
    color : "color" gives three channels, "gray" one, "native" those of the file.
    what : names the picture in errors.

    Raises
    ------
    DataError : no picture, too large, or of more than 8 bits a channel.
    """
    import cv2

    modes = {
        "color": cv2.IMREAD_COLOR,
        "gray": cv2.IMREAD_GRAYSCALE,
        "native": cv2.IMREAD_UNCHANGED,
    }
    buffer = np.frombuffer(data, np.uint8)
    try:
        check_pixels(bytes(data))
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    found = cv2.imdecode(buffer, modes[color]) if buffer.size else None
    if found is None:
        raise DataError(f"{what}: cannot be decoded as a picture")
    if found.dtype != np.uint8:
        raise DataError(f"{what}: has {found.dtype.itemsize * 8} bits a channel, expected 8")
    planes = found[:, :, None] if found.ndim == 2 else found
    return planes.transpose(2, 0, 1)


class PictureSource:
    """Batches of transformed pictures and their labels.

    Attributes
    ----------
    shapes : of the batches; where pictures have several sizes, of the first one.
    """

    def __init__(self, layer: Layer, root: Path) -> None:
        self._layer = layer
        self._size = int(layer.options.batch_size)
        if self._size < 1:
            raise layer.error("must be at least 1", "batch_size")
        self._transformer = Transformer(layer, root)
        self.shapes: tuple[Shape, ...] = ()

    def _set_shapes(self) -> None:
        picture, _ = self._picture(0)
        shape = self._transformer.shape(*picture.shape)
        made: tuple[Shape, ...] = ((self._size, *shape), (self._size,))
        self.shapes = made[: len(self._layer.spec.tops)]

    @abstractmethod
    def _picture(self, number: int) -> tuple[Picture, int]:
        """Picture (C, H, W) and label, counted from 0 over the whole run."""

    def batch(self, number: int) -> Batch:
        """Data (N, C, H, W) and, where there is a second top, labels (N).

        Raises
        ------
        DataError : pictures of different sizes in one batch, or one that cannot be used.
        """
        data: list[npt.NDArray[np.float32]] = []
        labels = []
        first = number * self._size
        for place in range(first, first + self._size):
            picture, label = self._picture(place)
            data.append(self._transformer(picture, place))
            labels.append(label)
            if data[-1].shape != data[0].shape:
                raise DataError(
                    f"layer '{self._layer.name}': a batch cannot hold pictures of the shapes "
                    f"{data[0].shape} and {data[-1].shape}: give crop_size, or batch_size: 1"
                )
        made = np.stack(data), np.array(labels, np.float32)
        return made[: len(self._layer.spec.tops)]


class DataSource(PictureSource):
    """The records of an LMDB in the order of their keys, over and over."""

    def __init__(self, layer: Layer, root: Path, draws: Draws) -> None:
        super().__init__(layer, root)
        if schema.enum_name(layer.options, "backend") != "LMDB":
            raise layer.error(
                "LEVELDB cannot be read here (it is the default where backend is left out): write "
                "the records as LMDB, for example with Caffe's convert_imageset, and set "
                "backend: LMDB",
                "backend",
            )
        path = find_file(layer.options.source, root, f"layer '{layer.name}': LMDB")
        self._records = LMDBReader(path)
        if not len(self._records):
            raise DataError(f"{path}: holds no records")
        if draws.reader_thread:
            draws.draw()
        # Caffe seeds the transformer twice; the second seed counts
        self._transformer.seed(draws)
        self._transformer.seed(draws)
        draws.draw()  # the thread that fetches ahead
        self._set_shapes()

    def _picture(self, number: int) -> tuple[Picture, int]:
        index = number % len(self._records)
        datum = self._records[index]
        if datum.encoded:
            key = self._records.keys[index].decode(errors="replace")
            what = f"{self._records.path}: record '{key}'"
            return decode_picture(datum.raw, self._transformer.color, what), datum.label
        return datum.values, datum.label


class ImageDataSource(PictureSource):
    """Picture files named in a list, each line ``NAME LABEL``."""

    def __init__(self, layer: Layer, root: Path, draws: Draws) -> None:
        super().__init__(layer, root)
        options = layer.options
        if bool(options.new_height) != bool(options.new_width):
            raise layer.error("give new_height and new_width, or neither", "new_height")
        if options.new_height * options.new_width > pixel_limit():
            raise layer.error(
                f"pictures of {options.new_width} × {options.new_height} pixels are larger than "
                f"the limit of {pixel_limit():,} pixels; set {LIMIT_VARIABLE} to raise it",
                "new_height",
            )
        self._new = options.new_width, options.new_height
        self._color: Color = "color" if options.is_color else "gray"
        self._root, self._folder = root, options.root_folder
        listing = find_file(options.source, root, f"layer '{layer.name}': list of pictures")
        self._lines = _read_list(listing)
        self._transformer.seed(draws)
        self._shuffle: int | None = draws.draw() if options.shuffle else None
        self._skip = draws.draw() % options.rand_skip if options.rand_skip else 0
        if self._skip >= len(self._lines):
            raise layer.error(
                f"skips {self._skip} lines, the list has {len(self._lines)}", "rand_skip"
            )
        self._transformer.seed(draws)
        draws.draw()  # the thread that fetches ahead
        self._begin()
        self._set_shapes()

    def _begin(self) -> None:
        """Back to the first time through the list."""
        self._epoch = 0
        self._order = list(range(len(self._lines)))
        if self._shuffle is not None:
            self._dice = Twister(self._shuffle)
            self._mix()

    def _mix(self) -> None:
        """Shuffle the order that is there, as Caffe's ``shuffle`` does."""
        for last in range(len(self._order) - 1, 0, -1):
            other = self._dice.below(last + 1)
            self._order[last], self._order[other] = self._order[other], self._order[last]

    def _line(self, number: int) -> tuple[str, int]:
        epoch, index = divmod(number + self._skip, len(self._lines))
        if self._shuffle is not None:
            if epoch < self._epoch:
                self._begin()
            while self._epoch < epoch:
                self._mix()
                self._epoch += 1
        return self._lines[self._order[index]]

    def _picture(self, number: int) -> tuple[Picture, int]:
        import cv2

        name, label = self._line(number)
        # Caffe puts root_folder before the name as it is, without a slash
        path = os.path.join(self._root, f"{self._folder}{name}")
        data = read_bytes(path)
        picture = decode_picture(data, self._color, path)
        if self._new[0]:
            resized = cv2.resize(picture.transpose(1, 2, 0), self._new)
            planes = resized[:, :, None] if resized.ndim == 2 else resized
            picture = planes.transpose(2, 0, 1)
        return picture, label


_LIST_LINE = "a line is NAME LABEL, the label a whole number"
# Caffe's atoi would take 3.7 for 3, and a word for 0
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,100}")


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Names and labels; the label stands after the last space, so that names may have spaces."""
    found = []
    for count, line in enumerate(read_text(path, "list of files", strict=False).splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        if not name.strip():
            raise DataError(
                f"{path}:{count}: '{line.strip()}' is no name and label: {_LIST_LINE}, with a "
                "space between them"
            )
        if not _WHOLE_NUMBER.fullmatch(label):
            raise DataError(f"{path}:{count}: '{label}' is no label: {_LIST_LINE}")
        found.append((name, int(label)))
    if not found:
        raise DataError(f"{path}: lists no pictures")
    return found


register_source("Data", DataSource)
register_source("ImageData", ImageDataSource)
