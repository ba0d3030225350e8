"""Blobs that share memory or are overwritten, and where gradients go: Caffe's passes in nets small
enough to check by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, parse_net
from caffe_compat.conversion.deploy import derive
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.errors import CaffeCompatError, PrototxtError, WeightError
from caffe_compat.network.graph import build
from caffe_compat.network.match import match
from caffe_compat.training.solver import Solver
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob

X = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } } '
FORCE = "force_backward: true "


def layer(kind: str, bottom: str, top: str, rest: str = "", name: str = "") -> str:
    bottoms = " ".join(f'bottom: "{blob}"' for blob in bottom.split())
    tops = " ".join(f'top: "{blob}"' for blob in top.split())
    return f'layer {{ name: "{name or top or kind}" type: "{kind}" {bottoms} {tops} {rest} }} '


def face(folder: Path, text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    (folder / "net.prototxt").write_text(text)
    return caffe.Net(str(folder / "net.prototxt"), phase)


def passes(net: caffe.Net, x: list[float], top: str, diff: float = 1.0) -> list[float]:
    """The gradient that comes to x."""
    net.blobs["x"].data[...] = x
    net.forward()
    net.blobs[top].diff[...] = diff
    net.backward()
    return [round(float(value), 5) for value in net.blobs["x"].diff.ravel()]


OUT = layer("Power", "x", "y")


@pytest.mark.parametrize(
    ("kind", "options", "x", "gradient"),
    [
        # y = -x below 0 stands in the bottom when its sign is asked for: it is above 0 by then
        ("ReLU", "relu_param { negative_slope: -1 }", [-2, 2, 0], [1, 1, -1]),
        # the derivative at log(x) instead of at x, squared, as it is written over the gradient
        ("Log", "", [np.e, np.e**2, np.e**0.5], [1, 0.25, 4]),
        ("Power", "power_param { scale: 3 }", [1, 2, 3], [9, 9, 9]),
        ("Power", "power_param { power: 2 }", [1, 2, 3], [4, 64, 324]),
        # alpha + y with y < 0 in the place of the bottom: as it should be
        ("ELU", "", [-1, 1, 2], [round(float(np.exp(-1)), 5), 1, 1]),
        # sigmoid(log(1 + e^0))
        ("BNLL", "", [0, 0, 0], [0.66667] * 3),
        ("TanH", "", [0, 0, 0], [1, 1, 1]),
        # from the top and the sigmoid that it keeps: as it should be
        ("Swish", "", [0, 1, -1], [0.5, 0.92767, 0.07233]),
    ],
)
def test_in_place_layers_read_overwritten_data(
    kind: str, options: str, x: list[float], gradient: list[float], tmp_path: Path
) -> None:
    net = face(tmp_path, FORCE + X + layer(kind, "x", "x", options, "a") + OUT)
    np.testing.assert_allclose(passes(net, x, "y", 1.0), gradient, atol=2e-5)


def test_chain_in_place(tmp_path: Path) -> None:
    """ReLU sees the sigmoid's 0.5 where its own 0 was."""
    chain = layer("ReLU", "x", "x", name="a") + layer("Sigmoid", "x", "x", name="b")
    assert passes(face(tmp_path, FORCE + X + chain + OUT), [-1, -2, -3], "y") == [0.25] * 3


@pytest.mark.parametrize("kind", ["Split", "Flatten", "Reshape", "Concat", "Slice", "Permute"])
def test_siblings_see_what_is_written_in_place(kind: str, tmp_path: Path) -> None:
    options = "reshape_param { shape { dim: 3 dim: 1 } }" if kind == "Reshape" else ""
    text = X + layer("Power", "x", "c") + layer(kind, "c", "f", options)
    text += layer("ReLU", "f", "f", name="r") + layer("Power", "c", "y")
    net = face(tmp_path, FORCE + text + layer("Power", "f", "z"))
    net.blobs["z"].diff[...] = 10
    gradient = passes(net, [-1, 0, 2], "y")
    for name in ("c", "f", "y", "z"):
        np.testing.assert_array_equal(net.blobs[name].data.ravel(), [0, 0, 2])
    assert gradient == [1, 1, 11]  # y's reader knows nothing of the ReLU
    values = Net(parse_net(text))(torch.tensor([[-1.0, 0, 2]]))
    assert values["y"].tolist() == [[0, 0, 2]]


