"""Convolution, Deconvolution, Im2col."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_compat.layers.base import Layer, Shape, Weighted, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from caffe_compat.engine import plan
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")
    plan = lazy_import("caffe_compat.engine.plan")


Windows = tuple[Shape, Shape, Shape, Shape]  # kernel, stride, pad, dilation by spatial axis


def reached(x: Tensor, windows: Windows) -> Tensor:
    """The input, with zeros behind it where a window that is larger than the padded input reaches
    beyond it.

    Caffe's size of an output rounds towards zero, so that a stride above 1 leaves one such window.
    """
    beyond = [
        max(0, dilation * (kernel - 1) + 1 - (size + 2 * pad))
        for size, kernel, _, pad, dilation in zip(x.shape[2:], *windows, strict=True)
    ]
    return F.pad(x, [p for b in reversed(beyond) for p in (0, b)]) if any(beyond) else x


def unfolded(x: Tensor, windows: Windows) -> Tensor:
    """All windows of N×C×spatial: N×C×kernel×places, with any number of spatial axes."""
    wide = reached(x, windows)
    kernel, stride, pad, dilation = windows
    wide = F.pad(wide, [p for size in reversed(pad) for p in (size, size)]) if any(pad) else wide
    for axis, (k, t, d) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        wide = wide.unfold(axis, d * (k - 1) + 1, t)[..., ::d]
    axes = len(kernel)
    places, inside = range(2, 2 + axes), range(2 + axes, 2 + 2 * axes)
    return wide.permute(0, 1, *inside, *places)


class Windowed(Layer):
    """Kernel, stride, pad and dilation of ``convolution_param``, for any number of spatial axes."""

    option = "convolution_param"

    def windows(self, bottom: Shape) -> Windows:
        """(kernel, stride, pad, dilation), one entry per spatial axis.

        Raises
        ------
        PrototxtError : a size or stride below 1, settings that exclude each other, or axes that the
            bottom does not have.
        """
        options = self.options
        axes = len(bottom) - self.channel_axis(bottom) - 1
        if axes < 0:
            raise self.error("the bottom has no channel axis", "axis")
        named = options.HasField("kernel_h") or options.HasField("kernel_w")
        if named:
            if axes != 2:
                raise self.error(
                    f"kernel_h and kernel_w need 2 spatial axes, the bottom has {axes}", "kernel_h"
                )
            if options.kernel_size:
                raise self.error(
                    "give kernel_size or kernel_h and kernel_w, not both", "kernel_size"
                )
            kernel: Shape = (options.kernel_h, options.kernel_w)
        else:
            kernel = self._per_axis("kernel_size", axes, None)
        if any(size < 1 for size in kernel):
            raise self.error(
                f"kernel {'x'.join(map(str, kernel))}: every size must be at least 1", "kernel_size"
            )
        stride = self._pair("stride", axes, 1)
        if any(size < 1 for size in stride):
            raise self.error("must be at least 1", "stride")
        return kernel, stride, self._pair("pad", axes, 0), self._per_axis("dilation", axes, 1)

    def _pair(self, name: str, axes: int, default: int) -> Shape:
        options = self.options
        if options.HasField(f"{name}_h") or options.HasField(f"{name}_w"):
            if axes != 2:
                raise self.error(
                    f"{name}_h and {name}_w need 2 spatial axes, the bottom has {axes}", f"{name}_h"
                )
            if getattr(options, name):
                raise self.error(f"give {name} or {name}_h and {name}_w, not both", name)
            return (getattr(options, f"{name}_h"), getattr(options, f"{name}_w"))
        return self._per_axis(name, axes, default)

    def _per_axis(self, name: str, axes: int, default: int | None) -> Shape:
        given = tuple(getattr(self.options, name))
        if not given and default is not None:
            return (default,) * axes
        if len(given) == 1:
            return given * axes
        if len(given) != axes:
            raise self.error(
                f"give it once or once per spatial axis ({axes}), found {len(given)}", name
            )
        return given

    def channel_axis(self, bottom: Shape) -> int:
        """The channel axis; all axes after it are spatial."""
        return self.axis(self.options.axis, len(bottom))

    @staticmethod
    def extent(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        """Output size along one axis; C++ division, which rounds towards zero."""
        span = size + 2 * pad - (dilation * (kernel - 1) + 1)
        return (span // stride if span >= 0 else -((-span) // stride)) + 1

    def positions(self, bottom: Shape) -> Shape:
        """How many places the kernel takes along each spatial axis.

        Raises
        ------
        PrototxtError : the kernel is larger than the padded bottom.
        """
        sizes = bottom[self.channel_axis(bottom) + 1 :]
        windows = zip(*self.windows(bottom), strict=True)
        found = tuple(
            self.extent(size, *window) for size, window in zip(sizes, windows, strict=True)
        )
        if any(size < 1 for size in found):
            raise self.error(
                f"the kernel does not fit into the padded input of shape {bottom}", "kernel_size"
            )
        return found


class _Filters(Weighted, Windowed):
    """Base of Convolution and Deconvolution."""

    bottoms = (1, None)
    tops = (1, None)
    same_count = True

    def setup(self) -> None:
        options = self.options
        if options.num_output < 1:
            raise self.error("must be at least 1", "num_output")
        if options.group < 1:
            raise self.error("must be at least 1", "group")
        if options.num_output % options.group:
            raise self.error(
                f"{options.num_output} is no multiple of group {options.group}", "num_output"
            )

    def check(self, bottoms: Sequence[Shape]) -> None:
        """Rules that need the bottoms' shapes."""
        first = bottoms[0]
        axis = self.channel_axis(first)
        if first[axis] % self.options.group:
            raise self.error(
                f"{first[axis]} input channels are no multiple of group {self.options.group}",
                "group",
            )
        for other in bottoms[1:]:
            if other != first:
                raise self.error(
                    f"all bottoms must have the same shape, found {first} and {other}", "bottom"
                )

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return self.channel_axis(bottoms[0]) == 1

    def _folded(self, bottom: Tensor) -> tuple[Tensor, Shape]:
        """Fold all axes before the channels into one batch axis, as torch wants it."""
        axis = self.channel_axis(tuple(bottom.shape))
        lead = tuple(bottom.shape[:axis])
        return (bottom if axis == 1 else bottom.reshape(count(lead), *bottom.shape[axis:])), lead


