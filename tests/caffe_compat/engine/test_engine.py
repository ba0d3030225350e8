"""Convolution on tiles: equal to the direct one, gradients, batches, memory, and the plan."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from caffe_compat import Net, parse_net
from caffe_compat.engine import plan, threads, tiled
from caffe_compat.engine.costs import ConvolutionShape
from caffe_compat.engine.fingerprint import fingerprint, fingerprints
from caffe_compat.errors import CaffeCompatError
from reproduce.network import netgen
from tests.nets import TINY_MACHINE

_SMALL = netgen.CPMConfig(
    stages=3, input_size=128, towers=(8, 8, 16), features=8, wide=16, belief=16, filler="msra"
)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, pad: tuple[int, int], n: int) -> Tensor:
    tiling = tiled.Tiling(n, (weight.shape[2], weight.shape[3]), pad)
    return tiled.Kernel(weight, tiling).convolve(x, bias)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_direct_convolution(data: st.DataObject) -> None:
    """Any kernel, pad, tile and size, in float64 to its own rounding and in float32 to a few 1e-6
    of the largest output."""
    pick = data.draw
    kernel = pick(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    pad = pick(st.tuples(st.integers(0, 12), st.integers(0, 12)))
    n = pick(st.integers(max(kernel) + 1, 26))
    size = tuple(pick(st.integers(max(1, k - 2 * p), 40)) for k, p in zip(kernel, pad, strict=True))
    batch, inputs, outputs = (
        pick(st.integers(1, 3)),
        pick(st.integers(1, 5)),
        pick(st.integers(1, 5)),
    )
    torch.manual_seed(pick(st.integers(0, 99)))
    x = torch.randn(batch, inputs, *size, dtype=torch.float64)
    weight, bias = (
        torch.randn(outputs, inputs, *kernel, dtype=torch.float64),
        torch.randn(outputs, dtype=torch.float64),
    )
    expected = F.conv2d(x, weight, bias, padding=pad)
    scale = max(1.0, float(expected.abs().max()))
    assert torch.allclose(_run(x, weight, bias, pad, n), expected, rtol=0, atol=1e-12 * scale)
    single = _run(x.float(), weight.float(), None, pad, n)
    assert single.dtype == torch.float32
    assert torch.allclose(
        single.double() + bias[:, None, None], expected, rtol=0, atol=2e-5 * scale
    )


@pytest.mark.slow
def test_gradients() -> None:
    """gradcheck in float64, and the pad that the turned kernel cannot have."""
    torch.manual_seed(0)
    for kernel, pad in (((3, 4), (1, 2)), ((3, 3), (4, 4))):
        tiling = tiled.Tiling(8, kernel, pad)
        x = torch.randn(2, 3, 9, 7, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(2, 3, *kernel, dtype=torch.float64, requires_grad=True)
        bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, w, b, t=tiling: plan._Cut.apply(x, w, b, t), (x, weight, bias)
        )


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("mode", ["tiled", "minimal", "lines"])
def test_other_derivatives_are_torchs_own(mode: plan.Mode) -> None:
    """Forwards, by torch.func, and of an output that was changed in place."""
    text = """input: "x" input_shape { dim: 1 dim: 16 dim: 24 dim: 24 }
        layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
            num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }"""
    direct = Net(parse_net(text), engine="direct")
    other = Net(direct.graph, direct.weights(), engine=mode)
    torch.manual_seed(0)
    x, tangent = torch.randn(2, 1, 16, 24, 24)

    def found(net: Net) -> list[Tensor]:
        top = net(x=x)["y"].add_(1)
        top.sum().backward()
        grad = torch.func.grad(lambda z: (net(x=z)["y"] ** 2).sum())(x)
        moved = torch.func.jvp(lambda z: net(x=z)["y"], (x,), (tangent,))[1]
        with forward_ad.dual_level():
            dual = net(x=forward_ad.make_dual(x, tangent))["y"]
            forwards = forward_ad.unpack_dual(dual).tangent
        assert forwards is not None
        return [grad, moved, forwards, *(p.grad for p in net.parameters() if p.grad is not None)]

    for a, b in zip(found(direct), found(other), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(a.detach().abs().max()))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("mode", ["direct", "tiled", "minimal", "auto"])
def test_a_derivative_may_be_the_first_thing(mode: plan.Mode) -> None:
    """The weights are brought into another layout at the first run, but not below torch.func."""
    text = """input: "x" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
        layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
            num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }"""
    net = Net(parse_net(text), engine=mode)
    x = torch.randn(1, 3, 8, 8)
    grad = torch.func.grad(lambda z: (net(x=z)["y"] ** 2).sum())(x)
    jacobian = torch.func.jacfwd(lambda z: net(x=z)["y"].sum())(x)
    x.requires_grad_()
    top = net(x=x)["y"]
    (expected,) = torch.autograd.grad((top**2).sum(), x, retain_graph=True)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    (expected,) = torch.autograd.grad(top.sum(), x)
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("mode", ["tiled", "minimal"])
def test_a_gradient_of_a_gradient_is_refused(mode: plan.Mode) -> None:
    """Only torch's own convolutions have one (engine "direct")."""
    x = torch.randn(1, 16, 24, 24, requires_grad=True)
    weight = torch.randn(16, 16, 3, 3, requires_grad=True)
    with plan.using(plan.Engine(mode)):
        top = plan.convolve(x, weight, None, (1, 1), (1, 1), (1, 1), 1)
    (gradient,) = torch.autograd.grad((top * top).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_gradients_of_a_training_net() -> None:
    """Every parameter's gradient, tiled against direct; several blocks of images."""
    spec = netgen.train_test(_SMALL, netgen.DataConfig(batch_size=3))
    shapes = {"data": (3, 4, 128, 128), "label": (3, 30, 16, 16)}
    direct = Net(spec, phase="TRAIN", input_shapes=shapes, engine="direct", seed=5)
    other = Net(direct.graph, direct.weights(), engine="tiled")
    torch.manual_seed(0)
    data = {name: torch.randn(shape) for name, shape in shapes.items()}
    for net in (direct, other):
        torch.manual_seed(1)  # dropout
        net.loss(net(**data, blobs=net.losses)).backward()
    for (name, a), (_, b) in zip(direct.named_parameters(), other.named_parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=0, atol=3e-5 * float(a.grad.abs().max())), name


def test_an_image_alone_and_in_a_batch() -> None:
    net = Net(netgen.deploy(_SMALL), seed=2)
    x = torch.randn(5, 4, 128, 128)
    threads = torch.get_num_threads()
    with torch.no_grad():
        whole = net(x)
        for name, blob in whole.items():
            alone = torch.cat([net(x[i : i + 1])[name] for i in range(5)])
            torch.set_num_threads(1)
            single = net(x)[name]
            torch.set_num_threads(threads)
            for other in (alone, single):
                assert float((blob - other).abs().max()) <= 1e-6 * float(blob.abs().max())


def test_large_maps_run_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is taken apart for the towers and joined again; all blobs that are asked for are
    there."""
    import caffe_compat.network.net

    net = Net(netgen.deploy(_SMALL), seed=2)
    x = torch.randn(3, 4, 128, 128)
    names = ["pool1_stage1", "conv7_stage1", "pool_center_lower", "Mconv5_stage3"]
    with torch.no_grad():
        expected = net(x, blobs=names)
        monkeypatch.setattr(caffe_compat.network.net, "_LARGE", 1000)
        assert net._heavy(net._plan({"data": x}, tuple(names), whole=False), {"data": x}) > 10
        for name, blob in net(x, blobs=names).items():
            assert torch.allclose(blob, expected[name], rtol=0, atol=1e-6 * float(blob.abs().max()))


def test_pooled_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolution, ReLU and pooling in one step: the same as one by one; not done where the map
    between is asked for."""
    monkeypatch.setattr(threads, "BAND", 3000)
    net = Net(netgen.deploy(_SMALL), seed=2)
    for size in (128, 121):
        x = torch.randn(2, 4, size, size)
        with torch.no_grad():
            seen = net(x, blobs=["conv1_stage1", "pool1_stage1"])
            alone = net(x, blobs=["pool1_stage1"])["pool1_stage1"]
            assert torch.allclose(seen["pool1_stage1"], alone, rtol=0, atol=1e-6)
            assert float(seen["conv1_stage1"].min()) == 0


def test_changed_weights_are_noticed() -> None:
    net = Net(netgen.deploy(_SMALL), seed=2, engine="tiled")
    x = torch.randn(1, 4, 128, 128)
    with torch.no_grad():
        before = net(x)["Mconv5_stage3"]
        net.get_parameter("Mconv5_stage3.bias").add_(1)
        net.get_parameter("Mconv2_stage3.weight").mul_(2)
        direct = Net(net.graph, net.weights(), engine="direct")
        after, expected = net(x)["Mconv5_stage3"], direct(x)["Mconv5_stage3"]
    assert not torch.allclose(before, after)
    assert torch.allclose(after, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("own", ["stride: 2", "dilation: 2", "group: 2"])
def test_layers_that_share_a_weight_keep_their_own_options(own: str) -> None:
    layers = "".join(
        f"""
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  param {{ name: "w" }} param {{ name: "b" }} convolution_param {{ num_output: 64 kernel_size: 9
    pad: 4 weight_filler {{ type: "xavier" }} {options} }} }}"""
        for name, bottom, options in (("a", "x", ""), ("b", "y", own), ("c", "x", ""))
    )
    several = 64 if own == "group: 2" else 32
    shapes = [(1, 32, 40, 40), (1, several, 40, 40)]
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {d}" for d in shape)
        + " } } }"
        for name, shape in zip("xy", shapes, strict=True)
    )
    given = {name: torch.randn(*shape) for name, shape in zip("xy", shapes, strict=True)}
    nets = [Net(parse_net(inputs + layers), seed=2, engine=mode) for mode in ("direct", "tiled")]
    with torch.no_grad():
        expected, found = (net(**given) for net in nets)
    for name in "abc":
        assert found[name].shape == expected[name].shape
        assert torch.allclose(found[name], expected[name], rtol=0, atol=1e-4)


def test_copies_have_transforms_of_their_own() -> None:
    net = Net(netgen.deploy(_SMALL), seed=2, engine=plan.Engine("tiled", 5_000_000))
    x = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        expected = net(x)["Mconv5_stage3"]
        other = copy.deepcopy(net)
        assert other.engine is not net.engine
        assert other.engine.used == 0
        assert other.engine.memory == 5_000_000
        assert torch.equal(other(x)["Mconv5_stage3"], expected)


def test_memory_is_kept_to() -> None:
    """With little memory some kernels stay as they are; with none all do; results are the same."""
    spec = netgen.deploy(_SMALL)
    x = torch.randn(1, 4, 128, 128)
    used = []
    expected = None
    for memory in (1_000_000_000, 3_000_000, 0):
        net = Net(spec, seed=2, engine=plan.Engine("tiled", memory))
        with torch.no_grad():
            found = net(x)["Mconv5_stage3"]
        assert net.engine.used <= memory
        used.append(net.engine.used)
        expected = found if expected is None else expected
        assert torch.allclose(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    assert used[0] > used[1] > used[2] == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"stride": (2, 2)}, "stride 2x2"),
        ({"dilation": (2, 2)}, "dilation"),
        ({"group": 2}, "2 groups"),
        ({"weight": (8, 8, 1, 1)}, "kernel 1"),
        ({"size": (9,)}, "not two spatial axes"),
    ],
)
def test_what_runs_direct(change: dict[str, object], why: str) -> None:
    shapes: dict[str, object] = {
        "weight": (128, 128, 9, 9),
        "size": (92, 92),
        "stride": (1, 1),
        "pad": (4, 4),
        "dilation": (1, 1),
        "group": 1,
    }
    chosen = plan.Engine("tiled").choose(ConvolutionShape(**{**shapes, **change}))  # type: ignore[arg-type]
    assert chosen.kind == "direct"
    assert why in chosen.why