def test_normalize_in_place_gives_its_bottom_no_gradient(tmp_path: Path) -> None:
    """The fork writes over the top's gradient before it subtracts from it; the scale's is whole."""
    text = FORCE + X + layer("Normalize", "x", "x", "norm_param { channel_shared: true }", "n")
    net = face(tmp_path, text + OUT)
    assert passes(net, [3, 4, 0], "y") == [0, 0, 0]
    assert net.params["n"][0].diff.ravel().tolist() == pytest.approx([0.6 + 0.8])


def test_a_parameter_is_overwritten_with_its_blob(tmp_path: Path) -> None:
    text = layer("Parameter", "", "w", "parameter_param { shape { dim: 2 } }")
    net = face(tmp_path, text + layer("ReLU", "w", "w", name="r"))
    net.params["w"][0].data[...] = [-1, 2]
    net.forward()
    assert net.params["w"][0].data.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("reader", "weight"), [("", 0), (layer("Power", "w", "y"), 2)], ids=["not read", "read"]
)
def test_a_parameter_drops_its_loss_weight(reader: str, weight: int, tmp_path: Path) -> None:
    """Its first forward pass shares the blob's gradient; the copy made for a loss that another
    layer reads keeps the weight."""
    options = "loss_weight: 2 parameter_param { shape { dim: 3 } }"
    text = layer("Parameter", "", "w", options) + reader
    scripted = face(tmp_path, text)
    scripted.params["w"][0].data[...] = 1
    scripted.forward()
    scripted.backward()
    assert scripted.params["w"][0].diff.tolist() == [weight] * 3
    net = Net(parse_net(text), phase="TRAIN")
    (values,) = net.parameters()
    with torch.no_grad():
        values.fill_(1)
    loss = net.loss(net.all_blobs())
    loss.backward()
    assert loss.item() == 3 * weight
    assert values.grad is not None
    assert values.grad.tolist() == [weight] * 3


@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        (layer("ReLU", "c", "c", name="r") + layer("Dropout", "c", "c", name="d"), True),
        (
            layer("BatchNorm", "c", "c", name="b")
            + layer("Scale", "c", "c", "scale_param { bias_term: true }", "s")
            + layer("ReLU", "c", "c", name="r"),
            True,
        ),
        (layer("PReLU", "c", "c", name="p"), True),
        (layer("Sigmoid", "c", "c", name="s"), True),
        (layer("Sigmoid", "c", "c", name="s") + layer("Dropout", "c", "c", name="d"), False),
        (layer("BNLL", "c", "c", name="b"), False),
        (layer("ELU", "c", "c", name="e"), False),
    ],
)
def test_what_works_in_place_without_harm_is_plain(rest: str, plain: bool) -> None:
    convolved = layer("InnerProduct", "x", "c", "inner_product_param { num_output: 3 }")
    graph = build(parse_net(FORCE + X + convolved + rest + layer("Power", "c", "y")), phase="TRAIN")
    assert graph.memory.plain is plain


_SHIFTED = "mvn_param { normalize_variance: false across_channels: true }"
_BY_HAND = {
    "ELU": ("", lambda x, now, diff: diff * np.where(x > 0, 1, 1 + now)),
    "Power": ("power_param { power: 3 }", lambda x, now, diff: diff * 3 * now / x),
    "Softmax": (
        "softmax_param { axis: -1 }",
        lambda x, now, diff: (diff - (diff * now).sum(1, keepdims=True)) * now,
    ),
}


@pytest.mark.parametrize("kind", _BY_HAND)
def test_mvn_in_place_gives_two_axes_two_more(kind: str, tmp_path: Path) -> None:
    """Its blob becomes 1×3×1×1; the layer before it counts its axes from its own 1×3, on what the
    blob holds by then."""
    options, by_hand = _BY_HAND[kind]
    text = FORCE + X + layer(kind, "x", "y", options) + layer("MVN", "y", "y", _SHIFTED, "m")
    net = face(tmp_path, text)
    x = np.array([[0.5, -1, 2]], np.float32)
    net.blobs["x"].data[...] = x
    net.forward()
    now = net.blobs["y"].data.reshape(1, 3).copy()
    diff = np.array([[1, 2, 4]], np.float32)
    net.blobs["y"].diff[...] = diff.reshape(1, 3, 1, 1)
    net.backward()
    wanted = by_hand(x, now, diff - diff.mean())
    np.testing.assert_allclose(net.blobs["x"].diff, wanted, rtol=1e-5)


