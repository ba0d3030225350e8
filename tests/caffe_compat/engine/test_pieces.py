"""Layers that are worked on in pieces on several threads give what they give on one."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from caffe_compat import Net
from caffe_compat.engine import plan, threads
from caffe_compat.engine.costs import ConvolutionShape
from reproduce.network import netgen
from tests.nets import ENGINE_MACHINE

_several = pytest.mark.parametrize("cores", [2, 3], indirect=True)


@_several
def test_each_piece_is_done_once_by_threads_of_one_core(cores: int) -> None:
    seen: list[tuple[int, int, str]] = []

    def work(piece: int) -> None:
        torch.ones(100_000).add_(1)
        seen.append((piece, torch.get_num_threads(), threading.current_thread().name))

    threads.for_each(range(40), work)
    assert sorted(piece for piece, _, _ in seen) == list(range(40))
    assert {count for _, count, _ in seen} == {1}
    assert threading.current_thread().name not in {name for _, _, name in seen}
    assert torch.get_num_threads() == cores


@_several
def test_threads_that_are_begun_later_have_all_cores(cores: int) -> None:
    threads.for_each(range(2), lambda _: None)
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == cores


@_several
def test_a_slow_thread_takes_fewer_pieces(cores: int) -> None:
    """The pieces are not shared out beforehand."""
    done: dict[int, int] = {}
    slow: list[int] = []

    def work(piece: int) -> None:
        me = threading.get_ident()
        if not slow:
            slow.append(me)
        time.sleep(0.05 if slow[0] == me else 0.001)
        done[me] = done.get(me, 0) + 1

    threads.for_each(range(30), work)
    assert sum(done.values()) == 30
    assert done[slow[0]] < 30 / cores


@_several
def test_an_error_ends_the_work_and_is_raised(cores: int) -> None:
    begun: list[int] = []

    def work(piece: int) -> None:
        begun.append(piece)
        if piece == 3:
            raise ValueError("piece 3")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="piece 3"):
        threads.for_each(range(1000), work)
    assert len(begun) < 1000
    threads.for_each(range(5), begun.append)
    with pytest.raises(ZeroDivisionError):
        threads.on_one_core(lambda: 1 // 0)


@_several
def test_callers_with_different_numbers_of_cores(cores: int) -> None:
    """The pool grows while another thread works in it."""

    def call(count: int) -> int:
        torch.set_num_threads(count)
        done: list[int] = []
        for _ in range(50):
            threads.for_each(range(count), done.append)
        return len(done)

    threads._pool.forget()
    counts = (2, 3, 4, 2)
    with ThreadPoolExecutor(len(counts)) as callers:
        assert list(callers.map(call, counts)) == [50 * count for count in counts]


@_several
def test_inference_mode_and_gradients_are_the_callers(cores: int) -> None:
    with torch.inference_mode():
        out = torch.zeros(8)
        threads.for_each(range(8), lambda i: out[i].fill_(i))
    assert out.tolist() == list(range(8))
    weight, made = torch.ones(3, requires_grad=True), []
    threads.for_each(range(2), lambda _: made.append(weight * 2))
    assert not any(tensor.requires_grad for tensor in made)


@_several
def test_nothing_is_in_pieces_where_operations_are_whole(cores: int) -> None:
    here = threading.current_thread().name
    with threads.whole_operations():
        assert not threads.sharing()
        names: list[str] = []
        threads.for_each(range(4), lambda _: names.append(threading.current_thread().name))
    assert set(names) == {here}
    assert threads.sharing()


@pytest.mark.long
@_several
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("way", ["export", "trace", "count"])
@pytest.mark.parametrize("mode", ["auto", "direct"])
def test_who_follows_the_operations_sees_all_of_them(mode: plan.Mode, way: str, cores: int) -> None:
    """Without gradients, where layers would be worked on in pieces."""
    net, x = Net(netgen.deploy(ENGINE_MACHINE), seed=3, engine=mode), torch.randn(1, 4, 64, 64)
    other = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        expected = net(other)["Mconv5_stage2"]
        if way == "export":
            found = torch.export.export(net, (x,)).module()(other)["Mconv5_stage2"]
        elif way == "trace":
            found = torch.jit.trace(net, x, strict=False, check_trace=False)(other)["Mconv5_stage2"]
        else:
            with FlopCounterMode(display=False) as several:
                found = net(other)["Mconv5_stage2"]
            torch.set_num_threads(1)
            with FlopCounterMode(display=False) as one:
                net(other)
            assert several.get_total_flops() == one.get_total_flops() > 0
    _assert_near(found, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@_several
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_after_a_fork(cores: int) -> None:
    """The child has none of the parent's threads and makes its own."""
    threads.for_each(range(4), lambda _: None)
    child = os.fork()
    if not child:  # pragma: no cover - another process
        seen: list[int] = []
        threads.for_each(range(4), seen.append)
        os._exit(0 if sorted(seen) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_SHAPES = [
    ConvolutionShape((64, 16, 3, 3), (40, 37), (1, 1), (1, 1), (1, 1), 1),
    ConvolutionShape((64, 16, 3, 3), (60, 57), (2, 3), (0, 2), (1, 1), 1),
    ConvolutionShape((64, 16, 5, 3), (40, 37), (1, 2), (4, 1), (2, 3), 1),
    ConvolutionShape((64, 8, 3, 3), (41, 30), (1, 1), (1, 1), (1, 1), 2),
    ConvolutionShape((64, 16, 1, 1), (50, 33), (1, 1), (0, 0), (1, 1), 1),
    ConvolutionShape((32, 16, 9, 9), (33, 46), (1, 1), (4, 4), (1, 1), 1),
    ConvolutionShape((32, 16, 9, 9), (3, 5), (1, 1), (8, 8), (1, 1), 1),
    ConvolutionShape((32, 16, 7, 3), (1, 30), (1, 1), (3, 0), (1, 1), 1),
    # whole bands lie in the padding, as in FCN's first layer
    ConvolutionShape((32, 3, 3, 3), (30, 27), (1, 1), (100, 100), (1, 1), 1),
    ConvolutionShape((32, 3, 5, 3), (20, 27), (2, 2), (60, 9), (3, 1), 1),
    ConvolutionShape((16, 8, 3, 3), (5, 7), (1, 1), (6, 5), (1, 1), 1),
]


@pytest.mark.long
@_several
@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("small", [0.0, 1.0])
@pytest.mark.parametrize("c", _SHAPES)
def test_convolutions(
    c: ConvolutionShape,
    small: float,
    relu: bool,
    mode: plan.Mode,
    cores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``small``: seconds up to which a direct convolution is left to one core."""
    monkeypatch.setattr(plan, "_SMALL", small)
    weight, bias = torch.randn(c.weight), torch.randn(c.weight[0])
    x = torch.randn(2, c.weight[1] * c.group, *c.size)
    expected = F.conv2d(x, weight, bias, c.stride, c.pad, c.dilation, c.group)
    expected = F.relu(expected) if relu else expected
    with torch.no_grad(), plan.using(plan.Engine(mode)):
        found = plan.convolve(x, weight, bias, c.stride, c.pad, c.dilation, c.group, relu=relu)
    _assert_near(found, expected)


@pytest.mark.long
@_several
@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("inputs", [3, 32])
@pytest.mark.parametrize("pad", [2, 50])
def test_pooled_convolutions(
    pad: int, inputs: int, kernel: int, mode: plan.Mode, cores: int
) -> None:
    weight, bias = torch.randn(64, inputs, 5, 5), torch.randn(64)
    x = torch.randn(2, inputs, 61, 50) if pad < 10 else torch.randn(1, inputs, 21, 20)
    made = F.conv2d(x, weight, bias, padding=pad)
    expected = F.relu(F.max_pool2d(made, kernel, 2, ceil_mode=True))
    size = (expected.shape[2], expected.shape[3])
    with torch.no_grad(), plan.using(plan.Engine(mode)):
        found = plan.convolve_pooled(x, weight, bias, (pad, pad), kernel, 2, size)
    _assert_near(found, expected)


@_several
def test_pooled_convolutions_elsewhere(cores: int) -> None:
    """What is computed on another device stays there."""
    x, weight, bias = (
        torch.empty(shape, device="meta") for shape in ((1, 3, 90, 96), (64, 3, 5, 5), (64,))
    )
    with torch.no_grad(), plan.using(plan.Engine("auto")):
        found = plan.convolve_pooled(x, weight, bias, (2, 2), 2, 2, (45, 48))
    assert found.device.type == "meta"
    assert found.shape == (1, 64, 45, 48)


@_several
def test_pooled_pieces_in_bfloat16(cores: int) -> None:
    """Autocast is a thread's own: those that take the pieces must not meet two number formats."""
    x, weight, bias = torch.randn(1, 8, 96, 96), torch.randn(64, 8, 3, 3), torch.randn(64)
    size = (48, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = F.relu(F.max_pool2d(F.conv2d(x, weight, bias, padding=1), 2))
        assert len(threads.bands(48, 64 * 96 * 2)) > 1
        for given in (x, x.to(torch.bfloat16)):
            found = plan.convolve_pooled(given, weight, bias, (1, 1), 2, 2, size)
            assert found.dtype == torch.bfloat16
            # two values of bfloat16 that are neighbours differ by 2^-8 of their size
            torch.testing.assert_close(found, expected, rtol=2**-7, atol=0.02)


@pytest.mark.long
@_several
@pytest.mark.parametrize("mode", plan.MODES)
def test_a_network_whose_cores_change(mode: plan.Mode, cores: int) -> None:
    """Kernels that were made for some cores serve others."""
    net, x = Net(netgen.deploy(ENGINE_MACHINE), seed=3, engine=mode), torch.randn(2, 4, 64, 64)
    with torch.no_grad():
        several = net(x)["Mconv5_stage2"].clone()
        torch.set_num_threads(1)
        one = net(x)["Mconv5_stage2"].clone()
        other = Net(net.graph, net.weights(), engine=mode)(x)["Mconv5_stage2"].clone()
        torch.set_num_threads(cores)
        again = net(x)["Mconv5_stage2"]
    for found in (several, one, again):
        _assert_near(found, other)


def _assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 5e-6 * float(expected.abs().max())
