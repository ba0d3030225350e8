"""What Caffe accepts that looks wrong, what it refuses that looks right, and labels that are no
class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe_compat import Net, PrototxtError, parse_net
from caffe_compat.errors import DataError
from caffe_compat.network.graph import build


def _net(body: str, *shapes: tuple[int, ...], phase: str = "TEST") -> Net:
    text = "".join(
        f'input: "{n}" input_shape {{ {" ".join(f"dim: {d}" for d in s)} }} '
        for n, s in zip("abc"[: len(shapes)], shapes, strict=True)
    )
    return Net(parse_net("force_backward: true " + text + body), phase=phase)


def _layer(kind: str, bottoms: str, options: str = "", tops: str = "t") -> str:
    names = " ".join(f'bottom: "{name}"' for name in bottoms)
    return f'layer {{ name: "l" type: "{kind}" {names} top: "{tops}" {options} }}'


def _filled(filler: str) -> str:
    options = f'num_output: 1 weight_filler {{ type: "gaussian" {filler} }}'
    return _layer("InnerProduct", "a", f"inner_product_param {{ {options} }}")


def _dummy(options: str) -> str:
    return _layer("DummyData", "", f"dummy_data_param {{ {options} }}", tops='t" top: "u')


ONES = 'weight_filler { type: "constant" value: 1 }'


def test_a_kernel_larger_than_the_input_leaves_one_window() -> None:
    """(2 - 3) / 2 rounds to 0: one window, whose last row lies outside."""
    net = _net(
        _layer(
            "Convolution",
            "a",
            f"convolution_param {{ num_output: 1 kernel_size: 3 stride: 2 {ONES} }}",
        ),
        (1, 1, 2, 2),
    )
    assert net(torch.tensor([[[[1.0, 2], [3, 4]]]]))["t"].tolist() == [[[[10]]]]
    columns = _net(
        _layer("Im2col", "a", "convolution_param { kernel_size: 3 stride: 2 }"), (1, 1, 2, 2)
    )
    top = columns(torch.tensor([[[[1.0, 2], [3, 4]]]]))["t"]
    assert top.flatten().tolist() == [1, 2, 0, 3, 4, 0, 0, 0, 0]


def test_four_spatial_axes() -> None:
    """All ones: each window sums its values, and spreads them again."""
    x = torch.arange(3.0**4).reshape(1, 1, 3, 3, 3, 3)
    net = _net(
        _layer("Convolution", "a", f"convolution_param {{ num_output: 1 kernel_size: 2 {ONES} }}"),
        tuple(x.shape),
    )
    top = net(x)["t"]
    assert top.shape == (1, 1, 2, 2, 2, 2)
    assert top.flatten()[0] == x[..., :2, :2, :2, :2].sum()
    back = _net(
        _layer(
            "Deconvolution",
            "a",
            f"convolution_param {{ num_output: 1 kernel_size: 2 stride: 2 pad: 1 {ONES} }}",
        ),
        (1, 1, 2, 2, 2, 2),
    )
    assert back(torch.ones(1, 1, 2, 2, 2, 2))["t"].tolist() == torch.ones(1, 1, 2, 2, 2, 2).tolist()


@pytest.mark.parametrize("group", [1, 2])
def test_any_number_of_axes_agrees_with_torch(group: int) -> None:
    """The general way, checked where torch has its own: padded with axes of size 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 1, 1, 5, 6, generator=generator)
    for kind in ("Convolution", "Deconvolution"):
        options = f"num_output: 6 group: {group} kernel_size: 1 kernel_size: 1 kernel_size: 3 "
        options += "kernel_size: 2 stride: 1 stride: 1 stride: 2 stride: 1 dilation: 1 dilation: 1 "
        options += "dilation: 1 dilation: 2 pad: 0 pad: 0 pad: 1 pad: 1 "
        net = _net(_layer(kind, "a", f"convolution_param {{ {options} }}"), tuple(x.shape))
        weight = torch.randn(net.graph.params[0].shape, generator=generator)
        bias = torch.randn(6, generator=generator)
        with torch.no_grad():
            for (_, _, mine), value in zip(net.owned_params(), (weight, bias), strict=True):
                mine.copy_(value)
        flat, kernel = x[:, :, 0, 0], weight[:, :, 0, 0]
        if kind == "Convolution":
            want = torch.conv2d(flat, kernel, bias, (2, 1), (1, 1), (1, 2), group)
        else:
            want = torch.conv_transpose2d(flat, kernel, bias, (2, 1), (1, 1), 0, group, (1, 2))
        with torch.no_grad():
            np.testing.assert_allclose(net(x)["t"][:, :, 0, 0], want, atol=1e-5)


