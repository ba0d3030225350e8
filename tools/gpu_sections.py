"""The sections of ``measure_gpu.py``: each puts what it measures into :attr:`gpu_run.Run.found`."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_forward import NETWORKS
from bench_predict import made_up
from bench_train import Fixed
from gpu_run import PRECISIONS, OutOfTimeError, Run, allow_tf32, first_line, precise

from caffe_compat import Net
from caffe_compat.errors import CaffeCompatError
from caffe_compat.training.solver import Solver
from reproduce.benchmarks.benchmark_run import jobs_of
from reproduce.benchmarks.lsp import Lsp
from reproduce.experiments import plans
from reproduce.network import netgen
from reproduce.network.identify import embedded
from reproduce.predict.job import prepare
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import PROTOCOLS
from reproduce.runtime.prefetch import prefetch

ROOT = Path(__file__).resolve().parent.parent
_ENDING = 60  # seconds that an interrupted program has to write what it made


def golden(run: Run) -> None:
    """The tests marked gpu: recorded layers forward and backward, recorded networks."""
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}"]
        environment = {**os.environ, "CPM_TEST_DEVICE": run.device}
        if run.golden is not None:
            environment["CPM_GOLDEN"] = str(run.golden)
        ended = until_time_is_over(
            [*command, *run.sizes.golden, *marked], run.out / "golden.log", run.left, environment
        )
        if not report.exists():
            raise CaffeCompatError(f"pytest wrote no report: see {run.out / 'golden.log'}")
        run.found.update(counted(ElementTree.parse(report).getroot()))
    found = {key: run.found[key] for key in ("passed", "failed")}
    run.say(f"  {found['passed']} passed, {found['failed']} failed")
    if ended is None:
        raise OutOfTimeError("not all recorded cases were compared")
    if not any(found.values()):
        raise CaffeCompatError("no recorded case was compared: are they there (--golden)?")
    if found["failed"]:
        raise CaffeCompatError(f"{found['failed']} recorded cases differ: see 'failures'")


def until_time_is_over(
    command: Sequence[str], log: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> int | None:
    """Run a program; where it takes longer, interrupt it as Ctrl-C does, and let it end.

    Returns
    -------
    Its exit code; None where it was interrupted.
    """
    with log.open("a") as stream:
        program = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            return program.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGINT)
        try:
            program.wait(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        return None


def counted(report: ElementTree.Element) -> dict[str, Any]:
    """Numbers of a JUnit report, with the first line of each failure and the reasons of skips."""
    failures: dict[str, str] = {}
    skipped: dict[str, int] = {}
    cases = list(report.iter("testcase"))
    for case in cases:
        for kind in ("failure", "error"):
            for one in case.findall(kind):
                first = (one.get("message") or "").strip().splitlines()
                failures[f"{case.get('classname')}::{case.get('name')}"] = first[0] if first else ""
        for one in case.findall("skipped"):
            reason = one.get("message") or ""
            skipped[reason] = skipped.get(reason, 0) + 1
    passed = len(cases) - len(failures) - sum(skipped.values())
    return {"passed": passed, "failed": len(failures), "skipped": skipped, "failures": failures}


def peak(run: Run) -> None:
    """Operations per second of a large matrix product in each precision."""
    n = run.sizes.gemm
    for precision in PRECISIONS:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        allow_tf32(precision == "tf32")
        a, b = (torch.randn(n, n, device=run.device, dtype=kind) for _ in range(2))
        out = torch.empty(n, n, device=run.device, dtype=kind)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, b, out=out)

        run.found[precision] = 2.0 * n**3 / run.seconds(product, run.sizes.repeat)
        run.say(f"  {precision}: {run.found[precision] / 1e12:.3g} TFLOP/s, {n}×{n}")
        run.check_time()
    allow_tf32(False)


def forward(run: Run) -> None:
    """Every network, batch, precision and way; the quick ones first."""
    ways: tuple[tuple[str, Any], ...] = (
        ("eager", _eager),
        ("channels_last", _channels_last),
        ("graph", _graph),
        ("compile", _compiled),
    )
    for way, prepare_way in ways:
        if way == "graph" and run.device != "cuda":
            run.say("  graph: left out, CUDA graphs exist on CUDA alone")
            continue
        for model, make in NETWORKS.items():
            changes = dict(run.sizes.networks[model])
            net = Net(netgen.deploy(make(filler="msra", **changes)), seed=3).to(run.device).eval()
            operations = plans.operations_of(net.graph)
            for batch in run.sizes.batches:
                shape = (batch, *net.graph.blobs[net.graph.inputs[0]][1:])
                generator = torch.Generator().manual_seed(0)
                x = (torch.randn(shape, generator=generator) * 0.3).to(run.device)
                exact = _last(net, x, "fp32", run.device)
                for precision in PRECISIONS:
                    name = f"{model} batch {batch} {precision} {way}"
                    run.check_time()
                    try:
                        call = prepare_way(run, net, x, precision)
                        seconds, error = _timed(run, call, exact)
                    except Exception as problem:  # one way that fails leaves the others
                        run.found[name] = {"failed": first_line(problem)}
                        run.say(f"  {name}: failed: {first_line(problem)}")
                        continue
                    run.found[name] = {
                        "seconds": seconds,
                        "images_per_s": batch / seconds,
                        **_speed(run, precision, batch * operations / seconds),
                        "difference_of_largest": error,
                    }
                    run.say(f"  {name}: {seconds * 1e3:.2f} ms, {batch / seconds:.1f} images/s")
            del net


def _speed(run: Run, precision: str, speed: float) -> dict[str, float | None]:
    """Operations per second, and what part of the measured peak of this precision they are; None
    where no peak was measured."""
    peak_speed = run.before.get("peak", {}).get(precision)
    return {
        "operations_per_s": speed,
        "of_peak": None if peak_speed is None else speed / peak_speed,
    }


def _timed(run: Run, call: Callable[[], torch.Tensor], exact: torch.Tensor) -> tuple[float, float]:
    """Seconds of a forward pass, and how far its maps are from the exact ones, as a fraction of
    their largest value."""
    found = call()
    run.synchronise()
    error = (found.float() - exact).abs().max() / exact.abs().max()
    return run.seconds(call, run.sizes.repeat), float(error)


def _last(net: Net, x: torch.Tensor, precision: str, device: str) -> torch.Tensor:
    """The last stage's maps."""
    net.tf32 = precision == "tf32"
    allow_tf32(net.tf32)
    name = net.graph.outputs[-1]
    with torch.no_grad(), precise(precision, device):
        return net(x, blobs=[name])[name]


