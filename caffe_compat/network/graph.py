"""From a definition to a checked graph: layer objects, blob shapes, shared parameters, who gets
gradients. No torch.

Source: ``Net::Init``, ``InsertSplits`` and their helpers in BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from caffe_compat.definition.spec import TEST, NetSpec, ParamSpec
from caffe_compat.layers.base import Layer, Shape, check_blob, check_filler, make


@dataclass(frozen=True)
class Param:
    """One parameter blob of a layer.

    Attributes
    ----------
    key : (index of the layer, index of the blob).
    owner : key of the blob whose memory it uses: its own, or an earlier layer's of the same shared
        name.
    name : last part of its ``state_dict`` key.
    """

    key: tuple[int, int]
    owner: tuple[int, int]
    name: str
    shape: Shape
    spec: ParamSpec


@dataclass(frozen=True)
class Node:
    """A layer in its place.

    Attributes
    ----------
    bottoms, tops : blob names; tops include the automatic ones of losses.
    loss_weights : weight of each top in the loss.
    bottom_grad : would Caffe propagate a gradient to this bottom?
    """

    index: int
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: tuple[Param, ...]
    loss_weights: tuple[float, ...]
    bottom_grad: tuple[bool, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Graph:
    """A network that Caffe would accept.

    Attributes
    ----------
    spec : the definition after include and exclude rules.
    nodes : layers in order.
    blobs : shape of every blob (an in-place blob: its last shape).
    inputs : tops of data layers, in order.
    outputs : blobs that no layer reads, sorted by name as Caffe lists them.
    aliases : names of the split copies that Caffe inserts -> blob they are copies of.
    """

    spec: NetSpec
    phase: str
    nodes: tuple[Node, ...]
    blobs: dict[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def params(self) -> list[Param]:
        """All parameter blobs that own their memory."""
        return [p for node in self.nodes for p in node.params if p.owner == p.key]

    @property
    def count(self) -> int:
        """Number of learned values."""
        total = 0
        for param in self.params:
            size = 1
            for dim in param.shape:
                size *= dim
            total += size
        return total


def _check_wiring(spec: NetSpec) -> dict[str, str]:
    """Blob names as ``InsertSplits`` and ``AppendTop`` see them; returns the split copies'
    names."""
    source: dict[str, tuple[int, int]] = {}  # blob -> its latest producer
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
    aliases = {}
    for (i, j), readers in uses.items():
        if len(readers) < 2:
            continue
        layer, name = spec.layers[i], spec.layers[i].tops[j]
        for k, (reader, bottom) in enumerate(readers):
            aliases[f"{name}_{layer.name}_{j}_split_{k}"] = name
            if (
                reader >= 0
                and bottom < len(spec.layers[reader].tops)
                and spec.layers[reader].tops[bottom] == name
            ):
                raise spec.layers[reader].error(
                    f"blob '{name}' is read by several layers and cannot be overwritten in "
                    "place; give the top a new name",
                    "top",
                )
    return aliases


def _loss_weights(layer: Layer, tops: Sequence[str]) -> tuple[float, ...]:
    given = layer.spec.loss_weights
    if layer.loss and not given:
        given = (1.0,)
    if given and len(given) != len(tops):
        raise layer.error(
            f"give no loss_weight, or one for each of {len(tops)} top(s), found {len(given)}",
            "loss_weight",
        )
    return given or (0.0,) * len(tops)


class _Sharing:
    """Parameters shared by name."""

    def __init__(self) -> None:
        self.owners: dict[str, Param] = {}
        self.mults: dict[tuple[str, str], float] = {}

    def add(self, layer: Layer, index: int, shapes: Sequence[Shape]) -> tuple[Param, ...]:
        specs = layer.spec.params
        if len(specs) > len(shapes):
            raise layer.error(
                f"has {len(shapes)} parameter blob(s), but {len(specs)} param entries", "param"
            )
        made = []
        for i, shape in enumerate(shapes):
            spec = specs[i] if i < len(specs) else ParamSpec()
            name = layer.names()[i]
            key = (index, i)
            owner = self.owners.get(spec.name) if spec.name else None
            param = Param(key, owner.owner if owner else key, name, shape, spec)
            if owner is None:
                if spec.name:
                    self.owners[spec.name] = param
            else:
                self._check(layer, spec, shape, owner)
            if spec.name:
                self._multipliers(layer, spec)
            made.append(param)
        return tuple(made)

    @staticmethod
    def _check(layer: Layer, spec: ParamSpec, shape: Shape, owner: Param) -> None:
        same = shape == owner.shape
        if spec.permissive:
            size, other = 1, 1
            for dim in shape:
                size *= dim
            for dim in owner.shape:
                other *= dim
            same = size == other
        if not same:
            raise layer.error(
                f"shared param '{spec.name}' has shape {owner.shape}, needed here {shape}", "param"
            )

    def _multipliers(self, layer: Layer, spec: ParamSpec) -> None:
        for kind, given, value in (
            ("lr_mult", spec.has_lr_mult, spec.lr_mult),
            ("decay_mult", spec.has_decay_mult, spec.decay_mult),
        ):
            if not given:
                continue
            first = self.mults.setdefault((spec.name, kind), value)
            if first != value:
                raise layer.error(
                    f"shared param '{spec.name}' has {kind} {first} elsewhere, here {value}",
                    "param",
                )


def build(
    spec: NetSpec,
    *,
    phase: str = TEST,
    level: int = 0,
    stages: Sequence[str] = (),
    input_shapes: Mapping[str, Shape] | None = None,
) -> Graph:
    """Check a definition as Caffe would and work out its graph.

    Parameters
    ----------
    spec : upgraded definition, rules not applied.
    phase, level, stages : the state that include and exclude rules look at.
    input_shapes : shapes of data tops, overriding or completing what the definition says.

    Raises
    ------
    PrototxtError : anything that Caffe refuses; with file, line, layer and field.
    UnsupportedLayer : a layer type that is not known here.
    """
    kept = spec.filter(phase, level, stages)
    overrides = dict(input_shapes or {})
    # types before wiring: "unknown type" is the better message where both are wrong
    layers = [make(layer, phase) for layer in kept.layers]
    aliases = _check_wiring(kept)
    shapes: dict[str, Shape] = {}
    needs: dict[str, bool] = {}
    unread: dict[str, None] = {}
    inputs: list[str] = []
    nodes: list[Node] = []
    sharing = _Sharing()
    for index, layer in enumerate(layers):
        bottoms = tuple(shapes[name] for name in layer.spec.bottoms)
        tops = list(layer.spec.tops)
        while layer.loss and len(tops) < layer.tops[0]:
            tops.append(f"(automatic) {layer.name}")
        outs = list(layer.output_shapes(bottoms))
        if layer.data:
            outs = _data_shapes(layer, tops, outs, overrides)
            inputs += tops
        for shape in outs:
            check_blob(shape, layer)
        params = sharing.add(layer, index, layer.param_shapes(bottoms))
        for param, filler in zip(params, layer.fillers(), strict=True):
            check_filler(filler, param.shape, layer)
        down = layer.spec.propagate_down
        if down and len(down) != len(bottoms):
            raise layer.error(
                f"give none, or one for each of {len(bottoms)} bottom(s), found {len(down)}",
                "propagate_down",
            )
        grads = tuple(
            (needs[name] if not down else down[i]) or (kept.force_backward and layer.gradient_to(i))
            for i, name in enumerate(layer.spec.bottoms)
        )
        trained = (
            any(p.spec.lr_mult != 0 or kept.force_backward for p in params) and layer.trainable
        )
        need = any(needs[name] for name in layer.spec.bottoms) or trained or kept.force_backward
        for name in layer.spec.bottoms:
            unread.pop(name, None)
        for name, shape in zip(tops, outs, strict=True):
            shapes[name] = shape
            needs[name] = need and not (layer.data and not kept.force_backward)
            unread[name] = None
        nodes.append(
            Node(
                index,
                layer,
                layer.spec.bottoms,
                tuple(tops),
                params,
                _loss_weights(layer, tops),
                grads,
                bottoms,
                tuple(outs),
            )
        )
    unknown = [name for name in overrides if name not in inputs]
    if unknown:
        raise _no_input(kept, unknown, inputs)
    return Graph(kept, phase, tuple(nodes), shapes, tuple(inputs), tuple(sorted(unread)), aliases)


def _no_input(spec: NetSpec, unknown: Sequence[str], inputs: Sequence[str]) -> Exception:
    from caffe_compat.errors import PrototxtError

    return PrototxtError(
        f"no input is called {', '.join(unknown)}; the inputs are {', '.join(inputs)}",
        file=spec.file,
    )


def _data_shapes(
    layer: Layer, tops: Sequence[str], shapes: Sequence[Shape], overrides: Mapping[str, Shape]
) -> list[Shape]:
    found = []
    for i, name in enumerate(tops):
        if name in overrides:
            found.append(tuple(overrides[name]))
        elif i < len(shapes):
            found.append(shapes[i])
        else:
            raise layer.error(
                f"the definition does not tell the shape of blob '{name}'; give it "
                f"(--input-shape {name}:N,C,H,W)",
                "top",
            )
    return found
