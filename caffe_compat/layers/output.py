"""HDF5Output: a layer that writes what it is given into a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_compat.errors import DataError
from caffe_compat.files import write_hdf5
from caffe_compat.layers.base import Layer, Shape, register

if TYPE_CHECKING:
    from torch import Tensor

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes two bottoms into an HDF5 file, as ``data`` and ``label`` of 4 axes each.

    A network writes its file at the first forward pass and refuses a second one, as Caffe does. An
    earlier HDF5 file of that name is replaced; a file of any other kind is not.

    Source: ``hdf5_output_layer.cpp`` of BVLC Caffe.
    """

    option = "hdf5_output_param"
    bottoms = (2, 2)
    tops = (0, 0)
    effect = True
    stateful = True

    def setup(self) -> None:
        if not self.options.file_name:
            raise self.error("needs the name of the file to write", "file_name")
        self.written = False

    def fresh(self) -> Layer:
        return HDF5Output(self.spec, self.phase)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return []

    def gradient_to(self, index: int) -> bool:
        return False

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self.repeating:
            return ()
        name = self.options.file_name
        for bottom in bottoms:
            if bottom.dim() > 4:
                raise self.error(
                    f"can write blobs of up to 4 axes, found {tuple(bottom.shape)}", "bottom"
                )
        rows = [bottom.shape[0] if bottom.dim() else 1 for bottom in bottoms]
        if rows[0] != rows[1]:
            raise self.error(
                f"both bottoms need the same number of rows, found {rows[0]} and {rows[1]}",
                "bottom",
            )
        if self.written:
            raise DataError(
                f"layer '{self.name}': {name} is written already: a network writes one batch; "
                "give the second one to a new network with another file_name"
            )
        if os.path.exists(name):
            with open(name, "rb") as stream:
                if stream.read(len(_HDF5_MAGIC)) not in (_HDF5_MAGIC, b""):
                    raise DataError(
                        f"layer '{self.name}': {name} exists and is no HDF5 file: it is not "
                        "overwritten; choose another file_name"
                    )
        with write_hdf5(name) as file:
            for key, bottom in zip(("data", "label"), bottoms, strict=True):
                shape = self.four_axes(bottom.shape)
                file.create_dataset(key, data=bottom.detach().cpu().float().reshape(shape).numpy())
        self.written = True
        return ()
