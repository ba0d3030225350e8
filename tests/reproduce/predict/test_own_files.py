"""``cpm-predict`` takes for its own only what it wrote, and keeps what nobody can make again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe_compat.errors import DataError
from reproduce.predict import capture
from reproduce.predict.job import Job
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import PROTOCOLS
from reproduce.predict.result_names import candidates_of
from reproduce.runtime.journal import Journal
from tests.pictures import read_picture
from tests.predicting import run_predict, write_film, write_model, write_picture


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that choose an untrained pose machine and one scale."""
    model = write_model(tmp_path_factory.mktemp("model") / "one.caffemodel", 2)
    return ["--model", model, "--scales", "1"]


# ---------------------------------------------------------------- pictures


def test_pictures_with_names_as_results_have(words: list[object], tmp_path: Path) -> None:
    """In the folder of results they stay, whatever lies beside them."""
    beach = write_picture(tmp_path / "beach.png")
    mine = [write_picture(tmp_path / f"beach_{name}.png", 1) for name in ("people", "belief_1")]
    before = [path.read_bytes() for path in mine]
    for _ in range(2):
        assert run_predict(beach, *words, "--out", tmp_path).exit_code == 0
        assert [path.read_bytes() for path in mine] == before
    result = run_predict(tmp_path, *words, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "has made are left out (2)" in result.stderr  # skeleton and belief maps
    assert (tmp_path / "out" / "beach_people_keypoints.json").exists()


@pytest.mark.parametrize("inputs", ["", "x.png"])
def test_a_photograph_is_not_drawn_over(inputs: str, words: list[object], tmp_path: Path) -> None:
    """Whether it is among the inputs or not."""
    write_picture(tmp_path / "x.png")
    mine = write_picture(tmp_path / "x_skeleton.png", 1)
    before = mine.read_bytes()
    result = run_predict(tmp_path / inputs, *words, "--out", tmp_path)
    assert result.exit_code == 2
    assert "x_skeleton.png: is there and was not made by cpm-predict" in result.stderr
    assert mine.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "x_skeleton.png"]
    assert run_predict(tmp_path, *words, "--out", tmp_path / "out").exit_code == 0


