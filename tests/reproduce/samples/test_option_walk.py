"""No option of a CPMData layer is read and then dropped: a walk over every field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caffe_compat import CaffeCompatError, parse_net
from caffe_compat.definition import schema
from caffe_compat.definition.spec import TRAIN, LayerSpec
from caffe_compat.layers import make
from caffe_compat.training.sources import ignored
from reproduce.records import store
from reproduce.samples.schedule import source_for
from tests.caffe_compat.layers.test_option_walk import changed_layers, paths
from tests.people import dataset

_PLAIN = "of the fork's plain data layers, its CPMData layer does not look at it"
_COVERAGE = "of the coverage maps of another network, which the fork's layer does not make"
_SHOWN = "shows pictures while it trains; the batches are the same"
# Options that change no batch, each with the reason.
_WITHOUT_EFFECT = {
    "transform_param.crop_size": "the fork's layer has crop_size_x and crop_size_y",
    "prefetch": "how many batches Caffe reads ahead",
    **dict.fromkeys(("scale", "mirror", "mean_file", "mean_value"), _PLAIN),
    **dict.fromkeys(("force_color", "force_gray"), _PLAIN),
    **dict.fromkeys(("scale_cvg", "max_cvg_len", "min_cvg_len", "coverage"), _COVERAGE),
    **dict.fromkeys(("opaque_coverage", "bbox_norm_factor", "img_header"), _COVERAGE),
    **dict.fromkeys(("visualize", "visualize_label"), _SHOWN),
}
_SIZES = "stride: 8 crop_size_x: 96 crop_size_y: 80 np_in_lmdb: 16"
_ROLLED = "scale_prob: 1 flip_prob: 1 max_rotate_degree: 40"
_SETTINGS = [
    f"{_SIZES} {_ROLLED}",
    f"{_SIZES} {_ROLLED} do_clahe: true",
    f"{_SIZES} {_ROLLED} aug_way: 'table'",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    store.export_lmdb(store.plan(dataset(folder, 4), seed=4), folder, folder / "records")
    return folder


def _outcome(spec: LayerSpec, root: Path) -> Any:
    """Two batches, or what is said against the layer."""
    try:
        source = source_for(make(spec, TRAIN), root)
        return [part.tobytes() for n in range(2) for part in source.batch(n)]
    except CaffeCompatError as error:
        return str(error)


def _walk() -> Iterator[Any]:
    fields = schema.message_class("LayerParameter").DESCRIPTOR.fields_by_name
    for option in ("cpmdata_param", "transform_param", "cpm_transform_param"):
        for path in paths(fields[option].message_type):
            yield pytest.param(f"{option}.{path}", id=f"{option}.{path}")


@pytest.mark.long
@pytest.mark.parametrize("path", list(_walk()))
def test_every_option_of_cpm_data_layers(path: str, root: Path) -> None:
    effect, noted = False, True
    option, _, name = path.partition(".")
    transform = "cpm_transform_param" if option == "cpm_transform_param" else "transform_param"
    for settings in _SETTINGS:
        if transform == "cpm_transform_param":
            settings += " num_parts: 14"
        spec = parse_net(
            'layer { name: "d" type: "CPMData" top: "data" top: "label" cpmdata_param { '
            f'source: "records" batch_size: 2 backend: LMDB }} {transform} {{ {settings} }} }}'
        ).layers[0]
        before = _outcome(spec, root)
        for other in changed_layers(spec, path):
            effect |= before != _outcome(other, root)
            noted &= any(path in note for note in ignored(other))
        if effect:
            break
    if {name, path} & _WITHOUT_EFFECT.keys() and not noted:
        assert not effect
    else:
        assert effect != noted
