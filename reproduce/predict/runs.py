"""Runs of the predictor: photographs, videos, a camera, and a data set's test images."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from reproduce.benchmarks.testsets import TestSet
from reproduce.drawing.pictures import draw_skeleton, montage, save_png
from reproduce.people.skeletons import Skeleton, skeleton
from reproduce.predict import files
from reproduce.predict.boxes import Box, of_image
from reproduce.predict.job import How, Loaded, Request, load, load_person
from reproduce.predict.protocol import Prediction, Predictor
from reproduce.runtime.journal import Journal
from reproduce.runtime.prefetch import prefetch
from reproduce.runtime.processes import Group

Say = Callable[[str], None]
Image = npt.NDArray[np.uint8]
Boxes = Box | Mapping[str, list[Box]] | None
_Item = TypeVar("_Item")
TILE = 96
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class Run:
    """What all runs share.

    Attributes
    ----------
    out : folder of the results. resume : skip what is done. workers : processes that decode and
        resize.
    about : what makes the results (model and settings), kept with them.
    group : the processes that share the work. limit : people or frames at most.
    """

    predictor: Predictor
    how: How
    out: Path
    say: Say
    resume: bool = False
    workers: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    group: Group = field(default_factory=lambda: Group(0, 1, "cpu"))
    limit: int | None = None

    def mine(self, items: Sequence[_Item]) -> list[_Item]:
        """This process' share."""
        return list(items[self.group.rank :: self.group.world])

    def bar(self, total: int | None, unit: str) -> Any:
        """A progress bar on a terminal, of the first process."""
        from tqdm import tqdm

        return tqdm(total=total, unit=f" {unit}", disable=None if self.group.first else True)


def _boxes_of(boxes: Boxes, path: Path) -> tuple[Box, ...] | None:
    if boxes is None:
        return None
    return tuple(of_image(boxes, path)) if isinstance(boxes, Mapping) else (boxes,)


def _person(found: Prediction, box: Box | None) -> dict[str, Any]:
    row = files.openpose([(found.pixels, found.scores)])["people"][0]
    return {
        **row,
        "score": round(float(found.scores.mean()), 4),
        "box": None if box is None else list(box),
    }


def _joints(people: Iterable[dict[str, Any]]) -> list[npt.NDArray[np.float64]]:
    """0-based (P, 2) of each person of a JSON."""
    return [np.array(p["pose_keypoints_2d"], np.float64).reshape(-1, 3)[:, :2] for p in people]


def pictures(run: Run, paths: Sequence[Path], boxes: Boxes) -> tuple[int, list[str]]:
    """Predict the people in each image; write skeletons, belief maps and JSON, and all predictions
    together at the end.

    Returns
    -------
    How many people were done by this process, and which images were not and why.
    """
    names = [*skeleton(run.predictor.parts).parts, "background"]
    stems, shared = Counter(path.stem for path in paths), Counter(path.name for path in paths)
    targets: list[tuple[Path, Path]] = []
    bad: list[str] = []
    for path in paths:
        if shared[path.name] > 1:
            bad.append(
                f"{path}: {shared[path.name]} inputs have this file name, their results would "
                "overwrite each other"
            )
        else:
            targets.append((path, run.out / (path.stem if stems[path.stem] == 1 else path.name)))
    todo: list[tuple[Path, Path]] = []
    requests: list[Request] = []
    for path, target in run.mine(targets):
        if run.resume and Path(f"{target}_keypoints.json").exists():
            continue
        try:
            requests.append(Request(str(path), path, _boxes_of(boxes, path), run.how))
            todo.append((path, target))
        except DataError as error:
            bad.append(str(error))
    done = 0
    with _Writer() as writer, run.bar(len(todo), "images") as bar:
        for (path, target), loaded in zip(todo, prefetch(load, requests, run.workers), strict=True):
            try:
                if isinstance(loaded, str):
                    raise DataError(loaded)
                found = [run.predictor.run_prepared(p, shown=TILE) for p in loaded.people]
            except CaffeCompatError as error:
                bad.append(str(error))
            else:
                if loaded.note:
                    run.say(loaded.note)
                run.say(f"{path}: mean score " + ", ".join(f"{p.scores.mean():.3f}" for p in found))
                writer.submit(_write_image, path, target, loaded, found, names)
                done += len(found)
            bar.update()
    run.group.any(False)  # wait for all processes before the results are gathered
    if run.group.first:
        _gather(run, targets)
    return done, bad


