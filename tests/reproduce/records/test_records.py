"""Record files: written, interrupted, converted, read back, damaged."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.training import datum
from caffe_compat.training.datum import LMDBReader
from reproduce.cli import export
from reproduce.people import annotation
from reproduce.people.annotation import Annotation
from reproduce.people.matlab_pixels import to_matlab
from reproduce.records import encoding, hdf5, joints, layout, store
from reproduce.records.opening import open_store
from tests.paths import DATA, needs_data
from tests.people import dataset


def _values(path: Path) -> list[tuple[bytes, bytes]]:
    reader = LMDBReader(path)
    found = [(reader.keys[i], reader.raw(i)) for i in range(len(reader))]
    reader.close()
    return found


def test_record_round_trip(tmp_path: Path) -> None:
    people = dataset(tmp_path, 9)
    plan = store.plan(people, seed=4)
    store.export_lmdb(plan, tmp_path, tmp_path / "out")
    opened = store.LMDBStore(tmp_path / "out")
    for i, expected in enumerate(plan.annotations):
        record = opened.record(i)
        image = layout.pad_narrow(store.read_image(encoding.image_path(tmp_path, expected)))
        np.testing.assert_array_equal(record.image, image)
        stored = to_matlab(expected.joints).astype(np.float32)
        np.testing.assert_array_equal(to_matlab(record.annotation.joints), stored)
        assert record.annotation.size == expected.size
        assert len(record.annotation.others) == len(expected.others)
        assert (record.write_number, record.total) == (i, 9)


def test_workers_write_the_same(tmp_path: Path) -> None:
    plan = store.plan(dataset(tmp_path, 12), seed=1)
    store.export_lmdb(plan, tmp_path, tmp_path / "one")
    store.export_lmdb(plan, tmp_path, tmp_path / "two", workers=2)
    assert _values(tmp_path / "one") == _values(tmp_path / "two")


@pytest.mark.parametrize("jpeg", [False, True])
def test_hdf5_and_back(tmp_path: Path, jpeg: bool) -> None:
    plan = store.plan(dataset(tmp_path, 9), seed=4)
    store.export_lmdb(plan, tmp_path, tmp_path / "out", jpeg=jpeg)
    opened = store.LMDBStore(tmp_path / "out")
    hdf5.from_lmdb(opened, tmp_path / "out.h5")
    h5 = hdf5.HDF5Store(tmp_path / "out.h5")
    assert len(h5) == 9
    for i in range(9):
        a, b = opened.record(i), h5.record(i)
        np.testing.assert_array_equal(a.image, b.image)
        assert a.annotation.same(b.annotation)
        assert (a.write_number, a.total) == (b.write_number, b.total)
    store.write_values(hdf5.to_lmdb_values(h5), tmp_path / "back")
    assert _values(tmp_path / "back") == _values(tmp_path / "out")


def test_hdf5_by_any_name(tmp_path: Path) -> None:
    """What a file holds counts where its name does not say it; a folder is an LMDB."""
    from reproduce.cli import export

    store.export_lmdb(store.plan(dataset(tmp_path, 2), seed=4), tmp_path, tmp_path / "db.h5")
    run = CliRunner().invoke(
        export.main, ["hdf5", str(tmp_path / "db.h5"), "-o", str(tmp_path / "a.H5")]
    )
    assert run.exit_code == 0, run.output
    (tmp_path / "a.H5").rename(tmp_path / "plain")
    back = ["hdf5", str(tmp_path / "plain"), "-o", str(tmp_path / "back")]
    assert CliRunner().invoke(export.main, back).exit_code == 0
    for name in ("db.h5", "plain", "back"):
        opened = open_store(tmp_path / name)
        assert len(opened) == 2
        opened.close()


def _export(out: str, root: str, people: list[annotation.Annotation], die_at: int = -1) -> None:
    def progress(done: int, total: int) -> None:
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store.COMMIT_EVERY = 4
    store.export_lmdb(store.plan(people, seed=2), root, out, progress=progress)


def _run_export(*args: object, kill_after: float | None = None) -> None:
    child = multiprocessing.get_context("fork").Process(target=_export, args=args)
    child.start()
    if kill_after is not None:
        time.sleep(kill_after)
        assert child.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    child.join()


@pytest.mark.long
def test_a_hundred_kills(tmp_path: Path) -> None:
    """Killed at any moment, an export never reads as complete, and goes on to the same records.

    Half of the kills come at a random time, wherever the program is then; half between two random
    records.
    """
    people = dataset(tmp_path, 30)
    root = str(tmp_path)
    start = time.monotonic()
    _run_export(str(tmp_path / "whole"), root, people)
    length = time.monotonic() - start
    expected = _values(tmp_path / "whole")
    chance = random.Random(0)
    resumed = 0
    for i in range(100):
        out = tmp_path / f"out{i}"
        if i % 2:
            _run_export(str(out), root, people, kill_after=chance.uniform(0, length))
        else:
            _run_export(str(out), root, people, chance.randrange(1, 30))
            assert not out.exists()
        if not out.exists():
            resumed += (tmp_path / f"out{i}.partial" / "export.json").exists()
            _run_export(str(out), root, people)
        assert _values(out) == expected
        assert not (tmp_path / f"out{i}.partial").exists()
    assert resumed > 20


def test_bad_images(tmp_path: Path) -> None:
    people = dataset(tmp_path, 6)
    (tmp_path / "MPI" / "images" / people[2].image).write_bytes(b"\xff\xd8not a picture")
    (tmp_path / "MPI" / "images" / people[4].image).unlink()
    plan = store.plan(people, seed=0)
    with pytest.raises(DataError, match=r"record \d of 6: .*im000[24]"):
        store.export_lmdb(plan, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    skipped = store.export_lmdb(plan, tmp_path, tmp_path / "out", skip_bad=True)
    assert len(skipped) == 2
    assert len(LMDBReader(tmp_path / "out")) == 4


@pytest.mark.parametrize("bad", [0, 3])
def test_a_bad_image_keeps_the_records_before_it(tmp_path: Path, bad: int) -> None:
    """The message says where they are, and the next run goes on from them; no records, no
    folder."""
    plan = store.plan(dataset(tmp_path, 6), seed=0)
    image = tmp_path / "MPI" / "images" / plan.annotations[bad].image
    aside = image.rename(tmp_path / "aside")
    partial = tmp_path / "out.partial"
    with pytest.raises(DataError, match=r"record \d of 6") as caught:
        store.export_lmdb(plan, tmp_path, tmp_path / "out")
    said = f"the {bad} records before it stay in {partial}" in str(caught.value)
    assert said == partial.exists() == bool(bad)
    aside.rename(image)
    begun: list[int] = []
    store.export_lmdb(
        plan, tmp_path, tmp_path / "out", progress=lambda done, total: begun.append(done)
    )
    assert begun == list(range(bad + 1, 7))
    assert len(LMDBReader(tmp_path / "out")) == 6


def test_raw_and_encoded_records_make_no_hdf5_file(tmp_path: Path) -> None:
    from lmdb import open as open_lmdb

    plan = store.plan(dataset(tmp_path, 2), seed=0)
    for name, jpeg in (("raw", False), ("jpeg", True)):
        store.export_lmdb(plan, tmp_path, tmp_path / name, jpeg=jpeg)
    with (
        open_lmdb(str(tmp_path / "raw")) as raw,
        open_lmdb(str(tmp_path / "jpeg")) as encoded,
        raw.begin(write=True) as write,
        encoded.begin() as read,
    ):
        write.put(b"9999999", next(value for _, value in read.cursor()))
    with pytest.raises(DataError, match="holds raw and encoded images"):
        hdf5.from_lmdb(store.LMDBStore(tmp_path / "raw"), tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_long_keys_and_names_come_back_from_hdf5(tmp_path: Path) -> None:
    from lmdb import open as open_lmdb

    plan = store.plan(dataset(tmp_path, 2), seed=0)
    store.export_lmdb(plan, tmp_path, tmp_path / "short")
    keys = []
    with (
        open_lmdb(str(tmp_path / "short")) as short,
        open_lmdb(str(tmp_path / "long")) as long,
        short.begin() as read,
        long.begin(write=True) as write,
    ):
        for key, value in read.cursor():
            keys.append(b"person_" + key)
            write.put(keys[-1], value)
    hdf5.from_lmdb(store.LMDBStore(tmp_path / "long"), tmp_path / "out.h5")
    opened = hdf5.HDF5Store(tmp_path / "out.h5")
    assert opened.keys == keys


def test_a_number_that_no_record_has(tmp_path: Path) -> None:
    store.export_lmdb(store.plan(dataset(tmp_path, 2), seed=0), tmp_path, tmp_path / "out")
    records = store.LMDBStore(tmp_path / "out")
    hdf5.from_lmdb(records, tmp_path / "out.h5")
    for opened in (records, hdf5.HDF5Store(tmp_path / "out.h5")):
        with pytest.raises(DataError, match="has no record 99; its 2 records count from 0"):
            opened.record(99)


def test_a_record_is_shown_by_its_key(tmp_path: Path) -> None:
    """As messages name it, whatever --skip-bad left out before it; no place is taken for a key."""
    people = dataset(tmp_path, 4)
    plan = store.plan(people, seed=0)
    (tmp_path / "MPI" / "images" / plan.annotations[1].image).unlink()
    store.export_lmdb(plan, tmp_path, tmp_path / "l", skip_bad=True)
    hdf5.from_lmdb(store.LMDBStore(tmp_path / "l"), tmp_path / "l.h5")
    for file in ("l", "l.h5"):
        for key in ("2", "0000002"):
            result = CliRunner().invoke(export.main, ["show", str(tmp_path / file), key])
            assert "record 0000002 (2 of 3)" in result.output, result.output
            assert f"scale {plan.annotations[2].scale:.4f}" in result.output
        missing = CliRunner().invoke(export.main, ["show", str(tmp_path / file), "1"])
        assert missing.exit_code == 2
        assert "has no record 1; the keys of its 3 records run from 0000000 to 0000003" in (
            missing.stderr
        )


def test_a_conversion_keeps_an_interrupted_export(tmp_path: Path) -> None:
    people = dataset(tmp_path, 4)
    store.export_lmdb(store.plan(people, seed=0), tmp_path, tmp_path / "good")
    hdf5.from_lmdb(store.LMDBStore(tmp_path / "good"), tmp_path / "good.h5")
    plan = store.plan(people, seed=1)
    (tmp_path / "MPI" / "images" / plan.annotations[3].image).unlink()
    with pytest.raises(DataError, match="the 3 records before it stay"):
        store.export_lmdb(plan, tmp_path, tmp_path / "out")
    words = ["hdf5", str(tmp_path / "good.h5"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(export.main, words)
    assert result.exit_code == 2
    assert "out.partial: an interrupted 'cpm-export lmdb' is kept there" in result.stderr
    assert (tmp_path / "out.partial" / "data.mdb").exists()
    assert not (tmp_path / "out").exists()


def test_an_interrupted_conversion_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.export_lmdb(store.plan(dataset(tmp_path, 4), seed=0), tmp_path, tmp_path / "good")
    hdf5.from_lmdb(store.LMDBStore(tmp_path / "good"), tmp_path / "good.h5")
    opened = hdf5.HDF5Store(tmp_path / "good.h5")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hdf5.to_lmdb(opened, tmp_path / "out", stop)
    assert not (tmp_path / "out").exists()

    def free(_: object) -> object:
        """A disk that the records fit on once."""
        taken = sum(path.stat().st_size for path in tmp_path.glob("out.partial/data.mdb"))
        return type("Usage", (), {"free": 1_000_000 - taken})()

    monkeypatch.setattr(shutil, "disk_usage", free)
    told: list[tuple[int, int]] = []
    hdf5.to_lmdb(opened, tmp_path / "out", lambda done, total: told.append((done, total)))
    assert told == [(4, 4)]
    assert _values(tmp_path / "out") == _values(tmp_path / "good")


@pytest.mark.parametrize("jpeg", [False, True])
def test_conversions_look_at_the_disk_first(
    jpeg: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = store.plan(dataset(tmp_path, 3), seed=0)
    store.export_lmdb(plan, tmp_path, tmp_path / "l", jpeg=jpeg)
    opened = store.LMDBStore(tmp_path / "l")
    hdf5.from_lmdb(opened, tmp_path / "l.h5")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"again.h5: needs .* MB, .* has 0.0 MB free"):
        hdf5.from_lmdb(opened, tmp_path / "again.h5")
    with pytest.raises(DataError, match=r"again: needs .* MB, .* has 0.0 MB free"):
        hdf5.to_lmdb(hdf5.HDF5Store(tmp_path / "l.h5"), tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("again")]


def test_existing_target_and_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = store.plan(dataset(tmp_path, 3), seed=0)
    store.export_lmdb(plan, tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="exists already"):
        store.export_lmdb(plan, tmp_path, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match="MB free"):
        store.export_lmdb(plan, tmp_path, tmp_path / "other")
    assert not (tmp_path / "other.partial").exists()


def test_commands(tmp_path: Path) -> None:
    people = dataset(tmp_path, 5)
    annotation.write_json(tmp_path / "a.json", people)
    runner = CliRunner()

    def run(*args: object) -> str:
        result = runner.invoke(export.main, [str(a) for a in args])
        assert result.exit_code == 0, result.output
        return result.output

    run(
        "lmdb",
        tmp_path / "a.json",
        "--data",
        tmp_path,
        "-o",
        tmp_path / "l",
        "--seed",
        3,
        "--workers",
        0,
    )
    assert "5 records" in run("hdf5", tmp_path / "l", "-o", tmp_path / "l.h5")
    run("hdf5", tmp_path / "l.h5", "-o", tmp_path / "again")
    assert _values(tmp_path / "again") == _values(tmp_path / "l")
    out = run("show", tmp_path / "l", "2", "-o", tmp_path / "r.png")
    assert "joint 15 Lwri " in out
    assert (tmp_path / "r.png").stat().st_size > 1000
    run("preview", tmp_path / "l.h5", "--n", 4, "-o", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
    for bad in (
        ["show", tmp_path / "l", "99"],
        ["show", tmp_path / "none"],
        ["hdf5", tmp_path / "a.json", "-o", tmp_path / "x.h5"],
        ["hdf5", tmp_path / "l.h5", "--joints", 16, "-o", tmp_path / "x"],
        ["hdf5", tmp_path / "l", "-o", tmp_path / "x.lmdb"],
        ["lmdb", tmp_path / "none.json", "--data", tmp_path, "-o", tmp_path / "y"],
    ):
        result = runner.invoke(export.main, [str(a) for a in bad])
        assert result.exit_code == 2, bad
        assert "Traceback" not in result.output


def _with_joints(people: list[Annotation], count: int, name: str) -> list[Annotation]:
    """The same people with the first joints only, as if of another data set."""
    found = []
    for one in people:
        others = tuple(replace(other, joints=other.joints[:count]) for other in one.others)
        found.append(replace(one, dataset=name, joints=one.joints[:count], others=others))
    return found


def _mixed(
    folder: Path, counts: tuple[int, int], names: tuple[str, str], *, jpeg: bool = False
) -> Path:
    """An LMDB as earlier versions wrote it from two data sets: three records of each."""
    people = dataset(folder, 6)
    values: list[tuple[bytes, bytes | bytearray]] = []
    for half, (count, name) in enumerate(zip(counts, names, strict=True)):
        for a in _with_joints(people[3 * half : 3 * half + 3], count, name):
            path, number = folder / "MPI/images" / a.image, len(values)
            image = layout.pad_narrow(store.read_image(path))
            value: bytes | bytearray
            if jpeg:
                stored, size = path.read_bytes(), (image.shape[0], image.shape[1])
                value = layout.encode_stored(a, stored, size, number, 6)
            else:
                value = layout.encode(a, store.read_image(path), number, 6)
            values.append((b"%07d" % number, value))
    store.write_values(values, folder / "mixed")
    return folder / "mixed"


def test_people_of_different_joints_are_not_exported(tmp_path: Path) -> None:
    """The files have one number of joints each, and all the same."""
    people = dataset(tmp_path, 6)
    flic = _with_joints(people[3:], 9, "FLIC")
    files = {
        "mpi": people[:3],
        "leeds": [replace(one, dataset="LEEDS", others=()) for one in people[3:]],
        "flic": flic,
        "both": people[:3] + flic,
        "others": [replace(flic[2], others=people[2].others)],
        "short": [replace(people[2], others=flic[2].others)],
    }
    for name, content in files.items():
        annotation.write_json(tmp_path / f"{name}.json", content)
    before = sorted(os.listdir(tmp_path))

    def run(*names: str) -> Result:
        words = ["lmdb", *(str(tmp_path / f"{name}.json") for name in names)]
        return CliRunner().invoke(
            export.main, [*words, "--data", str(tmp_path / "MPI/images"), "-o", str(tmp_path / "l")]
        )

    for names, says in (
        (
            ("mpi", "flic"),
            r"flic\.json: its people have 9 joints, those of .*mpi\.json 16; .*two files",
        ),
        (("flic", "mpi"), r"mpi\.json: its people have 16 joints, those of .*flic\.json 9; "),
        (
            ("both",),
            r"both\.json: im0003\.jpg: a person in it has 9 joints, those before it have 16",
        ),
        (("others",), r"others\.json: im0005\.\w+: a person in it has 16 joints, .* have 9"),
    ):
        result = run(*names)
        assert result.exit_code == 2, result.output
        assert re.search(says, result.stderr), result.stderr
        assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises(DataError, match=r"im0003\.jpg: a person in it has 9 joints"):
        store.plan(files["both"])
    assert run("mpi", "leeds").exit_code == 0
    shutil.rmtree(tmp_path / "l")
    assert run("short").exit_code == 0  # others in an image may have fewer, as MPII's have


def test_a_person_without_joints_goes_with_any(tmp_path: Path) -> None:
    one, two = dataset(tmp_path, 2)
    nobody = replace(one, joints=np.zeros((0, 3)))
    assert joints.joints_of([nobody, two]) == joints.joints_of([two, nobody]) == 16


@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize("first", ["LEEDS", "FLIC"])
def test_mixed_records_are_refused(first: str, jpeg: bool, tmp_path: Path) -> None:
    """Records of FLIC's 9 joints among others of 16, in either order, by every reader of them."""
    counts, names = ((16, 9), ("LEEDS", "FLIC")) if first == "LEEDS" else ((9, 16), ("FLIC", "MPI"))
    path = _mixed(tmp_path, counts, names, jpeg=jpeg)
    says = {
        "LEEDS": "mixed: record 0000000: has 16 joints per person, but there are 9 in .* of FLIC; ",
        "FLIC": "mixed: record 0000000: is of FLIC, whose people have 9 joints, but there are 16 in",
    }[first]
    for joints_given in (None, 16):
        with pytest.raises(DataError, match=says):
            open_store(path, joints_given)
    for words in (
        ["show", path, "1"],
        ["preview", path, "-o", tmp_path / "p.png"],
        ["hdf5", path, "-o", tmp_path / "m.h5"],
    ):
        result = CliRunner().invoke(export.main, [str(word) for word in words])
        assert result.exit_code == 2, result.output
        assert re.search(says, result.stderr), result.stderr
        assert not {"p.png", "m.h5"} & set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("counts", "names", "given", "says"),
    [
        ((16, 9), ("MPI", "FLIC"), 16, "record 0000003: is of FLIC, whose people have 9 joints"),
        ((9, 16), ("FLIC", "MPI"), 16, "record 0000003: has 16 joints per person, but there are 9"),
        ((9, 16), ("own", "more"), 9, "record 0000003: a person in it has 16 joints, 9 are exp"),
    ],
)
def test_records_that_the_sample_missed_are_met_when_read(
    counts: tuple[int, int],
    names: tuple[str, str],
    given: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "_LOOKED_AT", 1)  # the first record alone
    opened = store.LMDBStore(_mixed(tmp_path, counts, names), given)
    for index in range(3):
        opened.record(index)
    with pytest.raises(DataError, match=says):
        opened.record(3)


