"""Where a network's data come from while it is trained or tested: one source per data layer.

A source is deterministic: batch number ``i`` is the same whoever asks for it, which is what makes
an interrupted training go on exactly. Factories are registered by layer type; other packages add
theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from caffe_compat.definition.spec import LayerSpec
from caffe_compat.errors import DataError
from caffe_compat.layers.base import Layer, Shape
from caffe_compat.training.draws import Draws

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


Factory = Callable[[Layer, Path, Draws], BatchSource]
# Installed packages name the factories of their own types of layers in this group of entry points.
PLUGINS = "caffe_compat.sources"
_FACTORIES: dict[str, Factory] = {}


def register_source(layer_type: str, factory: Factory) -> None:
    """Make a source known for a data layer's type; ``factory(layer, root, draws)`` opens
    it."""
    _FACTORIES[layer_type] = factory


def open_source(layer: Layer, root: Path, draws: Draws) -> BatchSource:
    """The source of a data layer.

    Parameters
    ----------
    root : folder that relative names count from.
    draws : Caffe's main generator; layers must be opened in the order of the net.

    Raises
    ------
    DataError : no source for this type of layer, or the data cannot be read.
    """
    if layer.type not in _FACTORIES:
        for point in entry_points(group=PLUGINS, name=layer.type):
            register_source(layer.type, point.load())
    if layer.type not in _FACTORIES:
        known = ", ".join(sorted(_FACTORIES))
        raise DataError(
            f"layer '{layer.name}': no data source for type {layer.type}; known: {known}"
        )
    return _FACTORIES[layer.type](layer, root, draws)


# Options that Caffe reads and never looks at, by type of layer: "MESSAGE.FIELD", or a whole
# message.
# Of the old names for transform_param's fields Caffe moves those of the oldest definitions only.
_IGNORED = {
    "Data": (
        *(f"data_param.{name}" for name in ("scale", "mean_file", "crop_size", "mirror")),
        "data_param.rand_skip",
        "data_param.force_encoded_color",
    ),
    "ImageData": (
        *(f"image_data_param.{name}" for name in ("scale", "mean_file", "crop_size", "mirror")),
        "transform_param.force_color",
        "transform_param.force_gray",
    ),
    "HDF5Data": ("hdf5_data_param.debug",),
    "MemoryData": ("transform_param",),
    "CPMData": (
        *(f"cpmdata_param.{name}" for name in ("scale", "mean_file", "crop_size", "mirror")),
        "cpmdata_param.rand_skip",
        "cpmdata_param.force_encoded_color",
        "cpmdata_param.lbl_source",
    ),
    "ContrastiveLoss": ("loss_param",),
    "EuclideanLoss": ("loss_param",),
    "HingeLoss": ("loss_param",),
    "MultinomialLogisticLoss": ("loss_param",),
    "SmoothL1Loss": ("loss_param",),
}


def ignored(spec: LayerSpec) -> list[str]:
    """One line for each option of a data layer or loss that was given and has no effect, here as in
    Caffe.

    A reader of the definition would think that it has one.
    """
    found = []
    for path in _IGNORED.get(spec.type, ()):
        part, _, name = path.partition(".")
        given = spec.message.HasField(part)
        options = getattr(spec.message, part)
        if given and (not name or options.HasField(name)):
            place = f"{spec.file or 'definition'}:{spec.lines.get(path, 0)}"
            found.append(
                f"{place}: layer '{spec.name}': {path} has no effect in a {spec.type} layer, here "
                "as in Caffe"
            )
    return found


def find_file(name: str, root: Path, what: str) -> Path:
    """A file named in a definition: relative to ``root``.

    Raises
    ------
    DataError : not there; says where it was looked for.
    """
    path = root / name
    if not name:
        raise DataError(f"{what}: the definition does not name it (source)")
    if not path.exists():
        raise DataError(f"{what} '{name}' not found (looked for {os.path.normpath(path)})")
    return path


def _refuse_windows(layer: Layer, root: Path, draws: Draws) -> BatchSource:
    raise layer.error(
        "WindowData is not supported: write the windows as pictures for an ImageData layer, or as "
        "rows for an HDF5Data layer",
        "source",
    )


register_source("WindowData", _refuse_windows)
