"""A training step of the full-size network: ours (Caffe's solver), and a plain torch loop, in turn.

The peers are what people write: ``torch.nn.functional`` calls, squared errors, ``torch.optim.SGD``,
once in torch's default layout and once channels-last. Same weights, same batch; prints ratios, the
update's share of our step, and the machine.

    python tools/bench_train.py --json out/train.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_forward import plain_stages
from timing import in_turn, keep, machine, medians, network_parser

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


def made_up(options: argparse.Namespace, maps: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of noise: images with centre maps, and labels of twice as many maps."""
    rng = np.random.default_rng(0)
    cells = options.size // 8
    data = rng.standard_normal((options.batch, 4, options.size, options.size)).astype(np.float32)
    label = rng.random((options.batch, 2 * maps, cells, cells)).astype(np.float32)
    return data * np.float32(0.3), label * np.float32(0.1)


def make_solver(
    config: netgen.CPMConfig, data: np.ndarray, label: np.ndarray, options: argparse.Namespace
) -> Solver:
    """Caffe's solver of a network that sees one batch for ever."""
    with tempfile.TemporaryDirectory() as folder:
        net = netgen.train_test(config, netgen.DataConfig(batch_size=options.batch))
        (Path(folder) / "net.prototxt").write_text(net.to_text())
        spec = netgen.solver(net="net.prototxt", base_lr=1e-8, solver_mode=None)
        sources = {"data": Fixed(data, label)}
        return Solver(spec, root=folder, sources=sources, device=options.device, amp=options.amp)


def synchronise(device: str) -> None:
    """Wait for what a GPU still computes."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def time_updates(solver: Solver, device: str) -> list[float]:
    """A list that gets the seconds of each update of the weights, from now on."""
    updates: list[float] = []
    update = solver._update

    def timed(rate: float) -> None:
        synchronise(device)
        start = time.perf_counter()
        update(rate)
        synchronise(device)
        updates.append(time.perf_counter() - start)

    solver._update = timed  # type: ignore[method-assign]
    return updates


@dataclass(frozen=True)
class Measured:
    """Seconds of the steps of each loop, and of the updates within ours."""

    times: dict[str, list[float]]
    updates: list[float]


def measure(options: argparse.Namespace) -> Measured:
    """A step of each loop, in turn; prints the losses of the first ones."""
    config = netgen.CPMConfig(
        stages=options.stages, input_size=options.size, filler="msra", dropout=0
    )
    data, label = made_up(options, config.parts + 1)
    solver = make_solver(config, data, label, options)
    updates = time_updates(solver, options.device)
    x, y = (torch.from_numpy(a).to(options.device) for a in (data, label))
    steps: dict[str, Callable[[], Any]] = {
        "ours_step_s": solver.step,
        "torch_step_s": plain_loop(solver, torch.contiguous_format, x, y),
        "torch_channels_last_step_s": plain_loop(solver, torch.channels_last, x, y),
    }

    def finished(step: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            step()
            synchronise(options.device)

        return run

    first = {name: step() for name, step in steps.items()}
    ours, theirs = first["ours_step_s"].loss, first["torch_step_s"]
    print(f"loss of the first step: ours {ours:.6g}, torch {theirs:.6g}")
    updates.clear()
    times = in_turn({name: finished(step) for name, step in steps.items()}, options.repeat)
    return Measured(times, updates)


def show(found: Measured, options: argparse.Namespace) -> None:
    """Print seconds and ratios, and keep them where a file was asked for."""
    print(machine())
    print(
        f"{options.stages} stages, {options.size}x{options.size}, batch {options.batch}, "
        f"{options.device}"
    )
    print(f"{'step':28s} {'min':>8s} {'median':>8s} {'samples/s':>10s}   ours is")
    median = medians(found.times)
    ours = median["ours_step_s"]
    for name, values in found.times.items():
        print(
            f"{name[:-2]:28s} {min(values):8.3f} {median[name]:8.3f} "
            f"{options.batch / median[name]:10.2f}   {ours / median[name]:.3f} of it"
        )
    update = statistics.median(found.updates)
    print(f"the update takes {update * 1e3:.1f} ms, {100 * update / ours:.1f} % of our step")
    keep(options.json, {"machine": machine(), **median, "update_share": update / ours})


def main() -> None:
    """Run the benchmark."""
    command = network_parser(__doc__, stages=3)
    command.add_argument("--batch", type=int, default=4)
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--device", default="cpu")
    command.add_argument("--amp", default="", choices=["", "bf16"], help="Of our step.")
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    show(measure(options), options)


if __name__ == "__main__":
    main()
