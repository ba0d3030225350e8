"""Where nets run (CPU or GPU), and the seed of what is random."""

from __future__ import annotations

import torch

from caffe_compat.errors import CaffeCompatError

_device = "cpu"
_number = 0


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
    """Seed of what is random in a forward pass (dropout)."""
    torch.manual_seed(seed)


def current_device() -> str:
    """torch's name of the device that nets and solvers made from now on run on."""
    return _device
