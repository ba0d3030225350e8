"""The data layer against a step-by-step port, and its promises: order, workers, geometry."""

from __future__ import annotations

import ctypes
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_compat import PrototxtError, parse_net
from caffe_compat.definition.spec import TEST, TRAIN
from caffe_compat.errors import DataError
from caffe_compat.layers import make
from caffe_compat.network.graph import build
from caffe_compat.training.draws import Draws, glibc_rand
from caffe_compat.training.sources import open_source
from reproduce.people.annotation import Annotation
from reproduce.records import store
from reproduce.samples import augment as augmenting
from reproduce.samples.augment import Augmentation, Settings, augment, clahe, open_records, roll
from reproduce.samples.dice import CaffeDice, SampleDice
from reproduce.samples.schedule import (
    CPMSource,
    Order,
    SampleMaker,
    Schedule,
    Tables,
    settings_of,
    source_for,
)
from tests import tolerances
from tests.oracle import cpm_layer
from tests.people import annotation, dataset

_SETTINGS = Settings(
    stride=8,
    crop_size_x=96,
    crop_size_y=80,
    target_dist=1.171,
    scale_prob=1,
    scale_min=0.7,
    scale_max=1.3,
    max_rotate_degree=40,
    center_perterb_max=10,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(0, 2))
def test_against_the_step_by_step_port(seed: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(64, 130)), int(rng.integers(50, 120))
    noise = rng.integers(0, 256, (9, 9, 3), np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    who = annotation(rng, "x", width, height, others)
    choice = roll(_SETTINGS, SampleDice(seed, 0, 0))
    ours = augment(image, who, _SETTINGS, choice)
    data, label = cpm_layer.sample(image, who, _SETTINGS, choice)
    np.testing.assert_array_equal(ours.data[:3], data[:3])
    np.testing.assert_allclose(ours.data[3], data[3], rtol=0, atol=tolerances.LABEL)
    np.testing.assert_allclose(
        np.concatenate([ours.label, ours.label_1st]), label, rtol=0, atol=tolerances.LABEL
    )


@pytest.mark.parametrize(
    "choice",
    [
        Augmentation(1.0, 0.0, 0, 0, False),
        Augmentation(1.3, 0.0, 0, 0, False),
        Augmentation(1.0, 33.0, 0, 0, False),
        Augmentation(1.0, 0.0, 7, -5, False),
        Augmentation(1.0, 0.0, 0, 0, True),
        Augmentation(0.8, -21.0, 4, 3, True),
    ],
    ids=["plain", "scale", "rotate", "jitter", "flip", "all"],
)
def test_one_white_pixel(choice: Augmentation) -> None:
    """Paint a spot at a joint: after every step the spot is where the joint says it is."""
    image = np.zeros((120, 150, 3), np.uint8)
    x, y = 88, 47
    cv2.circle(image, (x, y), 2, (255, 255, 255), -1)
    joints = np.zeros((16, 3))
    joints[:] = [x, y, 1]
    who = Annotation("x", "MPI", joints, np.array([75.0, 60.0]), 0.5, (150, 120))
    config = Settings(stride=8, crop_size_x=368, crop_size_y=280, target_dist=1.171)
    sample = augment(image, who, config, choice)
    # brighter than the grey outside, which bicubic interpolation carries a little into the black
    # image
    heavy = np.clip(sample.pixels.min(2).astype(int) - 160, 0, None)
    centre = (
        np.array([(heavy * np.arange(368)[None]).sum(), (heavy * np.arange(280)[:, None]).sum()])
        / heavy.sum()
    )
    joint = sample.scene.people[0].joints[0]
    # the canvas' pixels lie half a scaled pixel off the joint's own rounding at most
    assert np.abs(centre - joint).max() < 1.6
    peak = np.unravel_index(sample.label[0].argmax(), sample.label[0].shape)
    assert abs(peak[1] * 8 + 3.5 - joint[0]) <= 4.01
    assert abs(peak[0] * 8 + 3.5 - joint[1]) <= 4.01


def test_a_test_takes_the_image_as_it_is() -> None:
    """Caffe throws no dice in phase TEST and crops nothing."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (80, 96, 3)).astype(np.uint8)
    who = annotation(rng, "x", 96, 80)
    config = replace(_SETTINGS, in_training=False)
    choice = Augmentation(1.2, 30.0, 5, 5, True)
    sample = augment(image, who, config, choice)
    np.testing.assert_array_equal(sample.pixels, image)
    np.testing.assert_allclose(sample.scene.objpos, who.objpos - 1, atol=1.01)
    with pytest.raises(DataError, match="this one is 96 × 79, its crop 96 × 80"):
        augment(image[:-1], who, config, choice)


@pytest.mark.parametrize(
    "settings",
    [
        "sigma: 0",
        "sigma_center: 0",
        "scale_min: nan",
        "max_rotate_degree: inf",
        "center_perterb_max: inf",
        "do_clahe: true clahe_tile_size: 1e9",
        'aug_way: "foo"',
        "crop_size_x: 4",
    ],
)
def test_settings_that_make_no_sample(settings: str) -> None:
    text = f"""layer {{ name: "d" type: "CPMData" top: "data" top: "label"
        transform_param {{ stride: 8 {settings} }} cpmdata_param {{ batch_size: 1 }} }}"""
    with pytest.raises(PrototxtError, match=settings.split(":")[-2].split()[-1]):
        build(parse_net(text))


def test_data_without_the_centre_map_is_sliced_off() -> None:
    """What the message says to do gives the 3 channels that were asked for."""
    text = """layer {{ name: "d" type: "CPMData" top: "data" top: "label"
        transform_param {{ stride: 8 {} }} cpmdata_param {{ batch_size: 1 }} }}"""
    says = r"put_gaussian: data without the centre map, 3 channels .* \(axis: 1 slice_point: 3\)"
    with pytest.raises(PrototxtError, match=says):
        build(parse_net(text.format("put_gaussian: false")))
    instead = """
        layer { name: "s" type: "Slice" bottom: "data" top: "image" top: "centre_map"
                slice_param { axis: 1 slice_point: 3 } }
        layer { name: "n" type: "Silence" bottom: "centre_map" }"""
    graph = build(parse_net(text.format("put_gaussian: true") + instead))
    assert graph.blobs["image"] == (1, 3, 368, 368)
    assert "centre_map" not in graph.outputs


def test_the_clip_limit_is_a_whole_number() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    one, other = (
        clahe(image, Settings(clahe_tile_size=2, clahe_clip_limit=limit)) for limit in (2, 2.9)
    )
    np.testing.assert_array_equal(one, other)


def test_flip_exchanges_sides() -> None:
    who = annotation(np.random.default_rng(1), "x", 100, 90)
    image = np.zeros((90, 100, 3), np.uint8)
    plain = (
        augment(image, who, _SETTINGS, Augmentation(1.0, 0.0, 0, 0, False)).scene.people[0].joints
    )
    mirror = (
        augment(image, who, _SETTINGS, Augmentation(1.0, 0.0, 0, 0, True)).scene.people[0].joints
    )
    names = _SETTINGS.skeleton.parts
    for i, name in enumerate(names):
        other = names.index({"R": "L", "L": "R"}.get(name[0], name[0]) + name[1:])
        np.testing.assert_allclose(mirror[other], [95 - plain[i, 0], plain[i, 1]], atol=1e-4)


def test_flip_without_transformed_joints_leaves_the_parts() -> None:
    """As in Caffe; parts with names of the user's own change places all the same."""
    settings = replace(_SETTINGS, num_parts=9, np_in_lmdb=9)
    assert settings.exchanged == settings.skeleton.flip != ()
    plain = replace(settings, transform_body_joint=False)
    assert plain.exchanged == ()
    named = replace(plain, num_parts=3, parts=("nose", "left_eye", "right_eye"))
    assert named.exchanged == ((2, 1),)
    who = annotation(np.random.default_rng(1), "x", 100, 90)
    who = replace(who, joints=who.joints[:9])
    image = np.zeros((90, 100, 3), np.uint8)
    straight, mirror = (
        augment(image, who, plain, Augmentation(1.0, 0.0, 0, 0, flip)).scene.people[0].joints
        for flip in (False, True)
    )
    expected = np.stack([95 - straight[:, 0], straight[:, 1]], 1)
    np.testing.assert_allclose(mirror, expected, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31 - 1, 2**31, 2**31 + 5, 2**32 - 1])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the GNU C library")
