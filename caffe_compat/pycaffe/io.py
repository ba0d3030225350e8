"""``caffe.io``: pictures to input arrays and back; Caffe's blobs and datums to arrays and back.

Pictures are H×W×K arrays of float32 from 0 to 1, channels R, G, B; a net's input is K×H×W.

Source: ``caffe/io.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.definition import schema
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.foreign import read_bytes
from caffe_compat.picturesize import check_pixels
from caffe_compat.pycaffe.blobs import Array
from caffe_compat.pycaffe.paths import existing
from caffe_compat.pycaffe.proto import caffe_pb2 as caffe_pb2  # scripts say caffe.io.caffe_pb2

# weights of red, green and blue in a grey value (ITU-R BT.709)
_LUMINANCE = (0.2125, 0.7154, 0.0721)


class ArrayError(CaffeCompatError, ValueError):
    """An array of a shape that does not fit."""


# ------------------------------------------------------------ blobs and datums


def blobproto_to_array(blob: Any, return_diff: bool = False) -> npt.NDArray[Any]:
    """The values of a ``BlobProto`` in its shape.

    Parameters
    ----------
    return_diff : the gradient instead of the values.

    Raises
    ------
    ArrayError : the number of values does not fit the shape.
    """
    name = "diff" if return_diff else "data"
    doubles = getattr(blob, f"double_{name}")
    values = np.array(doubles) if doubles else np.array(getattr(blob, name), np.float32)
    if any(blob.HasField(axis) for axis in ("num", "channels", "height", "width")):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    else:
        shape = tuple(blob.shape.dim)
    if math.prod(shape) != values.size:
        raise ArrayError(f"the blob holds {values.size} values, its shape is {shape}")
    return values.reshape(shape)


def array_to_blobproto(arr: npt.ArrayLike, diff: npt.ArrayLike | None = None) -> Any:
    """A ``BlobProto`` with the values (and gradient) of an array of any shape."""
    blob = schema.new("BlobProto")
    blob.shape.dim.extend(np.shape(arr))
    blob.data.extend(np.asarray(arr, np.float32).reshape(-1).tolist())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float32).reshape(-1).tolist())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[npt.ArrayLike]) -> bytes:
    """Arrays as a serialized ``BlobProtoVector``."""
    vector = schema.new("BlobProtoVector")
    vector.blobs.extend(array_to_blobproto(arr) for arr in arraylist)
    return bytes(vector.SerializeToString())


def blobprotovector_str_to_arraylist(data: bytes) -> list[npt.NDArray[Any]]:
    """The arrays of a serialized ``BlobProtoVector``."""
    vector = schema.new("BlobProtoVector")
    vector.ParseFromString(data)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: npt.NDArray[Any], label: int | None = None) -> Any:
    """A ``Datum`` of a K×H×W array: bytes of uint8 values, floats of any other.

    Raises
    ------
    ArrayError : the array has not three axes.
    """
    if np.ndim(arr) != 3:
        raise ArrayError(f"a datum takes an array of 3 axes (K×H×W), this one is {np.shape(arr)}")
    datum = schema.new("Datum")
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(np.asarray(arr, np.float32).reshape(-1).tolist())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> npt.NDArray[Any]:
    """The K×H×W values of a ``Datum``: uint8, or float where it holds floats.

    Raises
    ------
    ArrayError : it holds an encoded picture, or another number of values than K×H×W.
    """
    if datum.encoded:
        raise ArrayError("the datum holds an encoded picture (PNG, JPEG): decode its 'data'")
    flat = (
        np.frombuffer(datum.data, np.uint8)
        if datum.data
        else np.array(datum.float_data, np.float64)
    )
    shape = (datum.channels, datum.height, datum.width)
    if flat.size != math.prod(shape):
        raise ArrayError(f"the datum holds {flat.size} values, its shape is {shape}")
    return flat.reshape(shape)


# ------------------------------------------------------------ pictures


def load_image(filename: str | os.PathLike[str], color: bool = True) -> Array:
    """Read a picture.

    Parameters
    ----------
    color : with False the result is grey and has one channel; grey files get three equal
        channels otherwise.

    Returns
    -------
    H×W×3 (or H×W×1) float32 from 0 to 1, channels R, G, B. Transparency is left out.

    Raises
    ------
    MissingFile : no such file.
    CaffeCompatError : no picture that OpenCV reads, or one that is too large.
    """
    import cv2

    name = existing(filename, "picture")
    try:
        check_pixels(read_bytes(name))
    except DataError as error:
        raise CaffeCompatError(f"picture '{name}': {error}") from None
    found = cv2.imread(name, cv2.IMREAD_UNCHANGED)
    if found is None:
        raise CaffeCompatError(f"picture '{name}': cannot be read as a picture")
    limit = {1: 255, 2: 65535}.get(found.dtype.itemsize, 1)  # pictures of floats stay as they are
    image = np.asarray(found, np.float32) / np.float32(limit)
    if image.ndim == 3:
        image = image[:, :, 2::-1]  # B, G, R and perhaps alpha
        if not color:
            image = image @ np.array(_LUMINANCE, np.float32)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3 if color else 1, axis=2)
    return np.ascontiguousarray(image)


def resize_image(
    im: npt.NDArray[Any], new_dims: Sequence[int], interp_order: int = 1
) -> npt.NDArray[np.float32]:
    """A picture in another size.

    Parameters
    ----------
    im : H×W×K.
    new_dims : the new (height, width).
    interp_order : of the spline; 1 is linear.

    Returns
    -------
    H×W×K float32.

    Notes
    -----
    As Caffe does, pictures of one or three channels are seen as areas of pixels, beyond whose
    border is the picture's lowest value; of others the corner pixels stay the corners.
    """
    from scipy import ndimage

    height, width = (int(size) for size in new_dims)
    if im.shape[-1] not in (1, 3):
        zoom = (height / im.shape[0], width / im.shape[1], 1)
        corners: Array = ndimage.zoom(np.asarray(im, np.float32), zoom, order=interp_order)
        return corners
    low, high = float(im.min()), float(im.max())
    if high <= low:
        return np.full((height, width, im.shape[-1]), low, np.float32)
    unit = (np.asarray(im, np.float64) - low) / (high - low)
    zoom = (height / im.shape[0], width / im.shape[1], 1)
    resized = ndimage.zoom(unit, zoom, order=interp_order, mode="grid-constant", grid_mode=True)
    return np.asarray(np.clip(resized, 0, 1) * (high - low) + low, np.float32)


def oversample(
    images: Sequence[npt.NDArray[Any]] | npt.NDArray[Any], crop_dims: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Ten crops of each picture: the four corners and the centre, then the same mirrored.

    Parameters
    ----------
    images : H×W×K pictures of one size.
    crop_dims : (height, width) of the crops.

    Returns
    -------
    (10 N)×height×width×K float32.

    Raises
    ------
    ArrayError : a crop is larger than the pictures.
    """
    size = np.array(images[0].shape[:2])
    crop = np.array(crop_dims[:2])
    if (crop > size).any():
        raise ArrayError(f"a crop of {tuple(crop)} does not fit into a picture of {tuple(size)}")
    last = size - crop
    starts = [(top, left) for top in (0, last[0]) for left in (0, last[1])]
    starts.append((int(size[0] / 2 - crop[0] / 2), int(size[1] / 2 - crop[1] / 2)))
    crops = []
    for image in images:
        plain = [image[top : top + crop[0], left : left + crop[1]] for top, left in starts]
        crops += [*plain, *(one[:, ::-1] for one in plain)]
    return np.array(crops, np.float32)


