"""How convolutions are run. The one place that decides.

A convolution runs in one of four ways: *direct* is torch's own (oneDNN, cuDNN); *tiled* takes
large kernels to the frequency domain (:mod:`caffe_compat.engine.tiled`); *lines* does so along the
rows only, which suits large kernels on few channels (:mod:`caffe_compat.engine.lines`); *minimal*
takes small kernels through minimal filtering (:mod:`caffe_compat.engine.minimal`). The last three
are several times faster on a CPU where they fit. The choice hangs on shape, kernel and memory by a
cost model (:mod:`caffe_compat.engine.costs`) whose rates were measured
(:mod:`caffe_compat.engine.rates`), never on the batch size: an image's result is the same alone and
in a batch.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from caffe_compat.engine.costs import ConvolutionShape, Way, direct_seconds, seconds_of
from caffe_compat.engine.fingerprint import Fingerprint, fingerprint, fingerprints
from caffe_compat.engine.lines import LineKernel, LineTiling
from caffe_compat.engine.minimal import Filtering, MinimalKernel
from caffe_compat.engine.minimal import fits as fits_minimal
from caffe_compat.engine.rates import Rates, rates_in_use
from caffe_compat.engine.threads import bands, for_each, on_one_core, sharing, whole_operations
from caffe_compat.engine.tiled import Kernel, Tiling, kernel_gradient
from caffe_compat.errors import CaffeCompatError

Mode = Literal["auto", "direct", "tiled", "lines", "minimal"]
MODES: tuple[Mode, ...] = ("auto", "direct", "tiled", "lines", "minimal")
Kind = Literal["direct", "tiled", "lines", "minimal"]
_KINDS: dict[type, Kind] = {Tiling: "tiled", LineTiling: "lines", Filtering: "minimal"}
WayKernel = Kernel | LineKernel | MinimalKernel
# transformed kernels that a network keeps: the 6-stage network's take 0.7 GB
MEMORY = 1_000_000_000
_RUN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# A slightly slower tile is taken if its kernel is much smaller. A byte counts like this number of a
# direct convolution's operations, which is a millisecond for 25 MB by the built-in rates.
_PRICE = Rates.direct * 1e-3 / 25e6
_GAIN = 0.85  # another way than the direct one only where it takes less than this share of its time
_SIDES = range(12, 41)
_SMALL = 4e-4  # seconds of a direct convolution that is left to one core


@dataclass(frozen=True)
class Choice:
    """How a convolution runs.

    Attributes
    ----------
    kind : "direct", "tiled", "lines" or "minimal".
    why : the reason, in words for ``cpm-models plan``.
    direct : estimated time of one image run directly, in seconds.
    seconds : estimated time of one image run as chosen.
    tiling : how the output is cut; None for the direct way.
    memory : bytes of the transformed kernel.
    """

    kind: Kind
    why: str
    direct: float = 0.0
    seconds: float = 0.0
    tiling: Way | None = None
    memory: int = 0


# torch's own convolution as it is: another device or type, or asked for.
_PLAIN = Choice("direct", "")


@lru_cache(maxsize=4096)
def _best_way(
    conv: ConvolutionShape, memory: int, mode: Mode, rates: Rates
) -> tuple[float, Way] | None:
    """The way with the lowest cost whose kernel fits into the memory, and its time."""
    outputs, inputs = conv.weight[:2]
    ways: list[Way] = []
    if mode in ("auto", "minimal") and fits_minimal(conv.weight[2:]):
        ways.append(conv.filtering(rates))
    sides = [s for s in _SIDES if s > max(conv.weight[2:]) + 2] or [max(conv.weight[2:]) * 2]
    if mode in ("auto", "tiled"):
        ways += map(conv.tiling, sides)
    if mode in ("auto", "lines"):
        ways += map(conv.lines, sides)
    fitting = [way for way in ways if way.kernel_bytes(outputs, inputs) <= memory]
    times = {way: seconds_of(conv, way, rates) for way in fitting}
    price = _PRICE / rates.direct
    best = min(
        fitting, key=lambda w: times[w] + w.kernel_bytes(outputs, inputs) * price, default=None
    )
    return None if best is None else (times[best], best)


class Engine:
    """Decides and remembers for one network.

    Parameters
    ----------
    mode : "auto"; "direct": torch's convolution always; "tiled", "lines", "minimal": this way
        wherever it is possible, faster or not.
    memory : bytes that the transformed kernels may take together.
    rates : of the cost model; None: this machine's, see :mod:`caffe_compat.engine.rates`.

    Raises
    ------
    CaffeCompatError : another mode.
    """

    def __init__(
        self, mode: Mode = "auto", memory: int = MEMORY, rates: Rates | None = None
    ) -> None:
        if mode not in MODES:
            raise CaffeCompatError(f"engine '{mode}': expected {', '.join(MODES)}")
        self.mode, self.memory, self.rates = mode, memory, rates
        self.used = 0
        self._kernels: dict[int, tuple[Any, Fingerprint, WayKernel]] = {}
        self._choices: dict[tuple[int, ConvolutionShape], Choice] = {}

    def __getstate__(self) -> dict[str, Any]:
        # a copy makes transforms of its own weights
        return {"mode": self.mode, "memory": self.memory, "rates": self.rates}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def choose(self, conv: ConvolutionShape, *, left: int | None = None) -> Choice:
        """How a convolution on the CPU runs, by the cost model.

        Parameters
        ----------
        left : bytes that its transformed kernel may take; default: all.
        """
        if self.mode == "direct":
            return Choice("direct", "asked for")
        if unfit := conv.unfit():
            return Choice("direct", unfit)
        rates = self._rates()
        direct = direct_seconds(conv, rates)
        found = _best_way(conv, self.memory if left is None else left, self.mode, rates)
        if found is None:
            fits = fits_minimal(conv.weight[2:]) or self.mode != "minimal"
            why = "no memory left for the transformed kernel" if fits else "kernel too large"
            return Choice("direct", why, direct, direct)
        seconds, way = found
        kind = _KINDS[type(way)]
        memory = way.kernel_bytes(conv.weight[0], conv.weight[1])
        if self.mode == kind:
            return Choice(kind, "asked for", direct, seconds, way, memory)
        if seconds < _GAIN * direct:
            why = f"{direct / seconds:.1f} x faster"
            return Choice(kind, why, direct, seconds, way, memory)
        why = f"{kind} would take {seconds / direct:.1f} x as long"
        return Choice("direct", why, direct, direct)

    def _rates(self) -> Rates:
        return self.rates or rates_in_use()[0]

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        conv: ConvolutionShape,
        *,
        relu: bool = False,
    ) -> Tensor:
        """Run a convolution; ``relu``: cut off what is below 0."""
        choice = self._choice(x, weight, conv)
        learns = any(t is not None and t.requires_grad for t in (x, weight, bias))
        learns = learns and torch.is_grad_enabled()
        if choice.tiling is None or (learns and isinstance(choice.tiling, LineTiling)):
            if choice is not _PLAIN and not learns and len(conv.size) == 2 and sharing():
                return _direct(x, weight, bias, conv, relu)
            made = _RUN[len(conv.size)](
                x, weight, bias, conv.stride, conv.pad, conv.dilation, conv.group
            )
        elif learns:
            made = cast(Tensor, _Cut.apply(x, weight, bias, choice.tiling))  # type: ignore[no-untyped-call]
        else:
            return self._kernel(weight, choice.tiling).convolve(x, bias, relu=relu)
        return F.relu_(made) if relu else made

    def _choice(self, x: Tensor, weight: Tensor, conv: ConvolutionShape) -> Choice:
        if (
            self.mode == "direct"
            or x.device.type != "cpu"
            or x.dtype not in (torch.float32, torch.float64)
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
            or not x.numel()
        ):
            return _PLAIN
        key = id(weight), conv
        found = self._choices.get(key)
        if found is None:
            mine = self._kernels.get(id(weight))
            # one transform per kernel: a map of another size uses the same tiles
            tiling = mine[2].tiling if mine is not None and mine[0]() is weight else None
            if conv.unfit():  # another layer of this weight may have a stride, for example
                tiling = None
            if isinstance(tiling, Tiling) and tiling == conv.tiling(tiling.n):
                found = Choice("tiled", "as for another size", tiling=tiling)
            elif isinstance(tiling, LineTiling) and tiling == conv.lines(tiling.n):
                found = Choice("lines", "as for another size", tiling=tiling)
            elif isinstance(tiling, Filtering) and tiling == conv.filtering(self._rates()):
                found = Choice("minimal", "as for another size", tiling=tiling)
            else:
                found = self.choose(conv, left=self.memory - self.used)
            if len(self._choices) > 4096:
                self._choices.clear()
            self._choices[key] = found
        return found

    def _kernel(self, weight: Tensor, tiling: Way) -> WayKernel:
        """A kernel's transform, made when it is first needed."""
        found = self._kernels.get(id(weight))
        if found is not None:
            owner, _, kernel = found
            if owner() is weight and kernel.tiling == tiling:
                return kernel
            self._forget(id(weight))
        kernel = tiling.prepare(weight)
        self.used += kernel.bytes
        self._kernels[id(weight)] = weakref.ref(weight), fingerprint(weight), kernel
        return kernel

    def _forget(self, place: int) -> None:
        if (made := self._kernels.pop(place, None)) is not None:
            self.used -= made[2].bytes

    def refresh(self) -> None:
        """Forget the transforms of weights that changed since they were made, however that was."""
        kernels = list(self._kernels.items())  # another thread may add some meanwhile
        kept = [(place, owner(), made) for place, (owner, made, _) in kernels]
        alive = [(place, weight, made) for place, weight, made in kept if weight is not None]
        now = fingerprints([weight for _, weight, _ in alive])
        for place, weight, _ in kept:
            if weight is None:
                self._forget(place)
        for (place, _, made), found in zip(alive, now, strict=True):
            if found != made:
                self._forget(place)


