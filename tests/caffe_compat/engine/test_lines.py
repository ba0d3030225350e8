"""Few channels in the frequency domain along the rows: equal to the direct convolution, accuracy,
and where the plan takes it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_compat.engine import plan, threads
from caffe_compat.engine.costs import ConvolutionShape
from caffe_compat.engine.lines import LineTiling
from caffe_compat.engine.rates import Rates


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_direct_convolution(data: st.DataObject) -> None:
    """Any kernel, pad and size with H ≠ W, in bands of any height."""
    pick = data.draw
    kernel = pick(st.tuples(st.integers(1, 11), st.integers(1, 11)))
    pad = pick(st.tuples(st.integers(0, 7), st.integers(0, 7)))
    size = tuple(pick(st.integers(max(1, k - 2 * p), 30)) for k, p in zip(kernel, pad, strict=True))
    batch, inputs, outputs = (pick(st.integers(1, 3)) for _ in range(3))
    torch.manual_seed(pick(st.integers(0, 99)))
    x = torch.randn(batch, inputs, *size, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, *kernel, dtype=torch.float64)
    bias = pick(st.sampled_from([None, torch.randn(outputs, dtype=torch.float64)]))
    relu = pick(st.booleans())
    expected = F.conv2d(x, weight, bias, padding=pad)
    expected = expected.relu() if relu else expected
    scale = max(1.0, float(expected.abs().max()))
    way = LineTiling(pick(st.integers(kernel[1], 40)), kernel, pad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "BAND", pick(st.sampled_from([1, 1_000_000])))
        found = way.prepare(weight).convolve(x, bias, relu=relu)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * scale)


def test_error_against_float64() -> None:
    """The released network's first layer: closer to the truth than torch's convolution."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 92, 120), torch.randn(128, 3, 9, 9)
    exact = F.conv2d(x.double(), weight.double(), padding=4)
    found = LineTiling(31, (9, 9), (4, 4)).prepare(weight).convolve(x, None)
    error = float((found.double() - exact).abs().max() / exact.abs().max())
    assert error < 6e-7


@pytest.mark.parametrize("inputs", [3, 128])
def test_the_plan_takes_it_for_few_channels(inputs: int) -> None:
    c = ConvolutionShape((128, inputs, 9, 9), (368, 368), (1, 1), (4, 4), (1, 1), 1)
    chosen = plan.Engine(rates=Rates()).choose(c)
    assert chosen.kind == ("lines" if inputs == 3 else "tiled")


def test_its_gradients_are_torchs() -> None:
    """A first layer that learns runs direct: what it gives is the same, and so are its gradients."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 20, 24), torch.randn(4, 3, 9, 9)
    made: list[torch.Tensor] = []
    for mode in ("lines", "direct"):
        learning = weight.clone().requires_grad_()
        with plan.using(plan.Engine(mode)):
            plan.convolve(x, learning, None, (1, 1), (4, 4), (1, 1), 1).square().sum().backward()
        assert learning.grad is not None
        made.append(learning.grad)
    assert torch.equal(*made)
