"""Small kernels by minimal filtering: equal to the direct convolution, gradients, pooling, accuracy;
and the rates that choose."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_compat import Net
from caffe_compat.definition.prototxt import parse_net
from caffe_compat.engine import minimal, plan, rates
from caffe_compat.engine.costs import ConvolutionShape
from caffe_compat.engine.minimal import Filtering
from caffe_compat.network.planned import planned
from reproduce.network import netgen
from tests.nets import ENGINE_MACHINE

_SMALL = replace(ENGINE_MACHINE, feature_kernel=3, stage_kernel=5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_direct_convolution(data: st.DataObject) -> None:
    """Any kernel up to 5×5, pad and size with H ≠ W, in float64 to its own rounding."""
    pick = data.draw
    kernel = pick(st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(minimal.fits))
    pad = pick(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    size = tuple(pick(st.integers(max(1, k - 2 * p), 30)) for k, p in zip(kernel, pad, strict=True))
    batch, inputs, outputs = (pick(st.integers(1, 3)) for _ in range(3))
    torch.manual_seed(pick(st.integers(0, 99)))
    x = torch.randn(batch, inputs, *size, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, *kernel, dtype=torch.float64)
    bias = torch.randn(outputs, dtype=torch.float64)
    relu = pick(st.booleans())
    expected = F.conv2d(x, weight, bias, padding=pad)
    expected = expected.relu() if relu else expected
    scale = max(1.0, float(expected.abs().max()))
    way = Filtering(kernel, pad, pick(st.booleans()))
    found = way.prepare(weight).convolve(x, bias, relu=relu)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * scale)
    single = way.prepare(weight.float()).convolve(x.float(), bias.float(), relu=relu)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("band", [1, 6_000_000])
@pytest.mark.parametrize("size", [(16, 24), (13, 15), (4, 5)])
def test_pooling_in_one_step(
    band: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2×2 windows as Caffe cuts them (the last one of an odd side is half), one row of tiles at a
    time and all at once."""
    monkeypatch.setattr(minimal, "BAND", band)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, *size), torch.randn(4, 3, 3, 3), torch.randn(4)
    kernel = Filtering((3, 3), (1, 1)).prepare(weight)
    assert kernel.pools(2, 2)
    assert not kernel.pools(3, 2)
    assert not kernel.pools(3, 3)
    found = kernel.convolve(x, bias, relu=True, pool=2)
    expected = F.max_pool2d(F.conv2d(x, weight, bias, padding=1).relu(), 2, ceil_mode=True)
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)


def test_error_against_float64() -> None:
    """256 channels at 46×46, as in the released VGG network: within 4e-6 of the largest value."""
    torch.manual_seed(0)
    x = torch.randn(1, 256, 46, 46).relu()
    weight = torch.randn(256, 256, 3, 3) * (2 / (256 * 9)) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    found = Filtering((3, 3), (1, 1)).prepare(weight).convolve(x, None)
    error = float((found.double() - exact).abs().max() / exact.abs().max())
    assert error < 4e-6


def test_gradients() -> None:
    """gradcheck in float64, and the pad that the turned kernel cannot have."""
    torch.manual_seed(0)
    for kernel, pad in (((3, 4), (1, 2)), ((3, 3), (4, 4))):
        way = Filtering(kernel, pad)
        x = torch.randn(1, 2, 7, 6, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(2, 2, *kernel, dtype=torch.float64, requires_grad=True)
        bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, w, b, t=way: plan._Cut.apply(x, w, b, t), (x, weight, bias)
        )


def test_a_network_of_small_kernels() -> None:
    """Forced, by itself and direct agree; an image alone and in a batch is the same to 1e-6."""
    direct = Net(netgen.deploy(_SMALL), engine="direct", seed=1)
    forced = Net(direct.graph, direct.weights(), engine="minimal")
    x = torch.randn(3, 4, 64, 64)
    with torch.no_grad():
        expected, found = direct(x), forced(x)
        for name, blob in expected.items():
            scale = float(blob.abs().max())
            assert torch.allclose(found[name], blob, rtol=0, atol=1e-5 * scale), name
            alone = torch.cat([forced(x[i : i + 1])[name] for i in range(3)])
            assert torch.allclose(found[name], alone, rtol=0, atol=1e-6 * scale), name


