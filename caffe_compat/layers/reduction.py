"""Eltwise, Reduction, Softmax, ArgMax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_compat.definition import schema
from caffe_compat.layers.base import LOWEST, Layer, Overwritten, Shape, count, register
from caffe_compat.layers.slopes import with_slopes
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_import("torch")


@register("Eltwise")
class Eltwise(Layer):
    """SUM (with coefficients), PROD or MAX of bottoms of one shape.

    MAX gradient: of the first two bottoms the second takes it on a tie; later ones must be strictly
    greater. PROD without ``stable_prod_grad`` divides the top by the bottom, which is no number
    where that is 0. In place SUM and MAX lose the first bottom, and the first bottom's gradient
    takes the place of the top's before the others are made of it, as in Caffe.

    Source: ``eltwise_layer.cpp`` of BVLC Caffe.
    """

    option = "eltwise_param"
    bottoms = (2, None)

    def setup(self) -> None:
        self.operation = schema.enum_name(self.options, "operation")
        if self.works_in_place:
            self.reads = ("diff",)
        elif self.operation != "PROD":
            self.reads = ()
        elif not self.options.stable_prod_grad:
            self.reads = ("bottom", "top")
        self.coefficients = list(self.options.coeff) or [1.0] * len(self.spec.bottoms)
        if len(self.coefficients) != len(self.spec.bottoms):
            raise self.error(
                f"{len(self.spec.bottoms)} bottoms need {len(self.spec.bottoms)} coefficients, "
                f"found {len(self.coefficients)}",
                "coeff",
            )
        if self.operation == "PROD" and self.options.coeff:
            raise self.error("coefficients are for SUM only", "coeff")

    @property
    def loses_first(self) -> bool:
        """Does Caffe clear the top, and with it the first bottom, before it looks at that?"""
        return self.operation in ("SUM", "MAX") and self.works_in_place

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for name, shape in zip(self.spec.bottoms[1:], bottoms[1:], strict=True):
            if shape != bottoms[0]:
                raise self.error(
                    f"'{name}' {shape} and '{self.spec.bottoms[0]}' {bottoms[0]} differ in shape",
                    "bottom",
                )
        return [bottoms[0]]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        top = bottoms[0]
        if self.operation == "SUM":
            first = torch.zeros_like(top) if self.loses_first else top
            top = first * self.coefficients[0]
            for coefficient, bottom in zip(self.coefficients[1:], bottoms[1:], strict=True):
                top = top + coefficient * bottom
        elif self.operation == "PROD":
            for bottom in bottoms[1:]:
                top = top * bottom
            if torch.is_grad_enabled() and not self.options.stable_prod_grad:
                top = top.detach()
                top = with_slopes()(top, tuple(top / b.detach() for b in bottoms), *bottoms)
        else:
            if self.loses_first:
                top = torch.full_like(top, LOWEST)
            top = torch.where(top > bottoms[1], top, bottoms[1])
            for bottom in bottoms[2:]:
                top = torch.where(bottom > top, bottom, top)
        return (top,)

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        if not self.works_in_place and "top" not in self.reads:
            return None
        diff = blobs.diffs[0]
        slopes = [self._slope(number, blobs) for number in range(len(blobs.bottoms))]
        if self.works_in_place:
            # a product's slope is written over the top's gradient before they are multiplied
            first = slopes[0] * (slopes[0] if self.operation == "PROD" else diff)
            rest = first if blobs.seen[0].requires_grad else diff
            return (first, *(slope * rest for slope in slopes[1:]))
        return tuple(slope * diff for slope in slopes)

    def _slope(self, number: int, blobs: Overwritten) -> Tensor:
        """The top's derivative for one bottom, of what the blobs hold now."""
        bottom, top = blobs.bottoms[number], blobs.tops[0]
        if self.operation == "SUM":
            return torch.full_like(top, self.coefficients[number])
        if self.operation == "MAX":
            first = torch.full_like(top, LOWEST) if self.loses_first else blobs.seen[0]
            return (self._winner([first, *blobs.seen[1:]]) == number).to(top.dtype)
        if not self.options.stable_prod_grad:
            return top / bottom
        product = torch.ones_like(top)
        for other, values in enumerate(blobs.bottoms):
            if other != number:
                product = product * values
        return product

    @staticmethod
    def _winner(bottoms: Sequence[Tensor]) -> Tensor:
        """The number of the bottom that MAX took each value from."""
        top = bottoms[0]
        winner = torch.zeros(top.shape, dtype=torch.int64, device=top.device)
        for number, bottom in enumerate(bottoms[1:], 1):
            wins = bottom >= top if number == 1 else bottom > top
            top = torch.where(wins, bottom, top)
            winner[wins] = number
        return winner


