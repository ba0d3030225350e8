"""Several processes as ``torchrun`` starts them: torch's own process groups and
DistributedDataParallel."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Group:
    """This process among all.

    Attributes
    ----------
    rank, world : number of this process and of all; 0 of 1 without torchrun.
    device : where it computes.
    """

    rank: int
    world: int
    device: str

    @property
    def first(self) -> bool:
        """Is this the process that writes files and speaks?"""
        return self.rank == 0

    def wrap(self, module: Any) -> Any:
        """DistributedDataParallel where there are several processes: gradients are averaged."""
        if self.world == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        # A 1×1 kernel's gradient is laid out in one of two ways that mean the same, which torch
        # takes for a slow copy and warns of; there is nothing that a reader could do about it.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(module)

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        return self._reduce(value) / self.world

    def any(self, flag: bool) -> bool:
        """Did any process raise its flag? All get the same answer."""
        return self._reduce(float(flag)) > 0

    def gather(self, value: _Value) -> list[_Value]:
        """The values of all processes, in order of their numbers; all get the same list."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def _reduce(self, value: float) -> float:
        if self.world == 1:
            return value
        import torch
        import torch.distributed as dist

        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor)


def is_first() -> bool:
    """Is this the first of torchrun's processes, or the only one? Nothing is joined to tell it."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def group(device: str) -> Iterator[Group]:
    """Join the group that torchrun's environment describes (NCCL on GPUs, gloo on the CPU), and
    leave it at the end."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world == 1:
        yield Group(0, 1, device)
        return
    import torch
    import torch.distributed as dist

    # Its functions take the group of all as a default value. Imported later, by
    # DistributedDataParallel, they would keep that group, and gloo's threads, beyond the end:
    # now and then such a thread aborts a process that is done.
    import torch.distributed.nn

    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Group(rank, world, device)
        # all leave together: gloo's threads abort a process whose partner is gone already
        dist.barrier()
        # they may still hold Python's objects of that barrier; who takes the group away now would
        # wait for them while they wait for Python
        time.sleep(_CALM)
    finally:
        dist.destroy_process_group()


_CALM = 0.5  # seconds; the threads need a few thousandths, and more on a busy machine
_LOOK = 1.0  # seconds between two looks whether the parent lives


def usable_cores() -> int:
    """How many cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent(parent: int | None = None, *, gently: bool = False) -> None:
    """Let this process end soon after the process that started it, however that ended.

    A worker whose parent was killed would otherwise wait for ever for somebody to take its results.

    Parameters
    ----------
    parent : number of that process; default: the one that is the parent now.
    gently : end as by SIGTERM, so that a training writes its snapshot first.
    """
    expected = os.getppid() if parent is None else parent
    # it may have ended before this process came so far; multiprocessing knows
    known = multiprocessing.parent_process()

    def watch() -> None:
        while os.getppid() == expected and (known is None or known.is_alive()):
            time.sleep(_LOOK)
        if gently:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
