"""What Caffe's blobs keep in their memory from one pass to the next, or lose in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, PrototxtError, parse_net

_INPUT = 'layer {{ name: "{0}" type: "Input" top: "{0}" input_param {{ shape {{ {1} }} }} }}\n'


def _net(folder: Path, text: str) -> caffe.Net:
    (folder / "net.prototxt").write_text(text)
    return caffe.Net(str(folder / "net.prototxt"), caffe.TRAIN)


@pytest.mark.parametrize("count", [2, 3])
def test_a_maximum_in_place_loses_the_first_bottom(count: int, tmp_path: Path) -> None:
    """Caffe clears the top before it looks at the first bottom, which is the same memory."""
    names = "def"[:count]
    bottoms = " ".join(f'bottom: "{name}"' for name in names)
    net = _net(
        tmp_path,
        "force_backward: true\n"
        + "".join(_INPUT.format(name, "dim: 1 dim: 2") for name in names)
        + f'layer {{ name: "m" type: "Eltwise" {bottoms} top: "d" '
        "eltwise_param { operation: MAX } }",
    )
    for name, values in zip(names, ([9.0, 8.0], [3.0, 2.0], [1.0, 4.0]), strict=False):
        net.blobs[name].data[...] = values
    net.forward()
    assert net.blobs["d"].data.tolist() == [[3.0, 2.0] if count == 2 else [3.0, 4.0]]
    net.blobs["d"].diff[...] = 1
    net.backward()
    # it took nothing, and its zeros stand where the top's gradient was
    assert all(not net.blobs[name].diff.any() for name in names)


def test_constants_are_filled_once(tmp_path: Path) -> None:
    """A layer in place works on what it left there; what a script writes stays."""
    dummy = (
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 } '
        "data_filler { value: 0.5 } } }\n"
    )
    net = _net(
        tmp_path,
        dummy
        + 'layer { name: "p" type: "Power" bottom: "d" top: "d" power_param { scale: 2 } }\n'
        + 'layer { name: "q" type: "Power" bottom: "d" top: "y" power_param { shift: 1 } }',
    )
    assert net.blobs["d"].data.tolist() == [0.5, 0.5]
    for expected in (2.0, 3.0, 5.0):
        assert net.forward()["y"].tolist() == [expected, expected]
    net.blobs["d"].data[0] = 10
    assert net.forward()["y"].tolist() == [21.0, 9.0]


@pytest.mark.parametrize("read_again", [False, True])
@pytest.mark.parametrize(("rows", "slope"), [(1, 2.0), (2, 2.0), (3, 0.0)])
def test_a_loss_weight_stands_in_memory(
    rows: int, slope: float, read_again: bool, tmp_path: Path
) -> None:
    """Caffe writes it when the net is made: it stays where the blob shrinks, and new memory has
    zeros."""
    reader = 'layer { name: "r" type: "Power" bottom: "y" top: "z" power_param { scale: 5 } }'
    net = _net(
        tmp_path,
        "force_backward: true\n"
        + _INPUT.format("d", "dim: 2 dim: 3")
        + 'layer { name: "p" type: "Power" bottom: "d" top: "y" loss_weight: 2 '
        "power_param { scale: 3 } }\n" + (reader if read_again else ""),
    )
    net.blobs["d"].reshape(rows, 3)
    net.reshape()
    net.forward()
    net.backward()
    np.testing.assert_array_equal(net.blobs["d"].diff, np.full((rows, 3), 3 * slope))


def test_parameters_of_a_layer_that_are_one(tmp_path: Path) -> None:
    """The gradient of a factor and a shift with one name: of both uses, once."""
    net = _net(
        tmp_path,
        _INPUT.format("d", "dim: 2 dim: 3")
        + 'layer { name: "s" type: "Scale" bottom: "d" top: "y" param { name: "a" } '
        'param { name: "a" } scale_param { bias_term: true } }\n'
        + 'layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }',
    )
    net.blobs["d"].data[...] = [[1, 2, 3], [4, 5, 6]]
    net.forward()
    net.backward()
    assert net.params["s"][0].diff.tolist() == [7.0, 9.0, 11.0]


_MARGINS = (
    _INPUT.format("d", "dim: 2 dim: 3")
    + _INPUT.format("t", "dim: 2")
    + 'layer { name: "c" type: "InnerProduct" bottom: "d" top: "c" '
    "inner_product_param { num_output: 3 } }\n"
    'layer { name: "h" type: "HingeLoss" bottom: "c" bottom: "t" top: "h" %s }\n'
    'layer { name: "p" type: "Power" bottom: "c" top: "y" loss_weight: 1 '
    "power_param { scale: 2 } }"
)


@pytest.mark.parametrize(
    "options", ["loss_weight: 0", "propagate_down: false propagate_down: false"]
)
def test_margins_that_no_gradient_replaces(options: str, tmp_path: Path) -> None:
    """HingeLoss keeps them in its bottom's diff: the other reader's gradient is added to them."""
    bias = np.array([0.5, -2, 0.25], np.float32)
    expected = [0.5 + 2, 2, 1.25 + 2]  # margins of label 0, and the Power's slope
    net = _net(tmp_path, _MARGINS % options)
    net.params["c"][1].data[...] = bias
    net.forward()
    net.backward()
    np.testing.assert_array_equal(net.blobs["c"].diff, [expected, expected])
    np.testing.assert_array_equal(net.params["c"][1].diff, np.multiply(expected, 2))
    training = Net(parse_net(_MARGINS % options), phase="TRAIN")
    values = dict(training.named_parameters())
    with torch.no_grad():
        values["c.weight"].zero_()
        values["c.bias"].copy_(torch.from_numpy(bias))
    training.loss(training.all_blobs(d=torch.zeros(2, 3), t=torch.zeros(2))).backward()
    assert values["c.bias"].grad is not None
    np.testing.assert_array_equal(values["c.bias"].grad, np.multiply(expected, 2))


_SLICED = _INPUT.format("d", "dim: 2 dim: 3") + (
    'layer { name: "s" type: "Slice" bottom: "d" top: "a" top: "b" slice_param { slice_point: 3 } }'
)
_EMPTY = _INPUT.format("d", "dim: 0 dim: 3")
_SHAPED = 'layer { name: "s" type: "TanH" bottom: "d" top: "y" }'


@pytest.mark.parametrize(("text", "blob"), [(_SLICED, "b"), (_EMPTY + _SHAPED, "d")])
def test_a_blob_that_never_had_a_value(text: str, blob: str, tmp_path: Path) -> None:
    """Caffe gives it no memory, and stops where a layer looks at it."""
    net = _net(tmp_path, text)
    wanted = f"layer 's': blob '{blob}' has no values"
    with pytest.raises(PrototxtError, match=wanted):
        net.forward()
    core = Net(parse_net(text))
    with pytest.raises(PrototxtError, match=wanted):
        core(torch.zeros(net.blobs["d"].shape))


def test_a_blob_that_has_shrunk_to_nothing(tmp_path: Path) -> None:
    """Its memory is still there; and nobody looks at a blob that is silenced."""
    net = _net(tmp_path, _EMPTY + _SHAPED)
    net.blobs["d"].reshape(2, 3)
    net.forward()
    net.blobs["d"].reshape(0, 3)
    assert net.forward()["y"].shape == (0, 3)
    assert Net(parse_net(_INPUT.format("d", "dim: 2 dim: 3") + _SHAPED))(torch.zeros(0, 3))
    _net(tmp_path, _EMPTY + 'layer { name: "s" type: "Silence" bottom: "d" }').forward()
