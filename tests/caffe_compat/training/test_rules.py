"""The update rules against their formulas, number by number, over several steps: a rule that keeps
its history wrongly is right in its first step."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from caffe_compat.training.rules import RULES

_OPTIONS = SimpleNamespace(momentum=0.9, momentum2=0.95, rms_decay=0.8, delta=1e-3)
_RATES = (0.1, 0.1, 0.02, 0.02, 0.02, 0.3)  # a rate policy's


def _updates(kind: str, gradients: list[float]) -> list[float]:
    """What is subtracted from one weight in each step, by Caffe's formulas."""
    m, m2, d, delta = _OPTIONS.momentum, _OPTIONS.momentum2, _OPTIONS.rms_decay, _OPTIONS.delta
    first = second = 0.0
    found = []
    for t, (g, rate) in enumerate(zip(gradients, _RATES, strict=True), 1):
        before = first
        if kind == "SGD":
            first = m * first + rate * g
            update = first
        elif kind == "Nesterov":
            first = m * first + rate * g
            update = (1 + m) * first - m * before
        elif kind == "AdaGrad":
            first += g * g
            update = rate * g / (math.sqrt(first) + delta)
        elif kind == "RMSProp":
            first = d * first + (1 - d) * g * g
            update = rate * g / (math.sqrt(first) + delta)
        elif kind == "AdaDelta":
            first = m * first + (1 - m) * g * g
            step = g * math.sqrt((second + delta) / (first + delta))
            second = m * second + (1 - m) * step * step
            update = rate * step
        else:
            first = m * first + (1 - m) * g
            second = m2 * second + (1 - m2) * g * g
            correction = math.sqrt(1 - m2**t) / (1 - m**t)
            update = rate * correction * first / (math.sqrt(second) + delta)
        found.append(update)
    return found


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_follows_its_formula(kind: str) -> None:
    gradients = np.random.default_rng(3).normal(size=(len(_RATES), 2, 3))
    rule, count = RULES[kind]
    histories = [[torch.zeros(2, 3, dtype=torch.float64)] for _ in range(count)]
    ours = []
    for iteration, (rate, gradient) in enumerate(zip(_RATES, gradients, strict=True)):
        (update,) = rule(
            _OPTIONS, [rate], [torch.from_numpy(gradient.copy())], histories, iteration
        )
        ours.append(update.numpy().copy())
    for place in np.ndindex(2, 3):
        expected = _updates(kind, [float(one[place]) for one in gradients])
        np.testing.assert_allclose([one[place] for one in ours], expected, rtol=1e-12)
