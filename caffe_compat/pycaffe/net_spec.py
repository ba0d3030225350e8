"""``caffe.layers``, ``caffe.params``, ``caffe.NetSpec``: definitions written in Python.

>>> net = NetSpec()
>>> net.data = layers.Input(shape=dict(dim=[1, 3, 8, 8]))
>>> net.conv = layers.Convolution(net.data, num_output=4, kernel_size=3)
>>> net.pool = layers.Pooling(net.conv, pool=params.Pooling.MAX, kernel_size=2, stride=2)
>>> [layer.name for layer in net.to_proto().layer]
['data', 'conv', 'pool']

A layer's options are given without the name of their message (``kernel_size=3``), or with it
(``convolution_param=dict(kernel_size=3)``). ``ntop`` is the number of tops, ``in_place=True`` lets
a layer write into its bottom.

Source: ``caffe/net_spec.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from caffe_compat.definition import schema
from caffe_compat.errors import CaffeCompatError


class TopError(CaffeCompatError, TypeError):
    """Something else than a layer's top was given as a bottom."""


@cache
def _option_fields() -> dict[str, str]:
    """Options field of ``LayerParameter`` by layer type: Convolution -> convolution_param."""
    fields = schema.message_class("LayerParameter").DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name
        for field in fields
        if field.message_type is not None and field.name.endswith("_param")
    }


def assign_proto(proto: Any, name: str, value: Any) -> None:
    """Set a field of a message from Python values: dictionaries are messages, lists are repeated
    fields; a single value may stand for a list of one.

    Raises
    ------
    AttributeError : the message has no such field.
    """
    descriptor = proto.DESCRIPTOR.fields_by_name.get(name)
    if descriptor is None:
        raise AttributeError(f"{proto.DESCRIPTOR.name} has no field '{name}'")
    if schema.is_repeated(descriptor):
        several = isinstance(value, list | tuple) or np.ndim(value) > 0
        items = value if several else [value]
        for item in items:
            if isinstance(item, Mapping):
                made = getattr(proto, name).add()
                for key, inner in item.items():
                    assign_proto(made, key, inner)
            elif descriptor.message_type is not None:
                getattr(proto, name).add().CopyFrom(item)
            else:
                getattr(proto, name).append(_enum(descriptor, item))
    elif isinstance(value, Mapping):
        getattr(proto, name).SetInParent()
        for key, inner in value.items():
            assign_proto(getattr(proto, name), key, inner)
    elif descriptor.message_type is not None:
        getattr(proto, name).CopyFrom(value)
    else:
        setattr(proto, name, _enum(descriptor, value))


def _enum(descriptor: Any, value: Any) -> Any:
    """A value as protobuf takes it: enumerations by name, numpy's numbers as Python's."""
    if descriptor.enum_type is not None and isinstance(value, str):
        return descriptor.enum_type.values_by_name[value].number
    return value.item() if hasattr(value, "item") else value


class Function:
    """A layer: its type, bottoms, options and tops."""

    def __init__(self, type_name: str, inputs: Iterable[Any], params: Mapping[str, Any]) -> None:
        self.type_name = type_name
        self.inputs = tuple(inputs)
        for place, one in enumerate(self.inputs):
            if not isinstance(one, Top):
                raise TopError(
                    f"{type_name} input {place} is not a Top (type is {type(one).__name__}): give "
                    "what another layer returned"
                )
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _name(self, names: _Names) -> str:
        if (given := names.given.get(self)) is not None:
            return given
        return names.of(self.tops[0]) if self.tops else names.fresh(self, self.type_name)

    def _to_proto(self, made: OrderedDict[Function, Any], names: _Names) -> None:
        """Add this layer's message, after those of the layers that it reads from."""
        # a list instead of recursion: nets may be thousands of layers deep
        todo: list[tuple[Function, bool]] = [(self, False)]
        while todo:
            layer, ready = todo.pop()
            if layer in made:
                continue
            if ready:
                made[layer] = layer._message(made, names)
            else:
                todo.append((layer, True))
                todo += [(one.fn, False) for one in reversed(layer.inputs)]

    def _message(self, made: Mapping[Function, Any], names: _Names) -> Any:
        layer = schema.new("LayerParameter")
        layer.type = self.type_name
        layer.bottom.extend(made[one.fn].top[one.n] for one in self.inputs)
        if self.in_place:
            layer.top.extend(layer.bottom)
        else:
            layer.top.extend(names.of(top) for top in self.tops)
        layer.name = self._name(names)
        options = _option_fields().get(self.type_name)
        for key, value in self.params.items():
            if key.endswith("param") or options is None:
                assign_proto(layer, key, value)
            elif key in schema.known_fields(_message_of(options)):
                assign_proto(getattr(layer, options), key, value)
            else:
                assign_proto(layer, key, value)
        return layer


