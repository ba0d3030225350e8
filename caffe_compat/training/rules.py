"""Caffe's update rules and learning-rate policies, on lists of tensors at once.

A rule turns gradients into the values that are subtracted from the weights; Caffe's rate is inside
the momentum history, so a change of the rate does not rescale the history (unlike
``torch.optim.SGD``).

Source: ``sgd_solver.cpp`` and its siblings in BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from caffe_compat.definition.spec import SolverSpec
from caffe_compat.errors import SolverError

Tensors = list[Tensor]
# (options, rates, gradients, histories, iteration) -> updates; gradients may be overwritten
Rule = Callable[[Any, Sequence[float], Tensors, list[Tensors], int], Tensors]


def _scaled(tensors: Tensors, rates: Sequence[float]) -> Tensors:
    return list(torch._foreach_mul(tensors, list(rates)))


def _momentum(history: Tensors, step: Tensors, momentum: float) -> None:
    torch._foreach_mul_(history, momentum)
    torch._foreach_add_(history, step)


def sgd(
    options: Any, rates: Sequence[float], grads: Tensors, histories: list[Tensors], iteration: int
) -> Tensors:
    """``h = momentum h + rate g``; update h."""
    _momentum(histories[0], _scaled(grads, rates), options.momentum)
    return histories[0]


def nesterov(
    options: Any, rates: Sequence[float], grads: Tensors, histories: list[Tensors], iteration: int
) -> Tensors:
    """``h' = momentum h + rate g``; update ``(1 + momentum) h' - momentum h``."""
    old = torch._foreach_mul(histories[0], options.momentum)
    _momentum(histories[0], _scaled(grads, rates), options.momentum)
    return list(torch._foreach_sub(torch._foreach_mul(histories[0], 1 + options.momentum), old))


def _square_into(history: Tensors, grads: Tensors, decay: float, weight: float) -> None:
    torch._foreach_mul_(history, decay)
    torch._foreach_addcmul_(history, grads, grads, weight)


def _over_root(grads: Tensors, history: Tensors, delta: float) -> Tensors:
    root = torch._foreach_sqrt(history)
    torch._foreach_add_(root, delta)
    return list(torch._foreach_div(grads, root))


def adagrad(
    options: Any, rates: Sequence[float], grads: Tensors, histories: list[Tensors], iteration: int
) -> Tensors:
    """``h += g²``; update ``rate g / (sqrt h + delta)``."""
    torch._foreach_addcmul_(histories[0], grads, grads, 1.0)
    return _scaled(_over_root(grads, histories[0], options.delta), rates)


def rmsprop(
    options: Any, rates: Sequence[float], grads: Tensors, histories: list[Tensors], iteration: int
) -> Tensors:
    """``h = decay h + (1 - decay) g²``; update ``rate g / (sqrt h + delta)``."""
    _square_into(histories[0], grads, options.rms_decay, 1 - options.rms_decay)
    return _scaled(_over_root(grads, histories[0], options.delta), rates)


def adadelta(
    options: Any, rates: Sequence[float], grads: Tensors, histories: list[Tensors], iteration: int
) -> Tensors:
    """Squared gradients and squared updates, both averaged; update ``rate g sqrt((u + delta) / (h +
    delta))``."""
    squares, updates = histories
    _square_into(squares, grads, options.momentum, 1 - options.momentum)
    ratio = torch._foreach_div(
        torch._foreach_add(updates, options.delta), torch._foreach_add(squares, options.delta)
    )
    step = list(torch._foreach_mul(torch._foreach_sqrt(ratio), grads))
    _square_into(updates, step, options.momentum, 1 - options.momentum)
    return _scaled(step, rates)


def adam(
    options: Any, rates: Sequence[float], grads: Tensors, histories: list[Tensors], iteration: int
) -> Tensors:
    """First and second moments with bias correction; update ``rate c m / (sqrt v + delta)``.

    Raises
    ------
    SolverError : ``momentum`` or ``momentum2`` outside the range that the formula allows.
    """
    first, second = histories
    torch._foreach_mul_(first, options.momentum)
    torch._foreach_add_(first, grads, alpha=1 - options.momentum)
    _square_into(second, grads, options.momentum2, 1 - options.momentum2)
    t = iteration + 1
    if options.momentum >= 1 or not 0 <= options.momentum2 <= 1:
        raise SolverError(
            "type Adam needs momentum below 1 and momentum2 from 0 to 1, found "
            f"{options.momentum:g} and {options.momentum2:g}"
        )
    correction = math.sqrt(1 - options.momentum2**t) / (1 - options.momentum**t)
    return _scaled(_over_root(first, second, options.delta), [rate * correction for rate in rates])


# type string -> (rule, histories per parameter)
RULES: dict[str, tuple[Rule, int]] = {
    "SGD": (sgd, 1),
    "Nesterov": (nesterov, 1),
    "AdaGrad": (adagrad, 1),
    "RMSProp": (rmsprop, 1),
    "AdaDelta": (adadelta, 2),
    "Adam": (adam, 2),
}
POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")


def check(solver: SolverSpec) -> None:
    """Refuse what Caffe's solvers refuse.

    Raises
    ------
    PrototxtError : unknown type or policy, a missing or forbidden setting.
    """
    settings = solver.message
    if settings.type not in RULES:
        raise solver.error(f"unknown solver '{settings.type}'; known: {', '.join(RULES)}", "type")
    if settings.lr_policy not in POLICIES:
        raise solver.error(
            f"unknown policy '{settings.lr_policy}'; known: {', '.join(POLICIES)}", "lr_policy"
        )
    if settings.eval_type != "classification":
        raise solver.error(
            f"test nets are not evaluated as '{settings.eval_type}' here: leave eval_type out, and "
            "with it the test nets that need it",
            "eval_type",
        )
    if settings.type in ("AdaGrad", "RMSProp") and settings.momentum:
        raise solver.error(f"{settings.type} has no momentum: leave it out or 0", "momentum")
    if settings.type == "RMSProp" and not 0 <= settings.rms_decay < 1:
        raise solver.error(
            f"must be at least 0 and below 1, found {settings.rms_decay:g}", "rms_decay"
        )
    needs = {"step": "stepsize", "sigmoid": "stepsize", "poly": "max_iter"}
    name = needs.get(settings.lr_policy)
    if name and not getattr(settings, name):
        raise solver.error(f"lr_policy {settings.lr_policy} needs {name} above 0", name)
    if settings.regularization_type not in ("L1", "L2") and settings.weight_decay:
        raise solver.error(
            f"unknown regularization_type '{settings.regularization_type}'; known: L1, L2",
            "regularization_type",
        )
    if settings.iter_size < 1:
        raise solver.error("must be at least 1", "iter_size")
    if settings.average_loss < 1:
        raise solver.error("must be at least 1", "average_loss")


# setting -> the types, or the policies, that look at it
_OF_TYPES = {
    "rms_decay": ("RMSProp",),
    "momentum2": ("Adam",),
    "delta": ("AdaGrad", "RMSProp", "AdaDelta", "Adam"),
}
_OF_POLICIES = {
    "stepvalue": ("multistep",),
    "stepsize": ("step", "sigmoid"),
    "power": ("inv", "poly"),
    "gamma": ("step", "exp", "inv", "multistep", "sigmoid"),
}


def unused(solver: SolverSpec) -> list[str]:
    """Settings that Caffe does not look at with the definition's type and policy, one line each."""
    settings = solver.message
    given = {descriptor.name for descriptor, _ in settings.ListFields()}
    lines = []
    for field, table in (("type", _OF_TYPES), ("lr_policy", _OF_POLICIES)):
        value = getattr(settings, field)
        lines += [
            f"{name} has no effect with {field} {value}: it is for {', '.join(users)}"
            for name, users in table.items()
            if name in given and value not in users
        ]
    if settings.lr_policy == "multistep" and not settings.stepvalue:
        lines.append(
            "lr_policy multistep has no effect without a stepvalue: the rate stays base_lr"
        )
    return lines


