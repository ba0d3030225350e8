"""What ``print(net)`` shows."""

from __future__ import annotations

from pathlib import Path

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, parse_net
from tests.nets import TEXT, small

_PRINTED = """\
small: 8 layers, 734 parameters, phase TEST
input  Input         data 1×3×9×12
conv   Convolution   conv 1×4×9×12
bn     BatchNorm     conv 1×4×9×12
scale  Scale         conv 1×4×9×12
relu   ReLU          conv 1×4×9×12
pool   Pooling       pool 1×4×5×6
fc     InnerProduct  fc 1×5
prob   Softmax       prob 1×5"""


def test_a_line_for_each_layer() -> None:
    assert str(small()) == _PRINTED


def test_the_face_shows_the_shapes_of_now(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(TEXT)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    assert str(net) == _PRINTED
    net.blobs["data"].reshape(2, 3, 9, 12)
    net.reshape()
    assert str(net) == _PRINTED.replace(" 1×", " 2×")


def test_names_cannot_steer_the_terminal_and_odd_tops_are_shown() -> None:
    net = Net(
        parse_net(
            'input: "x" input_shape { dim: 2 dim: 4 } '
            'layer { name: "two\\033[2J" type: "Slice" bottom: "x" top: "a" top: "b" } '
            'layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "b" }'
        )
    )
    assert str(net).splitlines() == [
        "network without a name: 3 layers, 0 parameters, phase TEST",
        "input       Input          x 2×4",
        r"two\x1b[2J  Slice          a 2×2, b 2×2",
        "loss        EuclideanLoss  (automatic) scalar",
    ]
