"""LMDB records and annotation JSON against what the original scripts wrote, byte for byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from caffe_compat.training.datum import LMDBReader
from reproduce.people import annotation, lsp_files
from reproduce.people.matlab_pixels import to_matlab
from reproduce.records import store
from tests.paths import DATA, GOLDEN, cases, needs_data


@pytest.mark.parametrize("path", cases("lmdb", "*.json"))
def test_lmdb(path: Path, tmp_path: Path) -> None:
    case = json.loads(path.read_text())
    people = []
    for name in case["datasets"]:
        people += annotation.read_json(
            GOLDEN / "cpmdata" / "training" / "json" / f"{name}_annotations.json"
        )
    plan = store.plan(people, validation=bool(case["validation"]), seed=case["np_random_seed"])
    assert plan.total == case["entries"]
    store.export_lmdb(plan, GOLDEN / "cpmdata" / "dataset", tmp_path / "out")
    reader = LMDBReader(tmp_path / "out")
    assert [k.decode() for k in reader.keys] == [r["key"] for r in case["records"]]
    for i, record in enumerate(case["records"]):
        value = reader.raw(i)
        assert hashlib.sha256(value).hexdigest() == record["value_sha256"], record["key"]
    stored = GOLDEN / "cpmdata" / "training" / "lmdb" / case["lmdb"]
    if stored.is_dir():
        original = LMDBReader(stored)
        assert [original.raw(i) for i in range(len(original))] == [
            reader.raw(i) for i in range(len(reader))
        ]


@pytest.mark.parametrize("path", cases("matlab/genjson", "*.json"))
def test_json_round_trip(path: Path) -> None:
    """Reading and writing the original's text gives it back, character for character."""
    text = path.read_text()
    if not isinstance(json.loads(text).get("root"), list):
        return  # image sizes, no annotations
    people = annotation.read_json(path)
    last = json.loads(text)["root"][-1]
    stub = bool(last["isValidation"]) if isinstance(last["img_paths"], dict) else None
    assert annotation.to_json(people, stub=stub) == text
    again = [annotation.from_record(r) for r in json.loads(text)["root"]]
    assert all(a.same(b) for a, b in zip(people, [a for a in again if a], strict=True))


@pytest.mark.golden
def test_leeds_json() -> None:
    folder = GOLDEN / "matlab" / "genjson"
    if not folder.is_dir():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    with np.load(folder / "leeds_input.npz") as file:
        lspet = lsp_files.arrange(file["joints_lspet"], "lspet")
        first = lsp_files.arrange(file["joints_lsp"], "lsp")
    sizes = [tuple(s) for s in json.loads((folder / "leeds_image_sizes.json").read_text()).values()]
    assert (
        annotation.to_json(lsp_files.annotate(lspet, first, sizes))
        == (folder / "leeds.json").read_text()
    )


@needs_data
@pytest.mark.golden
def test_leeds_at_full_scale() -> None:
    path = GOLDEN / "matlab" / "genjson" / "leeds_full_scale.npz"
    if not path.exists():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    with np.load(path) as file:
        index, scale, objpos = file["index"], file["scale_provided"], file["objpos"]
    people = {a.annolist_index - 1: a for a in lsp_files.read_training(DATA, skip_missing=True)}
    here = [(i, k) for i, k in enumerate(index.tolist()) if k in people]
    assert len(here) > 0.8 * len(index)
    np.testing.assert_allclose(
        [people[k].scale for _, k in here], scale[[i for i, _ in here]], rtol=1e-12
    )
    np.testing.assert_allclose(
        to_matlab([people[k].objpos for _, k in here]), objpos[[i for i, _ in here]], rtol=1e-12
    )