def test_the_plan_of_the_released_network() -> None:
    """Large kernels with many channels run tiled, those with few along the rows; all transforms
    fit into the memory."""
    c = ConvolutionShape((128, 128, 11, 11), (46, 46), (1, 1), (5, 5), (1, 1), 1)
    assert plan.Engine().choose(c).kind == "tiled"
    assert plan.Engine("direct").choose(c).kind == "direct"
    assert plan.Engine().choose(c, left=10).kind == "direct"
    first = ConvolutionShape((128, 3, 9, 9), (368, 368), (1, 1), (4, 4), (1, 1), 1)
    assert plan.Engine().choose(first).kind == "lines"
    with pytest.raises(CaffeCompatError, match="expected auto, direct, tiled"):
        plan.Engine("fast")  # type: ignore[arg-type]


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_only_what_differs_from_the_background(data: st.DataObject) -> None:
    """Images that equal a known one outside a rectangle: the same blobs as when all is computed;
    borders included."""
    import caffe_compat.network.net
    from caffe_compat.network.patches import Background

    size = TINY_MACHINE.input_size
    net = Net(netgen.deploy(TINY_MACHINE), seed=2)
    torch.manual_seed(0)
    base = torch.randn(1, 4, size, size)
    known = Background(base)
    rects, images = [], []
    for _ in range(2):
        top, left = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
        bottom, right = data.draw(st.integers(top, size)), data.draw(st.integers(left, size))
        image = base.clone()
        image[:, :3, top:bottom, left:right] = torch.randn(1, 3, bottom - top, right - left)
        rects.append((top, left, bottom, right))
        images.append(image)
    x = torch.cat(images)
    names = ["pool1_stage2", "pool3_stage2", "Mconv5_stage2"]
    before, caffe_compat.network.net._LARGE = caffe_compat.network.net._LARGE, 1000
    try:
        with torch.no_grad():
            expected = Net(net.graph, net.weights(), engine="direct")(x, blobs=names)
            for _ in range(2):  # the second time with known maps
                found = net(x, blobs=names, background=known, rects=rects)
                for name in names:
                    limit = 1e-5 * float(expected[name].abs().max())
                    assert torch.allclose(found[name], expected[name], rtol=0, atol=limit), name
            net.get_parameter("conv1_stage1.bias").add_(1)  # the kept maps are of other weights now
            expected = Net(net.graph, net.weights(), engine="direct")(x, blobs=names)
            found = net(x, blobs=names, background=known, rects=rects)
            assert torch.allclose(
                found["Mconv5_stage2"], expected["Mconv5_stage2"], rtol=0, atol=1e-5
            )
    finally:
        caffe_compat.network.net._LARGE = before


