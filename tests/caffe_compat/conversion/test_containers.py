"""Conversion between containers, and what is refused on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import caffe_compat.pycaffe as caffe
from caffe_compat import Net, WeightError, parse_net, read_weights, write_weights
from caffe_compat.conversion.convert import convert, weights_only
from caffe_compat.errors import UnknownInput
from caffe_compat.network.graph import build
from caffe_compat.network.match import match
from caffe_compat.pycaffe.proto import caffe_pb2
from caffe_compat.weights import containers
from caffe_compat.weights.model import ELSEWHERE, LayerBlobs, Weights
from caffe_compat.weights.wire import Blob
from tests.nets import TEXT, model_file, same_blobs, small


@pytest.mark.parametrize("to", ["safetensors", "pth", "npz", "h5"])
def test_there_and_back(tmp_path: Path, to: str) -> None:
    path, net, _ = model_file(tmp_path)
    target = tmp_path / (f"m.{to}" if to != "h5" else "m.caffemodel.h5")
    convert(path).write(target, to, metadata={"model": "small"})
    again = convert(target)
    again.write(tmp_path / "again.caffemodel", "caffemodel")
    assert same_blobs(read_weights(tmp_path / "again.caffemodel"), read_weights(path))
    assert again.net.to_message().layer == net.graph.spec.to_message().layer
    if to != "h5":
        assert again.weights.source.metadata["source_sha256"] == read_weights(path).source.sha256()
    x = torch.randn(1, 3, 9, 12)
    with torch.no_grad():
        assert torch.equal(Net(again.graph, again.weights)(x)["prob"], net(x)["prob"])


def test_the_definition_of_an_hdf5_model(tmp_path: Path) -> None:
    """A damaged one is noted, and the parameters are read; Caffe's own files have none."""
    path, net, _ = model_file(tmp_path)
    target = tmp_path / "m.h5"
    convert(path).write(target, "h5")
    for damaged in ("layer {", 7):
        with h5py.File(target, "r+") as file:
            file.attrs["prototxt"] = damaged
        found = read_weights(target)
        assert found.net is None
        assert "the embedded definition is " in found.source.notes[0]
        assert same_blobs(found, read_weights(path))
        with pytest.raises(WeightError, match=r"definition is .*give it with --prototxt"):
            convert(target)
    write_weights(target, read_weights(path), net.graph.spec)
    with h5py.File(target) as file:
        assert list(file.attrs) == ["network"]


def test_a_long_definition_in_an_hdf5_model(tmp_path: Path) -> None:
    path, _, _ = model_file(tmp_path)
    made = convert(path)
    name = np.random.default_rng(1).bytes(100_000).hex()
    containers.write(tmp_path / "m.h5", made.weights, replace(made.net, name=name), "h5")
    found = read_weights(tmp_path / "m.h5").net
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("to", ["safetensors", "h5"])
def test_a_definition_that_cannot_be_run_is_kept(to: str, tmp_path: Path) -> None:
    path, net, _ = model_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Softmax", b"Xxxxxxx"))
    weights_only(path, "Xxxxxxx").write(tmp_path / f"m.{to}", to)
    found = read_weights(tmp_path / f"m.{to}").net
    assert found is not None
    assert [layer.name for layer in found.layers] == [one.name for one in net.graph.spec.layers]
    assert found.layers[-1].type == "Xxxxxxx"


@pytest.mark.parametrize("to", ["safetensors", "pth", "npz"])
def test_what_was_converted_is_read_from_python(tmp_path: Path, to: str) -> None:
    """By everything that takes weights, and by torch alone."""
    path, net, _ = model_file(tmp_path)
    (tmp_path / "small.prototxt").write_text(TEXT)
    target = tmp_path / f"m.{to}"
    convert(path).write(target, to)
    assert same_blobs(read_weights(target), read_weights(path))
    definition = tmp_path / "small.prototxt"
    x = torch.randn(1, 3, 9, 12)
    with torch.no_grad():
        expected = net(x)["prob"]
        assert torch.equal(Net.from_files(definition, target)(x)["prob"], expected)
        face = caffe.Net(str(definition), caffe.TEST, weights=str(target))
        np.testing.assert_allclose(face.forward(data=x.numpy())["prob"], expected, rtol=1e-5)
        empty = caffe.Net(str(definition), caffe.TEST)
        empty.copy_from(target)
        np.testing.assert_allclose(empty.forward(data=x.numpy())["prob"], expected, rtol=1e-5)
        if to == "pth":
            plain = Net.from_files(definition)
            plain.load_state_dict(torch.load(target)["state_dict"])
            assert torch.equal(plain(x)["prob"], expected)


