"""``cpm-predict`` loses no result, mixes none with another's, and says what it leaves out."""

from __future__ import annotations

import errno
import http.server
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat

from caffe_compat import write_weights
from caffe_compat.errors import CaffeCompatError
from reproduce.drawing.pictures import draw_skeleton
from reproduce.people.skeletons import skeleton
from reproduce.predict import photographs
from reproduce.predict.predictor import Predictor
from reproduce.predict.result_files import write_all
from reproduce.predict.result_names import result_names
from reproduce.runtime.journal import Journal
from reproduce.runtime.locks import hold
from tests.paths import DATA, needs_data
from tests.pictures import read_picture
from tests.predicting import run_predict, write_film, write_model, write_picture


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two untrained pose machines of one structure."""
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder / "one.caffemodel", 2), write_model(folder / "two.caffemodel", 3)


def _results(folder: Path) -> dict[str, str]:
    """The names of the results in a folder, and which input each is of."""
    found = {}
    for path in folder.glob("*_keypoints.json"):
        content = json.loads(path.read_text())
        name = path.name.removesuffix("_keypoints.json")
        found[name] = str(content.get("image", content.get("video")))
    return found


# ---------------------------------------------------------------- names of results


def test_results_of_equal_names_lie_side_by_side(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A picture and a video of one stem, two endings, two folders: each has results of its own, in
    any order of the inputs and when the work goes on; the longer names are said."""
    inputs = [
        write_picture(tmp_path / "walk.png"),
        write_film(tmp_path / "walk.avi"),
        write_picture(tmp_path / "a.png"),
        write_picture(tmp_path / "a.jpg"),
        write_picture(tmp_path / "x" / "b.png"),
        write_picture(tmp_path / "y" / "b.png"),
        write_picture(tmp_path / "alone.png"),
    ]
    args = ["--model", models[0], "--scales", "1", "--out", tmp_path / "out"]
    result = run_predict(*inputs, *args)
    assert result.exit_code == 0, result.output
    expected = dict(
        zip(
            ("walk.png", "walk.avi", "a.png", "a.jpg", "x_b.png", "y_b.png", "alone"),
            map(str, inputs),
            strict=True,
        )
    )
    assert _results(tmp_path / "out") == expected
    assert (tmp_path / "out" / "walk.avi_skeleton.mp4").exists()
    assert (tmp_path / "out" / "walk.png_skeleton.png").exists()
    assert "6 inputs share their names with others" in result.output
    again = run_predict(*reversed(inputs), *args, "--resume")
    assert "0 people" in again.output
    assert _results(tmp_path / "out") == expected


