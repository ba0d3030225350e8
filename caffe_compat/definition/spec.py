"""What a network and a solver are, as frozen data: no torch, no weights.

A :class:`LayerSpec` keeps Caffe's own message of its options; the layer classes read it and no
default is written anywhere but in the schema table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from caffe_compat.definition import schema
from caffe_compat.errors import PrototxtError

TRAIN, TEST = "TRAIN", "TEST"


@dataclass(frozen=True)
class ParamSpec:
    """Training settings of one parameter blob: shared name, rate and decay multipliers."""

    name: str = ""
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    permissive: bool = False
    has_lr_mult: bool = False
    has_decay_mult: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a definition.

    Attributes
    ----------
    name, type : Caffe's layer name and exact type string.
    bottoms, tops : blob names.
    message : the ``LayerParameter`` (merged schema, without blobs). Read only.
    lines : line of each field, by dotted name ("convolution_param.kernel_size"); "" is the layer
        itself.
    file : where the lines count.
    network : name of the network that it is of.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any = field(repr=False, compare=False)
    lines: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    file: str = field(default="", repr=False, compare=False)
    network: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(
        cls,
        message: Any,
        lines: Mapping[str, int] | None = None,
        file: str = "",
        network: str = "",
    ) -> LayerSpec:
        """Wrap a ``LayerParameter``."""
        return cls(
            message.name,
            message.type,
            tuple(message.bottom),
            tuple(message.top),
            message,
            dict(lines or {}),
            file,
            network,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copies: messages are made at run time, their text can be stored."""
        from caffe_compat.definition.textformat import dump

        return _spec_of_text, (dump(self.message), dict(self.lines), self.file, self.network)

    @property
    def params(self) -> tuple[ParamSpec, ...]:
        """The ``param`` entries, one per parameter blob that has one."""
        return tuple(
            ParamSpec(
                p.name,
                p.lr_mult,
                p.decay_mult,
                p.share_mode == 1,
                p.HasField("lr_mult"),
                p.HasField("decay_mult"),
            )
            for p in self.message.param
        )

    @property
    def phase(self) -> str:
        """The layer's own phase; "" where it has the network's."""
        return schema.enum_name(self.message, "phase") if self.message.HasField("phase") else ""

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """The ``loss_weight`` entries."""
        return tuple(self.message.loss_weight)

    @property
    def propagate_down(self) -> tuple[bool, ...]:
        """The ``propagate_down`` entries."""
        return tuple(self.message.propagate_down)

    def error(
        self, message: str, name: str = "", kind: Callable[..., PrototxtError] = PrototxtError
    ) -> PrototxtError:
        """An error that says where in the definition this layer (or its field ``name``) stands."""
        line = 0
        path = name
        while not line:
            line = self.lines.get(path, 0)
            if not path:
                break
            path = path.rpartition(".")[0]
        shown = name.rpartition(".")[2] if name.count(".") else name
        return kind(
            message, file=self.file, line=line, layer=self.name or f"({self.type})", field=shown
        )

    def with_blobs(self, bottoms: Iterable[str], tops: Iterable[str]) -> LayerSpec:
        """A copy with other bottom and top names."""
        message = type(self.message)()
        message.CopyFrom(self.message)
        del message.bottom[:], message.top[:]
        message.bottom.extend(bottoms)
        message.top.extend(tops)
        return LayerSpec.of(message, self.lines, self.file, self.network)

    def without(self, name: str) -> LayerSpec:
        """A copy in which a field is not set."""
        message = type(self.message)()
        message.CopyFrom(self.message)
        message.ClearField(name)
        return LayerSpec.of(message, self.lines, self.file, self.network)


def _spec_of_text(text: str, lines: Mapping[str, int], file: str, network: str) -> LayerSpec:
    """A stored :class:`LayerSpec`."""
    from caffe_compat.definition.textformat import parse

    message = schema.new("LayerParameter")
    parse(text, message)
    return LayerSpec.of(message, lines, file, network)


