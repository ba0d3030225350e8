"""No option is read and then dropped: a walk over every field of every layer's parameter.

Solvers and data layers have walks of their own, beside their tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor

from caffe_compat import CaffeCompatError, Net, parse_net, read_net
from caffe_compat.definition import schema
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.layers import registry
from caffe_compat.layers.base import FILLERS
from caffe_compat.layers.python import PythonLayer, register_python
from caffe_compat.network.fillers import fill
from caffe_compat.training.sources import ignored
from tests.caffe_compat.layers.test_fork_layers import CASES
from tests.paths import GOLDEN

_INDEX = GOLDEN / "layers" / "index.json"
_RECORDED: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []
Arrays = Mapping[str, npt.NDArray[np.float32]]

# Fields that may change without any effect, each with the reason.
_WITHOUT_EFFECT = {
    "engine": "chooses among Caffe's own kernels",
    "force_nd_im2col": "chooses among Caffe's own kernels",
    "stable_prod_grad": "two ways to compute one gradient, equal but for rounding",
    "share_in_parallel": "about several GPUs in one process",
    "debug_info": "printing",
}
# The same for one type of layer only.
_OF_A_TYPE = {
    ("Im2col", "num_output"): "of the convolution that Im2col prepares; Caffe's ignores it, too",
    ("Im2col", "bias_term"): "of the convolution that Im2col prepares; Caffe's ignores it, too",
    ("Im2col", "group"): "of the convolution that Im2col prepares; Caffe's ignores it, too",
    ("Im2col", "weight_filler.type"): "of the convolution that Im2col prepares, which has weights",
    ("Im2col", "bias_filler.type"): "of the convolution that Im2col prepares, which has weights",
    ("InfogainLoss", "source"): "the third bottom stands in for it; refused where there is none",
    ("ConvolutionDepthwise", "group"): "the fork's layer has one group for each channel, always",
    ("ConvolutionDepthwise", "axis"): "the fork's layer takes N×C×H×W, always",
    ("Pooling", "ceil_mode"): "is round_mode, once a definition is read",
    ("DetectionOutput", "visualize"): "shows pictures in a window; the top is the same",
    ("DetectionOutput", "visualize_threshold"): "of visualize",
    ("DetectionOutput", "save_file"): "a film of what visualize shows",
}
# Of save_output_param only the folder counts: without it nothing is written, with it we refuse.
_WITH_A_FOLDER = ("output_directory",)


@register_python(module="walk")
class Longer(PythonLayer):
    """The bottom times the length of ``param_str``."""

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = len(self.param_str) * bottom[0].data


def _made(*shape: int, low: float = -1.0) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(len(shape)).uniform(low, 1, shape)
    return values.astype(np.float32)


_SEQUENCE = {"x": _made(3, 2, 4), "cont": np.array([[0, 0], [1, 1], [1, 0]], np.float32)}
_CORNERS = np.array([[1, 1, 4, 5], [2, 1, 5, 5], [6, 6, 9, 9], [0, 5, 3, 9]], np.float32) / 10
_BOXES = {
    "loc": _made(1, 32) * 0.1,
    "conf": np.array([[1, 6, 3, 2, 5, 3, 4, 1, 5, 5, 3, 2]], np.float32) / 10,
    "prior": np.stack([_CORNERS.ravel(), np.full(16, 0.2, np.float32)])[None],
}
_ONE_BOX = {**_BOXES, "loc": _made(1, 16) * 0.1}
_DETECT = "DetectionOutput detection_output_param {"
# "TYPE options" of one layer and its inputs, beside the cases of the forks' layers
_OWN: list[tuple[str, Arrays]] = [
    *((layer, inputs) for layer, inputs, _, _ in CASES),
    ("Swish", {"x": _made(2, 3)}),
    ("Clip clip_param { min: -0.5 max: 0.5 }", {"x": _made(2, 3)}),
    ("Parameter parameter_param { shape { dim: 2 } }", {}),
    ("LSTM recurrent_param { num_output: 2 }", _SEQUENCE),
    ("RNN recurrent_param { num_output: 2 }", _SEQUENCE),
    ("HDF5Output hdf5_output_param { file_name: 'a.h5' }", {"x": _made(2, 3), "y": _made(2, 1)}),
    ("Python python_param { module: 'walk' layer: 'Longer' }", {"x": _made(2, 3)}),
    (
        "PriorBox prior_box_param { min_size: 4 }",
        {"x": _made(1, 2, 3, 4), "i": _made(1, 3, 24, 32)},
    ),
    (
        "PriorBox prior_box_param { min_size: 9 aspect_ratio: 2 }",
        {"x": _made(1, 2, 3, 4), "i": _made(1, 3, 24, 32)},
    ),
    (f"{_DETECT} num_classes: 3 share_location: false }}", {**_BOXES, "loc": _made(1, 48) * 0.1}),
    (f"{_DETECT} num_classes: 3 nms_param {{ nms_threshold: 0.2 }} }}", _ONE_BOX),
    (f"{_DETECT} num_classes: 3 nms_param {{ nms_threshold: 0.9 eta: 0.9 }} }}", _ONE_BOX),
]


@dataclass(frozen=True)
class _Scene:
    """A net with a layer at ``place``, and what goes in."""

    net: NetSpec
    place: int
    given: Arrays
    phase: str = "TEST"
    level: int = 0
    stages: tuple[str, ...] = field(default=())


def _net_of(layer: str, inputs: Arrays) -> NetSpec:
    head = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {d}' for d in value.shape)} }} }} }}\n"
        for name, value in inputs.items()
    )
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    kind, _, options = layer.partition(" ")
    top = "" if kind == "HDF5Output" else 'top: "top"'
    return parse_net(f'{head}layer {{ name: "l" type: "{kind}" {bottoms} {top} {options} }}')


@cache
def _scenes_of(kind: str) -> tuple[_Scene, ...]:
    found = []
    for case in _RECORDED:
        net = read_net(GOLDEN / "layers" / f"{case['name']}.prototxt")
        net = net.filter(case["phase"], case["level"], case["stages"])
        place = next((i for i, layer in enumerate(net.layers) if layer.type == kind), None)
        if place is None or len(net.layers) >= 8:
            continue
        with np.load(GOLDEN / "layers" / f"{case['name']}.npz") as file:
            given = {key[3:]: file[key] for key in file.files if key.startswith("in:")}
        net = NetSpec(net.name, net.layers, True, net.state)
        found.append(_Scene(net, place, given, case["phase"], case["level"], tuple(case["stages"])))
    for layer, inputs in _OWN:
        if layer.split()[0] == kind:
            net = _net_of(layer, inputs)
            net = NetSpec(net.name, net.layers, True, net.state)
            found += [_Scene(net, len(inputs), inputs, phase) for phase in ("TEST", "TRAIN")]
    return tuple(found)


def paths(descriptor: Any, before: str = "") -> Iterator[str]:
    """Every field by its dotted name; of a filler the type alone, fillers have a test of theirs."""
    for one in descriptor.fields:
        inner = one.message_type
        if inner is None:
            yield before + one.name
        elif inner.name == "FillerParameter":
            yield f"{before}{one.name}.type"
        else:
            yield from paths(inner, f"{before}{one.name}.")


def _inside(message: Any, path: str) -> tuple[Any, Any]:
    """The message that holds a field, made where it is missing, and the field."""
    *parts, name = path.split(".")
    for part in parts:
        one = message.DESCRIPTOR.fields_by_name[part]
        message = getattr(message, part)
        if schema.is_repeated(one):
            message = message[0] if len(message) else message.add()
        message.SetInParent()
    return message, message.DESCRIPTOR.fields_by_name[name]


def _values(message: Any, one: Any) -> Iterator[Any]:
    """Other values for a field than the one it has."""
    now = getattr(message, one.name)
    repeated = schema.is_repeated(one)
    old = next(iter(now)) if repeated and len(now) else (0 if repeated else now)
    if one.enum_type is not None:
        yield from (n for n in one.enum_type.values_by_number if n != old)
    elif one.type == FieldDescriptor.TYPE_BOOL:
        yield not old
    elif one.type == FieldDescriptor.TYPE_STRING:
        yield from ("uniform",) if message.DESCRIPTOR.name == "FillerParameter" else ("other", "3")
    elif one.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        yield from (old + 0.625, old - 0.375, 2.5, 0.3)
    else:
        yield from (old + 1, old + 2, max(old - 1, 0), 0, 16)


def changed_layers(layer: LayerSpec, path: str) -> Iterator[LayerSpec]:
    """A layer with other values of one option, "MESSAGE.FIELD"."""
    probe = type(layer.message)()
    probe.CopyFrom(layer.message)
    for value in _values(*_inside(probe, path)):
        message = type(layer.message)()
        message.CopyFrom(layer.message)
        holder, one = _inside(message, path)
        try:
            if schema.is_repeated(one):
                getattr(holder, one.name)[:] = [value] * max(1, len(getattr(holder, one.name)))
            else:
                setattr(holder, one.name, value)
        except ValueError:
            continue  # out of the field's range
        yield LayerSpec.of(message, layer.lines, layer.file)


def _changed(scene: _Scene, path: str) -> Iterator[NetSpec]:
    """The scene's net with other values of one option."""
    layers, place = scene.net.layers, scene.place
    for made in changed_layers(layers[place], path):
        yield NetSpec(scene.net.name, (*layers[:place], made, *layers[place + 1 :]), True)