def test_no_spatial_axes() -> None:
    options = f"convolution_param {{ num_output: 2 kernel_size: 1 {ONES} }}"
    for kind in ("Convolution", "Deconvolution"):
        net = _net(_layer(kind, "a", options), (2, 3))
        assert net(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))["t"].tolist() == [[6, 6], [15, 15]]


def test_im2col_of_one_axis() -> None:
    net = _net(_layer("Im2col", "a", "convolution_param { kernel_size: 2 }"), (1, 1, 3))
    assert net(torch.tensor([[[1.0, 2, 3]]]))["t"].tolist() == [[[1, 2], [2, 3]]]


def test_a_filter_that_keeps_nothing() -> None:
    net = _net(_layer("Filter", "ab"), (3, 4), (3,))
    assert net(torch.ones(3, 4), torch.zeros(3))["t"].shape == (0, 4)


def test_average_windows_outside() -> None:
    """The size of a window that lies outside is negative or 0."""
    options = "pooling_param { pool: AVE kernel_size: 1 stride: 4 }"
    top = _net(_layer("Pooling", "a", options), (1, 1, 1, 6))(torch.ones(1, 1, 1, 6))["t"]
    assert top.shape == (1, 1, 1, 3)
    assert top[0, 0, 0, :2].tolist() == [1, 1]
    assert torch.signbit(top[0, 0, 0, 2])


