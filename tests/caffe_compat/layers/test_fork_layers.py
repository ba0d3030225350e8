"""The forks' layers, and those that BVLC's Caffe got later, against naive references and, where it
has the layer, OpenCV."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, PrototxtError, parse_net, write_weights
from caffe_compat.errors import DataError
from caffe_compat.layers.forks import Reorg
from tests.oracle import forks as oracle

Array = npt.NDArray[np.float32]
_SHAPE = (2, 8, 6, 10)
_RNG = np.random.default_rng(11)
_X = _RNG.standard_normal(_SHAPE, dtype=np.float32)
_Y = _RNG.standard_normal(_SHAPE, dtype=np.float32)
_A = _RNG.standard_normal((2, 8, 1, 1), dtype=np.float32)
_PSPNETS_BN = "BN bn_param { momentum: 0.9 }"
_ROIS = np.array(
    [
        [0, 0, 0, 19, 11],
        [1, 3, 2, 14, 9],
        [1, 5, 5, 5, 5],  # one pixel
        [0, 9, 8, 2, 1],  # inside out
        [0, -6, -4, 40, 30],  # beyond the map
        [1, 38, 22, 60, 40],  # wholly outside
        [0, 2.5, 3.5, 8.5, 9.5],  # halves
    ],
    np.float32,
)


def net_of(layer: str, **inputs: Array) -> Net:
    """A net of one layer ("TYPE options") on inputs, with parameters between 0.5 and 1.5."""
    head = "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {d}" for d in value.shape)} }}\n'
        for name, value in inputs.items()
    )
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    kind, _, options = layer.partition(" ")
    net = Net(parse_net(f'{head}layer {{ name: "l" type: "{kind}" {bottoms} top: "t" {options} }}'))
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for _, _, tensor in net.owned_params():
            tensor.copy_(torch.from_numpy(np.asarray(rng.random(tensor.shape) + 0.5, np.float32)))
    return net


def _run(net: Net, **inputs: Array) -> Array:
    found: Array = net(**{n: torch.from_numpy(v) for n, v in inputs.items()})["t"].detach().numpy()
    return found


def _params(net: Net) -> list[Any]:
    return [t.detach().numpy().astype(np.float64) for _, _, t in net.owned_params()]


def _mask(pooled: Array) -> Array:
    """Where a pooling of 2×2 finds the maxima of a blob; an odd side is pooled to its end."""
    pool = net_of("Pooling pooling_param { kernel_size: 2 stride: 2 }", x=pooled)
    layer = pool.graph.nodes[-1].layer
    layer.spec = layer.spec.with_blobs(["x"], ["t", "m"])
    found: Array = layer.forward([], torch.from_numpy(pooled))[1].numpy()
    return found


_MASK = _mask(_Y)
_POOLED = np.ascontiguousarray(_X[:, :, :3, :5])

_DEPTH = "convolution_param { kernel_size: 3 "
CASES: list[tuple[str, dict[str, Array], Callable[..., Any], bool]] = [
    # layer, inputs, reference of (params, inputs), does OpenCV have it?
    (
        f"ConvolutionDepthwise {_DEPTH} num_output: 8 group: 8 pad: 1 stride: 2 }}",
        {"x": _X},
        lambda p, x: oracle.depthwise(x, p[0], p[1], 2, 1, 1),
        True,
    ),
    (
        f"ConvolutionDepthwise {_DEPTH} pad: 2 dilation: 2 bias_term: false }}",
        {"x": _X},
        lambda p, x: oracle.depthwise(x, p[0], np.zeros(8), 1, 2, 2),
        False,
    ),
    (
        "Permute permute_param { order: 0 order: 2 order: 3 order: 1 }",
        {"x": _X},
        lambda p, x: oracle.permute(x, [0, 2, 3, 1]),
        True,
    ),
    ("Permute permute_param { order: 3 }", {"x": _X}, lambda p, x: oracle.permute(x, [3]), False),
    (
        "Normalize norm_param { across_spatial: false channel_shared: false }",
        {"x": _X},
        lambda p, x: oracle.normalize(x, p[0], False, 1e-10),
        True,
    ),
    (
        "Normalize norm_param { eps: 0.3 }",
        {"x": _X},
        lambda p, x: oracle.normalize(x, p[0], True, 0.3),
        True,
    ),
    ("Swish", {"x": _X}, lambda p, x: oracle.swish(x, 1), True),
    # OpenCV knows no beta
    ("Swish swish_param { beta: 2.5 }", {"x": _X}, lambda p, x: oracle.swish(x, 2.5), False),
    (
        "Clip clip_param { min: -0.5 max: 0.75 }",
        {"x": _X},
        lambda p, x: oracle.clip(x, -0.5, 0.75),
        False,
    ),
    # OpenCV 4.14 exchanges the two maps: its top is a · y + x
    ("Axpy", {"a": _A, "x": _X, "y": _Y}, lambda p, a, x, y: oracle.axpy(a, x, y), False),
    (
        "ShuffleChannel shuffle_channel_param { group: 4 }",
        {"x": _X},
        lambda p, x: oracle.shuffle(x, 4),
        True,
    ),
    (
        "Upsample upsample_param { scale: 2 }",
        {"x": _POOLED, "m": _MASK},
        lambda p, x, m: oracle.unpool(x, m, 6, 10),
        False,
    ),
    (
        "Upsample upsample_param { upsample_h: 7 upsample_w: 10 }",
        {"x": _POOLED, "m": _MASK},
        lambda p, x, m: oracle.unpool(x, m, 7, 10),
        False,
    ),
    (
        "Upsample upsample_param { scale: 2 pad_out_h: true }",
        {"x": _POOLED, "m": _mask(np.ascontiguousarray(_Y[:, :, :5]))},
        lambda p, x, m: oracle.unpool(x, m, 5, 10),
        False,
    ),
    (
        "Upsample upsample_param { scale: 2 pad_out_w: true }",
        {"x": _POOLED, "m": _mask(np.ascontiguousarray(_Y[..., :9]))},
        lambda p, x, m: oracle.unpool(x, m, 6, 9),
        False,
    ),
    (
        "Upsample upsample_param { scale_h: 2 scale_w: 3 }",
        {"x": _X},
        lambda p, x: oracle.nearest(x, 2, 3),
        False,
    ),
    (
        "Interp interp_param { height: 11 width: 17 }",
        {"x": _X},
        lambda p, x: oracle.interp(x, 11, 17),
        True,
    ),
    (
        "Interp interp_param { zoom_factor: 4 }",
        {"x": _X},
        lambda p, x: oracle.interp(x, 21, 37),
        True,
    ),
    (
        "Interp interp_param { shrink_factor: 3 pad_beg: -1 pad_end: -2 }",
        {"x": _X},
        lambda p, x: oracle.interp(x[:, :, 1:-2, 1:-2], 1, 3),
        False,
    ),
    (
        "Interp interp_param { shrink_factor: 2 zoom_factor: 3 }",
        {"x": _X},
        lambda p, x: oracle.interp(x, 7, 13),
        False,
    ),
    (
        "Reorg reorg_param { stride: 2 }",
        {"x": _X},
        lambda p, x: oracle.reorg(x, 2, False),
        True,
    ),
    (
        "Reorg reorg_param { stride: 2 reverse: true }",
        {"x": _X},
        lambda p, x: oracle.reorg(x, 2, True),
        False,
    ),
    (
        "BN bn_param { frozen: true eps: 0.01 }",
        {"x": _X},
        lambda p, x: oracle.bn(x, p, 0.01),
        False,
    ),
    (
        _PSPNETS_BN,
        {"x": _X},
        lambda p, x: oracle.bn(x, p, 1e-5),
        False,
    ),
    (
        "BN bn_param { bn_mode: LEARN }",
        {"x": _X},
        lambda p, x: oracle.bn(x, [*p, x.mean((0, 2, 3)), x.var((0, 2, 3))], 1e-9),
        False,
    ),
    (
        "BN bn_param { bn_mode: INFERENCE }",
        {"x": _X},
        lambda p, x: oracle.bn(x, [*p, np.zeros(8), np.ones(8)], 0),
        False,
    ),
    (
        "SmoothL1Loss smooth_l1_loss_param { sigma: 3 }",
        {"x": _X, "y": _Y},
        lambda p, x, y: oracle.smooth_l1(x, y, None, None, 3),
        False,
    ),
    (
        "SmoothL1Loss",
        {"x": _X, "y": _Y, "w": np.abs(_Y)},
        lambda p, x, y, w: oracle.smooth_l1(x, y, w, None, 1),
        False,
    ),
    (
        "SmoothL1Loss smooth_l1_loss_param { sigma: 2 }",
        {"x": _X, "y": _Y, "w": np.abs(_Y), "o": np.abs(_X)},
        lambda p, x, y, w, o: oracle.smooth_l1(x, y, w, o, 2),
        False,
    ),
    (
        "ROIPooling roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }",
        {"x": _X, "r": _ROIS},
        lambda p, x, r: oracle.roi_pooling(x, r, (3, 2), 0.5),
        True,
    ),
    (
        "PSROIPooling psroi_pooling_param { output_dim: 2 group_size: 2 spatial_scale: 0.5 }",
        {"x": _X, "r": _ROIS},
        lambda p, x, r: oracle.psroi_pooling(x, r, 2, 2, 0.5),
        True,
    ),
]


@pytest.mark.parametrize(
    ("layer", "inputs", "reference"), [c[:3] for c in CASES], ids=[c[0][:50] for c in CASES]
)
def test_as_the_reference(
    layer: str, inputs: dict[str, Array], reference: Callable[..., Any]
) -> None:
    net = net_of(layer, **inputs)
    wanted = reference(_params(net), *(v.astype(np.float64) for v in inputs.values()))
    ours = _run(net, **inputs)
    assert ours.shape == np.shape(wanted) == net.graph.blobs["t"]
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=3e-6 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [(c[0], c[1]) for c in CASES if c[3]],
    ids=[c[0][:50] for c in CASES if c[3]],
)
def test_as_opencv(layer: str, inputs: dict[str, Array], tmp_path: Path) -> None:
    if "r" in inputs:  # OpenCV pools one image only, and goes its own way outside of the map
        rois = _ROIS[[0, 6]].copy()
        rois[:, 0] = 0
        inputs = {"x": np.ascontiguousarray(_X[:1]), "r": rois}
    net = net_of(layer, **inputs)
    theirs = _opencv(net, tmp_path, **inputs)
    np.testing.assert_allclose(_run(net, **inputs), theirs, rtol=0, atol=2e-6)


def _opencv(net: Net, folder: Path, **inputs: Array) -> Any:
    """The last layer's output in OpenCV; it takes the old input fields, as people's files have
    them."""
    (folder / "net.prototxt").write_text(net.graph.spec.to_text())
    write_weights(folder / "net.caffemodel", net.weights(), net.graph.spec)
    reader = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    for name, value in inputs.items():
        reader.setInput(value, name)
    return reader.forward()


@pytest.mark.long
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (layer, inputs)
        for layer, inputs, _, _ in CASES
        if layer.split()[0] not in ("Normalize", "ConvolutionDepthwise")
        and layer != _PSPNETS_BN
        and "w" not in inputs
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_gradients_are_the_derivatives(layer: str, inputs: dict[str, Array]) -> None:
    """In float64, against differences. Normalize and PSPNet's BN have their forks' own gradients:
    the golden cases and test_the_gradient_of_pspnets_bn_in_test hold them."""
    small = {
        name: torch.from_numpy(v[:, :4] if name in ("x", "y", "a", "m") else v).double()
        for name, v in inputs.items()
    }
    if layer.startswith("PSROI"):
        small["x"] = torch.from_numpy(inputs["x"]).double()
    net = net_of(layer, **{name: v.numpy().astype(np.float32) for name, v in small.items()})
    node = net.graph.nodes[-1]
    params = [net.param(p).detach().double() for p in node.params]
    learned = [name for name in small if name in ("x", "y", "a")]
    for name in learned:
        small[name].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *values: node.layer.forward(
            params, *{**small, **dict(zip(learned, values, strict=True))}.values()
        )[0],
        [small[name] for name in learned],
    )


def test_unpooling_where_two_values_meet() -> None:
    """Caffe writes one after the other; each of them gets the gradient of the place."""
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2) + 1
    mask = np.array([5, 5, 0, 5], np.float32).reshape(1, 1, 2, 2)
    net = net_of("Upsample upsample_param { scale: 2 }", x=x, m=mask)
    given = torch.from_numpy(x).requires_grad_()
    top = net(x=given, m=torch.from_numpy(mask))["t"]
    np.testing.assert_array_equal(
        top.detach().numpy(), oracle.unpool(x.astype(np.float64), mask.astype(np.float64), 4, 4)
    )
    (top * torch.arange(16.0).reshape(1, 1, 4, 4)).sum().backward()
    assert given.grad is not None
    assert given.grad.ravel().tolist() == [5, 5, 0, 5]
    with pytest.raises(PrototxtError, match="outside 4×4"):
        net(x=given, m=torch.full((1, 1, 2, 2), 16.0))


@pytest.mark.parametrize(
    ("values", "mask", "wanted"),
    [
        ([1e8, 1], [0, 0], [1, 0, 0, 0]),
        ([1000, 0.001], [2, 2], [0, 0, 0.001, 0]),
        ([np.inf, 1], [0, 0], [1, 0, 0, 0]),
        ([np.inf, 1], [0, 1], [np.inf, 1, 0, 0]),
    ],
)
def test_unpooling_writes_the_value_itself(
    values: list[float], mask: list[float], wanted: list[float]
) -> None:
    """However large the other value is that went to the same place."""
    x, m = np.array([values, mask], np.float32).reshape(2, 1, 1, 1, 2)
    net = net_of("Upsample upsample_param { upsample_h: 2 upsample_w: 2 }", x=x, m=m)
    found = _run(net, x=x, m=m)
    np.testing.assert_array_equal(found.ravel(), np.array(wanted, np.float32))


@pytest.mark.parametrize(
    "layer",
    [
        "ROIPooling roi_pooling_param { pooled_h: 1 pooled_w: 1 }",
        "PSROIPooling psroi_pooling_param { output_dim: 2 group_size: 2 spatial_scale: 1 }",
    ],
    ids=["ROIPooling", "PSROIPooling"],
)
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_regions_that_are_no_place(layer: str, place: int, value: float) -> None:
    """The message gives the first such row, and where it stands."""
    regions = np.array([[0, 1, 1, 4, 4]] * 4, np.float32)
    net = net_of(layer, x=_X, r=regions)
    regions[2:, place] = value
    row = ", ".join(f"{number:g}" for number in regions[2])
    said = rf"^layer 'l': blob 'r' holds the region {re.escape(row)} \(row 2, .* finite"
    with pytest.raises(DataError, match=said):
        _run(net, x=_X, r=regions)


def test_bn_keeps_statistics_while_it_trains() -> None:
    text = """
    input: "x" input_shape { dim: 2 dim: 8 dim: 6 dim: 10 }
    layer { name: "l" type: "BN" bottom: "x" top: "t" bn_param { momentum: 0.75 } }
    """
    net = Net(parse_net(text), phase="TRAIN")
    assert [p.shape for p in net.parameters()] == [(1, 8, 1, 1)] * 2
    net(torch.from_numpy(_X))
    mean, variance = (t.ravel().numpy() for t in net.buffers())
    np.testing.assert_allclose(mean, 0.25 * _X.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(variance, 0.25 * _X.var((0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "mean", "variance"), [("LEARN", [2, 10], [1, 25]), ("INFERENCE", [0, 0], [0, 0])]
)
def test_bn_hands_on_the_statistics_of_the_batch(
    mode: str, mean: list[int], variance: list[int]
) -> None:
    """SegNet's layer has up to three tops: the values, then mean and variance of each channel."""
    text = f"""
    input: "x" input_shape {{ dim: 1 dim: 2 dim: 1 dim: 2 }}
    layer {{ name: "l" type: "BN" bottom: "x" top: "t" top: "mean" top: "variance"
      bn_param {{ bn_mode: {mode} scale_filler {{ type: "constant" value: 1 }} }} }}
    """
    net = Net(parse_net(text))
    found = net(x=torch.tensor([[[[1.0, 3.0]], [[5.0, 15.0]]]]))
    assert found["mean"].shape == found["variance"].shape == (1, 2, 1, 1)
    assert found["mean"].ravel().tolist() == mean
    assert found["variance"].ravel().tolist() == variance
    wanted = [[-1, 1], [-1, 1]] if mode == "LEARN" else [[1, 3], [5, 15]]
    np.testing.assert_allclose(found["t"].detach().reshape(2, 2), wanted, atol=1e-6)


