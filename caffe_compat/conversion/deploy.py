"""The deploy net inside a training net: what a snapshot embeds, without what only training needs.

Rules, in this order:

1. layers of the TRAIN phase alone go, then data layers; those of their tops that reach a layer with
parameters become inputs;
2. losses and Accuracy go, every layer that reads what they make, and every layer that reads a label
(a data top that reaches no parameters). A loss_weight makes a loss of a layer without parameters
whose tops nobody reads; elsewhere it is taken out;
3. Split layers that Caffe inserted are undone, Dropout (the identity in TEST) is taken out;
4. a layer's own phase is forgotten: Caffe writes into a snapshot the phase that it trained in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from caffe_compat.definition import schema
from caffe_compat.definition.spec import TEST, LayerSpec, NetSpec, NetState
from caffe_compat.errors import PrototxtError, UnknownInput
from caffe_compat.layers.base import Layer, Shape, make, registry
from caffe_compat.weights.model import Weights

_MEASURES = ("Accuracy", "HDF5Output")
_DECIDED = ("min_level", "max_level", "stage", "not_stage")  # fields of a NetStateRule


@dataclass(frozen=True)
class Dropped:
    """A layer that the deploy net does not have, and the rule."""

    name: str
    type: str
    reason: str


def is_data(layer: LayerSpec) -> bool:
    """Does a layer bring data in from outside?"""
    known = _known(layer)
    return known.data if known else not layer.bottoms


def _known(layer: LayerSpec) -> type[Layer] | None:
    """A layer's class; none of a Python layer, which may be anything: FCN's brings data in."""
    return None if layer.type == "Python" else registry().get(layer.type)


def as_built(net: NetSpec) -> NetSpec:
    """The definition that a model holds, without rules by level and stage where it names no state:
    Caffe saves the layers of a net that runs, for which they were decided.

    Source: ``Net::ToProto`` of BVLC Caffe.
    """
    if net.state != NetState():
        return net
    return replace(net, layers=tuple(map(_by_phase_alone, net.layers)))


def _by_phase_alone(layer: LayerSpec) -> LayerSpec:
    if not any(_has_more(rule) for rule in (*layer.message.include, *layer.message.exclude)):
        return layer
    message = schema.new("LayerParameter")
    message.CopyFrom(layer.message)
    for rule in message.include:
        for name in _DECIDED:
            rule.ClearField(name)
    # it was not excluded, so that a rule with such a condition does not hold
    kept = [rule for rule in message.exclude if not _has_more(rule)]
    del message.exclude[:]
    message.exclude.extend(kept)
    return replace(layer, message=message)


def _has_more(rule: Any) -> bool:
    """Does a rule ask for more than a phase?"""
    return any(field.name in _DECIDED for field, _ in rule.ListFields())


def _losses(layers: Sequence[LayerSpec], trained: set[str]) -> set[int]:
    """Places of the layers that only measure; ``trained`` names those with parameters."""
    found: set[int] = set()
    read: set[str] = set()  # by the layers that follow
    for place, layer in reversed(list(enumerate(layers))):
        known = registry().get(layer.type)
        is_end = layer.name not in trained and not read.union(layer.bottoms) & set(layer.tops)
        if (
            (known is not None and known.loss)
            or layer.type in _MEASURES
            or (any(layer.loss_weights) and is_end)
        ):
            found.add(place)
        read.difference_update(layer.tops)
        if place not in found and layer.tops:  # what only ends there is not used
            read.update(layer.bottoms)
    return found


def _reading(layers: Sequence[LayerSpec], gone: set[int]) -> set[int]:
    """Places of the layers that read what those at the places ``gone`` make, or what such readers
    make."""
    found: set[int] = set()
    lost: set[str] = set()
    for place, layer in enumerate(layers):
        if place not in gone and not lost.isdisjoint(layer.bottoms):
            found.add(place)
        if place in gone or place in found:
            lost.update(layer.tops)
        else:
            lost.difference_update(layer.tops)
    return found


def _reaches(layers: Sequence[LayerSpec], start: set[str], stop: set[int]) -> dict[int, set[str]]:
    """For each layer, which of the start blobs its values descend from; layers in ``stop`` pass
    nothing on."""
    origin: dict[str, set[str]] = {name: {name} for name in start}
    found: dict[int, set[str]] = {}
    for i, layer in enumerate(layers):
        if is_data(layer):
            continue
        above = (
            set().union(*(origin.get(b, set()) for b in layer.bottoms)) if layer.bottoms else set()
        )
        found[i] = above
        for top in layer.tops:
            origin[top] = set() if i in stop else above
    return found


def _undo_splits(layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Without Split and Dropout; their readers read the original blob."""
    alias: dict[str, str] = {}
    kept = []
    for layer in layers:
        bottoms = [alias.get(b, b) for b in layer.bottoms]
        if layer.type in ("Split", "Dropout") and len(bottoms) == 1:
            for top in layer.tops:
                if top != bottoms[0]:
                    alias[top] = bottoms[0]
            continue
        for top in layer.tops:
            alias.pop(top, None)
        kept.append(
            layer if tuple(bottoms) == layer.bottoms else layer.with_blobs(bottoms, layer.tops)
        )
    return kept


