"""From a definition to a checked graph: layer objects, blob shapes, shared parameters, who gets
gradients. No torch.

Source: ``Net::Init`` and its helpers in BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from caffe_compat.definition.spec import TEST, NetSpec, ParamSpec
from caffe_compat.errors import PrototxtError, UnknownInput, printable, shape_text
from caffe_compat.layers.base import Layer, Shape, check_blob, check_filler, count, make
from caffe_compat.network.memory import Memory
from caffe_compat.network.wiring import Place, gradients, wire

# Caffe's name for a loss's top that the definition leaves out. Here only the last one has it, the
# others have their layer's name behind it.
AUTOMATIC = "(automatic)"


@dataclass(frozen=True)
class Param:
    """One parameter blob of a layer.

    Attributes
    ----------
    key : (index of the layer, index of the blob).
    owner : key of the blob whose memory it uses: its own, or an earlier layer's of the same shared
        name.
    name : last part of its ``state_dict`` key.
    spec : what the layer's own definition says of it.
    lr_mult, decay_mult : what the solver takes: of a shared parameter, what the first layer that
        gives one says.
    learns : does any of the layers that share it ask for its gradient?
    """

    key: tuple[int, int]
    owner: tuple[int, int]
    name: str
    shape: Shape
    spec: ParamSpec
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    learns: bool = True


@dataclass(frozen=True)
class Node:
    """A layer in its place.

    Attributes
    ----------
    index : place among the layers; -1 for a Split layer that Caffe inserts.
    bottoms, tops : blob names; tops include the automatic ones of losses.
    loss_weights : weight of each top in the loss.
    bottom_grad, param_grad : would Caffe compute the gradient of this bottom, this parameter?
    reaches : does the gradient of this bottom go on, into the layer that made it?
    backward : does the layer take part in Caffe's backward pass?
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
    param_grad: tuple[bool, ...] = ()
    reaches: tuple[bool, ...] = ()
    backward: bool = False