def test_belief_maps_are_not_drawn_over_a_photograph(words: list[object], tmp_path: Path) -> None:
    """How many there are is known later: that picture alone is not done."""
    pictures = [write_picture(tmp_path / name) for name in ("x.png", "y.png")]
    mine = write_picture(tmp_path / "out" / "x_belief.png", 1)
    before = mine.read_bytes()
    result = run_predict(*pictures, *words, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "x_belief.png: is there and was not made by cpm-predict" in result.stderr
    assert mine.read_bytes() == before
    assert not (tmp_path / "out" / "x_keypoints.json").exists()
    assert (tmp_path / "out" / "y_keypoints.json").exists()


def test_what_a_killed_run_left_is_its_own(words: list[object], tmp_path: Path) -> None:
    """Pictures without the result that is written last; they say themselves who made them."""
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name)
    write_film(tmp_path / "walk.avi")
    assert run_predict(tmp_path, *words, "--out", tmp_path).exit_code == 0
    for name in ("b", "walk"):
        (tmp_path / f"{name}_keypoints.json").unlink()
    (tmp_path / "b_belief.png").rename(tmp_path / "b_belief_1.png")
    for more in (["--resume"], []):
        result = run_predict(tmp_path, *words, "--out", tmp_path, *more)
        assert result.exit_code == 0, result.output
        assert len(list(tmp_path.glob("*_keypoints.json"))) == 3
        assert not (tmp_path / "b_belief_1.png").exists()
    assert cv2.VideoCapture(str(tmp_path / "walk_skeleton.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_results_from_before_there_were_marks(words: list[object], tmp_path: Path) -> None:
    """Beside a result that names no pictures the names of pictures count."""
    write_picture(tmp_path / "a.png")
    assert run_predict(tmp_path, *words, "--out", tmp_path).exit_code == 0
    result = tmp_path / "a_keypoints.json"
    content = json.loads(result.read_text())
    del content["pictures"]
    result.write_text(json.dumps(content))
    for name in ("belief", "skeleton"):
        path = tmp_path / f"a_{name}.png"
        cv2.imwrite(str(path), read_picture(path))
    again = run_predict(tmp_path, *words, "--out", tmp_path, "--resume")
    assert again.exit_code == 0, again.output
    assert "1 kept, nothing is made again" in again.output
    assert run_predict(tmp_path, *words, "--out", tmp_path).exit_code == 0


@pytest.mark.parametrize(
    "content",
    [
        {"pictures": ["a_people.png"]},
        {"pictures": ["../a_people.png", 3], "made_by": {"model": "m"}},
        {"pictures": 5, "made_by": {"model": "m"}},
        [],
    ],
)
def test_results_of_others_name_nothing(
    content: object, words: list[object], tmp_path: Path
) -> None:
    """A file of OpenPose's, or one that was made by hand, removes no pictures."""
    mine = write_picture(tmp_path / "out" / "a_people.png")
    (tmp_path / "a_people.png").write_bytes(mine.read_bytes())
    (tmp_path / "out" / "a_keypoints.json").write_text(json.dumps(content))
    one = write_picture(tmp_path / "a.png")
    assert run_predict(one, *words, "--out", tmp_path / "out").exit_code == 0
    assert mine.exists()
    assert (tmp_path / "a_people.png").exists()


def test_folders_inside_are_said(words: list[object], tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "sub" / "b.png")
    (tmp_path / "notes").mkdir()
    for _ in range(2):  # the second time a folder with results is there, too
        result = run_predict(tmp_path, *words, "--out", tmp_path / "out")
        assert result.exit_code == 0
        assert "folders inside it are not looked into (1 with pictures, sub" in result.stderr


def test_long_names(words: list[object], tmp_path: Path) -> None:
    """What a file system takes as the name of a picture leaves no room for endings."""
    names = ["ж" * 123, "ж" * 122 + "z", "я"]
    pictures = [write_picture(tmp_path / f"{name}.png") for name in names]
    for more in ([], ["--resume"]):
        result = run_predict(*pictures, *words, "--out", tmp_path / "out", *more)
        assert result.exit_code == 0, result.output
        assert "2 inputs have long names; their results have shorter ones" in result.output
    found = list((tmp_path / "out").glob("*_skeleton.png"))
    assert len(found) == 3
    assert (tmp_path / "out" / "я_skeleton.png").exists()
    for path in pictures:
        assert all(len(name.encode()) <= 200 for name in candidates_of(path))


def test_part_of_a_page_that_is_damaged(words: list[object], tmp_path: Path) -> None:
    one = write_picture(tmp_path / "a.png")
    args = [one, *words, "--page", "--out", tmp_path / "out"]
    assert run_predict(*args).exit_code == 0
    part = tmp_path / "out" / "page" / "a.json"
    part.write_bytes(part.read_bytes()[:50])
    result = run_predict(*args, "--resume")
    assert result.exit_code == 2
    assert "a.json: " in result.stderr
    assert "remove it" in result.stderr


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25.0, 25.0),
        (30000 / 1001, 29.97),
        (65.535, 65.535),
        (118.437, 118.44),
        (1000.04, 1000.0),
        (90000.0, 65535.0),
    ],
)
def test_rates_that_a_file_can_have(rate: float, expected: float, tmp_path: Path) -> None:
    assert capture.writable_rate(rate) == pytest.approx(expected)
    path = tmp_path / "a.mp4"
    written = capture.VideoFile(path, rate, (64, 48))
    for _ in range(3):
        written.add(np.zeros((48, 64, 3), np.uint8))
    written.close()
    film = cv2.VideoCapture(str(path))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(expected, rel=1e-3)


def test_a_damaged_video_is_said_again(words: list[object], tmp_path: Path) -> None:
    """A result that is kept tells what it misses, as the run that made it did."""
    film = write_film(tmp_path / "walk.avi", 6)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])
    whole = write_film(tmp_path / "whole.avi", 6)
    for more in ([], ["--resume"]):
        result = run_predict(film, whole, *words, "--out", tmp_path / "out", *more)
        assert result.exit_code == 1, result.output
        (line,) = [line for line in result.stderr.splitlines() if "not done" in line]
        assert "walk.avi: 3 of 6 frames can be decoded, the rest is damaged or missing" in line