_MODES = ["bn_mode: LEARN", "momentum: 0.75", "momentum: 0.75 frozen: true"]


def _bn_net(folder: Path, phase: int, top: str, options: str, rest: str = "") -> caffe.Net:
    """A BN layer behind a copy of the input, 2×1×1×3."""
    filled = "slope_filler" if "momentum" in options else "scale_filler"
    (folder / f"{top}.prototxt").write_text(f"""
    force_backward: true
    input: "x" input_shape {{ dim: 2 dim: 1 dim: 1 dim: 3 }}
    layer {{ name: "c" type: "Power" bottom: "x" top: "c" }}
    layer {{ name: "l" type: "BN" bottom: "c" top: "{top}"
      bn_param {{ {options} {filled} {{ type: "constant" value: 1.5 }} }} }}
    {rest}
    """)
    return caffe.Net(str(folder / f"{top}.prototxt"), phase)


_SIX = np.array([1, 2, 4, 8, 3, 5], np.float32).reshape(2, 1, 1, 3)


@pytest.mark.parametrize("options", _MODES)
def test_bn_in_place_is_as_apart(options: str, tmp_path: Path) -> None:
    """The normalised values are kept, so that what overwrites the blob changes nothing; a backward
    pass leaves the statistics alone."""
    found = []
    for top in ("apart", "c"):
        after = f'layer {{ name: "r" type: "ReLU" bottom: "{top}" top: "{top}" }}'
        net = _bn_net(tmp_path, caffe.TRAIN, top, options, after)
        net.forward(x=_SIX)
        net.blobs[top].diff[...] = _SIX[::-1]
        net.backward()
        params = [array for blob in net.params["l"] for array in (blob.data, blob.diff)]
        found.append([net.blobs["x"].diff, *params])
    assert found[0][0].any()
    for apart, in_place in zip(*found, strict=True):
        np.testing.assert_array_equal(in_place, apart)


