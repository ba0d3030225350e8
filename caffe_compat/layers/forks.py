"""Small layers that forks of Caffe added and many definitions use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from caffe_compat.definition import schema
from caffe_compat.definition.spec import TRAIN
from caffe_compat.layers.base import Layer, Shape, Weighted, count, register
from caffe_compat.layers.convolution import Windowed, reached
from caffe_compat.layers.slopes import with_slopes
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from caffe_compat.engine import plan
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")
    plan = lazy_import("caffe_compat.engine.plan")


def _maps(layer: Layer, bottom: Shape) -> None:
    """Refuse what is not N×C×H×W."""
    if len(bottom) != 4:
        raise layer.error(f"the bottom must be N×C×H×W, found {bottom}", "bottom")


@register("ConvolutionDepthwise")
class ConvolutionDepthwise(Weighted, Windowed):
    """Each channel convolved with a filter of its own: weights (C, 1, kernel); ``group`` is not
    used.

    Source: ``conv_dw_layer.cpp`` of farmingyard's Caffe.
    """

    truth = "OpenCV"

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        channels = bottoms[0][1]
        shapes: list[Shape] = [(channels, 1, *self.windows(bottoms[0])[0])]
        return [*shapes, (channels,)] if self.options.bias_term else shapes

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom = bottoms[0]
        _maps(self, bottom)
        if self.has("num_output") and self.options.num_output != bottom[1]:
            raise self.error(
                f"each of {bottom[1]} channels gives one: num_output must be {bottom[1]} or left "
                "out",
                "num_output",
            )
        spatial = tuple(
            self.extent(s, *w)
            for s, w in zip(bottom[2:], zip(*self.windows(bottom), strict=True), strict=True)
        )
        if min(spatial) < 1:
            raise self.error(f"the kernel does not fit into the bottom {bottom}", "kernel_size")
        return [(*bottom[:2], *spatial)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        windows = self.windows(tuple(bottoms[0].shape))
        _, stride, pad, dilation = windows
        x = reached(bottoms[0], windows)
        bias = params[1] if len(params) > 1 else None
        return (plan.convolve(x, params[0], bias, stride, pad, dilation, x.shape[1]),)


@register("Permute")
class Permute(Layer):
    """Axes in another order; those that ``order`` does not name follow in their own.

    Source: ``permute_layer.cpp`` of Caffe's branch ssd.
    """

    option = "permute_param"
    in_place = False
    reads = ()

    def shares_data(self) -> bool:
        """Where nothing changes places the top is the bottom."""
        order = list(self.options.order)
        return order == list(range(len(order)))

    def shares_diff(self, backward: bool) -> bool:
        return backward and self.shares_data()

    def order(self, axes: int) -> list[int]:
        """The bottom's axis for each axis of the top.

        Raises
        ------
        PrototxtError : an axis is named twice, or the bottom does not have it.
        """
        given = list(self.options.order)
        if len(set(given)) != len(given):
            raise self.error(f"an axis is named twice in {given}", "order")
        if any(axis >= axes for axis in given):
            raise self.error(f"the bottom has {axes} axes, found the order {given}", "order")
        return given + [axis for axis in range(axes) if axis not in given]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(bottoms[0][axis] for axis in self.order(len(bottoms[0])))]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].permute(self.order(bottoms[0].dim())),)


@register("Normalize")
class Normalize(Layer):
    """``x / sqrt(sum x² + eps) · scale``: the sum over the channels of each place, or with
    ``across_spatial`` over the whole image; the scale is learned, one for all (``channel_shared``)
    or one per channel.

    The fork multiplies the gradient by the scale after the normalisation's part of it, not before;
    with a scale per channel that is not the derivative, and it is what comes here. In place the
    bottom gets no gradient, as in the fork, which writes over the top's before it is read.

    Source: ``normalize_layer.cpp`` of Caffe's branch ssd.
    """

    option = "norm_param"
    blob_names = ("weight",)

    def setup(self) -> None:
        if self.works_in_place:
            self.reads = ()

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [() if self.options.channel_shared else (bottoms[0][1],)]

    def fillers(self) -> list[Any]:
        o = self.options
        given = o.HasField("scale_filler")
        return [
            o.scale_filler if given else schema.new("FillerParameter", type="constant", value=1)
        ]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if not 2 <= len(bottoms[0]) <= 4:
            raise self.error(f"the bottom must have 2 to 4 axes, found {bottoms[0]}", "bottom")
        return [bottoms[0]]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        axes = list(range(1, x.dim())) if self.options.across_spatial else [1]
        scale = params[0].reshape(-1, *[1] * (x.dim() - 2)) if params[0].dim() else params[0]
        if torch.is_grad_enabled():
            x = x.detach() + (x - x.detach()) * scale.detach()
        unit = x / ((x * x).sum(axes, keepdim=True) + self.options.eps).sqrt()
        if not torch.is_grad_enabled():
            return (unit * scale,)
        if self.works_in_place:
            return (unit.detach() * scale + 0 * (x - x.detach()),)
        return (unit.detach() * scale + (unit - unit.detach()),)


@register("Axpy")
class Axpy(Layer):
    """``a · x + y`` with a factor per image and channel: a N×C (×1×1), x and y N×C×H×W.

    Source: ``axpy_layer.cpp`` of SENet's Caffe.
    """

    truth = "our reference"
    bottoms = (3, 3)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        factor, x, y = bottoms
        _maps(self, x)
        if x != y or factor[:2] != x[:2] or count(factor[2:]) != 1:
            raise self.error(
                f"needs factors N×C and two blobs of one shape N×C×H×W, found {list(bottoms)}",
                "bottom",
            )
        return [x]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        factor, x, y = bottoms
        return (factor.reshape(*x.shape[:2], 1, 1) * x + y,)


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """Channels dealt out anew: the i-th channel of every group, then the next of every group.

    Source: ``shuffle_channel_layer.cpp`` of ShuffleNet's Caffe.
    """

    truth = "OpenCV"
    option = "shuffle_channel_param"
    in_place = False

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        group = self.options.group
        if len(bottoms[0]) < 2 or group < 1 or bottoms[0][1] % group:
            raise self.error(
                f"the channels of {bottoms[0]} do not divide into {group} groups", "group"
            )
        return [bottoms[0]]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        grouped = x.reshape(x.shape[0], self.options.group, -1, *x.shape[2:])
        return (grouped.transpose(1, 2).reshape(x.shape),)


@register("Upsample")
class Upsample(Layer):
    """Unpooling: each value goes back to the place that the second bottom, the mask of a MAX
    pooling, names; zeros elsewhere. With one bottom each value fills a square of ``scale``.

    Where two values go to one place the later one stays; the gradient reaches both.

    Source: ``upsample_layer.cpp`` of SegNet's Caffe (two bottoms) and of MobileNet-YOLO's (one).
    """

    truth = "our reference"
    option = "upsample_param"
    bottoms = (1, 2)

    def setup(self) -> None:
        o = self.options
        sized = o.HasField("upsample_h"), o.HasField("upsample_w")
        parts = o.HasField("scale_h"), o.HasField("scale_w")
        if sized[0] != sized[1]:
            raise self.error("give upsample_h and upsample_w, not one of them", "upsample_h")
        if not all(sized) and (parts[0] != parts[1] or (any(parts) and o.HasField("scale"))):
            raise self.error("give scale, or scale_h and scale_w", "scale")
        self.scale = (o.scale_h, o.scale_w) if all(parts) else (o.scale, o.scale)
        self.size = (o.upsample_h, o.upsample_w) if all(sized) else None
        if min(self.size or self.scale) < 2:
            raise self.error("must be above 1", "upsample_h" if self.size else "scale")
        self.short = (int(o.pad_out_h), int(o.pad_out_w))
        for axis in (0, 1):
            if not self.size and self.short[axis] and self.scale[axis] != 2:
                raise self.error("needs a scale of 2", ("pad_out_h", "pad_out_w")[axis])
        if len(self.spec.bottoms) < 2 and (self.size or any(self.short)):
            raise self.error(
                "with one bottom only scale is possible: give the pooling's mask as second bottom",
                "bottom",
            )

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        x = bottoms[0]
        _maps(self, x)
        if len(bottoms) > 1 and bottoms[1] != x:
            raise self.error(f"the mask must have the shape {x}, found {bottoms[1]}", "bottom")
        height, width = self.size or (
            x[2] * self.scale[0] - self.short[0],
            x[3] * self.scale[1] - self.short[1],
        )
        return [(*x[:2], height, width)]

    def gradient_to(self, index: int) -> bool:
        return index == 0

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        shape = self.output_shapes([tuple(b.shape) for b in bottoms])[0]
        if len(bottoms) == 1:
            tall = x.repeat_interleave(self.scale[0], 2)
            return (tall.repeat_interleave(self.scale[1], 3),)
        values = x.reshape(*x.shape[:2], -1)
        places = bottoms[1].detach().reshape(values.shape).long()
        if places.numel() and (places.min() < 0 or places.max() >= shape[2] * shape[3]):
            raise self.error(
                f"the mask names places outside {shape[2]}×{shape[3]}: the size must be that of "
                "the pooling's input",
                "bottom",
            )
        zeros = x.new_zeros(*shape[:2], shape[2] * shape[3])
        turn = torch.arange(values.shape[2], device=x.device).expand_as(places)
        last = torch.zeros_like(zeros, dtype=torch.long).scatter_reduce(2, places, turn, "amax")
        winners = values.detach().gather(2, last.gather(2, places))
        winners = with_slopes()(winners, (x.new_ones(()),), values)
        return (zeros.scatter(2, places, winners).reshape(shape),)


@register("Interp")
class Interp(Layer):
    """Bilinear resizing whose corners stay corners, after cropping by negative ``pad_beg`` and
    ``pad_end``.

    The size comes from ``shrink_factor`` or ``zoom_factor``, from ``height`` and ``width``, or from
    both factors: the first of these that is given.

    Source: ``interp_layer.cpp`` of DeepLab's and PSPNet's Caffe.
    """

    truth = "OpenCV"
    option = "interp_param"

    def setup(self) -> None:
        o = self.options
        if o.pad_beg > 0 or o.pad_end > 0:
            raise self.error("only cropping is possible: 0 or a negative number", "pad_beg")
        factors = [name for name in ("shrink_factor", "zoom_factor") if o.HasField(name)]
        # the fork looks at one factor before it looks at height and width, and at both after it
        self.sized = o.HasField("height") and o.HasField("width") and len(factors) != 1
        for name in () if self.sized else factors:
            if getattr(o, name) < 1:
                raise self.error("must be at least 1", name)
        if not factors and not self.sized:
            raise self.error("give zoom_factor, shrink_factor, or height and width", "zoom_factor")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        x, o = bottoms[0], self.options
        _maps(self, x)
        cropped = [size + o.pad_beg + o.pad_end for size in x[2:]]
        if min(cropped) < 1:
            raise self.error(f"cropping leaves nothing of {x}", "pad_beg")
        if self.sized:
            sizes = [o.height, o.width]
        else:
            small = [(size - 1) // o.shrink_factor + 1 for size in cropped]
            sizes = [size + (size - 1) * (o.zoom_factor - 1) for size in small]
        if min(sizes) < 1:
            raise self.error("must be at least 1", "height")
        return [(*x[:2], *sizes)]

    def crop(self, size: int) -> tuple[int, int]:
        """Begin and end of what is read along an axis of a size."""
        return -self.options.pad_beg, size + self.options.pad_end

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        size = self.output_shapes([tuple(x.shape)])[0][2:]
        top, bottom = self.crop(x.shape[2])
        left, right = self.crop(x.shape[3])
        cut = x[:, :, top:bottom, left:right]
        if tuple(cut.shape[2:]) == size:
            return (cut,)
        return (F.interpolate(cut, size, mode="bilinear", align_corners=True),)


@register("Reorg")
class Reorg(Layer):
    """Places and channels traded, as YOLO does: N×C×H×W to N×(C·s²)×(H/s)×(W/s), with ``reverse``
    the other way.

    Without ``reverse`` the order of values is darknet's: the bottom is read as N×(C/s²)×(H·s)×(W·s)
    whatever its real shape, so C must be a multiple of s².

    Source: ``reorg_layer.cpp`` of the YOLOv2 ports and intel's Caffe.
    """

    truth = "OpenCV"
    option = "reorg_param"
    in_place = False

    def setup(self) -> None:
        if self.options.stride < 1:
            raise self.error("must be given and at least 1", "stride")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        x, s = bottoms[0], self.options.stride
        _maps(self, x)
        if x[1] % (s * s):
            raise self.error(f"{x[1]} channels are no multiple of {s}²", "stride")
        if self.options.reverse:
            return [(x[0], x[1] // (s * s), x[2] * s, x[3] * s)]
        if x[2] % s or x[3] % s:
            raise self.error(f"the size {x[2]}×{x[3]} is no multiple of {s}", "stride")
        return [(x[0], x[1] * s * s, x[2] // s, x[3] // s)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, s = bottoms[0], self.options.stride
        n, c, h, w = x.shape
        shape = self.output_shapes([(n, c, h, w)])[0]
        if self.options.reverse:
            spread = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            spread = x.reshape(n, c // (s * s), h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return (spread.reshape(shape),)


@register("BN")
class BN(Layer):
    """Batch normalisation with scale and shift in one layer; two layouts under one name.

    PSPNet's (slope_filler, bias_filler, momentum, eps, frozen): blobs slope, bias, mean and
    variance, 1×C×1×1 each; in TRAIN and not ``frozen`` the batch's statistics, of which the stored
    ones take ``1 - momentum``; where not ``frozen``, gradients are those of the batch's statistics
    in TEST, too. SegNet's and ENet's (scale_filler, shift_filler, bn_mode): blobs scale and shift;
    LEARN takes the batch's statistics in both phases, INFERENCE none, because they are in scale and
    shift; further tops give mean and variance. Weights of happynear's layer of this name (blobs
    1×C, the last one of inverse deviations) do not fit.

    Source: ``bn_layer.cpp`` of PSPNet's and SegNet's Caffe.
    """

    truth = "our reference"
    option = "bn_param"
    tops = (1, 3)

    def setup(self) -> None:
        o = self.options
        given = {descriptor.name for descriptor, _ in o.ListFields()}
        self.folded = bool(given & {"scale_filler", "shift_filler", "bn_mode"})
        stored = given - {"scale_filler", "shift_filler", "bn_mode"}
        if self.folded == bool(stored):
            raise self.error(
                "two layouts share this name: give bn_mode (SegNet's, two blobs), or momentum, eps "
                "or frozen (PSPNet's, four blobs), not both kinds",
                "bn_mode",
            )
        self.inference = self.folded and schema.enum_name(o, "bn_mode") == "INFERENCE"
        self.stored = not self.folded and (self.phase != TRAIN or o.frozen)
        self.changes_state = not self.folded and not self.stored
        self.reads = ("bottom",) if self.inference else ()  # the normalised values are kept
        if len(self.spec.tops) > 1 and not self.folded:
            raise self.error("has one top", "top")

    def names(self) -> tuple[str, ...]:
        return ("weight", "bias") if self.folded else ("weight", "bias", "mean", "variance")

    def learned(self, index: int) -> bool:
        return index < 2 and not (self.options.frozen and not self.folded)

    def replaces_gradient(self, index: int, bottoms: Sequence[Shape]) -> bool:
        return self.folded

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [(1, bottoms[0][1], 1, 1)] * len(self.names())

    def fillers(self) -> list[Any]:
        o = self.options
        one = schema.new("FillerParameter", type="constant", value=1)
        zero = schema.new("FillerParameter", type="constant", value=0)
        if self.folded:
            return [o.scale_filler, o.shift_filler]
        slope = o.slope_filler if o.HasField("slope_filler") else one
        return [slope, o.bias_filler, zero, one if o.frozen else zero]

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        _maps(self, bottoms[0])
        statistics: Shape = (1, bottoms[0][1], 1, 1)
        return [bottoms[0], *[statistics] * (len(self.spec.tops) - 1)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, o = bottoms[0], self.options
        if self.inference:
            no_statistics = x.new_zeros(1, x.shape[1], 1, 1)
            tops = (x * params[0] + params[1], no_statistics, no_statistics)
            return tops[: len(self.spec.tops)]
        if self.stored:
            mean, variance = params[2], params[3]
        else:
            mean = x.mean((0, 2, 3), keepdim=True)
            variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        if self.changes_state:
            with torch.no_grad():
                params[2].mul_(o.momentum).add_(mean, alpha=1 - o.momentum)
                params[3].mul_(o.momentum).add_(variance, alpha=1 - o.momentum)
        deviation = (variance + (1e-9 if self.folded else o.eps)).sqrt()
        normalised = (x - mean) / deviation
        if self.stored and not o.frozen and x.requires_grad:
            normalised = _as_of_the_batch()(x, normalised.detach(), deviation.detach())
        top = normalised * params[0] + params[1]
        # Caffe looks at no gradient of the statistics
        return (top, mean.detach(), variance.detach())[: len(self.spec.tops)]


@cache
def _as_of_the_batch() -> Callable[..., Tensor]:
    """``(x, normalised, deviation)`` to ``normalised``, with the gradient that ``x`` has where both
    come from the batch itself. Made at first use, because this module must not import torch."""

    class AsOfTheBatch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, normalised: Tensor, deviation: Tensor) -> Tensor:
            ctx.save_for_backward(normalised, deviation)
            return normalised.clone()

        @staticmethod
        def backward(ctx: Any, diff: Tensor) -> tuple[Tensor, None, None]:
            normalised, deviation = ctx.saved_tensors
            axes = (0, 2, 3)
            along = normalised * (normalised * diff).mean(axes, keepdim=True)
            return (diff - along - diff.mean(axes, keepdim=True)) / deviation, None, None

    apply: Callable[..., Tensor] = AsOfTheBatch.apply
    return apply
