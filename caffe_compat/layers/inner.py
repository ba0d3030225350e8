"""InnerProduct and Embed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_compat.layers.base import Shape, Weighted, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch.nn.functional as F
    from torch import Tensor
else:
    F = lazy_import("torch.nn.functional")


@register("InnerProduct")
class InnerProduct(Weighted):
    """``top = weight · bottom + bias`` over everything from ``axis`` on; weight (out, in), or (in,
    out) transposed.

    Source: ``inner_product_layer.cpp`` of BVLC Caffe.
    """

    option = "inner_product_param"

    def setup(self) -> None:
        if self.options.num_output < 1:
            raise self.error("must be at least 1", "num_output")

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        o = self.options
        inputs = count(bottoms[0][self.axis(o.axis, len(bottoms[0])) :])
        weight = (inputs, o.num_output) if o.transpose else (o.num_output, inputs)
        return [weight, (o.num_output,)] if o.bias_term else [weight]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [
            (*bottoms[0][: self.axis(self.options.axis, len(bottoms[0]))], self.options.num_output)
        ]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        lead = x.shape[: self.axis(self.options.axis, x.dim())]
        weight = params[0].t() if self.options.transpose else params[0]
        rows = x.reshape(count(lead), count(x.shape[len(lead) :]))
        top = F.linear(rows, weight, params[1] if len(params) > 1 else None)
        return (top.reshape(*lead, self.options.num_output),)


@register("Embed")
class Embed(Weighted):
    """A row of the weight (input_dim, num_output) for each index in the bottom, plus bias.

    Source: ``embed_layer.cpp`` of BVLC Caffe.
    """

    option = "embed_param"
    not_differentiable = (0,)

    def setup(self) -> None:
        for name in ("num_output", "input_dim"):
            if getattr(self.options, name) < 1:
                raise self.error("must be at least 1", name)

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        o = self.options
        weight = (o.input_dim, o.num_output)
        return [weight, (o.num_output,)] if o.bias_term else [weight]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [(*bottoms[0], self.options.num_output)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        rows = self.indices(0, bottoms[0], self.options.input_dim)
        top = F.embedding(rows, params[0])
        return (top + params[1] if len(params) > 1 else top,)
