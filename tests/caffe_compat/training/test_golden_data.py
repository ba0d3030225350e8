"""Every recorded data layer: what its tops hold in four forward passes, bit for bit, the random
crops and mirrors too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_compat.pycaffe as caffe
from caffe_compat import read_net
from caffe_compat.training.draws import Draws
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.rows import MemorySource
from tests.paths import cases


def _feed(path: Path, case: dict[str, Any]) -> DataFeed:
    """The net's data layer with the generator seeded as it was when the case was recorded."""
    draws = Draws(case.get("seed", 1), reader_thread=case["caffe"] == "cpm")
    spec = read_net(path.with_suffix(".prototxt"))
    return DataFeed(spec, case["phase"], path.parent, draws=draws)


@pytest.mark.parametrize("path", cases("datalayers", "*.json"))
def test_tops(path: Path) -> None:
    case = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as file:
        recorded = {key: file[key] for key in file.files}
    feed = _feed(path, case)
    if "in:data" in recorded:
        source = feed.source("data")
        assert isinstance(source, MemorySource)
        source.give(recorded["in:data"], recorded["in:label"])
    for number in range(case["forwards"]):
        found = feed.batch(number, "cpu")
        wanted = {
            key.partition(":")[2]: array
            for key, array in recorded.items()
            if key.startswith(f"{number}:")
        }
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name].numpy(), array, err_msg=f"{number}:{name}")
    # a batch is the same whenever it is asked for: an interrupted training goes on exactly
    again = feed.batch(0, "cpu") if "in:data" not in recorded else {}
    for name, tensor in again.items():
        np.testing.assert_array_equal(tensor.numpy(), recorded[f"0:{name}"])


@pytest.mark.parametrize("path", cases("datalayers", "*.json"))
def test_through_the_face(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers where a script asks for them, as it asked Caffe."""
    case = json.loads(path.read_text())
    if case.get("random") and case["caffe"] != "cpm":
        pytest.skip("the face draws random numbers as the CPM release's Caffe does")
    monkeypatch.chdir(path.parent)
    caffe.set_random_seed(case.get("seed", 1))
    net = caffe.Net(path.with_suffix(".prototxt").name, getattr(caffe, case["phase"]))
    with np.load(path.with_suffix(".npz")) as recorded:
        if "in:data" in recorded.files:
            net.set_input_arrays(recorded["in:data"], recorded["in:label"])
        for number in range(case["forwards"]):
            net.forward()
            for name in net.blobs:
                wanted = recorded[f"{number}:{name}"]
                np.testing.assert_array_equal(net.blobs[name].data, wanted)
