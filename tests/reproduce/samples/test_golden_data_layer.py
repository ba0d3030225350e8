"""The CPM data layer against recorded samples of the real one: pixels identical, maps within
float32 rounding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_compat import read_net
from caffe_compat.definition.spec import LayerSpec
from caffe_compat.training.draws import Draws, glibc_rand
from caffe_compat.training.sources import open_source
from reproduce.records.store import LMDBStore
from reproduce.samples.augment import Settings, augment, roll
from reproduce.samples.dice import CaffeDice
from reproduce.samples.schedule import Order, source_for
from tests import measured, tolerances
from tests.paths import GOLDEN, cases, listed

_DUMPS = "cpmdata/training/dumps"


def _open(
    path: Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray], Settings, LMDBStore, LayerSpec]:
    case = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as file:
        recorded = {key: file[key] for key in file.files}
    layer = read_net(path.with_suffix(".prototxt")).layers[0]
    settings = Settings.of(layer.message.transform_param)
    store = LMDBStore(path.parent.parent / "lmdb" / case["lmdb"], settings.np_in_lmdb)
    return case, recorded, settings, store, layer


@pytest.mark.parametrize("path", cases(_DUMPS, "*.json"))
def test_samples_from_recorded_dice(path: Path) -> None:
    from reproduce.samples.schedule import Tables

    case, recorded, settings, store, _ = _open(path)
    count = len(store)
    tables = None
    if settings.aug_way == "table":
        tables = Tables(path.parent.parent.parent, settings.num_total_augs, count)
    centre_batch = len(recorded["center"])
    for i in range(case["batch"] * case["batches"]):
        record = store.record(i % count)
        table = tables.entry(record.write_number, i // count) if tables else None
        first, last = recorded["rand_start"][i : i + 2]
        choice = roll(settings, CaffeDice(iter(recorded["rand"][first:last].tolist())), table)
        assert choice.scale_multiplier == recorded["scale_multiplier"][i]
        assert choice.degree == recorded["degree"][i]
        assert (choice.x_offset, choice.y_offset) == (
            recorded["x_offset"][i],
            recorded["y_offset"][i],
        )
        assert choice.flip == bool(recorded["flip"][i])
        sample = augment(record.image, record.annotation, settings, choice)
        np.testing.assert_array_equal(sample.pixels.transpose(2, 0, 1), recorded["pixels"][i])
        expected = (recorded["pixels"][i].astype(np.float32) - 128) / np.float32(256)
        np.testing.assert_array_equal(sample.data[:3], expected)
        if i < centre_batch:
            np.testing.assert_allclose(
                sample.data[3], recorded["center"][i], rtol=0, atol=tolerances.LABEL
            )
        np.testing.assert_allclose(
            sample.data[3], recorded["center16"][i], rtol=0, atol=tolerances.HALF
        )
        label = np.concatenate([sample.label, sample.label_1st])
        measured.note(
            "Caffe: CPM data layer, pixels (levels)",
            float(
                np.abs(sample.pixels.transpose(2, 0, 1).astype(int) - recorded["pixels"][i]).max()
            ),
        )
        measured.note(
            "Caffe: CPM data layer, label maps (absolute)",
            float(np.abs(label - recorded["label"][i]).max()),
        )
        np.testing.assert_allclose(label, recorded["label"][i], rtol=0, atol=tolerances.LABEL)


@pytest.mark.parametrize("path", cases(_DUMPS, "*.json"))
def test_rand_sequence(path: Path) -> None:
    with np.load(path.with_suffix(".npz")) as file:
        values, seed = file["rand"], int(file["srand"])
    sequence = glibc_rand(seed)
    assert [next(sequence) for _ in values] == values.tolist()


@pytest.mark.parametrize("path", cases(_DUMPS, "*.json"))
@pytest.mark.parametrize("workers", [0, 2])
def test_source_replays_caffe(path: Path, workers: int) -> None:
    """The layer's source, dice replayed from the seed, gives the recorded batches, in worker
    processes too."""
    from caffe_compat.layers import make

    case, recorded, _, _, layer = _open(path)
    order = Order(dice="caffe", seed=case["srand"])
    source = source_for(make(layer, "TRAIN"), path.parent, order, workers=workers)
    assert [list(s) for s in source.shapes] == [case["data_shape"], case["label_shape"]]
    size = case["batch"]
    for number in range(case["batches"]):
        data, label = source.batch(number)
        part = slice(number * size, (number + 1) * size)
        np.testing.assert_array_equal(
            data[:, :3] * 256 + 128, recorded["pixels"][part].astype(np.float32)
        )
        np.testing.assert_allclose(label, recorded["label"][part], rtol=0, atol=tolerances.LABEL)


def _unseeded() -> Iterator[tuple[Path, str]]:
    """Cases in which Caffe ran as its users run it: nobody called srand(), which is srand(1)."""
    for path in sorted((GOLDEN / _DUMPS).glob("*.json")):
        if json.loads(path.read_text())["srand"] == 1:
            yield path, path.name


@pytest.mark.parametrize("path", listed(_unseeded()))
def test_any_net_replays_caffe(path: Path) -> None:
    """What a script of pycaffe or a solver opens, whatever their own seed is."""
    from caffe_compat.layers import make

    case, recorded, _, _, layer = _open(path)
    source = open_source(make(layer, "TRAIN"), path.parent, Draws(5))
    data, _ = source.batch(0)
    wanted = recorded["pixels"][: case["batch"]].astype(np.float32)
    np.testing.assert_array_equal(data[:, :3] * 256 + 128, wanted)


def test_golden_folder_has_tables() -> None:
    if not GOLDEN.is_dir():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    assert list((GOLDEN / "cpmdata").glob("rotate_*.txt"))
