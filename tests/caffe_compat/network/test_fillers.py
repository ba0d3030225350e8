"""Caffe's fillers: what each makes, not only that it makes something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from caffe_compat.definition import schema
from caffe_compat.network.fillers import fill

# 64 outputs of 32 × 3 × 5 weights: each input reaches 64 × 3 × 5
_SHAPE, _FAN_IN, _FAN_OUT = (64, 32, 3, 5), 480, 960


def _filled(shape: tuple[int, ...] = _SHAPE, **settings: Any) -> np.ndarray:
    norm = settings.pop("variance_norm", None)
    filler = schema.new("FillerParameter", **settings)
    if norm is not None:
        filler.variance_norm = (
            filler.DESCRIPTOR.enum_types_by_name["VarianceNorm"].values_by_name[norm].number
        )
    blob = torch.zeros(shape)
    fill(blob, filler, torch.Generator().manual_seed(1))
    return blob.double().numpy()


@pytest.mark.parametrize(
    ("norm", "fan"),
    [
        (None, _FAN_IN),
        ("FAN_IN", _FAN_IN),
        ("FAN_OUT", _FAN_OUT),
        ("AVERAGE", (_FAN_IN + _FAN_OUT) / 2),
    ],
)
def test_fillers_that_look_at_the_layers_size(norm: str | None, fan: float) -> None:
    xavier = _filled(type="xavier", variance_norm=norm)
    bound = np.sqrt(3 / fan)
    assert 0.999 * bound < np.abs(xavier).max() <= bound
    assert xavier.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    msra = _filled(type="msra", variance_norm=norm)
    assert msra.std() == pytest.approx(np.sqrt(2 / fan), rel=0.02)
    assert np.abs(msra).max() > 3 * msra.std()  # a normal distribution, not one with a bound
    for values in (xavier, msra):
        assert abs(values.mean()) < 0.02 * values.std()


def test_gaussian_and_uniform() -> None:
    gaussian = _filled(type="gaussian", mean=0.5, std=0.01)
    assert gaussian.mean() == pytest.approx(0.5, abs=2e-4)
    assert gaussian.std() == pytest.approx(0.01, rel=0.02)
    uniform = _filled(type="uniform", min=-1, max=3)
    assert uniform.min() == pytest.approx(-1, abs=0.01)
    assert uniform.max() == pytest.approx(3, abs=0.01)
    assert uniform.mean() == pytest.approx(1, abs=0.03)
    assert (_filled(type="constant", value=0.25) == 0.25).all()


def test_sparse_keeps_so_many_inputs_of_an_output() -> None:
    """Each weight stays with the probability sparse / outputs."""
    values = _filled((64, 500), type="gaussian", std=1, sparse=16)
    assert (values != 0).mean() == pytest.approx(16 / 64, rel=0.05)
    assert values[values != 0].std() == pytest.approx(1, rel=0.05)


def test_positive_unitball_sums_to_one_for_each_output() -> None:
    values = _filled(type="positive_unitball").reshape(64, -1)
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)
    assert values.std() > 0.1 / _FAN_IN


@pytest.mark.parametrize(
    ("size", "row"),
    [
        (3, [0.25, 0.75, 0.75]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        (6, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0]),
    ],
)
def test_bilinear_kernels(size: int, row: list[float]) -> None:
    """With f = ceil(size / 2) and c = (2 f - 1 - f mod 2) / (2 f) the weight is 1 - |x / f - c|, in
    both directions."""
    values = _filled((2, 2, size, size), type="bilinear")
    for kernel in values.reshape(-1, size, size):
        np.testing.assert_allclose(kernel, np.outer(row, row), atol=1e-6)
