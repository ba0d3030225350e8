"""Names of parts stay with a model on its way through files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from caffe_compat import Net, read_net, write_weights
from caffe_compat.conversion.convert import Conversion, convert
from caffe_compat.errors import CaffeCompatError
from reproduce.cli import convert as command
from reproduce.cli import export
from reproduce.network import netgen
from reproduce.people import part_names, skeletons
from reproduce.people.skeletons import PARTS_14, SKELETON_14, skeleton

_NAMES = ("nose", "left hand", "right hand", "Schwanz-Ende", "尾")
_FORMATS = {
    "safetensors": "a.safetensors",
    "pth": "a.pth",
    "npz": "a.npz",
    "caffemodel": "b.caffemodel",
    "h5": "a.caffemodel.h5",
}


def _config() -> netgen.CPMConfig:
    return netgen.CPMConfig(
        stages=2, parts=5, input_size=16, towers=(2, 2, 2), features=2, wide=2, belief=2
    )


def _model(folder: Path, name: str) -> Path:
    """A pose network of 5 parts with this name."""
    spec = replace(netgen.deploy(_config()), name=name)
    net = Net(spec)
    write_weights(folder / "a.caffemodel", net.weights(), spec)
    (folder / "deploy.prototxt").write_text(spec.to_text(), encoding="utf-8")
    (folder / "nameless.prototxt").write_text(replace(spec, name="").to_text(), encoding="utf-8")
    return folder / "a.caffemodel"


def _opened(folder: Path, file: str, to: str) -> Conversion:
    definition = folder / "nameless.prototxt" if to == "h5" else None
    return convert(folder / file, prototxt=definition)


@pytest.mark.parametrize("own", ["", "my dogs", "spare parts = many", "parts"])
def test_a_name_tells_the_parts_and_is_still_a_name(own: str) -> None:
    assert part_names.in_name(own) == ()
    told = part_names.with_parts(own, _NAMES)
    assert told.startswith(own)
    assert part_names.in_name(told) == _NAMES
    assert part_names.in_name(part_names.with_parts(told, ("a", "b"))) == ("a", "b")
    assert part_names.with_parts(told, ()) == own


@pytest.mark.parametrize("bad", ["a,b", "", " a", "a\n", "\x1b[2J"])
def test_names_that_would_not_come_back_are_refused(bad: str) -> None:
    with pytest.raises(CaffeCompatError, match="cannot be kept"):
        part_names.with_parts("", ("nose", bad))


def test_text_of_a_definition_keeps_them(tmp_path: Path) -> None:
    _model(tmp_path, part_names.with_parts("x", _NAMES))
    assert part_names.in_name(read_net(tmp_path / "deploy.prototxt").name) == _NAMES


@pytest.mark.parametrize("to", _FORMATS)
def test_every_container_keeps_them(to: str, tmp_path: Path) -> None:
    model = _model(tmp_path, part_names.with_parts("x", _NAMES))
    target = tmp_path / _FORMATS[to]
    result = CliRunner().invoke(command.main, [str(model), "--to", to, "-o", str(target)])
    assert result.exit_code == 0, result.output
    made = _opened(tmp_path, _FORMATS[to], to)
    assert part_names.of_model(made) == _NAMES
    assert part_names.skeleton_of(made, 5).parts == _NAMES
    # and from there on
    again = tmp_path / "again.safetensors"
    part_names.kept(made).write(again, "safetensors")
    assert part_names.of_model(convert(again)) == _NAMES


def test_containers_with_metadata_say_them_there_too(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = _model(tmp_path, part_names.with_parts("", ("a", "b", "c", "d", "e")))
    target = tmp_path / "a.safetensors"
    assert CliRunner().invoke(command.main, [str(model), "-o", str(target)]).exit_code == 0
    with safe_open(target, framework="np") as file:
        assert file.metadata()["parts"] == "a,b,c,d,e"


def test_a_definition_without_names_does_not_lose_the_models(tmp_path: Path) -> None:
    model = _model(tmp_path, part_names.with_parts("x", _NAMES))
    target = tmp_path / "a.npz"
    arguments = [str(model), "--prototxt", str(tmp_path / "nameless.prototxt"), "-o", str(target)]
    assert CliRunner().invoke(command.main, arguments).exit_code == 0
    assert part_names.of_model(convert(target)) == _NAMES


def test_an_hdf5_model_has_the_groups_that_caffe_reads_and_no_more(tmp_path: Path) -> None:
    _model(tmp_path, part_names.with_parts("x", _NAMES))
    made = convert(tmp_path / "a.caffemodel")
    made.write(tmp_path / "a.h5", "h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["data"]
        assert not file["data"].attrs


def test_models_that_name_nothing_have_the_authors_parts(tmp_path: Path) -> None:
    made = convert(_model(tmp_path, "x"))
    assert part_names.skeleton_of(made, 5) == skeleton(5)
    assert part_names.kept(made).net == made.net


def test_another_number_of_names_is_refused(tmp_path: Path) -> None:
    made = convert(_model(tmp_path, part_names.with_parts("", ("a", "b"))))
    with pytest.raises(CaffeCompatError, match=r"a\.caffemodel: names 2 part.* of 5"):
        part_names.skeleton_of(made, 5)


def test_the_authors_names_have_the_authors_limbs(tmp_path: Path) -> None:
    net = netgen.deploy(replace(_config(), parts=14))
    turned = PARTS_14[::-1]
    named = part_names.named_net(net, turned)
    write_weights(tmp_path / "a.caffemodel", Net(named).weights(), named)
    found = part_names.skeleton_of(convert(tmp_path / "a.caffemodel"), 14)

    def joined(skeletal: object) -> set[tuple[str, str]]:
        pairs = skeletal.limbs + skeletal.torso  # type: ignore[attr-defined]
        return {tuple(skeletal.parts[part] for part in pair) for pair in pairs}  # type: ignore[attr-defined]

    assert found.parts == turned
    assert joined(found) == joined(SKELETON_14)


def _proto(folder: Path, *options: object) -> str:
    arguments = ["proto", "-o", str(folder), "--stages", "2", *map(str, options)]
    result = CliRunner().invoke(export.main, arguments)
    return "" if result.exit_code == 0 else result.stderr


def test_prototxts_are_written_with_the_names(tmp_path: Path) -> None:
    names = "nose,left_hand,right_hand"
    assert not _proto(tmp_path, "--part-names", names, "--scheme", "fine-tuned")
    for file in ("deploy", "train_test", "train_test_stage1", "train_test_stage2"):
        net = read_net(tmp_path / f"pose_{file}.prototxt")
        assert part_names.in_name(net.name) == ("nose", "left_hand", "right_hand")
        (last,) = (la for la in net.layers if la.name == "conv7_stage1")
        assert last.message.convolution_param.num_output == 4
    assert "names 3 part(s), --parts says 5" in _proto(
        tmp_path, "--part-names", names, "--parts", 5
    )
    assert "'left_hand' has no partner" in _proto(tmp_path, "--part-names", "nose,left_hand")


@pytest.mark.parametrize(
    "names",
    [
        "left_hand,right_hand",
        "hand_l,hand_r",
        "LHand,RHand",
        "HandLeft,HandRight",
        "leftHand,rightHand",
        "lhand,rhand",
        "handL,handR",
        "hand l,hand r",
        "LegL,LegR",
        "RearLowerL,RearLowerR",
        "RL,RR",
        "FL,FR",
    ],
)
def test_sides_in_every_usual_spelling(tmp_path: Path, names: str) -> None:
    left, right = names.split(",")
    made = skeletons.named(("nose", left, "lip", "ear", right, "root"))
    assert made.flip == ((4, 1),)
    said = skeletons.mirror_text(made)
    assert said == f"mirror images exchange {right} and {left}; in the middle: nose, lip, ear, root"
    arguments = ["proto", "-o", str(tmp_path), "--part-names", f"nose,{names}"]
    assert said.partition(";")[0] in CliRunner().invoke(export.main, arguments).output


@pytest.mark.parametrize("name", ["lhand", "handL", "leg", "root", "l", "R", "polar"])
def test_a_letter_alone_tells_no_side(name: str) -> None:
    made = skeletons.named(("nose", name, "tail"))
    assert made.flip == ()
    assert skeletons.mirror_text(made) == (
        "mirror images exchange no parts: no names tell two sides"
    )


def test_parts_without_another_side_are_trained_without_mirror_images(tmp_path: Path) -> None:
    names = ("--part-names", "nose,left_hand,tail")
    refused = _proto(tmp_path / "a", *names)
    assert "'left_hand' has no partner" in refused
    assert "correct the name, or give --no-mirror" in refused
    assert not _proto(tmp_path / "b", *names, "--no-mirror")
    (layer,) = (
        layer
        for layer in read_net(tmp_path / "b" / "pose_train_test.prototxt").layers
        if layer.type == "CPMData"
    )
    assert layer.message.transform_param.flip_prob == 0
    assert layer.message.transform_param.HasField("flip_prob")


def test_limbs_of_cocos_category_count_from_1() -> None:
    from reproduce.predict.result_files import coco_category

    limbs = coco_category(SKELETON_14)["skeleton"]
    assert limbs == [[a + 1, b + 1] for a, b in SKELETON_14.limbs]
    assert min(map(min, limbs)) == 1
    assert max(map(max, limbs)) == 14