def test_mvn_in_place_overwrites_a_parameter(tmp_path: Path) -> None:
    text = layer("Parameter", "", "w", "parameter_param { shape { dim: 1 dim: 2 } }")
    net = face(tmp_path, text + layer("MVN", "w", "w", _SHIFTED, "m"))
    net.params["w"][0].data[...] = [[1, 5]]
    net.forward()
    assert net.params["w"][0].data.tolist() == [[-2, 2]]


def test_changing_the_size_in_place_is_refused() -> None:
    with pytest.raises(PrototxtError, match="works in place on 'x'"):
        build(
            parse_net(X + layer("InnerProduct", "x", "x", "inner_product_param { num_output: 2 }"))
        )


# ---------------------------------------------------------------- where gradients go

T = 'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 1 dim: 3 } } } '
IP = "inner_product_param { num_output: 3 }"


def test_parameters_outside_a_loss_get_no_gradient(tmp_path: Path) -> None:
    text = X + T + layer("InnerProduct", "x", "beside", IP) + layer("InnerProduct", "x", "y", IP)
    text += layer("EuclideanLoss", "y t", "l")
    for force in ("", FORCE):
        net = face(tmp_path, force + text)
        net.blobs["t"].data[...] = 1
        passes(net, [1, 2, 3], "beside")
        assert net.params["y"][0].diff.any()
        assert net.params["beside"][0].diff.any() == bool(force)
        assert net.blobs["beside"].diff.tolist() == [[1, 1, 1]]  # an output's diff stays


@pytest.mark.parametrize("weight", ["", "loss_weight: 2"])
def test_a_loss_that_is_read_again(weight: str, tmp_path: Path) -> None:
    """Its own weight of 1 gives way to the reader's gradient; a weight that was given does not."""
    text = FORCE + X + T + layer("EuclideanLoss", "x t", "l", weight)
    net = face(tmp_path, text + layer("Power", "l", "y", "power_param { scale: 3 }"))
    total = 3 + (2 if weight else 0)
    assert passes(net, [1, 0, 0], "y") == [total, 0, 0]
    assert net.outputs == (["l_l_0_split_0", "y"] if weight else ["y"])
    assert float(net.blobs["l"].diff) == total


def test_automatic_tops(tmp_path: Path) -> None:
    net = face(tmp_path, X + T + layer("EuclideanLoss", "x t", ""))
    assert net.outputs == []
    assert list(net.blobs) == ["x", "t", "(automatic)"]


