"""Caffe's data transformer: crop, mean, scale and mirror of a picture, with Caffe's random numbers.

Shapes: C channels (B, G, R where there are three), H rows, W columns.

Source: ``data_transformer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from caffe_compat.definition.spec import TRAIN
from caffe_compat.errors import DataError, WeightError
from caffe_compat.foreign import read_bytes
from caffe_compat.layers.base import Layer
from caffe_compat.training.draws import Draws, Twister
from caffe_compat.weights.wire import memory_loader, read_blob

Floats = npt.NDArray[np.float32]
_FIELDS = ("scale", "mirror", "crop_size", "mean_file", "mean_value", "force_color", "force_gray")
Color = Literal["color", "gray", "native"]


def read_mean(path: Path) -> Floats:
    """A mean picture from a ``.binaryproto`` file, (C, H, W) float32.

    Raises
    ------
    DataError : the file is no blob of four axes.
    """
    view = memoryview(read_bytes(path))
    try:
        blob = read_blob(view, 0, len(view), memory_loader(view), "mean")
    except WeightError as error:
        raise DataError(f"{path}: is no mean file (.binaryproto): {error}") from None
    if len(blob.shape) != 4 or not blob.data.size:
        raise DataError(f"{path}: has the shape {blob.shape}, expected (1, C, H, W)")
    mean: Floats = np.asarray(blob.data[0], np.float32)
    return mean


class Transformer:
    """What ``transform_param`` does to each picture.

    Parameters
    ----------
    layer : the data layer.
    root : folder that the name of a mean file counts from.

    Attributes
    ----------
    crop : side of the cropped picture; 0 = the whole picture.
    random : are random numbers needed?

    Raises
    ------
    PrototxtError : a field that only a fork's transformer has, or two that exclude each other.
    DataError : the mean file cannot be read.
    """

    def __init__(self, layer: Layer, root: Path) -> None:
        options = layer.spec.message.transform_param
        for field, _ in options.ListFields():
            if field.name not in _FIELDS:
                raise layer.spec.error(
                    f"{field.name} is not supported in a {layer.type} layer (a fork of Caffe added "
                    f"it); supported: {', '.join(_FIELDS)}",
                    f"transform_param.{field.name}",
                )
        self._layer = layer
        self._scale = np.float32(options.scale)
        self._mirror = bool(options.mirror)
        self.crop = int(options.crop_size)
        self._random_crop = bool(self.crop) and layer.phase == TRAIN
        self.random = self._mirror or self._random_crop
        self._dice = Twister(1)
        self._force = bool(options.force_color), bool(options.force_gray)
        self._values = np.array(options.mean_value, np.float32)
        self._mean: Floats | None = None
        if options.HasField("mean_file"):
            if len(self._values):
                raise layer.spec.error(
                    "give mean_file or mean_value, not both", "transform_param.mean_value"
                )
            self._mean = read_mean(self._mean_file(root / options.mean_file))

    def _mean_file(self, path: Path) -> Path:
        if not path.is_file():
            raise DataError(f"layer '{self._layer.name}': mean file '{path}' not found")
        return path

    @property
    def color(self) -> Color:
        """How an encoded picture is to be decoded; pictures that are stored raw stay as they are.

        Raises
        ------
        PrototxtError : both colour and gray are forced.
        """
        if all(self._force):
            raise self._layer.spec.error(
                "give force_color or force_gray, not both", "transform_param.force_gray"
            )
        return "color" if self._force[0] else "gray" if self._force[1] else "native"

    def seed(self, draws: Draws) -> None:
        """Take a seed from Caffe's main generator, where random numbers are needed at all."""
        if self.random:
            self._dice = Twister(draws.draw())

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Shape of a transformed picture.

        Raises
        ------
        DataError : the picture is smaller than the crop.
        """
        if not self.crop:
            return channels, height, width
        if height < self.crop or width < self.crop:
            raise self._error(
                f"a picture of {height}×{width} pixels is smaller than crop_size {self.crop}"
            )
        return channels, self.crop, self.crop

    def __call__(self, picture: npt.NDArray[np.generic], number: int) -> Floats:
        """Transform a picture.

        Parameters
        ----------
        picture : (C, H, W) uint8 or float32.
        number : which picture it is, counted from 0 over the whole run; random numbers hang on it.

        Returns
        -------
        (C, crop, crop) or (C, H, W).

        Raises
        ------
        DataError : picture, crop and mean do not fit each other.
        """
        channels, height, width = picture.shape
        _, rows, columns = self.shape(channels, height, width)
        mirror, top, left = self._choice(number, height - rows, width - columns)
        window = slice(top, top + rows), slice(left, left + columns)
        made = picture[:, window[0], window[1]].astype(np.float32)
        if self._mean is not None:
            if self._mean.shape != picture.shape:
                raise self._error(
                    f"the mean file is {_size(self._mean.shape)}, a picture {_size(picture.shape)}"
                )
            made -= self._mean[:, window[0], window[1]]
        elif len(self._values):
            if len(self._values) not in (1, channels):
                raise self._error(
                    f"{len(self._values)} mean_value for {channels} channels: give 1 or {channels}"
                )
            made -= self._values[:, None, None]
        made *= self._scale
        return np.ascontiguousarray(made[:, :, ::-1]) if mirror else made

    def _choice(self, number: int, free_rows: int, free_columns: int) -> tuple[bool, int, int]:
        """Whether to mirror, and where the crop begins."""
        count = int(self._mirror) + 2 * int(self._random_crop)
        dice = [int(value) for value in self._dice.at(number * count, count)] if count else []
        mirror = self._mirror and dice.pop(0) % 2 == 1
        if self._random_crop:
            return mirror, dice[0] % (free_rows + 1), dice[1] % (free_columns + 1)
        return mirror, free_rows // 2, free_columns // 2

    def _error(self, message: str) -> DataError:
        return DataError(f"layer '{self._layer.name}': {message}")


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{channels} channels of {height}×{width}"
