"""Layers that move values around: Concat, Slice, Split, Reshape, Crop and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from caffe_compat.definition import schema
from caffe_compat.layers.base import Layer, Shape, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_import("torch")


@register("Concat")
class Concat(Layer):
    """Bottoms joined along one axis (default 1).

    Source: ``concat_layer.cpp`` of BVLC Caffe.
    """

    option = "concat_param"
    bottoms = (1, None)
    reads = ()

    def shares_data(self) -> bool:
        return len(self.spec.bottoms) == 1

    def shares_diff(self, backward: bool) -> bool:
        return self.shares_data()

    def setup(self) -> None:
        if self.has("axis") and self.has("concat_dim"):
            raise self.error("give axis or the old concat_dim, not both", "concat_dim")

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return self.chosen_axis(len(bottoms[0])) > 0

    def chosen_axis(self, axes: int) -> int:
        """The axis along which bottoms of so many axes are joined."""
        if self.has("concat_dim"):
            return self.axis(self.options.concat_dim, axes, "concat_dim")
        return self.axis(self.options.axis, axes)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        first = bottoms[0]
        axis = self.chosen_axis(len(first))
        for name, other in zip(self.spec.bottoms[1:], bottoms[1:], strict=True):
            if (
                len(other) != len(first)
                or other[:axis] + other[axis + 1 :] != first[:axis] + first[axis + 1 :]
            ):
                raise self.error(
                    f"'{name}' {other} and '{self.spec.bottoms[0]}' {first} may differ at axis "
                    f"{axis} only",
                    "bottom",
                )
        return [(*first[:axis], sum(b[axis] for b in bottoms), *first[axis + 1 :])]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        if len(bottoms) == 1:
            return bottoms
        return (torch.cat(bottoms, self.chosen_axis(bottoms[0].dim())),)


@register("Slice")
class Slice(Layer):
    """Bottom cut along one axis (default 1), at the given points or into equal parts.

    Source: ``slice_layer.cpp`` of BVLC Caffe.
    """

    option = "slice_param"
    tops = (1, None)
    reads = ()

    def shares_data(self) -> bool:
        return len(self.spec.tops) == 1

    def shares_diff(self, backward: bool) -> bool:
        return self.shares_data()

    def setup(self) -> None:
        if self.has("axis") and self.has("slice_dim"):
            raise self.error("give axis or the old slice_dim, not both", "slice_dim")
        points = list(self.options.slice_point)
        if points:
            if len(points) != len(self.spec.tops) - 1:
                raise self.error(
                    f"{len(self.spec.tops)} tops need {len(self.spec.tops) - 1} points, found "
                    f"{len(points)}",
                    "slice_point",
                )
            if any(b <= a for a, b in zip([0, *points], points, strict=False)):
                raise self.error(f"points must rise from above 0, found {points}", "slice_point")

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return self.chosen_axis(len(bottoms[0])) > 0

    def chosen_axis(self, axes: int) -> int:
        """The axis along which a bottom of so many axes is cut."""
        if self.has("slice_dim"):
            return self.axis(self.options.slice_dim, axes, "slice_dim")
        return self.axis(self.options.axis, axes)

    def _sizes(self, bottom: Shape) -> list[int]:
        total = bottom[self.chosen_axis(len(bottom))]
        points, tops = list(self.options.slice_point), len(self.spec.tops)
        if not points:
            if total % tops:
                raise self.error(
                    f"an axis of size {total} does not divide into {tops} tops", "slice_point"
                )
            return [total // tops] * tops
        if tops > total:
            raise self.error(f"an axis of size {total} cannot be cut into {tops} tops", "top")
        if points[-1] > total:
            raise self.error(
                f"point {points[-1]} lies beyond the axis of size {total}", "slice_point"
            )
        return [b - a for a, b in zip([0, *points], [*points, total], strict=True)]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        axis = self.chosen_axis(len(bottoms[0]))
        return [
            (*bottoms[0][:axis], size, *bottoms[0][axis + 1 :]) for size in self._sizes(bottoms[0])
        ]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        shape = tuple(bottoms[0].shape)
        return tuple(torch.split(bottoms[0], self._sizes(shape), self.chosen_axis(len(shape))))


@register("Split")
class Split(Layer):
    """The bottom, once for each top; gradients add up.

    Source: ``split_layer.cpp`` of BVLC Caffe.
    """

    tops = (1, None)
    in_place = False
    reads = ()

    def shares_data(self) -> bool:
        return True

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]] * len(self.spec.tops)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(bottoms[0].view_as(bottoms[0]) for _ in self.spec.tops)


@register("Silence")
class Silence(Layer):
    """Takes bottoms that nobody else reads; its gradient is zero.

    Source: ``silence_layer.cpp`` of BVLC Caffe.
    """

    bottoms = (1, None)
    tops = (0, 0)
    reads = ()

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return []

    def looks_at(self) -> tuple[str, ...]:
        return ()

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()


@register("Flatten")
class Flatten(Layer):
    """Axes ``axis`` to ``end_axis`` made one.

    Source: ``flatten_layer.cpp`` of BVLC Caffe.
    """

    option = "flatten_param"
    in_place = False
    reads = ()

    def shares_data(self) -> bool:
        return True

    def shares_diff(self, backward: bool) -> bool:
        return backward

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape = bottoms[0]
        first = self.axis(self.options.axis, len(shape))
        last = self.axis(self.options.end_axis, len(shape), "end_axis")
        if last < first - 1:
            raise self.error(f"end_axis {last} lies before axis {first}", "end_axis")
        return [(*shape[:first], count(shape[first : last + 1]), *shape[last + 1 :])]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].reshape(self.output_shapes([tuple(bottoms[0].shape)])[0]),)


@register("Reshape")
class Reshape(Layer):
    """A new shape for ``num_axes`` axes from ``axis`` on; 0 copies a size, one -1 takes what is
    left.

    ``num_axes`` -1 means all that follow; a negative ``axis`` counts from the end plus one.

    Source: ``reshape_layer.cpp`` of BVLC Caffe.
    """

    option = "reshape_param"
    in_place = False
    reads = ()

    def shares_data(self) -> bool:
        return True

    def shares_diff(self, backward: bool) -> bool:
        return True

    def setup(self) -> None:
        dims = list(self.options.shape.dim)
        if dims.count(-1) > 1:
            raise self.error(f"at most one dim may be -1, found {dims}", "shape")
        if any(d < -1 for d in dims):
            raise self.error(f"dims must be -1, 0 or sizes, found {dims}", "shape")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, o = bottoms[0], self.options
        start = o.axis if o.axis >= 0 else len(bottom) + o.axis + 1
        if not 0 <= start <= len(bottom):
            raise self.error(
                f"axis {o.axis} is out of range for a blob of {len(bottom)} axes", "axis"
            )
        if o.num_axes < -1:
            raise self.error("must be -1 or more", "num_axes")
        stop = len(bottom) if o.num_axes == -1 else start + o.num_axes
        if stop > len(bottom):
            raise self.error(
                f"axis + num_axes = {stop} exceeds the bottom's {len(bottom)} axes", "num_axes"
            )
        dims = list(o.shape.dim)
        for i, size in enumerate(dims):
            if size == 0:
                if start + i >= len(bottom):
                    raise self.error(
                        f"dim {i} is 0 (copy), but the bottom has no axis {start + i}", "shape"
                    )
                dims[i] = bottom[start + i]
        known = count([*bottom[:start], *bottom[stop:], *(d for d in dims if d != -1)])
        if -1 in dims:
            if known == 0 or count(bottom) % known:
                raise self.error(f"{count(bottom)} values do not divide by {known}", "shape")
            dims[dims.index(-1)] = count(bottom) // known
        top = (*bottom[:start], *dims, *bottom[stop:])
        if count(top) != count(bottom):
            raise self.error(
                f"{bottom} has {count(bottom)} values, {top} would have {count(top)}", "shape"
            )
        return [top]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].reshape(self.output_shapes([tuple(bottoms[0].shape)])[0]),)


@register("Tile")
class Tile(Layer):
    """The bottom repeated along one axis.

    Source: ``tile_layer.cpp`` of BVLC Caffe.
    """

    option = "tile_param"
    reads = ()

    def setup(self) -> None:
        if not self.has("tiles") or self.options.tiles < 1:
            raise self.error("needs a number of 1 or more", "tiles")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        axis = self.axis(self.options.axis, len(bottoms[0]))
        return [
            (*bottoms[0][:axis], bottoms[0][axis] * self.options.tiles, *bottoms[0][axis + 1 :])
        ]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        repeats = [1] * bottoms[0].dim()
        repeats[self.axis(self.options.axis, bottoms[0].dim())] = self.options.tiles
        return (bottoms[0].repeat(repeats),)


@register("Crop")
class Crop(Layer):
    """The first bottom cut to the second's size from ``axis`` on, at ``offset``; the second takes
    no gradient.

    Source: ``crop_layer.cpp`` of BVLC Caffe.
    """

    option = "crop_param"
    bottoms = (2, 2)
    reads = ()

    def begin(self, bottoms: Sequence[Shape]) -> list[int]:
        """Where the part that is kept begins in the first bottom, for each axis."""
        first, other = bottoms
        start = self.axis(self.options.axis, len(first))
        offsets = list(self.options.offset)
        if len(offsets) > 1 and start + len(offsets) != len(first):
            raise self.error(
                f"give one offset, or one for each of {len(first) - start} axes", "offset"
            )
        if len(other) < len(first):
            raise self.error(
                f"the reference has {len(other)} axes, the bottom {len(first)}", "bottom"
            )
        begin = [0] * len(first)
        for axis in range(start, len(first)):
            begin[axis] = (
                offsets[axis - start] if len(offsets) > 1 else offsets[0] if offsets else 0
            )
            if first[axis] - begin[axis] < other[axis]:
                raise self.error(
                    f"axis {axis}: size {other[axis]} at offset {begin[axis]} reaches beyond "
                    f"{first[axis]}",
                    "offset",
                )
        return begin

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.begin(bottoms)
        start = self.axis(self.options.axis, len(bottoms[0]))
        return [(*bottoms[0][:start], *bottoms[1][start : len(bottoms[0])])]

    def looks_at(self) -> tuple[str, ...]:
        return (self.spec.bottoms[0], *self.spec.tops)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        shapes = [tuple(b.shape) for b in bottoms]
        begin, out = self.begin(shapes), self.output_shapes(shapes)[0]
        cut = bottoms[0][tuple(slice(b, b + s) for b, s in zip(begin, out, strict=True))]
        # in place, Caffe clears the bottom's gradient, and with it the top's, before it copies that
        return (cut.detach() if self.works_in_place else cut,)


@register("BatchReindex")
class BatchReindex(Layer):
    """Items of the first bottom picked along axis 0 by the indices in the second.

    Source: ``batch_reindex_layer.cpp`` of BVLC Caffe.
    """

    bottoms = (2, 2)
    reads = ()
    not_differentiable = (1,)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[1]) != 1:
            raise self.error(f"the indices must have 1 axis, found {len(bottoms[1])}", "bottom")
        if not bottoms[0]:
            raise self.error("the first bottom must have at least 1 axis", "bottom")
        return [(bottoms[1][0], *bottoms[0][1:])]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].index_select(0, self.indices(1, bottoms[1], len(bottoms[0]))),)


@register("Parameter")
class Parameter(Layer):
    """A learned blob as top.

    Source: ``parameter_layer.hpp`` of BVLC Caffe.
    """

    option = "parameter_param"
    bottoms = (0, 0)
    blob_names = ("weight",)
    reads = ()

    def replaces_gradient(self, index: int, bottoms: Sequence[Shape]) -> bool:
        return True  # its gradient and the top's are one piece of memory

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(self.options.shape.dim)]

    def fillers(self) -> list[Any]:
        return [schema.new("FillerParameter", type="constant")]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return self.param_shapes(bottoms)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (params[0],)


@register("Filter")
class Filter(Layer):
    """Items of all bottoms but the last for which the last (the selector) is not 0.

    Source: ``filter_layer.cpp`` of BVLC Caffe.
    """

    bottoms = (2, None)
    tops = (1, None)
    reads = ()

    def setup(self) -> None:
        if len(self.spec.tops) != len(self.spec.bottoms) - 1:
            raise self.error(
                f"{len(self.spec.bottoms)} bottoms need {len(self.spec.bottoms) - 1} tops", "top"
            )
        self.not_differentiable = (len(self.spec.bottoms) - 1,)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        selector = bottoms[-1]
        if not all(bottoms):
            raise self.error("every bottom must have at least 1 axis", "bottom")
        if count(selector[1:]) != 1:
            raise self.error(
                f"the selector must hold one value per item, found shape {selector}", "bottom"
            )
        for shape in bottoms[:-1]:
            if shape[0] != selector[0]:
                raise self.error(f"{shape[0]} items, but the selector has {selector[0]}", "bottom")
        return list(bottoms[:-1])

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        chosen = bottoms[-1].detach().reshape(-1).nonzero().reshape(-1)
        return tuple(b.index_select(0, chosen) for b in bottoms[:-1])
