"""Weight files byte by byte; every old form; every kind of damage."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe_compat import WeightError, parse_net, read_weights, write_weights
from caffe_compat.definition import schema
from caffe_compat.definition.spec import TRAIN
from caffe_compat.errors import SchemaError
from caffe_compat.files import TargetError
from caffe_compat.layers.base import make
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.read import parse_weights
from caffe_compat.weights.wire import Blob, memory_loader, read_blob
from tests.nets import model_file, same_blobs, small
from tests.paths import reported


def _len(number: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([number << 3 | 2, len(body)]) + body


def _layer(blob: bytes) -> bytes:
    inner = b"\x0a\x01c" + b"\x12\x04ReLU" + _len(7, blob)
    return b"\xa2\x06" + bytes([len(inner)]) + inner


FLOATS = struct.pack("<3f", 1.0, -2.0, 0.5)


@pytest.mark.parametrize(
    ("blob", "shape", "legacy"),
    [
        (
            _len(5, FLOATS) + _len(7, b"\x0a\x02\x01\x03"),
            (1, 3),
            False,
        ),  # packed data, packed shape
        (_len(5, FLOATS) + _len(7, b"\x08\x01\x08\x03"), (1, 3), False),  # unpacked shape
        (
            b"".join(b"\x2d" + FLOATS[i : i + 4] for i in (0, 4, 8)) + _len(7, b"\x0a\x01\x03"),
            (3,),
            False,
        ),  # unpacked data
        (
            _len(5, FLOATS[:4]) + _len(5, FLOATS[4:]) + _len(7, b"\x0a\x01\x03"),
            (3,),
            False,
        ),  # two packed runs
        (
            b"\x08\x01\x10\x01\x18\x01\x20\x03" + _len(5, FLOATS),
            (1, 1, 1, 3),
            True,
        ),  # num, channels, height, width
        (
            _len(7, b"\x0a\x01\x03") + _len(8, struct.pack("<3d", 1.0, -2.0, 0.5)),
            (3,),
            False,
        ),  # double
    ],
)
def test_blob_forms(blob: bytes, shape: tuple[int, ...], legacy: bool) -> None:
    (entry,) = parse_weights(_layer(blob)).layers
    assert (entry.name, entry.type) == ("c", "ReLU")
    assert entry.blobs[0].shape == shape
    assert entry.blobs[0].legacy == legacy
    assert entry.blobs[0].data.reshape(-1).tolist() == [1.0, -2.0, 0.5]


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (
            _len(5, FLOATS) + _len(7, b"\x0a\x01\x04"),
            r"layer 'c', blob 0: shape 4 needs 4 values, the file holds 3",
        ),
        (
            _len(5, FLOATS) + _len(7, b"\x0a\x05\xff\xff\xff\xff\x07"),
            r"needs 2147483647 values, the file holds 3",
        ),
        (_len(5, FLOATS) + _len(7, b"\x0a\x0a" + b"\xff" * 9 + b"\x01"), r"negative dimension"),
        (_len(5, FLOATS[:6]), r"no whole number of 4-byte values"),
        (_len(5, FLOATS) + _len(7, b"\x0a\x21" + b"\x01" * 33), r"33 axes; Caffe allows 32"),
    ],
)
def test_false_blobs(blob: bytes, says: str) -> None:
    with pytest.raises(WeightError, match=says):
        parse_weights(_layer(blob))


def test_writer_by_bytes(tmp_path: Path) -> None:
    from caffe_compat import parse_net

    net = parse_net('layer { name: "p" type: "PReLU" bottom: "a" top: "b" }')
    weights = Weights((LayerBlobs("p", "PReLU", (Blob(np.array([0.25], np.float32)),)),))
    write_weights(tmp_path / "m.caffemodel", weights, net)
    definition = b"\x0a\x01p\x12\x05PReLU\x1a\x01a\x22\x01b"
    blob = _len(5, struct.pack("<f", 0.25)) + _len(7, b"\x0a\x01\x01")
    layer = definition + _len(7, blob)
    name = b"\x0a\x00"
    data = (tmp_path / "m.caffemodel").read_bytes()
    assert data.removeprefix(name) == b"\xa2\x06" + bytes([len(layer)]) + layer
    # and protobuf itself reads the same
    message = schema.message_class("NetParameter", "upstream").FromString(data)
    assert list(message.layer[0].blobs[0].data) == [0.25]


@pytest.mark.parametrize("ending", [".caffemodel", ".caffemodel.h5"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    net = small()
    path = tmp_path / f"m{ending}"
    write_weights(path, net.weights(), net.graph.spec)
    again = read_weights(path)
    assert same_blobs(net.weights(), again)
    if ending == ".caffemodel":
        assert again.net is not None
        assert again.net.to_message() == net.graph.spec.to_message()


@pytest.mark.parametrize("shared", ["weight", "bias", "both"])
def test_hdf5_keeps_shared_blobs_once(tmp_path: Path, shared: str) -> None:
    """Layer b then has data set 1 only, data set 0 only, or none."""
    from caffe_compat import Net, parse_net
    from caffe_compat.conversion.convert import convert

    param = {"weight": 'param { name: "w" }', "bias": 'param {} param { name: "b" }'}
    named = param.get(shared, 'param { name: "w" } param { name: "b" }')
    text = 'input: "x" input_shape { dim: 1 dim: 2 }' + "".join(
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" {named} '
        f'inner_product_param {{ num_output: 2 weight_filler {{ type: "gaussian" }} '
        f"bias_filler {{ value: {value} }} }} }} "
        for name, value in (("a", 0.5), ("b", 0.25))
    )
    net = Net(parse_net(text))
    write_weights(tmp_path / "m.caffemodel.h5", net.weights(), net.graph.spec)
    again = read_weights(tmp_path / "m.caffemodel.h5")
    assert same_blobs(net.weights(), Net(net.graph, again).weights())
    (tmp_path / "m.prototxt").write_text(text)
    made = convert(tmp_path / "m.caffemodel.h5", prototxt=tmp_path / "m.prototxt")
    assert same_blobs(net.weights(), made.weights)


def test_hdf5_blobs_that_no_layer_shares_must_be_there(tmp_path: Path) -> None:
    import h5py

    from caffe_compat import Net

    net = small()
    path = tmp_path / "m.caffemodel.h5"
    write_weights(path, net.weights(), net.graph.spec)
    with h5py.File(path, "a") as file:
        del file["data/conv/0"]
    with pytest.raises(WeightError, match=r"'conv'.*blob 0 \(weight\) is missing.* 4×3×3×3"):
        Net(net.graph, read_weights(path))


@pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
def test_double_stays_double(ending: str, tmp_path: Path) -> None:
    from caffe_compat import parse_net

    net = parse_net('layer { name: "p" type: "PReLU" bottom: "a" top: "b" }')
    value = np.array([1 / 3], np.float64)
    path = tmp_path / f"m.{ending}"
    write_weights(path, Weights((LayerBlobs("p", "PReLU", (Blob(value),)),)), net)
    (blob,) = read_weights(path)["p"]
    assert blob.data.dtype == np.float64
    assert blob.data[0] == value[0]


def test_half_precision_in_hdf5_is_read_as_single(tmp_path: Path) -> None:
    """Everything after the reader knows float32 and float64 alone."""
    import h5py

    with h5py.File(tmp_path / "m.caffemodel.h5", "w") as file:
        file["data/p/0"] = np.array([0.25, -3], np.float16)
    (blob,) = read_weights(tmp_path / "m.caffemodel.h5")["p"]
    assert blob.data.dtype == np.float32
    assert blob.data.tolist() == [0.25, -3]


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    """Cut anywhere but between two layers, the file is refused; never read as less."""
    path, _, _ = model_file(tmp_path)
    data = path.read_bytes()
    borders = set()
    from caffe_compat.weights.wire import walk

    for field in walk(memoryview(data), 0, len(data)):
        borders.add(field.stop)
    for cut in range(1, len(data), 7):
        if cut in borders:
            continue
        with pytest.raises(WeightError):
            parse_weights(data[:cut])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
        (b'name: "net"\nlayer { name: "a" }\n', "is text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x08\xe0\xa2\x04\x12\x03abc", "solverstate"),
        (b"\x08\x09\x12\x03abc\x3a\x02\x12\x00", "ONNX model"),
        (
            b"\x08\x01\x10\x01\x18\x01\x20\x03" + _len(5, FLOATS),  # 1×1×1×3 values
            r"is a single blob, such as a mean image \(\.binaryproto\); expected a \.caffemodel",
        ),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged|no caffemodel|PNG image"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "no readable HDF5"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightError, match=says) as caught:
        read_weights(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("field", [b"\x58\x01", b"\xca\x0c\x03abc"])
def test_unknown_fields_of_the_network_are_noted(field: bytes) -> None:
    """protobuf skips them; the rest must be a network all the same."""
    blob = _len(5, FLOATS) + _len(7, b"\x0a\x01\x03")
    found = parse_weights(_layer(blob) + field)
    assert found["c"][0].shape == (3,)
    assert "unknown field(s) of the network" in found.source.notes[0]
    with pytest.raises(WeightError, match="no caffemodel"):
        parse_weights(b"\xa2\x06\x03\x0a\x01c" + field)


def test_a_name_that_two_layers_have(tmp_path: Path) -> None:
    """The blobs stay with the layer that has parameters."""
    from caffe_compat import Net, parse_net

    net = Net(
        parse_net(
            'layer { name: "a" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } } '
            'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" '
            "inner_product_param { num_output: 2 } } "
            'layer { name: "a" type: "ReLU" bottom: "y" top: "y" }'
        )
    )
    for path in (tmp_path / "m.caffemodel", tmp_path / "again.caffemodel"):
        write_weights(path, net.weights(), net.graph.spec)
        message = schema.message_class("NetParameter", "upstream").FromString(path.read_bytes())
        assert [len(layer.blobs) for layer in message.layer] == [0, 2, 0]
        net = Net(net.graph, read_weights(path))


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", ".", "a/.", "other/1", "other"])
def test_names_that_hdf5_cannot_hold(tmp_path: Path, name: str) -> None:
    """Refused before anything is written; a layer without parameters may have them."""
    from caffe_compat import Net, parse_net

    layers = (
        'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2 }} }} }} '
        'layer {{ name: "other" type: "PReLU" bottom: "x" top: "x" }} '
        'layer {{ name: "{}" type: "{}" bottom: "x" top: "x" }}'
    )
    net = Net(parse_net(layers.format(name, "PReLU")))
    with pytest.raises(WeightError, match=r"HDF5 model cannot hold .* rename the layer"):
        write_weights(tmp_path / "m.h5", net.weights(), net.graph.spec)
    assert not list(tmp_path.iterdir())
    plain = Net(parse_net(layers.format(name, "ReLU")))
    write_weights(tmp_path / "m.h5", plain.weights(), plain.graph.spec)
    assert same_blobs(read_weights(tmp_path / "m.h5"), plain.weights())


def test_text_in_other_encodings(tmp_path: Path) -> None:
    """Caffe takes any bytes for a string; two names stay two."""
    from caffe_compat import parse_net

    net = parse_net('layer { name: "d" type: "Data" top: "x" data_param { source: "QQ" } }')
    path = tmp_path / "m.caffemodel"
    write_weights(path, Weights(()), net)
    written = path.read_bytes()
    path.write_bytes(written.replace(b"QQ", b"\xd6\xd0").replace(b"\x01d\x12", b"\x01\xc4\x12"))
    found = read_weights(path)
    assert found.net is not None
    layer = found.net.layers[0]
    assert (layer.name, layer.message.data_param.source) == (r"\xc4", r"\xd6\xd0")
    assert "not UTF-8" in found.source.notes[0]
    path.write_bytes(written.replace(b"QQ", "ü".encode()))
    assert not read_weights(path).source.notes


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="directory"):
        read_weights(tmp_path)
    with pytest.raises(WeightError, match="No such file"):
        read_weights(tmp_path / "none.caffemodel")


def test_unwritable_targets(tmp_path: Path) -> None:
    net = small()
    with pytest.raises(TargetError, match="is a directory"):
        write_weights(tmp_path, net.weights(), net.graph.spec)
    with pytest.raises(TargetError, match="none does not exist; make it"):
        write_weights(tmp_path / "none" / "m.caffemodel", net.weights(), net.graph.spec)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path, net, spec = model_file(tmp_path)
    before = path.read_bytes()
    lost = Weights(
        (*net.weights().layers, LayerBlobs("other", "ReLU", (Blob(np.zeros(1, np.float32)),)))
    )
    with pytest.raises(WeightError, match="other"):
        write_weights(path, lost, spec)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_reading_and_converting_needs_no_torch(tmp_path: Path) -> None:
    path, _, _ = model_file(tmp_path)
    code = f"""