@pytest.mark.parametrize("to", ["caffemodel", "safetensors", "pth", "npz"])
def test_old_blobs_stay_old(tmp_path: Path, to: str) -> None:
    """A bias of 1x1x1xN stands for one of N where it has the old fields alone."""
    path, net, _ = model_file(tmp_path)
    model = caffe_pb2.NetParameter()
    model.ParseFromString(path.read_bytes())
    for layer in model.layer:
        for blob in layer.blobs:
            sizes = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            blob.ClearField("shape")
            blob.num, blob.channels, blob.height, blob.width = sizes
    (tmp_path / "old.caffemodel").write_bytes(model.SerializeToString())
    (tmp_path / "small.prototxt").write_text(TEXT)
    old = read_weights(tmp_path / "old.caffemodel")
    assert all(blob.legacy for layer in old.layers for blob in layer.blobs)
    weights_only(tmp_path / "old.caffemodel", "to see").write(tmp_path / f"new.{to}", to)
    again = read_weights(tmp_path / f"new.{to}")
    assert all(blob.legacy for layer in again.layers for blob in layer.blobs)
    x = torch.randn(1, 3, 9, 12)
    with torch.no_grad():
        made = Net.from_files(tmp_path / "small.prototxt", tmp_path / f"new.{to}")
        assert torch.equal(made(x)["prob"], net(x)["prob"])


_TRAINED = """
layer { name: "d" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" %s inner_product_param { num_output: 4 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "loss" }
"""
_TRAIN_ONLY = """
layer { name: "aux" type: "InnerProduct" bottom: "x" top: "aux" include { phase: TRAIN }
        inner_product_param { num_output: 4 } }
layer { name: "auxloss" type: "EuclideanLoss" bottom: "aux" bottom: "y" top: "auxloss"
        include { phase: TRAIN } }
"""
_READER = 'layer { name: "after" type: "Power" bottom: "loss" top: "after" }'
_PENALTY = 'layer { name: "sum" type: "Reduction" bottom: "a" top: "sum" loss_weight: 0.1 }'


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        (_TRAINED % "" + _TRAIN_ONLY, {"aux", "auxloss"}),
        (_TRAINED % "" + _READER, {"after"}),
        (_TRAINED % "" + _PENALTY, {"sum"}),
        (_TRAINED % "loss_weight: 0.1", set()),
    ],
)
def test_deploy_net_of_a_snapshot(tmp_path: Path, text: str, dropped: set[str]) -> None:
    """Out go heads of the TRAIN phase, readers of losses and penalties; no layer with weights that
    the rest needs."""
    net = Net(parse_net(text), phase="TRAIN")
    write_weights(tmp_path / "m.caffemodel", net.weights(), net.graph.spec)
    made = convert(tmp_path / "m.caffemodel")
    assert {layer.name for layer in made.dropped} == {"d", "loss", *dropped}
    assert [node.layer.name for node in made.graph.nodes] == ["input", "a"]
    assert made.graph.nodes[1].loss_weights == (0.0,)


_PYTHON_DATA = """
layer { name: "d" type: "Python" top: "x" top: "y" python_param { module: "voc" layer: "Data" } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "loss" }
"""


def _python_model(path: Path) -> Path:
    """A snapshot of a training net that a Python layer feeds, as FCN's."""
    shape = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 9, 9] } } }'
    net = Net(parse_net(shape + _PYTHON_DATA.splitlines()[2]))
    write_weights(path, net.weights(), parse_net(_PYTHON_DATA))
    return path


def test_a_python_layer_that_brings_data_is_an_input(tmp_path: Path) -> None:
    path = _python_model(tmp_path / "m.caffemodel")
    with pytest.raises(
        UnknownInput, match="its input 'x': give it to cpm-convert with --input-shape x"
    ):
        convert(path)
    made = convert(path, input_shapes={"x": (1, 3, 20, 30)})
    assert [node.layer.name for node in made.graph.nodes] == ["input", "a"]
    assert made.graph.blobs["a"] == (1, 4, 18, 28)