def test_other_data_may_borrow_a_name(tmp_path: Path) -> None:
    """People called FLIC's who have 16 joints, and MPI's who have 9, as long as all have as many."""
    for count, names in ((16, ("FLIC", "own")), (9, ("MPI", "FLIC"))):
        folder = tmp_path / str(count)
        opened = open_store(_mixed(folder, (count, count), names))
        assert [len(opened.record(i).annotation.joints) for i in range(6)] == [count] * 6


@pytest.mark.parametrize("count", [14, 15])
def test_own_people_have_the_joints_that_they_show(count: int, tmp_path: Path) -> None:
    """Only those of the authors' data sets have joints behind the last one that is labelled."""
    own = _mixed(tmp_path / "own", (count, count), ("COCO", "COCO"))
    result = CliRunner().invoke(export.main, ["show", str(own)])
    assert result.exit_code == 0, result.output
    assert f"joint {count - 1} " in result.output
    assert f"joint {count} " not in result.output
    converted = tmp_path / "own.h5"
    result = CliRunner().invoke(export.main, ["hdf5", str(own), "-o", str(converted)])
    assert result.exit_code == 0, result.output
    assert open_store(converted, count).joints == count

    for names in (("MPI", "MPI"), ("LEEDS", "LEEDS"), ("MPI", "COCO")):
        assert open_store(_mixed(tmp_path / "-".join(names), (count, count), names)).joints == 16