class _Cut(torch.autograd.Function):
    """A tiled convolution or minimal filtering, with its gradients.

    That of the input is made in the same way as the convolution; that of the kernel is tiled, too,
    or torch's own where the way is minimal filtering.
    """

    @staticmethod
    @whole_operations()
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, way: Tiling | Filtering
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.way, ctx.bias = way, bias is not None
        return way.prepare(weight).convolve(x, bias)

    @staticmethod
    @once_differentiable
    @whole_operations()
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        way: Tiling | Filtering = ctx.way
        (kh, kw), (ph, pw) = way.kernel, way.pad
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            if ph < kh and pw < kw:
                turned = replace(way, pad=(kh - 1 - ph, kw - 1 - pw))
                kernel = turned.prepare(weight.detach().flip(2, 3).transpose(0, 1))
                dx = kernel.convolve(gradient, None)
            else:
                dx = conv2d_input(list(x.shape), weight, gradient, padding=way.pad)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            if isinstance(way, Tiling):
                dw = kernel_gradient(x, gradient, way)
            else:
                dw = conv2d_weight(x, list(weight.shape), gradient, padding=way.pad)  # type: ignore[no-untyped-call]
        if ctx.bias and ctx.needs_input_grad[2]:
            db = gradient.sum((0, 2, 3))
        return dx, dw, db, None


