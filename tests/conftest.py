"""Shared settings: one torch thread per test process where several run side by side; tests that need
a CUDA device skip without one."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import cast

import pytest
import torch

from tests.paths import MISSING, TEST_DEVICE

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where recorded outputs and data must be there, a test that skips for want of them fails."""
    report = yield
    if report.skipped and os.environ.get("CPM_REQUIRE_GOLDEN"):
        _, _, reason = cast("tuple[str, int, str]", report.longrepr)
        if any(missing in reason for missing in MISSING):
            report.outcome, report.longrepr = "failed", f"{reason}, and CPM_REQUIRE_GOLDEN is set"
    return report


@pytest.fixture
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many torch threads as the parameter says, for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    try:
        yield request.param
    finally:
        torch.set_num_threads(before)
