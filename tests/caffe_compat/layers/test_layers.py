"""Layers against naive references, over kernels, strides, pads, dilations, groups, with height and
width different."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from caffe_compat import Net, PrototxtError, UnsupportedLayer, parse_net
from caffe_compat.layers import registry
from caffe_compat.layers.base import Layer, register
from caffe_compat.network.graph import build
from tests.oracle import layers as oracle

_SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


def _net(body: str, *shapes: tuple[int, ...], phase: str = "TEST", force: bool = True) -> Net:
    names = "abc"[: len(shapes)]
    text = "".join(
        f'input: "{n}" input_shape {{ {" ".join(f"dim: {d}" for d in s)} }} '
        for n, s in zip(names, shapes, strict=True)
    )
    return Net(parse_net(("force_backward: true " if force else "") + text + body), phase=phase)


def _pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@_SETTINGS
@given(
    _pair(1, 4),
    _pair(1, 3),
    _pair(0, 3),
    _pair(1, 2),
    st.sampled_from([1, 2]),
    st.booleans(),
    _pair(4, 9),
)
def test_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    group: int,
    bias: bool,
    size: tuple[int, int],
) -> None:
    assume(size[0] != size[1])
    assume(
        all(
            d * (k - 1) + 1 <= s + 2 * p
            for d, k, s, p in zip(dilation, kernel, size, pad, strict=True)
        )
    )
    lists = " ".join(
        f"{name}: {value}"
        for name, pair in (
            ("kernel_size", kernel),
            ("stride", stride),
            ("pad", pad),
            ("dilation", dilation),
        )
        for value in pair
    )
    net = _net(
        f'layer {{ name: "c" type: "Convolution" bottom: "a" top: "t" convolution_param {{ '
        f"num_output: 4 group: {group} "
        f'bias_term: {str(bias).lower()} {lists} weight_filler {{ type: "gaussian" std: 1 }} '
        f"bias_filler {{ value: 0.5 }} }} }}",
        (2, 2 * group, *size),
    )
    x = torch.randn(2, 2 * group, *size, generator=torch.Generator().manual_seed(0))
    state = {k: v.detach().double().numpy() for k, v in net.state_dict().items()}
    expected = oracle.convolution(
        x.double().numpy(), state["c.weight"], state.get("c.bias"), stride, pad, dilation, group
    )
    top = net(x)["t"].detach().numpy()
    assert top.shape == net.graph.blobs["t"] == expected.shape
    np.testing.assert_allclose(top, expected, atol=1e-4)


@_SETTINGS
@given(st.sampled_from(["MAX", "AVE"]), _pair(1, 4), _pair(1, 4), _pair(0, 2), _pair(3, 9))
def test_pooling(
    method: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    size: tuple[int, int],
) -> None:
    assume(size[0] != size[1] and pad[0] < kernel[0] and pad[1] < kernel[1])
    assume(all(k <= s + 2 * p for k, s, p in zip(kernel, size, pad, strict=True)))
    net = _net(
        f'layer {{ name: "p" type: "Pooling" bottom: "a" top: "t" pooling_param {{ pool: '
        f"{method} kernel_h: {kernel[0]} "
        f"kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} "
        f"pad_w: {pad[1]} }} }}",
        (1, 2, *size),
    )
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    expected = oracle.pooling(x.double().numpy(), method, kernel, stride, pad)
    top = net(x)["t"].numpy()
    assert top.shape == net.graph.blobs["t"] == expected.shape
    np.testing.assert_allclose(top, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [3, 5])
def test_lrn(size: int) -> None:
    net = _net(
        f'layer {{ name: "l" type: "LRN" bottom: "a" top: "t" lrn_param {{ local_size: {size} '
        "alpha: 0.3 k: 2 } }",
        (2, 7, 3, 4),
    )
    x = torch.randn(2, 7, 3, 4)
    np.testing.assert_allclose(
        net(x)["t"].numpy(), oracle.lrn_across(x.double().numpy(), size, 0.3, 0.75, 2), rtol=1e-5
    )


def test_max_pool_by_eye() -> None:
    """5 columns, kernel 2, stride 3: a window begins at 3 and is cut; ties give the gradient to the
    first."""
    net = _net(
        'layer { name: "p" type: "Pooling" bottom: "a" top: "t" top: "m" pooling_param { '
        "kernel_size: 2 stride: 3 } }",
        (1, 1, 2, 5),
    )
    x = torch.tensor([[[[1.0, 7, 0, 4, 4], [7, 2, 9, 4, 3]]]], requires_grad=True)
    top = net(x)
    assert top["t"].tolist() == [[[[7.0, 4.0]]]]
    assert top["m"].tolist() == [[[[1.0, 3.0]]]]
    top["t"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[0.0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]]]


def test_eltwise_max_tie_goes_to_the_second() -> None:
    net = _net(
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "t" '
        "eltwise_param { operation: MAX } }",
        (3,),
        (3,),
        (3,),
    )
    inputs = [torch.tensor(v, requires_grad=True) for v in ([1.0, 5, 2], [1.0, 4, 2], [1.0, 0, 3])]
    net(*inputs)["t"].sum().backward()
    assert [t.grad.tolist() for t in inputs if t.grad is not None] == [
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 1],
    ]


def test_blob_used_twice_adds_gradients() -> None:
    net = _net(
        'layer { name: "p" type: "Power" bottom: "a" top: "x" power_param { scale: 2 } } '
        'layer { name: "e" type: "Eltwise" bottom: "x" bottom: "x" top: "t" }',
        (2,),
    )
    x = torch.ones(2, requires_grad=True)
    net(x)["t"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [4.0, 4.0]


def test_hinge_gradient_is_the_derivative() -> None:
    """The recorded hinge cases hold zeros (their diffs were cleared in between); the real gradient
    is checked here."""
    for norm in ("L1", "L2"):
        net = _net(
            f'layer {{ name: "l" type: "HingeLoss" bottom: "a" bottom: "b" top: "t" '
            f"hinge_loss_param {{ norm: {norm} }} }}",
            (3, 4),
            (3,),
        ).double()
        label = torch.tensor([0.0, 3, 1], dtype=torch.float64)
        x = torch.randn(
            3,
            4,
            dtype=torch.float64,
            requires_grad=True,
            generator=torch.Generator().manual_seed(3),
        )
        assert torch.autograd.gradcheck(lambda x, net=net, label=label: net(x, label)["t"], (x,))


_SMOOTH = {
    "Convolution": "convolution_param { num_output: 3 kernel_size: 3 pad: 1 stride: 2 "
    "weight_filler { type: 'xavier' } }",
    "Deconvolution": "convolution_param { num_output: 3 kernel_size: 3 stride: 2 weight_filler "
    "{ type: 'xavier' } }",
    "InnerProduct": "inner_product_param { num_output: 3 weight_filler { type: 'xavier' } }",
    "LRN": "lrn_param { local_size: 3 alpha: 0.5 }",
    "MVN": "",
    "Sigmoid": "",
    "TanH": "",
    "BNLL": "",
    "ELU": "",
    "Swish": "",
    "Softmax": "",
    "Exp": "exp_param { base: 2 scale: 0.5 shift: 0.1 }",
    "Scale": "scale_param { bias_term: true filler { type: 'gaussian' std: 1 } }",
    "Reduction": "reduction_param { operation: SUMSQ axis: 1 }",
    "Pooling": "pooling_param { pool: AVE kernel_size: 3 stride: 2 }",
    "BatchNorm": "batch_norm_param { use_global_stats: false }",
    "PReLU": "",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", _SMOOTH)
def test_gradcheck(kind: str) -> None:
    net = _net(
        f'layer {{ name: "l" type: "{kind}" bottom: "a" top: "t" {_SMOOTH[kind]} }}', (2, 3, 4, 5)
    ).double()
    x = torch.randn(
        2,
        3,
        4,
        5,
        dtype=torch.float64,
        requires_grad=True,
        generator=torch.Generator().manual_seed(5),
    )
    weights = [p for p in net.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: net(x)["t"], (x, *weights), atol=1e-6)


def test_registry_is_complete_and_guarded() -> None:
    for name, cls in registry().items():
        assert cls.type == name
        assert cls.__doc__
        assert "Source:" in cls.__doc__, name
    with pytest.raises(ValueError, match="twice"):
        register("ReLU")(type("Again", (Layer,), {}))


def test_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedLayer, match=r"line|:1: layer 'x'.*Convolution"):
        build(
            parse_net(
                'input: "a" input_shape { dim: 1 } layer { name: "x" type: "Relu" bottom: "a" '
                'top: "b" }',
                "n.prototxt",
            )
        )


def test_absurd_shapes_allocate_nothing() -> None:
    text = (
        'input: "a" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 } layer { name: "c" type: '
        '"Convolution" bottom: "a" top: "b" '
    )
    with pytest.raises(PrototxtError, match="larger than Caffe's limit"):
        build(parse_net(text + "convolution_param { num_output: 400000000 kernel_size: 1 } }"))


def test_dropout_keeps_the_mean_in_training() -> None:
    net = _net(
        'layer { name: "d" type: "Dropout" bottom: "a" top: "t" dropout_param { dropout_ratio: '
        "0.25 } }",
        (100, 100),
        phase="TRAIN",
    )
    torch.manual_seed(0)
    top = net(torch.ones(100, 100))["t"]
    assert top.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert top.mean().item() == pytest.approx(1, abs=0.03)


def test_batch_norm_takes_gradients_in_any_memory_order() -> None:
    """Of one image whose channels come last in the memory of its gradient, torch's own batch
    normalisation makes a wrong gradient."""
    shape, order = (1, 4, 3, 5), (4, 1, 20, 4)
    layer = 'layer { name: "l" type: "BatchNorm" bottom: "a" top: "t" batch_norm_param { %s } }'
    norm = _net(layer % "use_global_stats: false", shape).graph.nodes[-1].layer
    torch.manual_seed(1)
    x, diff = torch.randn(shape, requires_grad=True), torch.randn(shape)

    def gradient(from_above: torch.Tensor) -> torch.Tensor:
        (top,) = norm.forward([torch.zeros(4), torch.zeros(4), torch.zeros(1)], x)
        top.register_hook(lambda _: from_above)
        return torch.autograd.grad(top, x, diff)[0]

    expected = gradient(diff)
    assert expected.abs().max() > 0.1
    strided = torch.empty_strided(shape, order).copy_(diff)
    assert torch.allclose(gradient(strided), expected, atol=1e-6)