def test_mvn_makes_four_axes_and_stays_finite() -> None:
    net = _net(_layer("MVN", "a"), (2, 3))
    x = torch.full((2, 3), 0.1, requires_grad=True)
    top = net(x)["t"]
    assert top.shape == (2, 3, 1, 1)
    assert not top.any()
    top.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (_layer("BatchNorm", "a"), [(3,)]),
        (_layer("PReLU", "a"), [(2, 3, 4, 5, 6)]),
        (_layer("MVN", "a"), [(2, 3, 4, 5, 6)]),
        (_layer("EuclideanLoss", "ab"), [(2, 3, 1, 1, 1)] * 2),
        (_layer("HingeLoss", "ab"), [(2, 3, 1, 1, 1), (2,)]),
        (_layer("InfogainLoss", "abc"), [(2, 3), (2,), (3, 3)]),
        (
            'layer { name: "l" type: "SoftmaxWithLoss" bottom: "a" bottom: "b" top: "t" top: "p" '
            "loss_weight: 1 loss_weight: 0 }",
            [(2, 3), (2,)],
        ),
        (
            _layer(
                "InnerProduct",
                "a",
                "inner_product_param { num_output: 1 weight_filler { type: "
                '"gaussian" sparse: 2 } }',
            ),
            [(2, 3)],
        ),
        (
            _layer(
                "Convolution",
                "a",
                "convolution_param { num_output: 1 kernel_size: 1 "
                'weight_filler { type: "xavier" } }',
            ),
            [(1, 1, 2, 2, 2)],
        ),
        ('layer { name: "l" type: "Split" bottom: "a" top: "a" }', [(2, 3)]),
        (_filled("std: 0"), [(2, 3)]),
        (_filled("sparse: -2"), [(2, 3)]),
        (_layer("Log", "a", "log_param { base: 1 }"), [(2, 3)]),
        (_layer("Im2col", "a", "convolution_param { kernel_size: 1 }"), [(2, 3)]),
        (_layer("Filter", "ab"), [(), (2,)]),
        (_layer("BatchReindex", "ab"), [(), (2,)]),
        (_layer("ContrastiveLoss", "abc"), [(), (), (1,)]),
        (_layer("ContrastiveLoss", "abc"), [(2, 3, 1, 1, 1), (2, 3, 1, 1, 1), (2,)]),
        (_layer("ContrastiveLoss", "abc"), [(2, 3), (2, 3), (1, 2)]),
        (_layer("Scale", "ab", "scale_param { bias_term: true }"), [(5,), ()]),
        (_dummy("num: 1 channels: 2 height: 3 width: 4 shape { dim: 2 }"), []),
        (_dummy("num: 1 num: 2 num: 3 channels: 2 height: 3 width: 4"), []),
        (_dummy("shape { dim: 2 } data_filler { } data_filler { } data_filler { }"), []),
    ],
)
def test_refused_as_in_caffe(text: str, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(PrototxtError, match=r"layer 'l'"):
        _net(text, *shapes)


def test_dummy_sizes_are_given_once_or_for_each_top() -> None:
    sizes = "num: 2 num: 3 channels: 4 height: 1 width: 5 width: 6"
    assert build(parse_net(_dummy(sizes))).blobs == {"t": (2, 4, 1, 5), "u": (3, 4, 1, 6)}


def test_accepted_as_in_caffe() -> None:
    _net(_layer("Pooling", "a", "pooling_param { kernel_size: 2 kernel_h: 3 }"), (1, 1, 5, 5))
    _net(_layer("Convolution", "a", f"convolution_param {{ num_output: 4 {ONES} }}"), (2, 3))
    longer = _net(_layer("ContrastiveLoss", "abc"), (1, 2), (1, 2), (3,))
    part = torch.tensor([0.5, 1, 1])  # Caffe takes whole numbers: 0.5 is none that is similar
    assert longer(torch.full((1, 2), 0.0), torch.full((1, 2), 0.0), part)["t"] == 0.5
    _net(_layer("SigmoidCrossEntropyLoss", "ab"), (2, 3, 1, 1, 1), (2, 3, 1, 1, 1))
    twice = _layer("Power", "a") + _layer("Power", "t", tops="u")
    assert [
        node.layer.name
        for node in build(parse_net('input: "a" input_shape { dim: 1 } ' + twice)).nodes
    ] == ["input", "l", "l"]


@pytest.mark.parametrize(
    ("text", "shapes", "values"),
    [
        (_layer("SoftmaxWithLoss", "ab"), [(2, 3), (2,)], [0, 3]),
        (
            _layer("SoftmaxWithLoss", "ab", "loss_param { ignore_label: 9 }"),
            [(2, 3), (2,)],
            [9, -1],
        ),
        (_layer("MultinomialLogisticLoss", "ab"), [(2, 3), (2,)], [-1, 0]),
        (_layer("HingeLoss", "ab"), [(2, 3), (2,)], [7, 0]),
        (_layer("Accuracy", "ab", tops='t" top: "each'), [(2, 3), (2,)], [0, 5]),
        (_layer("BatchReindex", "ab"), [(2, 3), (2,)], [0, 2]),
    ],
)
def test_labels_that_are_no_class(
    text: str, shapes: list[tuple[int, ...]], values: list[float]
) -> None:
    net = _net(text, *shapes)
    wrong = next(v for v in values if not 0 <= v < 3 - ("Reindex" in text) and v != 9)
    with pytest.raises(DataError, match=f"layer 'l': blob 'b' holds {wrong}, which is no class"):
        net(torch.zeros(shapes[0]), torch.tensor(values, dtype=torch.float32))


@pytest.mark.parametrize(("options", "share"), [("", 0.5), ("top_k: 0", 0), ("top_k: 3", 0.5)])
def test_a_label_that_is_no_class_is_never_met(options: str, share: float) -> None:
    net = _net(_layer("Accuracy", "ab", f"accuracy_param {{ {options} }}"), (2, 3), (2,))
    assert net(torch.eye(2, 3), torch.tensor([0.0, 255.0]))["t"] == share


def test_indices_of_embed() -> None:
    options = "embed_param { num_output: 2 input_dim: 4 }"
    net = _net(_layer("Embed", "a", options), (2,))
    with pytest.raises(DataError, match="blob 'a' holds 4, which is no class: there are 4"):
        net(torch.tensor([0.0, 4]))