def _eager(run: Run, net: Net, x: torch.Tensor, precision: str) -> Callable[[], torch.Tensor]:
    net.to(memory_format=torch.contiguous_format)
    return lambda: _last(net, x, precision, run.device)


def _channels_last(
    run: Run, net: Net, x: torch.Tensor, precision: str
) -> Callable[[], torch.Tensor]:
    net.to(memory_format=torch.channels_last)
    y = x.contiguous(memory_format=torch.channels_last)
    return lambda: _last(net, y, precision, run.device)


def _graph(run: Run, net: Net, x: torch.Tensor, precision: str) -> Callable[[], torch.Tensor]:
    """The kernels recorded once and replayed; on channels-last tensors."""
    eager = _channels_last(run, net, x, precision)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            eager()
    torch.cuda.current_stream().wait_stream(stream)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        out = eager()

    def replay() -> torch.Tensor:
        recorded.replay()
        return out

    return replay


def _compiled(run: Run, net: Net, x: torch.Tensor, precision: str) -> Callable[[], torch.Tensor]:
    """The network as one exported graph, compiled: its own Python would break into many graphs."""
    net.to(memory_format=torch.channels_last)
    y = x.contiguous(memory_format=torch.channels_last)
    torch.compiler.reset()
    with torch.no_grad():
        exported = torch.export.export(net, (y,)).module()
    compiled = torch.compile(exported, backend=run.sizes.compiler, dynamic=False)
    name = net.graph.outputs[-1]

    def call() -> torch.Tensor:
        allow_tf32(precision == "tf32")
        with torch.no_grad(), precise(precision, run.device):
            return compiled(y)[name]

    return call


