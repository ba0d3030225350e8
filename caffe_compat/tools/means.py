"""``image-mean``: the mean picture of a database."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from caffe_compat.commands import Command
from caffe_compat.definition import schema
from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write, ending
from caffe_compat.picturesize import check_pixels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def _pixels(value: bytes, key: str, path: str) -> npt.NDArray[np.float32]:
    """The K×H×W values of a serialized Datum; encoded pictures are decoded."""
    import cv2
    import numpy as np
    from google.protobuf.message import DecodeError

    datum = schema.new("Datum")
    try:
        datum.ParseFromString(value)
    except DecodeError:
        raise DataError(f"{path}: record {key} is no Datum") from None
    if datum.encoded:
        try:
            check_pixels(datum.data)
        except DataError as error:
            raise DataError(f"{path}: record {key}: {error}") from None
        image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise DataError(f"{path}: record {key} holds no picture that can be decoded")
        return np.asarray(np.atleast_3d(image).transpose(2, 0, 1), np.float32)
    flat = (
        np.frombuffer(datum.data, np.uint8)
        if datum.data
        else np.array(datum.float_data, np.float32)
    )
    shape = (datum.channels, datum.height, datum.width)
    if flat.size != math.prod(shape) or not flat.size:
        raise DataError(f"{path}: record {key} holds {flat.size} values, its shape is {shape}")
    return np.asarray(flat.reshape(shape), np.float32)


@click.command("image-mean", cls=Command)
@click.argument("database", type=click.Path(exists=True))
@click.argument("target", type=click.Path(dir_okay=False), required=False)
def image_mean(database: str, target: str | None) -> None:
    """The mean picture of an LMDB of Datums, as .binaryproto (or .npy).

    Without TARGET only the mean of each channel is printed.

    \b
    python -m caffe_compat.tools image-mean train_lmdb mean.binaryproto
    """
    import numpy as np

    from caffe_compat.training.datum import LMDBReader

    reader = LMDBReader(database)
    if not len(reader):
        raise DataError(f"{database}: holds no records")
    total: npt.NDArray[np.float64] | None = None
    for key in reader.keys:
        values = _pixels(reader.raw(key), key.decode(errors="replace"), database)
        if total is None:
            total = np.zeros(values.shape)
        elif total.shape != values.shape:
            raise DataError(
                f"{database}: record {key.decode(errors='replace')} has the shape {values.shape}, "
                f"the ones before {total.shape}: a mean needs pictures of one size"
            )
        total += values
    assert total is not None
    mean = total / len(reader)
    if target is not None:
        if ending(target) == ".npy":
            with atomic_write(target) as file:
                np.save(file, mean.astype(np.float32))
        else:
            blob = schema.new("BlobProto", num=1)
            blob.channels, blob.height, blob.width = mean.shape
            blob.data.extend(mean.astype(np.float32).reshape(-1).tolist())
            with atomic_write(target) as file:
                file.write(blob.SerializeToString())
        click.echo(f"wrote {target}: mean of {len(reader)} pictures of {mean.shape}")
    for channel, value in enumerate(mean.reshape(len(mean), -1).mean(1)):
        click.echo(f"channel {channel}: {value:.6g}")
