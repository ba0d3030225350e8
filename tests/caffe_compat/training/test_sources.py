"""Random numbers and orders of data layers; what data layers refuse."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest

from caffe_compat import CaffeCompatError, parse_net, pycaffe
from caffe_compat.training.datum import Datum, decode
from caffe_compat.training.draws import Draws, Twister, glibc_rand, shuffle_as_libstdcxx
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.rows import ShuffledRows


def test_twister_gives_the_outputs_of_the_standard() -> None:
    """The C++ standard names the 10000th output of an mt19937 with its default seed."""
    assert Twister(5489).at(0, 1)[0] == 3499211612
    assert Twister(5489).at(9999, 1)[0] == 4123659995


def test_twister_goes_back() -> None:
    twister = Twister(3)
    first = twister.take(5)
    twister.at(100_000, 1)
    np.testing.assert_array_equal(twister.at(0, 5), first)


def test_below_divides_the_outputs_into_equal_buckets() -> None:
    outputs = Twister(5489).take(4)
    twister = Twister(5489)
    assert [twister.below(10) for _ in outputs] == [int(o) // (2**32 // 10) for o in outputs]


def test_shuffle_by_hand() -> None:
    """rand() begins 1804289383, 846930886, 1681692777: modulo 2, 3, 4 that is 1, 1, 1."""
    items = [0, 1, 2, 3]
    shuffle_as_libstdcxx(items, glibc_rand())
    assert items == [0, 3, 1, 2]


def test_shuffled_rows_of_files() -> None:
    """Every pass has each row once, file by file; any place can be asked for again."""
    order = ShuffledRows([3, 5])
    rows = [order.row(i) for i in range(24)]
    for first in range(0, 24, 8):
        one = rows[first : first + 8]
        assert sorted(one) == list(range(8))
        # a file is read to its end before the next one begins
        assert len({row < 3 for row in one[: 3 if one[0] < 3 else 5]}) == 1
    assert rows[:8] != rows[8:16]
    assert [order.row(i) for i in range(24)] == rows


def test_shuffled_rows_of_one_file_by_hand() -> None:
    """Each pass mixes the order of the one before, with the next of rand()'s numbers.

    These are 1714636915, 1957747793, 424238335 (modulo 2, 3, 4: 1, 2, 3, which moves nothing) and
    719885386, 1649760492, 596516649 (0, 0, 1).
    """
    order = ShuffledRows([4])
    assert [order.row(i) for i in range(12)] == [0, 3, 1, 2, 0, 3, 1, 2, 1, 2, 3, 0]


def _numbers(seed: int, count: int) -> list[int]:
    """Of the Mersenne twister, from NumPy's own."""
    return [int(n) for n in np.random.RandomState(seed)._bit_generator.random_raw(count)]


def test_shuffled_pictures_by_hand(tmp_path: Path) -> None:
    """From the last one down each changes places with one of those up to it; each pass goes on from
    the one before. The mirror's dice are seeded before the order's."""
    _pictures(tmp_path, 6)
    text = IMAGES.replace("image_data_param", "transform_param { mirror: true } image_data_param")
    feed = DataFeed(parse_net(text % "shuffle: true"), "TRAIN", tmp_path, draws=Draws(1))
    labels = np.concatenate([feed.batch(i, "cpu")["label"].numpy() for i in range(6)])
    _, seed = _numbers(1, 2)
    order, numbers, expected = list(range(6)), iter(_numbers(seed, 15)), []
    for _ in range(3):
        for last in (5, 4, 3, 2, 1):
            other = next(numbers) // (2**32 // (last + 1))
            order[last], order[other] = order[other], order[last]
        expected += order
    assert labels.tolist() == expected


def test_draws_of_a_reader_thread() -> None:
    assert Draws(17).draw() == Draws(17, reader_thread=False).draw() == Twister(17).take(1)[0]


def _feed(text: str, root: Path, phase: str = "TRAIN") -> DataFeed:
    return DataFeed(parse_net(text), phase, root)


def _pictures(folder: Path, count: int = 7) -> None:
    """Pictures whose every pixel is their number, with their number as the label."""
    lines = []
    for i in range(count):
        cv2.imwrite(str(folder / f"a {i}.png"), np.full((4, 5, 3), i, np.uint8))
        lines.append(f"a {i}.png {i}\n")
    (folder / "list.txt").write_text("".join(lines))


IMAGES = """
layer { name: "d" type: "ImageData" top: "data" top: "label"
        image_data_param { source: "list.txt" batch_size: 3 %s } }
"""