def test_rand_equals_this_machines_library(seed: int) -> None:
    """Every seed of ``srand`` gives the sequence of the C library, those above 2^31 as well."""
    library = ctypes.CDLL(None)
    library.srand(ctypes.c_uint(seed))
    sequence = glibc_rand(seed)
    assert [next(sequence) for _ in range(50)] == [library.rand() for _ in range(50)]


def test_c_library_rand() -> None:
    """The first values after srand(1), as every C program on Linux prints them."""
    sequence = glibc_rand(1)
    assert [next(sequence) for _ in range(5)] == [
        1804289383,
        846930886,
        1681692777,
        1714636915,
        1957747793,
    ]
    assert CaffeDice(glibc_rand(1)).roll() == np.float32(1804289383 / 2147483647)


def _source(folder: Path, workers: int, order: Order, method: str | None = None) -> CPMSource:
    if not (folder / "out").exists():
        store.export_lmdb(store.plan(dataset(folder, 10), seed=4), folder, folder / "out")
    maker = SampleMaker(store.LMDBStore(folder / "out"), _SETTINGS, order.seed)
    return CPMSource(maker, 3, order, workers=workers, start_method=method)


@pytest.mark.long
@pytest.mark.parametrize(
    "order",
    [Order(), Order(shuffle=True, seed=5), Order(dice="caffe"), Order(dice="caffe", shuffle=True)],
)
def test_samples_do_not_depend_on_workers_or_start(tmp_path: Path, order: Order) -> None:
    plain = [_source(tmp_path, 0, order).batch(i) for i in range(6)]
    for workers, method in ((1, "fork"), (2, "fork"), (2, "spawn")):
        source = _source(tmp_path, workers, order, method)
        for i in (4, 5) if method == "spawn" else (2, 3, 4):
            for a, b in zip(plain[i], source.batch(i), strict=True):
                np.testing.assert_array_equal(a, b)
        if method == "spawn":
            break


