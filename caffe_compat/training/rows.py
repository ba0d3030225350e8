"""Sources of plain arrays: ``HDF5Data``, ``MemoryData``, ``DummyData``.

Sources: ``hdf5_data_layer.cpp``, ``memory_data_layer.cpp``, ``dummy_data_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.foreign import open_hdf5, read_text, take
from caffe_compat.layers.base import Layer
from caffe_compat.training.draws import Draws, glibc_rand, shuffle_as_libstdcxx
from caffe_compat.training.sources import Batch, find_file, register_source
from caffe_compat.training.transformer import Transformer

Floats = npt.NDArray[np.float32]


class ShuffledRows:
    """The order of rows in a shuffled ``HDF5Data`` layer: files in turn, each with its rows mixed.

    Caffe mixes with the C library's ``rand()``, which it never seeds: every process draws the same
    numbers. The order is Caffe's own where nothing else in the process uses ``rand()``.

    Parameters
    ----------
    sizes : number of rows of each file.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._begin()

    def _begin(self) -> None:
        """Back to the first row."""
        self._rand = glibc_rand()
        self._files = list(range(len(self._sizes)))
        self._mix(self._files)
        self._file = 0
        self._start = 0  # how many rows were given before this file's
        self._load()

    def _mix(self, items: list[int]) -> None:
        shuffle_as_libstdcxx(items, self._rand)

    def _load(self) -> None:
        self._rows = list(range(self._sizes[self._files[self._file]]))
        self._mix(self._rows)

    def _next_file(self) -> None:
        self._start += len(self._rows)
        if len(self._files) > 1:
            self._file += 1
            if self._file == len(self._files):
                self._file = 0
                self._mix(self._files)
            self._load()
        self._mix(self._rows)  # once more: Caffe mixes whenever it begins at row 0 again

    def row(self, number: int) -> int:
        """Which row (counted over all files) comes at this place of the whole run."""
        if number < self._start:
            self._begin()
        while number >= self._start + len(self._rows):
            self._next_file()
        offset = int(self._offsets[self._files[self._file]])
        return offset + self._rows[number - self._start]


class HDF5Source:
    """Rows of HDF5 files in sequence, batches crossing file borders, over and over."""

    def __init__(self, layer: Layer, root: Path, draws: Draws) -> None:
        options = layer.options
        if options.batch_size < 1:
            raise layer.error("must be at least 1", "batch_size")
        if layer.spec.message.HasField("transform_param"):
            raise layer.spec.error(
                "HDF5Data transforms nothing, Caffe refuses this: leave transform_param out",
                "transform_param",
            )
        listing = find_file(options.source, root, f"layer '{layer.name}': HDF5 list")
        # Caffe takes words, not lines: names cannot have spaces
        names = read_text(listing, "list of files", strict=False).split()
        if not names:
            raise DataError(f"{listing}: lists no HDF5 file")
        tops = layer.spec.tops
        parts = [self._read(find_file(name, root, f"{listing}: HDF5 file"), tops) for name in names]
        for name, part in zip(names, parts, strict=True):
            for top, rows, first in zip(tops, part, parts[0], strict=True):
                if rows.shape[1:] != first.shape[1:]:
                    raise DataError(
                        f"{listing}: the rows of '{top}' are {rows.shape[1:]} in {name} and "
                        f"{first.shape[1:]} in {names[0]}"
                    )
        self._rows = [np.concatenate([part[i] for part in parts]) for i in range(len(tops))]
        self._size = options.batch_size
        self._order = ShuffledRows([len(part[0]) for part in parts]) if options.shuffle else None
        self.shapes = tuple((self._size, *rows.shape[1:]) for rows in self._rows)

    @staticmethod
    def _read(path: Path, tops: tuple[str, ...]) -> list[Floats]:
        with open_hdf5(path, "HDF5 file of rows") as file:
            missing = [top for top in tops if top not in file]
            if missing:
                raise DataError(f"{path}: has no data set '{missing[0]}'; it has {', '.join(file)}")
            found = [take(file, top, kinds="fiu").astype(np.float32) for top in tops]
        if any(rows.ndim == 0 for rows in found) or len({len(rows) for rows in found}) != 1:
            raise DataError(
                f"{path}: data sets {', '.join(tops)} must have the same number of rows"
            )
        if not len(found[0]):
            raise DataError(f"{path}: data set '{tops[0]}' has no rows")
        return found

    def batch(self, number: int) -> Batch:
        """Rows ``number * batch_size`` and on, wrapping around."""
        places = range(number * self._size, (number + 1) * self._size)
        if self._order is not None:
            index = np.array([self._order.row(place) for place in places])
        else:
            index = np.array(places) % len(self._rows[0])
        return tuple(rows[index] for rows in self._rows)


