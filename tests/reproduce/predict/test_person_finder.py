"""People in photographs and videos by the person network; the protocols' options around it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from caffe_compat import Net, write_weights
from caffe_compat.network.graph import build
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob
from reproduce.cli import predict
from reproduce.network import identify as identification
from reproduce.network import netgen
from reproduce.network.identify import embedded, identify
from reproduce.predict import person_finder
from reproduce.predict.person_finder import PersonFinder, merged, peaks_of
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import DEMO, PROTOCOLS, Protocol, Standing

Image = npt.NDArray[np.uint8]
_NARROW = {"blocks": ((2, 1), (2, 1), (2, 1)), "front_convs": (2,), "wide": 2, "belief": 2}


def _see_light(path: Path, config: netgen.CPMConfig) -> Path:
    """A network whose maps show how bright the image is: every kernel passes the first channel on,
    the last one doubles it, so that white has nearly 1 and grey 0."""
    spec = netgen.deploy(config)
    graph = build(spec)
    layers = []
    for node in graph.nodes:
        if node.params:
            shape = node.params[0].shape
            kernel = np.zeros(shape, np.float32)
            kernel[:, 0, shape[2] // 2, shape[3] // 2] = 1
            layers.append(
                LayerBlobs(
                    node.layer.name,
                    node.layer.type,
                    (Blob(kernel), Blob(np.zeros(shape[0], np.float32))),
                )
            )
    layers[-1] = replace(
        layers[-1], blobs=(Blob(layers[-1].blobs[0].data * 2), layers[-1].blobs[1])
    )
    write_weights(path, Weights(tuple(layers)), spec)
    return path


@pytest.fixture(scope="module")
def lights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person network that takes bright spots for people."""
    config = netgen.person(**_NARROW, stages=2, input_size=64, input_width=80)
    return _see_light(tmp_path_factory.mktemp("person") / "person.caffemodel", config)


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pose network without a centre map, and untrained."""
    config = netgen.vgg(**_NARROW, stages=2, input_size=64, centre=False, filler="msra")
    net = Net(netgen.deploy(config), seed=2)
    path = tmp_path_factory.mktemp("pose") / "pose.caffemodel"
    write_weights(path, net.weights(), net.graph.spec)
    return path


def _street(*spots: tuple[int, int], height: int = 184, width: int = 300) -> Image:
    image = np.full((height, width, 3), 60, np.uint8)
    for x, y in spots:
        cv2.circle(image, (x, y), 7, (255, 255, 255), -1)
    return cv2.GaussianBlur(image, (0, 0), 2).astype(np.uint8)


def _run(*args: object) -> Result:
    return CliRunner().invoke(predict.main, [str(a) for a in args])


def test_bright_spots_are_found(lights: Path) -> None:
    """Each once, where it is, though four scales see it; at one scale in reading order."""
    spots = [(240, 60), (40, 100), (130, 150)]
    finder = PersonFinder.load(str(lights), device="cpu")
    found = finder.search(_street(*spots))
    assert len(found.people) == 3
    for spot in spots:
        assert min(np.hypot(*np.subtract(p.center, spot)) for p in found.people) < 6
    confidences = [p.confidence or 0 for p in found.people]
    assert confidences == sorted(confidences, reverse=True)
    assert found.belief.max() > 0.7
    ordered = finder.at_one_scale(_street(*spots)).people
    assert sorted(p.center[1] for p in ordered) == [p.center[1] for p in ordered]
    assert finder.search(_street()).people == ()


@pytest.mark.parametrize(
    ("height", "multiple", "scale"), [(368, 1.0, 2.0), (368, 0.5, 1.0), (736, 0.5, 2.0)]
)
def test_the_scale_tells_size_and_place(
    height: int, multiple: float, scale: float, lights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network was trained on people of 41/35 units in an input of 368 pixels. Where it sees one
    in pixel 30, 20 of an image at twice the size, that is the pixel's middle at 15.25, 10.25."""
    finder = PersonFinder.load(str(lights), device="cpu", height=height, search=(multiple,))

    def seen(maps: npt.NDArray[np.float32], stride: int) -> npt.NDArray[np.float32]:
        wide = np.zeros((1, stride * maps.shape[1], stride * maps.shape[2]), np.float32)
        wide[0, 20, 30] = 0.75
        wide[0, -1, -1] = 0.9  # in the padding
        return wide

    monkeypatch.setattr(person_finder, "enlarge", seen)
    found = finder.search(np.zeros((184, 101, 3), np.uint8))
    (person,) = found.people
    assert person.center == ((14.75, 9.75) if scale == 2 else (30, 20))
    assert person.scale == pytest.approx(41 / 35 * (height / 368) / scale)
    assert person.confidence == 0.75
    assert found.belief.shape == (184 * scale, 101 * scale)  # without the padding
    assert found.belief.max() == 0.75


