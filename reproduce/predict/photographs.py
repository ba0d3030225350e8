"""A run over photographs: skeletons, belief maps and JSON of each, all predictions together."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import write_json
from reproduce.drawing.pictures import draw_people, draw_skeleton, montage, save_png
from reproduce.drawing.viewer import ViewedPerson, ViewedPicture, picture_data, write_page
from reproduce.people.skeletons import skeleton
from reproduce.predict.boxes import Box
from reproduce.predict.job import Job, prepare
from reproduce.predict.predictor import Prediction
from reproduce.predict.protocol import Person
from reproduce.predict.result_files import write_all
from reproduce.predict.runs import Boxes, Run, boxes_of, people_rows
from reproduce.runtime.prefetch import prefetch

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
TILE = 96  # width of a belief map in the montage, pixels
PAGE_TILE = 184  # the same in the page
PAGE_PICTURES = 60  # a page of more pictures is too large for a browser


def photographs(
    run: Run, paths: Sequence[Path], boxes: Boxes, *, page: bool = False
) -> tuple[int, list[str]]:
    """Predict the people in each image; write skeletons, belief maps and JSON, and all predictions
    together at the end.

    Parameters
    ----------
    page : write ``page.html`` too, in which the belief maps can be looked through.

    Returns
    -------
    How many people were done by this process, and which images were not and why.
    """
    names = [*skeleton(run.predictor.parts).parts, "background"]
    targets, bad = _targets(run, paths)
    todo: list[tuple[Path, Path, Sequence[Person] | None]] = []
    for path, target in run.mine(targets):
        whole = [Path(f"{target}_keypoints.json"), *([_page_part(run, target)] if page else [])]
        if run.resume and all(file.exists() for file in whole):
            continue
        try:
            own = boxes_of(boxes, path)
        except DataError as error:
            bad.append(str(error))
        else:
            todo.append((path, target, own))
    done = 0
    with _Writer() as writer, run.bar(len(todo), "images") as bar:
        jobs = prefetch(prepare, _jobs(run, todo, writer), run.workers)
        for (path, target, _), job in zip(todo, jobs, strict=True):
            try:
                found = run.predictor.predict_job(job, shown=PAGE_TILE if page else TILE)
            except CaffeCompatError as error:
                bad.append(str(error))
            else:
                if job.nobody:
                    run.say(f"{path}: no person detected, the whole image was taken")
                scores = ", ".join(f"{p.scores.mean():.3f}" for p in found)
                run.say(f"{path}: " + (f"mean score {scores}" if found else "no person found"))
                if page:
                    part = _page_part(run, target)
                    writer.submit(_write_page_part, part, path.name, job.pixels, found)
                writer.submit(_write_image, path, target, job, found, names)
                done += len(found)
            bar.update()
    run.group.any(False)  # wait for all processes before the results are gathered
    if run.group.first:
        _gather(run, targets)
        if page:
            _write_page(run, targets)
    return done, bad


def _jobs(
    run: Run, todo: Sequence[tuple[Path, Path, Sequence[Person] | None]], writer: _Writer
) -> Iterator[Job]:
    """Each image's job; the person network looks here, in the process that has it."""
    for path, target, own in todo:
        job, seen = run.job(str(path), path, own, keep=True)
        if seen is not None and isinstance(job.image, np.ndarray):
            boxes = [person.box for person in seen.people]
            centers = [person.center for person in seen.people]
            writer.submit(_write_people, target, job.image, seen.belief, centers, boxes)
        yield job


def _write_people(
    target: Path,
    image: Image,
    belief: Maps,
    centers: Sequence[tuple[float, float]],
    boxes: Sequence[Box],
) -> None:
    save_png(draw_people(image, belief, centers, boxes), Path(f"{target}_people.png"))


def _targets(run: Run, paths: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Where each image's results go, and the images whose results would overwrite each other."""
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
    return targets, bad


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
    path: Path, target: Path, job: Job, found: list[Prediction], names: list[str]
) -> None:
    image = job.pixels
    skeletal = skeleton(len(names) - 1)
    drawn = image
    for i, person in enumerate(found):
        assert person.small is not None
        drawn = draw_skeleton(drawn, person.joints, skeletal)
        which = f"_{i + 1}" if len(found) > 1 else ""
        save_png(
            montage(image, list(person.small), names, tile=TILE),
            Path(f"{target}_belief{which}.png"),
        )
    save_png(drawn, Path(f"{target}_skeleton.png"))
    height, width = job.size
    content = {
        "version": 1.0,
        "image": str(path),
        "size": [width, height],
        "people": people_rows(job, found),
    }
    write_json(Path(f"{target}_keypoints.json"), content)  # last: --resume looks for it


def _page_part(run: Run, target: Path) -> Path:
    """Where an image's part of the page is kept."""
    return run.out / "page" / f"{target.name}.json"


def _write_page_part(path: Path, title: str, image: Image, found: Sequence[Prediction]) -> None:
    people = []
    for person in found:
        assert person.small is not None
        people.append(ViewedPerson(person.joints, person.scores, person.small))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, picture_data(ViewedPicture(title, image, tuple(people))))


def _write_page(run: Run, targets: Sequence[tuple[Path, Path]]) -> None:
    """The page of all images, as far as they were predicted."""
    parts = [part for _, target in targets if (part := _page_part(run, target)).exists()]
    if not parts:
        return
    shown = parts[:PAGE_PICTURES]
    pictures = [json.loads(part.read_text(encoding="utf-8")) for part in shown]
    about = (
        f"{len(shown)} of {len(parts)} pictures"
        if len(parts) > len(shown)
        else f"{len(parts)} picture{'s' if len(parts) > 1 else ''}"
    )
    stages = len(run.predictor.outputs)
    about += f", a network of {stages} stage{'s' if stages > 1 else ''}. Choose a part and a stage."
    path = run.out / "page.html"
    write_page(path, "What the network believes", about, pictures, skeleton(run.predictor.parts))
    run.say(f"{path}: {about.split('.')[0]}")


def _gather(run: Run, targets: Sequence[tuple[Path, Path]]) -> None:
    """All people of all images in COCO's JSON, .npz and .mat."""
    images = []
    for _, target in targets:
        path = Path(f"{target}_keypoints.json")
        if path.exists():
            images.append(json.loads(path.read_text(encoding="utf-8")))
    if images:
        write_all(run.out / "predictions", images, skeleton(run.predictor.parts))
