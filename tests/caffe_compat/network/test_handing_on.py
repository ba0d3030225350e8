"""A Net handed on: pickle, torch.save, copies, torch.export."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch

from caffe_compat import Net, parse_net
from caffe_compat.errors import CaffeCompatError
from tests.nets import small

_POSE = """
name: "two stages"
input: "data" input_dim: 1 input_dim: 3 input_dim: 40 input_dim: 48
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 8 kernel_size: 9 pad: 4 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
        convolution_param { num_output: 4 kernel_size: 5 pad: 2 weight_filler { type: "msra" } } }
layer { name: "concat" type: "Concat" bottom: "conv2" bottom: "pool1" top: "concat" }
layer { name: "Mconv1" type: "Convolution" bottom: "concat" top: "Mconv1"
        convolution_param { num_output: 4 kernel_size: 11 pad: 5 weight_filler { type: "msra" } } }
"""
_SEQUENCE = """
input: "x" input_shape { dim: 3 dim: 2 dim: 4 }
input: "cont" input_shape { dim: 3 dim: 2 }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
        recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_pickle_and_copies() -> None:
    net, x = small(), torch.randn(2, 3, 9, 12)
    with torch.no_grad():
        before = net(x)
        for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
            assert _same(other(x), before)
            assert other.graph.spec == net.graph.spec
            assert [n.layer.spec.message for n in other.graph.nodes] == [
                n.layer.spec.message for n in net.graph.nodes
            ]
            # its memory is its own
            other.get_parameter("conv.weight").zero_()
            assert _same(net(x), before)


@pytest.mark.parametrize("text", [_POSE, _SEQUENCE], ids=["pose", "lstm"])
def test_torch_save(text: str, tmp_path: Path) -> None:
    net = Net(parse_net(text), phase="TRAIN")
    inputs = {name: torch.randn(net.graph.blobs[name]) for name in net.graph.inputs}
    with torch.no_grad():
        net(**inputs)  # an LSTM's state travels with it
        torch.save(net, tmp_path / "net.pt")
        again = torch.load(tmp_path / "net.pt", weights_only=False)
        assert _same(again(**inputs), net(**inputs))
    assert again.graph.phase == "TRAIN"


def test_lines_of_the_definition_survive() -> None:
    net = Net(parse_net(_POSE, "pose.prototxt"))
    again = pickle.loads(pickle.dumps(net))
    conv = next(n.layer for n in again.graph.nodes if n.layer.name == "conv2")
    error = conv.error("wrong", "num_output")
    assert (error.file, error.line) == ("pose.prototxt", 10)


@pytest.mark.long
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("text", [_POSE, None], ids=["pose", "small"])
def test_torch_export(text: str | None, batch: int) -> None:
    """A program with any batch, saved and loaded without this package's classes."""
    net = small() if text is None else Net(parse_net(text))
    example = torch.randn(2, *net.graph.blobs["data"][1:])
    size = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (example,), dynamic_shapes={"args": ({0: size},)})
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    run = torch.export.load(stored).module()
    x = torch.randn(batch, *example.shape[1:])
    with torch.no_grad():
        ours, theirs = net(x), run(x)
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-5)


def test_each_net_of_a_graph_begins_with_zeros() -> None:
    """What one net carries over from its passes is its own."""
    net = Net(parse_net(_SEQUENCE), seed=2)
    x, cont = torch.randn(3, 2, 4), torch.ones(3, 2)
    with torch.no_grad():
        first = net(x=x, cont=cont)["h"].clone()
        later = net(x=x, cont=cont)["h"].clone()
        again = Net(net.graph, net.weights())(x=x, cont=cont)["h"]
    assert not torch.equal(first, later)
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_fewer_streams_go_on_with_the_first_ones() -> None:
    net, other = (Net(parse_net(_SEQUENCE), seed=2) for _ in range(2))
    x, cont = torch.randn(3, 2, 4), torch.ones(3, 2)
    with torch.no_grad():
        net(x=x, cont=cont)
        other(x=x, cont=cont)
        both = net(x=x, cont=cont)["h"][:, :1].clone()
        one = other(x=x[:, :1], cont=cont[:, :1])["h"]
    torch.testing.assert_close(one, both)


def test_streams_that_come_back_go_on() -> None:
    """A short batch between two whole ones: the streams that it left out go on where they were."""
    net, first, others = (Net(parse_net(_SEQUENCE), seed=2) for _ in range(3))
    x, cont = torch.randn(3, 2, 4), torch.ones(3, 2)
    with torch.no_grad():
        for one, streams in ((net, [2, 1]), (first, [2, 2]), (others, [2])):
            for count in streams:
                one(x=x[:, :count], cont=cont[:, :count])
        found = net(x=x, cont=cont)["h"]
        third = first(x=x, cont=cont)["h"][:, :1]
        second = others(x=x, cont=cont)["h"][:, 1:]
    torch.testing.assert_close(found, torch.cat([third, second], 1))


_SHARED = "".join(
    f"""
    input: "{bottom}" input_shape {{ dim: 4 dim: 2 }}
    layer {{ name: "bn_{bottom}" type: "BatchNorm" bottom: "{bottom}" top: "n_{bottom}"
      param {{ name: "m" }} param {{ name: "v" }} param {{ name: "f" }} }}
    layer {{ name: "ip_{bottom}" type: "InnerProduct" bottom: "n_{bottom}" top: "y_{bottom}"
      param {{ name: "w" }} inner_product_param {{ num_output: 1 bias_term: false }} }}"""
    for bottom in "ab"
)


def test_what_layers_share_stays_shared_elsewhere() -> None:
    """In another number format or on another device, learned or not."""
    for move in (lambda net: net.double(), lambda net: net.to("meta"), copy.deepcopy):
        net = move(Net(parse_net(_SHARED), phase="TRAIN"))
        assert net.bn_a.mean is net.bn_b.mean
        assert net.bn_a.scale_factor is net.bn_b.scale_factor
        assert net.ip_a.weight is net.ip_b.weight
        assert len(list(net.parameters())) == 1
    net = Net(parse_net(_SHARED), phase="TRAIN").double()
    net(torch.randn(4, 2).double(), torch.randn(4, 2).double())
    assert float(net.state_dict()["bn_a.scale_factor"]) > 1.9


def test_a_value_of_an_inner_blob_is_refused() -> None:
    """It would be computed all the same."""
    net = Net(parse_net(_POSE))
    x = torch.randn(1, 3, 40, 48)
    for name in ("conv1", "none"):
        with pytest.raises(CaffeCompatError, match=f"no input is called {name}; .* data"):
            net(x, **{name: x})
