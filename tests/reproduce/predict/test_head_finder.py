"""People by the heads and necks of a pose network's first stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from caffe_compat import CaffeCompatError, Net
from caffe_compat.network.graph import build
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob
from reproduce.cli import predict
from reproduce.network import netgen
from reproduce.people.skeletons import skeleton
from reproduce.predict.head_finder import THRESHOLD, HeadFinder, Look
from reproduce.predict.prediction import Prediction
from reproduce.predict.protocol import Standing
from reproduce.records.images import read_image
from tests.paths import ROOT

Image = npt.NDArray[np.uint8]
_INPUT = 64
_PERSON = 0.8 * _INPUT  # the height of a person of the right size, in the network's input


PARTS = skeleton(14).parts
_LEGS = [PARTS.index(part) for part in ("Rkne", "Rank", "Lkne", "Lank")]


def _upper_body(image: Image, people: Sequence[Standing]) -> list[Prediction]:
    """A look that believes in everything but legs, at the middle of each body."""
    scores = np.full(len(PARTS), 0.9)
    scores[_LEGS] = 0
    return [Prediction(np.tile(person.center, (len(PARTS), 1)), scores) for person in people]


def _finder(parts: int = 14, look: Look = _upper_body) -> HeadFinder:
    """Finds blue heads above green necks: every kernel passes its own channel on, the last one
    doubles it, so that a full colour has nearly 1 and black 0."""
    config = netgen.vgg(
        stages=1,
        parts=parts,
        input_size=_INPUT,
        blocks=((3, 1), (3, 1), (3, 1)),
        front_convs=(3,),
        wide=3,
        belief=3,
    )
    graph = build(netgen.deploy(config))
    layers = []
    for node in graph.nodes:
        if node.params:
            shape = node.params[0].shape
            kernel = np.zeros(shape, np.float32)
            for channel in range(min(shape[0], shape[1], 3)):
                kernel[channel, channel, shape[2] // 2, shape[3] // 2] = 1
            blobs = (Blob(kernel), Blob(np.zeros(shape[0], np.float32)))
            layers.append(LayerBlobs(node.layer.name, node.layer.type, blobs))
    last = layers[-1]
    layers[-1] = LayerBlobs(last.name, last.type, (Blob(last.blobs[0].data * 2), last.blobs[1]))
    return HeadFinder(Net(graph, Weights(tuple(layers))), _INPUT, skeleton(parts).parts, look)


def _somebody(image: Image, neck: tuple[int, int], head: tuple[int, int], size: int) -> None:
    """A green neck and a blue head, squares of ``size`` pixels."""
    for channel, (x, y) in ((1, neck), (0, head)):
        image[y - size // 2 : y + size // 2, x - size // 2 : x + size // 2, channel] = 255


@pytest.fixture(scope="module")
def finder() -> HeadFinder:
    return _finder()


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("way", [(0, -1), (1, 0), (0, 1)])
def test_somebody_is_found_in_any_posture(
    finder: HeadFinder, way: tuple[int, int], size: int
) -> None:
    """The body lies on the other side of the neck than the head, at the size of the head."""
    image = np.zeros((300, 300, 3), np.uint8)
    length = 14 * size  # of the way from the neck to the head
    neck = (150, 150)
    _somebody(image, neck, (neck[0] + length * way[0], neck[1] + length * way[1]), 6 * size)
    (person, *others) = finder.search(image).people
    assert not others
    height = person.scale * 200
    assert 4.5 * length < height < 18 * length
    to_centre = np.array(person.center) - neck
    distance = float(np.hypot(*to_centre))
    assert 0.25 * height < distance < 0.45 * height
    assert to_centre @ np.array(way) < -0.8 * distance  # cells are coarse
    assert person.confidence is not None and person.confidence > 0.4


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_size_and_place_follow_from_head_and_neck(finder: HeadFinder, scale: float) -> None:
    """The neck is in one cell and the head four cells above, 8 pixels of the scaled photograph.
    Seven times as much is 56 pixels, and 224 are looked for: between them (their product's root)
    are 112. Somebody is taken for a quarter higher, 140 pixels, with the middle 0.35 of that, 49
    pixels, below the neck."""
    maps = np.zeros((2, 20, 20), np.float32)
    maps[0, 8, 10], maps[1, 12, 10] = 0.9, 0.5
    ((somebody),) = finder._proposals(maps, scale, 224 / scale)
    assert somebody.belief == pytest.approx(0.7)
    assert somebody.standing.confidence is None  # the joints have a say in it
    assert somebody.standing.scale * 200 == pytest.approx(140 / scale)
    neck_x, neck_y = 21 / scale - 0.5, 25 / scale - 0.5  # the middle of a cell of two pixels
    assert somebody.neck == pytest.approx((neck_x, neck_y))
    assert somebody.standing.center == pytest.approx((neck_x, neck_y + 49 / scale))


def test_two_people_and_the_surest_first(finder: HeadFinder) -> None:
    image = np.zeros((200, 400, 3), np.uint8)
    _somebody(image, (100, 90), (100, 70), 10)
    _somebody(image, (300, 100), (300, 80), 10)
    image[:, 200:] //= 4
    image[:, 200:] *= 3
    found = finder.search(image)
    left, right = found.people
    assert abs(left.center[0] - 100) < 15 and abs(right.center[0] - 300) < 15
    assert left.confidence > right.confidence  # type: ignore[operator]
    assert found.belief.max() > 0.8


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((100, 100, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.full((60, 90, 3), (255, 0, 0), np.uint8),
    ],
    ids=["black", "tiny", "heads without necks"],
)
def test_nobody(finder: HeadFinder, image: Image) -> None:
    assert finder.search(image).people == ()


def test_a_head_far_from_the_neck_is_another_persons(finder: HeadFinder) -> None:
    image = np.zeros((200, 400, 3), np.uint8)
    _somebody(image, (50, 100), (350, 100), 10)
    assert finder.search(image).people == ()


def _one_person() -> Image:
    image = np.zeros((200, 200, 3), np.uint8)
    _somebody(image, (100, 90), (100, 70), 10)
    return image


def test_joints_with_legs_tell_the_middle_and_the_height() -> None:
    """The box of the joints that are believed in, a tenth higher; the confidence is the mean of the
    belief in head and neck and of the joints' scores."""
    joints = np.tile([60.0, 80.0], (len(PARTS), 1))
    joints[PARTS.index("Rank")] = 70, 180
    joints[PARTS.index("Lwri")] = 500, 500
    scores = np.where(np.arange(len(PARTS)) == PARTS.index("Lwri"), 0.05, 0.8)
    alone = _finder().search(_one_person()).people[0]
    belief = 2 * alone.confidence - 0.9 * 10 / 14  # type: ignore[operator]
    finder = _finder(look=lambda image, people: [Prediction(joints, scores)] * len(people))
    (person,) = finder.search(_one_person()).people
    assert person.center == pytest.approx((65, 130))
    assert person.scale * 200 == pytest.approx(1.1 * 100)
    assert person.confidence == pytest.approx((belief + scores.mean()) / 2)


@pytest.mark.parametrize("score, found", [(0.0, 0), (0.9, 1)])
def test_somebody_whose_joints_are_guesses_is_nobody(score: float, found: int) -> None:
    """And joints that all lie in one place tell no height: head and neck do."""

    def look(image: Image, people: Sequence[Standing]) -> list[Prediction]:
        joints = np.zeros((len(PARTS), 2))
        return [Prediction(joints, np.full(len(PARTS), score)) for _ in people]

    people = _finder(look=look).search(_one_person() // 4 * 3).people
    assert len(people) == found
    assert all(person.scale > 0.3 for person in people)


def test_proposals_with_the_same_joints_are_one_person_whom_the_joints_decide() -> None:
    """Two pairs of head and neck, and the network sees one body from both: the one from which it is
    surer is kept, not the one whose head and neck look better. The look has the photograph."""
    image = np.zeros((200, 400, 3), np.uint8)
    _somebody(image, (100, 90), (100, 70), 10)
    _somebody(image, (300, 100), (300, 80), 10)
    image[:, 200:] //= 4
    image[:, 200:] *= 3
    joints = np.tile([[200.0, 50.0], [200.0, 150.0]], (len(PARTS) // 2, 1))

    def look(pixels: Image, people: Sequence[Standing]) -> list[Prediction]:
        np.testing.assert_array_equal(pixels, image)
        assert {person.center[0] < 200 for person in people} == {True, False}
        sure = [0.9 if person.center[0] > 200 else 0.5 for person in people]
        return [Prediction(joints, np.full(len(PARTS), score)) for score in sure]

    (person,) = _finder(look=look).search(image).people
    assert person.confidence is not None and person.confidence > 0.75
    assert person.center == pytest.approx((200, 100))


def test_a_look_sees_what_the_predictor_predicts() -> None:
    """In the order of the people, near the joints that all scales give."""
    from reproduce.network.identify import embedded
    from reproduce.predict.predictor import Predictor

    predictor = Predictor.load(str(embedded()), device="cpu")
    photograph = read_image(ROOT / "docs" / "photograph.jpg")
    whole = Standing((180.0, 250.0), 2.1)
    nobody = Standing((20.0, 500.0), 0.5)
    empty, person = predictor.look(photograph, [nobody, whole])
    assert person.scores.mean() > 0.5 > 0.2 > empty.scores.mean()
    carefully = predictor.predict(photograph, whole, bgr=True)
    assert np.median(np.hypot(*(person.joints - carefully.joints).T)) < 10
    assert predictor.look(photograph, []) == []
    predictor.batch = 2
    *_, third = predictor.look(photograph, [nobody, nobody, whole])
    np.testing.assert_allclose(third.joints, person.joints, atol=1)


def test_networks_without_heads_and_necks_are_refused() -> None:
    with pytest.raises(CaffeCompatError, match="--detect hog"):
        _finder(parts=9)


def test_the_embedded_network_finds_heads(tmp_path: Path) -> None:
    from reproduce.network.identify import embedded
    from reproduce.predict.predictor import Predictor

    predictor = Predictor.load(str(embedded()), device="cpu")
    finder = predictor.heads
    assert finder is not None
    assert finder.search(np.zeros((64, 64, 3), np.uint8)).people == ()


@pytest.mark.long
def test_the_command_looks_for_heads_first(tmp_path: Path) -> None:
    """``--detect`` takes the heads and necks where the network has them, and says so; OpenCV's
    detector when it is named. A photograph of nobody is taken whole."""
    nobody = tmp_path / "nobody.png"
    cv2.imwrite(str(nobody), np.full((300, 200, 3), 90, np.uint8))
    photograph = ROOT / "docs" / "photograph.jpg"

    def run(*words: object) -> Result:
        given = [photograph, nobody, *words, "--scales", "1", "--device", "cpu", "--workers", "0"]
        return CliRunner().invoke(predict.main, [str(word) for word in given])

    done = run("--detect", "--out", tmp_path / "heads")
    assert done.exit_code == 0, done.output
    assert "people are found by the heads and necks that the network sees" in done.output
    assert f"{nobody}: no person detected, the whole image was taken" in done.output
    content = json.loads((tmp_path / "heads" / "photograph_keypoints.json").read_text())
    assert content["made_by"]["detect"] == "heads"
    assert content["made_by"]["person"] == ["joints", THRESHOLD]
    # the face is blurred: no head and neck to be sure of
    assert f"{photograph}: no person detected, the whole image was taken" in done.output
    (person,) = content["people"]
    assert person["box"] is None
    assert person["score"] > 0.4
    assert (tmp_path / "heads" / "photograph_people.png").exists()
    hog = run("--detect", "hog", "--out", tmp_path / "heads", "--resume")
    assert "2 × another --detect" in hog.output