def test_automatic_tops_have_one_name(tmp_path: Path) -> None:
    """Of several the last one is found by it, at the first one's place."""
    two = layer("EuclideanLoss", "x t", "", "loss_weight: 2", "l1") + OUT
    text = FORCE + X + T + two + layer("EuclideanLoss", "x t", "", "loss_weight: 3", "l2")
    net = face(tmp_path, text + layer("SigmoidCrossEntropyLoss", "x t", "", name="l3"))
    net.blobs["x"].data[...] = [[2, 0, 0]]
    assert list(net.forward()) == net.outputs == ["y"]
    assert list(net.blobs) == ["x", "t", "(automatic)", "y"]
    assert net._blob_names == ["x", "t", "(automatic)", "y", "(automatic)", "(automatic)"]
    assert [round(float(blob.data), 3) for blob in net._blobs[2::2]] == [2, 2]
    expected = np.log1p(np.exp(2)) + 2 * np.log(2)
    np.testing.assert_allclose(net.blobs["(automatic)"].data, expected, rtol=1e-6)
    assert float(net.blobs["(automatic)"].diff) == 1
    assert net.top_names["l1"] == net.top_names["l3"] == ["(automatic)"]
    assert net._top_ids(2) == [2]
    assert net._top_ids(4) == [4]
    assert net.blob_loss_weights["(automatic)"] == 1
    net.backward()
    slope = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(net.blobs["x"].diff, [[2 * 2 + 3 * 2 + slope, 0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        layer("Parameter", "", "w", "parameter_param { shape { dim: 1 dim: 3 } }")
        + layer("Eltwise", "x w", "y"),
        layer("Scale", "x", "y", "scale_param { axis: 0 num_axes: -1 }", "w"),
    ],
)
def test_gradients_that_caffe_overwrites(text: str, tmp_path: Path) -> None:
    net = face(tmp_path, FORCE + X + text)
    for _ in range(2):
        passes(net, [1, 1, 1], "y")
    assert net.params["w"][0].diff.tolist() == [[1, 1, 1]]


def test_statistics_move_once_a_pass(tmp_path: Path) -> None:
    text = X + layer("Power", "x", "c") + layer("BatchNorm", "c", "b") + layer("Power", "b", "y")
    net = face(tmp_path, text.replace("dim: 1 dim: 3", "dim: 4 dim: 3"))
    net.forward()
    assert net.blobs["b"].data.shape == (4, 3)
    net.backward()
    assert net.params["b"][2].data.tolist() == [1]


def test_scripts_may_write_into_blobs_between_the_passes(tmp_path: Path) -> None:
    net = face(
        tmp_path, FORCE + X + layer("Power", "x", "y", "power_param { power: 2 }"), caffe.TEST
    )
    net.blobs["x"].data[...] = [1, 2, 3]
    net.forward()
    net.blobs["x"].data[...] = [5, 6, 7]
    net.blobs["y"].diff[...] = 1
    assert net.backward()["x"].tolist() == [[10, 12, 14]]


def test_inputs_beside_data_layers(tmp_path: Path) -> None:
    dummy = "dummy_data_param { shape { dim: 1 dim: 3 } data_filler { value: 2 } }"
    net = face(tmp_path, X + layer("DummyData", "", "d", dummy) + layer("Eltwise", "x d", "y"))
    net.blobs["x"].data[...] = 1
    assert net.forward()["y"].tolist() == [[3, 3, 3]]
    assert net.inputs == ["x"]


def test_sizes_that_parameters_do_not_fit(tmp_path: Path) -> None:
    net = face(tmp_path, X + layer("InnerProduct", "x", "y", IP), caffe.TEST)
    net.blobs["x"].reshape(1, 4)
    with pytest.raises(CaffeCompatError, match=r"need a weight of shape \(3, 4\)"):
        net.reshape()
    with pytest.raises(CaffeCompatError, match=r"need a weight of shape \(3, 4\)"):
        net.forward()


# ---------------------------------------------------------------- trainings

DATA = layer(
    "DummyData",
    "",
    "x t",
    "dummy_data_param { shape { dim: 1 dim: 2 } data_filler { value: 1 } data_filler { value: 0 } }",
    "data",
)


def _trained(text: str, settings: str = "") -> Solver:
    net = f"net_param {{ {DATA} {text} }}"
    return Solver(parse_solver(f'{net} base_lr: 1 lr_policy: "fixed" max_iter: 9 {settings}'))


def _weights(solver: Solver, name: str) -> list[float]:
    (tensor,) = (t for node, _, t in solver.net.owned_params() if node.layer.name == name)
    return [round(value, 5) for value in tensor.flatten().tolist()]


def test_training_with_overwritten_data() -> None:
    """y = -w x: below 0 the slope -1 makes it positive, and its gradient that of a positive one."""
    text = layer("Scale", "x", "y", "scale_param { axis: 1 filler { value: -0.5 } }", "w")
    text += layer("ReLU", "y", "y", "relu_param { negative_slope: -1 }", "r")
    solver = _trained(text + layer("EuclideanLoss", "y t", "l"))
    assert solver.step().loss == pytest.approx(0.25)
    assert _weights(solver, "w") == [-1.0, -1.0]  # -0.5 - 0.5, where the derivative gives 0


def test_training_does_not_add_up_what_caffe_overwrites() -> None:
    text = layer("Scale", "x", "y", "scale_param { axis: 0 num_axes: -1 filler { value: 1 } }", "w")
    text += layer("EuclideanLoss", "y t", "l")
    solver = _trained(text, "iter_size: 2")
    solver.step()
    assert _weights(solver, "w") == [0.5, 0.5]  # one batch's gradient, divided by two


def test_training_by_a_loss_that_is_read_again() -> None:
    text = layer("Scale", "x", "y", "scale_param { axis: 1 filler { value: 1 } }", "w")
    text += layer("EuclideanLoss", "y t", "l")
    text += layer("Power", "l", "p", "power_param { scale: 0.25 } loss_weight: 2")
    solver = _trained(text)
    # first the loss counts with its weight of 1, then with the gradient that came to it
    assert solver.step().loss == pytest.approx(1 + 2 * 0.25)
    assert _weights(solver, "w") == [0.5, 0.5]
    assert solver.step().loss == pytest.approx(0.25 * (0.5 + 2 * 0.25))


FULL = "inner_product_param { num_output: 2 bias_term: false weight_filler { value: 1 } }"


def test_training_by_a_loss_weight_in_place() -> None:
    """Its gradient is the layer's own; what that left counts as the weight in the next pass."""
    text = layer("InnerProduct", "x", "y", FULL, "w")
    text += layer("Power", "y", "y", "power_param { scale: 0.25 } loss_weight: 2", "half")
    solver = _trained(text + layer("Silence", "t", ""))
    assert solver.step().loss == pytest.approx(2 * 2 * 2 * 0.25)
    # Caffe writes the slope over the gradient, and multiplies it by itself
    assert _weights(solver, "w") == [1 - 0.25**2] * 4
    assert solver.step().loss == pytest.approx(2 * 2 * (1 - 0.25**2) * 0.25 * 0.25**2)


@pytest.mark.parametrize("kind", ["BatchNorm", "Softmax", "MVN", "LRN", "TanH"])
def test_what_is_not_propagated_down_does_not_train(kind: str) -> None:
    """Some layers write the bottom's gradient all the same: the layer below does not take it."""
    shape = "reshape_param { shape { dim: 1 dim: 2 dim: 1 dim: 1 } }"
    text = layer("InnerProduct", "x", "y", FULL, "below")
    text += layer("Reshape", "y", "r", shape)
    text += layer(kind, "r", "z", "propagate_down: false", "stop")
    text += layer("Reshape", "z", "u", "reshape_param { shape { dim: 1 dim: 2 } }")
    text += layer("Bias", "u", "v", "bias_param { filler { value: 1 } }", "above")
    solver = _trained(text + layer("EuclideanLoss", "v t", "l"))
    solver.step()
    assert _weights(solver, "below") == [1, 1, 1, 1]
    assert _weights(solver, "above") != [1, 1]


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [
        ("", "", -1.0),
        ("", "lr_mult: 0.5", 0.0),
        ("lr_mult: 0.5", "", 0.0),
        ("", "lr_mult: 0", 1.0),
        ("", "decay_mult: 0.5", -1.5),
    ],
)
def test_the_first_layer_that_says_how_a_shared_parameter_learns(
    first: str, second: str, weight: float
) -> None:
    text = ""
    for name, param in (("a", first), ("b", second)):
        text += layer("InnerProduct", "x", name, f'param {{ name: "w" {param} }} {FULL}')
        text += layer("Reduction", name, f"l{name}", "loss_weight: 1")
    decay = "weight_decay: 1" if "decay" in second else ""
    solver = _trained(text + layer("Silence", "t", ""), decay)
    solver.step()
    assert _weights(solver, "a") == [weight] * 4


