"""Runs the experiments: trains by ``cpm-train``'s code, tests on LSP by the seven-scale protocol,
writes a result for each.

A result is a JSON file; what is there is not done again, and a training that was stopped goes on
from its last snapshot. Several processes may share a plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from caffe_compat.definition.prototxt import read_solver
from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import make_folder, open_to_append, write_json, write_text
from caffe_compat.foreign import read_json
from reproduce.benchmarks import measures
from reproduce.benchmarks.published import published
from reproduce.experiments.plans import Experiment, Profile
from reproduce.experiments.results import BINS, read_result
from reproduce.network import netgen
from reproduce.people import lsp_files
from reproduce.people.annotation import Annotation
from reproduce.predict.protocol import DEMO
from reproduce.records.opening import open_store
from reproduce.runtime.device import bf16_pays
from reproduce.runtime.locks import Taken, hold
from reproduce.runtime.processes import Group
from reproduce.runtime.progress import progress
from reproduce.runtime.provenance import provenance
from reproduce.train import logs

if TYPE_CHECKING:
    from caffe_compat.training.solver import Solver
    from reproduce.benchmarks.benchmark import Benchmark
    from reproduce.predict.predictor import Predictor
    from reproduce.predict.protocol import Protocol

Say = Callable[[str], None]
MARKS = (0.02, 0.25, 1.0)  # of a training, where gradients are looked at
_PATIENCE = 5.0  # seconds between two looks at what another process works on
_DISPLAY = 50  # iterations between two lines of a log


class NoTrainingImages(CaffeCompatError):
    """The data set's images that networks are trained on are not there."""