class MemorySource:
    """``MemoryData``: arrays that a script gives, batch after batch, over and over.

    Attributes
    ----------
    shapes : before the first batch; labels have four axes in the batches themselves, as in Caffe.
    """

    def __init__(self, layer: Layer, root: Path, draws: Draws) -> None:
        self._layer = layer
        Transformer(layer, root).seed(draws)  # Caffe seeds it although it never uses it here
        self.shapes = tuple(layer.output_shapes([]))
        self._given: tuple[Floats, Floats] | None = None
        self._first: int | None = None

    def give(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Take the rows that the next batches come from.

        Parameters
        ----------
        data : (rows, channels, height, width); nothing of ``transform_param`` is done to it.
        labels : one a row, (rows) or (rows, 1, 1, 1).

        Raises
        ------
        DataError : shapes that do not fit the layer, or rows that make no whole batches.
        """
        rows, targets = np.array(data, np.float32), np.array(labels, np.float32)
        batch, *shape = self.shapes[0]
        if rows.ndim != 4 or list(rows.shape[1:]) != shape:
            raise self._error(
                f"data are {rows.shape}, expected (rows, {', '.join(map(str, shape))})"
            )
        if not len(rows) or len(rows) % batch:
            raise self._error(f"{len(rows)} rows make no whole batches of {batch}")
        if targets.size != len(rows) or targets.shape[:1] != rows.shape[:1]:
            raise self._error(f"{len(rows)} rows need as many labels, found {targets.shape}")
        self._given = rows, targets.reshape(-1, 1, 1, 1)
        self._first = None

    def batch(self, number: int) -> Batch:
        """The next rows; the first batch after :meth:`give` begins with its first row.

        Raises
        ------
        DataError : nothing was given yet.
        """
        if self._given is None:
            raise self._error(
                "MemoryData has no data of its own: a script gives them with set_input_arrays "
                "(caffe_compat.pycaffe)"
            )
        self._first = number if self._first is None else self._first
        size = self.shapes[0][0]
        start = (number - self._first) * size % len(self._given[0])
        return tuple(rows[start : start + size] for rows in self._given)

    def _error(self, message: str) -> DataError:
        return DataError(f"layer '{self._layer.name}': {message}")


class FilledSource:
    """``DummyData``: constants, or fresh random values for each batch."""

    def __init__(self, layer: Any, root: Path, draws: Draws) -> None:
        self._fillers = layer.fill()
        self._stream = draws.stream()
        self.shapes = tuple(layer.output_shapes([]))
        # Caffe fills these once, before the first pass
        self.constant = tuple(filler.type == "constant" for filler in self._fillers)

    def batch(self, number: int) -> Batch:
        """Filled arrays; random ones depend on the seed, the layer's place and the number."""
        import torch

        from caffe_compat.network.fillers import fill

        (seed,) = np.random.SeedSequence([*self._stream, number]).generate_state(1)
        generator = torch.Generator().manual_seed(int(seed))
        made = []
        for shape, filler in zip(self.shapes, self._fillers, strict=True):
            tensor = torch.empty(shape)
            fill(tensor, filler, generator)
            made.append(tensor.numpy())
        return tuple(made)


register_source("HDF5Data", HDF5Source)
register_source("MemoryData", MemorySource)
register_source("DummyData", FilledSource)