def _outcome(net: NetSpec, scene: _Scene) -> Any:
    """What a net does: shapes, parameters, blobs, gradients, files; or what is said against it."""
    try:
        made = Net(net, phase=scene.phase, stages=scene.stages, level=scene.level)
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(5)
        first = [t.detach().clone() for _, _, t in made.owned_params()]
        with torch.no_grad():
            for _, _, tensor in made.owned_params():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        given = {
            name: torch.from_numpy(value.copy()).requires_grad_()
            for name, value in scene.given.items()
        }
        found = made.all_blobs(**given)
        graded = [t for t in found.values() if t.requires_grad and t.grad_fn is not None]
        if graded:
            weights = [torch.linspace(0.5, 1.5, t.numel()).reshape(t.shape) for t in graded]
            torch.autograd.backward(graded, weights)
        diffs = [t.grad for t in given.values() if t.grad is not None]
    except CaffeCompatError as error:
        return str(error)
    after = [t.detach() for _, _, t in made.owned_params()]
    tensors = [*first, *found.values(), *diffs, *after]
    files = sorted(path.name for path in Path().iterdir())
    return files, [(tuple(t.shape), t.detach().double().nan_to_num(7, 7, -7)) for t in tensors]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b)
    return (
        a[0] == b[0]
        and len(a[1]) == len(b[1])
        and all(x[0] == y[0] and torch.equal(x[1], y[1]) for x, y in zip(a[1], b[1], strict=True))
    )