def learning_rate(settings: Any, iteration: int, step: int) -> float:
    """The rate of an iteration (counted from 0).

    Parameters
    ----------
    settings : ``SolverParameter``.
    step : what :func:`next_step` gives for this iteration.

    Raises
    ------
    SolverError : unknown policy, or a rate that is no number.
    """
    try:
        rate = float(_rate(settings, iteration, step))
    except (ArithmeticError, TypeError, ValueError):  # a negative base to a fraction is complex
        rate = math.nan
    if not math.isfinite(rate):
        raise SolverError(
            f"iteration {iteration}: lr_policy '{settings.lr_policy}' with base_lr "
            f"{settings.base_lr:g}, gamma {settings.gamma:g} and power {settings.power:g} gives no "
            "finite rate"
        )
    return rate


def _rate(settings: Any, iteration: int, step: int) -> Any:
    policy, base = settings.lr_policy, settings.base_lr
    if policy == "fixed":
        return float(base)
    if policy in ("step", "multistep"):
        return float(base * settings.gamma**step)
    if policy == "exp":
        return float(base * settings.gamma**iteration)
    if policy == "inv":
        return float(base * (1 + settings.gamma * iteration) ** -settings.power)
    if policy == "poly":
        return float(base * (1 - iteration / settings.max_iter) ** settings.power)
    if policy == "sigmoid":
        distance = torch.tensor(
            settings.gamma * (iteration - settings.stepsize), dtype=torch.float64
        )
        return float(base * torch.sigmoid(distance))  # 0 far below the step, where exp overflows
    raise SolverError(f"unknown lr_policy '{policy}'")


def next_step(settings: Any, iteration: int, step: int) -> int:
    """How many steps of "step" or "multistep" have been taken, once this iteration has its rate.

    Parameters
    ----------
    settings : ``SolverParameter``.
    step : how many there were before; a solver's state keeps them. "multistep" goes on from it, by
        at most one step in an iteration.
    """
    if settings.lr_policy == "step":
        return int(iteration // settings.stepsize)
    if settings.lr_policy == "multistep":
        values = settings.stepvalue
        return step + int(step < len(values) and iteration >= values[step])
    return step
