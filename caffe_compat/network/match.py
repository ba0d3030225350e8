"""Which stored blob goes into which parameter: by layer name, as Caffe does, and nothing by guess.

Source: ``Net::CopyTrainedLayersFrom`` and ``Blob::ShapeEquals`` of BVLC Caffe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
_BAD = ("missing", "mismatch", "unused")


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
        return [
            f"layer '{r.name}' ({r.type or 'type unknown'}): {r.detail}"
            for r in self.rows
            if r.status in _BAD
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


def _with_shared(
    node: Node, stored: tuple[Blob, ...], found: Mapping[int, tuple[Blob, ...]]
) -> tuple[Blob, ...]:
    """The stored blobs, completed by those of other layers that share them: HDF5 files keep a
    shared blob with its first layer only."""
    blobs = list(stored)
    for i, param in enumerate(node.params):
        if not _is_shared(param):
            continue
        if i == len(blobs):
            blobs.append(ELSEWHERE)
        if i < len(blobs) and blobs[i].is_elsewhere:
            place, number = param.owner
            owners = blobs if place == node.index else found.get(place, ())
            if owners and owners[number].data.size == count(param.shape):
                blobs[i] = Blob(owners[number].data.reshape(param.shape))
    return tuple(blobs)


def _is_shared(param: Param) -> bool:
    return param.owner != param.key


def _one(
    node: Node, entry: LayerBlobs | None, found: Mapping[int, tuple[Blob, ...]]
) -> tuple[LayerMatch, tuple[Blob, ...]]:
    """What is done about a layer, and its blobs; ``found`` has those of the layers before it."""
    shapes = tuple(p.shape for p in node.params)
    name, kind = node.layer.name, node.layer.type
    blobs = _with_shared(node, entry.blobs if entry else (), found)
    if entry is None:
        if all(map(_is_shared, node.params)):
            return LayerMatch(name, kind, shapes, "shared"), blobs
        return LayerMatch(
            name,
            kind,
            shapes,
            "missing",
            f"not in the file; needs {', '.join(map(shape_text, shapes))}",
        ), ()
    if len(blobs) != len(shapes):
        detail = f"the file has {len(entry.blobs)} blob(s), the network needs {len(shapes)}"
        return LayerMatch(name, kind, shapes, "mismatch", detail), ()
    status: Status = "matched"
    for i, (blob, param) in enumerate(zip(blobs, node.params, strict=True)):
        if _is_shared(param) and blob.is_elsewhere:
            continue  # the layer that keeps it is missing; that layer's row says so
        fit = _fits(blob, param.shape)
        if fit == "mismatch":
            found_here = (
                f"has shape {shape_text(blob.shape)}" if not blob.is_elsewhere else "is missing"
            )
            detail = (
                f"blob {i} ({param.name}) {found_here}, the network needs {shape_text(param.shape)}"
            )
            return LayerMatch(name, kind, shapes, "mismatch", detail), ()
        status = "reshaped" if fit == "reshaped" else status
    return LayerMatch(name, kind, shapes, status), blobs


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
    rows: list[LayerMatch] = []
    found: dict[int, tuple[Blob, ...]] = {}
    for node in graph.nodes:
        if not node.params:
            rows.append(LayerMatch(node.layer.name, node.layer.type, (), "no parameters"))
            continue
        here = entries.get(node.layer.name, [])
        entry_here = here[taken[node.layer.name]] if taken[node.layer.name] < len(here) else None
        taken[node.layer.name] += 1
        row, blobs = _one(node, entry_here, found)
        rows.append(row)
        if blobs:
            found[node.index] = blobs
    for name, group in entries.items():
        for entry in group[taken[name] :]:
            status: Status = "left out" if name in left_out else "unused"
            shapes = tuple(b.shape for b in entry.blobs)
            detail = (
                "the network has no such layer with parameters; the file has "
                f"{', '.join(map(shape_text, shapes))}"
            )
            rows.append(LayerMatch(name, entry.type, shapes, status, detail))
    return Match(tuple(rows), found)


def require(result: Match, what: str) -> None:
    """Raise if anything does not fit.

    Raises
    ------
    WeightError : lists every problem at once.
    """
    if result.problems:
        raise WeightError(
            f"{what}: the weights do not fit the network ({len(result.problems)} problem(s))",
            result.problems,
        )
