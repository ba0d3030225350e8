"""Caffe networks as ONNX models: one converter per layer type, all that has none named at once.

Which sizes may change later is found by building the network for several inputs and seeing what
moves: no converter knows where a batch axis stands. A network whose definition fixes a size (a
Reshape with the batch written out) says so at the layer.

Needs the extra ``onnx``.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from caffe_compat.conversion.onnx_layers import CONVERTERS
from caffe_compat.conversion.onnx_steps import (
    OPSET,
    Dims,
    LayerStep,
    NoForm,
    OnnxError,
    OnnxGraph,
    fixed,
)
from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import atomic_write
from caffe_compat.layers.base import Shape
from caffe_compat.network.graph import Graph, build
from caffe_compat.network.match import match, require
from caffe_compat.network.wiring import upstream
from caffe_compat.weights.model import Weights
from caffe_compat.weights.wire import Blob

_LARGE = 1024  # pixels


def _probes(graph: Graph, batch: bool, size: bool) -> list[Graph]:
    """The network for other inputs: twice the batch, twice and many times the height and width.

    Rounding in strides may make a small size and its double equal further on, and what is equal
    everywhere counts as fixed. A size of a thousand tells them apart.
    """
    found = [graph]
    for axis in ([0] if batch else []) + ([2, 3] if size else []):
        try:
            found.append(_enlarged(graph, axis, 2))
        except CaffeCompatError as error:
            what = "batch" if axis == 0 else "size"
            raise OnnxError(
                f"the definition does not allow another {what} ({error}): export it with a fixed "
                f"{what}"
            ) from None
        if axis:
            with contextlib.suppress(CaffeCompatError):  # a blob may become too large
                found.append(_enlarged(graph, axis, _many(graph, axis)))
    for other in found[1:]:
        for node, changed in zip(graph.nodes, other.nodes, strict=True):
            if [p.shape for p in node.params] != [p.shape for p in changed.params]:
                raise OnnxError(
                    f"layer '{node.layer.name}' has parameters for one size of the input only: "
                    "export it with a fixed size"
                )
    return found


def _enlarged(graph: Graph, axis: int, times: int) -> Graph:
    """The network with so many times the batch, or the height or width of inputs N×C×H×W."""
    shapes = {}
    for name in graph.inputs:
        shape = graph.blobs[name]
        grows = axis == 0 or len(shape) == 4
        shapes[name] = tuple(
            times * size if grows and place == axis else size for place, size in enumerate(shape)
        )
    level = graph.spec.state.level
    return build(graph.spec, phase=graph.phase, level=level, input_shapes=shapes)


def _many(graph: Graph, axis: int) -> int:
    """How many times the height or width make the smallest input large; those of 1 count only
    where there are no others."""
    sizes = [shape[axis] for name in graph.inputs if len(shape := graph.blobs[name]) == 4]
    return max(3, _LARGE // min([size for size in sizes if size > 1], default=1))


def _merged(shapes: Sequence[Shape]) -> Dims:
    """For each axis of a blob, its size in each of the probed networks."""
    return tuple(zip(*shapes, strict=True))


def to_onnx(
    graph: Graph,
    weights: Weights,
    *,
    dynamic_batch: bool = True,
    dynamic_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """An ONNX model (``onnx.ModelProto``) of a network.

    Parameters
    ----------
    graph : a built network, in TEST.
    weights : its parameters.
    dynamic_batch : may axis 0 of the inputs change?
    dynamic_size : may axes 2 and 3 of inputs N×C×H×W change?
    metadata : kept in the model's properties.

    Returns
    -------
    It gives the network's outputs and what ends in Silence alone (:func:`silenced`). They keep
    their names, but for one that a layer overwrites an input with in place: NAME_out (with more
    underscores where another blob is called so).

    Raises
    ------
    OnnxError : layers without an ONNX form, all of them; a network that computes nothing; or the
        extra is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise OnnxError(
            "the package onnx is not installed: pip install 'convolutional-pose-machines[onnx]'"
        ) from None
    fit = match(graph, weights)
    require(fit, weights.source.path or "weights", ("missing", "mismatch"))
    # an input that nothing reads is an output in Caffe, such as the labels of a data layer
    written = {name for node in graph.nodes if not node.layer.data for name in node.tops}
    wanted = [*(name for name in graph.outputs if name in written), *silenced(graph)]
    if not wanted:
        raise OnnxError("the network computes no blob that nobody else reads: no output is left")
    layers, _ = upstream(graph.nodes, wanted, lambda node: node.layer.effect)
    places = [place for place in layers if not graph.nodes[place].layer.data]
    _refuse_overwritten(graph, places, wanted)
    complete = all(graph.nodes[place].layer.type in CONVERTERS for place in places)
    probes = _probes(graph, dynamic_batch and complete, dynamic_size and complete)
    made, values, shapes = _translated(probes, places, fit.blobs)
    read = {name for node in made.nodes for name in node.input}

    def info(blob: str, value: str) -> Any:
        sizes = [
            size if (size := fixed(dim)) is not None else _axis_name(graph, blob, axis)
            for axis, dim in enumerate(shapes[blob])
        ]
        return helper.make_tensor_value_info(value, TensorProto.FLOAT, sizes)

    body = helper.make_graph(
        made.nodes,
        graph.spec.name or "network",
        [info(name, name) for name in graph.inputs if name in read],
        [info(name, values[name]) for name in wanted],
        [constant for constant in made.constants if constant.name in read],
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
        producer_name="caffe_compat",
    )
    helper.set_model_props(model, {k: v for k, v in (metadata or {}).items() if v})
    onnx.checker.check_model(model, full_check=True)
    return model