@pytest.mark.parametrize("memory_shared", [False, True])
@pytest.mark.parametrize(("second", "gradient"), [("", 2.0), ("lr_mult: 0", 1.0)])
def test_a_layer_without_a_rate_adds_no_gradient_to_a_shared_parameter(
    second: str, gradient: float, memory_shared: bool
) -> None:
    """The rate is 0 for both layers then; a limit of the gradients' norm counts what there is."""
    text = ""
    for name, param in (("a", ""), ("b", second)):
        text += layer("InnerProduct", "x", name, f'param {{ name: "w" {param} }} {FULL}')
        text += layer("Reduction", name, f"l{name}", "loss_weight: 1")
    if memory_shared:  # such networks run in passes of their own
        text += layer("Reshape", "x", "r", "reshape_param { shape { dim: 2 } }")
        text += layer("ReLU", "r", "r")
    solver = _trained(text + layer("Silence", "t", ""))
    assert solver.net.graph.memory.plain != memory_shared
    given: dict[str, float] = {}
    solver.on_gradients = lambda _, pairs: given.update(
        (name, float(tensor.max())) for name, tensor in pairs
    )
    solver.step()
    assert list(given.values()) == [gradient]


@pytest.mark.parametrize(
    ("stored", "value"),
    [("ab", 2.0), ("ba", 1.0), ("b", 2.0), ("cb", 2.0), ("abc", 3.0), ("", 1.0)],
)
def test_weights_that_are_stored_with_a_layer_that_shares_them(stored: str, value: float) -> None:
    """Caffe copies those of every layer into the one blob: the file's last ones stay, and every way
    to read them says the same."""
    text = X
    for name in "abc":
        text += layer("InnerProduct", "x", name, f'param {{ name: "w" }} {FULL}')
    spec = parse_net(text)
    values = {"a": 1.0, "b": 2.0, "c": 3.0}
    weights = Weights(
        tuple(
            LayerBlobs(name, "InnerProduct", (Blob(np.full((2, 3), values[name], np.float32)),))
            for name in stored
        ),
        spec,
    )
    net = Net(spec, weights, strict=bool(stored))
    assert {float(t.detach().max()) for _, _, t in net.owned_params()} == {value}
    matched = match(net.graph, weights).blobs.values()
    assert not stored or {float(blobs[0].data.max()) for blobs in matched} == {value}