def _input_shape(net: NetSpec, data: LayerSpec, top: str, weights: Weights | None) -> Shape | None:
    """Batch 1 of what the data layer would give, as far as definition and weights tell."""
    message = data.message
    if _known(data):
        shapes = make(data, TEST).output_shapes([])
        place = data.tops.index(top)
        if place < len(shapes):
            return (1, *shapes[place][1:])
    crop = message.transform_param.crop_size or message.data_param.crop_size
    if not crop or weights is None:
        return None
    for layer in net.layers:
        if top in layer.bottoms and layer.type == "Convolution" and layer.name in weights:
            stored = weights[layer.name][0].shape
            if len(stored) > 1:  # not one that another layer owns
                channels = stored[1] * layer.message.convolution_param.group
                return (1, channels, crop, crop)
    return None


def input_layer(inputs: Mapping[str, Shape]) -> LayerSpec:
    """An ``Input`` layer with these tops."""
    message = schema.new("LayerParameter", name="input", type="Input")
    for name, shape in inputs.items():
        message.top.append(name)
        message.input_param.shape.add().dim.extend(shape)
    return LayerSpec.of(message)


def derive(
    net: NetSpec, weights: Weights | None = None, input_shapes: Mapping[str, Shape] | None = None
) -> tuple[NetSpec, list[Dropped]]:
    """The deploy net of a training net.

    Parameters
    ----------
    net : definition, usually the one embedded in a snapshot; a deploy net comes back unchanged.
    weights : parameters; they tell which layers are trained and how many channels the input has.
    input_shapes : sizes of inputs that the definition does not tell.

    Returns
    -------
    The deploy definition with an ``Input`` layer, and what was left out and why.

    Raises
    ------
    UnknownInput : the size of an input is not told anywhere.
    PrototxtError : nothing is left.
    """
    kept_in_test = net.filter(TEST).layers
    kept_places = set(map(id, kept_in_test))
    report = [
        Dropped(layer.name, layer.type, "not in the TEST phase")
        for layer in net.layers
        if id(layer) not in kept_places
    ]
    trained = _trained(net.layers, weights)
    if _is_deploy(net.layers, trained):
        return replace(net, layers=tuple(layer.without("phase") for layer in net.layers)), report
    layers = [layer.without("phase") for layer in kept_in_test]
    dropped, images = _only_for_training(layers, trained)
    kept = [
        layer.without("loss_weight")
        for i, layer in enumerate(layers)
        if i not in dropped and layer.type != "Input"
    ]
    rest = _undo_splits(kept)
    names = {layer.name for layer in rest}
    report += [Dropped(layers[i].name, layers[i].type, why) for i, why in sorted(dropped.items())]
    report += [
        Dropped(
            layer.name,
            layer.type,
            "identity in testing" if layer.type == "Dropout" else "inserted copy",
        )
        for layer in kept
        if layer.name not in names and layer.type in ("Dropout", "Split")
    ]
    if not rest:
        raise PrototxtError(
            "nothing is left once data, losses and labels are taken out", file=net.file
        )
    if not any(layer.bottoms for layer in rest):
        raise UnknownInput(
            "the definition inside the model holds the names of its layers only, not what they "
            "read: give the deploy definition with --prototxt",
            blob="",
            file=net.file,
        )
    read = dict.fromkeys(b for layer in rest for b in layer.bottoms)
    inputs = [name for name in read if name in images]
    if not inputs:
        raise UnknownInput(
            "no layer with parameters reads what a data layer brings in: give the deploy "
            "definition with --prototxt",
            blob="",
            file=net.file,
        )
    shapes = _input_shapes(net, inputs, weights, input_shapes or {})
    made_net = replace(
        net, layers=(input_layer(shapes), *rest), force_backward=False, debug_info=False
    )
    return made_net, report


