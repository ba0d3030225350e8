"""What a section of ``measure_gpu.py`` works with: how large everything is, its time, its clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes
    ----------
    gemm : rows and columns of the matrices.
    batches : of the forward passes.
    networks : changes of each released network by its name in ``bench_forward``.
    repeat : passes that are timed.
    people : of the protocol and of bf16's cost.
    step_batch, step : batch and network of the training step.
    golden : further arguments of pytest.
    profile : of the training at the end.
    workers : processes that prepare pictures.
    compiler : backend of torch.compile.
    seconds : for everything.
    """

    gemm: int
    batches: Sequence[int]
    networks: Mapping[str, Mapping[str, Any]]
    repeat: int
    people: int
    step_batch: int
    step: dict[str, Any]
    golden: Sequence[str]
    profile: str
    workers: int
    compiler: str
    seconds: float


FULL = Sizes(
    gemm=8192,
    batches=(1, 7, 28),
    networks={"cpm": {}, "vgg": {}, "person": {}},
    repeat=20,
    people=200,
    step_batch=16,
    step={"stages": 3},
    golden=(),
    profile="paper",
    workers=8,
    compiler="inductor",
    seconds=1140,
)
_TINY = {"stages": 2, "input_size": 32, "wide": 8, "belief": 8}
_TINY_VGG = {**_TINY, "blocks": ((4, 1),) * 4, "front_convs": (8,)}
SMOKE = Sizes(
    gemm=128,
    batches=(2,),
    networks={
        "cpm": {**_TINY, "towers": (8, 8, 8)},
        "vgg": _TINY_VGG,
        "person": {**_TINY_VGG, "input_width": 64},
    },
    repeat=1,
    people=2,
    step_batch=2,
    step={**_TINY, "towers": (8, 8, 8)},
    golden=("-k", "layer_on_the_device and conv"),
    profile="smoke",
    workers=0,
    compiler="eager",
    seconds=300,
)


class OutOfTimeError(Exception):
    """A section's budget is used up."""


@dataclass
class Run:
    """What a section works with.

    Attributes
    ----------
    device : "cuda" or "cpu".
    sizes : how large everything is.
    out : folder of the results.
    data : folder with lsp/; None: pictures are made up.
    records : training records; None: none.
    golden : folder of the recorded cases; None: beside the checkout.
    say : writes a line of the log.
    until : ``time.monotonic()`` at which the section should end.
    found : what the section has measured so far: kept also where it fails or its time is over.
    before : what the sections before it measured.
    """

    device: str
    sizes: Sizes
    out: Path
    data: Path | None
    records: Path | None
    golden: Path | None
    say: Callable[[str], None]
    until: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds of the section's budget."""
        return self.until - time.monotonic()

    def check_time(self) -> None:
        """Raise :class:`OutOfTimeError` where nothing is left."""
        if self.left <= 0:
            raise OutOfTimeError("the section's time was over; what is missing was not measured")

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeat: int) -> float:
        """Median time of one call after two calls to warm up."""
        for _ in range(2):
            work()
        times = []
        for _ in range(repeat):
            self.synchronise()
            start = time.perf_counter()
            work()
            self.synchronise()
            times.append(time.perf_counter() - start)
            if self.left <= 0:
                break
        return statistics.median(times)


def precise(precision: str, device: str) -> AbstractContextManager[object]:
    """What a precision needs around a call; TF32 is a setting of its own (:func:`allow_tf32`)."""
    # each weight is used once in a pass, and a recorded graph must not meet a cache
    if precision == "bf16":
        return torch.autocast(device, torch.bfloat16, cache_enabled=False)
    return nullcontext()


def allow_tf32(allowed: bool) -> None:
    """Products of float32 numbers with 10 bits of fraction, where the device has them."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def first_line(problem: BaseException) -> str:
    """The first line of an error with its kind."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0][:300]}" if lines else type(problem).__name__
