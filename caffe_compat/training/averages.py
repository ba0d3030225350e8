"""A net's outputs as Caffe tells them, value by value; their means over the batches of a test."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

SHOWN = 32  # values of one blob that are shown while a net is trained, at most


def value_names(name: str, count: int) -> list[str]:
    """Names of a blob's values: the blob's own where it has one, else ``name[i]``."""
    return [name] if count == 1 else [f"{name}[{i}]" for i in range(count)]


def shown(blobs: Mapping[str, Tensor]) -> dict[str, float]:
    """The values, by name, of the blobs that have no more than :data:`SHOWN`."""
    found: dict[str, float] = {}
    for name, blob in blobs.items():
        if blob.numel() <= SHOWN:
            add_share(found, {name: blob}, 1)
    return found


def add_share(total: dict[str, float], found: Mapping[str, Tensor], batches: int) -> None:
    """Add a batch's part to the means over ``batches``, as Caffe's test does.

    Parameters
    ----------
    total : the means so far, by name: of a blob with several values each has one, ``name[i]``.
    found : the batch's blobs.
    """
    for name, blob in found.items():
        values = blob.reshape(-1).tolist()
        for key, value in zip(value_names(name, len(values)), values, strict=True):
            total[key] = total.get(key, 0.0) + value / batches
