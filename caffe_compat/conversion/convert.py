"""One model file in, a checked network out: definition, weights, and a table of what was done about
every layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from caffe_compat.conversion.deploy import Dropped, as_built, derive
from caffe_compat.conversion.onnx import write_onnx
from caffe_compat.conversion.sizes import size_of
from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import read_net
from caffe_compat.definition.schema import Dialect
from caffe_compat.definition.spec import TEST, TRAIN, NetSpec
from caffe_compat.errors import PrototxtError, UnknownInput, WeightError, shape_text
from caffe_compat.layers import Shape, registry
from caffe_compat.network.graph import Graph, build
from caffe_compat.network.match import BAD, MISSHAPED, Match, match, require
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
    notes : what was worked out because the definition does not tell it.
    """

    graph: Graph
    weights: Weights
    match: Match
    dropped: tuple[Dropped, ...]
    origin: str
    notes: tuple[str, ...] = ()

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
        about = {**_about(self.weights), **(metadata or {})}
        if to == "onnx":
            write_onnx(path, self.graph, self.weights, metadata=about, **options)
            return
        names = {node.layer.name: node.layer.names() for node in self.graph.nodes}
        containers.write(path, self.weights, self.net, to, blob_names=names, metadata=about)


def _about(weights: Weights) -> dict[str, str]:
    """Where weights came from, for a container's metadata."""
    source = weights.source
    about = {
        "source_file": os.path.basename(source.path),
        "source_sha256": source.sha256(),
        "dialect": source.dialect,
        **source.metadata,
    }
    about.pop("runs", None)  # what could not be built once may be complete now
    return about


def _upstream_of(net: NetSpec, names: set[str]) -> set[str]:
    """Names of the layers that the named layers depend on in some phase, themselves included.

    A definition of all phases may make a blob twice; unlike in ``wiring.upstream`` both count.
    """
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


def _definition(
    weights: Weights,
    prototxt: str | os.PathLike[str] | None,
    sizes: Mapping[str, Shape],
    training: bool,
) -> tuple[NetSpec, list[Dropped], str]:
    """The deploy definition, what was left out of a training net, and where it came from."""
    if prototxt is not None:
        net, origin = read_net(prototxt), f"definition {os.fspath(prototxt)}"
    elif weights.net is not None:
        net, origin = as_built(weights.net), "definition embedded in the model"
    else:
        why = "; ".join(weights.source.notes) or "this kind of file holds none"
        raise WeightError(
            f"{weights.source.path}: no network definition ({why}): give it with --prototxt"
        )
    if not training:
        return net, [], origin
    deploy, dropped = derive(net, weights, sizes)
    return deploy, dropped, origin + (" (training net, made a deploy net)" if dropped else "")


def _shaped(graph: Graph, found: Match) -> tuple[LayerBlobs, ...]:
    """The stored blobs in the network's own shapes."""
    return tuple(
        LayerBlobs(
            node.layer.name,
            node.layer.type,
            tuple(
                Blob(blob.data.reshape(param.shape))
                for blob, param in zip(found.blobs[node.index], node.params, strict=True)
            ),
        )
        for node in graph.nodes
        if node.params
    )