class _Writer:
    """Draws and writes in one other thread (OpenCV releases the interpreter's lock), a few images
    behind at most."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def submit(self, work: Callable[..., None], *args: Any) -> None:
        """Do ``work(*args)`` later; an earlier error is raised here."""
        self._waiting.append(self._pool.submit(work, *args))
        if len(self._waiting) > 4:
            self._waiting.popleft().result()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._pool.shutdown)
            while self._waiting:
                self._waiting.popleft().result()


def _write_image(
    path: Path, target: Path, loaded: Loaded, found: list[Prediction], names: list[str]
) -> None:
    image = loaded.image
    assert image is not None
    skeletal = skeleton(len(names) - 1)
    drawn = image
    for i, person in enumerate(found):
        assert person.small is not None
        drawn = draw_skeleton(drawn, person.pixels, skeletal)
        which = f"_{i + 1}" if len(found) > 1 else ""
        save_png(
            montage(image, list(person.small), names, tile=TILE),
            Path(f"{target}_belief{which}.png"),
        )
    save_png(drawn, Path(f"{target}_skeleton.png"))
    people = [_person(p, box) for p, box in zip(found, loaded.boxes, strict=True)]
    content = {"version": 1.0, "image": str(path), "size": list(loaded.size), "people": people}
    files.write_json(Path(f"{target}_keypoints.json"), content)  # last: --resume looks for it


def _gather(run: Run, targets: Sequence[tuple[Path, Path]]) -> None:
    """All people of all images in COCO's JSON, .npz and .mat."""
    images = []
    for _, target in targets:
        path = Path(f"{target}_keypoints.json")
        if path.exists():
            images.append(json.loads(path.read_text(encoding="utf-8")))
    if images:
        files.write_all(run.out / "predictions", images, skeleton(run.predictor.parts))


def _frames(capture: Any, limit: int | None) -> Iterator[Image]:
    number = 0
    while limit is None or number < limit:
        ok, frame = capture.read()
        if not ok:
            return
        yield np.asarray(frame, np.uint8)
        number += 1


@contextlib.contextmanager
def _capture(source: str | int) -> Iterator[Any]:
    import cv2

    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            what = (
                f"camera {source} cannot be opened"
                if isinstance(source, int)
                else f"{source}: cannot be opened as a video"
            )
            raise DataError(
                f"{what} (missing, no permission, or a format that this OpenCV cannot decode)"
            )
        yield capture
    finally:
        capture.release()