def test_a_script_of_pycaffe_gets_caffes_dice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caffe's layer calls rand(), which nobody seeds: the batches are those of srand(1), one record
    after the other."""
    from caffe_compat import pycaffe

    store.export_lmdb(store.plan(dataset(tmp_path, 3), seed=4), tmp_path, tmp_path / "out")
    (tmp_path / "net.prototxt").write_text(
        """layer { name: "d" type: "CPMData" top: "data" top: "label"
        transform_param { stride: 8 crop_size_x: 96 crop_size_y: 80 target_dist: 1.171
          scale_prob: 1 scale_min: 0.7 scale_max: 1.3 max_rotate_degree: 40 center_perterb_max: 10 }
        cpmdata_param { source: "out" batch_size: 2 backend: LMDB } }"""
    )
    monkeypatch.chdir(tmp_path)
    net = pycaffe.Net("net.prototxt", pycaffe.TRAIN)
    records, dice = store.LMDBStore(tmp_path / "out"), CaffeDice(glibc_rand(1))
    for numbers in ((0, 1), (2, 0)):
        net.forward()
        for ours, number in zip(net.blobs["data"].data, numbers, strict=True):
            record = records.record(number)
            choice = roll(_SETTINGS, dice)
            wanted = augment(record.image, record.annotation, _SETTINGS, choice)
            np.testing.assert_array_equal(ours, wanted.data)


def test_a_write_number_beyond_the_tables_is_refused(tmp_path: Path) -> None:
    """Tables of other records would turn people by angles that were not meant for them."""
    (tmp_path / "rotate_2_3.txt").write_text("10 20\n30 40\n50 60\n")
    (tmp_path / "flip_2_3.txt").write_text("0 1\n1 0\n0 0\n")
    tables = Tables(tmp_path, 2, 3)
    assert tables.entry(2, 0) == (50.0, False)
    assert tables.entry(0, 3) == (20.0, True)  # the columns begin again
    with pytest.raises(DataError, match="write number 3, the tables of aug_way 'table' have 3 row"):
        tables.entry(3, 0)


def test_tables_of_another_size_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rotate_2_3.txt").write_text("10 20\n30 40\n")
    (tmp_path / "flip_2_3.txt").write_text("0 1\n1 0\n0 0\n")
    with pytest.raises(DataError, match=r"rotate_2_3\.txt: has 2 × 2 numbers, expected 3 × 2"):
        Tables(tmp_path, 2, 3)


@pytest.mark.parametrize("names", [("nose", "left_eye"), ("nose", "left_eye", "right_eye", "chin")])
def test_as_many_parts_are_named_as_the_definition_has(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    """One too few or too many, and labels would have the names of others."""
    text = """layer { name: "d" type: "CPMData" top: "data" top: "label"
        transform_param { stride: 8 num_parts: 3 } cpmdata_param { batch_size: 1 } }"""
    layer = make(parse_net(text).layers[0], TRAIN)
    says = f"num_parts: {len(names)} parts are named, the definition has num_parts 3"
    with pytest.raises(PrototxtError, match=says):
        source_for(layer, tmp_path, parts=names)


def test_any_net_takes_the_parts_that_its_name_names(tmp_path: Path) -> None:
    """Not only a training does: left and right would be those of the authors' nine parts."""
    names = [
        "nose",
        "tail",
        "left_ear",
        "right_ear",
        "left_hand",
        "right_hand",
        "left_foot",
        "right_foot",
        "back",
    ]
    text = f"""name: "cats parts={",".join(names)}"
        layer {{ name: "d" type: "CPMData" top: "data"
        transform_param {{ stride: 8 crop_size_x: 64 crop_size_y: 64 num_parts: 9
        np_in_lmdb: 9 transform_body_joint: true }}
        cpmdata_param {{ source: "out" batch_size: 1 }} }}"""
    (layer,) = parse_net(text).filter(TRAIN).layers
    assert pickle.loads(pickle.dumps(layer)).network == layer.network
    _records_of(tmp_path, 9)
    source = open_source(make(layer, TRAIN), tmp_path, Draws())
    assert isinstance(source, CPMSource)
    assert source.maker.settings.parts == tuple(names)
    assert [shape[1] for shape in source.shapes] == [4]  # a layer may make the images alone
    assert len(source.batch(0)) == 1


