"""The networks that begin as VGG-19: their definitions of any size, the person network's labels, and
training from VGG's own weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from caffe_compat import Net, parse_net, read_net, read_weights, write_weights
from caffe_compat.network.graph import build
from reproduce.cli import export, models, train
from reproduce.network.identify import identify
from reproduce.people.annotation import Annotation
from reproduce.records import store
from reproduce.samples import labels
from reproduce.samples.augment import Augmentation, Settings, augment
from tests.people import annotation, dataset

_SMALL = [
    "--front",
    "vgg",
    "--blocks",
    "4x2,6x2,8x4,10x2",
    "--wide",
    "12",
    "--belief",
    "8",
    "--stage-convs",
    "2",
    "--input",
    "64",
    "--filler",
    "msra",
    "--source",
    "records",
    "--batch",
    "2",
    "--target-dist",
    "0.3",
]


def _run(command: object, *args: object) -> str:
    result = CliRunner().invoke(command, list(map(str, args)))  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


def _vgg19(folder: Path) -> Path:
    """A file with VGG-19's layer names, random and narrow, its classifier included."""
    lines = ['input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }']
    blob = "data"
    for block, (channels, layers) in enumerate(((4, 2), (6, 2), (8, 4), (10, 4), (10, 4)), 1):
        for i in range(1, layers + 1):
            lines.append(
                f'layer {{ name: "conv{block}_{i}" type: "Convolution" bottom: "{blob}" '
                f'top: "conv{block}_{i}" convolution_param {{ num_output: {channels} pad: 1 '
                'kernel_size: 3 weight_filler { type: "msra" } } }'
            )
            blob = f"conv{block}_{i}"
    lines.append(
        f'layer {{ name: "fc6" type: "InnerProduct" bottom: "{blob}" top: "fc6" '
        "inner_product_param { num_output: 3 } }"
    )
    net = Net(parse_net("\n".join(lines)), seed=11)
    write_weights(folder / "vgg19.caffemodel", net.weights(), net.graph.spec)
    return folder / "vgg19.caffemodel"


def test_a_network_of_any_size(tmp_path: Path) -> None:
    """Every number of a small network can be said, by the command and from Python."""
    text = (
        "--front vgg --stages 3 --blocks 16x2,32x2,64x4,128x2 --front-convs 96,96,96,96,64 "
        "--wide 256 --belief 64 --stage-kernel 7 --input 128"
    )
    _run(export.main, "proto", "-o", tmp_path, *text.split())
    graph = build(read_net(tmp_path / "pose_deploy.prototxt"))
    shapes = {n.layer.name: n.params[0].shape for n in graph.nodes if n.params}
    assert shapes["conv1_1"] == (16, 3, 3, 3)
    assert shapes["conv3_4"] == (64, 64, 3, 3)
    assert shapes["conv4_7_CPM"] == (64, 96, 3, 3)
    assert shapes["conv5_1_CPM"] == (256, 64, 1, 1)
    assert shapes["Mconv1_stage2"] == (64, 15 + 64 + 1, 7, 7)
    assert shapes["Mconv7_stage3"] == (15, 64, 1, 1)
    found = identify(graph)
    assert (found.stages, found.parts, found.centre) == (3, 14, True)
    assert graph.blobs[found.outputs[-1]] == (1, 15, 16, 16)


def test_rates_of_the_two_halves(tmp_path: Path) -> None:
    _run(export.main, "proto", "-o", tmp_path, *_SMALL)
    spec = read_net(tmp_path / "pose_train_test.prototxt")
    rates = {la.name: tuple(p.lr_mult for p in la.params) for la in spec.layers if la.params}
    assert {v for k, v in rates.items() if k.startswith("Mconv")} == {(4.0, 8.0)}
    assert {v for k, v in rates.items() if not k.startswith("Mconv")} == {(1.0, 2.0)}
    assert not [la for la in spec.layers if la.type == "Dropout"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--person", "--front vgg"),
        ("--front vgg --person --parts 3", "no --parts"),
        ("--front vgg --channels 1,1,1,1,1,1", "--front cpm"),
        ("--blocks 4x2", "--front vgg"),
        ("--front vgg --blocks 4x2,4", "--blocks"),
        ("--front vgg --blocks 4x2,4x2", "3 blocks"),
        ("--input 64x64x64", "HEIGHTxWIDTH"),
    ],
)
def test_bad_descriptions(options: str, said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(export.main, ["proto", "-o", str(tmp_path / "x"), *options.split()])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "x").exists()


def test_random_weights_of_both(tmp_path: Path) -> None:
    for name in ("mpii-vgg", "person"):
        out = tmp_path / f"{name}.caffemodel"
        _run(models.main, "random", "--like", name, "--stages", 2, "--input", 64, "-o", out)
        assert read_weights(out).layers[0].name == "conv1_1"


def test_a_person_network_of_one_stage_is_not_made(tmp_path: Path) -> None:
    """Nothing would take it for one: its only map is handed on to no stage."""
    words = ["random", "--like", "person", "--stages", "1", "-o", str(tmp_path / "p.caffemodel")]
    result = CliRunner().invoke(models.main, words)
    assert result.exit_code == 2
    assert "--stages 1" in result.stderr
    assert not (tmp_path / "p.caffemodel").exists()


# ---------------------------------------------------------------- labels of the person network


def _crowd() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], Annotation]:
    rng = np.random.default_rng(3)
    who = annotation(rng, "a.png", 300, 200, others=2)
    others = tuple(
        replace(o, objpos=np.array(place))
        for o, place in zip(who.others, ((60.0, 90.0), (240.0, 120.0)), strict=True)
    )
    return rng.integers(0, 256, (200, 300, 3), np.uint8), replace(who, others=others)