_CHANGES: dict[str, Callable[[torch.Tensor], object]] = {
    "data.mul_": lambda w: w.data.mul_(3),
    "one value, by its last bit": lambda w: _numpy(w).__setitem__(
        1003, np.nextafter(_numpy(w)[1003], np.float32(9))
    ),
    "two values exchanged": lambda w: _numpy(w).__setitem__([7, 9001], _numpy(w)[[9001, 7]]),
    "two channels exchanged": lambda w: (
        w.detach().numpy().__setitem__((slice(None), [0, 2]), w.detach().numpy()[:, [2, 0]])
    ),
    "two filters exchanged": lambda w: (
        w.detach().numpy().__setitem__([0, 16], w.detach().numpy()[[16, 0]])
    ),
    "all signs": lambda w: w.data.neg_(),
    "every other sign": lambda w: _numpy(w).__setitem__(slice(1, None, 2), -_numpy(w)[1::2].copy()),
    "two signs": lambda w: _numpy(w).__setitem__([1, 3], -_numpy(w)[[1, 3]].copy()),
    "first value": lambda w: _numpy(w).__setitem__(0, 5),
    "last value": lambda w: _numpy(w).__setitem__(-1, 5),
    "turned": lambda w: w.data.copy_(w.data.flip(2).clone()),
    "another layout of the same memory": lambda w: setattr(w, "data", w.data.transpose(0, 1)),
    "another memory": lambda w: setattr(w, "data", w.data * 2),
    "not a number": lambda w: _numpy(w).__setitem__(5, np.nan),
}