def protocol(run: Run) -> None:
    """LSP's protocol with the released 6-stage network: files to joints, in people per second."""
    changes = dict(run.sizes.networks["cpm"])
    net = Net(netgen.deploy(netgen.cpm(filler="msra", **changes)), seed=3).to(run.device).eval()
    rules = PROTOCOLS["lsp"].at(net.graph.blobs[net.graph.inputs[0]][-1])
    with tempfile.TemporaryDirectory() as name:
        if run.data is not None:
            found = [path for path, _ in Lsp(run.data).people() if path.exists()]
            paths, run.found["pictures"] = found[: run.sizes.people], "LSP test pictures"
        else:
            paths = made_up(Path(name), run.sizes.people)
            run.found["pictures"] = "made up, of LSP's size"
        run.found["people"] = len(paths)
        for precision in PRECISIONS:
            net.tf32 = precision == "tf32"
            predictor = Predictor(
                net, net.graph.outputs[-1:], rules, batch=28, amp="bf16" * (precision == "bf16")
            )
            jobs = [predictor.job(str(path), path) for path in paths]
            predictor.predict_job(prepare(jobs[0]))
            run.synchronise()
            start, done = time.perf_counter(), 0
            for job in prefetch(prepare, jobs, run.sizes.workers):
                predictor.predict_job(job)
                done += 1
                if run.left <= 0:
                    break
            run.found[precision] = {"people_per_s": done / (time.perf_counter() - start)}
            run.say(f"  {precision}: {run.found[precision]['people_per_s']:.2f} people/s")
            run.check_time()


