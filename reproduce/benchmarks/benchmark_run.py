"""A run of the predictor over a benchmark's test people: the release's result file and the
score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.files import write_json
from reproduce.benchmarks.benchmark import Benchmark
from reproduce.people.matlab_pixels import from_matlab, to_matlab
from reproduce.predict.protocol import Person
from reproduce.runtime.journal import Journal
from reproduce.runtime.prefetch import prefetch

if TYPE_CHECKING:  # OpenCV is loaded when a run begins, not when benchmarks are listed
    from reproduce.predict.job import Job
    from reproduce.predict.predictor import Predictor
    from reproduce.predict.runs import Run


def jobs_of(
    predictor: Predictor, benchmark: Benchmark, people: Sequence[tuple[Path, Person]]
) -> list[Job]:
    """Test people of a benchmark, for :func:`reproduce.predict.job.prepare`.

    Raises
    ------
    CaffeCompatError : the network has other parts than the benchmark needs.
    """
    benchmark.check_parts(predictor.parts)
    return [predictor.job(str(image), image, (person,)) for image, person in people]


def predict_benchmark(run: Run, test: Benchmark, name: str) -> tuple[int, list[str]]:
    """Predict a benchmark's test people; write the release's .mat and the score.

    Results are kept as they are made; several processes share the people and the first one merges.

    Parameters
    ----------
    name : of the model, a part of the results' file names.

    Returns
    -------
    How many people this process predicted, and which were not predicted and why; they are nan in
    the file and left out of the score.
    """
    from reproduce.predict.job import prepare

    people = test.people()[: run.limit]
    prefix = run.out / f"{test.stem}_{name}"
    about = json.loads(json.dumps({**run.about, "set": test.stem}))
    count = 0
    bad: list[str] = []
    if not run.resume and run.group.first:
        Journal.remove(prefix)
    run.group.any(False)  # no process reads what another is about to remove
    with Journal(prefix, about, resume=run.resume, part=run.group.rank) as journal:
        todo = [i for i in run.mine(range(len(people))) if i not in journal.done]
        prepared = jobs_of(run.predictor, test, [people[i] for i in todo])
        jobs = prefetch(prepare, prepared, run.workers)
        with run.bar(len(todo), "people") as bar:
            for i, job in zip(todo, jobs, strict=True):
                if job.error is not None:
                    bad.append(str(job.error))
                else:
                    (found,) = run.predictor.predict_job(job)
                    journal.add(
                        i,
                        {
                            "joints": to_matlab(found.joints).tolist(),
                            "scores": found.scores.round(5).tolist(),
                        },
                    )
                    count += 1
                bar.update()
        run.group.any(False)  # all processes have written their share
        journal.read()
        results = journal.done
    if run.group.first:
        _merge(run, test, name, len(people), results)
    run.group.any(False)  # nobody leaves before the files are merged
    return count, bad


def _merge(run: Run, test: Benchmark, name: str, count: int, results: dict[int, Any]) -> None:
    """Write the result file of ``count`` people, and the score of those who were predicted."""
    done = np.array(sorted(i for i in results if i < count), np.int64)
    if not len(done):
        raise DataError(
            f"{test.title}: none of the {count} test images is there, nothing was predicted"
        )
    predicted = np.stack([test.to_file(from_matlab(results[int(i)]["joints"])) for i in done])
    whole = np.full((count, *predicted.shape[1:]), np.nan)
    whole[done] = predicted
    path = run.out / f"{test.stem}_prediction_model_{name}.mat"
    test.write(path, whole)
    run.say(f"{path}: {len(done)} of {count} people")
    if not test.public:
        return
    row = test.table(test.score(predicted, people=done))
    content = {"people": len(done), "benchmark": test.title, **row, "made by": run.about}
    write_json(run.out / f"{test.stem}_score_{name}.json", content)
    shown = [name for name in row if name not in ("hits", "counted", "auc")]
    run.say(f"{test.title}: " + "  ".join(f"{name} {row[name]:.1f}" for name in shown))
    run.say(f"{row['hits']} of {row['counted']} joints, AUC {row['auc']:.2f}")
