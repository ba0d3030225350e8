"""Layers that bring data in. Their tops are given to the network from outside; here are only their
shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from caffe_compat.definition import schema
from caffe_compat.layers.base import Layer, Shape, check_filler, register

_LARGEST = 10_000  # of a CPMData layer's lengths, factors and angles; more is a slip of the pen


class DataLayer(Layer):
    """A layer without bottoms whose tops are filled from outside
    (:class:`caffe_compat.network.net.Net` ``inputs``).

    :meth:`output_shapes` gives an empty list where only the data themselves could tell.
    """

    bottoms = (0, 0)
    tops: ClassVar[tuple[int, int | None]] = (1, None)
    data = True

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return []

    def looks_at(self) -> tuple[str, ...]:
        return ()


@register("Input")
class Input(DataLayer):
    """Blobs given by the caller, one per top.

    Source: ``input_layer.cpp`` of BVLC Caffe.
    """

    option = "input_param"

    def setup(self) -> None:
        shapes, tops = len(self.options.shape), len(self.spec.tops)
        if shapes not in (0, 1, tops):
            raise self.error(
                f"{tops} tops need no shape, 1 shape or {tops} shapes, found {shapes}", "shape"
            )

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shapes = [tuple(s.dim) for s in self.options.shape]
        if any(size < 0 for shape in shapes for size in shape):
            raise self.error("dims must not be negative", "shape")
        return shapes * len(self.spec.tops) if len(shapes) == 1 else shapes


@register("DummyData")
class DummyData(DataLayer):
    """Blobs made by a filler.

    Source: ``dummy_data_layer.cpp`` of BVLC Caffe.
    """

    option = "dummy_data_param"

    def setup(self) -> None:
        fillers, tops = len(self.options.data_filler), len(self.spec.tops)
        if fillers not in (0, 1, tops):
            raise self.error(
                f"{tops} tops need no filler, 1 filler or {tops} fillers, found {fillers}",
                "data_filler",
            )

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        sizes = [self._for_each_top(name) for name in ("num", "channels", "height", "width")]
        if not self.options.shape:
            return self._with_fillers(list(zip(*sizes, strict=True)))
        if any(sizes):
            raise self.error("give shape, or num, channels, height and width, not both", "shape")
        return self._with_fillers([tuple(shape.dim) for shape in self._for_each_top("shape")])

    def _with_fillers(self, shapes: list[Shape]) -> list[Shape]:
        """The tops' shapes, which the fillers must fit."""
        for filler, shape in zip(self.fill(), shapes, strict=True):
            check_filler(filler, shape, self)
        return shapes

    def _for_each_top(self, name: str) -> list[Any]:
        """What is given for each top; once for all of them will do. Empty where ``shape`` says
        it."""
        given, tops = list(getattr(self.options, name)), len(self.spec.tops)
        if self.options.shape and not given:
            return []
        if len(given) not in (1, tops):
            raise self.error(f"{tops} tops need it once or {tops} times, found {len(given)}", name)
        return given * tops if len(given) == 1 else given

    def fill(self) -> list[Any]:
        """One filler per top."""
        fillers = list(self.options.data_filler) or [schema.new("FillerParameter", type="constant")]
        return fillers * len(self.spec.tops) if len(fillers) == 1 else fillers


@register("MemoryData")
class MemoryData(DataLayer):
    """Data (N×C×H×W) and labels given by the caller: N while the net is set up, N×1×1×1 from the
    first forward pass on.

    Source: ``memory_data_layer.cpp`` of BVLC Caffe.
    """

    option = "memory_data_param"
    tops = (2, 2)

    def setup(self) -> None:
        for name in ("batch_size", "channels", "height", "width"):
            if getattr(self.options, name) < 1:
                raise self.error("must be at least 1", name)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        o = self.options
        return [(o.batch_size, o.channels, o.height, o.width), (o.batch_size,)]


@register("HDF5Data")
class HDF5Data(DataLayer):
    """Rows of the data sets named like the tops, from the HDF5 files that the list file ``source``
    names.

    Source: ``hdf5_data_layer.cpp`` of BVLC Caffe.
    """

    option = "hdf5_data_param"


