"""A run over a video or a camera: each frame's people as JSON, the frames with skeletons as a
video."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import write_json
from caffe_compat.foreign import read_json
from reproduce.drawing.pictures import draw_skeleton
from reproduce.people.skeletons import Skeleton
from reproduce.predict.boxes import Box
from reproduce.predict.capture import VideoFile, frames_of, name_of, open_capture
from reproduce.predict.job import Job, prepare
from reproduce.predict.origin import as_stored, in_words, made_by
from reproduce.predict.protocol import Person
from reproduce.predict.runs import Done, Run, joints_of, people_rows
from reproduce.predict.tasks import Task
from reproduce.runtime.journal import Journal
from reproduce.runtime.prefetch import prefetch

Image = npt.NDArray[np.uint8]
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_USUAL_RATE = 25.0  # frames a second, of a video that does not say
_SLOW_RATE = 10.0  # frames a second, of a camera that stopped before its pace was known
_PACE_FRAMES = 10  # frames after which a camera's pace is known


def video(run: Run, task: Task) -> Done:
    """Predict the people in each frame; write the skeletons as a video and all predictions as JSON.

    Results of frames are kept as they are made (``--resume`` goes on); the video is drawn at the
    end.

    Raises
    ------
    CaffeCompatError : what is wrong with the file or with a frame.
    """
    import cv2

    path, prefix = task.target.path, task.target.prefix
    if not path.exists():
        raise DataError(f"{path}: no such file")
    made = run.made_by(path, task.boxes)
    done = Done()
    left_out: dict[str, None] = {}  # each reason once, in the order of the frames
    with (
        open_capture(str(path)) as capture,
        Journal(prefix, made, resume=run.resume) as journal,
    ):
        if journal.aside:
            why = in_words(journal.changed)
            run.say(f"{path}: {len(journal.aside)} frames of an earlier run are made again ({why})")
        if run.resume:
            _take_frames(journal, task.target.result)
        rate = float(capture.get(cv2.CAP_PROP_FPS)) or _USUAL_RATE
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        total = min(promised, run.limit) if run.limit else promised
        start = len(journal.done)
        if start and task.boxes:
            left_out.update(dict.fromkeys(_left_out(run, path, task.boxes)))
        for _ in range(start):
            capture.grab()
        rest = None if run.limit is None else max(0, run.limit - start)
        jobs = (
            run.job(f"{path}, frame {start + i}", frame, task.boxes)[0]
            for i, frame in enumerate(frames_of(capture, rest))
        )
        with run.bar(max(0, total - start) or None, "frames") as bar:
            for number, job in enumerate(prefetch(prepare, jobs, run.workers), start):
                journal.add(number, _frame_people(run, job))
                left_out.update(dict.fromkeys(job.left_out))
                done.add(person["score"] for person in journal.done[number])
                bar.update()
        read = len(journal.done) if run.limit is None else min(run.limit, len(journal.done))
    if not read:
        return Done(bad=[f"{path}: no frame of it can be decoded"])
    if read < total:
        done.bad.append(
            f"{path}: {read} of {total} frames can be decoded, the rest is damaged or missing"
        )
    done.bad += [f"{path}: {reason}" for reason in left_out]
    frames = [{"frame": i, "people": journal.done[i]} for i in range(read)]
    _draw_video(run, path, Path(f"{prefix}_skeleton.mp4"), rate, frames)
    content = {"version": 1.0, "video": str(path), "rate": rate, "frames": frames}
    if left_out:
        content["left_out"] = list(left_out)
    write_json(task.target.result, {**content, "made_by": {**made, "limit": run.limit}})
    Journal.remove(prefix)
    run.say(f"{path}: {read} frames, {sum(len(f['people']) for f in frames)} people")
    return done


def _take_frames(journal: Journal, result: Path) -> None:
    """Go on with the frames of a result that the same settings made up to a smaller limit."""
    there = made_by(result)
    if not there or {**there, "limit": None} != {**journal.about, "limit": None}:
        return
    frames = read_json(result, "result of cpm-predict", nan=True).get("frames")
    if isinstance(frames, list) and all(isinstance(f, dict) and "people" in f for f in frames):
        for number, frame in enumerate(frames):
            journal.done.setdefault(number, frame["people"])


def _left_out(run: Run, path: Path, boxes: Sequence[Person]) -> tuple[str, ...]:
    """What is wrong with people of the file of boxes: frames of an earlier run do not say it."""
    with open_capture(str(path)) as capture:
        for frame in frames_of(capture, 1):
            return prepare(run.job(str(path), frame, boxes)[0]).left_out
    return ()


def _draw_video(run: Run, path: Path, out: Path, rate: float, frames: list[dict[str, Any]]) -> None:
    """The video with its people's skeletons; the frames are decoded once more."""
    skeletal = run.predictor.skeleton
    drawn: VideoFile | None = None
    with open_capture(str(path)) as capture, run.bar(len(frames), "frames drawn") as bar:
        try:
            for number, frame in enumerate(frames_of(capture, len(frames))):
                drawn = drawn or VideoFile(out, rate, (frame.shape[1], frame.shape[0]))
                drawn.add(_draw(frame, frames[number]["people"], skeletal))
                bar.update()
            if drawn is None:
                raise DataError(f"{path}: its frames cannot be read a second time")
            drawn.close()
        finally:
            if drawn is not None:
                drawn.discard()


