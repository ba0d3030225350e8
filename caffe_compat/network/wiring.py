"""Who reads which blob: the copies that Caffe's Split layers make, where gradients go, and what
a blob depends on.

Source: ``InsertSplits`` and ``Net::Init`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from caffe_compat.definition import schema
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.layers.base import Layer


@dataclass(frozen=True)
class InsertedSplit:
    """A Split layer that Caffe inserts behind a blob that is read more than once.

    Attributes
    ----------
    spec : the layer; its bottom is the blob, its tops are the copies.
    loss_weight : weight in the loss that moves from the blob to the first copy; 0 where there is
        none.
    """

    spec: LayerSpec
    loss_weight: float


@dataclass
class Wiring:
    """Blob names as Caffe uses them inside.

    Attributes
    ----------
    bottoms : by layer, the names that it reads: blobs, or split copies.
    splits : by layer, the Split layers inserted behind it.
    copies : split copy -> blob that it is a copy of.
    moved : layers whose ``loss_weight`` moved to a Split layer.
    """

    bottoms: list[list[str]]
    splits: dict[int, list[InsertedSplit]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)


def wire(spec: NetSpec) -> Wiring:
    """Check the blobs' names as Caffe does, and insert Split layers.

    Raises
    ------
    PrototxtError : a bottom that nobody made; a top that is made already, or that is overwritten
        in place although several layers read it.
    """
    uses = _uses(spec)
    wiring = Wiring([list(layer.bottoms) for layer in spec.layers])
    for (maker, top), readers in sorted(uses.items()):
        if len(readers) < 2:
            continue
        layer = spec.layers[maker]
        blob = layer.tops[top]
        copies = [f"{blob}_{layer.name}_{top}_split_{k}" for k in range(len(readers))]
        weight = 0.0
        for copy, (reader, bottom) in zip(copies, readers, strict=True):
            wiring.copies[copy] = blob
            if reader < 0:  # the loss
                weight = layer.loss_weights[top]
                wiring.moved.add(maker)
                continue
            tops = spec.layers[reader].tops
            if bottom < len(tops) and tops[bottom] == blob:
                raise spec.layers[reader].error(
                    f"blob '{blob}' is read by several layers and cannot be overwritten in place; "
                    "give the top a new name",
                    "top",
                )
            wiring.bottoms[reader][bottom] = copy
        name = f"{blob}_{layer.name}_{top}_split"
        message = schema.new("LayerParameter", name=name, type="Split", bottom=[blob], top=copies)
        split = InsertedSplit(LayerSpec.of(message, layer.lines, layer.file), weight)
        wiring.splits.setdefault(maker, []).append(split)
    return wiring


def _uses(spec: NetSpec) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(layer, top) -> its readers as (layer, bottom); the loss reads as (-1, -1)."""
    source: dict[str, tuple[int, int]] = {}  # blob -> its latest maker
    uses: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, layer in enumerate(spec.layers):
        for j, name in enumerate(layer.bottoms):
            if name not in source:
                raise layer.error(
                    f"unknown blob '{name}'; known here: {', '.join(sorted(source)) or 'none'}",
                    "bottom",
                )
            uses.setdefault(source[name], []).append((i, j))
        weights = layer.loss_weights
        for j, name in enumerate(layer.tops):
            in_place = j < len(layer.bottoms) and layer.bottoms[j] == name
            if name in source and not in_place:
                raise layer.error(
                    f"blob '{name}' is already made by layer '{spec.layers[source[name][0]].name}'",
                    "top",
                )
            source[name] = (i, j)
            if j < len(weights) and weights[j]:
                uses.setdefault((i, j), []).append((-1, -1))
    return uses


class Wired(Protocol):
    """What names the blobs that it reads and makes: a layer of a definition, or of a graph."""

    @property
    def bottoms(self) -> Sequence[str]: ...

    @property
    def tops(self) -> Sequence[str]: ...


W = TypeVar("W", bound=Wired)


def upstream(
    layers: Sequence[W],
    wanted: Collection[str],
    also: Callable[[W], bool] = lambda layer: False,
) -> tuple[list[int], set[str]]:
    """What the wanted blobs depend on.

    Parameters
    ----------
    layers : in the order in which they run.
    wanted : names of blobs, as they are behind the last layer.
    also : layers that run for another reason; what they read is wanted, too.

    Returns
    -------
    places : of the layers that must run, in order.
    given : names of the blobs that those layers read and none of them makes.
    """
    needed = set(wanted)
    places = []
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if needed.intersection(layer.tops) or also(layer):
            places.append(place)
            needed.difference_update(layer.tops)
            needed.update(layer.bottoms)
    return places[::-1], needed


@dataclass
class Gradients:
    """Where the backward pass of a layer goes.

    Attributes
    ----------
    layer : does it run?
    bottoms : which bottoms get a gradient.
    params : which parameters do.
    """

    layer: bool
    bottoms: list[bool]
    params: list[bool]


@dataclass(frozen=True)
class Place:
    """What the rules about gradients need to know of a layer."""

    layer: Layer
    bottoms: Sequence[str]
    tops: Sequence[str]
    loss_weights: Sequence[float]
    params: Sequence[bool]  # has a learning rate


def gradients(places: Sequence[Place], force: bool) -> list[Gradients]:
    """Where gradients go in each layer, Split layers included.

    A layer takes part if something below it learns and its tops reach a loss; ``propagate_down``
    decides about single bottoms. ``force`` (``force_backward``) makes every layer and parameter
    take part, and every bottom that the layer allows.
    """
    needed: dict[str, bool] = {}
    found = []
    for place in places:
        down = place.layer.spec.propagate_down
        below = [needed[name] for name in place.bottoms]
        needs = any(below) or any(place.params)
        found.append(Gradients(needs, list(down) if down else below, list(place.params)))
        for name in place.tops:
            needed[name] = needs or needed.get(name, False)
    _leave_out(places, found)
    if force:
        for place, one in zip(places, found, strict=True):
            one.layer = True
            one.bottoms = [b or place.layer.gradient_to(i) for i, b in enumerate(one.bottoms)]
            one.params = [True] * len(one.params)
    return found


def _leave_out(places: Sequence[Place], found: Sequence[Gradients]) -> None:
    """Take out the layers that no loss stands above, and those above which all gradients stop."""
    under_loss: set[str] = set()
    stopped: set[str] = set()
    for place, one in zip(reversed(places), reversed(found), strict=True):
        contributes = any(place.loss_weights) or any(name in under_loss for name in place.tops)
        if one.layer and all(name in stopped for name in place.tops):
            one.layer, one.bottoms = False, [False] * len(one.bottoms)
        if not contributes:
            one.layer, one.bottoms = False, [False] * len(one.bottoms)
        else:
            under_loss.update(place.bottoms)
        stopped.update(n for n, goes in zip(place.bottoms, one.bottoms, strict=True) if not goes)
