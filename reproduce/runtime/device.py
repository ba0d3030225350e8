"""The device that ``--device auto|cpu|cuda[:N]`` means, and what it can compute with."""

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


def bf16_pays(device: str) -> bool:
    """Whether bfloat16 is faster than float32 there.

    A processor without instructions for it computes the same numbers many times more slowly. torch
    asks oneDNN; where it cannot be asked, it is taken to pay.
    """
    import torch

    if not device.startswith("cpu"):
        return True
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())


def bf16_note(amp: str, device: str) -> str:
    """What to say of ``--amp`` on a device; "" where it does what it is for."""
    if amp != "bf16" or bf16_pays(device):
        return ""
    return (
        "note: this processor has no bfloat16 instructions: --amp bf16 is many times slower here "
        "than float32; leave it out"
    )