def test_gradients_of_segnets_bn(tmp_path: Path) -> None:
    """Each backward pass replaces those of scale and shift; none comes from the statistics."""
    net = _bn_net(tmp_path, caffe.TRAIN, "t", "bn_mode: LEARN")
    net.forward(x=_SIX)
    net.blobs["t"].diff[...] = _SIX
    for _ in range(2):
        net.backward()
        assert float(net.params["l"][1].diff.sum()) == _SIX.sum()
    text = """
    input: "x" input_shape { dim: 2 dim: 1 dim: 1 dim: 3 }
    layer { name: "l" type: "BN" bottom: "x" top: "t" top: "mean" top: "variance"
      bn_param { bn_mode: LEARN } }
    """
    found = Net(parse_net(text))(x=torch.from_numpy(_SIX).requires_grad_())
    assert [found[name].requires_grad for name in ("t", "mean", "variance")] == [True, False, False]


@pytest.mark.parametrize("options", ["momentum: 0.75", "momentum: 0.75 frozen: true"])
def test_the_gradient_of_pspnets_bn_in_test(options: str, tmp_path: Path) -> None:
    """By the formula of the batch's statistics on what the stored ones normalised; by the stored
    ones alone where they are frozen."""
    net = _bn_net(tmp_path, caffe.TEST, "t", options)
    mean, variance = 1.0, 4 - 1e-5
    net.params["l"][2].data[...], net.params["l"][3].data[...] = mean, variance
    net.forward(x=_SIX)
    net.blobs["t"].diff.flat[0] = 1
    net.backward()
    normalised = (_SIX.ravel() - mean) / 2
    diff = np.array([1.5, 0, 0, 0, 0, 0])
    wanted = diff / 2
    if "frozen" not in options:
        wanted = (diff - normalised * (normalised * diff).mean() - diff.mean()) / 2
    np.testing.assert_allclose(net.blobs["x"].diff.ravel(), wanted, rtol=1e-6, atol=1e-7)