def test_the_belief_is_the_largest_of_all_scales() -> None:
    """At the size of the largest map."""
    coarse = np.full((2, 3), 0.5, np.float32)
    fine = np.zeros((4, 6), np.float32)
    fine[3, 5] = 0.75
    wanted = np.full((4, 6), 0.5)
    wanted[3, 5] = 0.75
    np.testing.assert_array_equal(person_finder._largest([coarse, fine]), wanted)
    np.testing.assert_array_equal(person_finder._largest([fine, coarse]), wanted)
    np.testing.assert_array_equal(person_finder._largest([]), [[0]])


def test_close_people_are_one() -> None:
    """Nearer than a quarter of the larger one's height."""
    sure, near, far = (
        Standing((100, 100), 1.0, 0.9),
        Standing((130, 110), 0.5, 0.7),
        Standing((170, 100), 0.5, 0.8),
    )
    assert merged([near, far, sure]) == [sure, far]


def test_peaks_in_reading_order() -> None:
    belief = np.zeros((6, 8), np.float32)
    belief[4, 1], belief[1, 6], belief[1, 2], belief[2, 3] = 0.9, 0.8, 0.7, 0.75
    belief[0, 0] = 0.5  # not above the threshold
    np.testing.assert_array_equal(peaks_of(belief), [[6, 1], [3, 2], [1, 4]])