def test_mixed_records_in_hdf5_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an earlier version made of such an LMDB."""
    path = _mixed(tmp_path, (16, 9), ("MPI", "FLIC"))
    with monkeypatch.context() as patched:
        patched.setattr(joints.OneNumber, "check", lambda *_: None)
        hdf5.from_lmdb(store.LMDBStore(path), tmp_path / "m.h5")
    with pytest.raises(DataError, match=r"m\.h5: record 0000000: has 16 joints per person, but"):
        open_store(tmp_path / "m.h5")


def test_datum_by_bytes() -> None:
    made = datum.Datum(1, 2, 3, bytes(range(6))).encode()
    assert made == b"\x08\x01\x10\x02\x18\x03\x22\x06\x00\x01\x02\x03\x04\x05\x28\x00"
    back = datum.decode(made)
    assert back.data.tolist() == [[[0, 1, 2], [3, 4, 5]]]


@settings(
    max_examples=200, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    st.lists(st.tuples(st.integers(0, 20000), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_damaged_records(changes: list[tuple[int, int]], jpeg: bool) -> None:
    value = bytearray(_RECORDS[jpeg])
    for place, byte in changes:
        value[place % len(value)] = byte
    with contextlib.suppress(CaffeCompatError):
        found = datum.decode(bytes(value))
        layout.decode(found, 16)


def _two_records() -> dict[bool, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plan = store.plan(dataset(root, 3), seed=0)
        found = {}
        for jpeg in (False, True):
            store.export_lmdb(plan, root, root / f"out{jpeg}", jpeg=jpeg)
            found[jpeg] = LMDBReader(root / f"out{jpeg}").raw(1)
    return found


_RECORDS = _two_records()


@settings(max_examples=100, deadline=2000, derandomize=True)
@given(st.text(alphabet='{}[]",:0123456789.-eroot_imgpathsnull', max_size=60))
def test_damaged_json(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        with contextlib.suppress(CaffeCompatError):
            annotation.read_json(file.name)


@pytest.mark.long
@needs_data
def test_real_images_there_and_back(tmp_path: Path) -> None:
    """LSP and LSPET as downloaded: exported, read back, compared (every 40th person)."""
    from reproduce.people import lsp_files

    people = lsp_files.read_training(DATA, skip_missing=True)
    assert len(people) > 9000
    plan = store.plan(people[::40], seed=0)
    store.export_lmdb(plan, DATA, tmp_path / "out", workers=2)
    opened = store.LMDBStore(tmp_path / "out")
    assert len(opened) == plan.total
    for i, expected in enumerate(plan.annotations):
        record = opened.record(i)
        image = layout.pad_narrow(store.read_image(encoding.image_path(DATA, expected)))
        np.testing.assert_array_equal(record.image, image)
        stored = to_matlab(expected.joints).astype(np.float32)
        np.testing.assert_array_equal(to_matlab(record.annotation.joints), stored)
        assert record.annotation.scale == np.float32(expected.scale)


@pytest.mark.parametrize("jpeg", [False, True])
def test_what_no_reader_takes_is_not_written(jpeg: bool, tmp_path: Path) -> None:
    """A place far away or a person of no size would stop the training at that record."""
    people = dataset(tmp_path, 3)
    # where the images of a data set of another name are looked for
    shutil.copy(tmp_path / "MPI" / "images" / people[1].image, tmp_path)
    far = people[1].joints.copy()
    far[2, 0] = 1e9
    for bad, said in (
        (replace(people[1], joints=far), "im0001.jpg: a joint or centre lies nowhere"),
        (replace(people[1], scale=1e30), "im0001.jpg: the person's scale is 1e[+]30"),
        (replace(people[1], people_index=-1), "im0001.jpg: people_index is -1, and a record holds"),
        (replace(people[1], dataset="Füße"), "im0001.jpg: the name of dataset 'Füße' is not ASCII"),
    ):
        plan = store.plan([people[0], bad, people[2]], seed=1)
        with pytest.raises(DataError, match=said):
            store.export_lmdb(plan, tmp_path, tmp_path / "out", jpeg=jpeg)
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
        skipped = store.export_lmdb(plan, tmp_path, tmp_path / "out", jpeg=jpeg, skip_bad=True)
        assert len(skipped) == 1
        opened = store.LMDBStore(tmp_path / "out")
        assert [opened.record(i).total for i in range(len(opened))] == [3, 3]
        opened.close()
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("jpeg", [False, True])
def test_a_picture_of_another_size_than_annotated(jpeg: bool, tmp_path: Path) -> None:
    """Joints that were marked on the turned or resized picture would be elsewhere in this one."""
    people = dataset(tmp_path, 3)
    width, height = people[1].size
    for size, hint in (((height, width), "EXIF"), ((2 * width, 2 * height), "resize it")):
        plan = store.plan([people[0], replace(people[1], size=size), people[2]], seed=1)
        with pytest.raises(DataError, match=rf"im0001\.jpg: is {width} × {height} .*{hint}"):
            store.export_lmdb(plan, tmp_path, tmp_path / "out", jpeg=jpeg)
        skipped = store.export_lmdb(plan, tmp_path, tmp_path / "out", jpeg=jpeg, skip_bad=True)
        assert len(skipped) == 1
        shutil.rmtree(tmp_path / "out")


def test_an_export_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    """Records of another order or of other images are not mixed; more may be left out than
    before."""
    people = dataset(tmp_path / "one", 6)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    plan = store.plan(people, seed=2)
    (tmp_path / "one" / "MPI" / "images" / plan.annotations[4].image).unlink()
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(DataError, match="the 4 records before it stay"):
        store.export_lmdb(plan, tmp_path / "one", out)
    for other, root, jpeg in (
        (store.plan(people, seed=3), "one", False),
        (store.plan(people[:5], seed=2), "one", False),
        (plan, "two", False),
        (plan, "one", True),
    ):
        with pytest.raises(DataError, match=r"out\.partial: an export was begun .*remove"):
            store.export_lmdb(other, tmp_path / root, out, jpeg=jpeg)
        assert (partial / "data.mdb").exists()
    begun: list[int] = []
    skipped = store.export_lmdb(
        plan, tmp_path / "one", out, skip_bad=True, progress=lambda done, _: begun.append(done)
    )
    assert begun == [5, 6]
    assert len(skipped) == 1
    assert len(store.LMDBStore(out)) == 5


def test_values_of_more_than_one_transaction(tmp_path: Path) -> None:
    values = [(b"%07d" % i, bytes([i])) for i in range(70)]
    store.write_values(iter(values), tmp_path / "out")
    assert _values(tmp_path / "out") == values


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("joint_self", np.ones((3, 16)).tolist(), "joint_self is 3 × 16 numbers, expected rows"),
        ("joint_self", np.ones((9, 2)).tolist(), "joint_self is 9 × 2 numbers, expected rows"),
        ("joint_self", np.ones(48).tolist(), "joint_self is 48 numbers, expected rows of 3"),
        ("img_width", 0, "img_width and img_height are 0 and"),
        ("img_height", -5, "and -5, expected the picture's size"),
    ],
)
def test_joints_of_another_shape(field: str, value: object, said: str, tmp_path: Path) -> None:
    """LSP's own files hold 3 × J numbers; rows of another length are other joints."""
    annotation.write_json(tmp_path / "a.json", dataset(tmp_path, 1))
    content = json.loads((tmp_path / "a.json").read_text())
    records = content["root"] if isinstance(content["root"], list) else [content["root"]]
    records[0][field] = value
    (tmp_path / "b.json").write_text(json.dumps({"root": records}))
    with pytest.raises(DataError, match=f"record 0.*{said}"):
        annotation.read_json(tmp_path / "b.json")


def test_records_of_nobody_are_not_written(tmp_path: Path) -> None:
    """An LMDB without records is one that no command reads."""
    people = [replace(a, validation=True) for a in dataset(tmp_path, 2)]
    for plan in (store.plan([]), store.plan(people, validation=True)):
        with pytest.raises(DataError, match="out: nobody to write"):
            store.export_lmdb(plan, tmp_path, tmp_path / "out")
    gone = store.plan([replace(a, image="none.png") for a in people])
    for _ in range(2):
        with pytest.raises(DataError, match=r"every record is bad; record 0: .*none\.png"):
            store.export_lmdb(gone, tmp_path, tmp_path / "out", skip_bad=True)
    assert not list(tmp_path.glob("out*"))
