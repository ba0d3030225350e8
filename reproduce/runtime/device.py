"""The device that ``--device auto|cpu|cuda[:N]`` means."""

from __future__ import annotations

import re

from caffe_compat.errors import CaffeCompatError

_FORM = re.compile("auto|cpu|cuda(:[0-9]{1,3})?")


def check_name(name: str) -> None:
    """Refuse what no machine has.

    Raises
    ------
    CaffeCompatError : says what is expected.
    """
    if not _FORM.fullmatch(name):
        raise CaffeCompatError(f"--device {name}: expected auto, cpu, cuda or cuda:N")


def choose(name: str) -> str:
    """A torch device name.

    Raises
    ------
    CaffeCompatError : unknown name, or CUDA asked for and not there.
    """
    check_name(name)
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise CaffeCompatError(
            f"--device {name}: there is no such GPU here ({torch.cuda.device_count()} found)"
        )
    return name