def test_shuffled_pictures(tmp_path: Path) -> None:
    _pictures(tmp_path)
    feed = _feed(IMAGES % "shuffle: true", tmp_path)
    labels = np.concatenate([feed.batch(i, "cpu")["label"].numpy() for i in range(14)])
    epochs = labels[:42].reshape(6, 7)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(7))
    assert len({tuple(epoch) for epoch in epochs}) > 1
    np.testing.assert_array_equal(feed.batch(1, "cpu")["label"].numpy(), labels[3:6])
    np.testing.assert_array_equal(feed.batch(1, "cpu")["data"][:, 0, 0, 0].numpy(), labels[3:6])


@pytest.mark.parametrize("folder", ["", 'root_folder: "a"'])
def test_names_of_pictures_from_the_root(tmp_path: Path, folder: str) -> None:
    """Caffe puts ``root_folder`` before the name, without a slash; a whole path stays one."""
    _pictures(tmp_path)
    lines = (tmp_path / "list.txt").read_text().splitlines(keepends=True)
    begin = "" if folder else f"{tmp_path}/a"
    (tmp_path / "list.txt").write_text("".join(f"{begin}{line[1:]}" for line in lines))
    feed = _feed(IMAGES % folder, tmp_path)
    assert feed.batch(0, "cpu")["label"].tolist() == [0, 1, 2]


def test_pictures_are_skipped_at_the_start(tmp_path: Path) -> None:
    _pictures(tmp_path)
    starts = set()
    for seed in range(20):
        spec = parse_net(IMAGES % "rand_skip: 4")
        feed = DataFeed(spec, "TRAIN", tmp_path, draws=Draws(seed))
        label = feed.batch(0, "cpu")["label"].numpy()
        np.testing.assert_array_equal(label, np.arange(label[0], label[0] + 3))
        starts.add(int(label[0]))
    assert starts == {0, 1, 2, 3}


def _lmdb(folder: Path, *values: bytes) -> None:
    with lmdb.open(str(folder / "records")) as database, database.begin(write=True) as write:
        for i, value in enumerate(values):
            write.put(f"{i:03d}".encode(), value)


RECORDS = """
layer { name: "d" type: "Data" top: "data" top: "label" transform_param { %s }
        data_param { source: "records" batch_size: 2 backend: LMDB } }
"""


def test_datum_with_a_negative_label() -> None:
    assert decode(Datum(1, 1, 1, b"x", label=(1 << 64) - 3).encode()).label == -3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("crop_size: 9", "smaller than crop_size 9"),
        ("mean_value: 1 mean_value: 2", "2 mean_value for 3 channels"),
        ("mean_file: 'm.binaryproto' mean_value: 1", "not both"),
        ("mean_file: 'gone.binaryproto'", "not found"),
    ],
)
def test_transformations_that_caffe_refuses(tmp_path: Path, settings: str, says: str) -> None:
    _lmdb(tmp_path, *[Datum(3, 4, 5, bytes(60)).encode()] * 2)
    with pytest.raises(CaffeCompatError, match=says):
        _feed(RECORDS % settings, tmp_path).batch(0, "cpu")


def test_records_of_several_sizes(tmp_path: Path) -> None:
    _lmdb(tmp_path, Datum(1, 2, 3, bytes(6)).encode(), Datum(1, 3, 2, bytes(6)).encode())
    with pytest.raises(CaffeCompatError, match="crop_size, or batch_size: 1"):
        _feed(RECORDS % "", tmp_path).batch(0, "cpu")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Datum(3, 2, 2, b"12345").encode(), "holds 5 bytes, expected 3×2×2"),
        (Datum(3, 2, 2, b"no picture", encoded=True).encode(), "record '000': cannot be decoded"),
        (b"\x0a\xff", "no Datum"),
    ],
)
def test_records_that_cannot_be_read(tmp_path: Path, record: bytes, says: str) -> None:
    _lmdb(tmp_path, record)
    with pytest.raises(CaffeCompatError, match=says):
        _feed(RECORDS % "", tmp_path)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ('type: "Data" data_param { source: "x" batch_size: 1 }', "backend: LEVELDB cannot"),
        ('type: "Data" data_param { source: "x" backend: LMDB }', "batch_size: must be at least"),
        ('type: "Data" data_param { batch_size: 1 backend: LMDB }', "does not name it"),
        ('type: "WindowData" window_data_param { source: "x" }', "WindowData is not supported"),
        ('type: "HDF5Data" hdf5_data_param { source: "." batch_size: 1 }', "is a directory"),
        (
            'type: "HDF5Data" hdf5_data_param { source: "x" batch_size: 1 } transform_param {}',
            "leave transform_param out",
        ),
        ('type: "ImageData" image_data_param { source: "no.txt" new_width: 3 }', "or neither"),
        (
            'type: "ImageData" image_data_param { new_width: 40000 new_height: 40000 }',
            "larger than the limit.*CPM_MAX_PIXELS",
        ),
        ('type: "ImageData" image_data_param { source: "bad.txt" }', "bad.txt:2: 'x' is no label"),
        (
            'type: "ImageData" image_data_param { source: "real.txt" }',
            "real.txt:1: '3.7' is no label",
        ),
        (
            'type: "ImageData" image_data_param { source: "one.txt" }',
            "one.txt:1: 'a.png' is no name and",
        ),
        (
            'type: "ImageData" image_data_param { source: "tab.txt" }',
            "no name and label: a line is NAME",
        ),
        ('type: "ImageData" image_data_param { source: "gone.txt" }', "b.png: cannot be read"),
        ('type: "ImageData" image_data_param { source: "page.txt" }', "page.txt: is an HTML page"),
        ('type: "HDF5Data" hdf5_data_param { source: "page.txt" batch_size: 1 }', "an HTML page"),
    ],
)
def test_layers_that_are_refused(tmp_path: Path, layer: str, says: str) -> None:
    (tmp_path / "bad.txt").write_text("a.png 1\nb.png x\n")
    (tmp_path / "real.txt").write_text("a.png 3.7\n")
    (tmp_path / "one.txt").write_text("a.png \n")
    (tmp_path / "tab.txt").write_text("a.png\t3\n")
    (tmp_path / "page.txt").write_text("<!DOCTYPE html>\n<html><body>Not found</body></html>")
    (tmp_path / "gone.txt").write_text("b.png 1\n")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(CaffeCompatError, match=says):
        _feed(f'layer {{ name: "d" top: "data" top: "label" {layer} }}', tmp_path)