def test_a_network_keeps_the_weights_that_it_was_given() -> None:
    """Learning changes its own copy."""
    spec = parse_net(X + layer("InnerProduct", "x", "a", FULL))
    weights = Net(spec).weights()
    before = weights.layers[0].blobs[0].data.copy()
    net = Net(spec, weights)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(weights.layers[0].blobs[0].data, before)


def test_a_shared_bias_may_be_missing_where_layers_may() -> None:
    """As an HDF5 model of Caffe's leaves it once its owner has another name."""
    full = 'inner_product_param { num_output: 2 weight_filler { type: "constant" value: 1 } }'
    text = X
    for name in "ab":
        text += layer("InnerProduct", "x", name, f'param {{}} param {{ name: "bias" }} {full}')
    spec = parse_net(text)
    only = LayerBlobs("b", "InnerProduct", (Blob(np.full((2, 3), 5, np.float32)),))
    net = Net(spec, Weights((only,), spec), strict=False)
    assert [float(t.detach().max()) for _, _, t in net.owned_params()] == [1, 0, 5]
    with pytest.raises(WeightError, match="layer 'a'") as caught:
        Net(spec, Weights((only,), spec))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("ending", ["caffemodel", "h5"])
def test_scripts_read_weights_of_layers_that_share_all_of_theirs(
    ending: str, tmp_path: Path
) -> None:
    text = X
    for name in "ab":
        text += layer("InnerProduct", "x", name, f'param {{ name: "w" }} {FULL}')
    net = face(tmp_path, text)
    net.params["b"][0].data[...] = 3
    net.save(str(tmp_path / f"w.{ending}"))
    net.params["b"][0].data[...] = 0
    net.copy_from(str(tmp_path / f"w.{ending}"))
    assert (net.params["a"][0].data == 3).all()
    other = face(tmp_path, X + layer("InnerProduct", "x", "other", FULL))
    other.save(str(tmp_path / f"other.{ending}"))
    net.copy_from(str(tmp_path / f"other.{ending}"))
    assert (net.params["a"][0].data == 3).all()


@pytest.mark.parametrize(
    ("kind", "options", "gradient"),
    [
        ("Power", "power_param { power: 3 }", [np.nan, 3, 12]),
        ("Power", "power_param { power: 0.5 shift: 0 }", [np.nan, 0.5, 0.35355]),
        ("Power", "power_param { power: 2 }", [0, 2, 4]),
    ],
)
def test_gradients_that_caffe_takes_by_division(
    kind: str, options: str, gradient: list[float], tmp_path: Path
) -> None:
    net = face(tmp_path, FORCE + X + layer(kind, "x", "y", options))
    np.testing.assert_equal(passes(net, [0, 1, 2], "y"), gradient)


