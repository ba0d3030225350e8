"""No option of a data layer is read and then dropped: a walk over every field of each.

An option changes the batches, is refused by name, is named in a note, or stands below with the
reason why it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np
import pytest

from caffe_compat import CaffeCompatError, parse_net
from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.layers import registry
from caffe_compat.training.datum import Datum
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.rows import MemorySource
from caffe_compat.training.solver import Solver
from tests.caffe_compat.layers.test_option_walk import changed_layers, paths

_TRANSFORM = "transform_param { crop_size: 3 mean_value: 2 }"
# Layers (without name and tops) of each type, of which one at least must show each option.
_LAYERS: dict[str, list[str]] = {
    "Data": [
        f'data_param {{ source: "records" batch_size: 2 backend: LMDB }} {_TRANSFORM}',
        'data_param { source: "pictures" batch_size: 2 backend: LMDB }',
        'data_param { source: "gray" batch_size: 2 backend: LMDB }',
    ],
    "ImageData": [
        f'image_data_param {{ source: "list.txt" batch_size: 2 }} {_TRANSFORM}',
        'image_data_param { source: "list.txt" batch_size: 2 new_height: 6 new_width: 6 }',
    ],
    "MemoryData": ["memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }"],
    "HDF5Data": ['hdf5_data_param { source: "rows.txt" batch_size: 2 }'],
    "DummyData": [
        "dummy_data_param { shape { dim: 2 dim: 3 } }",
        "dummy_data_param { num: 2 channels: 3 height: 1 width: 1 }",
    ],
    "WindowData": ["window_data_param { batch_size: 2 }"],
}
# Options that change no batch and get no note, each with the reason.
_WITHOUT_EFFECT = {"data_param.prefetch": "how many batches Caffe reads ahead"}
# Layers that are fed from another package, which has the walk, and those without any option of use.
_ELSEWHERE = {"CPMData", "Input"}


def _files(folder: Path) -> None:
    pictures = [np.random.default_rng(i).integers(0, 256, (4, 5, 3), np.uint8) for i in range(5)]
    coded = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    raw = [Datum(3, 4, 5, p.transpose(2, 0, 1).tobytes(), i) for i, p in enumerate(pictures)]
    packed = [Datum(0, 0, 0, c, i, encoded=True) for i, c in enumerate(coded)]
    gray = [
        Datum(0, 0, 0, cv2.imencode(".png", p[:, :, 0])[1].tobytes(), i, encoded=True)
        for i, p in enumerate(pictures)
    ]
    for name, records in (("records", raw), ("pictures", packed), ("gray", gray)):
        with lmdb.open(str(folder / name)) as database, database.begin(write=True) as write:
            for i, record in enumerate(records):
                write.put(f"{i:03d}".encode(), record.encode())
    for i, data in enumerate(coded):
        (folder / f"{i}.png").write_bytes(data)
    (folder / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(5)))
    with h5py.File(folder / "rows.h5", "w") as file:
        file["a"], file["b"] = np.arange(10.0).reshape(5, 2), np.arange(5.0)
    (folder / "rows.txt").write_text("rows.h5\n")


def _outcome(layer: LayerSpec, root: Path) -> tuple[Any, list[str]]:
    """The first batches in both phases, or what is said against the layer; and the notes."""
    found: list[Any] = []
    notes: list[str] = []
    for phase in ("TRAIN", "TEST"):
        try:
            feed = DataFeed(NetSpec("", (layer,)), phase, root)
            source = feed.source("d")
            if isinstance(source, MemorySource):
                source.give(np.arange(240.0).reshape(4, 3, 4, 5), np.arange(4.0))
            notes += feed.notes
            batches = [feed.batch(number, "cpu") for number in range(4)]
        except CaffeCompatError as error:
            found.append(str(error))
        else:
            found += [(top, blob.tolist()) for batch in batches for top, blob in batch.items()]
    return found, notes


def _layer(kind: str, text: str) -> LayerSpec:
    made = parse_net(f'layer {{ name: "d" type: "{kind}" top: "a" top: "b" {text} }}')
    return made.layers[0]


def _walk() -> Iterator[Any]:
    fields = schema.message_class("LayerParameter").DESCRIPTOR.fields_by_name
    for kind in _LAYERS:
        for option in (registry()[kind].option, "transform_param"):
            if option == "transform_param" and kind in ("DummyData", "WindowData"):
                continue  # they have none, here as in Caffe; WindowData is refused
            for path in paths(fields[option].message_type):
                yield pytest.param(kind, f"{option}.{path}", id=f"{kind}.{path}")


def test_every_type_of_data_layer_is_walked() -> None:
    assert {k for k, cls in registry().items() if cls.data} == {*_LAYERS, *_ELSEWHERE}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    _files(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("kind", "path"), list(_walk()))
def test_every_option_of_data_layers(kind: str, path: str, root: Path) -> None:
    effect, noted = False, True
    part = path.partition(".")[0]
    for text in _LAYERS[kind]:
        layer = _layer(kind, text)
        before, _ = _outcome(layer, root)
        for other in changed_layers(layer, path):
            after, notes = _outcome(other, root)
            effect |= before != after
            noted &= any(f": {path} " in note or f": {part} " in note for note in notes)
    if kind == "WindowData":
        assert all("WindowData is not supported" in said for said in before)
    elif path in _WITHOUT_EFFECT:
        assert not effect
    else:
        assert effect != noted, (
            "changes nothing and is not named, or is named and changes something"
        )


@pytest.mark.parametrize("name", ["resize_param", "noise_param", "crop_h", "distort_param"])
@pytest.mark.parametrize("kind", ["Data", "ImageData", "MemoryData", "CPMData"])
def test_settings_of_another_forks_transformer_are_refused(
    kind: str, name: str, root: Path
) -> None:
    value = ": 3" if name == "crop_h" else "{ }"
    text = _LAYERS.get(kind, [""])[0].partition("transform_param")[0]
    with pytest.raises(CaffeCompatError, match=f"{name} is not supported in a {kind} layer"):
        DataFeed(
            NetSpec("", (_layer(kind, f"{text} transform_param {{ {name} {value} }}"),)),
            "TRAIN",
            root,
        )


def test_a_note_says_where_an_option_without_effect_stands(root: Path) -> None:
    (root / "net.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "a" top: "b"\n'
        '  data_param { source: "records" batch_size: 2 backend: LMDB\n    rand_skip: 3 } }\n'
        'layer { name: "s" type: "Scale" bottom: "a" top: "y" loss_weight: 1 }\n'
        'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "l"\n'
        "  loss_param { ignore_label: 3 } }"
    )
    text = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" test_iter: 1 test_interval: 1'
    notes = Solver(parse_solver(text), root=root).warnings
    assert len(notes) == 2
    assert "net.prototxt:3: layer 'd': data_param.rand_skip has no effect" in notes[0]
    assert "net.prototxt:6: layer 'l': loss_param has no effect in a EuclideanLoss" in notes[1]
