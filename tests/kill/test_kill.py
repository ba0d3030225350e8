"""A few kills of every command (``make kill`` makes many more), two at once, and a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from caffe_compat.commands import Command
from caffe_compat.files import atomic_write
from reproduce.cli import predict
from reproduce.records import store
from reproduce.runtime.locks import Taken, hold
from tests.kill.run import WORKS, kill, prepare, start, wait
from tests.people import dataset
from tests.predicting import write_film


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_killed_and_gone_on(source: Path, name: str) -> None:
    counts = kill(name, source, 6)
    assert sum(counts.values()) >= 6


def test_two_at_once(source: Path, tmp_path: Path) -> None:
    """The second export to one target is refused in one line that names the first; nothing is
    lost."""
    work = WORKS["export"]
    children = []
    with hold(tmp_path / "lmdb"):
        child = start(work.main, work.start(source, tmp_path, False), tmp_path / "second.txt")
        assert wait(child, 60) == 2
    said = (tmp_path / "second.txt").read_text()
    assert f"process {os.getpid()} on" in said
    assert len([line for line in said.splitlines() if line.startswith("error")]) == 1
    for name in ("a.txt", "b.txt"):
        children.append(start(work.main, work.start(source, tmp_path, False), tmp_path / name))
    codes = sorted(str(wait(child, 60)) for child in children)
    assert codes == ["0", "2"]  # refused by the lock, or by the whole target
    assert work.result(tmp_path) == list(range(1, 41))


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, time; from reproduce.runtime.locks import hold\n"
        "with hold(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    root = str(Path(__file__).resolve().parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(Taken, match=f"process {child.pid} on"), hold(tmp_path / "x"):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with hold(tmp_path / "x"):
        pass


@click.command(cls=Command)
@click.argument("target")
def _slow(target: str) -> None:
    """Write a file, slowly."""
    with atomic_write(target) as stream:
        stream.write(b"half")
        stream.flush()
        print("writing", flush=True)
        time.sleep(60)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_what_ends_a_command_leaves_no_temporary_file(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "target").write_text("old")
    log = tmp_path / "log.txt"
    child = start(_slow.main, [str(tmp_path / "target")], log)
    while not (log.exists() and "writing" in log.read_text()):
        time.sleep(0.01)
    assert len(list(tmp_path.iterdir())) == 3
    os.kill(child, number)
    assert wait(child, 60) == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "target"]
    assert (tmp_path / "target").read_text() == "old"


def test_foreign_partial_folder_is_kept(tmp_path: Path) -> None:
    plan = store.plan(dataset(tmp_path, 3), seed=0)
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("years of work")
    with pytest.raises(Exception, match="was not made by an export"):
        store.export_lmdb(plan, tmp_path, tmp_path / "out")
    assert (partial / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_order_is_kept(tmp_path: Path) -> None:
    """Without a seed, an interrupted export goes on in the order that it began with; other people
    begin anew."""
    people = dataset(tmp_path, 8)
    out = tmp_path / "out"
    plan = store.plan(people)
    partial = tmp_path / "out.partial"

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    every, store.COMMIT_EVERY = store.COMMIT_EVERY, 2
    try:
        with pytest.raises(KeyboardInterrupt):
            store.export_lmdb(plan, tmp_path, out, progress=stop)
        assert partial.exists()
        store.export_lmdb(store.plan(people), tmp_path, out)
    finally:
        store.COMMIT_EVERY = every
    opened = store.LMDBStore(out)
    order = [opened.record(i).annotation.annolist_index for i in range(8)]
    assert order[:4] == [a.annolist_index for a in plan.annotations][:4]
    assert sorted(order) == list(range(1, 9))
    opened.close()
    moved = [*people[1:], people[0]]
    assert store.plan(moved, seed=1).digest != store.plan(people, seed=1).digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, where the rights to make one are there."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        made = subprocess.run(command, capture_output=True)
    except OSError:
        pytest.skip("no mount here")
    if made.returncode:
        pytest.skip("mounting a small disk needs more rights")
    yield place
    for _ in range(20):
        if not subprocess.run(["umount", str(place)], capture_output=True).returncode:
            break
        time.sleep(0.1)


def test_full_disk(source: Path, small_disk: Path) -> None:
    """One line for whatever does not fit, no half-written file, no death at exit."""
    from reproduce.cli import convert, export

    (small_disk / "filler").write_bytes(bytes(1_010_000))
    (small_disk / "m.safetensors").write_bytes(b"older")
    model, records = str(source / "small.caffemodel"), str(source / "records")
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    works = {
        "m.npz": (convert.main, [model]),
        "m.caffemodel.h5": (convert.main, [model]),
        "m.safetensors": (convert.main, [model]),
        "m.pth": (convert.main, [model]),
        "r.h5": (export.main, ["hdf5", records]),
    }
    for name, (main, arguments) in works.items():
        log = source / f"full-{name}.txt"
        code = wait(start(main, [*arguments, "-o", str(small_disk / name)], log), 60)
        said = log.read_text()
        assert code == 2, (name, said)
        assert [line.startswith("error: ") for line in said.splitlines()] == [True], said
    left = [p for p in small_disk.iterdir() if not p.name.endswith((".lock", ".holder"))]
    assert {path.name: path.read_bytes() for path in left} == before


def test_a_video_on_a_full_disk(source: Path, small_disk: Path) -> None:
    """OpenCV says nothing of a full disk: the film is looked at when it is complete."""
    film = write_film(source / "film.avi", frames=40)
    (small_disk / "filler").write_bytes(bytes(1_000_000))
    model = ["--model", str(source / "small.caffemodel"), "--scales", "1"]
    where = ["--out", str(small_disk / "found"), "--device", "cpu", "--workers", "0"]
    log = source / "full-video.txt"
    code = wait(start(predict.main, [str(film), *model, *where], log), 300)
    said = log.read_text()
    assert code == 1, said  # the one input was not done
    (line,) = [line for line in said.splitlines() if line.startswith("not done: ")]
    assert line.endswith("film_skeleton.mp4: cannot be written whole (is the disk full?)")
    assert not [p for p in (small_disk / "found").rglob("*") if p.suffix in (".mp4", ".json")]