@pytest.mark.parametrize("stable", [True, False])
def test_the_gradient_of_a_product_with_zeros(stable: bool, tmp_path: Path) -> None:
    options = f"eltwise_param {{ operation: PROD stable_prod_grad: {str(stable).lower()} }}"
    net = face(tmp_path, FORCE + X + T + layer("Eltwise", "x t", "y", options))
    net.blobs["t"].data[...] = 3
    np.testing.assert_equal(passes(net, [0, 1, 2], "y"), [3 if stable else np.nan, 3, 3])


def test_a_sum_in_place_loses_its_first_bottom(tmp_path: Path) -> None:
    options = "eltwise_param { coeff: 2 coeff: 5 }"
    text = FORCE + X + T + layer("Power", "x", "p") + layer("Eltwise", "p t", "p", options, "sum")
    net = face(tmp_path, text + layer("Power", "p", "y"))
    net.blobs["t"].data[...] = [1, 2, 3]
    assert passes(net, [7, 8, 9], "y") == [2, 2, 2]
    assert net.blobs["p"].data.ravel().tolist() == [5, 10, 15]
    assert net.blobs["t"].diff.ravel().tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("operation", "first", "second"),
    [
        # the factor 5, 1, 2 stands where the top's gradient was: its square, then 10, 3, 8 times that
        ("PROD", [25, 1, 4], [250, 3, 32]),
        ("PROD stable_prod_grad: false", [1, 1, 1], [2, 3, 4]),
        ("MAX", [0, 0, 0], [0, 0, 0]),  # the first bottom is lost, so it wins nowhere
        ("SUM", [0.125, 0.25, 0.5], [0.125, 0.25, 0.5]),
    ],
)
def test_gradients_of_an_eltwise_in_place(
    operation: str, first: list[float], second: list[float], tmp_path: Path
) -> None:
    """The first bottom's gradient takes the place of the top's."""
    options = f"eltwise_param {{ operation: {operation} }}"
    net = face(tmp_path, FORCE + X + T + layer("Eltwise", "x t", "x", options, "e"))
    net.blobs["x"].data[...] = [2, 3, 4]
    net.blobs["t"].data[...] = [5, 1, 2]
    net.forward()
    net.blobs["x"].diff[...] = [0.125, 0.25, 0.5]
    net.backward()
    assert net.blobs["x"].diff.ravel().tolist() == first
    assert net.blobs["t"].diff.ravel().tolist() == second


@pytest.mark.parametrize("operation", ["PROD", "MAX"])
def test_an_eltwise_in_place_whose_first_bottom_takes_no_gradient(
    operation: str, tmp_path: Path
) -> None:
    """Then nothing is written over the top's gradient."""
    text = X + T + layer("Bias", "t", "b", "bias_param { axis: 0 num_axes: -1 }")
    options = f"eltwise_param {{ operation: {operation} }}"
    text += layer("Eltwise", "x b", "x", options, "e")
    net = face(tmp_path, text + layer("Reduction", "x", "l", "loss_weight: 1"))
    net.blobs["x"].data[...] = [2, 3, 4]
    net.blobs["t"].data[...] = [5, 1, 2]
    net.forward()
    net.backward()
    # the product's slope is the top, which stands where the first bottom was
    # a maximum is the second bottom, since the first one is lost
    expected = [10, 3, 8] if operation == "PROD" else [1, 1, 1]
    assert net.params["b"][0].diff.ravel().tolist() == expected


def test_a_sum_in_place_whose_first_bottom_takes_no_gradient(tmp_path: Path) -> None:
    text = X + T + layer("Bias", "t", "b", "bias_param { axis: 0 num_axes: -1 }")
    options = "eltwise_param { coeff: 2 coeff: 5 }"
    text += layer("Eltwise", "x b", "x", options, "sum")
    net = face(tmp_path, text + layer("Reduction", "x", "l", "loss_weight: 1"))
    net.forward()
    net.backward()
    assert net.params["b"][0].diff.ravel().tolist() == [5, 5, 5]


