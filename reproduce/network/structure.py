"""What makes a network a Convolutional Pose Machine, told from its graph alone.

A pose machine is a sequence of stages. Each ends in a convolution whose output are belief maps; all
stages have the same number of them on the same grid. A stage after the first starts with a
concatenation of the previous stage's belief maps, of image features, and of the reduced centre map
where the network has one; nothing else of the image reaches it. The image features know nothing of
the belief maps.

Names say nothing here: the released networks, those that :mod:`reproduce.network.netgen` makes and
people's own variants are recognised however their layers and blobs are called.

Source: paper, section 3 and figure 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from caffe_compat.layers.base import Shape
from caffe_compat.network.graph import Graph, Node

_SAME_VALUE = ("Split", "Dropout")  # the output is the input, as far as testing goes
_NO_RESULT = ("Silence", "Accuracy")
_ACTIVATIONS = ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH")


@dataclass(frozen=True)
class Machine:
    """A pose machine that was found in a graph.

    Attributes
    ----------
    outputs : blob with each stage's belief maps, stage 1 first.
    maps : number of belief maps of a stage: parts and background, or 1.
    image : the input blob that the image comes in by.
    centre : whether the network takes a centre map: the image's last channel, or an input of its
        own.
    """

    outputs: tuple[str, ...]
    maps: int
    image: str
    centre: bool


@dataclass(frozen=True)
class _Value:
    """What a layer made. A blob that layers change in place has several values one after the other.

    Attributes
    ----------
    bottoms : the values that it was made from.
    ancestors : bit mask of all values that it depends on.
    sources : the pieces of the inputs that it depends on.
    convolved : a convolution is on the way to it; never so for a loss and what comes of it.
    """

    number: int
    blob: str
    type: str
    shape: Shape
    bottoms: tuple[_Value, ...] = field(repr=False)
    ancestors: int
    sources: frozenset[int]
    convolved: bool

    def comes_from(self, other: _Value) -> bool:
        """Does it depend on this value?"""
        return bool(self.ancestors >> other.number & 1)

    @property
    def made_by(self) -> tuple[str, ...]:
        """Type of the layer that made it, and of the activations after that."""
        if self.type in _ACTIVATIONS:
            return (*self.bottoms[0].made_by, self.type)
        return (self.type,)

    @property
    def is_input(self) -> bool:
        """Was it given from outside?"""
        return not self.bottoms


class _Flow:
    """The values of a graph and who reads them."""

    def __init__(self, graph: Graph) -> None:
        self.values: list[_Value] = []
        self.read: set[int] = set()
        self.pieces: dict[int, _Value] = {}  # piece of an input -> the input
        self._current: dict[str, _Value] = {}
        for node in graph.nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        bottoms = tuple(self._current[name] for name in node.bottoms)
        if node.layer.type in _SAME_VALUE and len(bottoms) == 1:
            for name in node.tops:
                self._current[name] = bottoms[0]
            return
        measure = node.layer.loss or any(node.loss_weights) or node.layer.type in _NO_RESULT
        if not measure:
            self.read.update(value.number for value in bottoms)
        ancestors, sources = 0, frozenset[int]()
        for value in bottoms:
            ancestors |= value.ancestors | 1 << value.number
            sources |= value.sources
        cut = (
            node.layer.type == "Slice"
            and bottoms[0].is_input
            and len(bottoms[0].shape) == 4
            and sum(shape[1] for shape in node.top_shapes) == bottoms[0].shape[1]
        )
        for name, shape in zip(node.tops, node.top_shapes, strict=True):
            number = len(self.values)
            own_piece = not bottoms or cut
            made = _Value(
                number,
                name,
                node.layer.type,
                shape,
                bottoms,
                ancestors,
                frozenset([number]) if own_piece else sources,
                not measure
                and (node.layer.type == "Convolution" or any(v.convolved for v in bottoms)),
            )
            if own_piece:
                self.pieces[number] = bottoms[0] if bottoms else made
            self.values.append(made)
            self._current[name] = made

    def results(self) -> list[_Value]:
        """Values that nothing reads and that convolutions made."""
        return [v for v in self.values if v.number not in self.read and v.convolved]

    def concats_before(self, maps: _Value) -> Iterator[_Value]:
        """Concatenations that everything on the way to these maps passes through, the last
        first."""
        for value in reversed(self.values[: maps.number]):
            if (
                value.type == "Concat"
                and len(value.shape) == 4
                and maps.comes_from(value)
                and _all_pass_through(maps, value)
            ):
                yield value

    def convolutions_between(self, start: _Value, end: _Value) -> int:
        """Number of convolutions that make ``end`` of ``start``."""
        return sum(
            value.type == "Convolution"
            and value.comes_from(start)
            and (value is end or end.comes_from(value))
            for value in self.values
        )


def _all_pass_through(end: _Value, gate: _Value) -> bool:
    """Is there no way from an input to ``end`` that avoids ``gate``?"""
    waiting, seen = [end], {end.number, gate.number}
    while waiting:
        value = waiting.pop()
        if value.is_input:
            return False
        for bottom in value.bottoms:
            if bottom.number not in seen:
                seen.add(bottom.number)
                waiting.append(bottom)
    return True


def _joined(concat: _Value) -> list[_Value]:
    """What a concatenation joins; one inside another counts as one."""
    found = []
    for value in concat.bottoms:
        found += _joined(value) if value.type == "Concat" else [value]
    return found


@dataclass(frozen=True)
class _Stage:
    """A stage: its belief maps, and what it joins to those of the stage before (nothing in
    stage 1)."""

    maps: _Value
    features: tuple[_Value, ...] = ()
    centres: tuple[_Value, ...] = ()


def _is_belief_maps(value: _Value, like: _Value) -> bool:
    """Could this be the previous stage's output? Features have an activation that the released
    networks' belief maps do not have; somebody's own may have one in every stage."""
    return value.made_by == like.made_by and value.shape[1:] == like.shape[1:]


def _stage(flow: _Flow, maps: _Value, concat: _Value, before: _Value) -> _Stage | None:
    """The stage that makes ``maps`` of a concatenation with the belief maps ``before``; None where
    it is no such concatenation."""
    joined = _joined(concat)
    if concat.shape[1] != sum(value.shape[1] for value in joined):  # joined along another axis
        return None
    others = [value for value in joined if value is not before]
    features = tuple(value for value in others if value.convolved)
    centres = tuple(value for value in others if not value.convolved)
    if not features or any(len(c.sources) != 1 or c.shape[1] != 1 for c in centres):
        return None
    if any(value.comes_from(before) for value in features):
        return None
    if flow.convolutions_between(concat, maps) < 2:
        return None
    return _Stage(maps, features, centres)


def _chain(flow: _Flow, maps: _Value) -> list[_Stage]:
    """The longest sequence of stages that ends in these maps, the last stage first."""
    best = [_Stage(maps)]
    for concat in flow.concats_before(maps):
        for before in _joined(concat):
            if not _is_belief_maps(before, maps):
                continue
            stage = _stage(flow, maps, concat, before)
            if stage is not None:
                chain = [stage, *_chain(flow, before)]
                if len(chain) > len(best):
                    best = chain
        if len(best) > 1:
            break
    return best


def find_machine(graph: Graph) -> Machine | None:
    """The pose machine that a graph is, or None where it is none.

    A network of one stage hands nothing on: it counts as a pose machine if it takes a centre map.

    Parameters
    ----------
    graph : of a deploy net, or of a training net.
    """
    flow = _Flow(graph)
    results = flow.results()
    if len(results) != 1:
        return None
    last = results[0]
    if last.made_by[0] != "Convolution" or len(last.shape) != 4:
        return None
    if last.shape[2] * last.shape[3] < 2:  # a classifier's scores have no place
        return None
    chain = _chain(flow, last)
    first = chain[-1].maps
    beliefs = [stage.maps for stage in chain]
    features = [value for stage in chain for value in stage.features]
    if any(value.comes_from(maps) for value in features for maps in beliefs):
        return None
    if not any(value.type == "Convolution" and first.comes_from(value) for value in flow.values):
        return None
    centres = {source for stage in chain for value in stage.centres for source in value.sources}
    inputs = {flow.pieces[source].number for source in first.sources}
    if len(centres) > 1 or centres & first.sources or len(inputs) != 1:
        return None
    image = flow.values[inputs.pop()]
    if not centres:
        centres = _unused_centre(flow, image, first)
    if len(chain) == 1 and not centres:
        return None
    outputs = tuple(maps.blob for maps in reversed(beliefs))
    return Machine(outputs, last.shape[1], image.blob, bool(centres))


def _unused_centre(flow: _Flow, image: _Value, first: _Value) -> set[int]:
    """The centre map that is the input's last channel but that no stage looks at."""
    pieces = [piece for piece, source in flow.pieces.items() if source is image]
    *before, last = pieces
    beside = first.sources.issuperset(set(before) - {image.number}) and last not in first.sources
    return {last} if beside and flow.values[last].shape[1] == 1 else set()
