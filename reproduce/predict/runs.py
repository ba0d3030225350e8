"""What all runs of the predictor over many images share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reproduce.predict.boxes import Box, of_image
from reproduce.predict.job import Job
from reproduce.predict.predictor import Prediction, Predictor
from reproduce.predict.protocol import Person
from reproduce.predict.result_files import openpose
from reproduce.runtime.processes import Group

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
    detect : take the people that the detector sees.
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

    def mine(self, items: Sequence[_Item]) -> list[_Item]:
        """This process' share."""
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
    """A person of a result's JSON: key points as OpenPose writes them, mean score, box."""
    row = openpose([(found.joints, found.scores)])["people"][0]
    return {
        **row,
        "score": round(float(found.scores.mean()), 4),
        "box": list(person) if isinstance(person, tuple) else None,
    }


def people_rows(job: Job, found: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The people of a predicted job, as :func:`person_row` writes them."""
    return [person_row(one, person) for one, person in zip(found, job.people, strict=True)]


def joints_of(rows: Iterable[Mapping[str, Any]]) -> list[npt.NDArray[np.float64]]:
    """Joints (P, 2) in 0-based pixels of each person of a result's JSON."""
    return [np.array(row["pose_keypoints_2d"], np.float64).reshape(-1, 3)[:, :2] for row in rows]