def test_an_input_that_is_named_twice_is_done_once(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    one = write_picture(tmp_path / "a.png")
    result = run_predict(one, tmp_path, one, "--model", models[0], "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "done once (2)" in result.stderr
    assert "1 person in" in result.stdout


_FILES = st.lists(
    st.sampled_from(
        ["a.png", "A.PNG", "a.jpg", "a", "a.png.jpg", "b/a.png", "b_a.png", "c/b/a.png", "b/a"]
    ).map(Path),
    unique=True,
    max_size=9,
)


@given(_FILES, st.randoms())
def test_names_are_distinct_and_do_not_depend_on_the_order(files: list[Path], dice: Any) -> None:
    sources: list[Path | int | str] = [*files, 0, "rtsp://a:secret@host/x", "rtsp://host/x"]
    names = result_names(sources)
    given_names = [name.casefold() for name in names if name is not None]
    assert len(set(given_names)) == len(given_names)
    assert not any("secret" in name for name in given_names)
    shuffled = list(sources)
    dice.shuffle(shuffled)
    assert dict(zip(shuffled, result_names(shuffled), strict=True)) == dict(
        zip(sources, names, strict=True)
    )


def test_a_name_that_cannot_be_had_is_refused() -> None:
    """Two addresses that only their passwords tell apart have names; the same one twice has not."""
    names = result_names([Path("/camera0.png"), 0])
    assert names == ["camera0.png", "camera0"]
    assert result_names(["http://h/x", "http://h/x"]) == [None, None]


# ---------------------------------------------------------------- what made them


def _made_again(result: Result) -> str:
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("--resume:")]
    assert len(lines) <= 1
    return lines[0] if lines else ""


@pytest.mark.long
def test_resume_makes_again_what_differs(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Another model, settings, boxes, or another file of the name: made again, said in one line."""
    pictures = [write_picture(tmp_path / f"{i}.png", i) for i in range(3)]
    args = [*pictures, "--out", tmp_path / "out", "--resume"]
    one, two = (("--model", model) for model in models)
    first = run_predict(*args, *one, "--scales", "1")
    assert _made_again(first) == ""
    made = json.loads((tmp_path / "out" / "0_keypoints.json").read_text())["made_by"]
    assert {"model", "protocol", "scales", "stages", "input", "boxes"} <= set(made)
    assert "0 people" in run_predict(*args, *one, "--scales", "1").output
    for changed, said in (
        ([*two, "--scales", "1"], "another model"),
        ([*two, "--scales", "0.8,1"], "other --scales"),
        ([*two, "--scales", "0.8,1", "--stages", "1"], "other --stages"),
        ([*two, "--scales", "0.8,1", "--protocol", "lsp"], "another --protocol, other --stages"),
        ([*two, "--scales", "0.8,1", "--box", "5,5,30,40"], "other boxes, another --protocol"),
        ([*two, "--box", "5,5,30,40"], "another --range or --octave, other --scales"),
        ([*two, "--box", "5,5,30,40", "--min-score", "0.2"], "another --min-score"),
    ):
        result = run_predict(*args, *changed)
        assert _made_again(result) == f"--resume: 0 kept, 3 results are made again (3 × {said})"
        assert "3 people" in result.output
        assert "0 people" in run_predict(*args, *changed).output
    last = ["--box", "5,5,30,40", "--min-score", "0.2"]
    write_picture(pictures[1], 7)  # another file of the same name
    (tmp_path / "out" / "2_keypoints.json").write_text("{")
    said = _made_again(run_predict(*args, *two, *last))
    assert said.startswith("--resume: 1 kept, 2 results are made again (")
    assert "1 × another file of the same name" in said
    assert "1 × damaged" in said
    without = tmp_path / "out" / "0_keypoints.json"
    content = json.loads(without.read_text())
    without.write_text(json.dumps({k: v for k, v in content.items() if k != "made_by"}))
    assert "not said what made them" in _made_again(run_predict(*args, *two, *last))


def test_the_same_settings_give_the_same_results(models: tuple[Path, Path], tmp_path: Path) -> None:
    """What is made again is what a fresh run makes, in the gathered files too."""
    pictures = [write_picture(tmp_path / f"{i}.png", i) for i in range(2)]
    for model, out in ((models[0], "mixed"), (models[1], "mixed"), (models[1], "fresh")):
        args = ["--model", model, "--scales", "1", "--resume", "--out", tmp_path / out]
        assert run_predict(*pictures, *args).exit_code == 0
    for name in ("0_keypoints.json", "predictions_coco.json", "0_skeleton.png"):
        assert (tmp_path / "mixed" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    mixed, fresh = (dict(np.load(tmp_path / n / "predictions.npz")) for n in ("mixed", "fresh"))
    assert all((mixed[name] == fresh[name]).all() for name in fresh)


def test_older_results_are_not_mixed_in(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A picture that fails now: its result of an earlier run stays where it is, but does not get
    among this run's people; pictures of an earlier run do not stand beside a new result."""
    pictures = [write_picture(tmp_path / "a.png"), write_picture(tmp_path / "b.png", 1)]
    args = [*pictures, "--scales", "1", "--out", tmp_path / "out"]
    (tmp_path / "two.csv").write_text("a.png,1,1,30,40\na.png,9,9,30,40\nb.png,1,1,30,40\n")
    assert run_predict(*args, "--model", models[0], "--boxes", tmp_path / "two.csv").exit_code == 0
    assert (tmp_path / "out" / "a_belief_2.png").exists()
    pictures[1].write_bytes(pictures[1].read_bytes()[:200])
    result = run_predict(*args, "--model", models[1], "--resume")
    assert result.exit_code == 1
    assert "b.png: is cut short" in result.stderr
    with np.load(tmp_path / "out" / "predictions.npz") as found:
        assert [Path(name).name for name in found["image"]] == ["a.png"]
    assert not list((tmp_path / "out").glob("a_belief_*.png"))
    assert (tmp_path / "out" / "b_keypoints.json").exists()


def test_a_run_without_results_leaves_no_older_ones_together(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    """What was put together of an earlier run is not taken for this one's, and is not lost: the
    pictures' own results stay, and are put together again."""
    args = [write_picture(tmp_path / "a.png"), "--model", models[0], "--scales", "1", "--page"]
    args += ["--out", tmp_path / "out"]
    assert run_predict(*args).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("p*.*")}
    assert set(before) == {
        "page.html",
        *(f"predictions{end}" for end in ("_coco.json", "_coco_results.json", ".npz", ".mat")),
    }
    failed = run_predict(*args, "--box", "500,1,30,40")
    assert failed.exit_code == 1
    assert "predictions*: those of an earlier run are removed" in failed.stdout
    assert not list((tmp_path / "out").glob("p*.*"))
    assert run_predict(*args, "--resume").exit_code == 0
    names = [name for name in before if name not in ("predictions.npz", "predictions.mat")]
    assert {n: (tmp_path / "out" / n).read_bytes() for n in names} == {n: before[n] for n in names}
    assert run_predict(*(word for word in args if word != "--page"), "--stages", "1").exit_code == 0
    assert not (tmp_path / "out" / "page.html").exists()  # it showed two stages


@pytest.mark.parametrize("names", [["nosuch.png"], ["no*.png"], ["a.pgn", "walk.avi"], ["empty"]])
def test_inputs_that_are_not_there_cost_no_older_results(
    names: list[str],
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A typing error is one line before the model is read, and nothing is touched."""
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    args = ["--model", models[0], "--scales", "1", "--out", out]
    assert run_predict(write_picture(tmp_path / "a.png"), *args).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model is read")

    monkeypatch.setattr(Predictor, "load", load)
    result = run_predict(*(tmp_path / name for name in names), *args)
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / names[0]) in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run_predict(tmp_path / names[0], "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_one_input_that_is_there_is_done(models: tuple[Path, Path], tmp_path: Path) -> None:
    inputs = [tmp_path / "nosuch.png", write_picture(tmp_path / "a.png")]
    result = run_predict(*inputs, "--model", models[0], "--scales", "1", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "nosuch.png: no such image" in result.stderr
    assert set(_results(tmp_path / "out")) == {"a"}


def test_what_is_kept_is_said(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Also where nothing is made again; a rate is said of people alone."""
    for i in range(3):
        write_picture(tmp_path / "in" / f"{i}.png", i)
    args = [tmp_path / "in", "--model", models[0], "--scales", "1", "--out", tmp_path / "out"]
    assert _made_again(run_predict(*args, "--resume")) == ""
    result = run_predict(*args, "--resume")
    assert _made_again(result) == "--resume: 3 kept, nothing is made again"
    assert "0 people in" in result.output
    assert "people/s" not in result.output
    paged = _made_again(run_predict(*args, "--resume", "--page"))
    assert paged == "--resume: 0 kept, 3 results are made again (3 × not in a page yet)"


def test_one_person_is_counted_as_one(models: tuple[Path, Path], tmp_path: Path) -> None:
    args = ["--model", models[0], "--scales", "1", "--out", tmp_path / "out"]
    alone = run_predict(write_picture(tmp_path / "a.png"), *args).output
    assert "1 person in" in alone
    assert "the person has a mean score below" in alone
    both = run_predict(tmp_path / "a.png", write_picture(tmp_path / "b.png", 1), *args).output
    assert "2 people in" in both
    assert "2 of 2 people have a mean score below" in both


def test_a_page_shows_results_of_one_model(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Parts of the page that another model made are not taken for this one's."""
    args = [write_picture(tmp_path / "a.png"), "--scales", "1", "--out", tmp_path / "out"]
    part = tmp_path / "out" / "page" / "a.json"
    assert run_predict(*args, "--model", models[0], "--page").exit_code == 0
    first = part.read_bytes()
    assert run_predict(*args, "--model", models[1]).exit_code == 0
    assert run_predict(*args, "--model", models[1], "--page", "--resume").exit_code == 0
    assert part.read_bytes() != first


def test_a_video_up_to_a_limit_is_not_the_whole(models: tuple[Path, Path], tmp_path: Path) -> None:
    film = write_film(tmp_path / "walk.avi", 6)
    args = [film, "--model", models[0], "--scales", "1", "--out", tmp_path / "out", "--resume"]
    result = tmp_path / "out" / "walk_keypoints.json"
    for limit, frames, people, said in (
        (["--limit", 3], 3, 3, ""),
        (["--limit", 2], 3, 0, ""),  # three frames hold the first two
        ([], 6, 3, "another --limit"),  # the first three are there
        (["--limit", 3], 6, 0, ""),  # the whole video is not thrown away for a part of it
    ):
        done = run_predict(*args, *limit)
        assert said in _made_again(done)
        assert f"{people} people in" in done.output
        assert len(json.loads(result.read_text())["frames"]) == frames
    whole = json.loads(result.read_text())
    assert run_predict(*args[:-3], "--out", tmp_path / "fresh").exit_code == 0
    assert json.loads((tmp_path / "fresh" / "walk_keypoints.json").read_text()) == whole
    write_film(film, 5, seed=1)
    assert "another file of the same name" in _made_again(run_predict(*args))
    assert len(json.loads(result.read_text())["frames"]) == 5


def test_frames_of_other_settings_are_set_aside(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that was stopped goes on with the frames of the same settings, and with no others."""
    args = [write_film(tmp_path / "walk.avi", 6), "--model", models[0], "--scales", "1"]
    assert run_predict(*args, "--stages", "1", "--out", tmp_path / "whole").exit_code == 0
    run, calls = Predictor.predict_job, []

    def stopped(self: Predictor, *words: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(self, *words, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_job", stopped)
        assert run_predict(*args, "--out", tmp_path / "part").exit_code == 130
    result = run_predict(*args, "--out", tmp_path / "part", "--resume", "--stages", "1")
    assert result.exit_code == 0
    assert "3 frames of an earlier run are made again (other --stages)" in result.output
    found = [
        json.loads((tmp_path / name / "walk_keypoints.json").read_text())["frames"]
        for name in ("whole", "part")
    ]
    assert found[0] == found[1]


def test_a_journal_keeps_what_others_made_apart(tmp_path: Path) -> None:
    """Results of settings A, then B, then A again: each finds its own."""
    prefix = tmp_path / "[1]"
    for model, number in (("a", 0), ("b", 0), ("a", 1)):
        with Journal(prefix, {"model": model}, resume=True) as journal:
            journal.add(number, f"{model}{number}")
    with Journal(prefix, {"model": "a"}, resume=True) as journal:
        assert journal.done == {0: "a0", 1: "a1"}
        assert journal.aside == set()
    with Journal(prefix, {"model": "b", "x": 1}, resume=True) as journal:
        assert journal.done == {}
        assert journal.aside == {0, 1}
        assert journal.changed == {"model", "x"}
    path = Path(f"{prefix}_journal0.jsonl")
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])  # the first line was lost
    with Journal(prefix, {"model": "a"}, resume=True) as journal:
        assert journal.done == {1: "a1"}


def test_the_newest_result_counts_whoever_made_it(tmp_path: Path) -> None:
    """Person 0 was done by the third process; another run has one process."""
    with Journal(tmp_path / "x", {}, resume=True, part=2) as journal:
        journal.add(0, "old")
        journal.add(1, "old")
    with Journal(tmp_path / "x", {}, resume=True) as journal:
        journal.add(0, "new")
        journal.read()
        assert journal.done == {0: "new", 1: "old"}
    with Journal(tmp_path / "x", {}, resume=True, part=1) as journal:
        assert journal.done == {0: "new", 1: "old"}


@needs_data
def test_a_benchmark_goes_on_with_its_own(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Other settings and other pictures are made again; the file is what a fresh run gives."""
    from reproduce.predict import joint_files

    data = tmp_path / "data"
    (data / "lsp").mkdir(parents=True)
    for path in (DATA / "lsp").iterdir():
        if path.name != "images":
            (data / "lsp" / path.name).symlink_to(path)
    images = data / "lsp" / "images"
    images.mkdir()
    for number in range(1001, 1004):
        name = f"im{number}.jpg"
        (images / name).write_bytes((DATA / "lsp" / "images" / name).read_bytes())
    args = ["--dataset", "lsp", "--data", data, "--model", models[0], "--limit", "3", "--resume"]
    out = ["--out", tmp_path / "out"]
    assert _made_again(run_predict(*args, *out, "--scales", "1")) == ""
    assert "0 people" in run_predict(*args, *out, "--scales", "1").output
    said = _made_again(run_predict(*args, *out, "--scales", "0.9"))
    assert said == "--resume: 0 kept, 3 results are made again (3 × other --scales)"
    picture = images / "im1002.jpg"
    cv2.imwrite(str(picture), cv2.flip(read_picture(picture), 1))
    result = run_predict(*args, *out, "--scales", "0.9")
    assert _made_again(result) == (
        "--resume: 2 kept, 1 result is made again (1 × another file of the same name)"
    )
    assert "1 person in" in result.output
    assert run_predict(*args, "--scales", "0.9", "--out", tmp_path / "fresh").exit_code == 0
    found = [
        joint_files.read(tmp_path / name / "LSP_prediction_model_one.mat")
        for name in ("out", "fresh")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    picture.unlink()
    assert run_predict(*args, *out, "--scales", "0.9").exit_code == 1
    lost = joint_files.read(tmp_path / "out" / "LSP_prediction_model_one.mat")
    assert np.isnan(lost[1]).all()
    np.testing.assert_array_equal(lost[[0, 2]], found[0][[0, 2]])


# ---------------------------------------------------------------- two at once


def test_a_folder_that_another_run_writes_to(models: tuple[Path, Path], tmp_path: Path) -> None:
    """The second run says in one line who is there, and touches nothing."""
    args = [write_picture(tmp_path / "a.png"), "--model", models[0], "--out", tmp_path / "out"]
    with hold(tmp_path / "out" / "results"):
        result = run_predict(*args)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert f"process {os.getpid()} on" in line
        assert not list((tmp_path / "out").glob("a_*"))
    assert run_predict(*args).exit_code == 0


def test_a_picture_that_cannot_be_read_costs_itself_alone(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its name is that of a result, whose mark is looked for in it."""
    folder = tmp_path / "photos"
    write_picture(folder / "a.png")
    closed = folder / "mine_skeleton.png"
    closed.write_bytes(b"")
    open_path = Path.open

    def open_or_refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_path(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_or_refuse)
    out = tmp_path / "out"
    result = run_predict(folder, "--model", models[0], "--scales", "1", "--out", out)
    assert result.exit_code == 1, result.output
    assert "mine_skeleton.png" in result.stderr
    assert [path.name for path in out.glob("*_keypoints.json")] == ["a_keypoints.json"]


def test_photographs_in_the_folder_of_their_results(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    """A folder or a pattern twice: what the first run drew is no photograph for the second, which
    says how many it left out. A photograph of such a name, and a drawing that is named, are taken."""
    folder = tmp_path / "photos"
    for name in ("a.png", "my_skeleton.png"):
        write_picture(folder / name)
    for inputs in (folder, folder / "*.png"):
        for _ in range(2):
            result = run_predict(inputs, "--model", models[0], "--scales", "1", "--out", folder)
            assert result.exit_code == 0, result.output
            names = {
                p.name.removesuffix("_keypoints.json") for p in folder.glob("*_keypoints.json")
            }
            assert names == {"a", "my_skeleton"}
        assert "has made are left out" in result.stderr
        assert "other endings" not in result.stderr
    drawing = folder / "a_skeleton.png"
    result = run_predict(drawing, "--model", models[0], "--scales", "1", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "left out" not in result.stderr
    for name in ("a.png", "my_skeleton.png"):
        (folder / name).unlink()
    assert run_predict(folder, "--model", models[0], "--out", folder).exit_code == 2


@pytest.mark.slow
def test_processes_of_one_run_share_its_folder(models: tuple[Path, Path], tmp_path: Path) -> None:
    """torchrun's processes are one run: they share a folder, and leave it together where another
    run holds it; what is kept and made again is counted over all of them."""
    import subprocess
    import sys

    pictures = [write_picture(tmp_path / f"{i}.png", i) for i in range(5)]
    (tmp_path / "b.csv").write_text("".join(f"{i}.png,1,1,30,40\n" for i in range(4)))
    more = [*map(str, pictures), "--model", str(models[0]), "--scales", "1", "--device", "cpu"]
    more += ["--workers", "0", "--boxes", str(tmp_path / "b.csv"), "--out"]
    assert run_predict(*more, tmp_path / "one").exit_code == 1

    def together(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", "2", "-m", "reproduce.cli.predict", *more, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    done = together(str(tmp_path / "two"))
    assert done.stderr.count("not done: ") == 1
    files = [{p.name: p.read_text() for p in (tmp_path / n).glob("*.json")} for n in ("one", "two")]
    assert files[0] == files[1]
    write_picture(pictures[0], 8)
    write_picture(pictures[3], 9)
    done = together(str(tmp_path / "two"), "--resume")
    assert "--resume: 2 kept, 2 results are made again (2 × another file" in done.stdout
    with hold(tmp_path / "two" / "results"):
        done = together(str(tmp_path / "two"))
        lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert f"process {os.getpid()} on" in lines[0]


# ---------------------------------------------------------------- boxes


def test_boxes_without_a_picture_are_said(models: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = [write_picture(tmp_path / name) for name in ("x/a.png", "y/a.png", "b.png")]
    (tmp_path / "b.csv").write_text(
        "a.png,1,1,30,40\nb.png,1,1,30,40\nc.png,1,1,9,9\nd.png,1,1,9,9\nb.png,1,1,-3,9\n"
    )
    args = ["--model", models[0], "--scales", "1", "--boxes", tmp_path / "b.csv"]
    result = run_predict(*pictures, *args, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "2 of its 4 images are not among the inputs, c.png for one" in result.stderr
    assert "1 of its 4 images stands for several inputs" in result.stderr
    assert "not done: " in result.stderr
    assert "line 5: expected four numbers" in result.stderr


def test_boxes_of_other_pictures_touch_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    """The wrong file of boxes: refused before results of an earlier run go."""
    picture = write_picture(tmp_path / "a.png")
    args = [picture, "--model", models[0], "--scales", "1", "--out", tmp_path / "out"]
    assert run_predict(*args).exit_code == 0
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    for text in ("b.png,1,1,30,40\n", "b.png,1,1,9,9\nc.png,1,1,9,9\n"):
        (tmp_path / "b.csv").write_text(text)
        result = run_predict(*args, "--boxes", tmp_path / "b.csv")
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert "b.csv: has no box of any input (its first image is b.png)" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_a_box_that_cannot_be_used_costs_that_person(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    """The others of the picture and of the video stay; every bad one is told, in a run that keeps
    their results, too. From Python it is an error: predictions come in the boxes' order."""
    picture, film = write_picture(tmp_path / "a.png"), write_film(tmp_path / "walk.avi")
    boxes = [(500, 1, 30, 40), (1, 2, 30, 40), (1, 1, 5, 5)]
    rows = [",".join(map(str, (name, *box))) for box in boxes for name in ("a.png", "walk.avi")]
    (tmp_path / "b.csv").write_text("\n".join(rows))
    args = ["--model", models[0], "--scales", "1", "--boxes", tmp_path / "b.csv"]
    for _ in range(2):
        result = run_predict(picture, film, *args, "--out", tmp_path / "out", "--resume")
        assert result.exit_code == 1
        assert "a.png: person 1: box (500.0, 1.0, 30.0, 40.0): no part of it" in result.stderr
        assert "a.png: person 3: box (1.0, 1.0, 5.0, 5.0): is smaller than" in result.stderr
        assert result.stderr.count("walk.avi: person") == 2
    with np.load(tmp_path / "out" / "predictions.npz") as found:
        assert len(found["joints"]) == 1
    frames = json.loads((tmp_path / "out" / "walk_keypoints.json").read_text())["frames"]
    assert [[person["box"] for person in frame["people"]] for frame in frames] == [
        [[1, 2, 30, 40]]
    ] * 4
    predictor = Predictor.load(str(models[0]), device="cpu")
    with pytest.raises(CaffeCompatError, match=r"a\.png: person 1: .* no part of it"):
        predictor.predict_file(picture, boxes)


def test_a_longer_run_over_a_video_tells_who_was_left_out(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Where all its frames are there already, too; a damaged note of it is said."""
    film = write_film(tmp_path / "walk.avi", 4)
    (tmp_path / "b.csv").write_text("walk.avi,500,1,30,40\nwalk.avi,1,2,30,40\n")
    args = [film, "--model", models[0], "--scales", "1", "--boxes", tmp_path / "b.csv"]
    for limit in (["--limit", 4], [], []):
        done = run_predict(*args, *limit, "--out", tmp_path / "out", "--resume")
        assert done.exit_code == 1
        assert done.stderr.count("walk.avi: person 1: box (500.0") == 1
    result = tmp_path / "out" / "walk_keypoints.json"
    content = json.loads(result.read_text())
    assert len(content["left_out"]) == 1
    result.write_text(json.dumps({**content, "left_out": "abc"}))
    done = run_predict(*args, "--out", tmp_path / "out", "--resume")
    assert done.exit_code == 1
    assert "its left_out is no list of lines; remove it" in done.stderr


# ---------------------------------------------------------------- pictures


def test_damaged_pictures_are_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A JPEG that is cut short costs that picture, in one line with its name."""
    whole = write_picture(tmp_path / "in" / "whole.jpg")
    data = whole.read_bytes()
    (tmp_path / "in" / "cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    assert cv2.imread(str(tmp_path / "in" / "cut.jpg")) is not None  # OpenCV says nothing
    result = run_predict(tmp_path / "in", "--model", models[0], "--out", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = [one for one in result.stderr.splitlines() if one.startswith("not done")]
    assert "cut.jpg: is cut short" in line
    assert set(_results(tmp_path / "out")) == {"whole"}


def test_whatever_a_library_says_costs_one_picture(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "in" / name)
    run = Predictor.predict_job

    def failing(self: Predictor, job: Any, **named: object) -> object:
        if job.name.endswith("a.png"):
            raise RuntimeError("out of memory\nand more lines")
        return run(self, job, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "predict_job", failing)
    result = run_predict(tmp_path / "in", "--model", models[0], "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "a.png: cannot be predicted: out of memory\n" in result.stderr
    assert set(_results(tmp_path / "out")) == {"b"}


def test_pictures_of_other_numbers_are_refused(models: tuple[Path, Path]) -> None:
    predictor = Predictor.load(str(models[0]), device="cpu")
    for shape, kind in (((60, 50, 3), np.float32), ((60, 50, 3), np.uint16), ((60, 50), np.uint8)):
        with pytest.raises(CaffeCompatError, match=r"uint8, values 0 to 255, colours R, G, B \(B"):
            predictor.predict(np.zeros(shape, kind))
    with pytest.raises(CaffeCompatError, match=r"colours B, G, R; a picture from 0 to 1 becomes"):
        predictor.predict(np.zeros((60, 50, 3)), bgr=True)  # type: ignore[arg-type]


# ---------------------------------------------------------------- confidence


def test_hidden_joints(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Below --min-score: 0, 0, 0 for OpenPose's and COCO's readers, not drawn; .npz and .mat keep
    every joint with its score."""
    args = [write_picture(tmp_path / "a.png"), "--model", models[0], "--scales", "1", "--page"]
    assert run_predict(*args, "--out", tmp_path / "all").exit_code == 0
    everything = json.loads((tmp_path / "all" / "a_keypoints.json").read_text())["people"][0]
    assert "all_keypoints_2d" not in everything
    numbers = np.array(everything["pose_keypoints_2d"]).reshape(14, 3)
    ordered = np.unique(numbers[:, 2])
    least = float(ordered[: 1 + len(ordered) // 2][-2:].mean())
    low = numbers[:, 2] < least
    assert 0 < low.sum() < 14
    assert run_predict(*args, "--min-score", least, "--out", tmp_path / "some").exit_code == 0
    person = json.loads((tmp_path / "some" / "a_keypoints.json").read_text())["people"][0]
    shown = np.array(person["pose_keypoints_2d"]).reshape(14, 3)
    assert (shown[low] == 0).all()
    np.testing.assert_array_equal(shown[~low], numbers[~low])
    assert person["all_keypoints_2d"] == everything["pose_keypoints_2d"]
    assert person["score"] == everything["score"]
    for name in ("predictions.npz", "predictions.mat"):
        load: Any = np.load if name.endswith("npz") else loadmat
        one, other = (load(tmp_path / folder / name) for folder in ("all", "some"))
        for key in ("joints", "prediction_all", "scores"):
            if key in one:
                np.testing.assert_array_equal(one[key], other[key])
    (row,) = json.loads((tmp_path / "some" / "predictions_coco_results.json").read_text())
    rows = np.array(row["keypoints"]).reshape(14, 3)
    assert (rows[low] == 0).all()
    assert (rows[~low, 2] == 2).all()
    (annotation,) = json.loads((tmp_path / "some" / "predictions_coco.json").read_text())[
        "annotations"
    ]
    assert annotation["num_keypoints"] == 14 - low.sum()
    seen = numbers[~low, :2]
    size = seen.max(0) - seen.min(0)
    np.testing.assert_allclose(annotation["bbox"], [*seen.min(0), *size])
    assert annotation["area"] == pytest.approx(size.prod())
    assert annotation["score"] == row["score"] == round(float(numbers[:, 2].mean()), 4)
    part = json.loads((tmp_path / "some" / "page" / "a.json").read_text())
    assert [joint is None for joint in part["people"][0]["joints"]] == low.tolist()
    drawn = [read_picture(tmp_path / n / "a_skeleton.png") for n in ("all", "some")]
    assert (drawn[0] != drawn[1]).any()
    nobody = run_predict(*args, "--min-score", "9", "--out", tmp_path / "none")
    assert nobody.exit_code == 0
    np.testing.assert_array_equal(
        read_picture(tmp_path / "none" / "a_skeleton.png"), read_picture(tmp_path / "a.png")
    )
    refused = run_predict("--dataset", "lsp", "--data", tmp_path, "--min-score", "0.1")
    assert refused.exit_code == 2
    assert "--min-score" in refused.stderr


def test_little_belief_is_said(models: tuple[Path, Path], tmp_path: Path) -> None:
    args = [write_picture(tmp_path / "a.png"), "--model", models[0], "--scales", "1"]
    result = run_predict(*args, "--out", tmp_path / "out")
    (line,) = [one for one in result.output.splitlines() if "mean score below" in one]
    assert "--box" in line
    assert "--detect" in line


# ---------------------------------------------------------------- streams


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of a folder with a video."""
    folder = tmp_path / "served"
    folder.mkdir()
    write_film(folder / "walk.avi", 5)
    handler = partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_streams(models: tuple[Path, Path], tmp_path: Path, served: str) -> None:
    """An address is opened by OpenCV; results have its name without the password; one that cannot
    be opened, or that is a picture, is refused in one line."""
    args = ["--model", models[0], "--scales", "1", "--out", tmp_path / "out"]
    address = f"{served}/walk.avi"
    result = run_predict(address, *args, "--limit", "3")
    assert result.exit_code == 0, result.output
    place = served.removeprefix("http://").replace(":", "_")
    content = json.loads((tmp_path / "out" / f"{place}_walk.avi_keypoints.json").read_text())
    assert len(content["frames"]) == 3
    assert content["camera"] == address
    assert content["made_by"]["limit"] == 3
    assert (tmp_path / "out" / f"{place}_walk.avi_skeleton.mp4").stat().st_size > 0
    again = run_predict(address, *args, "--resume")
    assert "is kept" in again.output
    missing = run_predict(f"{served.replace('http://', 'http://me:secret@')}/no.avi", *args)
    assert missing.exit_code == 2
    assert "cannot be opened as a stream" in missing.stderr
    assert "secret" not in missing.output
    picture = run_predict(f"{served}/photo.jpg", *args)
    assert picture.exit_code == 2
    assert "download it first" in picture.stderr


# ---------------------------------------------------------------- all together


def _made_up(count: int) -> Iterator[dict[str, Any]]:
    """Results of images with no, one, two people, in OpenPose's form."""
    rng = np.random.default_rng(0)
    for number in range(count):
        rows = rng.uniform(0, 99, (number % 3, 14, 3)).round(3)
        people = [{"pose_keypoints_2d": row.ravel().tolist()} for row in rows]
        yield {
            "image": f"{'long/' * (number % 4)}\udcff{number}é.png",
            "size": [9, 7],
            "people": people,
        }


def test_gathered_files_hold_everything(tmp_path: Path) -> None:
    """All four files against the results that went in, names of any length and broken UTF-8."""
    images = list(_made_up(10))
    people = [(image, person) for image in images for person in image["people"]]
    assert write_all(tmp_path / "p", iter(images), skeleton(14)) == len(people)
    table = np.array([person["pose_keypoints_2d"] for _, person in people]).reshape(-1, 14, 3)
    with np.load(tmp_path / "p.npz") as found:
        assert sorted(found.files) == ["image", "joints", "parts", "scores"]
        np.testing.assert_array_equal(found["joints"], table[:, :, :2] + 1)
        np.testing.assert_array_equal(found["scores"], table[:, :, 2])
        assert found["image"].tolist() == [image["image"] for image, _ in people]
        assert found["parts"].tolist() == list(skeleton(14).parts)
    mat = loadmat(tmp_path / "p.mat")
    np.testing.assert_array_equal(mat["prediction_all"], (table[:, :, :2] + 1).transpose(1, 2, 0))
    np.testing.assert_array_equal(mat["scores"], table[:, :, 2].T)
    assert [str(cell[0]) for cell in mat["image"][:, 0]] == [
        image["image"].replace("\udcff", "\\udcff") for image, _ in people
    ]
    coco = json.loads((tmp_path / "p_coco.json").read_text())
    assert [one["file_name"] for one in coco["images"]] == [image["image"] for image in images]
    assert len(coco["categories"]) == 1
    assert [one["id"] for one in coco["annotations"]] == list(range(1, len(people) + 1))
    assert coco["annotations"][0]["image_id"] == 2
    results = json.loads((tmp_path / "p_coco_results.json").read_text())
    names = ("image_id", "category_id", "keypoints", "score")
    assert results == [{name: one[name] for name in names} for one in coco["annotations"]]
    rows = np.array([one["keypoints"] for one in results]).reshape(-1, 14, 3)
    np.testing.assert_array_equal(rows[:, :, :2], table[:, :, :2])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "p.mat",
        "p.npz",
        "p_coco.json",
        "p_coco_results.json",
    ]


def test_nobody_in_any_picture(tmp_path: Path) -> None:
    """Files of nobody, so that those of an earlier run do not stand for this one's."""
    write_all(tmp_path / "p", _made_up(5), skeleton(14))
    nobody = [{"image": "a.png", "size": [9, 7], "people": []}]
    assert write_all(tmp_path / "p", nobody, skeleton(14)) == 0
    with np.load(tmp_path / "p.npz") as found:
        assert found["joints"].shape == (0, 14, 2)
    assert json.loads((tmp_path / "p_coco_results.json").read_text()) == []
    assert len(json.loads((tmp_path / "p_coco.json").read_text())["images"]) == 1
    assert loadmat(tmp_path / "p.mat")["prediction_all"].size == 0


@pytest.mark.long
def test_people_are_not_held_in_memory(tmp_path: Path) -> None:
    """Fifteen times the images take hardly more memory; what grows is the list of names for .mat."""
    import tracemalloc

    peaks = []
    for count in (200, 3_000):
        tracemalloc.start()
        write_all(tmp_path / "p", _made_up(count), skeleton(14))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    held = 3_000 * 14 * 3 * 24  # bytes of that many numbers as Python holds them, at least
    assert peaks[1] - peaks[0] < held / 2


def test_larger_pictures_than_the_limit_cost_themselves_alone(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    small, large = write_picture(tmp_path / "small.png"), tmp_path / "large.png"
    cv2.imwrite(str(large), np.zeros((100, 200, 3), np.uint8))
    args = (small, large, "--model", models[0], "--scales", "1", "--out", tmp_path / "out")
    limited = run_predict(*args, "--max-pixels", "15000")
    assert limited.exit_code == 1
    assert "large.png: claims 200 × 100 pixels" in limited.stderr
    assert (tmp_path / "out" / "small_keypoints.json").exists()
    assert run_predict(*args, "--max-pixels", "20000").exit_code == 0


def test_a_models_own_part_names_are_used(tmp_path: Path) -> None:
    """A network of 14 other parts: its names come out, and nobody takes its parts for heads."""
    from caffe_compat.conversion.convert import convert
    from reproduce.people.part_names import named_net

    parts = tuple(f"leg{i}" for i in range(14))
    model = write_model(tmp_path / "own.caffemodel", 2)
    made = convert(model)
    write_weights(model, made.weights, named_net(made.net, parts))
    picture = write_picture(tmp_path / "a.png")
    result = run_predict(
        picture, "--model", model, "--scales", "1", "--detect", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert "OpenCV's detector (the network has no head and neck)" in result.output
    written = json.loads((tmp_path / "out" / "predictions_coco.json").read_text())
    assert written["categories"][0]["keypoints"] == list(parts)


def test_control_characters_in_names_are_escaped(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A name cannot begin a line of its own, wherever it is told."""
    good, bad = write_picture(tmp_path / "in" / "a\nb\x1b[2J.png"), tmp_path / "in" / "c\nd.png"
    bad.write_bytes(b"")
    (tmp_path / "b\n.csv").write_text('"a\nb\x1b[2J.png",1,2,30,40\n"c\nd.png",1,2,30,0\n')
    for boxes in ([], ["--boxes", tmp_path / "b\n.csv"]):
        for page in ([], ["--page"]):
            args = ["--model", models[0], "--scales", "1", "--out", tmp_path / "out\n", *page]
            result = run_predict(good, bad, *args, *boxes)
            assert result.exit_code == 1
            lines = result.output.splitlines()
            first_words = ("1 person in", "the person has", "not done:", "note:")
            own = (str(tmp_path), *first_words)
            assert [line for line in lines if not line.startswith(own)] == []
            assert "\x1b" not in result.output


def test_extreme_pictures_cost_nobody(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A strip of a few pixels' height or width: drawn, and not as a picture of 90,000 rows."""
    for name, shape in (("a", (60, 50, 3)), ("wide", (9, 3000, 3)), ("tall", (3000, 9, 3))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full(shape, 90, np.uint8))
    result = run_predict(
        tmp_path, "--model", models[0], "--scales", "1", "--page", "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert set(_results(tmp_path)) == {"a", "wide", "tall"}
    assert len(read_picture(tmp_path / "tall_belief.png")) < 2000
    # two stages, each as high as its name is written
    assert len(read_picture(tmp_path / "wide_belief.png")) >= 22 + 2 * 16


def test_what_cannot_be_drawn_costs_one_picture(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [write_picture(tmp_path / f"{i}.png", i) for i in range(3)]

    def failing(image: Any, *words: Any) -> Any:
        if (image == read_picture(pictures[0])).all():
            raise cv2.error("Assertion failed")
        return draw_skeleton(image, *words)

    monkeypatch.setattr(photographs, "draw_skeleton", failing)
    result = run_predict(
        *pictures, "--model", models[0], "--scales", "1", "--out", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert "0.png: its results cannot be drawn: Assertion failed\n" in result.stderr
    assert set(_results(tmp_path / "out")) == {"1", "2"}
    with np.load(tmp_path / "out" / "predictions.npz") as found:
        assert len(found["image"]) == 2
