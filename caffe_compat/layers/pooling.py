"""Pooling and spatial pyramid pooling, with Caffe's window rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_compat.definition import schema
from caffe_compat.layers.base import LOWEST, Layer, Shape, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")

Pair = tuple[int, int]


def pooled_size(
    size: int, kernel: int, stride: int, pad: int, padded: bool, floor: bool = False
) -> int:
    """Output size along one axis: rounded up; with padding a last window that starts in the far
    padding is dropped.

    Source: ``PoolingLayer::Reshape`` of BVLC Caffe.
    """
    span = size + 2 * pad - kernel
    out = (span // stride if floor else -((-span) // stride)) + 1
    if padded and (out - 1) * stride >= size + pad:
        out -= 1
    return out


def _torch_size(size: int, kernel: int, stride: int, pad: int) -> int:
    """torch's ceil-mode size, which drops such windows without padding as well."""
    out = -((-(size + 2 * pad - kernel)) // stride) + 1
    return out - 1 if (out - 1) * stride >= size + pad else out


def _reach(size: int, out: int, kernel: int, stride: int, pad: int) -> int:
    """How much is needed behind the input so that all windows lie inside; negative where some is
    never read."""
    return (out - 1) * stride + kernel - pad - size


def max_pool(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, out: Pair) -> tuple[Tensor, Tensor]:
    """Maximum per window and its index in the H×W plane (-1 for an empty window); the first of
    equals wins.

    Parameters
    ----------
    x : N×C×H×W float.
    out : output size, by :func:`pooled_size`.
    """
    height, width = x.shape[-2:]
    native = all(
        _torch_size(s, k, t, p) == o and 2 * p <= k
        for s, k, t, p, o in zip((height, width), kernel, stride, pad, out, strict=True)
    )
    if native:
        return F.max_pool2d(x, kernel, stride, pad, ceil_mode=True, return_indices=True)
    down, right = (
        _reach(s, o, k, t, p)
        for s, o, k, t, p in zip((height, width), out, kernel, stride, pad, strict=True)
    )
    wide = F.pad(x, (pad[1], max(right, 0), pad[0], max(down, 0)), value=LOWEST)
    top, index = F.max_pool2d(wide, kernel, stride, return_indices=True)
    row = index // wide.shape[-1] - pad[0]
    column = index % wide.shape[-1] - pad[1]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = torch.where(inside, row * width + column, -1)
    return top[..., : out[0], : out[1]], place[..., : out[0], : out[1]]


def ave_pool(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, out: Pair) -> Tensor:
    """Mean per window, divided by the window clipped to image plus padding (padding counts,
    overhang does not)."""
    height, width = x.shape[-2:]
    native = all(
        _torch_size(s, k, t, p) == o and 2 * p <= k
        for s, k, t, p, o in zip((height, width), kernel, stride, pad, out, strict=True)
    )
    if native:
        return F.avg_pool2d(x, kernel, stride, pad, ceil_mode=True, count_include_pad=True)
    divisors = []
    for size, k, t, p, o in zip((height, width), kernel, stride, pad, out, strict=True):
        begin = [i * t - p for i in range(o)]
        divisors.append([float(min(b + k, size + p) - b) for b in begin])
    down, right = (
        _reach(s, o, k, t, p)
        for s, o, k, t, p in zip((height, width), out, kernel, stride, pad, strict=True)
    )
    wide = F.pad(x, (pad[1], max(right, 0), pad[0], max(down, 0)))
    total = F.avg_pool2d(wide, kernel, stride, divisor_override=1)[..., : out[0], : out[1]]
    rows, columns = (x.new_tensor(d) for d in divisors)
    # a window wholly outside has a size of 0 or less in Caffe: 0/0 or -0 there
    return total / (rows[:, None] * columns[None, :])


@register("Pooling")
class Pooling(Layer):
    """MAX or AVE over windows of N×C×H×W; a second top of MAX gives the index of each maximum.

    Differs from torch: sizes round up; without padding a last window may lie wholly outside the
    input (MAX gives -FLT_MAX, AVE nan); AVE divides by the window clipped to image + pad.

    Source: ``pooling_layer.cpp`` of BVLC Caffe.
    """

    option = "pooling_param"
    tops = (1, 2)
    reads = ()  # Caffe keeps where each maximum came from

    def setup(self) -> None:
        o = self.options
        self.method = schema.enum_name(o, "pool")
        if self.method == "STOCHASTIC":
            raise self.error(
                "STOCHASTIC pooling is not supported (Caffe has it on the GPU only); MAX and "
                "AVE are",
                "pool",
            )
        if len(self.spec.tops) > 1 and self.method != "MAX":
            raise self.error("only MAX pooling has a second top", "top")
        sizes = o.HasField("kernel_size"), o.HasField("kernel_h"), o.HasField("kernel_w")
        if o.global_pooling:
            if any(sizes):
                raise self.error("with global_pooling no kernel size may be given", "kernel_size")
        elif sizes[0] == all(sizes[1:]):  # one part alone beside kernel_size is let pass
            raise self.error(
                "give kernel_size, or kernel_h and kernel_w, not both and not one of them",
                "kernel_size",
            )
        for name in ("pad", "stride"):
            both = o.HasField(f"{name}_h"), o.HasField(f"{name}_w")
            # Caffe: not (NAME given and a part given), and not one part alone
            if (o.HasField(name) and any(both)) or both[0] != both[1]:
                raise self.error(
                    f"give {name}, or {name}_h and {name}_w, not both and not one of them", name
                )
        self.pad: Pair = (o.pad_h, o.pad_w) if o.HasField("pad_h") else (o.pad, o.pad)
        self.stride: Pair = (
            (o.stride_h, o.stride_w) if o.HasField("stride_h") else (o.stride, o.stride)
        )
        self.kernel: Pair = (o.kernel_size, o.kernel_size) if sizes[0] else (o.kernel_h, o.kernel_w)
        if o.global_pooling and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise self.error("with global_pooling only pad 0 and stride 1 are possible", "pad")
        if not o.global_pooling and min(self.kernel) < 1:
            raise self.error("must be at least 1", "kernel_size")
        if min(self.stride) < 1:
            raise self.error("must be at least 1", "stride")
        if any(self.pad) and (self.pad[0] >= self.kernel[0] or self.pad[1] >= self.kernel[1]):
            raise self.error(f"pad {self.pad} must be smaller than the kernel {self.kernel}", "pad")
        self.floor = schema.enum_name(o, "round_mode") == "FLOOR"

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        return True

    def _geometry(self, bottom: Shape) -> tuple[Pair, Pair]:
        if len(bottom) != 4:
            raise self.error(
                f"the bottom must have 4 axes (N×C×H×W), found {len(bottom)}", "bottom"
            )
        size = (bottom[2], bottom[3])
        kernel = size if self.options.global_pooling else self.kernel
        padded = any(self.pad)
        out = tuple(
            pooled_size(s, k, t, p, padded, self.floor)
            for s, k, t, p in zip(size, kernel, self.stride, self.pad, strict=True)
        )
        if min(out) < 1:
            raise self.error(
                f"the kernel {kernel} does not fit into the input of size {size}", "kernel_size"
            )
        return kernel, (out[0], out[1])

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        _, out = self._geometry(bottoms[0])
        return [(*bottoms[0][:2], *out)] * max(1, len(self.spec.tops))

    def scratch(self, bottoms: Sequence[Shape]) -> int:
        """The padded bottom."""
        bottom = bottoms[0]
        wide = [size + 2 * pad for size, pad in zip(bottom[2:], self.pad, strict=True)]
        return count((*bottom[:2], *wide)) if any(self.pad) else 0

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self.works_in_place:
            return self._in_place(bottoms[0])
        kernel, out = self._geometry(tuple(bottoms[0].shape))
        if self.method == "AVE":
            return (ave_pool(bottoms[0], kernel, self.stride, self.pad, out),)
        top, index = max_pool(bottoms[0], kernel, self.stride, self.pad, out)
        if len(self.spec.tops) == 1:
            return (top,)
        # bfloat16 knows not all places beyond 256
        return top, index.to(torch.promote_types(top.dtype, torch.float32))

    def _in_place(self, x: Tensor) -> tuple[Tensor, ...]:
        """What Caffe fills the top with, and with it the bottom, before it looks at that; no
        gradient passes."""
        top = torch.full_like(x, LOWEST if self.method == "MAX" else 0.0)
        return (top, torch.full_like(x, -1.0)) if len(self.spec.tops) > 1 else (top,)


@register("SPP")
class SPP(Layer):
    """Spatial pyramid pooling: level i pools into 2^i × 2^i bins; all bins of all levels in one
    vector per image.

    Source: ``spp_layer.cpp`` of BVLC Caffe.
    """

    option = "spp_param"
    reads = ()

    def setup(self) -> None:
        self.method = schema.enum_name(self.options, "pool")
        if self.method == "STOCHASTIC":
            raise self.error("STOCHASTIC pooling is not supported; MAX and AVE are", "pool")
        if not self.options.HasField("pyramid_height") or self.options.pyramid_height < 1:
            raise self.error("must be at least 1", "pyramid_height")

    def levels(self, bottom: Shape) -> list[tuple[Pair, Pair, Pair]]:
        """Kernel, padding and output size of each level's pooling."""
        if len(bottom) != 4 or min(bottom[2:]) < 1:
            raise self.error("the bottom must be N×C×H×W with H and W above 0", "bottom")
        levels = []
        for level in range(self.options.pyramid_height):
            bins = 2**level
            kernel = (-(-bottom[2] // bins), -(-bottom[3] // bins))
            pad = tuple((k * bins - s + 1) // 2 for k, s in zip(kernel, bottom[2:], strict=True))
            if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
                raise self.error(
                    f"level {level} needs more bins than the input {bottom[2:]} has cells",
                    "pyramid_height",
                )
            out = tuple(
                pooled_size(s, k, k, p, any(pad))
                for s, k, p in zip(bottom[2:], kernel, pad, strict=True)
            )
            levels.append((kernel, (pad[0], pad[1]), (out[0], out[1])))
        return levels

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        bottom = bottoms[0]
        outs = [out for *_, out in self.levels(bottom)]
        if len(outs) == 1:
            return [(*bottom[:2], *outs[0])]
        return [(bottom[0], sum(bottom[1] * h * w for h, w in outs))]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        levels = self.levels(tuple(x.shape))
        parts = [
            max_pool(x, k, k, p, out)[0] if self.method == "MAX" else ave_pool(x, k, k, p, out)
            for k, p, out in levels
        ]
        if len(parts) == 1:
            return (parts[0],)
        return (torch.cat([p.flatten(1) for p in parts], 1),)