class Transformer:
    """Pictures to a net's input and back; each step is done where it was set, in this order:
    resize, transpose, channel swap, raw scale, mean, input scale.

    >>> t = Transformer({"data": (1, 3, 227, 227)})
    >>> t.set_transpose("data", (2, 0, 1))
    >>> t.set_channel_swap("data", (2, 1, 0))
    >>> t.set_raw_scale("data", 255)
    >>> t.preprocess("data", np.zeros((300, 200, 3))).shape
    (3, 227, 227)

    Parameters
    ----------
    inputs : shape of each input blob by name.

    Attributes
    ----------
    inputs : shape of each input blob.
    transpose, channel_swap, raw_scale, mean, input_scale : what was set, by input.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise CaffeCompatError(f"'{in_}' is none of the inputs: {', '.join(self.inputs)}")
        return self.inputs[in_]

    def preprocess(self, in_: str, data: npt.NDArray[Any]) -> Array:
        """A picture as a net's input.

        Parameters
        ----------
        data : H×W×K; of another size it is resized.

        Returns
        -------
        K×H×W float32 (as the transpose says); ``data`` stays as it is.
        """
        size = self._shape(in_)[2:]
        made: Array = np.asarray(data, np.float32)
        if made.shape[:2] != size:
            made = resize_image(made, size)
        if in_ in self.transpose:
            made = made.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            made = made[list(self.channel_swap[in_])]
        made = made.copy()
        if in_ in self.raw_scale:
            made *= self.raw_scale[in_]
        if in_ in self.mean:
            made -= self.mean[in_]
        if in_ in self.input_scale:
            made *= self.input_scale[in_]
        return made

    def deprocess(self, in_: str, data: npt.NDArray[Any]) -> Array:
        """A net's input as a picture: the steps of :meth:`preprocess` backwards, size aside."""
        axes = len(self._shape(in_)) - 1
        made: Array = np.array(data, np.float32)
        while made.ndim > axes and len(made) == 1:
            made = made[0]
        if in_ in self.input_scale:
            made /= self.input_scale[in_]
        if in_ in self.mean:
            made += self.mean[in_]
        if in_ in self.raw_scale:
            made /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            made = made[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            return made.transpose(np.argsort(self.transpose[in_]).tolist())
        return made.squeeze()

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of axes; (2, 0, 1) makes K×H×W of H×W×K.

        Raises
        ------
        ArrayError : another number of axes than the input has.
        """
        axes = len(self._shape(in_)) - 1
        if len(order) != axes:
            raise ArrayError(f"input '{in_}' has {axes} axes without the batch's, not {len(order)}")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of channels; (2, 1, 0) makes B, G, R of R, G, B.

        Raises
        ------
        ArrayError : another number of channels than the input has.
        """
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise ArrayError(f"input '{in_}' has {channels} channels, not {len(order)}")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """A factor before the mean is subtracted; 255 for nets that were trained on bytes."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: npt.NDArray[Any]) -> None:
        """What to subtract: one value a channel, or a K×H×W (H×W) picture, resized if need be.

        Raises
        ------
        ArrayError : neither one value a channel nor a picture of the input's channels.
        """
        shape = self._shape(in_)[1:]
        values: Array = np.asarray(mean, np.float32)
        if values.ndim == 1:
            values = values[:, None, None]
        elif values.ndim == 2:
            values = values[None]
        if values.ndim != 3 or values.shape[0] not in (1, shape[0]):
            raise ArrayError(f"a mean of shape {np.shape(mean)} does not fit an input of {shape}")
        if np.ndim(mean) > 1 and values.shape[1:] != shape[1:]:
            values = resize_image(values.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = values

    def set_input_scale(self, in_: str, scale: float) -> None:
        """A factor after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale
