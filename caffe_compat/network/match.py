"""Which stored blob goes into which parameter: by layer name, as Caffe does, and nothing by guess.

Source: ``Net::CopyTrainedLayersFrom`` and ``Blob::ShapeEquals`` of BVLC Caffe.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from caffe_compat.errors import WeightError, shape_text
from caffe_compat.layers.base import Shape
from caffe_compat.network.graph import Graph, Node
from caffe_compat.weights.model import LayerBlobs, Weights
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


def _one(node: Node, entry: LayerBlobs | None, owned: bool) -> tuple[LayerMatch, tuple[Blob, ...]]:
    shapes = tuple(p.shape for p in node.params)
    name, kind = node.layer.name, node.layer.type
    if entry is None:
        if owned:  # HDF5 files store shared parameters with their owner only
            return LayerMatch(name, kind, shapes, "shared"), ()
        return LayerMatch(
            name,
            kind,
            shapes,
            "missing",
            f"not in the file; needs {', '.join(map(shape_text, shapes))}",
        ), ()
    if len(entry.blobs) != len(shapes):
        detail = f"the file has {len(entry.blobs)} blob(s), the network needs {len(shapes)}"
        return LayerMatch(name, kind, shapes, "mismatch", detail), ()
    status: Status = "matched"
    for i, (blob, shape) in enumerate(zip(entry.blobs, shapes, strict=True)):
        fit = _fits(blob, shape)
        if fit == "mismatch":
            detail = (
                f"blob {i} ({node.params[i].name}) has shape {shape_text(blob.shape)}, the "
                f"network needs {shape_text(shape)}"
            )
            return LayerMatch(name, kind, shapes, "mismatch", detail), ()
        status = "reshaped" if fit == "reshaped" else status
    return LayerMatch(name, kind, shapes, status), entry.blobs


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
        shared = all(p.owner != p.key for p in node.params)
        row, blobs = _one(node, entry_here, shared)
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
