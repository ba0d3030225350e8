"""Where nets run (CPU or GPU), and the seed of what is random."""

from __future__ import annotations

import torch

from caffe_compat.errors import CaffeCompatError
from caffe_compat.training.draws import Draws

_device = "cpu"
_number = 0
_draws = Draws()


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
