"""The device that ``--device auto|cpu|cuda[:N]`` means."""

from __future__ import annotations

from caffe_compat.errors import CaffeCompatError


def choose(name: str) -> str:
    """A torch device name.

    Raises
    ------
    CaffeCompatError : unknown name, or CUDA asked for and not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise CaffeCompatError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise CaffeCompatError(
            f"--device {name}: there is no such GPU here ({torch.cuda.device_count()} found)"
        )
    return name
