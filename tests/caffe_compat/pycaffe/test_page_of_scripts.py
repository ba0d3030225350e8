"""Every script of docs/pycaffe.md runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_compat.pycaffe as caffe
from caffe_compat.pycaffe import alias
from tests.paths import ROOT

_PAGE = (ROOT / "docs" / "pycaffe.md").read_text(encoding="utf-8")
_SCRIPTS = re.findall(r"^## \d+\. (.*?)\n.*?```python\n(.*?)```", _PAGE, re.M | re.S)
_LAYERS = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool1" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
"""
_DEPLOY = (
    'force_backward: true input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }\n'
    + _LAYERS
    + 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'
)
_TRAIN = (
    """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 32 dim: 32 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { type: "constant" value: 3 } } }
"""
    + _LAYERS
    + """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
)
_SOLVER = """
net: "train_test.prototxt" test_iter: 2 test_interval: 100 base_lr: 0.001 momentum: 0.9 weight_decay: 0.0005
lr_policy: "fixed" max_iter: 10 snapshot_prefix: "snap"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files that the scripts name."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(_DEPLOY)
    Path("train_test.prototxt").write_text(_TRAIN)
    Path("solver.prototxt").write_text(_SOLVER)
    caffe.Net("deploy.prototxt", caffe.TEST).save("weights.caffemodel")
    rng = np.random.default_rng(0)
    cv2.imwrite("photo.png", rng.integers(0, 256, (48, 64, 3), np.uint8))
    mean = caffe.io.array_to_blobproto(rng.random((1, 3, 32, 32)) * 255)
    Path("mean.binaryproto").write_bytes(mean.SerializeToString())
    before = {name for name in sys.modules if name.partition(".")[0] == "caffe"}
    alias.install()
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] == "caffe" and n not in before]:
        del sys.modules[name]


def test_there_are_ten() -> None:
    assert len(_SCRIPTS) == 10


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(("title", "script"), _SCRIPTS, ids=[title for title, _ in _SCRIPTS])
def test_script(title: str, script: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(script, title, "exec"), {"__name__": "script"})
    shown = capsys.readouterr().out
    said = {
        "Classify a picture": r"^\[\d+ \d+ \d+ \d+ \d+\] [01]\.\d+",
        "The same with ten crops": r"^\(1, 10\) \d",
        "Look at a network and change its weights": r"conv1 \[\(6, 3, 5, 5\), \(6,\)\]",
        "Fully connected layers as convolutions": r"^\(1, 10, 17, 17\)",
        "Train, and watch the loss": r"^1 \d.*\n2 .*\n3 .*\n4 .*\n[01]\.",
        "A training loop of one's own": r"^3$",
        "Write a definition, draw it": r"^\d\.\d+",
        "A layer in Python": r"^\[2.25\] \[\[0\.5 0\.5 0\.5\]",
        "Gradients in the picture": r"^\d+\.\d+",
        "Features of many pictures": r"^\(10, 6, 14, 14\)",
    }[title]
    assert re.search(said, shown, re.M), shown
    made = {
        "Look at a network and change its weights": "rgb.caffemodel",
        "Train, and watch the loss": "snap_iter_4.caffemodel",
        "Write a definition, draw it": "made.png",
        "Features of many pictures": "features.npz",
    }.get(title)
    assert made is None or (folder / made).exists()