def transforming() -> bool:
    """Does a transform of ``torch.func``, or a derivative taken forwards, go on?

    Its tensors have no memory that a kernel could be compared in, and the tiled ways have no
    derivative of that kind. torch has no public word for it.
    """
    forwards = getattr(forward_ad, "_current_level", -1) >= 0
    return forwards or torch._C._functorch.peek_interpreter_stack() is not None


_active: ContextVar[Engine] = ContextVar("engine", default=Engine("direct"))  # noqa: B039 - has no state in this mode


@contextlib.contextmanager
def using(engine: Engine) -> Iterator[None]:
    """Convolutions inside run by this engine, on the weights as they are now."""
    engine.refresh()
    token = _active.set(engine)
    try:
        yield
    finally:
        _active.reset(token)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    group: int,
    *,
    relu: bool = False,
) -> Tensor:
    """Convolution of N×C×spatial, 0 to 3 spatial axes, by the engine in use.

    Parameters
    ----------
    x, weight, bias : as torch's; weight (O, C/group, kernel).
    relu : cut off what is below 0.
    """
    if not stride:  # no spatial axes: one place
        made = F.conv1d(x.unsqueeze(-1), weight.unsqueeze(-1), bias, groups=group).squeeze(-1)
        return F.relu_(made) if relu else made
    conv = ConvolutionShape(tuple(weight.shape), tuple(x.shape[2:]), stride, pad, dilation, group)
    return _active.get().convolve(x, weight, bias, conv, relu=relu)