def convert(
    path: str | os.PathLike[str],
    *,
    prototxt: str | os.PathLike[str] | None = None,
    dialect: Dialect | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    strict: bool = True,
) -> Conversion:
    """Read a model and fit it to its network.

    >>> made = convert("small.caffemodel")
    >>> made.match.totals()["matched"]
    4
    >>> made.write("small.safetensors", "safetensors")

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
    weights = containers.read_weights(path, dialect=dialect)
    graph, dropped, origin, notes = _built(weights, prototxt, dict(input_shapes or {}))
    left_out = frozenset(d.name for d in dropped)
    if prototxt:
        left_out |= _side_branches(weights, graph)
    found = match(graph, weights, left_out)
    require(found, weights.source.path, BAD if strict else MISSHAPED)
    if strict and weights.count and not found.blobs:
        raise WeightError(
            f"{weights.source.path}: {origin} has none of the layers that hold its parameters; is "
            "it of another model?"
        )
    missing = [row.name for row in found.rows if row.status == "missing"]
    if missing:
        from caffe_compat.network.net import Net  # torch, which complete models do not need

        entries = Net(graph, weights, strict=False).weights().layers
        named = ", ".join(f"'{name}'" for name in missing)
        notes.append(f"not in the file, so filled as the definition says: {named}")
    else:
        entries = _shaped(graph, found)
    kept = replace(weights, layers=entries, net=graph.spec)
    return Conversion(graph, kept, found, tuple(dropped), origin, tuple(notes))


def _built(
    weights: Weights, prototxt: str | os.PathLike[str] | None, sizes: dict[str, Shape]
) -> tuple[Graph, list[Dropped], str, list[str]]:
    """The deploy network; what was left out of a training net; where the definition came from; and
    notes on sizes that the weights had to tell, which are put into ``sizes``."""
    notes: list[str] = []
    training = prototxt is None
    while True:
        try:
            net, dropped, origin = _definition(weights, prototxt, sizes, training)
            return build(net, input_shapes=sizes), dropped, origin, notes
        except UnknownInput as error:
            if not training:  # a training net was given: its deploy net may do
                training = True
                continue
            whole = weights.net if prototxt is None else read_net(prototxt)
            found = whole and size_of(whole, error.blob, weights)
            if not found or error.blob in sizes:
                raise
            sizes[error.blob], told = found
            shape = shape_text(sizes[error.blob])
            notes.append(f"input '{error.blob}' is {shape}, derived from the weights: {told}")
        except PrototxtError:
            # a layer may miss what a layer of phase TRAIN makes: the same remedy
            if training or prototxt is None or not _lacks_training(read_net(prototxt)):
                raise
            training = True


def _lacks_training(net: NetSpec) -> bool:
    """Is all that a definition's layers miss in testing made by layers of training alone?"""
    tested = net.filter(TEST).layers
    made: set[str] = set()
    missing: set[str] = set()
    for layer in tested:
        missing.update(set(layer.bottoms) - made)
        made.update(layer.tops)
    trained = {top for layer in net.filter(TRAIN).layers for top in layer.tops}
    return bool(missing) and missing <= trained


@dataclass(frozen=True)
class WeightsOnly:
    """A model whose network cannot be built here; its parameters can be converted all the same.

    Attributes
    ----------
    weights : parameters as stored.
    net : the definition as stored, or the bare names of the layers where there is none.
    reason : why the network cannot be built, and what to give in order to run it.
    """

    weights: Weights
    net: NetSpec
    reason: str

    def write(
        self, path: str | os.PathLike[str], to: str, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write into a container of :data:`containers.FORMATS`."""
        types = {layer.name: layer.type for layer in self.weights.layers}
        names = {
            name: registry()[kind].blob_names for name, kind in types.items() if kind in registry()
        }
        about = {**_about(self.weights), "runs": "no: " + self.reason, **(metadata or {})}
        containers.write(path, self.weights, self.net, to, blob_names=names, metadata=about)


def weights_only(
    path: str | os.PathLike[str], reason: str, *, dialect: Dialect | None = None
) -> WeightsOnly:
    """Read a model's parameters without building its network.

    Parameters
    ----------
    path : any weight file.
    reason : why :func:`convert` refused the model.
    dialect : schema of a binary model, overriding detection.

    Raises
    ------
    WeightError : the file cannot be read, or holds no parameters.
    """
    weights = containers.read_weights(path, dialect=dialect)
    if not weights.count:
        raise WeightError(f"{os.fspath(path)}: holds no parameters ({reason})")
    net = weights.net
    if net is None:
        message = schema.new("NetParameter")
        for layer in weights.layers:
            message.layer.add(name=layer.name, type=layer.type)
        net = NetSpec.of(message)
    return WeightsOnly(weights, net, reason)
