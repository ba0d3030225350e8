"""A run over photographs: skeletons, belief maps and JSON of each, all predictions together."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import TargetError, write_json
from caffe_compat.foreign import read_json
from reproduce.drawing.pictures import draw_people, draw_skeleton, montage, save_png
from reproduce.drawing.viewer import ViewedPerson, ViewedPicture, picture_data, write_page
from reproduce.predict.boxes import Box
from reproduce.predict.job import Job, first_line, prepare
from reproduce.predict.own_pictures import PROGRAM, check_place, is_made
from reproduce.predict.prediction import Prediction
from reproduce.predict.result_files import gathered_files, read_result, write_all
from reproduce.predict.runs import Done, Run, people_rows, visible
from reproduce.predict.tasks import Target, Task
from reproduce.runtime.prefetch import prefetch

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
# What OpenCV may decode; GIF and AVIF where it was built with them.
IMAGES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".png",
    ".bmp",
    ".dib",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".jp2",
    ".pbm",
    ".pgm",
    ".ppm",
    ".pnm",
    ".ras",
    ".sr",
)
TILE = 96  # width of a belief map in the montage, pixels
PAGE_TILE = 184  # the same in the page
PAGE_PICTURES = 60  # a page of more pictures is too large for a browser


def photographs(run: Run, tasks: Sequence[Task], *, page: bool = False) -> Done:
    """Predict the people in each image; write skeletons, belief maps and JSON.

    Parameters
    ----------
    tasks : the images that this process is to do.
    page : keep each image's part of the page, too.
    """
    names = [*run.predictor.skeleton.parts, "background"]
    done = Done()
    with _Writer(done) as writer, run.bar(len(tasks), "images") as bar:
        jobs = prefetch(prepare, _jobs(run, tasks, writer), run.workers)
        for task, job in zip(tasks, jobs, strict=True):
            path = task.target.path
            try:
                found = run.predictor.predict_job(job, shown=PAGE_TILE if page else TILE)
                made = run.made_by(path, task.boxes)
            except CaffeCompatError as error:
                done.fail(task.target.prefix, str(error))
            except (MemoryError, RuntimeError, ValueError) as error:  # the other images go on
                done.fail(task.target.prefix, f"{path}: cannot be predicted: {first_line(error)}")
            else:
                if job.nobody:
                    run.say(f"{path}: no person detected, the whole image was taken")
                means = [float(person.scores.mean()) for person in found]
                scores = ", ".join(f"{mean:.3f}" for mean in means)
                run.say(f"{path}: " + (f"mean score {scores}" if found else "no person found"))
                if page:
                    shown = [(visible(one, run.min_score), one) for one in found]
                    writer.submit(task.target, _write_page_part, job.pixels, shown)
                writer.submit(task.target, _write_image, run, job, found, names, made, page)
                done.add(means)
            bar.update()
    return done


def gather(run: Run, targets: Sequence[Target], failed: Container[Path], *, page: bool) -> Done:
    """Write all people of all images together, once every process has done its share.

    Parameters
    ----------
    targets : the images of all processes.
    failed : prefixes of images that were not done: what an earlier run left of them is not of this
        run's model and settings.
    page : write ``page.html``, too, in which the belief maps can be looked through.
    """
    done = Done()
    whole = [target for target in targets if target.prefix not in failed]

    def results() -> Iterator[dict[str, Any]]:
        with run.bar(len(whole), "results put together") as bar:
            for target in whole:
                try:
                    result = read_result(target.result, run.predictor.parts)
                    # told here, so that a run that keeps the result tells them, too
                    done.bad += [f"{target.path}: {line}" for line in result.get("left_out", ())]
                    yield result
                except DataError as error:
                    done.fail(target.prefix, str(error))
                bar.update()

    together = run.out / "predictions"
    older = [file for file in gathered_files(together) if file.exists()]
    write_all(together, results(), run.predictor.skeleton)
    if older and not older[0].exists():
        run.say(
            f"{together}*: those of an earlier run are removed, because no picture of this run is "
            "done; the pictures' own results stay, and --resume puts them together again"
        )
    if page:
        _write_page(run, whole)
    return done


def _jobs(run: Run, tasks: Sequence[Task], writer: _Writer) -> Iterator[Job]:
    """Each image's job; a network that finds people looks here, in the process that has it."""
    for task in tasks:
        path = task.target.path
        job, seen = run.job(str(path), path, task.boxes, keep=True)
        if seen is not None and isinstance(job.image, np.ndarray):
            boxes = [person.box for person in seen.people]
            centers = [person.center for person in seen.people]
            writer.submit(task.target, _write_people, job.image, seen.belief, centers, boxes)
        yield job


def _write_people(
    target: Target,
    image: Image,
    belief: Maps,
    centers: Sequence[tuple[float, float]],
    boxes: Sequence[Box],
) -> None:
    path = Path(f"{target.prefix}_people.png")
    check_place(path)
    save_png(draw_people(image, belief, centers, boxes), path, software=PROGRAM)


