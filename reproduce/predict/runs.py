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
from reproduce.predict.origin import Resumption, as_stored, digest
from reproduce.predict.person_finder import PeopleFound
from reproduce.predict.prediction import Prediction
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import Person, Standing
from reproduce.predict.result_files import keypoints, openpose
from reproduce.records.store import read_image
from reproduce.runtime.processes import Group
from reproduce.runtime.progress import progress

Image = npt.NDArray[np.uint8]
Say = Callable[[str], None]
Find = Callable[[Image], PeopleFound]  # of pixels (H, W, 3) B, G, R
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
    whole : where ``find`` finds nobody, take the whole image for one person.
    resume : skip what is done.
    workers : processes that decode and resize.
    about : what makes the results (model and settings), kept with them.
    group : the processes that share the work.
    limit : people or frames at most.
    min_score : joints with a smaller score are hidden; None hides none.
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
    find: Find | None = None
    whole: bool = False
    min_score: float | None = None

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
        people = seen.people or ((None,) if self.whole else ())
        return replace(job, image=image, people=people, sought=True), seen

    def made_by(self, path: Path, boxes: Sequence[Person] | None) -> dict[str, Any]:
        """What makes the results of an input: model, settings, the file's contents, its boxes.

        Raises
        ------
        DataError : the file cannot be read.
        """
        own = {"input": digest(path), "boxes": boxes}
        return as_stored({**self.about, "min_score": self.min_score, **own})

    def mine(self, items: Sequence[_Item]) -> list[_Item]:
        """The items that this process works on, of those that all processes share."""
        return list(items[self.group.rank :: self.group.world])

    def tell(self, resumption: Resumption) -> None:
        """Say in one line what all processes keep of an earlier run and make again."""
        counted = self.group.gather(resumption)
        for other in counted[1:]:
            counted[0].join(other)
        if line := str(counted[0]):
            self.say(line)

    def bar(self, total: int | None, unit: str) -> Any:
        """The progress of the first process."""
        return progress(total, unit, shown=self.group.first)


@dataclass
class Done:
    """What a run has done.

    Attributes
    ----------
    scores : the mean score of each person that this process predicted.
    bad : a line for each input that was not done.
    failed : what the names of their results begin with. Results of an earlier run may be there.
    """

    scores: list[float] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    failed: set[Path] = field(default_factory=set)

    def fail(self, prefix: Path, line: str) -> None:
        """Note an input that was not done."""
        self.bad.append(line)
        self.failed.add(prefix)

    def add(self, scores: Iterable[float]) -> None:
        """Note people by their mean scores."""
        self.scores += scores

    def join(self, other: Done) -> None:
        """Take in what another run has done."""
        self.scores += other.scores
        self.bad += other.bad
        self.failed |= other.failed


def boxes_of(boxes: Boxes, path: Path) -> tuple[Box, ...] | None:
    """The boxes of one image.

    Raises
    ------
    DataError : boxes by image, and none of this one.
    """
    if boxes is None:
        return None
    return tuple(of_image(boxes, path)) if isinstance(boxes, Mapping) else (boxes,)


def visible(found: Prediction, min_score: float | None) -> npt.NDArray[np.float64]:
    """Joints (P, 2) of a person; nan where the score is below ``min_score``."""
    if min_score is None:
        return found.joints
    return np.where((found.scores < min_score)[:, None], np.nan, found.joints)


def person_row(found: Prediction, person: Person, min_score: float | None = None) -> dict[str, Any]:
    """A person of a result's JSON: key points as OpenPose writes them (hidden ones are 0, 0, 0),
    mean score, box; of somebody who was found, the confidence too. Where joints may be hidden,
    ``all_keypoints_2d`` holds what was predicted for all of them."""
    row = openpose([(visible(found, min_score), found.scores)])["people"][0]
    if min_score is not None:
        everything = openpose([(found.joints, found.scores)])["people"][0]
        row["all_keypoints_2d"] = everything["pose_keypoints_2d"]
    row["score"] = round(float(found.scores.mean()), 4)
    if isinstance(person, Standing):
        row["box"] = [round(v, 2) for v in person.box]
        row["center"] = [round(v, 2) for v in person.center]
        if person.confidence is not None:
            row["confidence"] = round(person.confidence, 4)
    else:
        row["box"] = list(person) if person is not None else None
    return dict(row)


def people_rows(
    job: Job, found: Sequence[Prediction], min_score: float | None = None
) -> list[dict[str, Any]]:
    """The people of a predicted job, as :func:`person_row` writes them."""
    people = zip(found, job.people, strict=True)
    return [person_row(one, person, min_score) for one, person in people]


def joints_of(rows: Iterable[Mapping[str, Any]]) -> list[npt.NDArray[np.float64]]:
    """Joints (P, 2) in 0-based pixels of each person of a result's JSON; nan where hidden."""
    return [keypoints(row)[:, :2] for row in rows]