def test_the_plan_chooses_by_kernel() -> None:
    """Small kernels with many channels run minimal, large ones tiled, 1×1 direct."""
    engine = plan.Engine(rates=rates.Rates())

    def kind(weight: tuple[int, ...], size: int) -> str:
        pad = (weight[2] // 2, weight[3] // 2)
        shape = ConvolutionShape(weight, (size, size), (1, 1), pad, (1, 1), 1)
        return engine.choose(shape).kind

    assert kind((256, 256, 3, 3), 46) == "minimal"
    assert kind((128, 128, 11, 11), 46) == "tiled"
    assert kind((128, 128, 1, 1), 46) == "direct"
    assert (
        plan.Engine("minimal")
        .choose(ConvolutionShape((8, 8, 7, 7), (20, 20), (1, 1), (3, 3), (1, 1), 1))
        .kind
        == "direct"
    )


_SLOW = {"direct": 1e9, "direct_narrow": 1e9}
_NOT_MINIMAL = {"thin": 1e7, "groups": 1e7, "products": 1e7}


@pytest.mark.parametrize("cores", [1, 2], indirect=True)
@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        (rates.Rates(), {"direct"}),
        (rates.Rates(**_SLOW), {"direct", "tiled", "minimal"}),
        (rates.Rates(**_SLOW, **_NOT_MINIMAL), {"direct", "tiled"}),
        (rates.Rates(**_SLOW, columns=1e7), {"direct", "lines", "minimal"}),
        (rates.Rates(**_SLOW, groups=1e15), {"direct", "tiled", "minimal"}),
    ],
    ids=["built-in", "several", "tiles", "lines", "grouped"],
)
def test_results_hardly_hang_on_rates(chosen: rates.Rates, kinds: set[str], cores: int) -> None:
    """Plans that other rates choose, and other threads: 1e-5, as docs/engine.md says."""
    definition = netgen.deploy(ENGINE_MACHINE)
    direct = Net(definition, engine=plan.Engine("direct"), seed=1)
    net = Net(direct.graph, direct.weights(), engine=plan.Engine(rates=chosen))
    assert {choice.kind for _, _, choice in planned(net.graph, net.engine)} == kinds
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        found = net(x)
        torch.set_num_threads(1)
        for name, blob in direct(x).items():
            assert float((found[name] - blob).abs().max()) <= 1e-5 * float(blob.abs().max()), name


def test_rates_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once, read again, shown; a damaged file is measured anew, the variable ignores it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CPM_RATES")
    rates.rates_in_use.cache_clear()
    try:
        first = rates.rates_in_use()[0]
        assert rates.stored_rates() == first
        content = json.loads(rates.rates_file().read_text())
        assert set(content["rates"]) == set(rates.Rates.__dataclass_fields__)
        content["rates"]["direct"] = 1e9
        rates.rates_file().write_text(json.dumps(content))
        rates.rates_in_use.cache_clear()
        assert rates.rates_in_use()[0].direct == 1e9
        rates.rates_file().write_text("{")
        assert rates.stored_rates() is None
        monkeypatch.setenv("CPM_RATES", "default")
        rates.rates_in_use.cache_clear()
        assert rates.rates_in_use()[0] == rates.Rates()
    finally:
        rates.rates_in_use.cache_clear()


