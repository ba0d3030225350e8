"""Whole detectors of the SSD kind, end to end against OpenCV: definitions of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from caffe_compat import Net, parse_net, read_net, read_weights, write_weights

_CLASSES = 4


def _layer(name: str, kind: str, bottoms: str, options: str = "", top: str = "") -> str:
    wires = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {wires} top: "{top or name}" {options} }}\n'


def _conv(name: str, bottom: str, outputs: int, options: str) -> str:
    filler = 'weight_filler { type: "msra" } bias_filler { type: "uniform" min: -0.1 max: 0.1 }'
    return _layer(
        name,
        "Convolution",
        bottom,
        f"convolution_param {{ num_output: {outputs} {options} {filler} }}",
    )


def _heads(maps: list[tuple[str, str]], boxes: int) -> str:
    """What SSD puts on feature maps: (blob, its sizes)."""
    text, order = "", "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    for blob, sizes in maps:
        for part, size in (("loc", 4), ("conf", _CLASSES)):
            name = f"{blob}_{part}"
            text += _conv(name, blob, boxes * size, "kernel_size: 3 pad: 1")
            text += _layer(f"{name}_perm", "Permute", name, order)
            text += _layer(f"{name}_flat", "Flatten", f"{name}_perm", "flatten_param { axis: 1 }")
        text += _layer(
            f"{blob}_prior",
            "PriorBox",
            f"{blob} data",
            f"prior_box_param {{ {sizes} aspect_ratio: 2 flip: true clip: false variance: 0.1 "
            "variance: 0.1 variance: 0.2 variance: 0.2 offset: 0.5 }",
        )
    for part, axis in (("loc_flat", 1), ("conf_flat", 1), ("prior", 2)):
        text += _layer(
            f"mbox_{part.partition('_')[0]}",
            "Concat",
            " ".join(f"{blob}_{part}" for blob, _ in maps),
            f"concat_param {{ axis: {axis} }}",
        )
    text += _layer(
        "conf_rows",
        "Reshape",
        "mbox_conf",
        f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {_CLASSES} }} }}",
    )
    text += _layer("conf_softmax", "Softmax", "conf_rows", "softmax_param { axis: 2 }")
    text += _layer("conf_flat", "Flatten", "conf_softmax", "flatten_param { axis: 1 }")
    return text + _layer(
        "detection_out",
        "DetectionOutput",
        "mbox_loc conf_flat mbox_prior",
        f"include {{ phase: TEST }} detection_output_param {{ num_classes: {_CLASSES} "
        "share_location: true background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 100 } "
        "code_type: CENTER_SIZE keep_top_k: 40 confidence_threshold: 0.3 }",
    )


def _input(height: int, width: int) -> str:
    return f'input: "data" input_shape {{ dim: 1 dim: 3 dim: {height} dim: {width} }}\n'


def _ssd() -> str:
    """A small VGG-like front end with SSD's normalised first map."""
    text = _input(61, 83) + _conv("conv1", "data", 8, "kernel_size: 3 pad: 1 stride: 2")
    text += _layer("relu1", "ReLU", "conv1", top="conv1")
    text += _layer(
        "pool1", "Pooling", "conv1", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    )
    text += _conv("conv2", "pool1", 12, "kernel_size: 3 pad: 1")
    text += _layer("relu2", "ReLU", "conv2", top="conv2")
    text += _layer(
        "norm2",
        "Normalize",
        "conv2",
        "norm_param { across_spatial: false channel_shared: false "
        'scale_filler { type: "constant" value: 20 } }',
    )
    text += _conv("conv3", "conv2", 16, "kernel_size: 3 pad: 2 dilation: 2 stride: 2")
    text += _layer("relu3", "ReLU", "conv3", top="conv3")
    text += _conv("conv4", "conv3", 16, "kernel_size: 3 stride: 2")
    text += _layer("relu4", "ReLU", "conv4", top="conv4")
    return text + _heads(
        [
            ("norm2", "min_size: 10 max_size: 20 step: 4"),
            ("conv3", "min_size: 20 max_size: 38"),
            ("conv4", "min_size: 38 max_size: 60"),
        ],
        4,
    )