def _draw(frame: Image, people: Iterable[Mapping[str, Any]], skeletal: Skeleton) -> Image:
    for joints in joints_of(people):
        frame = draw_skeleton(frame, joints, skeletal)
    return frame


def _frame_people(run: Run, job: Job) -> list[dict[str, Any]]:
    """People of a frame; with ``--detect``, none where none is seen.

    Raises
    ------
    CaffeCompatError : what was wrong with the frame.
    """
    if job.nobody:
        return []
    return people_rows(job, run.predictor.predict_job(job), run.min_score)


def camera(run: Run, source: int | str, prefix: Path, box: Box | None) -> Done:
    """Predict a camera's frames until Ctrl-C or the limit; write them with skeletons as a video,
    and all as JSON.

    Parameters
    ----------
    source : a camera's number, or the address of a stream.
    prefix : what the results' names begin with. With ``--resume`` a recording that is there stays:
        nobody can make it again.

    Raises
    ------
    DataError : the camera gives no picture.
    """
    called = name_of(source)
    result = Path(f"{prefix}_keypoints.json")
    if run.resume and result.exists():
        run.say(f"{called}: {result} is there and is kept")
        return Done()
    done = Done()
    file = Path(f"{prefix}_skeleton.mp4")
    skeletal = run.predictor.skeleton
    own = None if box is None else (box,)
    frames: list[dict[str, Any]] = []
    left_out: dict[str, None] = {}  # each reason once
    waiting: list[Image] = []  # drawn frames until the pace is known, which is the video's rate
    drawn: VideoFile | None = None
    try:
        with (
            open_capture(source) as capture,
            run.bar(run.limit, "frames") as bar,
            contextlib.suppress(KeyboardInterrupt),
        ):
            start = time.monotonic()
            for i, frame in enumerate(frames_of(capture, run.limit)):
                job = prepare(run.job(f"{called}, frame {i}", frame, own)[0])
                people = _frame_people(run, job)
                left_out.update(dict.fromkeys(job.left_out))
                seconds = round(time.monotonic() - start, 3)
                frames.append({"frame": i, "time": seconds, "people": people})
                done.add(person["score"] for person in people)
                waiting.append(_draw(frame, people, skeletal))
                bar.update()
                if drawn is None and len(waiting) >= _PACE_FRAMES:
                    rate = len(waiting) / (time.monotonic() - start)
                    drawn = VideoFile(file, rate, (frame.shape[1], frame.shape[0]))
                if drawn is not None:
                    for one in waiting:
                        drawn.add(one)
                    waiting.clear()
        if not frames:
            raise DataError(f"{called}: gives no picture")
        if drawn is None:
            drawn = VideoFile(file, _SLOW_RATE, (waiting[0].shape[1], waiting[0].shape[0]))
            for one in waiting:
                drawn.add(one)
        drawn.close()
    finally:
        if drawn is not None:
            drawn.discard()
    made = as_stored({**run.about, "min_score": run.min_score, "boxes": own, "limit": run.limit})
    shown = source if isinstance(source, int) else called
    write_json(result, {"version": 1.0, "camera": shown, "frames": frames, "made_by": made})
    run.say(f"{called}: {len(frames)} frames")
    done.bad += [f"{called}: {reason}" for reason in left_out]
    return done
