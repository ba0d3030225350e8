"""A run over a video or a camera: each frame's people as JSON, the frames with skeletons as a
video."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import write_json
from reproduce.drawing.pictures import draw_skeleton
from reproduce.people.skeletons import Skeleton, skeleton
from reproduce.predict.boxes import Box
from reproduce.predict.capture import VideoFile, frames_of, open_capture
from reproduce.predict.job import Job, prepare
from reproduce.predict.runs import Boxes, Run, boxes_of, joints_of, people_rows
from reproduce.runtime.journal import Journal
from reproduce.runtime.prefetch import prefetch

Image = npt.NDArray[np.uint8]
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_USUAL_RATE = 25.0  # frames a second, of a video that does not say
_SLOW_RATE = 10.0  # frames a second, of a camera that stopped before its pace was known
_PACE_FRAMES = 10  # frames after which a camera's pace is known


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
    own = boxes_of(boxes, path)
    about = {**run.about, "input": path.name, "boxes": own}
    done, bad = 0, []
    with (
        open_capture(str(path)) as capture,
        Journal(target, json.loads(json.dumps(about)), resume=run.resume) as journal,
    ):
        rate = float(capture.get(cv2.CAP_PROP_FPS)) or _USUAL_RATE
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        total = min(promised, run.limit) if run.limit else promised
        start = len(journal.done)
        for _ in range(start):
            capture.grab()
        rest = None if run.limit is None else max(0, run.limit - start)
        jobs = (
            run.job(f"{path}, frame {start + i}", frame, own)[0]
            for i, frame in enumerate(frames_of(capture, rest))
        )
        with run.bar(max(0, total - start) or None, "frames") as bar:
            for number, job in enumerate(prefetch(prepare, jobs, run.workers), start):
                journal.add(number, _frame_people(run, job))
                done += len(journal.done[number])
                bar.update()
        read = len(journal.done)
    if not read:
        return 0, [f"{path}: no frame of it can be decoded"]
    if read < total:
        bad.append(
            f"{path}: {read} of {total} frames can be decoded, the rest is damaged or missing"
        )
    frames = [{"frame": i, "people": journal.done[i]} for i in range(read)]
    _draw_video(run, path, Path(f"{target}_skeleton.mp4"), rate, frames)
    write_json(result, {"version": 1.0, "video": str(path), "rate": rate, "frames": frames})
    Journal.remove(target)
    run.say(f"{path}: {read} frames, {sum(len(f['people']) for f in frames)} people")
    return done, bad


def _draw_video(run: Run, path: Path, out: Path, rate: float, frames: list[dict[str, Any]]) -> None:
    """The video with its people's skeletons; the frames are decoded once more."""
    skeletal = skeleton(run.predictor.parts)
    with open_capture(str(path)) as capture:
        drawn: VideoFile | None = None
        for number, frame in enumerate(frames_of(capture, len(frames))):
            drawn = drawn or VideoFile(out, rate, (frame.shape[1], frame.shape[0]))
            drawn.add(_draw(frame, frames[number]["people"], skeletal))
        assert drawn is not None
        drawn.close()


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
    return people_rows(job, run.predictor.predict_job(job))


def camera(run: Run, number: int, box: Box | None) -> int:
    """Predict a camera's frames until Ctrl-C or the limit; write them with skeletons as a video,
    and all as JSON.

    Returns
    -------
    How many people were predicted.
    """
    target = run.out / f"camera{number}"
    file = Path(f"{target}_skeleton.mp4")
    skeletal = skeleton(run.predictor.parts)
    own = None if box is None else (box,)
    frames: list[dict[str, Any]] = []
    waiting: list[Image] = []  # drawn frames until the pace is known, which is the video's rate
    drawn: VideoFile | None = None
    with open_capture(number) as capture, contextlib.suppress(KeyboardInterrupt):
        start = time.monotonic()
        for i, frame in enumerate(frames_of(capture, run.limit)):
            name = f"camera {number}, frame {i}"
            job = prepare(run.job(name, frame, own)[0])
            people = _frame_people(run, job)
            seconds = round(time.monotonic() - start, 3)
            frames.append({"frame": i, "time": seconds, "people": people})
            waiting.append(_draw(frame, people, skeletal))
            if drawn is None and len(waiting) >= _PACE_FRAMES:
                rate = len(waiting) / (time.monotonic() - start)
                drawn = VideoFile(file, rate, (frame.shape[1], frame.shape[0]))
            if drawn is not None:
                for one in waiting:
                    drawn.add(one)
                waiting.clear()
    if not frames:
        raise DataError(f"camera {number}: gives no picture")
    if drawn is None:
        drawn = VideoFile(file, _SLOW_RATE, (waiting[0].shape[1], waiting[0].shape[0]))
        for one in waiting:
            drawn.add(one)
    drawn.close()
    write_json(
        Path(f"{target}_keypoints.json"), {"version": 1.0, "camera": number, "frames": frames}
    )
    run.say(f"camera {number}: {len(frames)} frames")
    return sum(len(f["people"]) for f in frames)
