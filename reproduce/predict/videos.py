"""A run over a video or a camera: each frame's people as JSON, the frames with skeletons as a
video."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_SLOWEST = 0.001  # frames a second; less is no rate
# videos that hold an index of their frames; others tell how long they are, sound included
_COUNTED = (".mp4", ".mov", ".m4v", ".avi")
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
        rate, promised = _rate_and_length(capture)
        total = min(promised, run.limit) if run.limit else promised
        start = _unbroken(journal)
        if start and task.boxes:
            left_out.update(dict.fromkeys(_left_out(run, path, task.boxes)))
        jobs = _jobs(run, capture, path, task.boxes, start)
        with run.bar(max(0, total - start) or None, "frames") as bar:
            for number, job in enumerate(prefetch(prepare, jobs, run.workers), start):
                journal.add(number, _frame_people(run, job))
                left_out.update(dict.fromkeys(job.left_out))
                done.add(person["score"] for person in journal.done[number])
                bar.update()
        read = len(journal.done) if run.limit is None else min(run.limit, len(journal.done))
    if not read:
        return Done(bad=[f"{path}: no frame of it can be decoded"])
    if read < total and path.suffix.lower() in _COUNTED:
        why = f"{read} of {total} frames can be decoded, the rest is damaged or missing"
        left_out[why] = None
    elif read < total:
        run.say(
            f"{path}: {read} frames can be decoded, and its length is that of {total}: it was cut "
            "short, or its sound is longer than its pictures"
        )
    done.bad += [f"{path}: {reason}" for reason in left_out]
    frames = [{"frame": i, "people": journal.done[i]} for i in range(read)]
    drawn = Path(f"{prefix}_skeleton.mp4")
    _draw_video(run, path, drawn, rate, frames)
    content = {"version": 1.0, "video": str(path), "rate": rate, "frames": frames}
    content["pictures"] = [drawn.name]
    if left_out:
        content["left_out"] = list(left_out)
    write_json(task.target.result, {**content, "made_by": {**made, "limit": run.limit}})
    Journal.remove(prefix)
    run.say(f"{path}: {read} frames, {sum(len(f['people']) for f in frames)} people")
    return done


def _rate_and_length(capture: Any) -> tuple[float, int]:
    """Frames a second, and how many frames the file promises."""
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    if not _SLOWEST <= rate < math.inf:
        rate = _USUAL_RATE
    return rate, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))


def _jobs(
    run: Run, capture: Any, path: Path, boxes: Sequence[Person] | None, start: int
) -> Iterator[Job]:
    """The frames from ``start`` on, as they are read."""
    for _ in range(start):
        capture.grab()
    rest = None if run.limit is None else max(0, run.limit - start)
    for number, frame in enumerate(frames_of(capture, rest), start):
        yield run.job(f"{path}, frame {number}", frame, boxes)[0]


def _unbroken(journal: Journal) -> int:
    """How many frames of an earlier run there are from the first on; what comes behind a gap is
    forgotten."""
    count = next(number for number in itertools.count() if number not in journal.done)
    for number in [number for number in journal.done if number > count]:
        del journal.done[number]
    return count


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


class _Recording:
    """A camera's frames as a video, whose rate is the pace at which they came.

    Parameters
    ----------
    path : the MPEG-4 file; there is none before the pace is known or the recording ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Image] = []  # until the pace is known
        self._file: VideoFile | None = None
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._start

    def add(self, frame: Image) -> None:
        """Append a frame."""
        self._waiting.append(frame)
        if self._file is None and len(self._waiting) >= _PACE_FRAMES:
            self._open(len(self._waiting) / self.seconds)
        if self._file is not None:
            self._write(self._file)

    def _open(self, rate: float) -> VideoFile:
        frame = self._waiting[0]
        self._file = VideoFile(self._path, rate, (frame.shape[1], frame.shape[0]))
        return self._file

    def _write(self, file: VideoFile) -> None:
        for frame in self._waiting:
            file.add(frame)
        self._waiting.clear()

    def close(self) -> None:
        """Complete the file, of one frame at least.

        Raises
        ------
        DataError : it is not whole.
        """
        if self._file is None and not self._waiting:
            return
        file = self._file or self._open(_SLOW_RATE)
        try:
            self._write(file)
            file.close()
        finally:
            file.discard()


def camera(run: Run, source: int | str, prefix: Path, box: Box | None) -> Done:
    """Predict a camera's frames until Ctrl-C or the limit; write them with skeletons as a video,
    and all as JSON. Whatever ends it, the frames until then are written: nobody can make them
    again.

    Parameters
    ----------
    source : a camera's number, or the address of a stream.
    prefix : what the results' names begin with. With ``--resume`` a recording that is there stays.

    Raises
    ------
    DataError : the camera gives no picture; a recording is there.
    """
    called = name_of(source)
    result, file = Path(f"{prefix}_keypoints.json"), Path(f"{prefix}_skeleton.mp4")
    if result.exists():
        if not run.resume:
            raise DataError(
                f"{called}: {result} is there, of a recording that nobody can make again; move it, "
                "choose another folder with --out, or keep it with --resume"
            )
        run.say(f"{called}: {result} is there and is kept")
        return Done()
    done = Done()
    own = None if box is None else (box,)
    frames: list[dict[str, Any]] = []
    left_out: dict[str, None] = {}  # each reason once
    recording: _Recording | None = None
    try:
        with (
            open_capture(source) as capture,
            run.bar(run.limit, "frames") as bar,
            contextlib.suppress(KeyboardInterrupt),  # this is how a recording ends
        ):
            recording = _Recording(file)
            for i, frame in enumerate(frames_of(capture, run.limit)):
                job = prepare(run.job(f"{called}, frame {i}", frame, own)[0])
                people = _frame_people(run, job)
                left_out.update(dict.fromkeys(job.left_out))
                frames.append({"frame": i, "time": round(recording.seconds, 3), "people": people})
                done.add(person["score"] for person in people)
                recording.add(_draw(frame, people, run.predictor.skeleton))
                bar.update()
    finally:
        if recording is not None and frames:
            about = {**run.about, "min_score": run.min_score, "boxes": own, "limit": run.limit}
            content = {
                "version": 1.0,
                "camera": source if isinstance(source, int) else called,
                "frames": frames,
                "pictures": [file.name],
                "made_by": as_stored(about),
            }
            try:
                write_json(result, content)
            finally:
                recording.close()
            run.say(f"{called}: {len(frames)} frames")
    if not frames:
        raise DataError(f"{called}: gives no picture")
    done.bad += [f"{called}: {reason}" for reason in left_out]
    return done