@register("Reduction")
class Reduction(Layer):
    """SUM, ASUM, SUMSQ or MEAN over all axes from ``axis`` on, times ``coeff``.

    Source: ``reduction_layer.cpp`` of BVLC Caffe.
    """

    option = "reduction_param"

    def setup(self) -> None:
        if schema.enum_name(self.options, "operation") in ("SUM", "MEAN"):
            self.reads = ()

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0][: self.axis(self.options.axis, len(bottoms[0]))]]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        shape = self.output_shapes([tuple(bottoms[0].shape)])[0]
        x = bottoms[0].reshape(count(shape), count(bottoms[0].shape[len(shape) :]))
        operation = schema.enum_name(self.options, "operation")
        if operation == "ASUM":
            x = x.abs()
        elif operation == "SUMSQ":
            x = x * x
        total = x.mean(1) if operation == "MEAN" else x.sum(1)
        return ((total * self.options.coeff).reshape(shape),)


@register("Softmax")
class Softmax(Layer):
    """``exp(x) / sum exp(x)`` along one axis (default 1).

    Source: ``softmax_layer.cpp`` of BVLC Caffe.
    """

    option = "softmax_param"
    reads = ("top",)
    unasked = (0,)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.axis(self.options.axis, len(bottoms[0]))
        return [bottoms[0]]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (torch.softmax(bottoms[0], self.axis(self.options.axis, bottoms[0].dim())),)

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        y, diff = blobs.tops[0], blobs.diffs[0]
        axis = self.axis(self.options.axis, y.dim())
        return ((diff - (diff * y).sum(axis, keepdim=True)) * y,)


@register("ArgMax")
class ArgMax(Layer):
    """Indices (and values) of the ``top_k`` largest, of the whole item or along ``axis``; of equals
    the higher index first.

    Source: ``argmax_layer.cpp`` of BVLC Caffe.
    """

    option = "argmax_param"
    reads = ()
    has_backward = False

    def setup(self) -> None:
        if self.options.top_k < 1:
            raise self.error("must be at least 1", "top_k")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom, o = bottoms[0], self.options
        if not bottom:
            raise self.error("the bottom must have at least 1 axis", "bottom")
        if self.has("axis"):
            axis = self.axis(o.axis, len(bottom))
            if o.top_k > bottom[axis]:
                raise self.error(f"{o.top_k} is more than the axis has ({bottom[axis]})", "top_k")
            return [(*bottom[:axis], o.top_k, *bottom[axis + 1 :])]
        if o.top_k > count(bottom[1:]):
            raise self.error(f"{o.top_k} is more than an item has ({count(bottom[1:])})", "top_k")
        shape = [1] * max(len(bottom), 3)
        shape[0], shape[2] = bottom[0], o.top_k
        if o.out_max_val:
            shape[1] = 2
        return [tuple(shape)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, o = bottoms[0].detach(), self.options
        axis = self.axis(o.axis, x.dim()) if self.has("axis") else 1
        rows = (
            x.movedim(axis, -1) if self.has("axis") else x.reshape(x.shape[0], count(x.shape[1:]))
        )
        # a stable sort of the reversed row keeps the higher index first
        values, order = rows.flip(-1).sort(dim=-1, descending=True, stable=True)
        # bfloat16 knows not all indices beyond 256
        wide = torch.promote_types(x.dtype, torch.float32)
        index = (rows.shape[-1] - 1 - order[..., : o.top_k]).to(wide)
        values = values[..., : o.top_k].to(wide)
        if self.has("axis"):
            return ((values if o.out_max_val else index).movedim(-1, axis),)
        both = torch.stack([index, values], 1) if o.out_max_val else index
        return (both.reshape(self.output_shapes([tuple(x.shape)])[0]),)