@dataclass(frozen=True)
class Graph:
    """A network that Caffe would accept.

    Attributes
    ----------
    spec : the definition after include and exclude rules.
    nodes : layers in order, with the definition's own blob names.
    steps : the same as Caffe runs it: with inserted Split layers, whose copies the layers read.
    blobs : shape of every blob (an in-place blob: its last shape).
    inputs : tops of data layers, in order.
    outputs : blobs that no layer reads, sorted by name as Caffe lists them (automatic tops left
        out).
    aliases : names of the split copies that Caffe inserts -> blob they are copies of.
    memory : which blobs are one piece of memory in Caffe, and what is overwritten.
    """

    spec: NetSpec
    phase: str
    nodes: tuple[Node, ...]
    blobs: dict[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    aliases: dict[str, str] = field(default_factory=dict)
    steps: tuple[Node, ...] = ()
    memory: Memory = field(default_factory=Memory)

    @property
    def params(self) -> list[Param]:
        """All parameter blobs that own their memory."""
        return [p for node in self.nodes for p in node.params if p.owner == p.key]

    @property
    def count(self) -> int:
        """Number of learned values."""
        return sum(count(param.shape) for param in self.params)

    @cached_property
    def refused_gradient(self) -> PrototxtError | None:
        """The error that Caffe's backward pass through the whole network stops with; None where it
        goes through."""
        for step in reversed(self.steps):
            if step.backward and (found := step.layer.refused_gradient(step.bottom_grad)):
                return found
        return None

    def text(self, shapes: Mapping[str, Shape] | None = None) -> str:
        """Name, phase and number of parameters; then one line a layer: its name, its type, what it
        makes and in which shapes.

        Parameters
        ----------
        shapes : of the blobs, where they are not the definition's any more.
        """
        known = {**self.blobs, **(shapes or {})}
        rows = []
        for node in self.nodes:
            made = (f"{printable(top)} {shape_text(known[top])}" for top in node.tops)
            rows.append((printable(node.layer.name), node.layer.type, ", ".join(made)))
        widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        lines = (
            f"{name.ljust(widths[0])}  {kind.ljust(widths[1])}  {made}".rstrip()
            for name, kind, made in rows
        )
        name = printable(self.spec.name) or "network without a name"
        head = f"{name}: {len(rows)} layers, {self.count:,} parameters, phase {self.phase}"
        return "\n".join((head, *lines))


def _loss_weights(layer: Layer, given: tuple[float, ...], tops: Sequence[str]) -> tuple[float, ...]:
    if layer.loss and not given:
        given = (1.0,)
    if given and len(given) != len(tops):
        raise layer.error(
            f"give no loss_weight, or one for each of {len(tops)} top(s), found {len(given)}",
            "loss_weight",
        )
    return given or (0.0,) * len(tops)


class _Sharing:
    """Parameters shared by name.

    Attributes
    ----------
    owners : by name, the parameter of the first layer that has it.
    mults : by name and kind (``lr_mult``, ``decay_mult``), what the first layer says that gives
        one.
    learned : keys of the parameters that some layer asks for the gradient of.
    """

    def __init__(self) -> None:
        self.owners: dict[str, Param] = {}
        self.mults: dict[tuple[str, str], float] = {}
        self.learned: set[tuple[int, int]] = set()

    def add(self, layer: Layer, index: int, shapes: Sequence[Shape]) -> tuple[Param, ...]:
        """The parameters of the next layer, which needs them in these shapes."""
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
            if spec.lr_mult != 0 or layer.always_learns:
                self.learned.add(param.owner)
            made.append(param)
        return tuple(made)

    def settled(self, param: Param) -> Param:
        """A parameter with what all layers together say of it."""
        spec = param.spec
        return replace(
            param,
            lr_mult=self.mults.get((spec.name, "lr_mult"), spec.lr_mult),
            decay_mult=self.mults.get((spec.name, "decay_mult"), spec.decay_mult),
            learns=param.owner in self.learned,
        )

    @staticmethod
    def _check(layer: Layer, spec: ParamSpec, shape: Shape, owner: Param) -> None:
        same_size = spec.permissive and count(shape) == count(owner.shape)
        if shape != owner.shape and not same_size:
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
    # types before wiring: "unknown type" is the better message where both are wrong
    layers = [make(layer, phase) for layer in kept.layers]
    wiring = wire(kept)
    assembly = _Assembly(dict(input_shapes or {}))
    last = max((i for i, layer in enumerate(layers) if _leaves_out_top(layer)), default=-1)
    for index, layer in enumerate(layers):
        tops = list(layer.spec.tops)
        if _leaves_out_top(layer):
            tops.append(AUTOMATIC if index == last else f"{AUTOMATIC} {layer.name}")
        given = () if index in wiring.moved else layer.spec.loss_weights
        assembly.add(layer, index, wiring.bottoms[index], tops, _loss_weights(layer, given, tops))
        for split in wiring.splits.get(index, ()):
            copies = split.spec.tops
            weights = (split.loss_weight, *[0.0] * (len(copies) - 1))
            assembly.add(make(split.spec, phase), -1, split.spec.bottoms, copies, weights)
    unknown = [name for name in assembly.overrides if name not in assembly.inputs]
    if unknown:
        raise _no_input(kept, unknown, assembly.inputs)
    steps = _with_gradients(assembly.settled(), kept.force_backward)
    nodes = [
        replace(step, bottoms=step.layer.spec.bottoms, loss_weights=_own_weights(step))
        for step in steps
        if step.index >= 0
    ]
    blobs = {name: shape for name, shape in assembly.shapes.items() if name not in wiring.copies}
    return Graph(
        kept,
        phase,
        tuple(nodes),
        blobs,
        tuple(assembly.inputs),
        _outputs(steps),
        wiring.copies,
        tuple(steps),
        Memory.of(steps),
    )


class _Assembly:
    """The layers in the order in which they run, Splits among them, as they are added.

    Attributes
    ----------
    overrides : shapes of data tops that the caller gave.
    shapes : of all blobs and split copies so far.
    inputs : names of the data tops so far.
    """

    def __init__(self, overrides: Mapping[str, Shape]) -> None:
        self.overrides = overrides
        self.shapes: dict[str, Shape] = {}
        self.inputs: list[str] = []
        self._steps: list[Node] = []
        self._sharing = _Sharing()

    def add(
        self,
        layer: Layer,
        index: int,
        reads: Sequence[str],
        tops: Sequence[str],
        weights: Sequence[float],
    ) -> None:
        """The next layer: its blobs, its parameters, and what it asks of them is checked."""
        bottoms = tuple(self.shapes[name] for name in reads)
        made = self._tops(layer, reads, tops)
        params = self._sharing.add(layer, index, layer.param_shapes(bottoms))
        for param, filler in zip(params, layer.fillers(), strict=True):
            check_filler(filler, param.shape, layer)
        down = layer.spec.propagate_down
        if down and len(down) != len(bottoms):
            raise layer.error(
                f"give none, or one for each of {len(bottoms)} bottom(s), found {len(down)}",
                "propagate_down",
            )
        self.shapes.update(zip(tops, made, strict=True))
        names, loss = (tuple(reads), tuple(tops)), tuple(weights)
        self._steps.append(Node(index, layer, *names, params, loss, (), bottoms, tuple(made)))

    def settled(self) -> list[Node]:
        """All layers, with parameters as all that share them say."""
        sharing = self._sharing
        return [replace(s, params=tuple(map(sharing.settled, s.params))) for s in self._steps]

    def _tops(self, layer: Layer, reads: Sequence[str], tops: Sequence[str]) -> list[Shape]:
        """Shapes of a layer's tops."""
        shapes = self.shapes
        made = list(layer.output_shapes(tuple(shapes[name] for name in reads)))
        if layer.data:
            made = _data_shapes(layer, tops, made, self.overrides)
            self.inputs.extend(tops)
        for name, shape in zip(tops, made, strict=True):
            check_blob(shape, layer)
            if name in reads and count(shape) != count(shapes[name]):
                raise layer.error(
                    f"works in place on '{name}', but makes {shape} of {shapes[name]}: in Caffe it "
                    "would overwrite what it still reads; give the top another name",
                    "top",
                )
        return made


def _leaves_out_top(layer: Layer) -> bool:
    """Does Caffe add a top to this loss?"""
    return layer.loss and not layer.spec.tops


def name_in_caffe(blob: str) -> str:
    """The name that Caffe gives a blob: one for all tops that it adds to losses."""
    return AUTOMATIC if blob.startswith(f"{AUTOMATIC} ") else blob


def _own_weights(step: Node) -> tuple[float, ...]:
    """Weights of the tops in the loss, also of those that moved to a split copy."""
    given = step.layer.spec.loss_weights
    return given if given else step.loss_weights


def _with_gradients(steps: Sequence[Node], force: bool) -> list[Node]:
    places = [
        Place(s.layer, s.bottoms, s.tops, s.loss_weights, [p.spec.lr_mult != 0 for p in s.params])
        for s in steps
    ]
    goes_on: dict[str, bool] = {}  # by blob: a gradient in it is taken by the layer that made it
    made = []
    for step, found in zip(steps, gradients(places, force), strict=True):
        backward = found.layer and not step.layer.data
        bottoms, params = tuple(found.bottoms), tuple(found.params)
        if backward:  # Caffe writes some that nobody asked for
            bottoms = tuple(step.layer.writes_gradient(found.bottoms))
            params = tuple(asked or step.layer.always_learns for asked in found.params)
        reaches = tuple(g and goes_on[name] for g, name in zip(bottoms, step.bottoms, strict=True))
        goes_on.update(dict.fromkeys(step.tops, backward or step.layer.data))
        made.append(
            replace(
                step,
                bottom_grad=bottoms,
                param_grad=params,
                reaches=reaches,
                backward=backward,
            )
        )
    return made


def with_own_layers(graph: Graph) -> Graph:
    """The graph with layer objects that no other network changes."""
    if not any(node.layer.stateful for node in graph.nodes):
        return graph
    fresh = {node.index: node.layer.fresh() for node in graph.nodes}
    nodes = tuple(replace(node, layer=fresh[node.index]) for node in graph.nodes)
    steps = tuple(replace(step, layer=fresh.get(step.index, step.layer)) for step in graph.steps)
    return replace(graph, nodes=nodes, steps=steps)


def _outputs(steps: Sequence[Node]) -> tuple[str, ...]:
    """Blobs that no layer reads, split copies for a loss among them."""
    unread: set[str] = set()
    for step in steps:
        unread.difference_update(step.bottoms)
        unread.update(name for name in step.tops if not name.startswith(AUTOMATIC))
    return tuple(sorted(unread))


def _no_input(spec: NetSpec, unknown: Sequence[str], inputs: Sequence[str]) -> Exception:
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
            raise layer.spec.error(
                f"the definition does not tell the shape of blob '{name}'; give it with "
                f"input_shapes, or to cpm-convert with --input-shape {name}:N,C,H,W",
                "top",
                partial(UnknownInput, blob=name),
            )
    return found
