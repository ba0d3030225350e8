"""Shared settings: one torch thread per test process where several run side by side; tests that need
a CUDA device skip without one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.paths import TEST_DEVICE

# the built-in rates: which way a convolution runs must not hang on the load of the machine
os.environ.setdefault("CPM_RATES", "default")
if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test marked ``gpu`` its reason to skip."""
    if TEST_DEVICE == "cpu" or torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many torch threads as the parameter says, for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    try:
        yield request.param
    finally:
        torch.set_num_threads(before)
