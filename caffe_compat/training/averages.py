"""Means of a net's outputs over the batches of a test."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def add_share(total: dict[str, float], found: Mapping[str, Tensor], batches: int) -> None:
    """Add a batch's part to the means over ``batches``, as Caffe's test does.

    Parameters
    ----------
    total : the means so far, by name: of a blob with several values each has one, ``name[i]``.
    found : the batch's blobs.
    """
    for name, blob in found.items():
        values = blob.reshape(-1).tolist()
        for i, value in enumerate(values):
            key = name if len(values) == 1 else f"{name}[{i}]"
            total[key] = total.get(key, 0.0) + value / batches