def _numpy(weight: torch.Tensor) -> np.ndarray:
    """The memory of a weight, as one row."""
    return weight.detach().permute(0, 2, 3, 1).numpy().reshape(-1)


@pytest.mark.parametrize("change", _CHANGES)
def test_a_changed_weight_is_seen(change: str) -> None:
    """However it was changed; and one that did not change keeps its transform."""
    torch.manual_seed(1)
    engine = plan.Engine("tiled")
    weight = torch.nn.Parameter(
        torch.randn(24, 24, 5, 5).contiguous(memory_format=torch.channels_last)
    )
    x = torch.randn(1, 24, 30, 23)

    def run() -> torch.Tensor:
        with plan.using(engine), torch.no_grad():
            return plan.convolve(x, weight, None, (1, 1), (2, 2), (1, 1), 1)

    run()
    made = engine._kernels[id(weight)][2]
    run()
    assert engine._kernels[id(weight)][2] is made
    _CHANGES[change](weight)
    found = run()
    assert engine._kernels[id(weight)][2] is not made
    expected = torch.nn.functional.conv2d(x, weight.detach(), padding=2)
    if change == "not a number":  # on tiles it spreads further than in a direct convolution
        assert found.isnan().any()
    else:
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=2e-5 * 60)
    made = engine._kernels[id(weight)][2]
    run()
    assert engine._kernels[id(weight)][2] is made  # one new transform, not one for each run


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (1023,), (1025,), (5, 7, 3, 11), (70000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_single_value_counts(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    weight = torch.randn(shape).to(dtype)
    before = fingerprint(weight)
    assert fingerprint(weight.clone()) == before
    flat = weight.reshape(-1)
    for place in {0, len(flat) // 2, len(flat) - 1} if len(flat) else ():
        old = flat[place].clone()
        flat[place] = -old
        assert fingerprint(weight) != before
        flat[place] = old
    assert fingerprints([weight, weight]) == [before, before]
