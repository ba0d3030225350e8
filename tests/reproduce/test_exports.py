"""What ``import reproduce`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reproduce
from caffe_compat.errors import CaffeCompatError
from reproduce import EvalResult, HDF5Store, LMDBStore, evaluate, open_store, read_json
from reproduce.people.annotation import write_json
from reproduce.records import hdf5, store
from tests.paths import ROOT
from tests.people import dataset

_HEAVY = ("torch", "cv2", "scipy", "h5py", "numpy")
_COUNT = f"""
import sys
import reproduce
early = [name for name in {_HEAVY} if name in sys.modules]
assert not early, early
reproduce.open_store, reproduce.read_json, reproduce.evaluate, reproduce.Predictor
assert "torch" not in sys.modules
"""


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_name_is_there() -> None:
    for name in reproduce.__all__:
        assert getattr(reproduce, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reproduce.nothing
    assert sorted(reproduce.__all__) == reproduce.__all__


def test_records_of_either_kind_are_read(tmp_path: Path) -> None:
    people = dataset(tmp_path, 3)
    write_json(tmp_path / "people.json", people)
    assert len(read_json(tmp_path / "people.json")) == 3
    store.export_lmdb(store.plan(people, seed=1), tmp_path, tmp_path / "records")
    records = open_store(tmp_path / "records")
    assert isinstance(records, LMDBStore)
    hdf5.from_lmdb(records, tmp_path / "records.h5")
    again = open_store(tmp_path / "records.h5")
    assert isinstance(again, HDF5Store)
    one, other = records.record(1), again.record(1)
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.annotation.joints, other.annotation.joints)


def test_evaluate_says_what_it_cannot_do(tmp_path: Path) -> None:
    joints = np.zeros((2, 14, 2))
    with pytest.raises(CaffeCompatError, match="no benchmark 'coco'"):
        evaluate(joints, "coco", tmp_path)
    with pytest.raises(CaffeCompatError, match="no meaning for PCP"):
        evaluate(joints, "lsp", tmp_path, measure="pcp", norm="torso")
    with pytest.raises(CaffeCompatError, match="lsp has torso"):
        evaluate(joints, "lsp", tmp_path, norm="foot")
    assert EvalResult.__name__ == "EvalResult"