class _Writer:
    """Draws and writes in one other thread (OpenCV releases the interpreter's lock), a few images
    behind at most.

    Parameters
    ----------
    done : takes in the images that cannot be drawn.
    """

    def __init__(self, done: Done) -> None:
        self._done = done
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[Target, Future[None]]] = deque()

    def submit(self, target: Target, work: Callable[..., None], *args: Any) -> None:
        """Do ``work(target, *args)`` later; an earlier file that cannot be written is raised
        here."""
        self._waiting.append((target, self._pool.submit(work, target, *args)))
        if len(self._waiting) > 4:
            self._finish_one()

    def _finish_one(self) -> None:
        target, future = self._waiting.popleft()
        try:
            future.result()
        except (TargetError, OSError):  # a full disk, for example: the others would fail, too
            raise
        except Exception as error:  # OpenCV and numpy raise many kinds; the other images go on
            if target.prefix not in self._done.failed:
                line = f"{target.path}: its results cannot be drawn: {first_line(error)}"
                self._done.fail(target.prefix, line)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._pool.shutdown)
            while self._waiting:
                self._finish_one()


def _write_image(
    target: Target,
    run: Run,
    job: Job,
    found: Sequence[Prediction],
    names: Sequence[str],
    made: dict[str, Any],
    page: bool,
) -> None:
    image, prefix = job.pixels, target.prefix
    skeletal = run.predictor.skeleton
    drawn = image
    many = len(found) > 1
    maps = [
        Path(f"{prefix}_belief_{i + 1}.png" if many else f"{prefix}_belief.png")
        for i in range(len(found))
    ]
    skeleton = Path(f"{prefix}_skeleton.png")
    sought = [Path(f"{prefix}_people.png")] if run.find is not None else []
    pictures = [skeleton, *maps, *sought]
    for path in pictures:
        check_place(path)
    _remove_older(run, target, pictures, page)
    for person, path in zip(found, maps, strict=True):
        assert person.small is not None
        drawn = draw_skeleton(drawn, visible(person, run.min_score), skeletal)
        save_png(montage(image, list(person.small), names, tile=TILE), path, software=PROGRAM)
    save_png(drawn, skeleton, software=PROGRAM)
    height, width = job.size
    content = {
        "version": 1.0,
        "image": str(target.path),
        "size": [width, height],
        "people": people_rows(job, found, run.min_score),
        "pictures": [path.name for path in pictures],
        "made_by": made,
    }
    if job.left_out:
        content["left_out"] = job.left_out
    # This file is written last: where --resume finds it, the pictures are there, too.
    write_json(target.result, content)


def _remove_older(run: Run, target: Target, pictures: Container[Path], page: bool) -> None:
    """Remove what an earlier run made of an image and this one does not overwrite: it would stand
    beside results of another model or of other boxes.

    Parameters
    ----------
    pictures : those that this run makes.
    """
    numbered = (Path(f"{target.prefix}_belief_{number}.png") for number in itertools.count(1))
    there = itertools.takewhile(Path.exists, numbered)
    older = [Path(f"{target.prefix}_{name}.png") for name in ("belief", "people")]
    for path in [*older, *there]:
        if path not in pictures and is_made(path):
            path.unlink()
    if not page and target.result.exists() and target.page_part.exists():
        target.page_part.unlink()
        (run.out / "page.html").unlink(missing_ok=True)  # it shows what is no more


def _write_page_part(
    target: Target, image: Image, found: Sequence[tuple[Floats, Prediction]]
) -> None:
    people = []
    for joints, person in found:
        assert person.small is not None
        people.append(ViewedPerson(joints, person.scores, person.small))
    target.page_part.parent.mkdir(parents=True, exist_ok=True)
    title = target.path.name
    write_json(target.page_part, picture_data(ViewedPicture(title, image, tuple(people))))


def _write_page(run: Run, targets: Sequence[Target]) -> None:
    """The page of all images, as far as they were predicted."""
    path = run.out / "page.html"
    parts = [target.page_part for target in targets if target.page_part.exists()]
    if not parts:
        path.unlink(missing_ok=True)  # of an earlier run
        return
    shown = parts[:PAGE_PICTURES]
    advice = "remove it; --resume then makes it again"
    pictures = [read_json(part, "part of a page", advice=advice) for part in shown]
    about = (
        f"{len(shown)} of {len(parts)} pictures"
        if len(parts) > len(shown)
        else f"{len(parts)} picture{'s' if len(parts) > 1 else ''}"
    )
    stages = len(run.predictor.outputs)
    about += f", a network of {stages} stage{'s' if stages > 1 else ''}. Choose a part and a stage."
    write_page(path, "What the network believes", about, pictures, run.predictor.skeleton)
    run.say(f"{path}: {about.split('.')[0]}")
