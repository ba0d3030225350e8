"""A run of the predictor over a benchmark's test people: the release's result file and the
score."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.files import write_json
from reproduce.benchmarks.benchmark import Benchmark
from reproduce.people.matlab_pixels import from_matlab, to_matlab
from reproduce.predict.origin import Resumption, as_stored, digest
from reproduce.predict.protocol import Person, Standing
from reproduce.runtime.journal import Journal
from reproduce.runtime.prefetch import prefetch

if TYPE_CHECKING:  # OpenCV is loaded when a run begins, not when benchmarks are listed
    from reproduce.predict.job import Job
    from reproduce.predict.predictor import Predictor
    from reproduce.predict.runs import Done, Run


def jobs_of(
    predictor: Predictor, benchmark: Benchmark, people: Sequence[tuple[Path, Person]]
) -> list[Job]:
    """Test people of a benchmark, for :func:`reproduce.predict.job.prepare`.

    Raises
    ------
    CaffeCompatError : the network has other parts than the benchmark needs.
    """
    benchmark.check_parts(predictor.skeleton)
    return [predictor.job(str(image), image, (person,)) for image, person in people]


def predict_benchmark(run: Run, test: Benchmark, name: str) -> Done:
    """Predict a benchmark's test people; write the release's .mat and the score.

    Results are kept as they are made; several processes share the people and the first one merges.

    Parameters
    ----------
    name : of the model, a part of the results' file names.

    Returns
    -------
    The people whom this process predicted, and why others were not predicted; these are nan in the
    file and left out of the score.
    """
    from reproduce.predict.job import prepare
    from reproduce.predict.runs import Done

    people = test.people()[: run.limit]
    prefix = run.out / f"{test.stem}_{name}"
    about = as_stored({**run.about, "set": test.stem})
    done = Done()
    lost: set[int] = set()
    if not run.resume and run.group.first:
        Journal.remove(prefix)
    run.group.any(False)  # no process reads what another is about to remove
    with Journal(prefix, about, resume=run.resume, part=run.group.rank) as journal:
        todo = _todo(run, journal, people)
        prepared = jobs_of(run.predictor, test, [people[i] for i in todo])
        jobs = prefetch(prepare, prepared, run.workers)
        with run.bar(len(todo), "people") as bar:
            for i, job in zip(todo, jobs, strict=True):
                if job.error is not None:
                    done.bad.append(str(job.error))
                    lost.add(i)
                else:
                    (found,) = run.predictor.predict_job(job)
                    joints, origin = to_matlab(found.joints), _origin(*people[i])
                    journal.add(i, {"joints": joints.tolist(), "made_by": origin})
                    done.add([float(found.scores.mean())])
                bar.update()
        for other in run.group.gather(lost):  # all processes have written their share
            lost |= other
        journal.read()
        results = {i: result for i, result in journal.done.items() if i not in lost}
    if run.group.first:
        _merge(run, test, name, len(people), results)
    run.group.any(False)  # nobody leaves before the files are merged
    return done


def _origin(image: Path, person: Person) -> dict[str, Any]:
    """What a person's result is of: the image's contents, and where the person stands."""
    stored = dataclasses.asdict(person) if isinstance(person, Standing) else person
    return as_stored({"input": digest(image) if image.exists() else None, "boxes": stored})


def _todo(run: Run, journal: Journal, people: Sequence[tuple[Path, Person]]) -> list[int]:
    """Numbers of this process's people who have no result of the same model, settings, image and
    place; what is made again, and why, is said in one line."""
    resumption = Resumption()
    if run.group.first:  # every process read the journals of all
        resumption.drop(len(journal.aside & set(range(len(people)))), journal.changed)
    todo = []
    for i in run.mine(range(len(people))):
        there = journal.done.get(i)
        made = there.get("made_by", {}) if isinstance(there, dict) else None
        if i not in journal.done or not resumption.holds(made, _origin(*people[i])):
            todo.append(i)
    run.tell(resumption)
    return todo


def _merge(run: Run, test: Benchmark, name: str, count: int, results: dict[int, Any]) -> None:
    """Write the result file of ``count`` people, and the score of those who were predicted."""
    done = np.array(sorted(i for i in results if i < count), np.int64)
    if not len(done):
        raise DataError(
            f"{test.title}: none of the {count} test images is there, nothing was predicted"
        )
    parts = np.stack([from_matlab(results[int(i)]["joints"]) for i in done])
    predicted = test.to_file(parts, run.predictor.skeleton)
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
