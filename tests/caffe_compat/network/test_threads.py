"""Several threads may call one network: each gets what it would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from caffe_compat import Net
from caffe_compat.engine.plan import MODES, Mode
from reproduce.network import netgen
from tests.nets import ENGINE_MACHINE


@pytest.mark.long
@pytest.mark.parametrize("cores", [1, 2], indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_two_threads_call_one_network(mode: Mode, cores: int) -> None:
    """Images of different sizes and batches, again and again, the first pass (which transforms the
    kernels) included."""
    inputs = [torch.randn(batch, 4, side, side) for batch, side in ((1, 64), (2, 48), (1, 96)) * 4]

    def run(net: Net, data: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = net(data)["Mconv5_stage2"]
            return found.clone()

    alone = Net(netgen.deploy(ENGINE_MACHINE), seed=3, engine=mode)
    expected = [run(alone, data) for data in inputs]
    shared = Net(netgen.deploy(ENGINE_MACHINE), seed=3, engine=mode)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda data: run(shared, data), inputs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-6 * float(other.abs().max()))