def test_a_net_that_reads_no_data(tmp_path: Path) -> None:
    text = """
        layer { name: "d" type: "DummyData" top: "y" dummy_data_param { shape { dim: [2, 1] } } }
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: [2, 1] } } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }
        layer { name: "s" type: "Scale" bottom: "p" top: "s" }"""
    net = Net(parse_net(text), phase="TRAIN")
    write_weights(tmp_path / "m.caffemodel", net.weights(), net.graph.spec)
    with pytest.raises(UnknownInput, match="no layer with parameters reads"):
        convert(tmp_path / "m.caffemodel")


_STAGED = """
name: "staged" force_backward: true debug_info: true state { level: 2 stage: "deploy" }
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" include { stage: "deploy" }
        inner_product_param { num_output: 4 } }
"""


def test_a_model_keeps_what_its_definition_says(tmp_path: Path) -> None:
    """Its state among it, without which a layer would be gone; a running net's model holds the
    layers alone, as Caffe's does."""
    spec = parse_net(_STAGED)
    net = Net(spec, stages=("deploy",), level=2)
    write_weights(tmp_path / "m.caffemodel", net.weights(), spec)
    convert(tmp_path / "m.caffemodel").write(tmp_path / "n.caffemodel", "caffemodel")
    again = convert(tmp_path / "n.caffemodel")
    assert [node.layer.name for node in again.graph.nodes] == ["x", "a"]
    read = read_weights(tmp_path / "m.caffemodel").net
    assert read is not None
    assert read.to_message() == spec.to_message()
    bare = spec.bare().to_message()
    assert [field.name for field, _ in bare.ListFields()] == ["name", "layer"]


def test_a_layer_of_a_stage_in_a_snapshot(tmp_path: Path) -> None:
    """What a running net is saved with holds the layers that ran: their rules by stage and level
    were decided, those by phase count."""
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }
        layer { name: "r" type: "ReLU" bottom: "x" top: "r" include { stage: "deep" min_level: 1 }
                relu_param { negative_slope: 0.5 } }
        layer { name: "s" type: "Power" bottom: "x" top: "r" exclude { stage: "deep" } }
        layer { name: "a" type: "InnerProduct" bottom: "r" top: "a" exclude { stage: "flat" }
                inner_product_param { num_output: 4 } }
        layer { name: "t" type: "InnerProduct" bottom: "r" top: "t" include { phase: TRAIN }
                inner_product_param { num_output: 4 } }"""
    net = Net(parse_net(text), phase="TRAIN", stages=("deep",), level=1)
    write_weights(tmp_path / "m.caffemodel", net.weights(), net.graph.spec.bare())
    made = convert(tmp_path / "m.caffemodel")
    assert [node.layer.name for node in made.graph.nodes] == ["x", "r", "a"]


def test_hdf5_leaves_out_only_what_another_layer_holds(tmp_path: Path) -> None:
    """The first layer of a shared name may be of another phase, and hold nothing."""
    layers = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" include { phase: TRAIN }
                param { name: "w" } param { name: "b" } inner_product_param { num_output: 4 } }
        layer { name: "t" type: "InnerProduct" bottom: "x" top: "t" include { phase: TEST }
                param { name: "w" } param { name: "b" } inner_product_param { num_output: 4 } }"""
    spec = parse_net(layers)
    weights = Net(spec).weights()
    write_weights(tmp_path / "m.h5", weights, spec)
    assert same_blobs(Net(spec, read_weights(tmp_path / "m.h5")).weights(), weights)
    # both hold the values: they are stored once; other values stay, and the last ones count
    (entry,) = [entry for entry in weights.layers if entry.blobs]
    double = replace(weights, layers=(replace(entry, name="a"), entry))
    write_weights(tmp_path / "n.h5", double, spec)
    with h5py.File(tmp_path / "n.h5") as file:
        assert (len(file["data/a"]), len(file["data/t"])) == (2, 0)
    other = replace(entry, name="a", blobs=(entry.blobs[0], Blob(entry.blobs[1].data + 1)))
    write_weights(tmp_path / "o.h5", replace(weights, layers=(other, entry)), spec)
    with h5py.File(tmp_path / "o.h5") as file:
        assert (list(file["data/a"]), list(file["data/t"])) == (["0", "1"], ["1"])