def silenced(graph: Graph) -> list[str]:
    """Blobs that layers compute and Silence alone reads.

    Caffe counts them among no net's outputs, but scripts read them: the results of colorization
    nets end so.
    """
    ends: dict[str, None] = {}
    made: set[str] = set()
    for node in graph.nodes:
        if node.layer.type == "Silence":
            ends.update(dict.fromkeys(name for name in node.bottoms if name in made))
            continue
        # what a layer reads does not end in Silence; what it writes anew may
        for name in (*node.bottoms, *node.tops):
            ends.pop(name, None)
        made.difference_update(node.bottoms)
        if not node.layer.data:
            made.update(node.tops)
    return list(ends)


def _translated(
    probes: Sequence[Graph], places: Sequence[int], blobs: Mapping[int, Sequence[Blob]]
) -> tuple[OnnxGraph, dict[str, str], dict[str, Dims]]:
    """The operators of the layers at these places.

    Parameters
    ----------
    probes : the network as it is, then for other inputs.
    blobs : the parameters of each layer, by its place.

    Returns
    -------
    The operators, the value of each blob that was made, and the sizes of each such blob.

    Raises
    ------
    OnnxError : layers without an ONNX form, all of them.
    """
    graph = probes[0]
    made = OnnxGraph(graph.blobs)
    values = {name: name for name in graph.inputs}
    shapes = {name: _merged([p.blobs[name] for p in probes]) for name in graph.inputs}
    problems: list[str] = []
    for place in places:
        node = graph.nodes[place]
        tops = [
            _merged([p.nodes[place].top_shapes[i] for p in probes]) for i in range(len(node.tops))
        ]
        params = [blobs[p.owner[0]][p.owner[1]].data.reshape(p.shape) for p in node.params]
        step = LayerStep(
            node,
            made,
            [values.get(name, "") for name in node.bottoms],
            [shapes[name] for name in node.bottoms],
            tops,
            params,
        )
        begin = len(made.nodes)
        results: Iterable[str] = ()
        try:
            if node.layer.type not in CONVERTERS:
                raise NoForm("there is no such operator")
            results = list(CONVERTERS[node.layer.type](step))
        except NoForm as error:
            problems.append(f"layer '{node.layer.name}' ({node.layer.type}): {error}")
        for name, value in zip(node.tops, results, strict=False):
            # the last writer of a blob gives its name to the value
            last = not any(name in later.tops for later in graph.nodes[place + 1 :])
            shown = made.fresh(f"{name}_out") if last and name in graph.inputs else name
            values[name] = _named(made, value, shown, begin) if last else value
        shapes.update(zip(node.tops, tops, strict=True))
    if problems:
        raise OnnxError(f"{len(problems)} layer(s) have no ONNX form: {'; '.join(problems)}")
    return made, values, shapes


def _refuse_overwritten(graph: Graph, places: Sequence[int], wanted: Sequence[str]) -> None:
    """Raise where a layer works in place on memory that an earlier blob shares, and that blob is
    looked at afterwards: ONNX has no shared memory.

    Raises
    ------
    OnnxError : names the layer and the blob.
    """
    memory = graph.memory.data
    for place in places if graph.memory.overwritten else ():
        node = graph.nodes[place]
        earlier = {top for before in graph.nodes[:place] for top in before.tops}
        later = {name for p in places if p > place for name in graph.nodes[p].bottoms}
        for top in set(node.tops) & set(node.bottoms) & memory.keys():
            shared = {name for name in memory if memory[name] == memory[top]} - {top}
            if harmed := sorted(shared & earlier & (later | set(wanted))):
                raise OnnxError(
                    f"layer '{node.layer.name}' works in place on '{top}', which is one memory "
                    f"with '{harmed[0]}' in Caffe: give its top a name of its own"
                )


def _axis_name(graph: Graph, blob: str, axis: int) -> str | None:
    """What a size of an input that may change is called; sizes of tops follow from those.

    Equal names would promise equal sizes, which nobody knows of two inputs.
    """
    if blob not in graph.inputs:
        return None
    plain = ("batch", "channels", "height", "width")[axis] if axis < 4 else str(axis)
    return plain if blob == graph.inputs[0] else f"{blob}_{plain}"


def _named(made: OnnxGraph, value: str, name: str, begin: int) -> str:
    """Give a value the blob's name: where it was just made, by renaming; else by a copy."""
    mine = [node for node in made.nodes[begin:] if value in node.output]
    if not mine:
        from onnx import helper

        made.nodes.append(helper.make_node("Identity", [value], [name]))
        return name
    for node in made.nodes[begin:]:
        for names in (node.input, node.output):
            for i, old in enumerate(names):
                if old == value:
                    names[i] = name
    return name


def write_onnx(
    path: str | os.PathLike[str], graph: Graph, weights: Weights, **options: Any
) -> None:
    """Write a network as an ``.onnx`` file; ``options`` as of :func:`to_onnx`.

    Raises
    ------
    OnnxError : layers without an ONNX form, all of them; nothing is written then.
    """
    model = to_onnx(graph, weights, **options)
    with atomic_write(path) as stream:
        stream.write(model.SerializeToString())


def forms(types: Iterable[str]) -> Mapping[str, bool]:
    """For each layer type: has it an ONNX form?"""
    return {name: name in CONVERTERS for name in types}