def test_an_image_is_too_wide(lights: Path, pose: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((4, 30000, 3), np.uint8))
    result = _run(
        tmp_path / "wide.png",
        "--protocol",
        "python",
        "--person-model",
        lights,
        "--model",
        pose,
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 1
    assert "wide.png: an image of 30000×4" in result.stderr


@pytest.mark.parametrize("protocol", [*PROTOCOLS])
def test_any_protocol(protocol: str, lights: Path, pose: Path, tmp_path: Path) -> None:
    """Everybody in the picture gets joints, and a box, a centre and a confidence in the JSON."""
    spots = [(70, 90), (230, 80)]
    cv2.imwrite(str(tmp_path / "street.png"), _street(*spots))
    result = _run(
        "--detect",
        "person",
        tmp_path / "street.png",
        "--person-model",
        lights,
        "--model",
        pose,
        "--protocol",
        protocol,
        "--out",
        tmp_path / "out",
        "--person-scales",
        "0.5,1",
    )
    assert result.exit_code == 0, result.output
    assert "2 people" in result.stdout
    people = json.loads((tmp_path / "out" / "street_keypoints.json").read_text())["people"]
    for person in people:
        x, y, width, height = person["box"]
        center = person["center"]
        np.testing.assert_allclose([x + width / 2, y + height / 2], center, atol=0.02)
        assert min(np.hypot(*np.subtract(center, spot)) for spot in spots) < 6
        assert person["confidence"] > 0.5
        assert len(person["pose_keypoints_2d"]) == 42
    for which in ("belief_1", "belief_2", "people", "skeleton"):
        assert (tmp_path / "out" / f"street_{which}.png").exists()
    drawn = cv2.imread(str(tmp_path / "out" / "street_people.png"))
    assert drawn is not None
    assert drawn.shape == (184, 300, 3)


def test_nobody_is_said(lights: Path, pose: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "empty.png"), _street())
    result = _run(
        tmp_path / "empty.png",
        "--protocol",
        "python",
        "--person-model",
        lights,
        "--model",
        pose,
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    assert "no person found" in result.stdout
    assert json.loads((tmp_path / "out" / "empty_keypoints.json").read_text())["people"] == []


def test_resume_looks_at_the_person_definition(lights: Path, pose: Path, tmp_path: Path) -> None:
    config = netgen.person(**_NARROW, stages=2, input_size=64, input_width=80)
    text = netgen.deploy(config).to_text()
    (tmp_path / "one.prototxt").write_text(text)
    (tmp_path / "two.prototxt").write_text(f"{text}# another file\n")
    picture = tmp_path / "street.png"
    cv2.imwrite(str(picture), _street((100, 90)))
    args = (picture, "--protocol", "python", "--person-model", lights, "--model", pose)
    said = {}
    for number, name in enumerate(("one", "one", "two")):
        definition = ("--person-prototxt", tmp_path / f"{name}.prototxt")
        result = _run(*args, *definition, "--resume", "--out", tmp_path / "out")
        assert result.exit_code == 0, result.output
        said[number] = result.stdout
    assert "--resume: 1 kept" in said[1]
    assert "(1 × another definition of the person network)" in said[2]


def test_video(lights: Path, pose: Path, tmp_path: Path) -> None:
    """Each frame's own people."""
    writer = cv2.VideoWriter(
        str(tmp_path / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (300, 184)
    )
    for spots in ([(60, 90)], [(80, 90), (220, 70)], []):
        writer.write(_street(*spots))
    writer.release()
    result = _run(
        tmp_path / "walk.avi",
        "--detect",
        "person",
        "--person-model",
        lights,
        "--model",
        pose,
        "--person-scales",
        "1",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    frames = json.loads((tmp_path / "out" / "walk_keypoints.json").read_text())["frames"]
    assert [len(frame["people"]) for frame in frames] == [1, 2, 0]
    assert frames[1]["people"][0]["confidence"] > 0.5
    assert (tmp_path / "out" / "walk_skeleton.mp4").exists()


def test_people_share_batches(pose: Path) -> None:
    """All people of a picture run together and come out as each alone."""
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    boxes = [(10, 10, 40, 90), (60, 20, 50, 80), (100, 5, 50, 100)]
    predictor = Predictor.load(
        str(pose), device="cpu", protocol=DEMO.searching((0.8, 1.0)), batch=4
    )
    sizes: list[int] = []
    predictor.net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    from reproduce.predict.job import prepare

    together = predictor.predict_job(prepare(predictor.job("x", image[:, :, ::-1], boxes)))
    assert sizes == [4, 2]
    for box, person in zip(boxes, together, strict=True):
        alone = predictor.predict(image, box)
        np.testing.assert_array_equal(person.joints, alone.joints)
        np.testing.assert_allclose(person.scores, alone.scores, rtol=0, atol=1e-6)


def test_two_inputs_and_a_spare_centre_map(tmp_path: Path) -> None:
    """Image and centre map as inputs of their own; a person network out of a training net, whose
    input has a centre map that nobody reads."""
    config = netgen.vgg(**_NARROW, stages=2, input_size=64, filler="msra")
    spec = netgen.deploy(config)
    net = Net(spec, seed=2)
    write_weights(tmp_path / "one.caffemodel", net.weights(), spec)
    text = spec.to_text().split("layer {")
    whole = (
        'layer { name: "input" type: "Input" top: "image" top: "center_map" input_param { '
        "shape { dim: 1 dim: 3 dim: 64 dim: 64 } shape { dim: 1 dim: 1 dim: 64 dim: 64 } } } "
    ) + "".join("layer {" + part for part in text[3:])
    (tmp_path / "two.prototxt").write_text(whole)
    image = np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8)
    found = [
        Predictor.load(str(tmp_path / "one.caffemodel"), prototxt=prototxt, device="cpu").predict(
            image
        )
        for prototxt in (None, str(tmp_path / "two.prototxt"))
    ]
    np.testing.assert_array_equal(found[0].joints, found[1].joints)
    trained = netgen.train_test(
        netgen.person(**_NARROW, stages=2, input_size=64, input_width=0, filler="msra"),
        netgen.DataConfig(batch_size=1),
    )
    graph = build(trained, phase="TRAIN", input_shapes={"label": (1, 2, 8, 8)})
    weights = Net(graph, seed=3).weights()
    write_weights(tmp_path / "person.caffemodel", weights, trained)
    finder = PersonFinder.load(str(tmp_path / "person.caffemodel"), device="cpu")
    assert identify(finder.net.graph).person
    assert finder.belief(np.zeros((64, 96, 3), np.uint8)).shape == (8, 12)


# ---------------------------------------------------------------- which network, which range


def test_without_a_model_the_embedded_one_predicts(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), _street((100, 90)))
    result = _run(tmp_path / "a.png", "--out", tmp_path / "out", "--scales", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("embedded network") == 1
    assert embedded().parent.name in result.stdout
    assert (tmp_path / "out" / "a_skeleton.png").exists()


def _scales(demo: Protocol) -> tuple[float, ...]:
    return demo.placement((368, 300), (20.0, 30.0, 100.0, 230.0)).scales


def test_range_of_the_demo() -> None:
    """The sizes run from ``start_scale`` to ``end_scale`` times the input, six an octave."""
    at = DEMO.at(368)
    person = 1.2 * 230  # what the demo makes as high as the input at 1
    for given, octave in (((0.8, 3.0), 6.0), ((0.8, 1.2), 6.0), ((0.5, 2.0), 3.0)):
        scales = np.array(_scales(at.ranging(given, octave)))
        sizes = 368 / (scales * person)
        assert sizes[0] == pytest.approx(given[1])
        assert given[0] <= sizes[-1] < given[0] * 2 ** (1 / octave)
        np.testing.assert_allclose(np.diff(np.log2(scales)), 1 / octave)
    assert _scales(at) == _scales(at.ranging((0.8, 3.0), 6.0))


def test_the_model_chooses_the_range(tmp_path: Path, pose: Path) -> None:
    """A network of model 5's structure goes to 1.2, the paper's and other ones to 3; it is said,
    and can be said otherwise."""
    from reproduce.network.identify import released

    for model in released():
        if model.parts:
            assert model.demo_range == ((0.8, 1.2) if model.name == "mpii-vgg" else (0.8, 3.0))
    own = Predictor.load(str(pose), device="cpu").protocol
    assert own.demo_range is None
    cv2.imwrite(str(tmp_path / "a.png"), _street((100, 90)))
    said = _run(tmp_path / "a.png", "--model", pose, "--out", tmp_path / "1").stdout
    assert "0.8 to 3 (default of this model), 6 scales an octave" in said
    said = _run(
        tmp_path / "a.png",
        "--model",
        pose,
        "--out",
        tmp_path / "2",
        "--range",
        "0.8,1.2",
        "--octave",
        2,
    ).stdout
    assert "0.8 to 1.2 (--range), 2 scales an octave" in said


def test_a_network_of_a_released_structure_gets_the_range_of_its_demo(
    pose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its file is called; but for a range that was asked for. A small network stands for
    model 5, which has 52 million parameters."""
    (vgg,) = (model for model in identification.released() if model.name == "mpii-vgg")
    small = replace(
        vgg, stages=2, parameters=Predictor.load(str(pose), device="cpu").net.graph.count
    )
    monkeypatch.setattr(identification, "released", lambda: (small,))
    assert Predictor.load(str(pose), device="cpu").protocol.demo_range == (0.8, 1.2)
    asked = DEMO.ranging((0.5, 2.0), None)
    predictor = Predictor.load(str(pose), protocol=asked, device="cpu")
    assert predictor.protocol.demo_range == (0.5, 2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--detect person", "--person-model"),
        ("--protocol python", "--person-model"),
        ("--person-model x.caffemodel", "--detect person"),
        ("--range 1.2,0.8", "smallest"),
        ("--range 0.8,1.2 --scales 1", "--scales"),
        ("--octave 3 --protocol lsp", "--protocol demo"),
        ("--detect --box 1,2,30,40", "exclude"),
        ("--limit 3", "here are only photographs"),
        ("--data .", "--data is the folder of a --dataset"),
        ("--person-scales 1", "--person-scales goes with --detect person"),
        ("--person-threshold 0.5", "--person-threshold goes with --detect person"),
        ("--person-prototxt x.prototxt", "--person-prototxt goes with --detect person"),
        (
            "--person-model x.caffemodel --protocol python --person-scales 1",
            "--person-scales is of --detect person",
        ),
        ("--protocol python --box 1,2,30,40 --scales 1", "--scales has no meaning"),
        ("--protocol lsp --box 1,2,30,40", "--box has no meaning"),
        ("--protocol lsp --boxes x.csv", "--boxes has no meaning"),
        ("--protocol lsp --detect hog", "--detect has no meaning"),
        ("--protocol mpi", "needs a box around the person"),
        ("--protocol flic", "needs the torso's box"),
        ("--box 1,2,3,nan", "expected four numbers"),
        ("--box nan,2,30,40", "expected four numbers"),
        ("--box 1,2,3,4", "is smaller than 8 pixels"),
    ],
)
def test_options_that_do_not_go_together(options: str, said: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), _street())
    result = _run(tmp_path / "a.png", *options.split(), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_every_picture_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that is no number, and a data set that is not there: no folder is made for them."""
    cv2.imwrite(str(tmp_path / "a.png"), _street())
    missing = _run("--dataset", "lsp", "--data", tmp_path, "--out", tmp_path / "out")
    monkeypatch.setenv("CPM_MAX_PIXELS", "abc")
    limit = _run(tmp_path / "a.png", "--out", tmp_path / "out")
    for result, said in ((missing, "joints.mat"), (limit, "CPM_MAX_PIXELS=abc: expected")):
        assert result.exit_code == 2
        assert said in result.stderr
        assert not (tmp_path / "out").exists()


def test_networks_in_the_wrong_place(lights: Path, pose: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), _street())
    result = _run(tmp_path / "a.png", "--model", lights, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--person-model" in result.stderr
    result = _run(
        tmp_path / "a.png",
        "--model",
        pose,
        "--person-model",
        pose,
        "--detect",
        "person",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 2
    assert "is no person network" in result.stderr