@pytest.mark.parametrize("in_the_way", ["", "convolutional-pose-machines"])
def test_a_cache_that_cannot_be_written_stops_nothing(
    in_the_way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the folder should be; the rates then hold for this process."""
    cache = tmp_path / "cache"
    if in_the_way:
        cache.mkdir()
    (cache / in_the_way).write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("CPM_RATES")
    monkeypatch.setattr(rates, "_measure", rates.Rates)
    rates.rates_in_use.cache_clear()
    try:
        found, source = rates.rates_in_use()
    finally:
        rates.rates_in_use.cache_clear()
    assert found.direct == torch.get_num_threads() * rates.Rates().direct
    assert source.startswith("measured on this machine, not kept: ")
    assert str(cache) in source


def test_a_folder_that_takes_no_file_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is there, but the rates' own name is taken by a folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rates, "_measure", rates.Rates)
    rates.rates_file().mkdir(parents=True)
    _, source = rates.calibrate()
    assert source.endswith(
        f"not kept: {rates.rates_file()}: is a directory, expected a file name to write to"
    )


def test_a_busy_machines_rates_are_cut_back() -> None:
    built_in = rates.Rates()
    odd = rates.Rates(thin=1.0, mix=1e18)
    found = rates._plausible(odd, built_in)
    assert built_in.thin / 10 < found.thin < built_in.thin
    assert built_in.mix < found.mix < 10 * built_in.mix


def test_rates_are_those_of_one_thread_whatever_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the processor is not counted, and torch has as many threads as before."""
    if time.get_clock_info("thread_time").resolution >= 1e-5:
        pytest.skip("this system's processor times are too coarse")
    assert rates._best(lambda: time.sleep(0.02), seconds=0.0) < 0.01
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: list[int] = []

    def measure() -> rates.Rates:
        seen.append(torch.get_num_threads())
        return rates.Rates()

    monkeypatch.setattr(rates, "_measure", measure)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found, _ = rates.calibrate()
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    built_in = rates.Rates()
    assert found.direct == 2 * built_in.direct
    assert found.copy == built_in.copy  # memory is shared by all threads


@pytest.mark.parametrize("outputs", [5, 192, 257, 320, 448])
def test_any_number_of_outputs(outputs: int) -> None:
    """Outputs that are mixed in several pieces come in their order."""
    assert sum(minimal._pieces(outputs)) == outputs
    assert all(p <= 256 and p != 192 for p in minimal._pieces(outputs))
    torch.manual_seed(4)
    x, weight = torch.randn(1, 5, 9, 14), torch.randn(outputs, 5, 3, 3)
    found = Filtering((3, 3), (1, 1)).prepare(weight).convolve(x, None)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    assert (found - expected).abs().max() < 3e-6 * expected.abs().max()


@pytest.mark.parametrize("mode", plan.MODES)
def test_a_relu_is_part_of_its_convolution(mode: plan.Mode) -> None:
    """Whether its blob is an output, read twice, or rectified with a slope, which is not fused."""
    text = (
        "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 3 "
        "dim: 21 dim: 17 } } } "
        "layer { name: 'a' type: 'Convolution' bottom: 'data' top: 'a' convolution_param { "
        "num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: 'msra' } } } "
        "layer { name: 'ra' type: 'ReLU' bottom: 'a' top: 'a' } "
        "layer { name: 'b' type: 'Convolution' bottom: 'a' top: 'b' convolution_param { "
        "num_output: 8 kernel_size: 7 pad: 3 weight_filler { type: 'msra' } } } "
        "layer { name: 'rb' type: 'ReLU' bottom: 'b' top: 'b' relu_param { negative_slope: 0.5 } } "
        "layer { name: 'c' type: 'Convolution' bottom: 'b' top: 'c' convolution_param { "
        "num_output: 4 kernel_size: 5 pad: 1 weight_filler { type: 'msra' } } } "
        "layer { name: 'rc' type: 'ReLU' bottom: 'c' top: 'c' } "
        "layer { name: 'sum' type: 'Concat' bottom: 'a' bottom: 'b' top: 'sum' }"
    )
    net = Net(parse_net(text), engine=mode)
    x = torch.randn(2, 3, 21, 17, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = net(x, blobs=("a", "b", "c", "sum"))
    w = net.state_dict()
    a = F.relu(F.conv2d(x, w["a.weight"], w["a.bias"], padding=1))
    b = F.leaky_relu(F.conv2d(a, w["b.weight"], w["b.bias"], padding=3), 0.5)
    c = F.relu(F.conv2d(b, w["c.weight"], w["c.bias"], padding=1))
    for name, expected in {"a": a, "b": b, "c": c, "sum": torch.cat([a, b], 1)}.items():
        assert (found[name] - expected).abs().max() < 5e-6 * expected.abs().max(), name