def _message_of(field: str) -> str:
    fields = schema.message_class("LayerParameter").DESCRIPTOR.fields_by_name
    return str(fields[field].message_type.name)


class Top:
    """One output of a layer.

    Attributes
    ----------
    fn : the layer.
    n : which of its outputs.
    """

    def __init__(self, fn: Function, n: int) -> None:
        self.fn, self.n = fn, n

    def to_proto(self) -> Any:
        """The ``NetParameter`` of everything that this needs."""
        return to_proto(self)

    def _to_proto(self, made: OrderedDict[Function, Any], names: _Names) -> None:
        self.fn._to_proto(made, names)


class _Names:
    """Names of tops and layers: given ones, and numbered ones for the rest."""

    def __init__(self, given: Mapping[Top | Function, str]) -> None:
        self.given: dict[Top | Function, str] = dict(given)
        self._counts: Counter[str] = Counter()

    def of(self, top: Top) -> str:
        return self.given[top] if top in self.given else self.fresh(top, top.fn.type_name)

    def fresh(self, thing: Top | Function, stem: str) -> str:
        self._counts[stem] += 1
        self.given[thing] = f"{stem}{self._counts[stem]}"
        return self.given[thing]


def _net(things: Iterable[Top | Function], names: _Names) -> Any:
    made: OrderedDict[Function, Any] = OrderedDict()
    for thing in things:
        thing._to_proto(made, names)
    net = schema.new("NetParameter")
    net.layer.extend(made.values())
    return net


def to_proto(*tops: Top) -> Any:
    """The ``NetParameter`` of the layers that the tops need; their names are made up."""
    return _net(tops, _Names({}))


class NetSpec:
    """A definition whose tops have names: what is assigned to an attribute gets its name."""

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    tops: OrderedDict[str, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.tops:
            raise AttributeError(f"the net has no top '{name}'")
        return self.tops[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self.tops[key] = value

    def __getitem__(self, item: str) -> Any:
        return self.tops[item]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __delitem__(self, key: str) -> None:
        del self.tops[key]

    def keys(self) -> list[str]:
        """Names of the tops."""
        return list(self.tops)

    def vals(self) -> list[Any]:
        """The tops."""
        return list(self.tops.values())

    def update(self, other: Mapping[str, Any]) -> None:
        """Take several tops by name."""
        self.tops.update(other)

    def to_proto(self) -> Any:
        """The definition as a ``NetParameter``; ``str()`` of it is prototxt."""
        return _net(self.tops.values(), _Names({top: name for name, top in self.tops.items()}))


class Layers:
    """``L.TYPE(bottoms..., options...)`` makes a layer of any type and returns its top, its tops,
    or with ``ntop=0`` the layer."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def make(*args: Any, **options: Any) -> Any:
            layer = Function(name, args, options)
            if not layer.tops:
                return layer
            return layer.tops[0] if len(layer.tops) == 1 else layer.tops

        return make


class _Values:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, value: str) -> Any:
        return getattr(schema.message_class(f"{self._name}Parameter"), value)


class Parameters:
    """``P.Pooling.MAX``: values of enumerations."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Values(name)


layers = Layers()
params = Parameters()
