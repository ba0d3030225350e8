"""Gradients by Caffe's own formula, where that is not the derivative everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_import("torch")


@cache
def with_slopes() -> Callable[..., Tensor]:
    """``(y, slopes, *x)`` to y, whose gradient goes to each x times its slope.

    y and the slopes must be detached. ``torch.func`` may look through it. Made at first use,
    because the layers' modules must not import torch.
    """

    class WithSlopes(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(y: Tensor, slopes: tuple[Tensor, ...], *x: Tensor) -> Tensor:
            return y

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            slopes = inputs[1]
            ctx.save_for_backward(*slopes)
            ctx.save_for_forward(*slopes)

        @staticmethod
        def backward(ctx: Any, diff: Tensor) -> tuple[Tensor | None, ...]:
            return (None, None, *(diff * slope for slope in ctx.saved_tensors))

        @staticmethod
        def jvp(ctx: Any, *moves: Any) -> Tensor:
            parts = zip(moves[2:], ctx.saved_tensors, strict=True)
            found: Tensor = sum(move * slope for move, slope in parts if move is not None)
            return found

    apply: Callable[..., Tensor] = WithSlopes.apply
    return apply


@cache
def rectified() -> Callable[[Tensor], Tensor]:
    """``max(x, 0)``, whose gradient is multiplied by 0 where x is not above 0: a gradient that is
    nan or infinite becomes nan there, as in Caffe, and does not get lost."""

    class Rectified(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            y = torch.relu(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, diff: Tensor) -> Tensor:
            (y,) = ctx.saved_tensors
            found: Tensor = torch.ops.aten.leaky_relu_backward(diff, y, 0.0, True)
            return found

    apply: Callable[[Tensor], Tensor] = Rectified.apply
    return apply
