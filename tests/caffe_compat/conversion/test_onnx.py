"""ONNX models against our own outputs, run by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from caffe_compat import Net, parse_net, read_net, write_weights
from caffe_compat.conversion.convert import convert
from caffe_compat.conversion.onnx import forms, silenced, to_onnx
from caffe_compat.conversion.onnx_steps import CONVERTERS, OnnxError
from caffe_compat.errors import CaffeCompatError
from caffe_compat.layers import registry
from caffe_compat.network.graph import Graph, build
from caffe_compat.weights.model import Weights
from reproduce.cli.convert import main as cli
from tests import tolerances
from tests.caffe_compat.layers.test_fork_layers import CASES as FORK_CASES
from tests.caffe_compat.layers.test_fork_layers import net_of
from tests.nets import model_file
from tests.paths import DATA, GOLDEN, listed, needs_data

ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
pytest.importorskip("onnx", reason="the extra onnx is not installed")

Arrays = Mapping[str, npt.NDArray[np.float32]]

# Losses and Accuracy have no place in a deploy net; the others ask for what ONNX cannot say: code
# or files of the user, a number of rows that the values decide, parameters of a batch.
NO_FORM = {
    *("Accuracy", "ContrastiveLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss"),
    *("MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "SmoothL1Loss", "SoftmaxWithLoss"),
    *("DetectionOutput", "Filter", "HDF5Output", "PSROIPooling", "Python"),
}


def _check(
    graph: Graph, weights: Weights, runs: Sequence[Arrays], limit: float = 1e-5, **options: Any
) -> None:
    """The model's outputs on every set of inputs equal ours."""
    model = to_onnx(graph, weights, **options)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    read = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    for inputs in runs:
        net = Net(graph, weights, strict=False)
        with torch.no_grad():
            tensors = {name: torch.from_numpy(v) for name, v in inputs.items()}
            ours = net(blobs=[*graph.outputs, *silenced(graph)], **tensors)
        theirs = session.run(outputs, {name: inputs[name] for name in read})
        for name, other in zip(outputs, theirs, strict=True):
            mine = ours[name if name in ours else name.removesuffix("_out")].detach().numpy()
            assert mine.shape == other.shape, name
            scale = np.nanmax(np.abs(mine), initial=1e-6)
            np.testing.assert_allclose(mine, other, rtol=0, atol=limit * scale, err_msg=name)


_INDEX = GOLDEN / "layers" / "index.json"
_LAYERS: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []


def _own_batch(case: dict[str, Any], error: OnnxError) -> bool:
    """Is it a batch norm on the batch's statistics, or a cut through the batch?"""
    text = str(error)
    return "statistics of the batch" in text or "cuts an axis whose size changes" in text


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _LAYERS))
def test_recorded_layers(case: dict[str, Any]) -> None:
    """Every recorded small net: the recorded inputs, and twice the batch."""
    with np.load(GOLDEN / "layers" / f"{case['name']}.npz") as file:
        inputs = {key[3:]: file[key] for key in file.files if key.startswith("in:")}
    spec = read_net(GOLDEN / "layers" / f"{case['name']}.prototxt")
    net = Net(spec, phase=case["phase"], stages=case["stages"], level=case["level"])
    types = {node.layer.type for node in net.graph.nodes if not node.layer.data}
    double = {n: np.concatenate([v, v]) if v.ndim else v for n, v in inputs.items()}
    try:
        _check(net.graph, net.weights(), [inputs, double])
    except OnnxError as error:
        assert types & NO_FORM or _own_batch(case, error), error
        assert all(f"({name})" in str(error) for name in types & NO_FORM)
    else:
        assert not types & NO_FORM


@pytest.mark.parametrize(
    ("layer", "inputs"), [c[:2] for c in FORK_CASES], ids=[c[0][:50] for c in FORK_CASES]
)
def test_layers_of_the_forks(layer: str, inputs: Arrays) -> None:
    net = net_of(layer, **inputs)
    if layer.split()[0] in NO_FORM or "LEARN" in layer:
        with pytest.raises(OnnxError, match="no ONNX form"):
            to_onnx(net.graph, net.weights())
        return
    if "r" in inputs:  # ONNX wants regions inside of the map, the right way round
        inputs = {**inputs, "r": inputs["r"][[0, 1, 2]]}
    runs = [inputs]
    if "r" not in inputs:
        runs.append({n: np.concatenate([v, v, v]) for n, v in inputs.items()})
    _check(net.graph, net.weights(), runs)