class _Overlay:
    """A video file that appears under its name when it is complete."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        import cv2

        self.path, self._part = path, path.with_name(f".{path.stem}.part.mp4")
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._part), code, rate, size)
        if not self._writer.isOpened():
            raise DataError(f"{path}: this OpenCV ({cv2.__version__}) cannot write MPEG-4 videos")

    def add(self, frame: Image) -> None:
        self._writer.write(frame)

    def close(self) -> None:
        self._writer.release()
        os.replace(self._part, self.path)


def _draw(frame: Image, people: Iterable[dict[str, Any]], skeletal: Skeleton) -> Image:
    for joints in _joints(people):
        frame = draw_skeleton(frame, joints, skeletal)
    return frame


def video(run: Run, path: Path, boxes: Boxes) -> tuple[int, list[str]]:
    """Predict the people in each frame; write the skeletons as a video and all predictions as JSON.

    Results of frames are kept as they are made (``--resume`` goes on); the video is drawn at the
    end.

    Returns
    -------
    How many people were done, and what is wrong with the file.
    """
    import cv2

    target = run.out / path.stem
    result = Path(f"{target}_keypoints.json")
    if run.resume and result.exists():
        return 0, []
    if not path.exists():
        return 0, [f"{path}: no such file"]
    own = _boxes_of(boxes, path)
    about = {**run.about, "input": path.name, "boxes": own}
    done, bad = 0, []
    with (
        _capture(str(path)) as capture,
        Journal(target, json.loads(json.dumps(about)), resume=run.resume) as journal,
    ):
        rate = float(capture.get(cv2.CAP_PROP_FPS)) or 25.0
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        total = min(promised, run.limit) if run.limit else promised
        start = len(journal.done)
        for _ in range(start):
            capture.grab()
        rest = None if run.limit is None else max(0, run.limit - start)
        requests = (
            Request(f"{path}, frame {start + i}", f, own, run.how, False)
            for i, f in enumerate(_frames(capture, rest))
        )
        with run.bar(max(0, total - start) or None, "frames") as bar:
            for number, loaded in enumerate(prefetch(load, requests, run.workers), start):
                journal.add(number, _frame_people(run, loaded))
                done += len(journal.done[number])
                bar.update()
        read = len(journal.done)
    if not read:
        return 0, [f"{path}: no frame of it can be decoded"]
    if read < total:
        bad.append(
            f"{path}: {read} of {total} frames can be decoded, the rest is damaged or missing"
        )
    with _capture(str(path)) as capture:
        overlay: _Overlay | None = None
        for number, frame in enumerate(_frames(capture, read)):
            overlay = overlay or _Overlay(
                Path(f"{target}_skeleton.mp4"), rate, (frame.shape[1], frame.shape[0])
            )
            overlay.add(_draw(frame, journal.done[number], skeleton(run.predictor.parts)))
        assert overlay is not None
        overlay.close()
    frames = [{"frame": i, "people": journal.done[i]} for i in range(read)]
    files.write_json(result, {"version": 1.0, "video": str(path), "rate": rate, "frames": frames})
    Journal.remove(target)
    run.say(f"{path}: {read} frames, {sum(len(f['people']) for f in frames)} people")
    return done, bad


def _frame_people(run: Run, loaded: Loaded | str) -> list[dict[str, Any]]:
    """People of a frame; with ``--detect``, none where none is seen."""
    if isinstance(loaded, str):
        raise DataError(loaded)
    if run.how.detect and loaded.boxes == (None,):
        return []
    return [
        _person(run.predictor.run_prepared(p), box)
        for p, box in zip(loaded.people, loaded.boxes, strict=True)
    ]


def camera(run: Run, number: int, box: Box | None) -> int:
    """Predict a camera's frames until Ctrl-C or the limit; write them with skeletons as a video,
    and all as JSON.

    Returns
    -------
    How many people were predicted.
    """
    import time

    target = run.out / f"camera{number}"
    frames: list[dict[str, Any]] = []
    first: list[Image] = []  # drawn frames until the pace is known, which is the video's rate
    overlay: _Overlay | None = None
    with _capture(number) as capture, contextlib.suppress(KeyboardInterrupt):
        start = time.monotonic()
        for i, frame in enumerate(_frames(capture, run.limit)):
            loaded = load(
                Request(
                    f"camera {number}, frame {i}", frame, None if box is None else (box,), run.how
                )
            )
            frames.append(
                {
                    "frame": i,
                    "time": round(time.monotonic() - start, 3),
                    "people": _frame_people(run, loaded),
                }
            )
            first.append(_draw(frame, frames[-1]["people"], skeleton(run.predictor.parts)))
            if overlay is None and len(first) >= 10:
                rate = len(first) / (time.monotonic() - start)
                overlay = _Overlay(
                    Path(f"{target}_skeleton.mp4"), rate, (frame.shape[1], frame.shape[0])
                )
            if overlay is not None:
                for drawn in first:
                    overlay.add(drawn)
                first.clear()
    if not frames:
        raise DataError(f"camera {number}: gives no picture")
    if overlay is None:
        overlay = _Overlay(
            Path(f"{target}_skeleton.mp4"), 10.0, (first[0].shape[1], first[0].shape[0])
        )
        for drawn in first:
            overlay.add(drawn)
    overlay.close()
    files.write_json(
        Path(f"{target}_keypoints.json"), {"version": 1.0, "camera": number, "frames": frames}
    )
    run.say(f"camera {number}: {len(frames)} frames")
    return sum(len(f["people"]) for f in frames)


def benchmark(run: Run, test: TestSet, name: str) -> tuple[int, list[str]]:
    """Predict a benchmark's test people; write the release's .mat and the score.

    Results are kept as they are made; several processes share the people and the first one merges.

    Returns
    -------
    How many people this process predicted, and which were not predicted and why; they are nan in
    the file and left out of the score.
    """
    prefix = run.out / f"{test.stem}_{name}"
    about = json.loads(json.dumps({**run.about, "set": test.stem}))
    count = 0
    bad: list[str] = []
    if not run.resume and run.group.first:
        Journal.remove(prefix)
    run.group.any(False)  # no process reads what another is about to remove
    with Journal(prefix, about, resume=run.resume, part=run.group.rank) as journal:
        todo = [i for i in run.mine(range(len(test.people))) if i not in journal.done]
        loaded = prefetch(load_person, [test.people[i] for i in todo], run.workers)
        with run.bar(len(todo), "people") as bar:
            for i, one in zip(todo, loaded, strict=True):
                if isinstance(one, str):
                    bad.append(one)
                else:
                    found = run.predictor.run_prepared(one)
                    journal.add(
                        i,
                        {"joints": found.joints.tolist(), "scores": found.scores.round(5).tolist()},
                    )
                    count += 1
                bar.update()
        run.group.any(False)  # all processes have written their share
        journal.read()
        results = journal.done
    if run.group.first:
        _merge(run, test, name, results)
    run.group.any(False)  # nobody leaves before the files are merged
    return count, bad


def _merge(run: Run, test: TestSet, name: str, results: dict[int, Any]) -> None:
    done = np.array(sorted(i for i in results if i < len(test.people)), np.int64)
    if not len(done):
        raise DataError(
            f"{test.title}: none of the {len(test.people)} test images is there, nothing was "
            "predicted"
        )
    joints = [test.to_file(np.array(results[int(i)]["joints"])) for i in done]
    whole = np.full((len(test.people), *joints[0].shape), np.nan)
    whole[done] = joints
    path = run.out / f"{test.stem}_prediction_model_{name}.mat"
    test.write(path, whole)
    run.say(f"{path}: {len(done)} of {len(test.people)} people")
    if test.score is not None:
        row = test.score(whole, done)
        content = {"people": len(done), "benchmark": test.title, **row, "made by": run.about}
        files.write_json(run.out / f"{test.stem}_score_{name}.json", content)
        run.say(
            f"{test.title}: "
            + "  ".join(
                f"{k} {v:.1f}" for k, v in row.items() if k not in ("hits", "counted", "auc")
            )
        )
        run.say(f"{row['hits']} of {row['counted']} joints, AUC {row['auc']:.2f}")