def test_a_test_net_mirrors_nothing_and_needs_no_names() -> None:
    text = """layer { name: "d" type: "CPMData" top: "data" top: "label"
        transform_param { stride: 8 num_parts: 5 transform_body_joint: true flip_prob: 0.5 }
        cpmdata_param { batch_size: 1 } }"""
    layer = parse_net(text).layers[0]
    assert not settings_of(make(layer, TEST)).in_training
    with pytest.raises(PrototxtError, match="left and right of 5 parts are not known"):
        settings_of(make(layer, TRAIN))


def test_ranks_share_each_batch() -> None:
    whole = Schedule(10, _SETTINGS, Order(shuffle=True))
    parts = [Schedule(10, _SETTINGS, Order(shuffle=True, rank=r, world=2)) for r in (0, 1)]
    for number in range(7):
        assert [j for p in parts for j in p.batch(number, 2)] == whole.batch(number, 4)


def test_every_record_once_per_epoch() -> None:
    for shuffle in (False, True):
        schedule = Schedule(10, _SETTINGS, Order(shuffle=shuffle))
        for epoch in range(3):
            assert sorted(schedule.job(epoch * 10 + i).index for i in range(10)) == list(range(10))


def test_pixels_do_not_depend_on_ipp() -> None:
    """The sample is the same whether the process had switched IPP on or off before."""
    who = annotation(np.random.default_rng(3), "x", 110, 90)
    image = np.random.default_rng(4).integers(0, 256, (90, 110, 3), np.uint8)
    choice = Augmentation(1.17, 23.0, 0, 0, False)
    found = []
    for on in (True, False):
        cv2.ipp.setUseIPP(on)
        found.append(augment(image, who, _SETTINGS, choice).pixels)
    np.testing.assert_array_equal(found[0], found[1])