def _direct(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv: ConvolutionShape, relu: bool
) -> Tensor:
    """torch's convolution without gradients, a band of rows on each core."""
    spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.weight[2:], strict=True)]
    high, wide = (
        (s + 2 * p - span) // stride + 1
        for s, p, span, stride in zip(conv.size, conv.pad, spans, conv.stride, strict=True)
    )
    shape = (len(x), len(weight), high, wide)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)

    def work(piece: tuple[slice, int, int]) -> None:
        images, start, stop = piece
        made = _rows(x[images], weight, bias, conv, start, stop)
        target = out[images, :, start:stop]
        if relu:
            torch.clamp_min(made, 0, out=target)
        else:
            target.copy_(made)

    if direct_seconds(conv, Rates()) < _SMALL:
        on_one_core(lambda: work((slice(None), 0, high)))
    else:
        parts = bands(high, len(weight) * wide)
        for_each([(slice(i, i + 1), *band) for i in range(len(x)) for band in parts], work)
    return out


def _rows(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv: ConvolutionShape, start: int, stop: int
) -> Tensor:
    """The rows of torch's convolution from one to before another."""
    stride, pad = conv.stride[0], conv.pad[0]
    top = start * stride - pad
    bottom = (stop - 1) * stride - pad + conv.dilation[0] * (conv.weight[2] - 1) + 1
    # both within the image: a band may lie in the padding altogether
    first, last = (min(max(0, row), conv.size[0]) for row in (top, bottom))
    band = x[:, :, first:last]
    above = min(bottom - top, max(0, -top))
    missing = (above, bottom - top - (last - first) - above)
    if any(missing):
        band = F.pad(band, (0, 0, *missing))
    return F.conv2d(band, weight, bias, conv.stride, (0, conv.pad[1]), conv.dilation, conv.group)


def convolve_pooled(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pad: tuple[int, int],
    kernel: int,
    stride: int,
    size: tuple[int, int],
) -> Tensor:
    """Convolution (stride 1), ReLU and MAX pooling without the large map between them.

    The map is made and pooled band by band; ReLU follows the pooling, which gives the same numbers
    on a quarter of the pixels. No gradient is recorded.

    Parameters
    ----------
    kernel, stride, size : of the pooling, ``kernel >= stride``, no pad; its output's height and
        width.
    """
    x, weight, bias = _in_autocast_type(x, weight, bias)
    outputs, _, kh, kw = weight.shape
    wide = x.shape[3] + 2 * pad[1] - kw + 1
    high = x.shape[2] + 2 * pad[0] - kh + 1
    conv = ConvolutionShape(tuple(weight.shape), tuple(x.shape[2:]), (1, 1), pad, (1, 1), 1)
    parts = bands(size[0], outputs * wide * stride)
    engine = _active.get()
    if x.device.type != "cpu":  # bands are for the caches of cores
        return F.relu_(_pooled(engine.convolve(x, weight, bias, conv), kernel, stride))
    tiling = engine._choice(x, weight, conv).tiling
    ready = None if tiling is None else engine._kernel(weight, tiling)
    if isinstance(ready, MinimalKernel) and ready.pools(kernel, stride):
        return ready.convolve(x, bias, relu=True, pool=kernel)
    shape = (len(x), outputs, *size)
    top = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)

    def rows(start: int, stop: int) -> tuple[int, int]:
        return start * stride, min(high, (stop - 1) * stride + kernel)

    if isinstance(ready, LineKernel):

        def keep(i: int, first: int, found: Tensor) -> None:
            made = _pooled(found[None].permute(0, 3, 1, 2), kernel, stride)
            start = first // stride
            top[i : i + 1, :, start : start + made.shape[2]] = F.relu_(made)

        ready.each_band(x, bias, [rows(*b) for b in ready.bands(size[0], wide, stride)], keep)
        return top
    made = None
    if tiling is not None or len(parts) == 1:
        made = engine.convolve(x, weight, bias, conv)
        if not sharing():
            return F.relu_(_pooled(made, kernel, stride))

    def work(piece: tuple[int, int, int]) -> None:
        i, start, stop = piece
        image = slice(i, i + 1)
        if made is None:
            band = _rows(x[image], weight, bias, conv, *rows(start, stop))
        else:
            band = made[image, :, slice(*rows(start, stop))]
        top[image, :, start:stop] = F.relu_(_pooled(band, kernel, stride))

    for_each([(i, *band) for i in range(len(x)) for band in parts], work)
    return top


def _in_autocast_type(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What autocast would make of a convolution's tensors.

    Autocast is a thread's own: those that take the bands would not have it.
    """
    if not torch.is_autocast_enabled("cpu") or x.dtype == torch.float64:
        return x, weight, bias
    kind = torch.get_autocast_dtype("cpu")
    return x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)


def _pooled(x: Tensor, kernel: int, stride: int) -> Tensor:
    return F.max_pool2d(x, kernel, stride, ceil_mode=True)