def _has_effect(kind: str, path: str) -> bool:
    for scene in _scenes_of(kind):
        before = _outcome(scene.net, scene)
        if any(not _same(before, _outcome(net, scene)) for net in _changed(scene, path)):
            return True
    return False


def _is_noted(kind: str, path: str) -> bool:
    """Is it said where the layer is trained that the option changes nothing?"""
    part = path.partition(".")[0]
    return all(
        any(f": {part} has no effect in a {kind} layer" in note for note in ignored(layer))
        for scene in _scenes_of(kind)
        for layer in changed_layers(scene.net.layers[scene.place], path)
    )


def _walk() -> Iterator[Any]:
    fields = schema.message_class("LayerParameter").DESCRIPTOR.fields_by_name
    for kind, cls in registry().items():
        options = [cls.option] if cls.option and not cls.data else []
        options += ["loss_param"] if cls.loss and _RECORDED else []
        for option in options:
            for path in paths(fields[option].message_type) if _scenes_of(kind) else ():
                yield pytest.param(kind, f"{option}.{path}", id=f"{kind}.{path}")


def _excused(kind: str, path: str) -> bool:
    """Is it written down why the option changes nothing?"""
    name = path.partition(".")[2]
    if name.startswith("save_output_param."):
        return not name.endswith(_WITH_A_FOLDER)
    return name in _WITHOUT_EFFECT or (kind, name) in _OF_A_TYPE


@pytest.mark.long
@pytest.mark.parametrize(("kind", "path"), list(_walk()))
def test_every_option_changes_something(
    kind: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing it changes shapes, first values, blobs or gradients, or is refused; or a note says
    that it changes nothing."""
    monkeypatch.chdir(tmp_path)
    assert _excused(kind, path) or _has_effect(kind, path) != _is_noted(kind, path)


@pytest.mark.skipif(not _RECORDED, reason=f"no recorded outputs at {GOLDEN} (set CPM_GOLDEN)")
def test_no_type_is_left_out() -> None:
    """Data layers have a walk of their own; types without options have nothing to walk over."""
    walked = {kind for kind, cls in registry().items() if cls.data or _scenes_of(kind)}
    assert {kind for kind, cls in registry().items() if cls.option} <= walked


# What each filler looks at; Caffe's ignore the rest, as ours do.
_OF_FILLERS = {
    "constant": {"value"},
    "uniform": {"min", "max"},
    "gaussian": {"mean", "std", "sparse"},
    "positive_unitball": set(),
    "xavier": {"variance_norm"},
    "msra": {"variance_norm"},
    "bilinear": set(),
}


@pytest.mark.parametrize("kind", FILLERS)
def test_every_filler_option_changes_the_values(kind: str) -> None:
    def values(filler: Any) -> torch.Tensor:
        blob = torch.zeros(4, 3, 5, 5)
        fill(blob, filler, torch.Generator().manual_seed(1))
        return blob

    plain = schema.new("FillerParameter", type=kind)
    changing = set()
    for one in plain.DESCRIPTOR.fields:
        for value in _values(plain, one):
            other = schema.new("FillerParameter", type=kind)
            setattr(other, one.name, value)
            if other.min > other.max or other.std < 0:
                continue  # refused where a layer is made
            if one.name != "type" and not torch.equal(values(plain), values(other)):
                changing.add(one.name)
    assert changing == _OF_FILLERS[kind]