@register("Convolution")
class Convolution(_Filters):
    """Cross-correlation with learned filters.

    ``top[n, o] = bias[o] + sum_c weight[o, c] * bottom[n, c]`` over windows; N×C×spatial, any
    number of spatial axes. Weights (num_output, C/group, kernel). Output size
    ``(size + 2 pad - dilation (kernel-1) - 1) / stride + 1``, the quotient rounded towards zero:
    with a stride, a kernel may be larger than the padded input. Several bottoms share the weights.

    Source: ``conv_layer.cpp``, ``base_conv_layer.cpp`` of BVLC Caffe.
    """

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(bottoms)
        kernel = self.windows(bottoms[0])[0]
        options = self.options
        channels = bottoms[0][self.channel_axis(bottoms[0])]
        shapes: list[Shape] = [(options.num_output, channels // options.group, *kernel)]
        return [*shapes, (options.num_output,)] if options.bias_term else shapes

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(bottoms)
        bottom = bottoms[0]
        lead = bottom[: self.channel_axis(bottom)]
        return [(*lead, self.options.num_output, *self.positions(bottom))] * len(bottoms)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops = []
        bias = params[1] if len(params) > 1 else None
        for bottom in bottoms:
            folded, lead = self._folded(bottom)
            windows = self.windows(tuple(bottom.shape))
            if len(windows[0]) > 3:  # more axes than torch convolves
                top = self._multiplied(folded, params[0], bias, windows)
            else:
                wide, (_, stride, pad, dilation) = reached(folded, windows), windows
                top = plan.convolve(
                    wide, params[0], bias, stride, pad, dilation, self.options.group
                )
            tops.append(top if len(lead) == 1 else top.reshape(*lead, *top.shape[1:]))
        return tuple(tops)

    def _multiplied(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows
    ) -> Tensor:
        """The convolution as one product of matrices, as Caffe computes it; any number of axes."""
        group, columns = self.options.group, unfolded(x, windows)
        size = columns.shape[2 + len(windows[0]) :]
        rows = weight.reshape(group, len(weight) // group, -1)
        top = rows @ columns.reshape(len(x), group, rows.shape[2], -1)
        top = top.reshape(len(x), len(weight), *size)
        return top if bias is None else top + bias.reshape(-1, *[1] * len(size))


@register("Deconvolution")
class Deconvolution(_Filters):
    """The transpose of Convolution: upsampling with learned filters.

    Weights (C, num_output/group, kernel); output size ``stride (size-1) + dilation (kernel-1) + 1 -
    2 pad``.

    Source: ``deconv_layer.cpp`` of BVLC Caffe.
    """

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(bottoms)
        kernel = self.windows(bottoms[0])[0]
        options = self.options
        channels = bottoms[0][self.channel_axis(bottoms[0])]
        shapes: list[Shape] = [(channels, options.num_output // options.group, *kernel)]
        return [*shapes, (options.num_output,)] if options.bias_term else shapes

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(bottoms)
        bottom = bottoms[0]
        axis = self.channel_axis(bottom)
        spatial = tuple(
            stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad
            for size, kernel, stride, pad, dilation in zip(
                bottom[axis + 1 :], *self.windows(bottom), strict=True
            )
        )
        if any(size < 1 for size in spatial):
            raise self.error(
                f"the padding leaves nothing of the output for an input of shape {bottom}", "pad"
            )
        return [(*bottom[:axis], self.options.num_output, *spatial)] * len(bottoms)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops = []
        bias = params[1] if len(params) > 1 else None
        for bottom in bottoms:
            folded, lead = self._folded(bottom)
            shape = tuple(bottom.shape)
            kernel, stride, pad, dilation = windows = self.windows(shape)
            if 1 <= len(kernel) <= 3:
                run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(kernel) - 1]
                group = self.options.group
                top = run(
                    folded, params[0], bias, list(stride), list(pad), 0, group, list(dilation)
                )
            else:
                size = self.output_shapes([shape])[0][len(lead) + 1 :]
                top = self._spread(folded, params[0], bias, windows, size)
            tops.append(top if len(lead) == 1 else top.reshape(*lead, *top.shape[1:]))
        return tuple(tops)

    def _spread(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, size: Shape
    ) -> Tensor:
        """Each value's window added to the output, place by place of the kernel; any number of
        axes."""
        kernel, stride, pad, dilation = windows
        group = self.options.group
        rows = weight.reshape(group, len(weight) // group, -1).transpose(1, 2)
        columns = rows @ x.reshape(len(x), group, len(weight) // group, -1)
        columns = columns.reshape(len(x), self.options.num_output, -1, *x.shape[2:])
        wide = x.new_zeros(
            len(x),
            self.options.num_output,
            *(s + 2 * p for s, p in zip(size, pad, strict=True)),
        )
        for number, place in enumerate(itertools.product(*map(range, kernel))):
            window = tuple(
                slice(at * d, at * d + (n - 1) * t + 1, t)
                for at, d, t, n in zip(place, dilation, stride, x.shape[2:], strict=True)
            )
            wide = wide.clone()
            wide[(slice(None), slice(None), *window)] += columns[:, :, number]
        inside = tuple(slice(p, p + s) for p, s in zip(pad, size, strict=True))
        top = wide[(slice(None), slice(None), *inside)]
        return top if bias is None else top + bias.reshape(-1, *[1] * len(size))


@register("Im2col")
class Im2col(Windowed):
    """Windows unfolded into channels: N×C×H×W to N×(C·kh·kw)×H'×W', with any number of spatial
    axes.

    Source: ``im2col_layer.cpp`` of BVLC Caffe.
    """

    reads = ()
    unasked = (0,)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom = bottoms[0]
        axis = self.channel_axis(bottom)
        if axis == len(bottom) - 1:
            raise self.error(f"the bottom {bottom} has no axis after the channels", "bottom")
        values = bottom[axis] * count(self.windows(bottom)[0])
        return [(*bottom[:axis], values, *self.positions(bottom))]

    def scratch(self, bottoms: Sequence[Shape]) -> int:
        """The padded bottom."""
        bottom = bottoms[0]
        pads = self.windows(bottom)[2]
        kept = len(bottom) - len(pads)
        wide = [size + 2 * pad for size, pad in zip(bottom[kept:], pads, strict=True)]
        return count((*bottom[:kept], *wide)) if any(pads) else 0

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        shape = tuple(bottoms[0].shape)
        axis = self.channel_axis(shape)
        columns = unfolded(bottoms[0].reshape(-1, *shape[axis:]), self.windows(shape))
        return (columns.reshape(self.output_shapes([shape])[0]),)
