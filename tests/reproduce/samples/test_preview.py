"""Pictures of records and of augmented samples."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from caffe_compat.errors import DataError
from reproduce.cli import export
from reproduce.people.skeletons import MPII_JOINTS
from reproduce.records.layout import Record
from reproduce.records.store import LMDBStore, export_lmdb, plan
from reproduce.samples import preview
from reproduce.samples.augment import Sample, Settings
from reproduce.samples.preview import contact_sheet, draw_record
from reproduce.samples.schedule import CPMDataset, Order, SampleMaker, Schedule
from tests.people import annotation, dataset
from tests.pictures import read_picture


def test_a_small_record_is_enlarged_with_its_joints(tmp_path: Path) -> None:
    image = np.full((50, 60, 3), 90, np.uint8)
    person = annotation(np.random.default_rng(1), "a.jpg", 60, 50)
    joints = np.full((16, 3), -1.0)  # nobody annotated them
    joints[MPII_JOINTS.index("head")] = (20, 10, 1)
    joints[MPII_JOINTS.index("neck")] = (20, 30, 1)
    joints[MPII_JOINTS.index("Rsho")] = (-40, 30, 0)  # LSPET's way to say that nobody saw it
    record = Record(image, replace(person, joints=joints, objpos=np.array([50.0, 40.0])), 0, 1)
    draw_record(record, tmp_path / "a.png")
    drawn = read_picture(tmp_path / "a.png")
    assert drawn.shape == (350, 420, 3)  # seven times
    changed = (drawn != 90).any(2)
    assert changed[72:215, 140:147].any(1).all()  # the limb from head to neck
    assert tuple(drawn[283, 353]) == (0, 0, 255)  # the centre
    assert not changed[:60].any()
    assert not changed[:, :120].any()  # no limb from the neck to a place outside
    names = changed[70:80, 152:190].any(), changed[212:222, 152:190].any()
    assert names == (True, True)


def test_a_sheet_shows_what_a_training_with_this_seed_would_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples beyond the last record are the first ones of the next epoch: the same records with
    other dice."""
    export_lmdb(plan(dataset(tmp_path, 2), seed=4), tmp_path, tmp_path / "out")
    settings = Settings(stride=8, crop_size_x=96, crop_size_y=80, target_dist=1.171)
    settings = replace(settings, scale_prob=1, max_rotate_degree=40, center_perterb_max=10)
    shown: list[Sample] = []

    def draw(sample: Sample, _: Settings) -> npt.NDArray[np.uint8]:
        shown.append(sample)
        return np.zeros((80, 96, 3), np.uint8)

    monkeypatch.setattr(preview, "draw_sample", draw)
    store = LMDBStore(tmp_path / "out")
    contact_sheet(store, settings, 5, 7, tmp_path / "sheet.png")
    order = Order(seed=7)
    wanted = map(SampleMaker(store, settings, order.seed), Schedule(2, settings, order).batch(0, 5))
    for ours, theirs in zip(shown, wanted, strict=True):
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    assert not np.array_equal(shown[0].pixels, shown[2].pixels)


_TEST_LAYER = """layer { name: "t" type: "CPMData" top: "data" top: "label" include { phase: TEST }
    transform_param { stride: 8 crop_size_x: 64 crop_size_y: 64 }
    cpmdata_param { batch_size: 1 } }"""


def _definition(path: Path, settings: str) -> Path:
    """A net whose layer for training has these settings."""
    layer = f"""layer {{ name: "d" type: "CPMData" top: "data" top: "label"
        include {{ phase: TRAIN }} {settings} cpmdata_param {{ batch_size: 1 }} }}"""
    path.write_text(f"{_TEST_LAYER}\n{layer}\n")
    return path


def test_a_sheet_shows_the_layer_that_a_training_would_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of phase TRAIN, with the settings of later forks, and nothing that is refused there."""
    export_lmdb(plan(dataset(tmp_path, 2), seed=4), tmp_path, tmp_path / "out")
    monkeypatch.chdir(tmp_path)

    def run(settings: str, *more: str) -> str:
        net = _definition(tmp_path / "net.prototxt", settings)
        words = ["preview", "out", "--prototxt", str(net), "--n", "1", "-o", "p.png", *more]
        return CliRunner().invoke(export.main, words).output

    later = "stride: 8 crop_size: 96 flip_prob: 0 num_parts: 14 np_in_lmdb: 16"
    assert "1 samples drawn" in run(f"cpm_transform_param {{ {later} }}")
    assert read_picture(tmp_path / "p.png").shape == (100, 100, 3)
    for settings, said in (
        ("stride: 0", "stride: must be from 1 to"),
        ("stride: 8 crop_size_x: 4 crop_size_y: 4", "is smaller than the stride"),
        ("stride: 8 num_parts: 5 np_in_lmdb: 5", "left and right of 5 parts are not known"),
        ("stride: 8 aug_way: 'table'", "aug_way: 'table' takes rotations and flips from tables"),
    ):
        output = run(f"transform_param {{ {settings} }}")
        assert re.match(r"error: .+\n$", output)
        assert said in output
    assert "--joints and --prototxt exclude each other" in run("", "--joints", "16")
    (tmp_path / "net.prototxt").write_text(_TEST_LAYER)
    words = ["preview", "out", "--prototxt", "net.prototxt"]
    assert "no CPMData layer for phase TRAIN" in CliRunner().invoke(export.main, words).output


def test_what_asks_for_tables_is_no_plain_data_set(tmp_path: Path) -> None:
    export_lmdb(plan(dataset(tmp_path, 2), seed=4), tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="aug_way: 'table'"):
        CPMDataset(tmp_path / "out", Settings(stride=8, aug_way="table"))