import sys
from caffe_compat.conversion.convert import convert
made = convert({str(path)!r})
made.write({str(tmp_path / "m.safetensors")!r}, "safetensors")
made.write({str(tmp_path / "m.npz")!r}, "npz")
convert({str(tmp_path / "m.npz")!r})
import reproduce.network.identify, reproduce.network.netgen
reproduce.network.identify.identify(made.graph)
assert "torch" not in sys.modules, "torch was imported"
assert "cv2" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_of_reading(tmp_path: Path) -> None:
    """Reading a model takes at most 1.5 times its size in extra memory."""
    from caffe_compat import parse_net

    net = parse_net(
        'layer { name: "p" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { '
        "num_output: 4000 } }"
    )
    blobs = (Blob(np.zeros((4000, 4000), np.float32)), Blob(np.zeros(4000, np.float32)))
    write_weights(
        tmp_path / "big.caffemodel", Weights((LayerBlobs("p", "InnerProduct", blobs),)), net
    )
    path, _, _ = model_file(tmp_path)
    code = f"""
from caffe_compat import read_weights
def peak():  # ru_maxrss would count what the parent process had
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
try: read_weights({str(path)!r})
except Exception as error: raise SystemExit(str(error))
before = peak()
weights = read_weights({str(tmp_path / "big.caffemodel")!r})
print((peak() - before) * 1024 / {os.path.getsize(tmp_path / "big.caffemodel")})
"""
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert float(out) <= 1.5


