"""Which blobs of a network are one piece of memory in Caffe, and what is overwritten after somebody
has seen it.

Layers may work in place, and the tops of Split, Flatten, Reshape and of a Concat or Slice of one
are their bottom's own memory. Caffe's backward passes read blobs as they are then, not as they
were: a layer whose data have been overwritten computes another gradient, and whoever shares the
memory sees the new values. Most networks have nothing of this that changes a number
(:attr:`Memory.plain`); the others are run by :mod:`caffe_compat.network.passes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from caffe_compat.layers.base import Layer


class PlannedLayer(Protocol):
    """A layer with the blobs that it reads and makes."""

    @property
    def layer(self) -> Layer:
        """The layer."""
        ...

    @property
    def bottoms(self) -> tuple[str, ...]:
        """Names of the blobs that it reads."""
        ...

    @property
    def tops(self) -> tuple[str, ...]:
        """Names of the blobs that it makes."""
        ...

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weight of each top in the loss."""
        ...

    @property
    def bottom_grad(self) -> tuple[bool, ...]:
        """Does each bottom get a gradient?"""
        ...

    @property
    def backward(self) -> bool:
        """Does it take part in the backward pass?"""
        ...


@dataclass(frozen=True)
class Memory:
    """Pieces of memory, each named after the blob that it was made for.

    Attributes
    ----------
    data, diff : blob -> piece that holds its values, its gradient.
    overwritten : does a layer overwrite a blob that another layer, or a parameter, shares?
    stale : does the backward pass of a layer read what has been overwritten?
    reread : losses of their own that another layer reads: its gradient takes the place of their
        weight.
    kept : losses of their own whose layer works in place: the gradient that it computes takes the
        place of their weight in the next pass.
    left : does a layer's forward pass leave something in a gradient that a Split adds up?
    """

    data: dict[str, str] = field(default_factory=dict)
    diff: dict[str, str] = field(default_factory=dict)
    overwritten: bool = False
    stale: bool = False
    reread: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    left: bool = False

    @property
    def plain(self) -> bool:
        """Are values and gradients those of the layers' functions, whoever works in place?"""
        return not (self.overwritten or self.stale or self.reread or self.kept or self.left)

    @classmethod
    def of(cls, steps: Sequence[PlannedLayer]) -> Memory:
        """Look through the layers in order."""
        data: dict[str, str] = {}
        diff: dict[str, str] = {}
        overwritten = False
        writes = _Writes()
        for step in steps:
            seen = [writes.of(data[name]) for name in step.bottoms]
            for name in step.tops:
                if name not in data:
                    shared = step.bottoms[:1]
                    data[name] = data[shared[0]] if step.layer.shares_data() else name
                    diff[name] = diff[shared[0]] if step.layer.shares_diff(step.backward) else name
                if not step.layer.shares_data():
                    writes.add(data[name], step.layer.keeps_sign)
                    overwritten |= _others(data, name) or data[name] in writes.parameters
            if step.layer.type == "Parameter":
                writes.parameters.update(step.tops)
            writes.seen.append((step, seen, [writes.of(data[name]) for name in step.tops]))
        stale = any(
            step.backward and writes.changed(step.layer.reads, data, step, bottoms, tops)
            for step, bottoms, tops in writes.seen
        )
        return cls(data, diff, overwritten, stale, *_read_losses(steps), _left_over(steps, diff))


def _others(data: dict[str, str], name: str) -> bool:
    """Does another blob share this one's memory?"""
    return any(piece == data[name] for other, piece in data.items() if other != name)


def _left_over(steps: Sequence[PlannedLayer], diff: dict[str, str]) -> bool:
    """Does a layer leave margins in the gradient of a split copy, where no gradient replaces
    them?"""
    added_up = {
        diff[name]
        for step in steps
        if step.layer.type == "Split" and step.backward
        for name in step.tops
    }
    return any(
        step.layer.leaves_margins and not step.bottom_grad[0] and diff[step.bottoms[0]] in added_up
        for step in steps
    )


def _read_losses(steps: Sequence[PlannedLayer]) -> tuple[frozenset[str], frozenset[str]]:
    """Losses of their own whose gradient a layer computes: another one, or the one that made them,
    in place."""
    weighted = {
        name: step
        for step in steps
        for name, weight in zip(step.tops, step.loss_weights, strict=True)
        if weight
    }
    reread: set[str] = set()
    kept: set[str] = set()
    for step in steps:
        for name, goes in zip(step.bottoms, step.bottom_grad, strict=True):
            if step.backward and goes and name in weighted:
                (kept if weighted[name] is step else reread).add(name)
    return frozenset(reread), frozenset(kept)


Count = tuple[int, int]  # how often a piece was written, and how often so that signs may differ


@dataclass
class _Writes:
    """How often each piece of memory was written."""

    counts: dict[str, Count] = field(default_factory=dict)
    seen: list[tuple[PlannedLayer, list[Count], list[Count]]] = field(default_factory=list)
    parameters: set[str] = field(default_factory=set)

    def of(self, piece: str) -> Count:
        return self.counts.get(piece, (0, 0))

    def add(self, piece: str, keeps_sign: bool) -> None:
        values, signs = self.of(piece)
        self.counts[piece] = (values + 1, signs + (not keeps_sign))

    def changed(
        self,
        reads: Iterable[str],
        data: dict[str, str],
        step: PlannedLayer,
        bottoms: Sequence[Count],
        tops: Sequence[Count],
    ) -> bool:
        """Does what a layer reads in its backward pass differ from what its forward pass saw?"""
        for what in reads:
            if what == "diff":
                if step.layer.works_in_place:
                    return True
                continue
            names, before = (step.bottoms, bottoms) if what == "bottom" else (step.tops, tops)
            for name, (values, signs) in zip(names, before, strict=True):
                now = self.of(data[name])
                if now[1] != signs if what == "sign" else now[0] != values:
                    return True
        return False
