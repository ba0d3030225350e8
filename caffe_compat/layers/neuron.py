"""Element-wise layers: activations, powers, dropout."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from caffe_compat.definition.spec import TEST, TRAIN
from caffe_compat.layers.base import Layer, Overwritten, Shape, register
from caffe_compat.layers.slopes import rectified, with_slopes
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")


_LARGEST_EXPONENT = 709  # e to this is still a number of 64 bits


class _Neuron(Layer, ABC):
    """Base of the layers that compute each value by itself."""

    @abstractmethod
    def compute(self, x: Tensor) -> Tensor:
        """The function of one element."""

    def slope(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Caffe's derivative from what bottom and top hold in the backward pass; None where that is
        the derivative at ``x``."""
        return None

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (self.compute(bottoms[0]),)

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        slope = self.slope(blobs.bottoms[0], blobs.tops[0])
        if slope is None:
            return None
        if "diff" in self.reads and self.works_in_place:
            return (slope * slope,)  # the slope has been written over the top's gradient
        return (blobs.diffs[0] * slope,)


@register("ReLU")
class ReLU(_Neuron):
    """``max(x, 0) + negative_slope · min(x, 0)``; the gradient at 0 is negative_slope.

    Source: ``relu_layer.cpp`` of BVLC Caffe.
    """

    option = "relu_param"

    def setup(self) -> None:
        if self.options.negative_slope >= 0:  # else the top does not tell the bottom's sign
            self.keeps_sign = True
            if self.works_in_place:
                self.reads = ("sign",)

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def compute(self, x: Tensor) -> Tensor:
        slope = self.options.negative_slope
        if slope:
            return F.leaky_relu(x, slope)
        return rectified()(x) if x.requires_grad else torch.relu(x)


@register("PReLU")
class PReLU(Layer):
    """``max(x, 0) + a · min(x, 0)`` with a learned slope per channel (axis 1), or one for all
    (``channel_shared``).

    Source: ``prelu_layer.cpp`` of BVLC Caffe.
    """

    option = "prelu_param"
    blob_names = ("weight",)

    def setup(self) -> None:
        if self.works_in_place:
            self.reads = ()  # Caffe keeps a copy of the bottom

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) < 2:
            raise self.error("the bottom must have at least 2 axes", "bottom")
        self.four_axes(bottoms[0])
        return [() if self.options.channel_shared else (bottoms[0][1],)]

    def fillers(self) -> list[Any]:
        if self.options.HasField("filler"):
            return [self.options.filler]
        return [type(self.options.filler)(type="constant", value=0.25)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (F.prelu(bottoms[0], params[0].reshape(-1)),)


@register("ELU")
class ELU(_Neuron):
    """``x`` above 0, ``alpha (exp(x) - 1)`` below.

    Source: ``elu_layer.cpp`` of BVLC Caffe.
    """

    option = "elu_param"
    reads = ("bottom", "top")

    def compute(self, x: Tensor) -> Tensor:
        return F.elu(x, self.options.alpha)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, self.options.alpha + y)