@pytest.mark.parametrize("flip", [False, True])
def test_every_centre_is_labelled(flip: bool) -> None:
    """The peaks stand where the people do after rotation, crop and mirroring."""
    image, who = _crowd()
    settings = Settings(
        stride=8, target_dist=who.scale, num_parts=0, crop_size_x=368, crop_size_y=320
    )
    sample = augment(image, who, settings, Augmentation(1.0, 17.0, 5, -9, flip))
    assert sample.label.shape == sample.label_1st.shape == (1, 40, 46)
    centres = np.concatenate([sample.scene.objpos[None], sample.scene.others])
    assert len(centres) == 3
    cells = np.rint((centres - 3.5) / 8).astype(int)
    for x, y in cells:
        near = sample.label_1st[0, y - 1 : y + 2, x - 1 : x + 2]
        assert sample.label_1st[0, y, x] == near.max() > 0.9
    own = cells[0]
    assert np.unravel_index(sample.label[0].argmax(), (40, 46)) == (own[1], own[0])
    assert np.count_nonzero(sample.label_1st > 0.9) > np.count_nonzero(sample.label > 0.9)


def test_white_pixels_at_the_centres_stay_under_the_peaks() -> None:
    """Told from the picture alone: what was painted at a centre is where the label peaks."""
    _, who = _crowd()
    image = np.zeros((200, 300, 3), np.uint8)
    for x, y in (who.objpos, *(o.objpos for o in who.others)):
        image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    settings = Settings(stride=8, target_dist=who.scale, num_parts=0)
    for flip in (False, True):
        sample = augment(image, who, settings, Augmentation(1.1, -25.0, 0, 0, flip))
        rows, columns = np.nonzero(sample.pixels.min(2) > 200)
        assert len(rows) > 20
        assert all(
            sample.label_1st[0, min(int(y) // 8, 45), min(int(x) // 8, 45)] > 0.7
            for y, x in zip(rows, columns, strict=True)
        )


def test_centres_close_together_add_up_to_one() -> None:
    maps = labels.body_centres(np.array([[40, 40], [44, 40]], np.float32), 12, 14, 8, 21)
    assert maps.shape == (1, 12, 14)
    assert maps.max() == 1
    one = labels.body_centres(np.array([[43.5, 35.5]], np.float32), 12, 14, 8, 21)
    np.testing.assert_allclose(one[0, 4, 5:8], [1, np.exp(-64 / 882), np.exp(-256 / 882)], 1e-6)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("person", [False, True])
def test_training_from_vgg(person: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of VGG's names take its weights, the others are filled, and the report lists both."""
    store.export_lmdb(store.plan(dataset(tmp_path, 8), seed=1), tmp_path, tmp_path / "records")
    vgg = _vgg19(tmp_path)
    kind = ["--person", "--stages", "3"] if person else ["--stages", "2"]
    options = [*_SMALL, "--front-convs", "8"]
    if person:
        options[options.index("--blocks") + 1] = "4x2,6x2,8x4,10x4,10x1"
    _run(
        export.main,
        "proto",
        "-o",
        tmp_path,
        *options,
        *kind,
        "--solver",
        "max_iter=3",
        "--solver",
        "base_lr=1e-5",
        "--solver",
        "solver_mode=CPU",
        "--solver",
        "snapshot_prefix=snap/pose",
        "--solver",
        "display=1",
    )
    monkeypatch.chdir(tmp_path)
    said = _run(
        train.main, "pose_solver.prototxt", "--weights", vgg, "--workers", 0, "--device", "cpu"
    )
    spec = read_net("pose_train_test.prototxt")
    convs = [la.name for la in spec.layers if la.type == "Convolution"]
    taken = [name for name in convs if "_CPM" not in name and not name.startswith("Mconv")]
    filled = [name for name in convs if name not in taken]
    file = [entry.name for entry in read_weights(vgg).layers]
    left = [name for name in file if name not in taken]
    assert len(taken) == (13 if person else 10)
    for names, what in (
        (taken, "layer(s) took their weights from the file"),
        (filled, "layer(s) were filled anew"),
        (left, "layer(s) of the file have no place here"),
    ):
        assert f"{len(names)} {what}: {', '.join(names)}" in said
    assert "iteration 2" in said
    learned = {e.name: e.blobs for e in read_weights("snap/pose_iter_3.caffemodel").layers}
    given = {e.name: e.blobs for e in read_weights(vgg).layers}
    for name in taken:  # three small steps away from VGG, not from a filler
        np.testing.assert_allclose(
            learned[name][0].data, given[name][0].data.reshape(learned[name][0].shape), atol=1e-2
        )
        assert not np.array_equal(learned[name][0].data, given[name][0].data)


def test_a_vgg_of_another_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.export_lmdb(store.plan(dataset(tmp_path, 4), seed=1), tmp_path, tmp_path / "records")
    options = list(_SMALL)
    options[options.index("--blocks") + 1] = "5x2,6x2,8x4,10x2"
    _run(export.main, "proto", "-o", tmp_path, *options, "--front-convs", 8)
    monkeypatch.chdir(tmp_path)
    arguments = ["pose_solver.prototxt", "--weights", str(_vgg19(tmp_path)), "--workers", "0"]
    result = CliRunner().invoke(train.main, arguments)
    assert result.exit_code == 2
    assert "conv1_1" in result.output and "--fresh" in result.output