def test_the_coefficient_of_a_scale_in_place_is_read_as_it_is(tmp_path: Path) -> None:
    """Caffe keeps a copy of the first bottom only."""
    text = FORCE + X + T + layer("Power", "t", "s")
    text += layer("Reshape", "s", "r", "reshape_param { shape { dim: 1 dim: 3 } }")
    text += layer("Scale", "x s", "x", "scale_param { axis: 0 }", "scale")
    net = face(tmp_path, text + layer("Power", "r", "r", "power_param { scale: 10 }", "later"))
    net.blobs["t"].data[...] = 1
    assert passes(net, [1, 1, 1], "x") == [10, 10, 10]


def test_recurrent_layers_write_gradients_that_nobody_asked_for(tmp_path: Path) -> None:
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 3 } } }'
    )
    text += 'layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 2 dim: 1 } } }'
    fill = 'recurrent_param { num_output: 2 weight_filler { type: "uniform" min: 0.1 max: 0.5 } }'
    frozen = "param { lr_mult: 0 } " * 2 + "param { lr_mult: 1 } "
    text += layer("LSTM", "x c", "y", frozen + fill)
    net = face(tmp_path, text + layer("Reduction", "y", "l", "loss_weight: 1"))
    net.blobs["x"].data[...] = 1
    net.blobs["c"].data[...] = 1
    net.forward()
    net.backward()
    assert net.blobs["x"].diff.any()
    assert all(blob.diff.any() for blob in net.params["y"])


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_phase_of_its_own(phase: str) -> None:
    """It decides how the layer works; whether it is there is the network's phase."""
    for own in ("TRAIN", "TEST"):
        net = Net(parse_net(X + layer("Dropout", "x", "y", f"phase: {own}")), phase=phase)
        x = torch.ones(1, 300)
        assert (net(x=x)["y"].max() == 2) == (own == "TRAIN")


PENALTY = layer("Reduction", "y", "penalty", "loss_weight: 1") + layer("Silence", "penalty", "")


@pytest.mark.parametrize("data", ["", layer("EuclideanLoss", "y x", "l"), PENALTY])
def test_a_deploy_net_forgets_the_phase_of_its_training(data: str) -> None:
    """Caffe writes the phase into every layer of a snapshot."""
    text = X + layer("BatchNorm", "x", "y", "phase: TRAIN")
    made, _ = derive(parse_net(text + data))
    assert [spec.phase for spec in made.layers] == ["", ""]


def test_images_that_meet_in_a_concat_are_not_run_one_by_one() -> None:
    """Large maps go image by image through layers that allow it; along the batch none does."""
    conv = (
        'convolution_param { num_output: 8 kernel_size: 5 pad: 2 weight_filler { type: "msra" } }'
    )
    text = 'input: "x" input_shape { dim: 2 dim: 3 dim: 400 dim: 400 } '
    text += layer("Convolution", "x", "a", conv) + layer("Convolution", "x", "b", conv)
    text += layer("Concat", "a b", "c", "concat_param { axis: 0 }")
    text += layer("Convolution", "c", "d", conv)
    x = torch.randn(2, 3, 400, 400)
    direct = Net(parse_net(text), seed=1, engine="direct")
    auto = Net(direct.graph, direct.weights())
    with torch.no_grad():
        expected, found = direct(x)["d"], auto(x)["d"]
    assert found.shape == (4, 8, 400, 400)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_statistics_that_layers_share_by_name(tmp_path: Path) -> None:
    """Three entries with lr_mult: 0 are those of old definitions; their names count."""
    shared = " ".join(f'param {{ name: "{name}" lr_mult: 0 }}' for name in "mvf")
    second = X.replace('"x"', '"z"')
    both = layer("BatchNorm", "x", "a", shared) + layer("BatchNorm", "z", "b", shared)
    net = face(tmp_path, X + second + both)
    net.blobs["x"].data[...] = net.blobs["z"].data[...] = [1, 2, 3]
    net.forward()
    assert net.params["a"][2].data[0] == net.params["b"][2].data[0] == pytest.approx(1.999)
