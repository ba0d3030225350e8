"""Definitions written in Python, Caffe's messages, and where pixels go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe_compat.pycaffe as caffe
from caffe_compat.definition.prototxt import parse_net
from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import build
from caffe_compat.pycaffe import layers as L
from caffe_compat.pycaffe import params as P
from caffe_compat.pycaffe.coord_map import coord_map_from_to, crop
from caffe_compat.pycaffe.proto import caffe_pb2


def _small() -> caffe.NetSpec:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [4, 1, 12, 10]}, {"dim": [4]}],
        transform_param={"scale": 1 / 255.0},
        ntop=2,
    )
    n.conv = L.Convolution(
        n.data,
        kernel_size=5,
        num_output=6,
        weight_filler={"type": "xavier"},
        param=[{"lr_mult": 1}, {"lr_mult": 2}],
    )
    n.pool = L.Pooling(n.conv, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.relu = L.ReLU(n.pool, in_place=True)
    n.ip = L.InnerProduct(n.relu, num_output=3, weight_filler={"type": "gaussian", "std": 0.1})
    n.loss = L.SoftmaxWithLoss(n.ip, n.label)
    return n


def test_a_definition_in_python_is_the_definition() -> None:
    net = _small().to_proto()
    assert [layer.name for layer in net.layer] == ["data", "conv", "pool", "relu", "ip", "loss"]
    expected = parse_net(
        """
        layer { name: "data" type: "DummyData" top: "data" top: "label" transform_param { scale: 0.00392156862745 }
          dummy_data_param { shape { dim: 4 dim: 1 dim: 12 dim: 10 } shape { dim: 4 } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
          convolution_param { num_output: 6 kernel_size: 5 weight_filler { type: "xavier" } } }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
        layer { name: "relu" type: "ReLU" bottom: "pool" top: "pool" }
        layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
          inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
        """
    ).to_message()
    expected.ClearField("name")
    assert net == expected
    graph = build(parse_net(str(net)))
    assert graph.blobs["pool"] == (4, 6, 4, 3)
    assert text_format.Parse(str(net), caffe_pb2.NetParameter()) == net


def test_names_are_made_up_where_none_are_given() -> None:
    data = L.Input(shape={"dim": [1, 2]})
    one = L.InnerProduct(L.ReLU(data), num_output=2)
    two = L.InnerProduct(one, num_output=2)
    net = caffe.to_proto(two, one)
    assert [layer.name for layer in net.layer] == [
        "Input1",
        "ReLU1",
        "InnerProduct1",
        "InnerProduct2",
    ]
    assert two.to_proto() == caffe.to_proto(two)
    assert list(net.layer[3].bottom) == ["InnerProduct1"]


def test_layers_without_tops_and_with_several() -> None:
    n = caffe.NetSpec()
    n.data, n.other = L.Input(shape={"dim": [2]}, ntop=2)
    n.quiet = L.Silence(n.data, n.other, ntop=0)
    n["again"] = L.Concat(n.data, n.other, concat_param={"axis": 0})
    net = n.to_proto()
    assert [layer.name for layer in net.layer] == ["data", "quiet", "again"]
    assert not net.layer[1].top
    assert net.layer[2].concat_param.axis == 0
    del n.again
    assert n.keys() == ["data", "other", "quiet"]
    with pytest.raises(AttributeError, match="no top 'again'"):
        _ = n.again


def test_a_deep_net_needs_no_deep_stack() -> None:
    top = L.Input(shape={"dim": [1]})
    for _ in range(3000):
        top = L.ReLU(top)
    assert len(top.to_proto().layer) == 3001


def test_what_is_no_top_is_refused() -> None:
    data, label = L.DummyData(shape={"dim": [1]}, ntop=2)
    assert label.n == 1
    for wrong, said in (("data", "str"), (None, "NoneType"), ((data, label), "tuple")):
        with pytest.raises(TypeError, match=f"Convolution input 0 is not a Top .type is {said}"):
            L.Convolution(wrong, num_output=1)
    with pytest.raises(AttributeError, match="no field 'kernel'"):
        L.Convolution(data, kernel=3).to_proto()


def test_values_of_enumerations_and_messages() -> None:
    assert P.Pooling.AVE == caffe_pb2.PoolingParameter.AVE == 1
    assert P.Eltwise.SUM == 1
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert {"NetParameter", "SolverParameter", "Datum", "BlobProto"} <= set(dir(caffe_pb2))
    with pytest.raises(AttributeError, match="no message or enum 'NoParameter'"):
        _ = caffe_pb2.NoParameter
    solver = caffe_pb2.SolverParameter(base_lr=0.5, type="Adam")
    again = caffe_pb2.SolverParameter()
    again.ParseFromString(solver.SerializeToString())
    assert again == solver


def test_numbers_of_numpy() -> None:
    """One stands for a list of one, as Python's do; an array is a list."""
    data = L.Input(shape={"dim": np.array([1, 3, 8, 8])})
    made = L.Convolution(
        data, num_output=np.int64(4), kernel_size=np.int64(3), stride=np.array([1, 2])
    )
    first, second = made.to_proto().layer
    assert list(first.input_param.shape[0].dim) == [1, 3, 8, 8]
    assert second.convolution_param.num_output == 4
    assert list(second.convolution_param.kernel_size) == [3]
    assert list(second.convolution_param.stride) == [1, 2]


def test_layer_types() -> None:
    types = caffe.layer_type_list()
    assert {"Convolution", "Python", "SoftmaxWithLoss", "LSTM", "Data"} <= set(types)
    assert types == sorted(types)


# ------------------------------------------------------------ where pixels go


def test_places_of_layers_with_windows() -> None:
    data = L.Input(shape={"dim": [1, 1, 50, 50]})
    conv = L.Convolution(data, num_output=1, kernel_size=3, stride=2, pad=1)
    up = L.Deconvolution(
        conv, convolution_param={"num_output": 1, "kernel_size": 4, "stride": 2, "pad": 1}
    )
    axis, a, b = coord_map_from_to(up, data)
    assert (axis, a[0], b[0]) == (1, 1, -0.5)  # the upsampled map lies half a pixel further
    relu = L.ReLU(data)
    assert coord_map_from_to(relu, data) == (None, 1, 0)
    pool = L.Pooling(data, kernel_size=2, stride=2)
    axis, a, b = coord_map_from_to(pool, data)
    assert (axis, a[0], b[0]) == (1, 2, 0.5)  # the first window's middle lies between two pixels


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_crop_puts_a_map_over_the_picture(dilation: int) -> None:
    """A map with a wide border is cut to the size of the picture, at the border's width."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 20, 17]})
    n.wide = L.Convolution(n.data, num_output=1, kernel_size=3, dilation=dilation, pad=6)
    n.cut = crop(n.wide, n.data)
    net = parse_net(str(n.to_proto()))
    offset = 6 - dilation
    assert list(net.layers[-1].message.crop_param.offset) == [offset]
    assert net.layers[-1].message.crop_param.axis == 2
    graph = build(net)
    assert graph.blobs["cut"] == (1, 1, 20, 17)


def test_crops_of_several_axes() -> None:
    data = L.Input(shape={"dim": [1, 1, 30, 30]})
    conv = L.Convolution(data, num_output=1, kernel_size=[3, 5], pad=[4, 3])
    made = crop(conv, data)
    assert made.fn.params["crop_param"] == {"axis": 2, "offset": [3, 1]}
    _, a, b = coord_map_from_to(made, data)
    assert np.all(a == 1)
    assert np.all(b == 0)


def test_crops_of_a_net_that_joins_its_scales() -> None:
    """The offsets of FCN-8s, which cuts its maps by 5, 9 and 31 pixels."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 500, 500]})
    top = n.data
    pools: list[Any] = []
    for _ in range(5):
        pad = 100 if not pools else 1
        convolution = L.Convolution(top, num_output=1, kernel_size=3, pad=pad)
        top = L.Pooling(L.ReLU(convolution), kernel_size=2, stride=2)
        pools.append(top)
    scores = L.Convolution(top, num_output=1, kernel_size=7)

    def larger(maps: Any, kernel: int, stride: int) -> Any:
        size = {"num_output": 1, "kernel_size": kernel, "stride": stride}
        return L.Deconvolution(maps, convolution_param=size)

    offsets = []
    for pool in (pools[3], pools[2]):
        up = larger(scores, 4, 2)
        cut = crop(L.Convolution(pool, num_output=1, kernel_size=1), up)
        offsets.append(cut.fn.params["crop_param"]["offset"])
        scores = L.Eltwise(up, cut)
    cut = crop(larger(scores, 16, 8), n.data)
    assert [*offsets, cut.fn.params["crop_param"]["offset"]] == [[5], [9], [31]]


def test_crops_that_cannot_be() -> None:
    data, other = L.Input(shape={"dim": [1, 1, 30, 30]}, ntop=2)
    half = L.Pooling(data, kernel_size=2, stride=2)
    with pytest.raises(AssertionError, match="scale mismatch"):
        crop(half, data)
    with pytest.raises(AssertionError, match="outside"):
        crop(L.Convolution(data, kernel_size=5, num_output=1), data)
    with pytest.raises(AssertionError, match="between pixels"):
        crop(L.Convolution(data, kernel_size=2, pad=1, num_output=1), data)
    with pytest.raises(RuntimeError, match="no common source"):
        coord_map_from_to(L.ReLU(data), L.ReLU(L.InnerProduct(data, num_output=2)))
    with pytest.raises(RuntimeError, match="no common source"):
        coord_map_from_to(data, L.Input(shape={"dim": [1]}))
    with pytest.raises(AssertionError, match="kernel_h"):
        coord_map_from_to(L.Convolution(data, kernel_h=2, kernel_w=3, num_output=1), data)
    assert other.n == 1


# ------------------------------------------------------------ drawing


@pytest.mark.long
def test_pictures(tmp_path: Path) -> None:
    net = _small().to_proto()
    for name, head in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        for rankdir in ("LR", "TB", "RL", "BT"):
            caffe.draw.draw_net_to_file(net, tmp_path / name, rankdir)
            assert (tmp_path / name).read_bytes().startswith(head)
    text = caffe.draw.draw_net(net, "TB", "dot").decode()
    assert 'label="pool\\n(Pooling)\\nMAX 2×2\\nstride 2\\nrelu (ReLU)"' in text
    assert text.count("->") == 5
    assert "6 × 5×5" in text
    assert "lr_mult" not in text
    net.layer[3].param.add().lr_mult = 0
    assert "relu (ReLU) lr_mult 0" in caffe.draw.draw_net(net, ext="dot", display_lrm=True).decode()
    assert "lr_mult 1, 2" in caffe.draw.draw_net(net, "TB", "dot", display_lrm=True).decode()
    with pytest.raises(CaffeCompatError, match="'UP': expected one of LR, TB, RL, BT"):
        caffe.draw.draw_net(net, "UP")
    with pytest.raises(CaffeCompatError, match="png, svg, pdf, dot"):
        caffe.draw.draw_net_to_file(net, tmp_path / "a.gif")


def _middle(rankdir: str, kind: str) -> tuple[float, float, int, int]:
    """(x, y) of the boxes of a type in a picture, and the picture's width and height."""
    from matplotlib.colors import to_rgb

    content = caffe.draw.draw_net(_small().to_proto(), rankdir)
    picture = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    colour = np.array(to_rgb(caffe.draw.choose_color_by_layertype(kind))[::-1]) * 255
    y, x = np.nonzero(np.abs(picture - colour).max(2) < 2)
    assert len(x) > 100
    return float(x.mean()), float(y.mean()), picture.shape[1], picture.shape[0]


def test_pictures_that_run_the_other_way_are_mirrored() -> None:
    for kind in ("DummyData", "SoftmaxWithLoss"):
        x, y, width, _ = _middle("LR", kind)
        other_x, other_y, _, _ = _middle("RL", kind)
        np.testing.assert_allclose((other_x, other_y), (width - x, y), atol=8)
        x, y, _, height = _middle("TB", kind)
        other_x, other_y, _, _ = _middle("BT", kind)
        np.testing.assert_allclose((other_x, other_y), (x, height - y), atol=8)
        assert abs(height - 2 * y) > 50  # the mirror moves it


def test_boxes_do_not_overlap() -> None:
    from caffe_compat.pycaffe.draw import _graph, _layout

    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
    for i in range(6):
        n[f"branch{i}"] = L.Convolution(n.data, num_output=2, kernel_size=1)
        n[f"deeper{i}"] = L.Convolution(n[f"branch{i}"], num_output=2, kernel_size=1)
    n.all = L.Concat(n.data, *[n[f"deeper{i}"] for i in range(6)])
    for across in (True, False):
        boxes, arrows = _graph(n.to_proto(), None, rates=False)
        width, height = _layout(boxes, arrows, across)
        for i, one in enumerate(boxes):
            assert one.width / 2 <= one.x <= width - one.width / 2
            assert one.height / 2 <= one.y <= height - one.height / 2
            for other in boxes[:i]:
                apart_x = abs(one.x - other.x) >= (one.width + other.width) / 2
                apart_y = abs(one.y - other.y) >= (one.height + other.height) / 2
                assert apart_x or apart_y, (one.lines, other.lines)


def test_only_one_phase_is_drawn() -> None:
    net = _small().to_proto()
    net.layer[-1].include.add().phase = caffe.TRAIN
    assert b"loss" in caffe.draw.draw_net(net, ext="dot", phase=caffe.TRAIN)
    assert b"loss" not in caffe.draw.draw_net(net, ext="dot", phase=caffe.TEST)


@pytest.mark.long
def test_import_caffe(tmp_path: Path) -> None:
    """A script that says ``import caffe`` runs as it is."""
    (tmp_path / "script.py").write_text(
        """
import sys
import caffe
import caffe.draw
from caffe import layers as L, params as P
from caffe.coord_map import crop
from caffe.proto import caffe_pb2
from caffe.io import Transformer

class Double(caffe.Layer):
    def setup(self, bottom, top):
        self.times = float(self.param_str)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.times * bottom[0].data

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 2]))
n.twice = L.Python(n.data, python_param=dict(module="script", layer="Double", param_str="3"))
open("net.prototxt", "w").write(str(n.to_proto()))
net = caffe.Net("net.prototxt", caffe.TEST)
net.blobs["data"].data[...] = 2
print(net.forward()["twice"].tolist(), sys.argv, __name__, caffe.__version__)
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "caffe_compat.pycaffe", "script.py", "one"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[[6.0, 6.0]] ['script.py', 'one'] __main__ 1.0.0", done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "caffe_compat.pycaffe", "none.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such file" in done.stderr
