"""Where a network's data come from while it is trained or tested: one source per data layer.

A source is deterministic: batch number ``i`` is the same whoever asks for it, which is what makes
an interrupted training go on exactly. Factories are registered by layer type; other packages add
theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.layers.base import Layer, Shape

Batch = tuple[npt.NDArray[np.float32], ...]


class BatchSource(Protocol):
    """Batches for the tops of a data layer."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes of the arrays that :meth:`batch` gives."""
        ...

    def batch(self, number: int) -> Batch:
        """The batch with this number, counted from 0 over the whole training."""
        ...


Factory = Callable[[Layer, Path], BatchSource]
_FACTORIES: dict[str, Factory] = {}


def register_source(layer_type: str, factory: Factory) -> None:
    """Make a source known for a data layer's type; ``factory(layer, root)`` opens it."""
    _FACTORIES[layer_type] = factory


def open_source(layer: Layer, root: Path) -> BatchSource:
    """The source of a data layer.

    Parameters
    ----------
    root : folder that relative names count from.

    Raises
    ------
    DataError : no source for this type of layer, or the data cannot be read.
    """
    if layer.type not in _FACTORIES:
        known = ", ".join(sorted(_FACTORIES))
        raise DataError(
            f"layer '{layer.name}': no data source for type {layer.type}; known: {known}"
        )
    return _FACTORIES[layer.type](layer, root)


def find_file(name: str, root: Path, what: str) -> Path:
    """A file named in a definition: relative to ``root``.

    Raises
    ------
    DataError : not there; says where it was looked for.
    """
    path = root / name
    if not path.exists():
        raise DataError(f"{what} '{name}' not found (looked for {os.path.normpath(path)})")
    return path


class HDF5Source:
    """Rows of HDF5 files in sequence, batches crossing file borders, over and over.

    Source: ``hdf5_data_layer.cpp`` of BVLC Caffe (``shuffle`` is refused: its order is not
    reproducible).
    """

    def __init__(self, layer: Layer, root: Path) -> None:
        options = layer.options
        if options.shuffle:
            raise layer.error(
                "shuffled reading is not supported: Caffe's order is not reproducible", "shuffle"
            )
        if options.batch_size < 1:
            raise layer.error("must be at least 1", "batch_size")
        listing = find_file(options.source, root, f"layer '{layer.name}': HDF5 list")
        names = [
            line.strip()
            for line in listing.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        if not names:
            raise DataError(f"{listing}: lists no HDF5 file")
        tops = layer.spec.tops
        parts = [self._read(find_file(name, root, f"{listing}: HDF5 file"), tops) for name in names]
        self._rows = [np.concatenate([part[i] for part in parts]) for i in range(len(tops))]
        self._size = options.batch_size
        self.shapes = tuple((self._size, *rows.shape[1:]) for rows in self._rows)

    @staticmethod
    def _read(path: Path, tops: tuple[str, ...]) -> list[npt.NDArray[np.float32]]:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                missing = [top for top in tops if top not in file]
                if missing:
                    raise DataError(
                        f"{path}: has no data set '{missing[0]}'; it has {', '.join(file)}"
                    )
                found = [np.asarray(file[top], np.float32) for top in tops]
        except OSError as error:
            raise DataError(f"{path}: damaged HDF5 file: {error}") from None
        if len({len(rows) for rows in found}) != 1 or not len(found[0]):
            raise DataError(
                f"{path}: data sets {', '.join(tops)} must have the same number of rows, at least 1"
            )
        return found

    def batch(self, number: int) -> Batch:
        """Rows ``number * batch_size`` and on, wrapping around."""
        first = number * self._size
        index = np.arange(first, first + self._size) % len(self._rows[0])
        return tuple(rows[index] for rows in self._rows)


class FilledSource:
    """``DummyData``: constants, or fresh random values for each batch."""

    def __init__(self, layer: Any, root: Path) -> None:
        self._fillers = layer.fill()
        self.shapes = tuple(layer.output_shapes([]))

    def batch(self, number: int) -> Batch:
        """Filled arrays; random ones depend on the number."""
        import torch

        from caffe_compat.network.fillers import fill

        generator = torch.Generator().manual_seed(number + 1)
        made = []
        for shape, filler in zip(self.shapes, self._fillers, strict=True):
            tensor = torch.empty(shape)
            fill(tensor, filler, generator)
            made.append(tensor.numpy())
        return tuple(made)


register_source("HDF5Data", HDF5Source)
register_source("DummyData", FilledSource)
