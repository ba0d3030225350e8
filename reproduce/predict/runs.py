"""What all runs of the predictor over many images share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from reproduce.predict.boxes import Box, of_image
from reproduce.predict.job import Job
from reproduce.predict.person_finder import PeopleFound
from reproduce.predict.predictor import Prediction, Predictor
from reproduce.predict.protocol import Person, Standing
from reproduce.predict.result_files import openpose
from reproduce.records.store import read_image
from reproduce.runtime.processes import Group

Image = npt.NDArray[np.uint8]
Say = Callable[[str], None]
# One box for every image, each image's boxes by its name, or none.
Boxes = Box | Mapping[str, list[Box]] | None
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all runs share.

    Attributes
    ----------
    predictor : the network and its protocol.
    out : folder of the results.
    say : tells the user a line.
    detect : take the people that OpenCV's detector sees.
    find : takes the people that the person network sees, instead; of pixels (H, W, 3) B, G, R.
    resume : skip what is done.
    workers : processes that decode and resize.
    about : what makes the results (model and settings), kept with them.
    group : the processes that share the work.
    limit : people or frames at most.
    """

    predictor: Predictor
    out: Path
    say: Say
    detect: bool = False
    resume: bool = False
    workers: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    group: Group = field(default_factory=lambda: Group(0, 1, "cpu"))
    limit: int | None = None
    find: Callable[[Image], PeopleFound] | None = None

    def job(
        self, name: str, image: Path | Image, boxes: Sequence[Person] | None, *, keep: bool = False
    ) -> tuple[Job, PeopleFound | None]:
        """An image to be tested, and what the person network sees in it where it is to look."""
        if self.find is None:
            return self.predictor.job(name, image, boxes, detect=self.detect, keep=keep), None
        job = self.predictor.job(name, image, boxes, keep=keep)
        try:
            if isinstance(image, Path):
                image = read_image(image, upright=job.protocol.upright)
            seen = self.find(image)
        except CaffeCompatError as error:
            text = str(error)
            told = text if text.startswith(name) else f"{name}: {text}"
            return replace(job, image=None, error=DataError(told)), None
        return replace(job, image=image, people=seen.people), seen

    def mine(self, items: Sequence[_Item]) -> list[_Item]:
        """The items that this process works on, of those that all processes share."""
        return list(items[self.group.rank :: self.group.world])

    def bar(self, total: int | None, unit: str) -> Any:
        """A progress bar on a terminal, of the first process."""
        from tqdm import tqdm

        return tqdm(total=total, unit=f" {unit}", disable=None if self.group.first else True)


def boxes_of(boxes: Boxes, path: Path) -> tuple[Box, ...] | None:
    """The boxes of one image.

    Raises
    ------
    DataError : boxes by image, and none of this one.
    """
    if boxes is None:
        return None
    return tuple(of_image(boxes, path)) if isinstance(boxes, Mapping) else (boxes,)


def person_row(found: Prediction, person: Person) -> dict[str, Any]:
    """A person of a result's JSON: key points as OpenPose writes them, mean score, box; of
    somebody whom the person network found, its confidence too."""
    row = openpose([(found.joints, found.scores)])["people"][0]
    row["score"] = round(float(found.scores.mean()), 4)
    if isinstance(person, Standing):
        row["box"] = [round(v, 2) for v in person.box]
        row["center"] = [round(v, 2) for v in person.center]
        if person.confidence is not None:
            row["confidence"] = round(person.confidence, 4)
    else:
        row["box"] = list(person) if person is not None else None
    return dict(row)


def people_rows(job: Job, found: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The people of a predicted job, as :func:`person_row` writes them."""
    return [person_row(one, person) for one, person in zip(found, job.people, strict=True)]


def joints_of(rows: Iterable[Mapping[str, Any]]) -> list[npt.NDArray[np.float64]]:
    """Joints (P, 2) in 0-based pixels of each person of a result's JSON."""
    return [np.array(row["pose_keypoints_2d"], np.float64).reshape(-1, 3)[:, :2] for row in rows]
