"""The report's sample people: photographs with published predictions, seen by the embedded
network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reproduce.benchmarks.lsp import FIRST_TEST, Lsp
from reproduce.benchmarks.published import published
from reproduce.drawing.viewer import ViewedPerson, ViewedPicture, picture_data
from reproduce.network.identify import embedded
from reproduce.people.skeletons import Skeleton
from reproduce.predict.job import prepare
from reproduce.predict.photographs import PAGE_TILE
from reproduce.predict.predictor import Predictor


def numbers() -> list[int]:
    """Numbers of the photographs in Leeds' test set."""
    return sorted({int(n) for entry in published()["photographs"] for n in entry["people"]})


def sample_pictures(data: Path) -> tuple[list[dict[str, Any]], Skeleton]:
    """The photographs with the embedded network's belief maps, for a page's viewer.

    Raises
    ------
    CaffeCompatError : they are not there, or cannot be read.
    """
    benchmark = Lsp(data)
    people = [benchmark.people()[number - FIRST_TEST] for number in numbers()]
    predictor = Predictor.load(str(embedded()), protocol=benchmark.protocol, device="cpu")
    pictures = []
    benchmark.check_parts(predictor.skeleton)
    for path, person in people:
        job = prepare(predictor.job(path.name, path, (person,), keep=True))
        (found,) = predictor.predict_job(job, shown=PAGE_TILE)
        assert found.small is not None
        viewed = ViewedPerson(found.joints, found.scores, found.small)
        pictures.append(picture_data(ViewedPicture(path.name, job.pixels, (viewed,))))
    return pictures, benchmark.skeleton


def embedded_score() -> tuple[str, float, str]:
    """The embedded network's name, its stored score and of which benchmark it is."""
    folder = embedded().parent
    score = json.loads((folder / "score.json").read_text(encoding="utf-8"))
    return folder.name, float(score["total"]), str(score["benchmark"])