def _trained(layers: Sequence[LayerSpec], weights: Weights | None) -> set[str]:
    """Names of the layers that have parameters."""
    if weights:
        return {entry.name for entry in weights.layers if entry.blobs}
    known = registry()
    return {layer.name for layer in layers if layer.type in known and known[layer.type].blob_names}


def _is_deploy(layers: Sequence[LayerSpec], trained: set[str]) -> bool:
    """Are these the layers of a deploy net: fed by Input layers alone, and without a loss?"""
    return (
        not any(is_data(layer) and layer.type != "Input" for layer in layers)
        and not _losses(layers, trained)
        and any(layer.type == "Input" for layer in layers)
    )


def _only_for_training(
    layers: Sequence[LayerSpec], trained: set[str]
) -> tuple[dict[int, str], set[str]]:
    """Places of the layers that a deploy net does not have, each with the reason; and the blobs
    that the layers with parameters descend from, which become its inputs."""
    made = {top for layer in layers for top in layer.tops}
    # tops of data layers that exist in TRAIN only are still what the network reads
    loose = {b for layer in layers for b in layer.bottoms if b not in made}
    starts = {top for layer in layers if is_data(layer) for top in layer.tops} | loose
    losses = _losses(layers, trained)
    readers_of_losses = _reading(layers, losses)
    origin = _reaches(layers, starts, losses)
    images = (
        set().union(*(origin[i] for i in origin if layers[i].name in trained)) if origin else set()
    )
    dropped: dict[int, str] = {}
    for i, layer in enumerate(layers):
        if is_data(layer):
            if layer.type != "Input" or not images.intersection(layer.tops):
                dropped[i] = "data layer"
        elif i in losses:
            dropped[i] = "loss or measure"
        elif i in readers_of_losses:
            dropped[i] = "reads a loss"
        elif origin[i] - images:
            dropped[i] = "reads labels"
    return dropped, images


def _input_shapes(
    net: NetSpec, inputs: Sequence[str], weights: Weights | None, given: Mapping[str, Shape]
) -> dict[str, Shape]:
    """The shapes of a deploy net's inputs: those given, else what the data layers tell.

    Raises
    ------
    UnknownInput : the size of an input is not told anywhere.
    """
    data = {top: layer for layer in net.layers if is_data(layer) for top in layer.tops}
    shapes: dict[str, Shape] = {}
    for name in inputs:
        shape = given.get(name) or (
            _input_shape(net, data[name], name, weights) if name in data else None
        )
        if shape is None:
            raise UnknownInput(
                f"the training net does not tell the size of its input '{name}': give it to "
                f"cpm-convert with --input-shape {name}:1,C,H,W, or give the deploy definition "
                "with --prototxt",
                blob=name,
                file=net.file,
            )
        shapes[name] = tuple(shape)
    return shapes
