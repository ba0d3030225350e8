"""What a run over files has to do: everything that was named, less what an earlier run did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_compat import foreign
from caffe_compat.errors import DataError
from reproduce.predict.origin import Resumption, made_by
from reproduce.predict.protocol import Person
from reproduce.predict.result_files import lines_left_out
from reproduce.predict.runs import Boxes, Done, Run, boxes_of


@dataclass(frozen=True)
class Target:
    """A file to be predicted.

    Attributes
    ----------
    path : the picture or video.
    prefix : what its results' names begin with.
    film : is it a video?
    """

    path: Path
    prefix: Path
    film: bool = False

    @property
    def result(self) -> Path:
        """The file that is written last: where it is, the others are."""
        return Path(f"{self.prefix}_keypoints.json")

    @property
    def page_part(self) -> Path:
        """What is kept of a picture for the page."""
        return self.prefix.parent / "page" / f"{self.prefix.name}.json"


@dataclass(frozen=True)
class Task:
    """A target that is to be predicted now.

    Attributes
    ----------
    boxes : of its people; None: of the whole image, or of whom the detector finds.
    """

    target: Target
    boxes: Sequence[Person] | None


def tasks_of(
    run: Run, targets: Sequence[Target], boxes: Boxes, done: Done, *, page: bool = False
) -> list[Task]:
    """The targets of this process that have no result of the same model, settings and contents.

    What is kept and what is made again, and why, is said in one line.

    Parameters
    ----------
    done : takes in the targets of which the file of boxes says nothing, and the people whom a kept
        video leaves out.
    page : a picture is done only where its part of the page is there, too.
    """
    tasks: list[Task] = []
    resumption = Resumption()
    pictures = [target for target in targets if not target.film]
    films = [target for target in targets if target.film]
    with run.bar(len(targets) if run.resume else 0, "results looked at") as bar:
        for target in [*run.mine(pictures), *run.mine(films)]:
            try:
                task = Task(target, boxes_of(boxes, target.path))
                if not (run.resume and _is_done(run, task, resumption, page)):
                    tasks.append(task)
                elif target.film:  # those of pictures are told when their results are gathered
                    done.bad += [f"{target.path}: {line}" for line in _left_out(target.result)]
            except DataError as error:
                done.fail(target.prefix, str(error))
            bar.update()
    run.tell(resumption)
    return tasks


def _left_out(result: Path) -> list[str]:
    """What the result of a video says about people who were left out.

    Raises
    ------
    DataError : damaged.
    """
    what, advice = "result of cpm-predict", "remove it to make it again"
    content = foreign.read_json(result, what, nan=True, advice=advice)
    with foreign.reading(result, what, advice=advice):
        return lines_left_out(content)


def _is_done(run: Run, task: Task, resumption: Resumption, page: bool) -> bool:
    target = task.target
    if not target.result.exists() or not target.path.exists():
        return False
    if page and not target.film and not target.page_part.exists():
        resumption.again["not in a page yet"] += 1
        return False
    there, ours = made_by(target.result), run.made_by(target.path, task.boxes)
    if target.film:
        ours["limit"] = run.limit
        if there and _reaches(there.get("limit"), run.limit):
            ours["limit"] = there.get("limit")
    return resumption.holds(there, ours)


def _reaches(there: Any, wanted: int | None) -> bool:
    """Does a video that was predicted up to one limit show all that another asks for?"""
    return there is None or (wanted is not None and isinstance(there, int) and there >= wanted)
