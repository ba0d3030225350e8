"""One model file in, a checked network out: definition, weights, and a table of what was done about
every layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from caffe_compat.conversion.deploy import Dropped, derive
from caffe_compat.conversion.onnx import write_onnx
from caffe_compat.definition.prototxt import read_net
from caffe_compat.definition.schema import Dialect
from caffe_compat.definition.spec import NetSpec
from caffe_compat.errors import WeightError
from caffe_compat.layers.base import Shape
from caffe_compat.network.graph import Graph, build
from caffe_compat.network.match import Match, match, require
from caffe_compat.weights import containers
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob


@dataclass(frozen=True)
class Conversion:
    """A model that was read and matched.

    Attributes
    ----------
    graph : the deploy network.
    weights : parameters in the network's own shapes, in its order (sharing layers repeated).
    match : one row per layer.
    dropped : layers of the embedded training net that the deploy net does not have.
    origin : where the definition came from, in words.
    """

    graph: Graph
    weights: Weights
    match: Match
    dropped: tuple[Dropped, ...]
    origin: str

    @property
    def net(self) -> NetSpec:
        """The deploy definition."""
        return self.graph.spec

    def write(
        self,
        path: str | os.PathLike[str],
        to: str,
        *,
        metadata: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Write into a container of :data:`containers.FORMATS`, or as "onnx" with the options of
        :func:`caffe_compat.conversion.onnx.to_onnx`."""
        source = self.weights.source
        about = {
            "source_file": os.path.basename(source.path),
            "source_sha256": source.sha256(),
            "dialect": source.dialect,
            **source.metadata,
            **(metadata or {}),
        }
        if to == "onnx":
            write_onnx(path, self.graph, self.weights, metadata=about, **options)
            return
        names = {node.layer.name: node.layer.names() for node in self.graph.nodes}
        containers.write(path, self.weights, self.net, to, blob_names=names, metadata=about)


def _upstream_of(net: NetSpec, names: set[str]) -> set[str]:
    """Names of the layers that the named layers depend on, themselves included."""
    needed: set[str] = set()
    found: set[str] = set()
    for layer in reversed(net.layers):
        if layer.name in names or needed.intersection(layer.tops):
            found.add(layer.name)
            needed.update(layer.bottoms)
    return found


def _side_branches(weights: Weights, graph: Graph) -> frozenset[str]:
    """Stored layers that the embedded net has and that nothing in the given definition depends on.

    A deploy definition may leave out a head that the training net had; it may not leave out what
    feeds the rest.
    """
    if weights.net is None:
        return frozenset()
    names = {node.layer.name for node in graph.nodes}
    inside = {layer.name for layer in weights.net.layers}
    needed = _upstream_of(weights.net, names)
    return frozenset(entry.name for entry in weights.layers if entry.name in inside - needed)


def convert(
    path: str | os.PathLike[str],
    *,
    prototxt: str | os.PathLike[str] | None = None,
    dialect: Dialect | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    strict: bool = True,
) -> Conversion:
    """Read a model and fit it to its network.

    Parameters
    ----------
    path : any weight file.
    prototxt : the deploy definition; default: the one inside the model, training-only layers left
        out.
    dialect : schema of a binary model, overriding detection.
    input_shapes : sizes of inputs that the definition does not tell, or other ones.
    strict : with False, missing parameters come from the definition's fillers and superfluous ones
        are dropped, as Caffe does; wrong shapes are refused all the same.

    Raises
    ------
    WeightError, PrototxtError, UnsupportedLayer : nothing is guessed; every problem of the weights
        at once.
    """
    weights = containers.read(path, dialect=dialect)
    dropped: list[Dropped] = []
    if prototxt is not None:
        net, origin = read_net(prototxt), f"definition {os.fspath(prototxt)}"
    elif weights.net is not None:
        net, dropped = derive(weights.net, weights, input_shapes)
        origin = "definition embedded in the model" + (
            " (training net, made a deploy net)" if dropped else ""
        )
    else:
        why = "; ".join(weights.source.notes) or "this kind of file holds none"
        raise WeightError(
            f"{weights.source.path}: no network definition ({why}): give it with --prototxt"
        )
    graph = build(net, input_shapes=input_shapes)
    left_out = _side_branches(weights, graph) if prototxt else frozenset(d.name for d in dropped)
    found = match(graph, weights, left_out)
    if strict:
        require(found, weights.source.path)
    elif wrong := [f"layer '{r.name}': {r.detail}" for r in found.rows if r.status == "mismatch"]:
        raise WeightError(f"{weights.source.path}: the weights do not fit the network", wrong)
    entries = []
    for node in graph.nodes:
        blobs = found.blobs.get(node.index)
        if blobs is None and node.params and all(p.owner != p.key for p in node.params):
            owner = found.blobs.get(node.params[0].owner[0])
            blobs = owner
        if blobs is not None:
            shaped = tuple(
                Blob(b.data.reshape(p.shape)) for b, p in zip(blobs, node.params, strict=True)
            )
            entries.append(LayerBlobs(node.layer.name, node.layer.type, shaped))
    kept = replace(weights, layers=tuple(entries), net=graph.spec)
    return Conversion(graph, kept, found, tuple(dropped), origin)
