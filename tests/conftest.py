"""Shared settings: one torch thread per test process where several run side by side."""

from __future__ import annotations

import os

import torch

# the built-in rates: which way a convolution runs must not hang on the load of the machine
os.environ.setdefault("CPM_RATES", "default")
if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)
