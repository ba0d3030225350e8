"""Work that runs ahead in other processes while the network computes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from reproduce.runtime.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


_AHEAD = 3  # jobs of each worker that are begun before anybody asks for their results


def prefetch(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """``work(job)`` for each job, in order, some jobs before they are asked for.

    Parameters
    ----------
    work : a function of a module.
    workers : processes; 0 works in this one.
    """
    if workers < 1:
        yield from map(work, jobs)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    # spawn: a fork of a process whose torch threads run can hang
    with contextlib.ExitStack() as stack:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_single)
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: deque[Future[Result]] = deque()
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _single() -> None:
    """A worker computes on one core and leaves an interruption to the main process."""
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    cv2.setNumThreads(1)
