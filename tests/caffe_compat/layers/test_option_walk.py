"""No option is read and then dropped: a walk over every field of every layer's parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caffe_compat import CaffeCompatError, Net, read_net
from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.layers import registry
from caffe_compat.training.solver import Solver
from tests.paths import GOLDEN, ROOT

_INDEX = GOLDEN / "layers" / "index.json"
_CASES: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []

# Fields that may change without any effect, each with the reason.
_WITHOUT_EFFECT = {
    "engine": "chooses among Caffe's own kernels",
    "force_nd_im2col": "chooses among Caffe's own kernels",
    "stable_prod_grad": "two ways to compute one gradient, equal but for rounding",
    "variance_norm": "read by the xavier and msra fillers only",
    "share_in_parallel": "about several GPUs in one process",
    "debug_info": "printing",
}
# The same for one type of layer only.
_OF_A_TYPE = {
    ("Im2col", "num_output"): "of the convolution that Im2col prepares; Caffe's ignores it, too",
    ("Im2col", "bias_term"): "of the convolution that Im2col prepares; Caffe's ignores it, too",
    ("Im2col", "group"): "of the convolution that Im2col prepares; Caffe's ignores it, too",
    ("InfogainLoss", "source"): "the third bottom stands in for it; refused where there is none",
}


def _values(message: Any, field: Any) -> Iterator[Any]:
    """Other values for a field than the one it has."""
    now = getattr(message, field.name)
    if field.message_type is not None:
        return
    repeated = schema.is_repeated(field)
    old = next(iter(now)) if repeated and len(now) else (0 if repeated else now)
    if field.enum_type is not None:
        yield from (n for n in field.enum_type.values_by_number if n != old)
    elif field.type == field.TYPE_BOOL:
        yield not old
    elif field.type == field.TYPE_STRING:
        yield "other"
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        yield from (old + 0.625, old - 0.375, 2.5)
    else:
        yield from (old + 1, old + 2, max(old - 1, 0), 0)


def _changed(net: NetSpec, place: int, option: str, field: Any, value: Any) -> NetSpec:
    layer = net.layers[place]
    message = type(layer.message)()
    message.CopyFrom(layer.message)
    options = getattr(message, option)
    options.SetInParent()
    if schema.is_repeated(field):
        getattr(options, field.name)[:] = [value] * max(1, len(getattr(options, field.name)))
    else:
        setattr(options, field.name, value)
    made = LayerSpec.of(message, layer.lines, layer.file)
    layers = (*net.layers[:place], made, *net.layers[place + 1 :])
    return NetSpec(net.name, layers, True, net.state, net.debug_info, net.file)


def _outcome(net: NetSpec, case: dict[str, Any]) -> Any:
    """What a net does: shapes, parameters, blobs and gradients; or what is said against it."""
    try:
        made = Net(net, phase=case["phase"], stages=case["stages"], level=case["level"])
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(5)
        first = [t.detach().clone() for _, _, t in made.owned_params()]
        with torch.no_grad():
            for _, _, tensor in made.owned_params():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        with np.load(GOLDEN / "layers" / f"{case['name']}.npz") as file:
            given = {
                key[3:]: torch.from_numpy(file[key]).requires_grad_()
                for key in file.files
                if key.startswith("in:")
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
    return [(tuple(t.shape), t.detach().double().nan_to_num(7, 7, -7)) for t in tensors]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b)
    return len(a) == len(b) and all(
        x[0] == y[0] and torch.equal(x[1], y[1]) for x, y in zip(a, b, strict=True)
    )


@cache
def _cases_of(kind: str) -> tuple[tuple[dict[str, Any], NetSpec, int], ...]:
    found = []
    for case in _CASES:
        net = read_net(GOLDEN / "layers" / f"{case['name']}.prototxt")
        net = net.filter(case["phase"], case["level"], case["stages"])
        place = next((i for i, layer in enumerate(net.layers) if layer.type == kind), None)
        if place is not None and len(net.layers) < 8:
            found.append((case, net, place))
    return tuple(found)


def _has_effect(kind: str, option: str, field: Any) -> bool:
    for case, net, place in _cases_of(kind):
        before = _outcome(NetSpec(net.name, net.layers, True, net.state), case)
        options = getattr(net.layers[place].message, option)
        for value in _values(options, field):
            try:
                other = _changed(net, place, option, field, value)
            except ValueError:
                continue  # out of the field's range
            if not _same(before, _outcome(other, case)):
                return True
    return False


def _walk() -> Iterator[Any]:
    for kind, cls in registry().items():
        if not cls.option or cls.data or not _cases_of(kind):
            continue
        for field in (
            schema.message_class("LayerParameter")
            .DESCRIPTOR.fields_by_name[cls.option]
            .message_type.fields
        ):
            if field.message_type is None:
                yield pytest.param(kind, cls.option, field, id=f"{kind}.{field.name}")


_ABSENT = pytest.param(
    None,
    None,
    None,
    id="absent",
    marks=pytest.mark.skip(reason=f"no recorded outputs at {GOLDEN} (set CPM_GOLDEN)"),
)


@pytest.mark.golden
@pytest.mark.parametrize(("kind", "option", "field"), list(_walk()) or [_ABSENT])
def test_every_option_changes_something(kind: str, option: str, field: Any) -> None:
    """Changing it changes shapes, first values, blobs or gradients, or is refused."""
    if field.name in _WITHOUT_EFFECT or (kind, field.name) in _OF_A_TYPE:
        return
    assert _has_effect(kind, option, field)


def test_solver_fields_without_effect_are_named(tmp_path: Path) -> None:
    """A note names each setting that means nothing here."""
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } } '
        'layer { name: "s" type: "Scale" bottom: "x" top: "y" loss_weight: 1 '
        "scale_param { axis: 0 } }"
    )
    given = {"solver_mode": "CPU", "device_id": "0", "debug_info": "true", "snapshot_diff": "true"}
    given["layer_wise_reduce"] = "false"
    text = " ".join(f"{name}: {value}" for name, value in given.items())
    solver = Solver(
        parse_solver(f'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" {text}'), root=tmp_path
    )
    assert {note.split()[0] for note in solver.warnings} == given.keys()


@pytest.mark.parametrize(
    "name", [f.name for f in schema.message_class("SolverParameter").DESCRIPTOR.fields]
)
def test_solver_fields_are_read_somewhere(name: str) -> None:
    """A field of the schema that no code mentions would be dropped in silence."""
    names = ("caffe_compat/training", "caffe_compat/definition", "reproduce/train")
    places = [ROOT / name for name in names]
    files = [file for place in places for file in place.glob("*.py") if "table" not in file.name]
    assert any(re.search(rf"\b{name}\b", file.read_text()) for file in files)