def test_hdf5_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    for name, width in (("a.h5", 2), ("b.h5", 3)):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = np.zeros((4, width))
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    text = (
        'layer { name: "d" type: "HDF5Data" top: "data" '
        'hdf5_data_param { source: "list.txt" batch_size: 2 } }'
    )
    with pytest.raises(CaffeCompatError, match=r"\(3,\) in b.h5 and \(2,\) in a.h5"):
        _feed(text, tmp_path)


INPUT_NET = """
layer { name: "d" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_a_script_fills_the_inputs_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step uses what the blobs hold: the update is the gradient by hand."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(INPUT_NET)
    Path("s.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed"')
    solver = pycaffe.SGDSolver("s.prototxt")
    before = solver.net.params["ip"][0].data.copy()
    data = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    solver.net.blobs["data"].data[...] = data
    solver.net.blobs["label"].data[...] = [0, 2]
    solver.step(1)
    scores = np.exp(data @ before.T)
    scores /= scores.sum(1, keepdims=True)
    scores[[0, 1], [0, 2]] -= 1
    after = before - 0.1 * scores.T @ data / 2
    np.testing.assert_allclose(solver.net.params["ip"][0].data, after, atol=1e-6)


MEMORY_NET = """
layer { name: "m" type: "MemoryData" top: "data" top: "label"
        memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 } }
"""


@pytest.mark.parametrize(
    ("data", "labels", "says"),
    [
        ((3, 1, 1, 2), (3,), "3 rows make no whole batches of 2"),
        ((2, 1, 2, 2), (2,), r"expected \(rows, 1, 1, 2\)"),
        ((2, 1, 1, 2), (4,), "need as many labels"),
    ],
)
def test_arrays_that_do_not_fit_memory_data(
    tmp_path: Path, data: tuple[int, ...], labels: tuple[int, ...], says: str
) -> None:
    (tmp_path / "net.prototxt").write_text(MEMORY_NET)
    net = pycaffe.Net(str(tmp_path / "net.prototxt"), pycaffe.TEST)
    with pytest.raises(CaffeCompatError, match=says):
        net.set_input_arrays(np.zeros(data), np.zeros(labels))
    with pytest.raises(CaffeCompatError, match="set_input_arrays"):
        net.forward()


_NOISE = """layer { name: "a" type: "DummyData" top: "a" top: "b" dummy_data_param {
    shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "c" type: "DummyData" top: "c" dummy_data_param {
    shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }"""


def _noise(seed: int) -> dict[str, list[float]]:
    feed = DataFeed(parse_net(_NOISE), "TRAIN", Path("."), draws=Draws(seed))
    return {name: blob.flatten().tolist() for name, blob in feed.batch(0, "cpu").items()}


def test_layers_of_noise_have_numbers_of_their_own() -> None:
    """As in Caffe, where all draw from one generator; a seed gives the same ones again."""
    found = _noise(1)
    assert len({tuple(values) for values in found.values()}) == 3
    assert _noise(1) == found
    assert all(_noise(2)[name] != values for name, values in found.items())