_X = np.random.default_rng(4).standard_normal((2, 3, 4, 5), dtype=np.float32)
# types that no recorded net has
_OWN: list[tuple[str, Arrays]] = [
    ("Clip clip_param { min: -0.5 max: 0.75 }", {"x": _X}),
    ("Clip clip_param { min: 0.75 max: -0.5 }", {"x": _X}),
    ("Swish", {"x": _X}),
    ("Swish swish_param { beta: 2.5 }", {"x": _X}),
    ('Split top: "u"', {"x": _X}),
    ("Parameter parameter_param { shape { dim: 2 dim: 3 } }", {}),
    (
        "PriorBox prior_box_param { min_size: 4 max_size: 9 aspect_ratio: 2 }",
        {"x": _X, "image": np.zeros((2, 3, 16, 20), np.float32)},
    ),
]


@pytest.mark.parametrize(("layer", "inputs"), _OWN, ids=[layer for layer, _ in _OWN])
def test_layers_that_are_not_recorded(layer: str, inputs: Arrays) -> None:
    net = net_of(layer, **inputs)
    double = {name: np.concatenate([value, value]) for name, value in inputs.items()}
    _check(net.graph, net.weights(), [inputs, double])


_RECURRENT = {"LSTM", "LSTMUnit", "RNN"}


def _sequence_models() -> tuple[list[Path], list[Path]]:
    """Recorded nets with a recurrent layer: those that a model can be made of, and the others (what
    Caffe refuses, and training nets with a layer that has no ONNX form)."""
    models: list[Path] = []
    others: list[Path] = []
    for path in sorted((GOLDEN / "random").glob("*.json")):
        types = {layer.type for layer in read_net(path.with_suffix(".prototxt")).layers}
        if types & _RECURRENT:
            accepted = json.loads(path.read_text())["accepted"]
            (models if accepted and not types & NO_FORM else others).append(path)
    return models, others


_SEQUENCES, _NO_SEQUENCES = _sequence_models()


@pytest.mark.parametrize("path", listed((p, p.stem) for p in _SEQUENCES))
def test_sequences(path: Path) -> None:
    """Unrolled, from zero states."""
    case = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as file:
        inputs = {key[3:]: file[key] for key in file.files if key.startswith("in:")}
    net = Net(read_net(path.with_suffix(".prototxt")), phase=case["phase"])
    _check(net.graph, net.weights(), [inputs], dynamic_batch=False)


@pytest.mark.golden
@pytest.mark.skipif(not _SEQUENCES, reason=f"no recorded outputs at {GOLDEN} (set CPM_GOLDEN)")
def test_sequences_that_are_no_model() -> None:
    """Nothing is exported of a net that Caffe refuses, nor of a layer without ONNX form, and the
    error says which."""
    for path in _NO_SEQUENCES:
        case = json.loads(path.read_text())
        spec = read_net(path.with_suffix(".prototxt"))
        if not case["accepted"]:
            with pytest.raises(CaffeCompatError):
                Net(spec, phase=case["phase"])
            continue
        net = Net(spec, phase=case["phase"])
        with pytest.raises(OnnxError, match="no ONNX form") as caught:
            to_onnx(net.graph, net.weights(), dynamic_batch=False)
        types = {layer.type for layer in spec.layers} & NO_FORM
        assert types
        assert all(f"({name})" in str(caught.value) for name in types)


@needs_data
@pytest.mark.parametrize(
    "path", listed((p, p.stem) for p in sorted((GOLDEN / "models").glob("*.json")))
)
def test_public_models(path: Path) -> None:
    case = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as file:
        inputs = {key[3:]: file[key] for key in file.files if key.startswith("in:")}
    root = DATA / "caffemodels"
    made = convert(
        root / case["model"],
        prototxt=root / case["prototxt"],
        input_shapes={name: tuple(v.shape) for name, v in inputs.items()},
    )
    for name in made.graph.inputs:
        inputs.setdefault(name, np.zeros(made.graph.blobs[name], np.float32))
    double = {n: np.concatenate([v, v]) for n, v in inputs.items()}
    _check(made.graph, made.weights, [inputs, double], tolerances.MODEL)


_OFFICIAL = [
    *sorted((GOLDEN / "proto").glob("*/pose_deploy*.prototxt")),
    *sorted((GOLDEN / "release2").glob("*/pose_deploy*.prototxt")),
]