@dataclass
class Lab:
    """Where experiments run.

    Parameters
    ----------
    profile : how large everything is.
    data : folder with lsp/ and lspet/.
    work : trainings and records.
    results : what was measured, one file per experiment.
    say : gets lines for people.
    device : where networks are tested.
    workers : processes that make samples, and inputs for the tests.
    command : of ``cpm-reproduce`` that made it, for the record.
    group : the processes that train together.
    """

    profile: Profile
    data: Path
    work: Path
    results: Path
    say: Say
    device: str = "cpu"
    workers: int = 1
    command: str = "all"
    group: Group = field(default_factory=lambda: Group(0, 1, "cpu"))

    @cached_property
    def amp(self) -> str:
        """The profile's number format; "" (float32) where the processor would only emulate it."""
        if self.profile.amp == "bf16" and not bf16_pays(self.group.device):
            self.say(
                "this processor has no bfloat16 instructions: training in float32, which is "
                "faster here"
            )
            return ""
        return self.profile.amp

    def result(self, experiment: Experiment) -> Path:
        """The file that an experiment's result is written to."""
        return self.results / f"{experiment.name}.json"

    @cached_property
    def _people(self) -> list[Annotation]:
        """The training people whose images are there: read once, not for each experiment."""
        left_out: list[str] = []
        people = lsp_files.read_training(self.data, skip_missing=True, left_out=left_out)
        if left_out and people and self.group.first:
            self.say(
                f"{len(left_out)} of {len(left_out) + len(people)} training people are left out: "
                f"image not there ({left_out[0]}, for one)"
            )
        return people

    def check_data(self, experiments: Sequence[Experiment]) -> None:
        """See that the training images are there, where an experiment has no result yet.

        Raises
        ------
        NoTrainingImages : they are not, and there are no records of them either.
        """
        if self._records.exists() or all(self.result(e).exists() for e in experiments):
            return
        people: list[Annotation] = []
        with contextlib.suppress(lsp_files.NotThere):
            people = self._people
        if not people:
            raise NoTrainingImages(
                f"{self.data}: no training images of LSP or LSPET in it (lsp/images, lspet/images, "
                "each beside its joints.mat). To be had: "
                f"{'; '.join(published()['where'][k] for k in ('lsp', 'lspet'))}"
            )

    @property
    def _records(self) -> Path:
        return self.work / "leeds.lmdb"

    @cached_property
    def _record_count(self) -> int:
        """How many people the trainings see; the profile may not take all that have images."""
        return len(open_store(self._records))

    @property
    def _batch(self) -> int:
        """Images that each process takes in one iteration: together they take the profile's batch,
        so that results do not hang on the number of processes.

        Raises
        ------
        CaffeCompatError : the processes cannot share the batch evenly.
        """
        batch, processes = self.profile.batch, self.group.world
        if batch % processes:
            raise CaffeCompatError(
                f"{processes} processes cannot share the {self.profile.name} profile's batches of "
                f"{batch} images evenly; start 1, 2, 4, ... processes"
            )
        return batch // processes

    def records(self) -> Path:
        """The training records, made when they are first needed; those that are there are taken."""
        from reproduce.records import store

        path = self._records
        if self.group.first and not path.exists():
            people = self._people
            if self.profile.people is not None and len(people) > self.profile.people:
                chosen = np.linspace(0, len(people) - 1, self.profile.people).round().astype(int)
                people = [people[i] for i in chosen]
            make_folder(self.work)
            with contextlib.ExitStack() as stack:
                while not self._locked(stack, "records"):
                    time.sleep(_PATIENCE)
                if not path.exists():
                    store.export_lmdb(store.plan(people, seed=1), self.data, path, jpeg=True)
        self.group.any(False)
        return path

    def run(self, experiments: Sequence[Experiment]) -> bool:
        """Run what has no result yet; False when it was interrupted.

        Several processes may run one plan in one work folder: what one of them works on the others
        leave alone and wait for.
        """
        _ = self._batch  # says at once where the processes cannot share it
        self.check_data(experiments)
        make_folder(self.work)
        make_folder(self.results)
        names = [e.name for e in experiments]
        waiting = list(experiments)
        while waiting:
            left = []
            for experiment in waiting:
                label = f"{experiment.name} ({names.index(experiment.name) + 1} of {len(names)})"
                with self._claim(experiment) as state:
                    if state == "done":
                        self.say(f"{label}: has its result")
                    elif state == "taken":
                        left.append(experiment)
                    else:
                        self.say(label)
                        if not self._one(experiment, self.records()):
                            return False
            if len(left) == len(waiting):
                time.sleep(_PATIENCE)
            elif left:
                self.say(f"being made by another process: {', '.join(e.name for e in left)}")
            waiting = left
        return True

    @contextlib.contextmanager
    def _claim(self, experiment: Experiment) -> Iterator[Literal["done", "taken", "ours"]]:
        """Whether an experiment has its result, is another process's (or waits for one), or is now
        ours."""
        state: Literal["done", "taken", "ours"] = "ours"
        with contextlib.ExitStack() as stack:
            if self.group.first:
                needed = [experiment.name] + ([experiment.after] if experiment.after else [])
                free = all(self._locked(stack, name) for name in needed)
                if self.result(experiment).exists():
                    self._check(experiment)
                    state = "done"
                elif not free:
                    state = "taken"
            # all processes of a group do what its first one found
            if self.group.any(state == "done"):
                state = "done"
            elif self.group.any(state == "taken"):
                state = "taken"
            yield state

    def _check(self, experiment: Experiment) -> None:
        """A result that is there must be of this plan: numbers of two plans in one figure would be
        compared wrongly."""
        path = self.result(experiment)
        found = read_result(path)
        wanted = {
            "config": experiment.config,
            "iterations": experiment.iterations,
            "seed": experiment.seed,
            "scheme": experiment.scheme,
            "profile": self.profile.name,
            "batch": self.profile.batch,
        }
        for name, value in wanted.items():
            if getattr(found, name) != value:
                raise CaffeCompatError(
                    f"{path}: was made with another {name} ({getattr(found, name)}) than this "
                    f"plan's ({value}); give another --work or --results, or remove it to make it "
                    "again"
                )

    def _locked(self, stack: contextlib.ExitStack, name: str) -> bool:
        """Hold an experiment's lock until the stack ends, or until the process does.

        The lock is not that of the experiment's folder, which whatever writes there may hold.
        """
        try:
            stack.enter_context(hold(self.work / f"{name}-plan"))
        except Taken:
            return False
        return True

    def _one(self, experiment: Experiment, records: Path) -> bool:
        if experiment.kind == "pose-machine":
            if self.group.first:
                self._pose_machine(experiment, records)
            self.group.any(False)
            return True
        folder = self.work / experiment.name
        suffixes = self._write(experiment, folder, records)
        histograms: dict[str, Any] = {}
        for number, suffix in enumerate(suffixes):
            if not self._train(experiment, folder, suffix, suffixes[:number], histograms):
                return False
        if self.group.first:
            self._finish(experiment, folder, suffixes[-1], histograms)
        self.group.any(False)
        return True

    def _pose_machine(self, experiment: Experiment, records: Path) -> None:
        from importlib.util import find_spec

        from reproduce.experiments import pose_machine

        if find_spec("sklearn") is None:
            self.say(
                "the Pose Machine is left out: it needs scikit-learn (pip install scikit-learn)"
            )
            return
        size = experiment.config.input_size
        config = replace(self.profile.baseline, stages=experiment.config.stages)
        start = time.monotonic()
        machine = pose_machine.PoseMachine(config, experiment.config.parts)
        machine.fit(
            pose_machine.training_samples(records, size, config.images), experiment.seed, self.say
        )
        predictor = pose_machine.PoseMachinePredictor(machine, self._protocol.at(size))
        self._test(
            experiment,
            predictor,
            {
                "machine": asdict(config),
                "final_losses": {},
                "seconds": round(time.monotonic() - start),
            },
        )

    def _write(self, experiment: Experiment, folder: Path, records: Path) -> list[str]:
        """The definitions; their suffixes in the order of training."""
        from caffe_compat.definition import textformat

        profile, config = self.profile, experiment.config
        released = DEMO.at(config.input_size)
        data = netgen.DataConfig(
            source=os.path.relpath(records, folder),
            batch_size=self._batch,
            target_dist=round(released.target_dist, 5),
            sigma_center=round(released.sigma, 4),
        )
        nets = netgen.plan(config, data, experiment.scheme)
        if self.group.first:
            (folder / "snap").mkdir(parents=True, exist_ok=True)
            for suffix, net in nets.items():
                _keep(folder / f"pose_train_test{suffix}.prototxt", net.to_text())
                solver = netgen.solver(
                    f"pose_train_test{suffix}.prototxt",
                    f"snap/pose{suffix}",
                    **{
                        "max_iter": experiment.iterations,
                        "snapshot": profile.snapshot,
                        "display": _DISPLAY,
                        "average_loss": _DISPLAY,
                        "random_seed": experiment.seed,
                        **profile.solver,
                    },
                )
                _keep(folder / f"pose_solver{suffix}.prototxt", textformat.dump(solver.message))
        self.group.any(False)
        return list(nets)

    def _train(
        self,
        experiment: Experiment,
        folder: Path,
        suffix: str,
        before: list[str],
        histograms: dict[str, Any],
    ) -> bool:
        """Run one of an experiment's trainings, or go on with it; False when it was interrupted.

        Parameters
        ----------
        folder : of the experiment.
        suffix : of the training's files.
        before : suffixes of the trainings before it; the last one's weights are taken.
        histograms : takes the gradients' histograms, by iteration.
        """
        from caffe_compat import read_weights
        from reproduce.samples.schedule import Order
        from reproduce.train import run

        spec = read_solver(folder / f"pose_solver{suffix}.prototxt")
        final = folder / "snap" / _model(suffix, experiment.iterations)
        gradients = folder / "gradients.json"
        if gradients.exists():
            histograms.update(read_json(gradients, "file of gradients' histograms"))
        if final.exists():
            return True
        weights = None
        if before:
            weights = read_weights(folder / "snap" / _model(before[-1], experiment.iterations))
        elif experiment.after:
            weights = read_weights(self.weights_of(experiment.after))
        group = self.group
        options = run.Options(
            workers=self.workers,
            device=group.device,
            amp=self.amp,
            warmup=min(self.profile.warmup, experiment.iterations),
            order=Order(
                shuffle=True, dice="numpy", seed=experiment.seed, rank=group.rank, world=group.world
            ),
        )
        solver = run.make_solver(spec, folder, options, weights)
        state = run.latest(folder / "snap" / f"pose{suffix}")
        if state is not None:
            solver.restore(state)
            self.say(f"going on from {state.name}")
        solver.wrap(group.wrap)
        if experiment.scheme != "stage-wise":  # Figure 5 asks for any of the others
            _keep_gradients(solver, experiment.iterations, histograms, gradients)
        with open_to_append(folder / "snap" / f"pose{suffix}_log.jsonl") as log:
            return run.run(solver, log=log if group.first else None, say=self.say, group=group)

    def weights_of(self, name: str) -> Path:
        """The final weights of an experiment that ran here.

        Raises
        ------
        CaffeCompatError : it did not, or its folder is gone.
        """
        folder, measured = self.work / name / "snap", self.results / f"{name}.json"
        if measured.exists():
            earlier = read_result(measured)
            scheme = cast("netgen.Scheme", earlier.scheme)
            *_, suffix = netgen.plan(earlier.config, netgen.DataConfig(), scheme)
            final = folder / _model(suffix, earlier.iterations)
            if final.exists():
                return final
        raise CaffeCompatError(
            f"{folder}: the final weights of this experiment are needed and not there; run it first"
        )

    def _finish(
        self, experiment: Experiment, folder: Path, suffix: str, histograms: dict[str, Any]
    ) -> None:
        """Test the last snapshot and the one before it, and write the result."""
        model = folder / "snap" / _model(suffix, experiment.iterations)
        files = sorted((folder / "snap").glob("pose*_log.jsonl"))
        found = {path.name: logs.read_log(path) for path in files}
        last = found[f"pose{suffix}_log.jsonl"]
        course = {one["iteration"]: round(one["loss"], 4) for one in last}
        more: dict[str, Any] = {
            "final_losses": last[-1]["losses"],
            "seconds": round(
                sum(
                    logs.seconds(log, self.profile.batch, experiment.iterations)
                    for log in found.values()
                )
            ),
            "course": sorted(course.items())[:: max(1, len(course) // 40)],
            "gradients": histograms,
        }
        before = experiment.iterations - self.profile.snapshot
        earlier = folder / "snap" / _model(suffix, before)
        if earlier.exists():
            score = self._score(self._predictor(earlier))[0]
            more["earlier"] = {"iteration": before, "total": score.total.tolist()}
        self._test(experiment, self._predictor(model), more)

    def _predictor(self, model: Path) -> Predictor:
        from reproduce.predict.predictor import Predictor

        return Predictor.load(str(model), device=self.device, protocol=self._protocol)

    @cached_property
    def _benchmark(self) -> Benchmark:
        """What the networks are tested on."""
        from reproduce.benchmarks.lsp import Lsp

        return Lsp(self.data)

    @property
    def _protocol(self) -> Protocol:
        """The benchmark's protocol with the profile's scales."""
        return self._benchmark.protocol.searching(self.profile.search)

    def _test(self, experiment: Experiment, predictor: Predictor, more: dict[str, Any]) -> None:
        """Score LSP's test people by the protocol, and write the result's file."""
        result, predicted = self._score(predictor)
        people = np.arange(len(predicted))
        content = {
            "experiment": experiment.name,
            "profile": self.profile.name,
            "scheme": experiment.scheme,
            "after": experiment.after,
            "config": asdict(experiment.config),
            "iterations": experiment.iterations,
            "batch": self.profile.batch,
            "seed": experiment.seed,
            "records": self._record_count,
            "people": len(predicted),
            "search": list(self.profile.search),
            "thresholds": result.thresholds.tolist(),
            "total": result.total.tolist(),
            "table": self._benchmark.table(result),
            "hits_of_people": {
                str(t): self._benchmark.hits_of_people(predicted, t, people).tolist()
                for t in (0.1, 0.2)
            },
            **more,
            "provenance": self._provenance(experiment),
        }
        write_text(self.result(experiment), _json(content))
        score = result.total[result.at(0.2)]
        self.say(f"{experiment.name}: PCK@0.2 {score:.2f} on {len(predicted)} people")

    def _score(self, predictor: Predictor) -> tuple[measures.EvalResult, measures.Floats]:
        """PCK of the benchmark's first people, and the predictions (N, J, 2): N people, J
        joints."""
        from reproduce.benchmarks.benchmark_run import jobs_of
        from reproduce.predict.job import prepare
        from reproduce.runtime.prefetch import prefetch

        people = self._benchmark.people()[: self.profile.tested]
        jobs = jobs_of(predictor, self._benchmark, people)
        joints = []
        with progress(len(jobs), "people tested", shown=self.group.first) as bar:
            for job in prefetch(prepare, jobs, self.workers if len(jobs) > 50 else 0):
                (found,) = predictor.predict_job(job)
                joints.append(self._benchmark.to_file(found.joints, predictor.skeleton))
                bar.update()
        predicted = np.stack(joints)
        return self._benchmark.score(predicted, people=np.arange(len(predicted))), predicted

    def _provenance(self, experiment: Experiment) -> dict[str, Any]:
        import torch

        return provenance(
            f"cpm-reproduce {self.command}",
            f"LSP 1-1000 and LSPET, {self._record_count} people in the records",
            torch=torch.__version__,
            device=torch.cuda.get_device_name(self.device)
            if self.device.startswith("cuda")
            else self.device,
            processes=self.group.world,
            threads=torch.get_num_threads(),
            solver=self.profile.solver,
            amp=self.amp if experiment.kind == "network" else "",
        )


def _keep_gradients(
    solver: Solver, iterations: int, histograms: dict[str, Any], path: Path
) -> None:
    """Let a solver put histograms of its gradients into ``histograms``, and into a file, at some
    moments of its training."""
    moments = {max(0, round(mark * iterations) - 1) for mark in MARKS}

    def look(iteration: int, found: Iterator[tuple[str, Any]]) -> None:
        if iteration in moments:
            histograms[str(iteration)] = {name: _magnitudes(g) for name, g in found}
            write_json(path, histograms, indent=None)

    solver.on_gradients = look


def _magnitudes(gradient: Any) -> list[int]:
    """Histogram of log10 |g| over :data:`BINS`; the first and the last bin have what lies beyond
    them, zeros too."""
    values = np.log10(np.abs(gradient.float().cpu().numpy()) + 1e-30)
    values = values.clip(BINS[0], BINS[-1])
    return [int(n) for n in np.histogram(values, BINS)[0]]


def _json(content: Mapping[str, Any]) -> str:
    """A line for each entry: readable, and lists of numbers do not fill the screen."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, Mapping) and value:
            inner = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            text = "{\n" + ",\n".join(inner) + "\n }"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _model(suffix: str, iteration: int) -> str:
    """File name of a training's weights at an iteration."""
    return f"pose{suffix}_iter_{iteration}.caffemodel"


def _keep(path: Path, text: str) -> None:
    """Write a definition; one that is there already must be the same, but for the part of the batch
    that each process takes: another number of processes goes on with the same samples."""

    def without_batch(text: str) -> str:
        return re.sub(r"\bbatch_size: \d+", "", text)

    if path.exists() and without_batch(path.read_text(encoding="utf-8")) != without_batch(text):
        raise CaffeCompatError(
            f"{path}: this training was begun with other settings; give another --work, or "
            f"remove {path.parent} to begin anew"
        )
    write_text(path, text)