def test_a_depthwise_window_larger_than_its_bottom() -> None:
    """Sizes round towards zero, so that a stride of 2 leaves one window, over 1 2 / 3 4 and zeros."""
    bottom = np.array([[[[1, 2], [3, 4]]]], np.float32)
    net = net_of(f"ConvolutionDepthwise {_DEPTH} stride: 2 bias_term: false }}", x=bottom)
    node = net.graph.nodes[-1]
    with torch.no_grad():
        net.param(node.params[0]).copy_(torch.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    found = _run(net, x=bottom)
    assert found.tolist() == [[[[1 * 1 + 2 * 2 + 3 * 4 + 4 * 5]]]]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("shrink_factor: 2", (2, 2)),
        ("shrink_factor: 2 height: 5 width: 7", (2, 2)),
        ("zoom_factor: 2 height: 5 width: 7", (5, 5)),
        ("shrink_factor: 2 zoom_factor: 2 height: 5 width: 7", (5, 7)),
        ("shrink_factor: 0 zoom_factor: 2 height: 5 width: 7", (5, 7)),
        ("shrink_factor: 2 zoom_factor: 2 height: 5", (3, 3)),
    ],
)
def test_which_size_interp_takes(options: str, size: tuple[int, int]) -> None:
    """One factor comes before height and width, both come after them."""
    net = net_of(f"Interp interp_param {{ {options} }}", x=np.zeros((1, 1, 3, 3), np.float32))
    assert net.graph.blobs[net.graph.outputs[0]] == (1, 1, *size)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("Permute permute_param { order: 1 order: 1 }", "named twice"),
        ("Permute permute_param { order: 4 }", "4 axes"),
        ("ShuffleChannel shuffle_channel_param { group: 3 }", "3 groups"),
        ("Upsample upsample_param { scale: 2 pad_out_h: true }", "second bottom"),
        ("Upsample upsample_param { scale: 3 pad_out_h: true }", "pad_out_h.*a scale of 2"),
        ("Upsample upsample_param { scale_h: 2 scale_w: 3 pad_out_w: true }", "pad_out_w.*of 2"),
        ("Upsample upsample_param { scale: 2 scale_h: 2 scale_w: 2 }", "scale"),
        ("Interp interp_param { }", "zoom_factor"),
        ("Interp interp_param { zoom_factor: 2 pad_beg: 1 }", "only cropping"),
        ("Reorg reorg_param { stride: 3 }", "no multiple"),
        ("Reorg reorg_param { }", "stride"),
        ("BN", "two layouts"),
        ("BN bn_param { bn_mode: LEARN frozen: true }", "two layouts"),
        ("ConvolutionDepthwise convolution_param { kernel_size: 3 num_output: 4 }", "must be 8"),
        ("PriorBox prior_box_param { min_size: 3 }", "img_size"),
        ("PriorBox prior_box_param { min_size: 3 img_size: 9 variance: 1 variance: 2 }", "four"),
        ("PriorBox prior_box_param { min_size: 3 step: 2 step_h: 3 img_size: 9 }", "not both"),
    ],
)
def test_what_is_refused(layer: str, said: str) -> None:
    with pytest.raises(PrototxtError, match=said):
        net_of(layer, x=_X)


