"""LRN, MVN, BatchNorm, Scale, Bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from caffe_compat.definition import schema
from caffe_compat.definition.spec import TEST
from caffe_compat.layers.base import Layer, Overwritten, Shape, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")


@register("LRN")
class LRN(Layer):
    """Local response normalisation of N×C×H×W.

    ACROSS_CHANNELS: ``x / (k + alpha/n · sum over n channels of x²) ^ beta``.
    WITHIN_CHANNEL: ``x / (1 + alpha · mean over an n×n window of x²) ^ beta`` (k is not used; zeros
    outside count).

    Source: ``lrn_layer.cpp`` of BVLC Caffe.
    """

    option = "lrn_param"
    reads = ("bottom", "top")

    def setup(self) -> None:
        self.size = self.options.local_size
        if self.size % 2 != 1:
            raise self.error(f"must be odd, found {self.size}", "local_size")
        self.within = schema.enum_name(self.options, "norm_region") == "WITHIN_CHANNEL"
        self.unasked = () if self.within else (0,)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) != 4:
            raise self.error(
                f"the bottom must have 4 axes (N×C×H×W), found {len(bottoms[0])}", "bottom"
            )
        return [bottoms[0]]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        power = self._scale(x * x).pow(-self.options.beta)
        if self.works_in_place and not self.within:  # the power has been written over the bottom
            return (power * power,)
        return (x * power,)

    def _scale(self, square: Tensor) -> Tensor:
        """What is raised to ``-beta``, from the squared bottom."""
        alpha: float = self.options.alpha
        k: float = self.options.k
        if self.within:
            mean = F.avg_pool2d(square, self.size, 1, self.size // 2, count_include_pad=True)
            return 1 + alpha * mean
        total: Tensor = self._over_channels(square) * (alpha / self.size)
        return total + k

    def _over_channels(self, x: Tensor) -> Tensor:
        """Sums over ``local_size`` neighbouring channels."""
        # further channels are none: a large local_size costs no more than all channels
        half = min(self.size // 2, max(0, x.shape[1] - 1))
        padded = F.pad(x, (0, 0, 0, 0, half, half))
        total = padded[:, : x.shape[1]]
        for i in range(1, 2 * half + 1):
            total = total + padded[:, i : i + x.shape[1]]
        return total

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        x, y, diff, o = blobs.bottoms[0], blobs.tops[0], blobs.diffs[0], self.options
        square = (blobs.seen[0] * blobs.seen[0]).detach().requires_grad_()
        with torch.enable_grad():
            scale = self._scale(square)
            power = scale.pow(-o.beta)
        if self.within:  # made of Power, Pooling and Eltwise layers, which see x twice
            (to_square,) = torch.autograd.grad(power, square, diff * x)
            return (diff * power.detach() + 2 * x * to_square,)
        scale, power = scale.detach(), power.detach()
        if self.works_in_place:  # here, too, the power has been written over the top's gradient
            diff = power * power
        around = self._over_channels(diff * y / scale)
        direct = diff if self.works_in_place else diff * power
        return (direct - (2 * o.alpha * o.beta / self.size) * x * around,)


@register("MVN")
class MVN(Layer):
    """Mean (and variance) normalisation per channel of each image, or per image
    (``across_channels``).

    ``y = (x - mean) / (std + eps)``; the top has 4 axes always. The gradient is ``(g - mean(g) - y
    mean(y g)) / (std + eps)``, which is the derivative where eps is small.

    Source: ``mvn_layer.cpp`` of BVLC Caffe.
    """

    option = "mvn_param"
    unasked = (0,)

    def setup(self) -> None:
        self.reads = ("diff", "top") if self.options.normalize_variance else ()

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [self.four_axes(bottoms[0])]

    def _rows(self, x: Tensor) -> Tensor:
        """What is normalised together, as rows."""
        kept = 1 if self.options.across_channels else 2
        return x.reshape(count(x.shape[:kept]), count(x.shape[kept:]))

    def _divisor(self, centred: Tensor) -> Tensor:
        eps: float = self.options.eps
        return (centred * centred).mean(1, keepdim=True).sqrt() + eps

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        rows = self._rows(bottoms[0])
        # in double precision a constant row becomes 0, not its mean's rounding error
        y = rows - rows.mean(1, keepdim=True, dtype=torch.float64).to(rows.dtype)
        if self.options.normalize_variance:
            # torch.no_grad would not stop a derivative that is taken forwards
            still = y.detach()
            divisor = self._divisor(still)
            normalised = still / divisor
            # its value is 0; its gradient makes Caffe's formula out of the quotient's
            tie = (normalised * y).mean(1, keepdim=True)
            y = y / (divisor + (tie - tie.detach()))
        return (y.reshape(self.output_shapes([tuple(bottoms[0].shape)])[0]),)

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        x, y, diff = (self._rows(b[0]) for b in (blobs.seen, blobs.tops, blobs.diffs))
        divisor = self._divisor(x - x.mean(1, keepdim=True))
        if self.works_in_place:  # each step writes over the top's gradient
            along = y * (y * diff).sum(1, keepdim=True)
            along = along + along.sum(1, keepdim=True)
            gradient = (-2 / x.shape[1]) * along / divisor
        else:
            along = y * (y * diff).mean(1, keepdim=True)
            gradient = (diff - diff.mean(1, keepdim=True) - along) / divisor
        return (gradient.reshape(blobs.seen[0].shape),)


@register("BatchNorm")
class BatchNorm(Layer):
    """Normalisation by the statistics of the batch or by stored ones; no scale and shift of its
    own.

    Blobs: sum of means (C), sum of variances (C), and the factor (1) by which both are to be
    divided; a factor of 0 means zero statistics. Without ``use_global_stats`` each forward pass
    adds the batch's statistics: blobs times ``moving_average_fraction`` plus mean, plus variance ·
    m/(m-1), plus 1.

    Source: ``batch_norm_layer.cpp`` of BVLC Caffe.
    """

    option = "batch_norm_param"
    blob_names = ("mean", "variance", "scale_factor")
    trainable = False
    reads = ()  # Caffe keeps the normalised values
    unasked = (0,)

    def setup(self) -> None:
        o = self.options
        self.use_global = (
            o.use_global_stats if o.HasField("use_global_stats") else self.phase == TEST
        )
        self.changes_state = not self.use_global
        for param in self.spec.params:
            if param.lr_mult != 0:
                raise self.error(
                    "the statistics cannot have a learning rate: lr_mult must be 0 or left out",
                    "param",
                )

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) < 2:
            raise self.error(
                f"the bottom must have a channel axis (2 axes or more), found {len(bottoms[0])}",
                "bottom",
            )
        return [(bottoms[0][1],), (bottoms[0][1],), (1,)]

    def fillers(self) -> list[Any]:
        return [schema.new("FillerParameter", type="constant", value=0)] * 3

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, eps = bottoms[0], self.options.eps
        channels = params[0].numel()
        view = [1, channels] + [1] * (x.dim() - 2)
        if self.use_global:
            factor = params[2][0]
            factor = torch.where(factor == 0, 0.0, 1 / factor)
            mean, variance = params[0] * factor, params[1] * factor
            return ((x - mean.view(view)) / (variance.view(view) + eps).sqrt(),)
        x = x.to(params[0].dtype)  # sums of bfloat16 would be too coarse
        mean, variance = torch.zeros_like(params[0]), torch.zeros_like(params[1])
        if x.numel() == channels:  # one value is its own mean, and varies by nothing
            y = x - x
            mean.copy_(x.detach().reshape(-1))
        else:
            y = _normalised()(x, mean, variance, eps)
        with torch.no_grad():
            keep = self.options.moving_average_fraction
            params[2].mul_(keep).add_(1)
            params[0].mul_(keep).add_(mean)
            params[1].mul_(keep).add_(variance)
        return (y,)


@cache
def _normalised() -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    """``(x, mean, variance, eps)`` to what is normalised by the statistics of the batch.

    ``mean`` and ``variance`` are filled: with the means, and the variances · m/(m-1).
    ``torch.batch_norm`` is as fast, but for a single image its gradient can be wrong where what
    comes in from above lies in another order than ``x`` in memory. Made at first use, because
    this module must not import torch.
    """

    class Normalised(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
            # the moving averages of momentum 1 are those of this batch alone
            y, centre, inverse = torch.native_batch_norm(
                x, None, None, mean, variance, True, 1.0, eps
            )
            ctx.save_for_backward(x, centre, inverse)
            ctx.eps = eps
            return y

        @staticmethod
        def backward(ctx: Any, diff: Tensor) -> tuple[Tensor, None, None, None]:
            x, centre, inverse = ctx.saved_tensors
            if diff.stride() != x.stride():
                diff = torch.empty_like(x).copy_(diff)
            gradient, _, _ = torch.ops.aten.native_batch_norm_backward(
                diff, x, None, None, None, centre, inverse, True, ctx.eps, [True, False, False]
            )
            return gradient, None, None, None

    apply: Callable[[Tensor, Tensor, Tensor, float], Tensor] = Normalised.apply
    return apply


class _Broadcast(Layer):
    """Base of Scale and Bias: a coefficient for some neighbouring axes of the bottom."""

    bottoms = (1, 2)

    def _coefficient_shape(self, bottoms: Sequence[Shape]) -> Shape:
        first, o = bottoms[0], self.options
        if len(bottoms) > 1:
            return bottoms[1]
        if o.num_axes < -1:
            raise self.error("must be -1 or more", "num_axes")
        axis = self.axis(o.axis, len(first))
        if o.num_axes == -1:
            return first[axis:]
        if axis + o.num_axes > len(first):
            raise self.error(
                f"axis {axis} and {o.num_axes} axes exceed the bottom's {len(first)} axes",
                "num_axes",
            )
        return first[axis : axis + o.num_axes]

    def _axis(self, first: Shape, coefficient: Shape) -> int:
        axis = 0 if not coefficient else self.axis(self.options.axis, len(first))
        if axis + len(coefficient) > len(first):
            raise self.error(
                f"the coefficient's shape {coefficient} reaches beyond the bottom's {first}", "axis"
            )
        for i, size in enumerate(coefficient):
            if first[axis + i] != size:
                raise self.error(
                    f"axis {axis + i} of the bottom has size {first[axis + i]}, the coefficient "
                    f"has {size}",
                    "axis",
                )
        return axis

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._axis(bottoms[0], self._coefficient_shape(bottoms))
        return [bottoms[0]]

    def _spread(self, x: Tensor, coefficient: Tensor) -> Tensor:
        axis = self._axis(tuple(x.shape), tuple(coefficient.shape))
        tail = x.dim() - axis - coefficient.dim()
        return coefficient.reshape([1] * axis + list(coefficient.shape) + [1] * tail)


@register("Scale")
class Scale(_Broadcast):
    """Bottom times a coefficient over some of its axes, plus a bias with ``bias_term``.

    The coefficient is a learned blob or the second bottom.

    Source: ``scale_layer.cpp`` of BVLC Caffe.
    """

    option = "scale_param"
    blob_names = ("weight", "bias")
    copies_first = True

    def setup(self) -> None:
        if self.works_in_place and len(self.spec.bottoms) == 1:
            self.reads = ()

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if self.options.bias_term:  # which has the axis even where the coefficient is a scalar
            self.axis(self.options.axis, len(bottoms[0]))
        return super().output_shapes(bottoms)

    def replaces_gradient(self, index: int, bottoms: Sequence[Shape]) -> bool:
        if index or len(bottoms) > 1:
            return False
        first, shape = bottoms[0], self._coefficient_shape(bottoms)
        lead = count(first[: self._axis(first, shape)])
        return count(first) == count(shape) or (lead == 1 and count(shape) != 1)

    def product(self, bottoms: Sequence[Tensor], diffs: Sequence[Tensor]) -> Tensor | None:
        shapes = [tuple(bottom.shape) for bottom in bottoms]
        if self.works_in_place or count(shapes[0]) == count(self._coefficient_shape(shapes)):
            return None  # it is kept elsewhere
        return diffs[0] * bottoms[0]

    def names(self) -> tuple[str, ...]:
        return self.blob_names if len(self.spec.bottoms) == 1 else ("bias",)

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape = self._coefficient_shape(bottoms)
        learned = [len(bottoms) == 1, self.options.bias_term]
        return [shape] * learned.count(True)

    def fillers(self) -> list[Any]:
        o = self.options
        one = (
            o.filler
            if o.HasField("filler")
            else schema.new("FillerParameter", type="constant", value=1)
        )
        fillers = [one] if len(self.spec.bottoms) == 1 else []
        return [*fillers, o.bias_filler] if o.bias_term else fillers

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        y = x * self._spread(x, bottoms[1] if len(bottoms) > 1 else params[0])
        return (y + self._spread(x, params[-1]) if self.options.bias_term else y,)


@register("Bias")
class Bias(_Broadcast):
    """Bottom plus a term over some of its axes: a learned blob or the second bottom.

    Source: ``bias_layer.cpp`` of BVLC Caffe.
    """

    option = "bias_param"
    blob_names = ("bias",)
    reads = ()

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [] if len(bottoms) > 1 else [self._coefficient_shape(bottoms)]

    def fillers(self) -> list[Any]:
        return [] if len(self.spec.bottoms) > 1 else [self.options.filler]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (
            bottoms[0] + self._spread(bottoms[0], bottoms[1] if len(bottoms) > 1 else params[0]),
        )