@register("Data")
class Data(DataLayer):
    """Datums of an LMDB (LevelDB is refused), transformed.

    Source: ``data_layer.cpp`` of BVLC Caffe.
    """

    option = "data_param"
    tops = (1, 2)


@register("ImageData")
class ImageData(DataLayer):
    """Image files and labels from a list file.

    Source: ``image_data_layer.cpp`` of BVLC Caffe.
    """

    option = "image_data_param"
    tops = (2, 2)


@register("WindowData")
class WindowData(DataLayer):
    """Windows of image files: definitions are read, but its files are not, which is said.

    Source: ``window_data_layer.cpp`` of BVLC Caffe.
    """

    truth = "nothing"
    option = "window_data_param"
    tops = (2, 2)


@register("CPMData")
class CPMData(DataLayer):
    """Augmented images with centre map, and label maps, of Convolutional Pose Machines' Caffe fork.

    Tops: N×4×crop_size_y×crop_size_x, and
    N×2(num_parts+1)×(crop_size_y/stride)×(crop_size_x/stride).

    Source: ``cpm_data_layer.cpp`` of the CPM release's Caffe.
    """

    option = "cpmdata_param"
    tops = (1, 2)

    def setup(self) -> None:
        own = schema.message_class("TransformationParameter", "fork").DESCRIPTOR.fields_by_name
        for field, _ in self.spec.message.transform_param.ListFields():
            if field.name not in own:
                raise self.spec.error(
                    f"{field.name} is not supported in a CPMData layer: another fork of Caffe "
                    "added it for layers of its own",
                    f"transform_param.{field.name}",
                )
        part, t = self.transform()
        for name in ("stride", *(["clahe_tile_size"] if t.do_clahe else [])):
            if not 1 <= getattr(t, name) <= _LARGEST:
                raise self.spec.error(f"must be from 1 to {_LARGEST}", f"{part}.{name}")
        for name in ("sigma", "sigma_center"):
            if not 0 < getattr(t, name) < math.inf:
                raise self.spec.error("must be above 0", f"{part}.{name}")
        for name in ("scale_min", "scale_max", "max_rotate_degree", "center_perterb_max"):
            if not abs(getattr(t, name)) <= _LARGEST:
                raise self.spec.error(f"must be at most {_LARGEST}", f"{part}.{name}")
        if t.aug_way not in ("rand", "table"):
            raise self.spec.error(
                f"unknown way '{t.aug_way}'; known: rand, table", f"{part}.aug_way"
            )
        if not t.put_gaussian:
            raise self.spec.error(
                "data without the centre map, 3 channels instead of 4, is not supported: leave it "
                "out, and split data by a Slice layer (axis: 1 slice_point: 3), whose second top a "
                "Silence layer takes",
                f"{part}.put_gaussian",
            )

    def transform(self) -> tuple[str, Any]:
        """The message that has the settings, by its name: later forks gave it a name of its own."""
        message = self.spec.message
        later = message.HasField("cpm_transform_param") and not message.HasField("transform_param")
        part = "cpm_transform_param" if later else "transform_param"
        return part, getattr(message, part)

    def batch_size(self) -> int:
        """Samples of a batch.

        Raises
        ------
        PrototxtError : it is not given.
        """
        batch: int = self.options.batch_size or self.spec.message.data_param.batch_size
        if batch < 1:
            raise self.error("must be at least 1", "batch_size")
        return batch

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        batch = self.batch_size()
        part, t = self.transform()
        height, width = t.crop_size_y, t.crop_size_x
        if part == "cpm_transform_param" and t.crop_size:
            height = width = t.crop_size
        if min(height, width) < t.stride:
            raise self.spec.error(
                f"{width} × {height} is smaller than the stride {t.stride}", f"{part}.crop_size_x"
            )
        label: Shape = (batch, 2 * (t.num_parts + 1), height // t.stride, width // t.stride)
        data: Shape = (batch, 4, height, width)
        return [data, label][: len(self.spec.tops)]
