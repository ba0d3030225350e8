"""The work on a layer in pieces that several threads take one after the other.

torch shares each single operation out among its threads, and all of them wait for the slowest one
at its end. Where a layer is hundreds of small products, the waiting costs more than it brings as
soon as another program has one of the cores. Here a thread takes a whole piece of the layer, runs
its products alone and takes the next one: they wait for each other once a layer, and a thread with
less of a core takes fewer pieces.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")
# With more cores than these torch shares out the operations itself.
MOST_CORES = 4
BAND = 1_000_000  # values that are made at once: a band of them stays in a core's cache


class _Pool:
    """Threads on each of which torch uses one core, made when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0

    def start(self, work: Callable[[], object], count: int) -> list[Future[object]]:
        """Begin the same work on so many threads.

        A pool that is too small makes way for a larger one and ends when its work is done. Nobody
        else may begin something in it meanwhile, hence the lock.
        """
        with self._lock:
            if self._executor is None or self._size < count:
                if self._executor is not None:
                    self._executor.shutdown(wait=False)
                self._executor, self._size = self._made(count), count
            return [self._executor.submit(work) for _ in range(count)]

    def _made(self, size: int) -> ThreadPoolExecutor:
        """The threads, all of them started.

        torch keeps its number of threads for each thread, and besides the last one that was set,
        for threads to come: that one is brought back here.
        """
        before = torch.get_num_threads()
        executor = ThreadPoolExecutor(size, "convolution", _use_one_core)
        all_there = threading.Barrier(size + 1)
        for _ in range(size):
            executor.submit(all_there.wait)
        all_there.wait()
        torch.set_num_threads(before)
        return executor

    def forget(self) -> None:
        """After a fork there are no threads."""
        self.__init__()  # type: ignore[misc]


def _use_one_core() -> None:
    """torch uses one core in this thread from now on.

    The question comes first: with it torch gives a new thread its number, and else would do so
    later, in the first operation, over the one that is set here.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)


class _Here(threading.local):
    """What holds for the thread that asks."""

    whole = False


_here = _Here()
_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def sharing() -> bool:
    """Whether layers are worked on in pieces here.

    It was measured with few cores only. With many, the pieces of a small map would be too thin;
    torch then shares out each operation as it always does. Who exports, traces or counts the
    operations of this thread would see nothing of what others do.
    """
    watched = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )
    return not _here.whole and not watched and 1 < torch.get_num_threads() <= MOST_CORES


@contextlib.contextmanager
def whole_operations() -> Iterator[None]:
    """Nothing is worked on in pieces inside.

    The gradients of kernels are products over all tiles, which torch shares out; to go to and fro
    between both kinds of threads costs more than pieces bring.
    """
    before, _here.whole = _here.whole, True
    try:
        yield
    finally:
        _here.whole = before


def for_each(
    pieces: Sequence[Piece], work: Callable[[Piece], object], cores: int | None = None
) -> None:
    """Do the work for each piece, a piece on each core. Records no gradients.

    The pieces are begun in their order; two may be under way at once, so that none may need what
    another one gives. An error ends the work: pieces that no thread has begun are left out, and it
    is raised when the others have ended.

    Parameters
    ----------
    cores : at most so many, and no more than torch uses; default: all where layers are shared out,
        see :func:`sharing`, else one.
    """
    if cores is None and not sharing():
        cores = 1
    every = torch.get_num_threads()
    count = min(len(pieces), every if cores is None else min(cores, every))
    if not pieces:
        return
    if count < 2:
        with torch.no_grad():
            for piece in pieces:
                work(piece)
        return
    _in_pool(pieces, work, count)


def on_one_core(work: Callable[[], Result]) -> Result:
    """What some work gives that is too small for several cores and records no gradients.

    torch's own threads keep their cores busy for some milliseconds after each operation, in which
    they wait for the next one. Here they are not woken.
    """
    if not sharing():
        return work()
    found: list[Result] = []
    _in_pool([work], lambda piece: found.append(piece()), 1)
    return found[0]


def _in_pool(pieces: Iterable[Piece], work: Callable[[Piece], object], count: int) -> None:
    todo = deque(pieces)
    inference = torch.is_inference_mode_enabled()

    def take() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            while todo:
                try:
                    piece = todo.popleft()
                except IndexError:
                    return
                try:
                    work(piece)
                except BaseException:
                    todo.clear()
                    raise

    running = _pool.start(take, count)
    try:
        for one in running:
            one.result()
    finally:
        todo.clear()
        wait(running)


def bands(high: int, width: int) -> list[tuple[int, int]]:
    """Rows from the first one to before the last one of bands that stay in a core's cache, at
    least one for each core.

    Parameters
    ----------
    high : all rows.
    width : values of a row.
    """
    least = torch.get_num_threads() if sharing() else 1
    count = min(high, max(least, -(-high * width // BAND)))
    return list(pairwise(high * i // count for i in range(count + 1)))
