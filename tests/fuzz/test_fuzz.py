"""A few damaged files for every reader (``make fuzz`` makes many more), and the files that once
failed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.readers import READERS, imported
from tests.fuzz.run import forked, fuzz, try_reader
from tests.fuzz.seeds import make_seeds
from tests.paths import REPORTED, listed

_FEW = 25


@functools.cache
def _seeds() -> dict[str, list[Path]]:
    imported()
    return make_seeds(Path(tempfile.mkdtemp(prefix="seeds-")))


@pytest.mark.parametrize("name", READERS)
def test_sound_files_are_read(name: str, tmp_path: Path) -> None:
    """The seeds themselves: otherwise the fuzzer would look at the first line of a reader alone."""
    assert _seeds()[name]
    for path in _seeds()[name]:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        if name == "hdf5-data":
            (tmp_path / "data.h5").write_bytes((path.parent / "data.h5").read_bytes())
        assert try_reader(name, copy) == "read", path


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_end_in_our_errors(name: str) -> None:
    outcome = fuzz(name, _seeds()[name], _FEW, seed=1)
    assert not outcome.failures
    assert sum(outcome.counts.values()) == _FEW


# the name of a kept file, and what it was read as -> reader and ending
_KINDS: dict[tuple[str, str], tuple[str, str]] = {
    ("caffemodel-h5", ""): ("caffemodel-h5", ".caffemodel.h5"),
    ("containers", "pth"): ("containers", ".pth"),
    ("containers", "npz"): ("containers", ".npz"),
    ("containers", "safetensors"): ("containers", ".safetensors"),
    ("hdf5-records", ""): ("records", ".h5"),
    ("hdf5data-lists-tables", "list"): ("hdf5-data", ".txt"),
    ("hdf5data-lists-tables", "h5data"): ("hdf5-data", ".h5"),
    ("json-annotations-boxes", "auth"): ("authors", ".json"),
    ("json-annotations-boxes", "coco"): ("coco", ".json"),
    ("json-annotations-boxes", "boxes"): ("boxes", ".json"),
    ("lmdb-datum-metadata", ""): ("datum", ".datum"),
    ("mat-files", "pred"): ("joints", ".mat"),
    ("mat-files", "flic"): ("flic", ".mat"),
    ("mat-files", "mpitest"): ("mpi", ".mat"),
    ("mat-files", "mpi"): ("mpi", ".mat"),
    ("mat-files", "det"): ("split", ".mat"),
    ("mat-files", "lsp"): ("lsp", ".mat"),
    ("predictions-h5-npz-json-valid", "valid"): ("valid", ".h5"),
    ("predictions-h5-npz-json-valid", ".npz"): ("joints", ".npz"),
    ("predictions-h5-npz-json-valid", ".json"): ("joints", ".json"),
    ("predictions-h5-npz-json-valid", ".h5"): ("joints", ".h5"),
    ("prototxt-net", ""): ("prototxt", ".prototxt"),
    ("prototxt-solver", ""): ("solver", ".prototxt"),
    ("results-journals-notes", "keypoints"): ("keypoints", ".json"),
    ("results-journals-notes", "journal"): ("journal", ".jsonl"),
    ("results-journals-notes", "note"): ("note", ".json"),
    ("results-journals-notes", "result"): ("result", ".json"),
    ("solverstate", ".solverstate.h5"): ("solverstate", ".solverstate.h5"),
    ("solverstate", ".solverstate"): ("solverstate", ".solverstate"),
    ("verify-dump-npz", ""): ("dump", ".npz"),
    ("images", ""): ("images", ""),
    ("video", ""): ("video", ""),
}


def _kept() -> list[tuple[tuple[str, str, Path], str]]:
    """(reader, ending, file) of each kept file, and its name."""
    index = REPORTED / "fuzz" / "index.tsv"
    if not index.exists():
        return []
    found = []
    for line in index.read_text(encoding="utf-8").splitlines()[1:]:
        file, as_, *_ = line.split("\t")
        stem = file.rpartition("-")[0]
        known = _KINDS.get((stem, as_)) or _KINDS.get((stem, as_.split("-")[0]))
        if known is None:
            reader, ending = _KINDS.get((stem, "")) or ("", "")
            known = reader, ending or as_
        found.append(((known[0], known[1], REPORTED / "fuzz" / file), file))
    return found


@pytest.mark.parametrize("case", listed(iter(_kept())))
def test_files_that_once_failed(case: tuple[str, str, Path], tmp_path: Path) -> None:
    reader, ending, file = case
    assert reader, f"no reader for {file.name}"
    imported()
    copy = tmp_path / f"file{ending}"
    copy.write_bytes(file.read_bytes())

    def work() -> Iterator[str]:
        yield try_reader(reader, copy)

    answers, ended = forked(work)
    assert not ended
    assert answers[0] in ("read", "refused")