@pytest.mark.parametrize(
    ("layer", "shapes", "said"),
    [
        ("SmoothL1Loss", {"x": (2, 3, 4), "y": (2, 4, 3)}, "the same axes"),
        ("SmoothL1Loss", {"x": (2, 12), "y": (2, 3, 4)}, "the same axes"),
        ("SmoothL1Loss", {"x": (1, 2, 1, 1, 3), "y": (1, 2, 1, 1, 3)}, "4 axes or fewer"),
        (
            "DetectionOutput detection_output_param { num_classes: 2 nms_param { nms_threshold: 0.4 } "
            "keep_top_k: 5 }",
            {"loc": (1, 3, 4), "conf": (1, 3, 2), "prior": (1, 2, 12)},
            "offsets of N×12",
        ),
    ],
)
def test_shapes_are_compared_axis_by_axis(
    layer: str, shapes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(PrototxtError, match=said):
        net_of(layer, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def test_prior_boxes_of_blobs_with_fewer_axes() -> None:
    """Missing axes are 1; where the picture's size is given, its blob is not looked at."""
    sized = "PriorBox prior_box_param { min_size: 4 img_size: 20 }"
    lacking = np.zeros((2, 3, 4), np.float32)
    net = net_of(sized, x=lacking, image=np.zeros((1, 2, 3, 4, 5), np.float32))
    full = net_of(sized, x=lacking[..., None], image=np.zeros((1, 3, 8, 8), np.float32))
    ours = _run(net, x=lacking, image=np.zeros((1, 2, 3, 4, 5), np.float32))
    np.testing.assert_array_equal(
        ours, _run(full, x=lacking[..., None], image=np.zeros((1, 3, 8, 8), np.float32))
    )


def test_a_prior_box_without_area_is_refused() -> None:
    net = net_of(
        "DetectionOutput detection_output_param { num_classes: 2 code_type: CENTER_SIZE "
        "nms_param { nms_threshold: 0.4 } keep_top_k: 5 }",
        loc=np.zeros((1, 4), np.float32),
        conf=np.ones((1, 2), np.float32),
        prior=np.zeros((1, 2, 4), np.float32),
    )
    flat = np.array([[[0.2, 0.1, 0.2, 0.4], [0.1] * 4]], np.float32)
    with pytest.raises(PrototxtError, match="a width and a height above 0"):
        _run(net, loc=np.zeros((1, 4), np.float32), conf=np.ones((1, 2), np.float32), prior=flat)


@pytest.mark.parametrize("ratios", [[], [2.0], [2.0, 3.0]])
@pytest.mark.parametrize("large", [None, 25.0])
def test_prior_boxes_as_the_reference(ratios: list[float], large: float | None) -> None:
    image = np.zeros((1, 3, 45, 77), np.float32)
    options = f"min_size: 12 {'' if large is None else f'max_size: {large}'} " + " ".join(
        f"aspect_ratio: {r}" for r in ratios
    )
    net = net_of(f"PriorBox prior_box_param {{ {options} }}", x=_X, image=image)
    ours = _run(net, x=_X, image=image)
    both = [value for r in ratios for value in (r, 1 / r)]
    wanted = oracle.prior_boxes((6, 10), (45, 77), [(12, large)], both, 0.5)
    np.testing.assert_allclose(ours[0, 0], wanted, atol=1e-6)
    assert (ours[0, 1] == np.float32(0.1)).all()


@pytest.mark.parametrize("keep", [-1, 6])
@pytest.mark.parametrize("least", [0.0, 0.3])
def test_detections_as_the_reference(keep: int, least: float) -> None:
    rng = np.random.default_rng(4)
    corner = rng.random((30, 2)) * 0.7
    priors = np.concatenate([corner, corner + 0.05 + 0.25 * rng.random((30, 2))], 1)
    scores = rng.dirichlet([1, 1, 1], 30)
    moved = rng.standard_normal((30, 4)) * 0.02
    inputs = {
        "loc": moved.reshape(1, -1),
        "conf": scores.reshape(1, -1),
        "prior": np.stack([priors.ravel(), np.ones(120)])[None],
    }
    arrays = {name: value.astype(np.float32) for name, value in inputs.items()}
    options = f"num_classes: 3 confidence_threshold: {least} keep_top_k: {keep}"
    net = net_of(
        f"DetectionOutput detection_output_param {{ {options} nms_param {{ nms_threshold: 0.4 }} }}",
        **arrays,
    )
    boxes = priors + moved
    wanted = oracle.detections(boxes, scores, 0, least, 0.4, keep)
    rows = _run(net, **arrays).reshape(-1, 7)
    assert len(rows) == len(wanted)
    for row, (label, score, index) in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(row, [0, label, score, *boxes[index]], atol=1e-6)


def test_reorg_there_and_back() -> None:
    """Where no size changes, the two directions undo each other."""
    x = torch.arange(2 * 16 * 4 * 4.0).reshape(2, 16, 4, 4)
    there = net_of("Reorg reorg_param { stride: 2 reverse: true }", x=x.numpy())
    assert isinstance(there.graph.nodes[-1].layer, Reorg)
    wide = there(x)["t"]
    assert wide.shape == (2, 4, 8, 8)
    np.testing.assert_array_equal(wide.numpy(), oracle.reorg(x.double().numpy(), 2, True))
