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
from tests.paths import GOLDEN, cases, listed


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


def _draws_otherwise(path: Path) -> bool:
    """Was the case recorded with a Caffe whose data layer draws other random numbers than the CPM
    release's?"""
    case = json.loads(path.read_text())
    return bool(case.get("random")) and case["caffe"] != "cpm"


_RECORDED = sorted((GOLDEN / "datalayers").glob("*.json"))


def _net_of(path: Path) -> Any:
    """The case's net through the face, in its folder and with its seed."""
    case = json.loads(path.read_text())
    caffe.set_random_seed(case.get("seed", 1))
    return caffe.Net(path.with_suffix(".prototxt").name, getattr(caffe, case["phase"]))


@pytest.mark.parametrize("path", listed((p, p.name) for p in _RECORDED if not _draws_otherwise(p)))
def test_through_the_face(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers where a script asks for them, as it asked Caffe."""
    case = json.loads(path.read_text())
    monkeypatch.chdir(path.parent)
    net = _net_of(path)
    with np.load(path.with_suffix(".npz")) as recorded:
        if "in:data" in recorded.files:
            net.set_input_arrays(recorded["in:data"], recorded["in:label"])
        for number in range(case["forwards"]):
            net.forward()
            for name in net.blobs:
                wanted = recorded[f"{number}:{name}"]
                np.testing.assert_array_equal(net.blobs[name].data, wanted)


@pytest.mark.golden
@pytest.mark.skipif(not _RECORDED, reason=f"no recorded outputs at {GOLDEN} (set CPM_GOLDEN)")
def test_the_face_draws_as_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random case of another Caffe has the same shapes through the face, but other crops and
    mirrors: it is for :func:`test_tops`, which is told whose sequence to draw."""
    for path in filter(_draws_otherwise, _RECORDED):
        monkeypatch.chdir(path.parent)
        net = _net_of(path)
        net.forward()
        with np.load(path.with_suffix(".npz")) as recorded:
            wanted = {name: recorded[f"0:{name}"] for name in net.blobs}
        assert {n: b.data.shape for n, b in net.blobs.items()} == {
            n: array.shape for n, array in wanted.items()
        }
        assert not all(np.array_equal(net.blobs[n].data, array) for n, array in wanted.items())
