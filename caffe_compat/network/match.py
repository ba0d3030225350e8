"""Which stored blob goes into which parameter: by layer name, as Caffe does, and nothing by guess.

Source: ``Net::CopyTrainedLayersFrom`` and ``Blob::ShapeEquals`` of BVLC Caffe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from caffe_compat.errors import WeightError, shape_text
from caffe_compat.layers.base import Shape, count
from caffe_compat.network.graph import Graph, Node, Param
from caffe_compat.weights.model import ELSEWHERE, LayerBlobs, Weights
from caffe_compat.weights.wire import Blob

Status = Literal[
    "matched", "reshaped", "shared", "missing", "mismatch", "unused", "left out", "no parameters"
]
# What is wrong where all must fit.
BAD: tuple[Status, ...] = ("missing", "mismatch", "unused")
# What is wrong where layers may be missing on either side.
MISSHAPED: tuple[Status, ...] = ("mismatch",)
Key = tuple[int, int]  # of a parameter


@dataclass(frozen=True)
class LayerMatch:
    """What was done about one layer.

    Attributes
    ----------
    shapes : of the parameters that the network needs (for "unused": of the stored blobs).
    status : "reshaped" means an old 4-axis blob whose shape is the same once leading ones are
        dropped.
    detail : what is wrong, if anything is.
    """

    name: str
    type: str
    shapes: tuple[Shape, ...]
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Match:
    """The outcome for all layers, in graph order, then what the file has beyond them."""

    rows: tuple[LayerMatch, ...]
    blobs: dict[int, tuple[Blob, ...]]  # node index -> its blobs

    @property
    def problems(self) -> list[str]:
        """Every missing, mis-shaped and unexpected parameter."""
        return self.lines(BAD)

    def lines(self, among: Collection[Status]) -> list[str]:
        """What is wrong with each layer of one of these statuses."""
        return [
            f"layer '{r.name}' ({r.type or 'type unknown'}): {r.detail}"
            for r in self.rows
            if r.status in among
        ]

    def totals(self) -> dict[str, int]:
        """How many layers have which status."""
        return dict(Counter(row.status for row in self.rows))


def _legacy(shape: Shape) -> Shape | None:
    return (1,) * (4 - len(shape)) + shape if len(shape) <= 4 else None


def _fits(stored: Blob, needed: Shape) -> Status:
    if stored.shape == needed:
        return "matched"
    if stored.legacy and stored.shape == _legacy(needed):
        return "reshaped"
    return "mismatch"


def _that_counts(blob: Blob, param: Param, kept: Mapping[Key, Blob]) -> Blob:
    """A layer's own blob, or another layer's that shares the parameter and has the last word."""
    last = kept.get(param.owner, blob)
    return blob if last is blob else Blob(last.data.reshape(param.shape))


def _completed(node: Node, entry: LayerBlobs | None, kept: Mapping[Key, Blob]) -> tuple[Blob, ...]:
    """A layer's stored blobs; where it has none, those of the layers that share the parameter: HDF5
    files keep a shared blob with its first layer only."""
    stored = entry.blobs if entry else ()
    blobs = []
    for i, param in enumerate(node.params):
        blob = stored[i] if i < len(stored) else ELSEWHERE
        blobs.append(_that_counts(blob, param, kept) if blob.is_elsewhere else blob)
    return tuple(blobs)


def _kept(entries: Iterable[tuple[Node, LayerBlobs]]) -> dict[Key, Blob]:
    """The stored blob of each parameter, by the key of its owner, whichever layer it is with: of
    several the last one, as Caffe copies one after the other.

    Parameters
    ----------
    entries : in the order of the file.
    """
    kept: dict[Key, Blob] = {}
    for node, entry in entries:
        for param, blob in zip(node.params, entry.blobs, strict=False):
            if not blob.is_elsewhere and blob.data.size == count(param.shape):
                kept[param.owner] = blob
    return kept


def _is_shared(param: Param) -> bool:
    return param.owner != param.key


def _one(
    node: Node, entry: LayerBlobs | None, kept: Mapping[Key, Blob]
) -> tuple[LayerMatch, tuple[Blob, ...]]:
    """What is done about a layer, and its blobs; ``kept`` has what other layers may share."""
    shapes = tuple(p.shape for p in node.params)
    name, kind = node.layer.name, node.layer.type
    blobs = _completed(node, entry, kept)
    if entry is None:
        # where nobody has what it shares, the row of the layer that owns it says so
        if all(map(_is_shared, node.params)) or not any(blob.is_elsewhere for blob in blobs):
            return LayerMatch(name, kind, shapes, "shared"), blobs
        detail = f"not in the file; needs {', '.join(map(shape_text, shapes))}"
        return LayerMatch(name, kind, shapes, "missing", detail), ()
    # what nobody has stored and this layer owns; the row of an owner tells of what is shared
    lacking = [
        blob.is_elsewhere and not _is_shared(param)
        for blob, param in zip(blobs, node.params, strict=True)
    ]
    if len(entry.blobs) > len(shapes) or any(lacking[len(entry.blobs) :]):
        detail = f"the file has {len(entry.blobs)} blob(s), the network needs {len(shapes)}"
        return LayerMatch(name, kind, shapes, "mismatch", detail), ()
    status: Status = "matched"
    for i, (blob, param) in enumerate(zip(blobs, node.params, strict=True)):
        if blob.is_elsewhere and _is_shared(param):
            continue
        fit = _fits(blob, param.shape)
        if fit == "mismatch":
            has = "is missing" if blob.is_elsewhere else f"has shape {shape_text(blob.shape)}"
            detail = f"blob {i} ({param.name}) {has}, the network needs {shape_text(param.shape)}"
            return LayerMatch(name, kind, shapes, "mismatch", detail), ()
        status = "reshaped" if fit == "reshaped" else status
    values = tuple(_that_counts(b, p, kept) for b, p in zip(blobs, node.params, strict=True))
    return LayerMatch(name, kind, shapes, status), values


def match(graph: Graph, weights: Weights, left_out: frozenset[str] = frozenset()) -> Match:
    """Pair stored blobs with the graph's parameters.

    Parameters
    ----------
    left_out : names of layers that were left out of the graph on purpose.

    Returns
    -------
    Match; nothing is raised, ``problems`` lists what does not fit.
    """
    entries: dict[str, list[LayerBlobs]] = {}
    for entry in weights.layers:
        if entry.blobs:
            entries.setdefault(entry.name, []).append(entry)
    taken: Counter[str] = Counter()
    entry_of: dict[int, LayerBlobs | None] = {}
    for node in graph.nodes:
        if node.params:
            name = node.layer.name
            here = entries.get(name, [])
            entry_of[node.index] = here[taken[name]] if taken[name] < len(here) else None
            taken[name] += 1
    place = {id(entry): number for number, entry in enumerate(weights.layers)}
    stored = [(graph.nodes[index], entry) for index, entry in entry_of.items() if entry]
    kept = _kept(sorted(stored, key=lambda pair: place[id(pair[1])]))
    rows: list[LayerMatch] = []
    found: dict[int, tuple[Blob, ...]] = {}
    for node in graph.nodes:
        if not node.params:
            rows.append(LayerMatch(node.layer.name, node.layer.type, (), "no parameters"))
            continue
        row, blobs = _one(node, entry_of[node.index], kept)
        rows.append(row)
        if blobs:
            found[node.index] = blobs
    without = {node.layer.name for node in graph.nodes if not node.params}
    for name, group in entries.items():
        for entry in group[taken[name] :]:
            status: Status = "left out" if name in left_out else "unused"
            what = "the network has no such layer with parameters"
            if name in without and not taken[name]:  # Caffe compares the numbers of their blobs
                status, what = "mismatch", "the network's layer of this name has no parameters"
            shapes = tuple(b.shape for b in entry.blobs)
            detail = f"{what}; the file has {', '.join(map(shape_text, shapes))}"
            rows.append(LayerMatch(name, entry.type, shapes, status, detail))
    return Match(tuple(rows), found)


def require(result: Match, what: str, among: Collection[Status] = BAD) -> None:
    """Raise if anything does not fit.

    Parameters
    ----------
    what : the file, or the weights in other words.
    among : statuses that must not be.

    Raises
    ------
    WeightError : lists every problem at once.
    """
    if problems := result.lines(among):
        raise WeightError(
            f"{what}: the weights do not fit the network ({len(problems)} problem(s))", problems
        )