@dataclass(frozen=True)
class NetState:
    """What include and exclude rules look at."""

    phase: str = TEST
    level: int = 0
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetSpec:
    """A whole definition, in the current format (all upgrades done), rules not applied yet.

    Attributes
    ----------
    name : the network's name.
    layers : in the order of the file; data comes in through ``Input`` and data layers.
    force_backward : compute gradients for every blob.
    state : the ``state`` that the definition itself asks for.
    """

    name: str
    layers: tuple[LayerSpec, ...]
    force_backward: bool = False
    state: NetState = NetState()
    debug_info: bool = False
    file: str = ""

    @classmethod
    def of(cls, message: Any, lines: Sequence[Mapping[str, int]] = (), file: str = "") -> NetSpec:
        """Wrap an upgraded ``NetParameter``; ``lines`` of each layer in turn, none of a binary
        file."""
        layers = tuple(
            LayerSpec.of(layer, lines[index] if lines else None, file, message.name)
            for index, layer in enumerate(message.layer)
        )
        state = NetState(
            schema.enum_name(message.state, "phase"),
            message.state.level,
            tuple(message.state.stage),
        )
        return cls(message.name, layers, message.force_backward, state, message.debug_info, file)

    def named(self, name: str) -> NetSpec:
        """The same definition with another name of the network."""
        layers = tuple(replace(layer, network=name) for layer in self.layers)
        return replace(self, name=name, layers=layers)

    def to_message(self) -> Any:
        """The ``NetParameter`` (merged schema)."""
        message = schema.new("NetParameter", name=self.name)
        if self.force_backward:
            message.force_backward = True
        if self.debug_info:
            message.debug_info = True
        if self.state != NetState():
            message.state.phase = {TRAIN: 0, TEST: 1}[self.state.phase]
            message.state.level = self.state.level
            message.state.stage.extend(self.state.stages)
        for layer in self.layers:
            message.layer.add().CopyFrom(layer.message)
        return message

    def bare(self) -> NetSpec:
        """Its name and its layers alone, which is what Caffe saves of a net that runs.

        Source: ``Net::ToProto`` of BVLC Caffe.
        """
        return NetSpec(self.name, self.layers, file=self.file)

    def to_text(self) -> str:
        """The definition as prototxt text."""
        from caffe_compat.definition.textformat import dump

        return dump(self.to_message())

    def filter(self, phase: str = TEST, level: int = 0, stages: Iterable[str] = ()) -> NetSpec:
        """The layers that Caffe would build for this phase, level and these stages.

        Raises
        ------
        PrototxtError : a layer has include and exclude rules at once.

        Source: ``Net::FilterNet`` and ``Net::StateMeetsRule`` of BVLC Caffe.
        """
        state = NetState(phase, level, tuple(dict.fromkeys([*self.state.stages, *stages])))
        kept = []
        for layer in self.layers:
            include, exclude = layer.message.include, layer.message.exclude
            if include and exclude:
                raise layer.error("has include and exclude rules; give one kind only", "exclude")
            if exclude and any(_meets(state, rule) for rule in exclude):
                continue
            if include and not any(_meets(state, rule) for rule in include):
                continue
            kept.append(layer)
        return replace(self, layers=tuple(kept), state=state)


def _meets(state: NetState, rule: Any) -> bool:
    if rule.HasField("phase") and schema.enum_name(rule, "phase") != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    has = set(state.stages)
    return has.issuperset(rule.stage) and has.isdisjoint(rule.not_stage)


@dataclass(frozen=True)
class SolverSpec:
    """A solver definition.

    Attributes
    ----------
    message : Caffe's ``SolverParameter`` (merged schema, upgraded). Read only.
    file, lines : where it came from, as in :class:`LayerSpec`.
    network : name for its training and test nets, instead of their definitions'; "": theirs.
    """

    message: Any = field(repr=False)
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    network: str = ""

    def has(self, name: str) -> bool:
        """Was the (singular) field given?"""
        return bool(self.message.HasField(name))

    def error(self, message: str, name: str) -> PrototxtError:
        """An error at the line of a field."""
        return PrototxtError(message, file=self.file, line=self.lines.get(name, 0), field=name)
