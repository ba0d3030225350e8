"""Where nets run (CPU or GPU), the seed of what is random, messages."""

from __future__ import annotations

import logging
import time

import torch

from caffe_compat.errors import CaffeCompatError
from caffe_compat.training.draws import Draws

_device = "cpu"
_number = 0
_draws = Draws()
_LOG = logging.getLogger("caffe")
_SEVERAL = "a script trains in one process, cpm-train under torchrun in several"


def set_mode_cpu() -> None:
    """Nets and solvers made from now on run on the CPU."""
    global _device
    _device = "cpu"


def set_mode_gpu() -> None:
    """Nets and solvers made from now on run on the GPU of :func:`set_device`.

    Raises
    ------
    CaffeCompatError : torch finds no GPU.
    """
    global _device
    if not torch.cuda.is_available():
        raise CaffeCompatError(
            "set_mode_gpu: torch finds no GPU here; leave it out or call set_mode_cpu"
        )
    _device = f"cuda:{_number}"


def set_device(number: int) -> None:
    """Which GPU :func:`set_mode_gpu` means."""
    global _number, _device
    _number = number
    if _device != "cpu":
        _device = f"cuda:{number}"


def set_random_seed(seed: int) -> None:
    """Seed of what is random in a forward pass: dropout, and the crops, mirrors and orders of data
    layers made from now on, which are then Caffe's own."""
    global _draws
    torch.manual_seed(seed)
    _draws = Draws(seed)


def current_draws() -> Draws:
    """The generator that data layers made from now on take their seeds from."""
    return _draws


def current_device() -> str:
    """torch's name of the device that nets and solvers made from now on run on."""
    return _device


# ------------------------------------------------------------ what Caffe's library says of itself


def layer_type_list() -> list[str]:
    """All types of layers that definitions may name."""
    from caffe_compat.layers import registry

    return list(registry())


def has_nccl() -> bool:
    """Can Caffe's own training on several GPUs be used? No: that is ``torchrun`` and
    ``cpm-train``."""
    return False


def init_log(level: int = 0, stderr: bool = False) -> None:
    """From which level on messages are shown: 0 information, 1 warnings, 2 errors.

    Parameters
    ----------
    stderr : kept for scripts that give it; messages always go to stderr.
    """
    _LOG.setLevel((logging.INFO, logging.WARNING, logging.ERROR)[min(max(level, 0), 2)])
    if not _LOG.handlers:
        _LOG.addHandler(logging.StreamHandler())


def log(message: str) -> None:
    """Write a message as Caffe's library would, of level "information"."""
    _LOG.info(message)


def set_logging_disabled(disabled: bool = True) -> None:
    """Write no messages at all."""
    _LOG.disabled = disabled


def solver_count() -> int:
    """How many solvers train together in this process: one."""
    return 1


def solver_rank() -> int:
    """Which of the solvers that train together this process is: the first."""
    return 0


def set_solver_count(count: int) -> None:
    """How many solvers train together: one.

    Raises
    ------
    CaffeCompatError : more, or fewer.
    """
    if count != solver_count():
        raise CaffeCompatError(f"set_solver_count({count}): expected 1; {_SEVERAL}")


def set_solver_rank(rank: int) -> None:
    """Which of the solvers that train together this process is: the first.

    Raises
    ------
    CaffeCompatError : another one.
    """
    if rank != solver_rank():
        raise CaffeCompatError(f"set_solver_rank({rank}): expected 0; {_SEVERAL}")


def set_multiprocess(several: bool) -> None:
    """Do several processes train together? No.

    Raises
    ------
    CaffeCompatError : they should.
    """
    if several:
        raise CaffeCompatError(f"set_multiprocess({several}): expected False; {_SEVERAL}")


class Timer:
    """Measures how long something takes."""

    def __init__(self) -> None:
        self._begin = self._end = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._begin, self._end = time.perf_counter(), 0.0

    def stop(self) -> None:
        """End."""
        self._end = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds from start to stop (to now, if it has not been stopped)."""
        return ((self._end or time.perf_counter()) - self._begin) * 1e3