def _mobilenet(depthwise: str) -> str:
    """Depthwise-separable blocks with BatchNorm and Scale in place, then SSD's head."""

    def block(name: str, bottom: str, inputs: int, outputs: int, stride: int) -> str:
        filler = 'weight_filler { type: "msra" }'
        text = _layer(
            f"{name}/dw",
            depthwise,
            bottom,
            f"convolution_param {{ num_output: {inputs} group: {inputs} bias_term: false pad: 1 "
            f"kernel_size: 3 stride: {stride} {filler} }}",
        )
        text += _normed(f"{name}/dw")
        text += _conv(name, f"{name}/dw", outputs, "kernel_size: 1 bias_term: false")
        return text + _normed(name)

    def _normed(name: str) -> str:
        return (
            _layer(f"{name}/bn", "BatchNorm", name, top=name)
            + _layer(f"{name}/scale", "Scale", name, "scale_param { bias_term: true }", top=name)
            + _layer(f"{name}/relu", "ReLU", name, top=name)
        )

    text = _input(75, 99) + _conv("conv0", "data", 8, "kernel_size: 3 pad: 1 stride: 2")
    text += (
        _normed("conv0") + block("conv1", "conv0", 8, 16, 2) + block("conv2", "conv1", 16, 16, 1)
    )
    text += block("conv3", "conv2", 16, 24, 2) + block("conv4", "conv3", 24, 32, 2)
    return text + _heads(
        [("conv3", "min_size: 20 max_size: 40"), ("conv4", "min_size: 40 max_size: 70")], 4
    )


def _filled(text: str) -> Net:
    """Weights that give every class a say, and statistics as a training would leave them."""
    shape = tuple(parse_net(text).layers[0].message.input_param.shape[0].dim)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        trained = Net(parse_net(text), phase="TRAIN", seed=3)
        trained.all_blobs(image)  # BatchNorm takes its statistics
        net = Net(parse_net(text), trained.weights())
        blobs = net.all_blobs(image)
        for node in net.graph.nodes:
            for ending, spread in (("_conf", 2.5), ("_loc", 0.7)):
                if node.params and node.layer.name.endswith(ending):
                    net.param(node.params[0]).mul_(spread / blobs[node.tops[0]].std())
    return net


@pytest.mark.parametrize(
    "text",
    [_ssd(), _mobilenet("Convolution"), _mobilenet("ConvolutionDepthwise")],
    ids=["ssd", "mobilenet", "mobilenet-depthwise"],
)
def test_detections_as_opencv(text: str, tmp_path: Path) -> None:
    made = _filled(text)
    (tmp_path / "net.prototxt").write_text(text)
    write_weights(tmp_path / "net.caffemodel", made.weights(), made.graph.spec)
    # read as a user would: the definition, and the binary model with the fork's field numbers
    net = Net(read_net(tmp_path / "net.prototxt"), read_weights(tmp_path / "net.caffemodel"))
    image = np.random.default_rng(1).standard_normal(net.graph.blobs["data"], dtype=np.float32)
    with torch.no_grad():
        found = net(torch.from_numpy(image), blobs=["detection_out", "mbox_loc", "conf_flat"])
    reader = cv2.dnn.readNetFromCaffe(
        str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")
    )
    reader.setInput(image, "data")
    theirs: Any = reader.forward(["detection_out", "mbox_loc", "conf_flat"])
    for ours, other in zip(list(found.values())[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(ours.numpy(), other.reshape(ours.shape), atol=1e-4)
    rows, others = found["detection_out"].numpy().reshape(-1, 7), theirs[0].reshape(-1, 7)
    assert 5 < len(rows) == len(others)
    assert len({row[1] for row in rows}) == _CLASSES - 1
    # OpenCV's rows come by score, Caffe's by class and score
    np.testing.assert_allclose(_by_score(rows), _by_score(others), atol=2e-4)


def _by_score(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return rows[np.lexsort((-rows[:, 2], rows[:, 1]))]


def test_the_embedded_definition_gives_the_same(tmp_path: Path) -> None:
    """A model of the SSD fork needs no prototxt: the layer types say whose numbers hold."""
    made = _filled(_mobilenet("Convolution"))
    write_weights(tmp_path / "net.caffemodel", made.weights(), made.graph.spec)
    weights = read_weights(tmp_path / "net.caffemodel")
    assert weights.net is not None
    again = Net(weights.net, weights)
    image = torch.randn(1, 3, 75, 99, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(made(image)["detection_out"], again(image)["detection_out"])
    assert any("PriorBox" in line for line in weights.source.evidence)
