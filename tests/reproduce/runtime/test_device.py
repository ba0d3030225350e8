"""What a device can compute with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reproduce.experiments.lab import Lab
from reproduce.experiments.plans import PROFILES
from reproduce.runtime import device


@pytest.fixture(params=[True, False])
def supported(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor with bfloat16 instructions, and one without."""
    found = bool(request.param)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: found, raising=False)
    return found


def test_emulated_bf16_is_said(supported: bool) -> None:
    assert bool(device.bf16_note("bf16", "cpu")) != supported
    assert not device.bf16_note("", "cpu")
    assert not device.bf16_note("bf16", "cuda")


def test_experiments_train_in_the_faster_format(supported: bool, tmp_path: Path) -> None:
    said: list[str] = []
    lab = Lab(PROFILES["cpu"], tmp_path, tmp_path, tmp_path, said.append)
    assert lab.amp == ("bf16" if supported else "")
    assert len(said) == (not supported)
