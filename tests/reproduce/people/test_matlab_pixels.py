"""Pixels count from 0 inside and from 1 in files, and one place knows it."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reproduce.people.matlab_pixels import annotated, from_matlab, to_matlab
from tests.paths import ROOT

# Readers and writers of files, and nobody else, count from 1.
BORDERS = {
    "people/annotation.py",  # the authors' JSON
    "people/flic_files.py",
    "people/lsp_files.py",
    "people/mpii_files.py",
    "records/layout.py",  # LMDB
    "records/hdf5.py",
    "records/store.py",  # the digest of what an export writes
    "predict/joint_files.py",
    "predict/result_files.py",
    "benchmarks/lsp.py",  # each reads its truth
    "benchmarks/flic.py",
    "benchmarks/mpii.py",
    "benchmarks/benchmark_run.py",  # the journal
    "cli/export.py",  # shows a record as it is stored
}


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_what_was_read_is_written_bit_by_bit(x: float, y: float) -> None:
    assert to_matlab(from_matlab([x, y])).tolist() == [x, y]


def test_only_places_move() -> None:
    rows = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [5.5, 9.0, 0.5]])
    moved = from_matlab(rows)
    assert moved.tolist() == [[0, 0, 1], [-1, -1, 0], [4.5, 8, 0.5]]
    assert annotated(moved).tolist() == [True, False, True]
    assert rows[0].tolist() == [1, 1, 1]


def test_only_files_count_from_1() -> None:
    counts = re.compile(r"\b(from_matlab|to_matlab|counted_from_[01])\b")
    root = ROOT / "reproduce"
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if counts.search(path.read_text(encoding="utf-8"))
    }
    assert found - {"people/matlab_pixels.py"} == BORDERS
