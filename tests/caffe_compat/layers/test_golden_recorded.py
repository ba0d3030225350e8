"""Recurrent layers, HDF5Output and the SSD fork's layers as the real Caffe ran them: blobs, diffs,
what is carried from pass to pass, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from caffe_compat import CaffeCompatError, pycaffe, read_net
from caffe_compat.layers import registry
from tests import tolerances
from tests.paths import GOLDEN, listed

_TYPES = ("LSTM", "RNN", "LSTMUnit", "HDF5Output")
Arrays = dict[str, npt.NDArray[np.float32]]

# Where the real Caffe stops and ours goes on, with the reason.
_NOT_FOLLOWED = {
    ("DetectionOutput", "location predictions for label -1"): "its own schema recommends -1",
}


def _recorded() -> Iterator[tuple[Path, Path]]:
    """(definition, description) of every case whose layers are the concern of this file."""
    for info in sorted((GOLDEN / "random").glob("*.json")):
        text = info.with_suffix(".prototxt").read_text()
        if any(f'type: "{name}"' in text for name in _TYPES):
            yield info.with_suffix(".prototxt"), info
    for info in sorted((GOLDEN / "forks").glob("*.json")):
        yield info.with_suffix(".txt"), info


_CASES = listed((pair, pair[1].stem) for pair in _recorded())


def _close(what: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    assert ours.shape == theirs.shape, what
    scale = np.abs(theirs).max() if theirs.size else 0.0
    limit = max(tolerances.RECORDED * scale, tolerances.RECORDED_LEAST)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=what)


def _run(definition: Path, case: dict[str, Any], arrays: Arrays) -> pycaffe.Net:
    """All that the recorder did, compared on the way."""
    phase = {"TRAIN": pycaffe.TRAIN, "TEST": pycaffe.TEST}[case["phase"]]
    net = pycaffe.Net(str(definition), phase, level=case["level"], stages=case["stages"])
    for key, value in arrays.items():
        kind, _, name = key.partition(":")
        if kind == "in":
            net.blobs[name].data[...] = value
        elif kind == "param":
            layer, _, index = name.rpartition("/")
            net.params[layer][int(index)].data[...] = value
    net.forward()
    _compare(net, arrays, "blob")
    if case["reshape"]:
        for name, shape in case["reshape"].items():
            net.blobs[name].reshape(*shape)
        net.reshape()
        for key, value in arrays.items():
            if key.startswith("in2:"):
                net.blobs[key[4:]].data[...] = value
        net.forward()
        _compare(net, arrays, "blob2")
    if case["forward_only"]:
        return net
    for key, value in arrays.items():
        if key.startswith("topdiff:"):
            net.blobs[key[8:]].diff[...] = value
    net.backward()
    _compare(net, arrays, "diff")
    _compare(net, arrays, "pdiff")
    if case["twice"]:
        net.forward()
        net.backward()
        _compare(net, arrays, "pdiff2")
    return net


def _compare(net: pycaffe.Net, arrays: Arrays, kind: str) -> None:
    for key, value in arrays.items():
        found, _, name = key.partition(":")
        if found != kind:
            continue
        if kind.startswith("pdiff"):
            layer, _, index = name.rpartition("/")
            _close(key, net.params[layer][int(index)].diff, value)
        else:
            blob = net.blobs[name]
            _close(key, blob.diff if kind == "diff" else blob.data, value)


@pytest.mark.parametrize("pair", _CASES)
def test_as_recorded(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition, info = pair
    case = json.loads(info.read_text())
    arrays: Arrays = {}
    if info.with_suffix(".npz").exists():
        with np.load(info.with_suffix(".npz")) as file:
            arrays = {key: file[key] for key in file.files}
    monkeypatch.chdir(tmp_path)  # HDF5Output writes where the program stands
    types = {layer.type for layer in read_net(definition).layers}
    followed = not any(
        kind in types and message in case.get("message", "") for kind, message in _NOT_FOLLOWED
    )
    if not case["accepted"] and followed:
        with pytest.raises((CaffeCompatError, RuntimeError)):
            _run(definition, case, arrays)
        return
    net = _run(definition, case, arrays)
    if case["accepted"]:
        assert list(net.inputs) == case["inputs"]
        assert sorted(net.outputs) == sorted(case["outputs"])
        assert [n for n in net.blobs if "_split_" not in n] == case["blobs"]
        params = [[n, [list(b.shape) for b in blobs]] for n, blobs in net.params.items()]
        assert params == case["params"]
    written = {key[5:]: value for key, value in arrays.items() if key.startswith("file:")}
    for path in tmp_path.glob("*.h5") if written else ():
        with h5py.File(path) as file:
            assert set(file) == set(written)
            for name, value in written.items():
                np.testing.assert_array_equal(np.asarray(file[name]), value)
    assert len(list(tmp_path.glob("*.h5"))) == bool(written)


def test_the_page_says_what_was_recorded() -> None:
    """Types that are held against Caffe occur in a recorded definition, and the others do not."""
    if not GOLDEN.exists():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    files = [*GOLDEN.rglob("*.prototxt"), *(GOLDEN / "forks").glob("*.txt")]
    text = "".join(path.read_text(errors="ignore") for path in files)
    for name, cls in registry().items():
        assert (cls.truth == "Caffe") == (f'type: "{name}"' in text), name
        assert cls.truth in ("Caffe", "OpenCV", "our reference") or name == "WindowData"
    assert registry()["WindowData"].truth == "nothing"  # it is refused where it is to give data