def test_state_dict_names(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path, net, _ = model_file(tmp_path)
    convert(path).write(tmp_path / "m.safetensors", "safetensors")
    loaded = load_file(tmp_path / "m.safetensors")
    assert set(loaded) == set(net.state_dict())
    assert {
        "conv.weight",
        "conv.bias",
        "bn.mean",
        "bn.variance",
        "bn.scale_factor",
        "scale.weight",
    } <= set(loaded)
    net.load_state_dict(loaded)


@pytest.mark.parametrize("to", ["safetensors", "pth", "npz"])
def test_damaged_containers(tmp_path: Path, to: str) -> None:
    path, _, _ = model_file(tmp_path)
    convert(path).write(tmp_path / f"m.{to}", to)
    data = (tmp_path / f"m.{to}").read_bytes()
    for cut in (9, 40, len(data) // 2, len(data) - 3):
        (tmp_path / f"cut.{to}").write_bytes(data[:cut])
        with pytest.raises(WeightError):
            containers.read_weights(tmp_path / f"cut.{to}")


def test_tensors_that_repeat_few_values(tmp_path: Path) -> None:
    """A file of 2 kB may claim terabytes by a stride of 0."""
    path, _, _ = model_file(tmp_path)
    convert(path).write(tmp_path / "a.pth", "pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    content["state_dict"]["conv.bias"] = torch.zeros(1).expand(2**40)
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightError, match="larger than such a file may hold"):
        containers.read_weights(tmp_path / "a.pth")


def test_pickles_are_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'owned')!r}, 'w')",))

    torch.save({"metadata": {}, "state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightError, match="weights only"):
        containers.read_weights(tmp_path / "evil.pth")
    np.savez(tmp_path / "evil.npz", __metadata__=np.array([Evil()], dtype=object))
    with pytest.raises(WeightError):
        containers.read_weights(tmp_path / "evil.npz")
    assert not (tmp_path / "owned").exists()


def test_python_layers_are_not_imported() -> None:
    """A Python layer in a definition stays data: used in training only it is left out, needed it is
    an error."""
    text = (
        TEXT + 'layer { name: "py" type: "Python" bottom: "fc" top: "x" python_param { module: '
        '"antigravity" layer: "Boom" } }'
    )
    import sys

    from caffe_compat import UnsupportedLayer

    with pytest.raises(UnsupportedLayer, match="never imports a module"):
        build(parse_net(text))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("to", ["caffemodel", "safetensors", "npz", "pth"])
def test_a_blob_that_is_kept_elsewhere_is_not_written_empty(to: str, tmp_path: Path) -> None:
    net = small()
    layers = list(net.weights().layers)
    layers[0] = LayerBlobs(layers[0].name, layers[0].type, (layers[0].blobs[0], ELSEWHERE))
    with pytest.raises(WeightError, match="keeps with another layer"):
        containers.write(tmp_path / f"w.{to}", Weights(tuple(layers)), net.graph.spec, to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["caffemodel", "safetensors", "npz"])
def test_a_blob_without_values_is_written_as_it_is(to: str, tmp_path: Path) -> None:
    """As a Python layer may have one: it is no blob that an HDF5 model keeps elsewhere."""
    net = small()
    layers = list(net.weights().layers)
    empty = Blob(np.zeros((0,), np.float32))
    layers[0] = LayerBlobs(layers[0].name, layers[0].type, (*layers[0].blobs, empty))
    path = tmp_path / f"w.{to}"
    containers.write(path, Weights(tuple(layers)), net.graph.spec, to)
    assert containers.read_weights(path).layers[0].blobs[-1].data.size == 0


def test_all_problems_at_once() -> None:
    net = small()
    layers = [entry for entry in net.weights().layers if entry.name != "fc"]
    conv = next(entry for entry in layers if entry.name == "conv")
    layers[layers.index(conv)] = LayerBlobs(
        "conv", "Convolution", (Blob(np.zeros((4, 3, 5, 5), np.float32)), conv.blobs[1])
    )
    layers.append(LayerBlobs("extra", "Convolution", (Blob(np.zeros((2, 2), np.float32)),)))
    with pytest.raises(WeightError) as caught:
        Net(net.graph, Weights(tuple(layers)))
    problems = caught.value.problems
    assert len(problems) == 3
    assert "'conv'" in problems[0] and "4×3×5×5" in problems[0] and "4×3×3×3" in problems[0]
    assert "'fc'" in problems[1]
    assert "'extra'" in problems[2]


def test_old_blobs_fit_by_leading_ones() -> None:
    net = small()
    layers = []
    for entry in net.weights().layers:
        blobs = tuple(
            Blob(b.data.reshape((1,) * (4 - b.data.ndim) + b.data.shape), True) for b in entry.blobs
        )
        layers.append(LayerBlobs(entry.name, entry.type, blobs))
    found = match(net.graph, Weights(tuple(layers)))
    assert not found.problems
    assert found.totals()["reshaped"] == 4
    x = torch.randn(1, 3, 9, 12)
    assert torch.equal(Net(net.graph, Weights(tuple(layers)))(x)["prob"], net(x)["prob"])


def test_a_blob_of_the_same_size_but_another_shape_is_refused() -> None:
    net = small()
    layers = list(net.weights().layers)
    fc = layers[-1]
    layers[-1] = LayerBlobs("fc", "InnerProduct", (Blob(fc.blobs[0].data.T.copy()), fc.blobs[1]))
    assert "needs 5×120" in match(net.graph, Weights(tuple(layers))).problems[0]


def test_odd_layer_names() -> None:
    """Dots, empty names and torch's own attribute names."""
    text = 'input: "a" input_shape { dim: 1 dim: 2 } ' + "".join(
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "a" top: "t{i}" '
        f"inner_product_param {{ num_output: 1 }} }} "
        for i, name in enumerate(["fc.1", "", "forward", "fc_1", "a/b"])
    )
    net = Net(parse_net(text))
    keys = list(net.state_dict())
    assert len(keys) == len(set(keys)) == 10
    assert net(torch.ones(1, 2))["t2"].shape == (1, 1)


def test_any_size_and_batch() -> None:
    net = Net(
        parse_net(
            'input: "a" input_shape { dim: 1 dim: 1 dim: 4 dim: 6 } layer { name: "p" type: '
            '"Pooling" bottom: "a" '
            'top: "t" pooling_param { kernel_size: 3 stride: 2 } }'
        )
    )
    assert net(torch.zeros(1, 1, 4, 6))["t"].shape == (1, 1, 2, 3)
    assert net(torch.zeros(5, 1, 9, 7))["t"].shape == (5, 1, 4, 3)


def test_unwanted_layers_do_not_run() -> None:
    net = small()
    ran = []
    for node in net.graph.nodes:
        if not node.layer.data:

            def watched(params, *bottoms, run=node.layer.forward, name=node.layer.name):  # type: ignore[no-untyped-def]
                ran.append(name)
                return run(params, *bottoms)

            node.layer.forward = watched  # type: ignore[method-assign]
    found = net(torch.zeros(1, 3, 9, 12), blobs=["pool"])
    assert list(found) == ["pool"]
    assert ran == ["conv", "bn", "scale", "relu", "pool"]


def test_a_model_whose_ninth_byte_is_a_brace(tmp_path: Path) -> None:
    """It is 123 there, the length of the first layer, and no beginning of safetensors' JSON."""
    path = tmp_path / "m.caffemodel"
    for length in range(128):
        net = parse_net(
            'name: "NetA" layer { name: "data" type: "Data" top: "data" data_param '
            f'{{ source: "{"x" * length}" }} }}'
        )
        containers.write(path, Weights(()), net, "caffemodel")
        if path.read_bytes()[8:9] == b"{":
            break
    assert path.read_bytes()[8:9] == b"{"
    assert containers.kind_of(path) == ""
    found = containers.read_weights(path).net
    assert found is not None
    assert found.to_message() == net.to_message()


def test_the_name_of_a_target_is_kept(tmp_path: Path) -> None:
    net = small()
    (tmp_path / "x.H5.h5").write_text("keep")
    for name, to in (("x.H5", "h5"), ("y", "h5"), ("z.h5", "caffemodel")):
        containers.write(tmp_path / name, net.weights(), net.graph.spec, to)
        assert containers.read_weights(tmp_path / name).source.container == to
    assert (tmp_path / "x.H5.h5").read_text() == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.H5", "x.H5.h5", "y", "z.h5"]