@register("Sigmoid")
class Sigmoid(_Neuron):
    """``1 / (1 + exp(-x))``.

    Source: ``sigmoid_layer.cpp`` of BVLC Caffe.
    """

    reads = ("top",)

    def compute(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return y * (1 - y)


@register("TanH")
class TanH(_Neuron):
    """Hyperbolic tangent.

    Source: ``tanh_layer.cpp`` of BVLC Caffe.
    """

    reads = ("top",)

    def compute(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return 1 - y * y


@register("Swish")
class Swish(_Neuron):
    """``x · sigmoid(beta x)``.

    Source: ``swish_layer.cpp`` of BVLC Caffe.
    """

    truth = "OpenCV"
    option = "swish_param"
    reads = ("top",)

    def compute(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.options.beta * x)

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        # Caffe keeps the sigmoid of the forward pass beside the top
        beta, top = self.options.beta, blobs.tops[0]
        kept = torch.sigmoid(beta * blobs.seen[0])
        return (blobs.diffs[0] * (beta * top + kept * (1 - beta * top)),)


@register("Clip")
class Clip(_Neuron):
    """``max(min(x, max), min)``; the gradient is that of x from min to max, and 0 elsewhere.

    Source: ``clip_layer.cpp`` of BVLC Caffe.
    """

    truth = "our reference"
    option = "clip_param"

    def setup(self) -> None:
        if not (self.options.HasField("min") and self.options.HasField("max")):
            raise self.error("needs min and max", "min")

    def compute(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.options.max).clamp(min=self.options.min)


@register("AbsVal")
class AbsVal(_Neuron):
    """``|x|``; the gradient at 0 is 0.

    Source: ``absval_layer.cpp`` of BVLC Caffe.
    """

    in_place = False

    def compute(self, x: Tensor) -> Tensor:
        return x.abs()


@register("BNLL")
class BNLL(_Neuron):
    """``log(1 + exp(x))``.

    Source: ``bnll_layer.cpp`` of BVLC Caffe.
    """

    def compute(self, x: Tensor) -> Tensor:
        return F.softplus(x)


@register("Power")
class Power(_Neuron):
    """``(shift + scale · x) ^ power``; constant, with no gradient, where power or scale is 0.

    Caffe takes the gradient from top / (shift + scale · x), which is no number where that is 0.

    Source: ``power_layer.cpp`` of BVLC Caffe.
    """

    option = "power_param"

    def setup(self) -> None:
        power, scale = self.options.power, self.options.scale
        if power * scale == 0:
            self.reads = ()
        elif power == 1:
            self.reads = ("diff",)
        else:
            self.reads = ("diff", "bottom") if power == 2 else ("diff", "bottom", "top")

    def compute(self, x: Tensor) -> Tensor:
        power, scale, shift = self.options.power, self.options.scale, self.options.shift
        if power * scale == 0:
            return torch.full_like(x, 1.0 if power == 0 else shift) ** float(power)
        y = x * scale if scale != 1 else x
        y = y + shift if shift else y
        if power == 1:
            return y.clone() if y is x else y
        if power == 2:
            return y * y
        found = y ** float(power)
        if not torch.is_grad_enabled():
            return found
        found = found.detach()
        return with_slopes()(found, (self.slope(x.detach(), found),), x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        power, scale, shift = self.options.power, self.options.scale, self.options.shift
        if power == 1:
            return torch.full_like(x, scale)
        inside: Tensor = x * scale + shift
        factor: float = power * scale
        return inside * factor if power == 2 else y / inside * factor


@register("Exp")
class Exp(_Neuron):
    """``base ^ (shift + scale · x)``; base -1 means e.

    Source: ``exp_layer.cpp`` of BVLC Caffe.
    """

    option = "exp_param"
    reads = ("top",)

    def setup(self) -> None:
        if self.options.base != -1 and self.options.base <= 0:
            raise self.error("must be above 0 (or -1 for e)", "base")
        if not math.isfinite(self.options.base):
            raise self.error("must be finite", "base")

    def compute(self, x: Tensor) -> Tensor:
        base, scale, shift = self.options.base, self.options.scale, self.options.shift
        log_base = 1.0 if base == -1 else math.log(base)
        exponent = shift * log_base
        outer = math.exp(exponent) if exponent < _LARGEST_EXPONENT else math.inf
        y = torch.exp(x * (log_base * scale))
        return y * outer if outer != 1 else y

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        base = self.options.base
        factor: float = self.options.scale * (1.0 if base == -1 else math.log(base))
        return y * factor


@register("Log")
class Log(_Neuron):
    """``log_base(shift + scale · x)``; base -1 means e.

    Source: ``log_layer.cpp`` of BVLC Caffe.
    """

    option = "log_param"
    reads = ("diff", "bottom")

    def setup(self) -> None:
        if self.options.base != -1 and (self.options.base <= 0 or self.options.base == 1):
            raise self.error("must be above 0 and not 1 (or -1 for e)", "base")

    def compute(self, x: Tensor) -> Tensor:
        base = self.options.base
        y = torch.log(x * self.options.scale + self.options.shift)
        return y if base == -1 else y / math.log(base)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        base, scale = self.options.base, self.options.scale
        factor: float = scale / (1.0 if base == -1 else math.log(base))
        inside: Tensor = x * scale + self.options.shift
        return factor / inside


@register("Threshold")
class Threshold(_Neuron):
    """1 where ``x > threshold``, else 0; no gradient.

    Source: ``threshold_layer.cpp`` of BVLC Caffe.
    """

    option = "threshold_param"
    reads = ()
    has_backward = False

    def compute(self, x: Tensor) -> Tensor:
        return torch.gt(x, self.options.threshold).to(x.dtype)


@register("Dropout")
class Dropout(_Neuron):
    """In TRAIN each element is kept with probability 1 - ratio and scaled by 1 / (1 - ratio); in
    TEST the identity.

    Source: ``dropout_layer.cpp`` of BVLC Caffe. The random numbers are torch's.
    """

    option = "dropout_param"
    reads = ()
    keeps_sign = True

    def setup(self) -> None:
        if not 0 <= self.options.dropout_ratio <= 1:
            raise self.error("must be from 0 to 1", "dropout_ratio")

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return bool(self.phase == TEST)

    def compute(self, x: Tensor) -> Tensor:
        if self.phase != TRAIN:
            return x
        if self.options.dropout_ratio == 1:
            return x * math.nan  # in Caffe 0 times 1 / (1 - 1)
        return F.dropout(x, self.options.dropout_ratio, training=True)