def training_step(run: Run) -> None:
    """A step of Caffe's solver, forward, backward and update.

    Its operations are taken to be three times those of the forward pass: the gradients of inputs
    and of weights are as many each. (The first layers need no gradient of their input: the real
    number is a little smaller.)
    """
    config = netgen.CPMConfig(filler="msra", dropout=0, **run.sizes.step)
    batch, size = run.sizes.step_batch, config.input_size
    rng = np.random.default_rng(0)
    data = rng.standard_normal((batch, 4, size, size), np.float32) * np.float32(0.3)
    label = rng.random((batch, 2 * config.maps, size // 8, size // 8), np.float32)
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as name:
            definition = netgen.train_test(config, netgen.DataConfig(batch_size=batch))
            (Path(name) / "net.prototxt").write_text(definition.to_text())
            spec = netgen.solver(net="net.prototxt", base_lr=1e-8, solver_mode=None)
            solver = Solver(
                spec,
                root=name,
                sources={"data": Fixed(data, label * np.float32(0.1))},
                device=run.device,
                amp="bf16" * (precision == "bf16"),
            )
        solver.net.tf32 = precision == "tf32"
        allow_tf32(solver.net.tf32)
        if run.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = run.seconds(solver.step, run.sizes.repeat)
        operations = 3 * plans.operations_of(solver.net.graph) * batch
        one: dict[str, Any] = {
            "seconds": seconds,
            "samples_per_s": batch / seconds,
            **_speed(run, precision, operations / seconds),
        }
        if run.device == "cuda":
            one["peak_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        run.found[precision] = one
        run.say(f"  {precision}: {seconds:.3f} s, {batch / seconds:.1f} samples/s")
        run.check_time()
    allow_tf32(False)


def bf16_cost(run: Run) -> None:
    """PCK of the embedded model in every precision, and how far its joints move."""
    if run.data is None:
        raise CaffeCompatError("needs people with known joints: --data FILE (see --pack)")
    benchmark = Lsp(run.data)
    places = [i for i, (path, _) in enumerate(benchmark.people()) if path.exists()]
    places = places[: run.sizes.people]
    people = [benchmark.people()[i] for i in places]
    joints: dict[str, np.ndarray] = {}
    for precision in PRECISIONS:
        predictor = Predictor.load(
            str(embedded()),
            device=run.device,
            protocol=benchmark.protocol,
            amp="bf16" * (precision == "bf16"),
        )
        predictor.net.tf32 = precision == "tf32"
        found = []
        for job in prefetch(prepare, jobs_of(predictor, benchmark, people), run.sizes.workers):
            (one,) = predictor.predict_job(job)
            found.append(benchmark.to_file(one.joints, predictor.skeleton))
            run.check_time()
        joints[precision] = np.stack(found)
        score = benchmark.score(joints[precision], people=np.array(places))
        moved = np.linalg.norm(joints[precision] - joints["fp32"], axis=2)
        run.found[precision] = {
            "pck_0.1": float(score.total[score.at(0.1)]),
            "pck_0.2": float(score.total[score.at(0.2)]),
            "moved_share": float(np.nanmean(moved > 0)),
            "moved_pixels_mean": float(np.nanmean(moved)),
            "moved_pixels_most": float(np.nanmax(moved)),
        }
        run.say(
            f"  {precision}: PCK@0.2 {run.found[precision]['pck_0.2']:.2f}, {len(people)} people"
        )
    run.found["people"] = len(people)


def first_iterations(run: Run) -> None:
    """The ``paper`` profile's training by the command that anybody would use, until the time is
    over; it can be gone on with."""
    if run.data is None or run.records is None:
        raise CaffeCompatError("needs training records: --data FILE (see --pack)")
    work = run.out / "work"
    folder = work / run.sizes.profile
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "leeds.lmdb").exists():
        (folder / "leeds.lmdb").symlink_to(run.records.resolve())
    experiment = "joint-3"
    command = [sys.executable, "-m", "reproduce.cli.reproduce", "fig6"]
    command += ["--profile", run.sizes.profile, "--only", experiment, "--train-only"]
    command += ["--data", str(run.data), "--work", str(work), "--device", run.device]
    command += ["--workers", str(max(1, run.sizes.workers))]
    # interrupted, it writes a snapshot, which takes some time itself
    code = until_time_is_over(command, run.out / "training.log", run.left - _ENDING / 2)
    lines = [
        json.loads(line)
        for path in sorted((folder / experiment / "snap").glob("*_log.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    ended = "interrupted: the same call goes on" if code is None else f"exit code {code}"
    run.found.update(profile=run.sizes.profile, experiment=experiment, ended=ended)
    if lines:
        speeds = [one["speed"] for one in lines]
        run.found.update(
            iteration_of_last_line=lines[-1]["iteration"],
            first_loss=lines[0]["loss"],
            last_loss=lines[-1]["loss"],
            samples_per_s=statistics.median(speeds),
        )
        run.say(f"  iteration {lines[-1]['iteration']}, loss {lines[-1]['loss']:.4g}")
    if code:
        raise CaffeCompatError(f"the training failed ({ended}): see training.log")
    if not lines:
        raise CaffeCompatError(f"no line of progress came ({ended}): see training.log")


@dataclass(frozen=True)
class Section:
    """A part of the measurement.

    Attributes
    ----------
    work : does it, and puts what it finds into :attr:`Run.found`.
    share : of the whole time, at most.
    """

    work: Callable[[Run], None]
    share: float


# the last one takes all the time that is left
SECTIONS = {
    "golden": Section(golden, 0.15),
    "peak": Section(peak, 0.03),
    "forward": Section(forward, 0.35),
    "protocol": Section(protocol, 0.10),
    "training_step": Section(training_step, 0.10),
    "bf16_cost": Section(bf16_cost, 0.07),
    "first_iterations": Section(first_iterations, 1.0),
}
