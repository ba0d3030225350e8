"""Python layers: the user's registered classes run, a module that a file names never does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe_compat import Net, UnsupportedLayer, parse_net
from caffe_compat.layers.python import PythonBlob, PythonLayer, register_python

_Blobs = Sequence[PythonBlob]


@register_python(module="own_layers")
class Affine(PythonLayer):
    """``gain · x + offset`` with a learned gain; counts its calls."""

    calls = 0

    def setup(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        self.offset = float(self.param_str or 0)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 3

    def reshape(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        self.calls += 1
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data + self.offset

    def backward(
        self,
        top: Sequence[PythonBlob],
        propagate_down: Sequence[bool],
        bottom: Sequence[PythonBlob],
    ) -> None:
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff


@register_python(module="own_layers")
class Counter(PythonLayer):
    """A layer without bottoms: 0, 1, 2, ... one more in each pass, in ever longer rows."""

    def setup(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        self.passes = 0

    def reshape(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        top[0].reshape(1, self.passes + 1)

    def forward(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        top[0].data[...] = self.passes
        self.passes += 1


def _text(layer: str, module: str = "own_layers", options: str = "") -> str:
    return f"""
    force_backward: true
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
    layer {{ name: "double" type: "Power" bottom: "x" top: "d" power_param {{ scale: 2 }} }}
    layer {{ name: "p" type: "Python" bottom: "d" top: "y"
            python_param {{ module: "{module}" layer: "{layer}" {options} }} }}
    """


def test_forward_backward_and_parameters() -> None:
    net = Net(parse_net(_text("Affine", options='param_str: "0.5"')))
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    y = net(x)["y"]
    np.testing.assert_allclose(y.detach(), 6 * x.detach() + 0.5)
    (y * torch.arange(6.0).reshape(2, 3)).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad, 6 * np.arange(6.0).reshape(2, 3))
    (gain,) = net.parameters()
    assert gain.item() == 3
    assert gain.grad is not None
    assert gain.grad.item() == pytest.approx(2 * (np.arange(6.0) ** 2).sum())
    assert net(torch.ones(5, 4))["y"].shape == (5, 4)


@register_python(module="own_layers")
class Weighted(PythonLayer):
    """``2 a + 10 b``."""

    def reshape(self, bottom: _Blobs, top: _Blobs) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: _Blobs, top: _Blobs) -> None:
        top[0].data[...] = 2 * bottom[0].data + 10 * bottom[1].data

    def backward(self, top: _Blobs, propagate_down: Sequence[bool], bottom: _Blobs) -> None:
        for blob, factor in zip(bottom, (2, 10), strict=True):
            blob.diff[...] = factor * top[0].diff


@pytest.mark.parametrize("second", ["x", "d"])
def test_a_blob_that_is_read_twice_takes_both_gradients(second: str) -> None:
    text = _text("Weighted").replace('bottom: "d"', f'bottom: "d" bottom: "{second}"')
    net = Net(parse_net(text))
    x = torch.ones(2, 3).requires_grad_()
    y = net(x)["y"]
    expected = 2 * 2 + 10 * (1 if second == "x" else 2)
    assert y.unique().tolist() == [expected]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.unique().tolist() == [expected]


@register_python(module="own_layers")
class Distance(PythonLayer):
    """A loss that, as usual, refuses to send gradients to its labels."""

    def reshape(self, bottom: _Blobs, top: _Blobs) -> None:
        top[0].reshape(1)

    def forward(self, bottom: _Blobs, top: _Blobs) -> None:
        top[0].data[...] = ((bottom[0].data - bottom[1].data) ** 2).sum() / 2

    def backward(self, top: _Blobs, propagate_down: Sequence[bool], bottom: _Blobs) -> None:
        assert list(propagate_down) == [True, False]
        bottom[0].diff[...] = bottom[0].data - bottom[1].data


def test_a_layer_is_told_which_bottoms_need_a_gradient() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: [1, 2] } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p" inner_product_param {
      num_output: 2 weight_filler { value: 1 } } }
    layer { name: "loss" type: "Python" bottom: "p" bottom: "y" top: "loss" loss_weight: 1
      python_param { module: "own_layers" layer: "Distance" } }
    """
    net = Net(parse_net(text), phase="TRAIN")
    net.loss(net(x=torch.ones(1, 2), y=torch.zeros(1, 2))).backward()
    weight, bias = net.parameters()
    assert weight.grad is not None
    assert bias.grad is not None
    assert weight.grad.tolist() == [[2, 2], [2, 2]]
    assert bias.grad.tolist() == [2, 2]


def test_weights_are_stored_and_read() -> None:
    net = Net(parse_net(_text("Affine")))
    with torch.no_grad():
        next(net.parameters()).fill_(7)
    again = Net(parse_net(_text("Affine")), net.weights())
    assert next(again.parameters()).item() == 7


def test_a_layer_without_bottoms_and_a_repeated_pass() -> None:
    text = """
    layer { name: "c" type: "Python" top: "c" python_param { module: "own_layers" layer: "Counter" } }
    layer { name: "e" type: "Power" bottom: "c" top: "e" power_param { shift: 10 } }
    """
    net = Net(parse_net(text))
    assert net()["e"].tolist() == [[10.0]]
    assert net()["e"].tolist() == [[11.0, 11.0]]
    with net.again():
        assert net()["e"].tolist() == [[11.0, 11.0]]
    assert net()["e"].tolist() == [[12.0] * 3]
    net.forget()
    assert net()["e"].tolist() == [[10.0]]


def test_networks_of_one_graph_have_layers_of_their_own() -> None:
    net = Net(parse_net(_text("Affine")))
    other = Net(net.graph)
    net(torch.ones(2, 3))
    calls = [n.graph.nodes[-1].layer.made.calls for n in (net, other)]  # type: ignore[attr-defined]
    assert calls == [1, 0]


def test_a_file_alone_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module lies on the path and would leave a trace: it is not imported."""
    trace = tmp_path / "trace"
    (tmp_path / "trap.py").write_text(f"open({str(trace)!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = parse_net(_text("Trap", "trap"))
    with pytest.raises(UnsupportedLayer, match=r"register_python\(Trap, module='trap'\)"):
        Net(spec)
    assert not trace.exists()
    assert "trap" not in sys.modules


def test_only_layers_can_be_registered() -> None:
    with pytest.raises(TypeError, match="PythonLayer"):
        register_python(dict)