def test_another_opencv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    who = annotation(np.random.default_rng(3), "x", 110, 90)
    monkeypatch.setattr(cv2, "__version__", "5.0.0")
    with pytest.raises(DataError, match="opencv-python-headless<5"):
        augment(
            np.zeros((90, 110, 3), np.uint8), who, _SETTINGS, Augmentation(1.0, 0.0, 0, 0, False)
        )


def _records_of(folder: Path, joints: int) -> Path:
    """Records of people with this number of joints."""
    people = []
    for one in dataset(folder, 2):
        others = tuple(replace(other, joints=other.joints[:joints]) for other in one.others)
        people.append(replace(one, joints=one.joints[:joints], others=others))
    store.export_lmdb(store.plan(people, seed=4), folder, folder / "out")
    return folder / "out"


_NAMES_5 = ("nose", "left_hand", "right_hand", "left_foot", "right_foot")


@pytest.mark.parametrize(
    ("joints", "fields", "says"),
    [
        (16, {}, ""),
        (9, {"num_parts": 9}, ""),
        (9, {"num_parts": 9, "np_in_lmdb": 9}, ""),
        (9, {"num_parts": 0}, ""),
        (4, {"num_parts": 5, "np_in_lmdb": 5, "parts": _NAMES_5}, ""),  # the last never labelled
        (9, {}, "have 9 joints per person, 16 are expected for 14 parts.*--parts 9 --np-in-lmdb 9"),
        (16, {"num_parts": 9}, "have 16 joints per person, 9 are expected for 9 parts.*--parts 14"),
        (7, {"num_parts": 5, "parts": _NAMES_5}, "have 7 joints per person, 5 are expected"),
    ],
)
def test_records_of_other_joints_are_refused(
    joints: int, fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """Their labels would be of other parts than those that the definition names."""
    records, settings = _records_of(tmp_path, joints), replace(_SETTINGS, **fields)
    if not says:
        assert len(open_records(records, settings)) == 2
        return
    with pytest.raises(DataError, match=says):
        open_records(records, settings)


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_torch_data_set(tmp_path: Path, method: str) -> None:
    """Through torch's own loader and distributed sampler: every record once, the same samples from
    any worker."""
    import torch
    from torch.utils.data import DataLoader, DistributedSampler

    from reproduce.records import hdf5
    from reproduce.samples.schedule import CPMDataset

    store.export_lmdb(store.plan(dataset(tmp_path, 8), seed=4), tmp_path, tmp_path / "out")
    hdf5.from_lmdb(store.LMDBStore(tmp_path / "out"), tmp_path / "out.h5")
    plain = CPMDataset(tmp_path / "out", _SETTINGS, seed=3)
    expected = [plain[i] for i in range(len(plain))]
    assert {k: v.shape for k, v in expected[0].items()} == {
        "data": (4, 80, 96),
        "label_1st": (15, 10, 12),
        "label": (15, 10, 12),
    }
    for one in expected:  # the first label is of everybody, the other one of the person
        assert (one["label_1st"][:-1] >= one["label"][:-1]).all()
    assert any((one["label_1st"][:-1] > one["label"][:-1]).any() for one in expected)
    for path in ("out", "out.h5"):
        seen: dict[int, np.ndarray] = {}
        for rank in (0, 1):
            data = CPMDataset(tmp_path / path, _SETTINGS, seed=3)
            sampler = DistributedSampler(data, 2, rank, shuffle=False)  # type: ignore[var-annotated, arg-type]
            loader = DataLoader(  # type: ignore[var-annotated]
                data,  # type: ignore[arg-type]
                2,
                sampler=sampler,
                num_workers=1,
                multiprocessing_context=method,
            )
            found = torch.cat([batch["data"] for batch in loader])
            seen.update(zip(list(sampler), found.numpy(), strict=True))
        assert sorted(seen) == list(range(8))
        for i, data_i in seen.items():
            np.testing.assert_array_equal(data_i, expected[i]["data"])
    plain.set_epoch(1)
    assert not np.array_equal(plain[0]["data"], expected[0]["data"])


@pytest.mark.long
def test_a_program_that_keeps_its_source_ends(tmp_path: Path) -> None:
    """Workers ignore SIGTERM (it is the training's business); they still end with a program that
    never let go of them."""
    _source(tmp_path, 0, Order())
    text = (
        "import sys\nfrom pathlib import Path\nfrom tests.reproduce.samples import test_data_layer as t\n"
        "from reproduce.samples.schedule import CPMSource, Order, SampleMaker\nfrom "
        "reproduce.records import store\n"
        "source = CPMSource(SampleMaker(store.LMDBStore(sys.argv[1]), t._SETTINGS, 1), 3, "
        "Order(), workers=1)\n"
        "kept = [source, source.batch(0)]\nprint(kept[1][0].shape)\n"
    )
    command = [sys.executable, "-c", text, str(tmp_path / "out")]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[3]
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(3, 4, 80, 96)"


def test_every_epoch_has_its_own_order_and_dice() -> None:
    from reproduce.samples.dice import SampleDice
    from reproduce.samples.schedule import Order, Schedule

    schedule = Schedule(20, _SETTINGS, Order(shuffle=True, dice="numpy", seed=1))
    first, second = ([schedule.job(20 * epoch + i).index for i in range(20)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    # what record 1 throws in the first epoch is not what record 0 throws in the second one
    assert SampleDice(1, 0, 1).roll() != SampleDice(1, 1, 0).roll()


@pytest.mark.parametrize("place", [50.0, 51.0])
@pytest.mark.parametrize("offset", [-3, -1, 0, 1, 2])
def test_the_sum_of_centre_and_jitter_is_rounded(place: float, offset: int) -> None:
    """A canvas that is not turned moves the centre by half a pixel, so that every whole place is a
    tie: the even number next to the sum counts, as OpenCV rounds."""
    settings = Settings(crop_size_x=64, crop_size_y=64, num_parts=14)
    image = np.repeat(np.arange(160, dtype=np.uint8)[None, :, None], 120, 0).repeat(3, 2)
    person = augmenting.Person(np.full((14, 2), 50, np.float32), np.ones(14, np.int8))
    centre = np.array([place, 60], np.float32)
    scene = augmenting.Scene(centre, 1.0, (person,), np.zeros((0, 2), np.float32))
    choice = Augmentation(1.0, 0.0, offset, 0, False)
    _, moved = augmenting._rotate_and_crop(image, scene, settings, choice)
    matrix, _, _ = augmenting._rotation(160, 120, 0.0)
    turned = place + matrix[0, 2]
    assert turned % 1 == 0.5
    assert moved.objpos[0] == turned - (np.rint(turned + offset) - 32)
