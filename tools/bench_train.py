"""A training step of the full-size network: ours (Caffe's solver), and a plain torch loop, in turn.

The peers are what people write: ``torch.nn.functional`` calls, squared errors, ``torch.optim.SGD``,
once in torch's default layout and once channels-last. Same weights, same batch; prints ratios, the
update's share of our step, and the machine.

    python tools/bench_train.py --json out/train.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_forward import machine, plain_stages

from caffe_compat.training.solver import Solver
from caffe_compat.training.sources import Batch
from reproduce.network import netgen


class Fixed:
    """A data source that gives the same batch for ever."""

    def __init__(self, data: np.ndarray, label: np.ndarray) -> None:
        self.arrays = data, label
        self.shapes = (data.shape, label.shape)

    def batch(self, number: int) -> Batch:
        return self.arrays


def plain_loop(
    solver: Solver, layout: torch.memory_format, data: torch.Tensor, label: torch.Tensor
) -> Callable[[], float]:
    """A training step without this project."""
    named = {f"{node.layer.name}.{param.name}": t for node, param, t in solver.net.owned_params()}
    weights = {}
    for name, t in named.items():
        form = layout if t.dim() == 4 else torch.contiguous_format
        weights[name] = torch.nn.Parameter(t.detach().clone().contiguous(memory_format=form))
    maps = label.shape[1] // 2
    optimizer = torch.optim.SGD(weights.values(), lr=1e-8, momentum=0.9, weight_decay=0.0005)
    data = data.contiguous(memory_format=layout)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        outputs = plain_stages(weights, data)
        labels = [label[:, maps:], *[label[:, :maps]] * (len(outputs) - 1)]
        loss = torch.stack(
            [((x - y) ** 2).sum() / (2 * len(x)) for x, y in zip(outputs, labels, strict=True)]
        ).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--size", type=int, default=368)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="", choices=["", "bf16"], help="Of our step.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = netgen.CPMConfig(
        stages=options.stages, input_size=options.size, filler="msra", dropout=0
    )
    cells = options.size // 8
    rng = np.random.default_rng(0)
    data = rng.standard_normal((options.batch, 4, options.size, options.size)).astype(
        np.float32
    ) * np.float32(0.3)
    label = rng.random((options.batch, 2 * (config.parts + 1), cells, cells)).astype(
        np.float32
    ) * np.float32(0.1)
    with tempfile.TemporaryDirectory() as name:
        net = netgen.train_test(config, netgen.DataConfig(batch_size=options.batch))
        (Path(name) / "net.prototxt").write_text(net.to_text())
        spec = netgen.solver(net="net.prototxt", base_lr=1e-8, solver_mode=None)
        sources = {"data": Fixed(data, label)}
        solver = Solver(spec, root=name, sources=sources, device=options.device, amp=options.amp)
    x, y = (torch.from_numpy(a).to(options.device) for a in (data, label))
    updates: list[float] = []
    update = solver._update

    def timed(rate: float) -> None:
        synchronise()
        start = time.perf_counter()
        update(rate)
        synchronise()
        updates.append(time.perf_counter() - start)

    def synchronise() -> None:
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    solver._update = timed  # type: ignore[method-assign]
    runs: dict[str, Callable[[], object]] = {
        "ours_step_s": solver.step,
        "torch_step_s": plain_loop(solver, torch.contiguous_format, x, y),
        "torch_channels_last_step_s": plain_loop(solver, torch.channels_last, x, y),
    }
    first = {name: run() for name, run in runs.items()}
    ours, theirs = first["ours_step_s"].loss, first["torch_step_s"]  # type: ignore[attr-defined]
    print(f"loss of the first step: ours {ours:.6g}, torch {theirs:.6g}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    updates.clear()
    for _ in range(options.repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            synchronise()
            times[name].append(time.perf_counter() - start)
    print(machine())
    print(
        f"{options.stages} stages, {options.size}x{options.size}, batch {options.batch}, "
        f"{options.device}"
    )
    print(f"{'step':28s} {'min':>8s} {'median':>8s} {'samples/s':>10s}   ours is")
    report: dict[str, object] = {"machine": machine()}
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        share = median["ours_step_s"] / median[name]
        speed = options.batch / median[name]
        print(
            f"{name[:-2]:28s} {min(values):8.3f} {median[name]:8.3f} {speed:10.2f}   "
            f"{share:.3f} of it"
        )
        report[name] = median[name]
    share = statistics.median(updates) / median["ours_step_s"]
    print(
        f"the update takes {statistics.median(updates) * 1e3:.1f} ms, {100 * share:.1f} % of "
        "our step"
    )
    report["update_share"] = share
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