@pytest.mark.parametrize("path", listed((p, p.parent.name) for p in _OFFICIAL))
def test_official_networks(path: Path) -> None:
    """Random weights; a batch of two at a size of its own."""
    spec = read_net(path)
    (name,) = [top for layer in spec.layers if layer.type == "Input" for top in layer.tops]
    channels = spec.layers[0].message.input_param.shape[0].dim[1]
    graph_of = Net(spec, input_shapes={name: (1, channels, 64, 72)}, seed=5)
    rng = np.random.default_rng(2)
    runs = [
        {name: rng.standard_normal((n, channels, h, w), dtype=np.float32)}
        for n, h, w in ((1, 64, 72), (2, 80, 56))
    ]
    _check(graph_of.graph, graph_of.weights(), runs, tolerances.DEPLOY, dynamic_size=True)


_POOLS = [
    f"pool: {method} kernel_size: {k} stride: {s} pad: {p}"
    for method in ("MAX", "AVE")
    for k, s, p in ((2, 2, 0), (3, 2, 1), (3, 3, 2), (2, 2, 1), (2, 3, 0), (3, 1, 1), (5, 4, 2))
]


@pytest.mark.parametrize("options", _POOLS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_pooling_windows_at_any_size(options: str, dynamic: bool) -> None:
    text = f"""
    input: "x" input_shape {{ dim: 1 dim: 3 dim: 12 dim: 13 }}
    layer {{ name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param {{ {options} }} }}
    """
    net = Net(parse_net(text))
    rng = np.random.default_rng(3)
    sizes = [(12, 13)] if not dynamic else [(h, w) for h in range(8, 16) for w in (9, 10, 12)]
    runs = [{"x": rng.standard_normal((2, 3, *size), dtype=np.float32)} for size in sizes]
    _check(net.graph, net.weights(), runs, dynamic_size=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_windows_far_behind_the_image(pool: str, dynamic: bool) -> None:
    """The last windows begin one, two or more places behind it: 0 divided by less than nothing."""
    text = f"""
    input: "x" input_shape {{ dim: 1 dim: 2 dim: 2 dim: 2 }}
    layer {{ name: "p" type: "Pooling" bottom: "x" top: "p"
            pooling_param {{ pool: {pool} kernel_size: 1 stride: 4 }} }}
    """
    net = Net(parse_net(text))
    rng = np.random.default_rng(3)
    sizes = [(2, 2)] if not dynamic else [(2, 2), (3, 6), (7, 2), (10, 11)]
    if pool == "MAX":  # whose windows must hold something
        sizes = [size for size in sizes if set(size) == {2}]
    runs = [{"x": rng.standard_normal((1, 2, *size), dtype=np.float32)} for size in sizes]
    _check(net.graph, net.weights(), runs, dynamic_size=dynamic)


_ROUNDED = {
    "shrunk": ('type: "Interp" interp_param { shrink_factor: 16 }', 4),
    "pooled": ('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', 1),
}


@pytest.mark.parametrize("first", list(_ROUNDED))
@pytest.mark.parametrize(
    "second",
    [
        'type: "Interp" interp_param { zoom_factor: 2 }',
        'type: "Flatten" flatten_param { axis: 2 }',
        'type: "ReLU"',
    ],
)
def test_a_size_that_rounding_hides(first: str, second: str) -> None:
    """A small input and its double are equal behind the first layer, larger ones are not."""
    layer, size = _ROUNDED[first]
    text = f"""
    input: "x" input_shape {{ dim: 1 dim: 1 dim: {size} dim: {size} }}
    layer {{ name: "a" bottom: "x" top: "a" {layer} }}
    layer {{ name: "b" bottom: "a" top: "b" {second} }}
    """
    net = Net(parse_net(text))
    rng = np.random.default_rng(4)
    runs = [
        {"x": rng.standard_normal((1, 1, *sides), dtype=np.float32)}
        for sides in ((size, size), (16, 40), (41, 23))
    ]
    _check(net.graph, net.weights(), runs, dynamic_size=True)


def test_a_second_top_of_pooling_in_a_larger_padding() -> None:
    text = """
    input: "x" input_shape { dim: 2 dim: 3 dim: 7 dim: 9 }
    layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "mask"
            pooling_param { kernel_size: 3 stride: 2 pad: 1 } }
    """
    net = Net(parse_net(text))
    x = np.random.default_rng(3).standard_normal((2, 3, 7, 9), dtype=np.float32)
    _check(net.graph, net.weights(), [{"x": x}])


@pytest.mark.parametrize("name", [*(f"_{n}" for n in range(1, 7)), "x_out", "x_out_"])
def test_blobs_called_as_this_writer_calls_its_own(name: str) -> None:
    text = f"""
    input: "x" input_shape {{ dim: 1 dim: 3 dim: 4 dim: 5 }}
    layer {{ name: "r" type: "ReLU" bottom: "x" top: "x" }}
    layer {{ name: "lrn" type: "LRN" bottom: "x" top: "{name}" }}
    layer {{ name: "p" type: "Power" bottom: "{name}" top: "y" power_param {{ scale: 2 shift: 1 power: 3 }} }}
    """
    net = Net(parse_net(text))
    x = np.random.default_rng(3).standard_normal((1, 3, 4, 5), dtype=np.float32)
    _check(net.graph, net.weights(), [{"x": x}])


def test_every_problem_is_named_at_once() -> None:
    text = """
    input: "x" input_shape { dim: 2 dim: 3 }
    input: "y" input_shape { dim: 2 }
    layer { name: "f" type: "Filter" bottom: "x" bottom: "y" top: "f" }
    layer { name: "bn" type: "BatchNorm" bottom: "x" top: "b" batch_norm_param { use_global_stats: false } }
    layer { name: "cat" type: "Concat" bottom: "f" bottom: "b" top: "c" concat_param { axis: 0 } }
    """
    net = Net(parse_net(text))
    with pytest.raises(OnnxError, match=r"2 layer\(s\).*'f' \(Filter\).*'bn' \(BatchNorm\)"):
        to_onnx(net.graph, net.weights())


def test_a_product_of_the_whole_batch_has_no_form() -> None:
    net = Net(
        parse_net("""
        input: "x" input_shape { dim: 2 dim: 3 }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 4 axis: 0 } }""")
    )
    with pytest.raises(OnnxError, match=r"'ip' .*one row of the whole batch"):
        to_onnx(net.graph, net.weights(), dynamic_batch=False)


def test_a_definition_that_fixes_the_batch_says_so() -> None:
    text = """
    input: "x" input_shape { dim: 2 dim: 6 }
    layer { name: "r" type: "Reshape" bottom: "x" top: "r" reshape_param { shape { dim: 2 dim: 3 dim: 2 } } }
    """
    net = Net(parse_net(text))
    with pytest.raises(OnnxError, match=r"another batch.*layer 'r'.*fixed batch"):
        to_onnx(net.graph, net.weights())
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    _check(net.graph, net.weights(), [{"x": x}], dynamic_batch=False)


def test_every_type_is_said_to_have_a_form_or_not() -> None:
    data = {name for name, cls in registry().items() if cls.data}
    known = forms(set(registry()) - data)
    assert {name for name, has in known.items() if not has} == NO_FORM


@pytest.mark.skipif(not _LAYERS, reason=f"no recorded outputs at {GOLDEN} (set CPM_GOLDEN)")
def test_every_type_with_a_form_is_run() -> None:
    recorded = [GOLDEN / "layers" / f"{case['name']}.prototxt" for case in _LAYERS]
    nets = [read_net(path) for path in recorded]
    nets += [read_net(path.with_suffix(".prototxt")) for path in _SEQUENCES]
    run = {layer.type for net in nets for layer in net.layers}
    run |= {layer.split()[0] for layer, *_ in FORK_CASES}
    run |= {layer.split()[0] for layer, _ in _OWN}
    assert set(CONVERTERS) <= run


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_recurrent_layer_says_how_it_is_exported(kind: str) -> None:
    options = "recurrent_param { num_output: 2 weight_filler { type: 'xavier' } }"
    inputs = {"x": _X[:, :, :, 0], "cont": np.ones((2, 3), np.float32)}
    net = net_of(f"{kind} {options}", **inputs)
    with pytest.raises(OnnxError, match=r"axis 0 must be fixed: give --fixed-batch \(and no --dyn"):
        to_onnx(net.graph, net.weights())
    _check(net.graph, net.weights(), [inputs], dynamic_batch=False)


def test_command(tmp_path: Path) -> None:
    path, net, _ = model_file(tmp_path)
    done = CliRunner().invoke(cli, [str(path), "--to", "onnx"])
    assert done.exit_code == 0, done.output
    session = ort.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((3, 3, 9, 12), dtype=np.float32)
    with torch.no_grad():
        ours = net(torch.from_numpy(x))["prob"].numpy()
    np.testing.assert_allclose(session.run(["prob"], {"data": x})[0], ours, atol=1e-5)
    wrong = CliRunner().invoke(cli, [str(path), "--to", "npz", "--dynamic-size"])
    assert wrong.exit_code == 2
    assert "--to onnx" in wrong.output
    refused = CliRunner().invoke(cli, [str(path), "--to", "onnx", "--dynamic-size"])
    assert refused.exit_code == 2  # the InnerProduct takes one size only
    assert "fixed size" in refused.output


def test_what_ends_in_silence_is_an_output(tmp_path: Path) -> None:
    """Scripts read the result of a colorization net from a blob that Silence alone reads."""
    text = """
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 6, 6] } } }
        layer { name: "a" type: "Convolution" bottom: "data" top: "a"
          convolution_param { num_output: 2 kernel_size: 3 } }
        layer { name: "ab" type: "Convolution" bottom: "a" top: "ab"
          convolution_param { num_output: 2 kernel_size: 1 } }
        layer { name: "quiet" type: "Silence" bottom: "ab" bottom: "data" }"""
    spec = parse_net(text)
    net = Net(spec, seed=1)
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 6), dtype=np.float32)
    assert list(net.graph.outputs) == []
    assert silenced(net.graph) == ["ab"]
    _check(net.graph, net.weights(), [{"data": x}])
    write_weights(tmp_path / "c.caffemodel", net.weights(), spec)
    done = CliRunner().invoke(cli, [str(tmp_path / "c.caffemodel"), "--to", "onnx"])
    assert done.exit_code == 0, done.output
    assert "note        blob 'ab' is read by Silence alone, so it is an output" in done.output
    session = ort.InferenceSession(str(tmp_path / "c.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["ab"]
    relu = 'layer { name: "r" type: "ReLU" bottom: "ab" top: "ab" } layer { name: "quiet"'
    inside = Net(parse_net(text.replace('layer { name: "quiet"', relu)), seed=2)
    assert silenced(inside.graph) == ["ab"]
    _check(inside.graph, inside.weights(), [{"data": x}])
    read = text + 'layer { name: "s" type: "Sigmoid" bottom: "ab" top: "s" }'
    assert silenced(build(parse_net(read))) == []
    only = build(parse_net('input: "x" input_shape { dim: 1 }'))
    with pytest.raises(OnnxError, match="computes no blob"):
        to_onnx(only, Weights(()))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ('layer { name: "n" type: "LRN" bottom: "a" top: "a" }', r"'n' \(LRN\): it works in place"),
        (
            """layer { name: "r" type: "Reshape" bottom: "a" top: "r"
                 reshape_param { shape { dim: 1 dim: -1 } } }
               layer { name: "u" type: "ReLU" bottom: "r" top: "r" }
               layer { name: "b" type: "Power" bottom: "a" top: "b" }""",
            "layer 'u' works in place on 'r', which is one memory with 'a' in Caffe",
        ),
    ],
)
def test_what_caffe_overwrites_has_no_form(layers: str, says: str) -> None:
    """Caffe overwrites what is looked at later; the same nets without that have a form."""
    text = """input: "x" input_shape { dim: 1 dim: 2 dim: 3 dim: 3 }
        layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { scale: 2 } } """
    graph = build(parse_net(text + layers))
    with pytest.raises(OnnxError, match=says):
        to_onnx(graph, Weights(()))
    apart = layers.replace('bottom: "r" top: "r"', 'bottom: "r" top: "s"')
    apart = apart.replace('top: "a" }', 'top: "c" }')
    assert to_onnx(build(parse_net(text + apart)), Weights(())).graph.node


@pytest.mark.parametrize("operation", ["SUM", "MAX", "PROD"])
def test_sums_in_place_lose_their_first_bottom(operation: str) -> None:
    """As Caffe clears the top before it looks at that; a product does not."""
    text = f"""input: "x" input_shape {{ dim: 1 dim: 2 dim: 3 dim: 3 }}
        layer {{ name: "a" type: "Power" bottom: "x" top: "a" power_param {{ scale: 2 }} }}
        layer {{ name: "e" type: "Eltwise" bottom: "a" bottom: "x" top: "a"
          eltwise_param {{ operation: {operation} }} }}"""
    net = Net(parse_net(text))
    x = np.random.default_rng(3).standard_normal((1, 2, 3, 3), dtype=np.float32)
    _check(net.graph, net.weights(), [{"x": x}])
