"""All data layers of a net together: one batch for each of their tops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from caffe_compat.definition.spec import NetSpec
from caffe_compat.layers import Shape, make, registry
from caffe_compat.training import pictures, rows
from caffe_compat.training.draws import Draws
from caffe_compat.training.rows import FilledSource
from caffe_compat.training.sources import Batch, BatchSource, ignored, open_source

# importing them makes their layer types known
_SOURCES: tuple[ModuleType, ...] = (pictures, rows)


@dataclass(frozen=True)
class _EveryNth:
    """One process's part of a source: every ``count``-th batch."""

    whole: BatchSource
    rank: int
    count: int

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return self.whole.shapes

    def batch(self, number: int) -> Batch:
        return self.whole.batch(number * self.count + self.rank)


class DataFeed:
    """Batches for a net's data layers, by number; and the input shapes that they need.

    Parameters
    ----------
    spec : definition, rules not applied.
    phase, level, stages : which layers exist.
    root : folder that names in the definition count from.
    given : sources by layer name, instead of those that the layers name.
    draws : Caffe's main generator, from which the layers take their seeds in turn.
    share : (rank, processes): of several processes that train together each takes its own batches
        in turn. Given sources see to that themselves.

    Attributes
    ----------
    unfilled : tops of Input layers, which have no source: layer name by blob name.
    notes : options of data layers and losses that have no effect, one line each.
    position : number of the batch that :meth:`next` gives.
    """

    def __init__(
        self,
        spec: NetSpec,
        phase: str,
        root: Path,
        given: Mapping[str, BatchSource] | None = None,
        level: int = 0,
        stages: tuple[str, ...] = (),
        draws: Draws | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        draws = draws or Draws()
        # name, tops and source of each layer; two may have one name
        self._sources: list[tuple[str, tuple[str, ...], BatchSource]] = []
        self.unfilled: dict[str, str] = {}
        self.notes: list[str] = []
        self.position = 0
        for layer in spec.filter(phase, level, stages).layers:
            self.notes += ignored(layer)
            cls = registry().get(layer.type)
            if cls is None or not cls.data:
                continue
            if layer.type == "Input":
                self.unfilled.update(dict.fromkeys(layer.tops, layer.name))
                continue
            source = (given or {}).get(layer.name)
            if source is None:
                source = open_source(make(layer, phase), root, draws)
                source = _EveryNth(source, *share) if share[1] > 1 else source
            self._sources.append((layer.name, layer.tops, source))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each data blob."""
        return {
            top: shape
            for _, tops, source in self._sources
            for top, shape in zip(tops, source.shapes, strict=True)
        }

    def source(self, layer: str) -> BatchSource | None:
        """The source of the (first) data layer of this name; None where it has none."""
        return next((source for name, _, source in self._sources if name == layer), None)

    def batch(self, number: int, device: torch.device | str) -> dict[str, Tensor]:
        """All data blobs of a batch."""
        found: dict[str, Tensor] = {}
        for _, tops, source in self._sources:
            for top, array in zip(tops, source.batch(number), strict=True):
                found[top] = torch.as_tensor(array).to(device, non_blocking=True)
        return found

    def constants(self) -> dict[str, npt.NDArray[np.float32]]:
        """The blobs of DummyData layers that Caffe fills once, before the first pass, and their
        values; what a layer in place or a script writes into them stays."""
        return {
            top: array
            for _, tops, source in self._sources
            if isinstance(source, FilledSource)
            for top, array, constant in zip(tops, source.batch(0), source.constant, strict=True)
            if constant
        }

    def next(self, device: torch.device | str) -> dict[str, Tensor]:
        """All data blobs of the next batch, whoever took the one before."""
        found = self.batch(self.position, device)
        self.position += 1
        return found