def test_oldest_binary_form() -> None:
    """V0: a layer inside a connection, its blobs inside that, old blob dimensions."""
    net = schema.message_class("NetParameter", "upstream")(
        name="old", input=["data"], input_dim=[1, 2, 5, 6]
    )
    connection = net.layers.add(bottom=["data"], top=["c"])
    connection.layer.name, connection.layer.type = "c", "conv"
    connection.layer.num_output, connection.layer.kernelsize = 3, 1
    for dims in ((3, 2, 1, 1), (1, 1, 1, 3)):
        blob = connection.layer.blobs.add(
            num=dims[0], channels=dims[1], height=dims[2], width=dims[3]
        )
        blob.data.extend(np.arange(np.prod(dims), dtype=np.float32).tolist())
    found = parse_weights(net.SerializeToString())
    assert found.source.format == "V0"
    assert found.net is not None
    assert [(la.name, la.type) for la in found.net.layers] == [
        ("input", "Input"),
        ("c", "Convolution"),
    ]
    assert [b.shape for b in found["c"]] == [(3, 2, 1, 1), (1, 1, 1, 3)]
    from caffe_compat import Net

    assert Net(found.net, found).state_dict()["c.bias"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("path", reported("nvcaffe_raw", "*.caffemodel"))
def test_nvcaffe_raw_data(path: Path) -> None:
    """The same values as floats, doubles, one by one or as raw bytes, which may be rounded to
    half."""
    weights = read_weights(path)
    with np.load(path.parent / "ref.npz") as file:
        expected = [file["W"], file["b"]]
    for blob, array in zip(weights["conv"], expected, strict=True):
        wanted = array.astype(np.float16) if "16" in path.name else array
        np.testing.assert_array_equal(blob.data, wanted)
        assert blob.data.dtype in (np.float32, np.float64)


@pytest.mark.parametrize(("kind", "what"), [(3, "int"), (9, "number 9")])
def test_raw_data_of_other_types_is_refused(kind: int, what: str) -> None:
    raw = bytes([0x50, kind, 0x62, 4, 0, 0, 0, 0])  # field 10 (type), field 12 (four bytes)
    with pytest.raises(WeightError, match=f"raw_data of type {what}"):
        read_blob(memoryview(raw), 0, len(raw), memory_loader(memoryview(raw)), "blob")


def test_settings_of_later_forks_are_written_as_the_release_has_them(tmp_path: Path) -> None:
    """``cpm_transform_param`` has no number in a binary model; its defaults are others, too."""
    net = parse_net(
        'layer { name: "d" type: "CPMData" top: "data" top: "label" cpmdata_param { batch_size: 2 } '
        "cpm_transform_param { crop_size: 328 num_parts: 18 do_clahe: true } }"
    )
    write_weights(tmp_path / "m.caffemodel", Weights(()), net)
    again = read_weights(tmp_path / "m.caffemodel").net
    assert again is not None
    (before,), (after,) = net.layers, again.layers
    assert not after.message.HasField("cpm_transform_param")
    given, stored = before.message.cpm_transform_param, after.message.transform_param
    fields = {field.name for field in given.DESCRIPTOR.fields}
    for name in fields - {"crop_size", "crop_size_x", "crop_size_y"}:
        assert getattr(stored, name) == getattr(given, name), name
    shapes = [make(layer, TRAIN).output_shapes([]) for layer in (before, after)]
    assert shapes[0] == shapes[1] == [(2, 4, 328, 328), (2, 38, 41, 41)]


_OF_BOTH = """
layer { name: "x" type: "DummyData" top: "x" transform_param { stride: 8 }
        dummy_data_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p"
        pooling_param { kernel_size: 2 round_mode: FLOOR } }
"""


def test_settings_that_no_caffe_has_together_are_in_hdf5_alone(tmp_path: Path) -> None:
    net = parse_net(_OF_BOTH)
    with pytest.raises(SchemaError, match=r"no Caffe has all settings .*'p'.*round_mode.*HDF5"):
        write_weights(tmp_path / "m.caffemodel", Weights(()), net)
    assert not list(tmp_path.iterdir())
    write_weights(tmp_path / "m.H5", Weights(()), net)
    assert read_weights(tmp_path / "m.H5").source.container == "h5"


def test_a_type_of_the_other_dialect_leaves_no_doubt_where_fields_tell(tmp_path: Path) -> None:
    """What is written can be read: here the fork's fields, and a type that upstream alone has."""
    net = parse_net(
        'layer { name: "d" type: "CPMData" top: "d" transform_param { crop_size_x: 8 } }'
        'layer { name: "s" type: "Swish" bottom: "d" top: "s" }'
    )
    write_weights(tmp_path / "m.caffemodel", Weights(()), net)
    again = read_weights(tmp_path / "m.caffemodel")
    assert again.source.dialect == "fork"
    assert again.net is not None
    assert again.net.to_message() == net.to_message()
    write_weights(tmp_path / "n.caffemodel", Weights(()), parse_net('layer { type: "Swish" }'))
    assert read_weights(tmp_path / "n.caffemodel").source.dialect == "upstream"


@pytest.mark.parametrize("link", ["group", "data set", "soft"])
def test_linked_blobs_of_hdf5_are_each_layers(link: str, tmp_path: Path) -> None:
    """Caffe opens each by its name."""
    import h5py

    values = np.arange(4, dtype=np.float32)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["data/left/0"] = values
        if link == "group":
            file["data/right"] = file["data/left"]
        elif link == "data set":
            file["data/right/0"] = file["data/left/0"]
        else:
            file["data/right"] = h5py.SoftLink("/data/left")
    weights = read_weights(tmp_path / "m.h5")
    assert weights.names == ("left", "right")
    for name in weights.names:
        np.testing.assert_array_equal(weights[name][0].data, values)


@pytest.mark.long
def test_links_of_hdf5_that_lead_astray(tmp_path: Path) -> None:
    import h5py

    def refused(says: str) -> None:
        with pytest.raises(WeightError, match=says):
            read_weights(tmp_path / "m.h5")

    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("data/a")
        group["back"] = file["data"]
    refused("'/data/a/back/' is a link to a group that it is in")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["data/a/0"] = h5py.SoftLink("/data/b/0")
    refused("'/data/a/0' is a link that leads nowhere")
    with h5py.File(tmp_path / "m.h5", "w") as file:  # 2 to the power of 30 names
        file.create_group("data")
        below = file.create_group("deepest")
        for depth in range(30):
            group = file.create_group(f"g{depth}")
            group["a"] = group["b"] = below
            below = group
        file["data/all"] = below
    refused("more than 100,000 names")


def _pooling_model(blob: bytes, rounding: int) -> bytes:
    """A model with a layer that has this blob and a Pooling layer with this field 13."""
    pool = b"\x0a\x01p\x12\x07Pooling" + b"\xca\x07" + bytes([2, 13 << 3, rounding])
    return _layer(blob) + b"\xa2\x06" + bytes([len(pool)]) + pool


@pytest.mark.parametrize(("raw", "stored", "floor"), [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_rounding_of_nvcaffe_models(raw: int, stored: int, floor: int) -> None:
    """Raw blobs tell that field 13 is ceil_mode, where 0 means round down; else it is
    round_mode."""
    data = _len(5, FLOATS) if not raw else bytes([0x50, 1]) + _len(12, FLOATS)
    weights = parse_weights(_pooling_model(data + _len(7, b"\x0a\x01\x03"), stored))
    assert weights.net is not None
    assert weights.net.layers[1].message.pooling_param.round_mode == floor
    assert bool(weights.source.notes) == (not raw and not stored)