def test_a_video_that_only_tells_its_length(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sound may be longer than its pictures, so that this is no damage."""
    film = tmp_path / "walk.mkv"
    write_film(tmp_path / "walk.avi", 6).rename(film)
    real = cv2.VideoCapture

    class Longer:
        """A video whose container tells of more frames than there are."""

        def __init__(self, source: str) -> None:
            self._real = real(source)

        def get(self, what: int) -> float:
            return 16.0 if what == cv2.CAP_PROP_FRAME_COUNT else self._real.get(what)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    monkeypatch.setattr(cv2, "VideoCapture", Longer)
    result = run_predict(film, *words, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "walk.mkv: 6 frames can be decoded, and its length is that of 16" in result.output


def test_a_journal_with_a_gap(words: list[object], tmp_path: Path) -> None:
    """The frames of a smaller limit stood in a result that was removed since."""
    film = write_film(tmp_path / "walk.avi", 6)
    out = tmp_path / "out"
    args = [film, *words, "--out"]
    assert run_predict(*args, tmp_path / "whole").exit_code == 0
    assert run_predict(*args, out, "--limit", 2).exit_code == 0
    result = out / "walk_keypoints.json"
    made = json.loads(result.read_text())
    result.unlink()
    with Journal(out / "walk", {**made["made_by"], "limit": None}, resume=False) as journal:
        del journal.about["limit"]
    (path,) = journal.files
    about = {key: value for key, value in made["made_by"].items() if key != "limit"}
    lines = [{"about": about}, {"number": 3, "result": [], "time": 1.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run_predict(*args, out, "--resume").exit_code == 0
    frames = [
        json.loads((place / result.name).read_text())["frames"]
        for place in (tmp_path / "whole", out)
    ]
    assert frames[0] == frames[1]


def test_a_frame_in_which_looking_fails_is_not_empty() -> None:
    job = Job("a", None, PROTOCOLS["demo"], detect=True, error=DataError("no detector here"))
    assert not job.nobody


# ---------------------------------------------------------------- cameras


class _Camera:
    """Stands for ``cv2.VideoCapture``: pictures without an end."""

    def __init__(self, source: object) -> None:
        pass

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, object]:
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("frames", [3, 15])
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (KeyboardInterrupt(), 0),
        (SystemExit(143), 143),
        (DataError("camera 0, frame: damaged"), 2),
        (MemoryError(), 2),
    ],
)
def test_a_recording_is_kept_whatever_ends_it(
    ending: BaseException,
    code: int,
    frames: int,
    words: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can make it again."""
    predict, calls = Predictor.predict_job, []

    def stopped(self: Predictor, *args: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > frames:
            raise ending
        return predict(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    monkeypatch.setattr(Predictor, "predict_job", stopped)
    result = run_predict("camera:0", *words, "--out", tmp_path)
    assert result.exit_code == code, result.output
    path = tmp_path / "camera0_keypoints.json"
    assert len(json.loads(path.read_text())["frames"]) == frames
    monkeypatch.undo()
    film = cv2.VideoCapture(str(tmp_path / "camera0_skeleton.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == frames


def test_the_clock_of_a_recording_begins_with_its_pictures(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera takes seconds to open; an end before it is open is no recording."""

    class Slow(_Camera):
        def __init__(self, source: object) -> None:
            time.sleep(2)

    class Ended(_Camera):
        def __init__(self, source: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(cv2, "VideoCapture", Slow)
    assert run_predict("camera:0", *words, "--limit", 2, "--out", tmp_path).exit_code == 0
    frames = json.loads((tmp_path / "camera0_keypoints.json").read_text())["frames"]
    assert frames[1]["time"] - frames[0]["time"] < 2
    assert frames[0]["time"] < 2
    monkeypatch.setattr(cv2, "VideoCapture", Ended)
    assert run_predict("camera:0", *words, "--out", tmp_path / "out").exit_code == 130


def test_a_recording_is_not_overwritten(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    args = ["camera:0", *words, "--limit", 2, "--out", tmp_path]
    assert run_predict(*args).exit_code == 0
    before = (tmp_path / "camera0_skeleton.mp4").read_bytes()
    result = run_predict(*args)
    assert result.exit_code == 2
    assert "camera0_keypoints.json is there, of a recording" in result.stderr
    assert run_predict(*args, "--resume").exit_code == 0
    assert (tmp_path / "camera0_skeleton.mp4").read_bytes() == before


@pytest.mark.parametrize("name", ["camera:²", "rtsp://me:secret@[::1/stream"])
def test_inputs_that_look_like_cameras(name: str, words: list[object], tmp_path: Path) -> None:
    result = run_predict(name, *words, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "secret" not in result.output
