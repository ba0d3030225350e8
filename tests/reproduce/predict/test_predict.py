"""``cpm-predict`` on photographs of every kind, and the predictor from Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from caffe_compat import Net, write_weights
from reproduce.benchmarks.published import published
from reproduce.cli import evaluate, predict
from reproduce.network import netgen
from reproduce.predict.job import Job, prepare
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import DEMO, PROTOCOLS, Standing
from tests.nets import TINY_MACHINE
from tests.paths import DATA, needs_data
from tests.pictures import read_picture


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained pose machine."""
    net = Net(netgen.deploy(replace(TINY_MACHINE, input_size=96)), seed=2)
    path = tmp_path_factory.mktemp("model") / "small.caffemodel"
    write_weights(path, net.weights(), net.graph.spec)
    return path


def _run(*args: object) -> Result:
    return CliRunner().invoke(predict.main, [str(a) for a in args])


def test_photograph(model: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    args = [tmp_path / "a.png", "--model", model, "--out", tmp_path / "out"]
    args += ["--box", "10,10,60,100"]
    result = _run(*args)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "a_keypoints.json").read_text())
    assert len(found["people"][0]["pose_keypoints_2d"]) == 42
    assert read_picture(tmp_path / "out" / "a_skeleton.png").shape == image.shape
    assert (tmp_path / "out" / "a_belief.png").exists()
    assert "1 person in" in result.output
    assert f"results in {tmp_path / 'out'}" in result.output
    assert "0 people" in _run(*args, "--resume").output


def test_boxes_file(model: Path, tmp_path: Path) -> None:
    """Several people in a picture, each as if alone; CSV and JSON say the same; an image without
    boxes is listed."""
    rng = np.random.default_rng(0)
    for name in ("two.png", "none.png"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (120, 90, 3), np.uint8))
    boxes: list[list[float]] = [[10, 10, 40, 90], [30.5, 20, 50, 70]]
    (tmp_path / "b.json").write_text(json.dumps({"two.png": boxes}))
    (tmp_path / "b.csv").write_text(
        "image,x (px),y (px),w,h\n" + "".join(f"two.png,{x},{y},{w},{h}\n" for x, y, w, h in boxes)
    )
    found = []
    for kind in ("json", "csv"):
        out = tmp_path / kind
        result = _run(
            tmp_path / "*.png", "--model", model, "--boxes", tmp_path / f"b.{kind}", "--out", out
        )
        assert result.exit_code == 1
        assert "names no person in it" in result.stderr
        assert "none.png" in result.stderr
        assert "2 people" in result.stdout
        assert (out / "two_belief_1.png").exists()
        assert (out / "two_belief_2.png").exists()
        found.append(json.loads((out / "two_keypoints.json").read_text())["people"])
    assert found[0] == found[1]
    for i, box in enumerate(boxes):
        _run(
            tmp_path / "two.png",
            "--model",
            model,
            "--box",
            ",".join(map(str, box)),
            "--out",
            tmp_path / "alone",
        )
        assert json.loads((tmp_path / "alone" / "two_keypoints.json").read_text())["people"] == [
            found[0][i]
        ]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("b.json", "{", "is no readable file of boxes"),
        ("b.json", "[1]", "an object of lists"),
        ("b.json", '{"a.png": [[1, 2, 3]]}', "a.png, person 1: expected four numbers"),
        ("b.json", '{"a.png": [[1, 2, 0, 4]]}', "positive size"),
        ("b.csv", "image,x,y,w,h\na.png,1,2,nan,4", "line 2: expected four numbers"),
        ("b.csv", "a.png," + "1" * 200_000, "is no readable file of boxes"),
        ("b.csv", "a.png,1,2,3", "line 1: expected four numbers"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_bad_boxes_file(
    model: Path, tmp_path: Path, file: str, text: str | None, said: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    if text is not None:
        (tmp_path / file).write_text(text)
    result = _run(
        tmp_path / "a.png", "--model", model, "--boxes", tmp_path / file, "--out", tmp_path / "out"
    )
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_failing_person_does_not_stop_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caffe_compat.errors import CaffeCompatError

    for name, width in (("a.png", 40), ("b.png", 50)):
        cv2.imwrite(str(tmp_path / name), np.zeros((60, width, 3), np.uint8))
    run = Predictor.predict_job
    calls: list[int] = []

    def failing(self: Predictor, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise CaffeCompatError("a.png: the network fails")
        return run(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "predict_job", failing)
    result = _run(
        tmp_path / "a.png", tmp_path / "b.png", "--model", model, "--out", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert "the network fails" in result.stderr
    assert [p.name for p in (tmp_path / "out").glob("*_keypoints.json")] == ["b_keypoints.json"]


def test_every_kind_of_picture(model: Path, tmp_path: Path) -> None:
    """Grey, 16-bit, transparent and tiny images are read; damaged and missing ones are listed, the
    others done, exit 1."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), rng.integers(0, 256, (50, 60), np.uint8))
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (50, 60, 3), np.uint16))
    cv2.imwrite(str(folder / "clear.png"), rng.integers(0, 256, (50, 60, 4), np.uint8))
    cv2.imwrite(str(folder / "plain.jpg"), rng.integers(0, 256, (50, 60, 3), np.uint8))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "empty.png").write_bytes(b"")
    pixels = Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8))
    pixels.convert("CMYK").save(folder / "print.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter turn clockwise
    pixels.save(folder / "turned.jpg", exif=turned)
    cv2.imwrite(str(folder / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    pixels.save(folder / "moving.gif")
    for name in ("phone.heic", "notes.txt", ".hidden"):
        (folder / name).write_bytes(b"")
    result = _run(folder, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 1
    done = {"grey", "deep", "clear", "plain", "print", "turned"}
    if cv2.haveImageReader(str(folder / "moving.gif")):  # OpenCV 4.11 and later
        done.add("moving")
    else:
        assert "moving.gif" in result.stderr
    assert {p.name.split("_")[0] for p in (tmp_path / "out").glob("*_keypoints.json")} == done
    assert "files with other endings are left out (2: .heic, .txt)" in result.stderr
    assert read_picture(tmp_path / "out" / "turned_skeleton.png").shape == (60, 50, 3)
    assert json.loads((tmp_path / "out" / "turned_keypoints.json").read_text())["size"] == [50, 60]
    for name in ("broken.jpg", "empty.png"):
        assert name in result.stderr
    assert "Traceback" not in result.output


def test_bad_requests(model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    for args in (
        [],
        [tmp_path / "a.png", "--dataset", "lsp"],
        [tmp_path / "a.png", "--box", "1,2"],
        ["--dataset", "lsp"],
        [tmp_path / "a.png", "--stages", "3"],
        [tmp_path / "a.png", "--device", "tpu"],
        [tmp_path / "a.png", "--prototxt", tmp_path / "nosuch.prototxt"],
        [tmp_path / "a.png", "--detect", "person", "--person-model", tmp_path / "nosuch"],
        ["camera:0", "--boxes", tmp_path / "boxes.csv"],
        [tmp_path],
    ):
        args = [*args, "--model", model, "--out", tmp_path / "out"]
        if args[0] == tmp_path:
            (tmp_path / "a.png").unlink()
        result = _run(*args)
        assert result.exit_code == 2, args
        assert "Traceback" not in result.output
        assert not (tmp_path / "out").exists(), args


def test_box_outside_the_image() -> None:
    from caffe_compat.errors import CaffeCompatError

    strange: list[Any] = [(1, 2, 3), "a", "1234", [1, 2, None, 4], 7, (1, 2, 3, 10**400)]
    for box in strange:
        with pytest.raises(CaffeCompatError, match=r"^box .*: expected four numbers x, y, width"):
            DEMO.placement((40, 30), box)
    placed = DEMO.placement((40, 30), np.array([1, 2, 9, 9]))  # type: ignore[arg-type]
    assert placed == DEMO.placement((40, 30), (1, 2, 9, 9))
    with pytest.raises(CaffeCompatError, match="no part of it lies inside the 30×40 image"):
        DEMO.placement((40, 30), (100, 100, 10, 10))
    for beside in ((-20, 5, 10, 10), (5, -20, 10, 10), (-10, 5, 10, 10)):
        with pytest.raises(CaffeCompatError, match="no part of it lies inside"):
            DEMO.placement((40, 30), beside)


@pytest.mark.parametrize("name", ["mpi", "flic"])
def test_a_smaller_network_sees_people_smaller(name: str) -> None:
    box = (20, 10, 80, 80)
    whole, half = (PROTOCOLS[name].at(size).placement((120, 90), box) for size in (368, 184))
    assert half.scales == pytest.approx([scale / 2 for scale in whole.scales])


def test_the_door_takes_an_array_a_file_or_a_video(model: Path, tmp_path: Path) -> None:
    """A person of an array, of a file and of a video's frame gets the same joints."""
    predictor = Predictor.load(str(model), protocol=DEMO.searching((1.0,)))
    _film(tmp_path / "walk.mp4", 0.2)
    capture = cv2.VideoCapture(str(tmp_path / "walk.mp4"))
    frames = [capture.read()[1] for _ in range(5)]
    boxes = [(5.0, 5.0, 40.0, 40.0), (20.0, 1.0, 30.0, 45.0)]
    found = list(predictor.predict_video(tmp_path / "walk.mp4", boxes, limit=3))
    assert len(found) == 3
    for frame, people in zip(frames, found, strict=False):
        cv2.imwrite(str(tmp_path / "frame.png"), frame)
        from_file = predictor.predict_file(tmp_path / "frame.png", boxes)
        alone = [predictor.predict(frame.astype(np.uint8), box, bgr=True) for box in boxes]
        for one, two, three in zip(people, from_file, alone, strict=True):
            np.testing.assert_array_equal(one.joints, two.joints)
            np.testing.assert_array_equal(one.joints, three.joints)
    assert [len(people) for people in predictor.predict_video(tmp_path / "walk.mp4")] == [1] * 5


def test_nobody_is_detected(model: Path, tmp_path: Path) -> None:
    """A photograph is then one person, a video's frame holds none."""
    predictor = Predictor.load(str(model), protocol=DEMO.searching((1.0,)))
    _film(tmp_path / "walk.mp4", 0.1, rate=20)
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((300, 200, 3), 90, np.uint8))
    assert len(predictor.predict_file(tmp_path / "flat.png", detect=True)) == 1
    assert list(predictor.predict_video(tmp_path / "walk.mp4", detect=True)) == [[], []]


def test_everybody_who_is_found_is_predicted(model: Path, tmp_path: Path) -> None:
    """By photograph and by frame, each where the search says, which sees B, G and R."""
    predictor = Predictor.load(str(model), protocol=DEMO.searching((1.0,)))
    found = (Standing((20.0, 20.0), 0.1, 0.9), Standing((40.0, 30.0), 0.2, 0.4))
    seen: list[np.ndarray] = []

    class Search:
        def search(self, pixels: np.ndarray) -> object:
            seen.append(pixels)
            return SimpleNamespace(people=found)

    predictor.heads = Search()  # type: ignore[assignment]
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "two.png"), image)
    everybody = predictor.predict_file(tmp_path / "two.png", detect=True)
    np.testing.assert_array_equal(seen.pop(), image)
    told = predictor.predict_job(prepare(predictor.job("two", image, found)))
    for ours, expected in zip(everybody, told, strict=True):
        np.testing.assert_array_equal(ours.joints, expected.joints)
    _film(tmp_path / "walk.mp4", 0.1, rate=20)
    assert [
        len(people) for people in predictor.predict_video(tmp_path / "walk.mp4", detect=True)
    ] == [2, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_carries_its_error(model: Path, tmp_path: Path, workers: int) -> None:
    """What is wrong with one image comes back with its job, from a worker too, and is raised where
    the job is predicted."""
    from caffe_compat.errors import DataError
    from reproduce.predict.job import prepare
    from reproduce.runtime.prefetch import prefetch

    predictor = Predictor.load(str(model), protocol=DEMO.searching((1.0,)))
    cv2.imwrite(str(tmp_path / "good.png"), np.zeros((60, 40, 3), np.uint8))
    paths = [tmp_path / name for name in ("missing.png", "good.png", "good.png")]
    boxes = [None, [(500.0, 500.0, 50.0, 50.0)], None]
    jobs = [predictor.job(str(p), p, b) for p, b in zip(paths, boxes, strict=True)]
    missing, outside, good = prefetch(prepare, jobs, workers)
    assert str(missing.error) == f"{paths[0]}: no such image"
    with pytest.raises(DataError, match=r"good\.png: box .* no part of it lies inside"):
        predictor.predict_job(outside)
    assert good.error is None
    assert good.image is None  # the pixels do not travel back unasked
    assert len(predictor.predict_job(good)) == 1


def test_first_stages_only(model: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (80, 70, 3), np.uint8)
    both = Predictor.load(str(model)).predict(image, keep=True)
    first = Predictor.load(str(model), stages=1).predict(image, keep=True)
    assert both.maps is not None
    assert first.maps is not None
    assert (len(both.maps), len(first.maps)) == (2, 1)
    np.testing.assert_array_equal(both.maps[0], first.maps[0])


def test_batches_do_not_matter(model: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (80, 70, 3), np.uint8)
    whole = Predictor.load(str(model)).predict(image, keep=True)
    single = Predictor.load(str(model), batch=1).predict(image, keep=True)
    assert whole.maps is not None
    assert single.maps is not None
    np.testing.assert_allclose(whole.maps, single.maps, atol=1e-6 * np.abs(whole.maps).max())


def test_all_predictions_together(model: Path, tmp_path: Path) -> None:
    """COCO's JSON, .npz and .mat say what the images' own files say; done images count when the
    work is resumed."""
    from scipy.io import loadmat

    from reproduce.predict import joint_files

    rng = np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (70, 60, 3), np.uint8))
    (tmp_path / "b.csv").write_text("one.png,5,5,40,60\ntwo.png,1,1,50,60\ntwo.png,10,5,40,50\n")
    out = tmp_path / "out"
    for inputs in ([tmp_path / "one.png"], [tmp_path / "one.png", tmp_path / "two.png"]):
        result = _run(
            *inputs, "--model", model, "--boxes", tmp_path / "b.csv", "--out", out, "--resume"
        )
        assert result.exit_code == 0, result.output
    assert "2 people in" in result.output
    rows = [
        person["pose_keypoints_2d"]
        for name in ("one", "two")
        for person in json.loads((out / f"{name}_keypoints.json").read_text())["people"]
    ]
    expected = np.array(rows).reshape(3, 14, 3)
    with np.load(out / "predictions.npz") as file:
        np.testing.assert_array_equal(file["joints"], expected[:, :, :2] + 1)
        np.testing.assert_array_equal(file["scores"], expected[:, :, 2])
        assert [Path(n).name for n in file["image"]] == ["one.png", "two.png", "two.png"]
    mat = loadmat(out / "predictions.mat")
    assert mat["prediction_all"].shape == (14, 2, 3)
    np.testing.assert_array_equal(joint_files.read(out / "predictions.mat"), expected[:, :, :2])
    coco = json.loads((out / "predictions_coco.json").read_text())
    assert [a["image_id"] for a in coco["annotations"]] == [1, 2, 2]
    assert len(coco["categories"][0]["keypoints"]) == 14
    found = np.array([a["keypoints"] for a in coco["annotations"]]).reshape(3, 14, 3)
    np.testing.assert_array_equal(found[:, :, :2], expected[:, :, :2])
    assert coco["images"][0] == {
        "id": 1,
        "file_name": str(tmp_path / "one.png"),
        "width": 60,
        "height": 70,
    }


# MATLAB's empty matrices, as the authors' file ends with one
_WITHOUT_IMAGE: tuple[dict[str, Any], ...] = (
    {"img_paths": {"_ArrayType_": "double", "_ArraySize_": [0, 0], "_ArrayData_": None}},
    {"img_paths": {}},
    {"img_paths": []},
)


def test_annotation_files_as_boxes(tmp_path: Path) -> None:
    from reproduce.predict.boxes import of_image, read_boxes

    record = {"img_paths": "images/a.jpg", "objpos": [101, 201], "scale_provided": 0.5}
    (tmp_path / "own.json").write_text(
        json.dumps({"root": [record, {"dataset": "MPI", "isValidation": 0}]})
    )
    assert read_boxes(tmp_path / "own.json") == {"images/a.jpg": [(50.0, 150.0, 100.0, 100.0)]}
    (tmp_path / "own.json").write_text(
        json.dumps({"root": [None, {**record, "img_paths": ["a.jpg"]}, record, *_WITHOUT_IMAGE]})
    )
    found = read_boxes(tmp_path / "own.json")
    assert list(found) == ["images/a.jpg"]
    assert ["record 1" in found.skipped[0], "record 2" in found.skipped[1]] == [True, True]
    assert len(found.skipped) == 2
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9}, None, {"file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 8, "bbox": [1, 2, 3, 4]},
            {"id": 3, "image_id": 7, "keypoints": [[1, 2, 2]]},
            {"id": 4, "image_id": [7], "bbox": [1, 2, 3, 4]},
            {"id": 5, "image_id": 7, "keypoints": 5},
            None,
            {"id": 7, "image_id": 9, "bbox": [1, 2, 3, 4]},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    boxes = read_boxes(tmp_path / "coco.json")
    assert "annotation 2: its image_id 8 is not among the images" in boxes.skipped[0]
    assert "annotation 3: its keypoints are no list of numbers" in boxes.skipped[1]
    assert "annotation 4: its image_id [7] is not among the images" in boxes.skipped[2]
    assert "annotation 5: its keypoints are no list of numbers" in boxes.skipped[3]
    assert "annotation 6 of the list: is None, no annotation" in boxes.skipped[4]
    assert "annotation 7: its image_id 9 is of one without a file_name" in boxes.skipped[5]
    assert boxes == {"a.jpg": [(1.0, 2.0, 3.0, 4.0)]}
    assert of_image(boxes, "/photos/a.jpg") == boxes["a.jpg"]
    assert (
        of_image({"images/a.jpg": [(1.0, 2.0, 3.0, 4.0)]}, "/photos/images/a.jpg") == boxes["a.jpg"]
    )


def test_protocols_and_scales(model: Path, tmp_path: Path) -> None:
    """An annotated square tested by MPII's protocol is the annotation's centre and scale; bad
    combinations say what is wrong."""
    rgb = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    mpi = PROTOCOLS["mpi"].at(96)
    placement = mpi.placement((120, 90), (20, 10, 80, 80))
    assert placement == mpi.placement((120, 90), Standing((60, 50), 0.4))
    assert placement.center == (61, 51)
    cv2.imwrite(str(tmp_path / "a.png"), rgb)
    common = ["--model", model, "--out", tmp_path / "out"]
    for args in (
        ["--protocol", "lsp"],
        ["--protocol", "flic", "--box", "30,20,30,40"],
        ["--protocol", "mpi", "--box", "9,9,60,60"],
    ):
        result = _run(tmp_path / "a.png", *common, *args, "--scales", "0.9,1.1")
        assert result.exit_code == 0, result.output
    for args, said in (
        (["--protocol", "lsp", "--box", "1,2,30,40"], "has no meaning"),
        (["--protocol", "mpi"], "needs a box"),
        (["--protocol", "flic", "--box", "300,300,50,50"], "no part of it lies inside"),
        (["--scales", "0.5,x"], "expected multiples"),
        (["--protocol", "flic"], "needs the torso's box"),
        (["--box", "1,2,30,40", "--detect"], "exclude each other"),
    ):
        result = _run(tmp_path / "a.png", *common, *args)
        assert result.exit_code in (1, 2)
        assert said in result.stderr


def test_detector(model: Path, tmp_path: Path) -> None:
    """A picture without people is tested whole and that is said; one smaller than the detector's
    window too."""
    for name, size in (("flat.png", (300, 200, 3)), ("small.png", (40, 40, 3))):
        cv2.imwrite(str(tmp_path / name), np.full(size, 90, np.uint8))
    result = _run(
        tmp_path / "flat.png",
        tmp_path / "small.png",
        "--model",
        model,
        "--out",
        tmp_path / "out",
        "--detect",
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("no person detected, the whole image was taken") == 2


@needs_data
def test_detector_sees_people() -> None:
    from reproduce.predict.detection import detect_people

    image = read_picture(DATA / "samples" / "cmu" / "00007508_01_23.png")
    boxes = detect_people(image)
    assert len(boxes) == 2
    for x, y, w, h in boxes:
        assert 60 < w < 160
        assert 180 < h < 400
        assert 0 <= x < image.shape[1]
        assert 0 <= y < image.shape[0]


def _film(path: Path, seconds: float, rate: int = 25) -> None:
    """A bright figure that walks through grey noise."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (64, 48))
    back = rng.integers(60, 100, (48, 64, 3), np.uint8)
    for i in range(round(seconds * rate)):
        frame = back.copy()
        cv2.rectangle(frame, (i % 60, 10), (i % 60 + 5, 40), (200, 220, 240), -1)
        writer.write(frame)
    writer.release()


@pytest.mark.long
def test_video(model: Path, tmp_path: Path) -> None:
    """Thirty seconds of video: each frame's people, a video of the same length, and going on after
    a stop."""
    _film(tmp_path / "walk.mp4", 30)
    args = [tmp_path / "walk.mp4", "--model", model, "--scales", "1", "--out", tmp_path / "out"]
    result = _run(*args)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "walk_keypoints.json").read_text())
    assert [f["frame"] for f in found["frames"]] == list(range(750))
    assert found["rate"] == 25
    assert all(len(f["people"][0]["pose_keypoints_2d"]) == 42 for f in found["frames"])
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "walk_skeleton.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 750
    assert drawn.read()[1].shape == (48, 64, 3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name[0] != ".") == [
        "walk_keypoints.json",
        "walk_skeleton.mp4",
    ]
    assert "0 people" in _run(*args, "--resume").output


def test_video_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _film(tmp_path / "walk.mp4", 1)
    args = [tmp_path / "walk.mp4", "--model", model, "--scales", "1", "--workers", "0"]
    assert _run(*args, "--out", tmp_path / "whole").exit_code == 0
    run, calls = Predictor.predict_job, []

    def stopped(self: Predictor, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return run(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_job", stopped)
        assert _run(*args, "--out", tmp_path / "part").exit_code == 130
    journal = next((tmp_path / "part").glob("walk_journal*"))
    journal.write_bytes(journal.read_bytes()[:-40])  # the last line is cut off, as by a full disk
    result = _run(*args, "--out", tmp_path / "part", "--resume")
    assert "16 people" in result.output
    both = [
        json.loads((tmp_path / n / "walk_keypoints.json").read_text())["frames"]
        for n in ("whole", "part")
    ]
    assert both[0] == both[1]


_VIDEOS = ("broken.mp4", "text.mp4", "empty.mp4", "missing.avi", "good.mp4")


def test_bad_videos(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\1 no film")
    (tmp_path / "text.mp4").write_bytes(b"no film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    _film(tmp_path / "good.mp4", 0.2)
    inputs = [tmp_path / n for n in _VIDEOS]
    result = _run(*inputs, "--model", model, "--scales", "1", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "broken.mp4: cannot be opened as a video" in result.stderr
    assert "text.mp4: is text, not a video" in result.stderr
    assert "empty.mp4: is empty (0 bytes)" in result.stderr
    assert "missing.avi: no such file" in result.stderr
    assert (tmp_path / "out" / "good_skeleton.mp4").exists()


class _Camera:
    """Stands for cv2.VideoCapture: five pictures, or none."""

    def __init__(self, source: object) -> None:
        self.left = 5 if source == 0 else 0

    def isOpened(self) -> bool:
        return self.left > 0

    def read(self) -> tuple[bool, object]:
        self.left -= 1
        return self.left >= 0, np.full((48, 64, 3), 40 * self.left % 256, np.uint8)

    def release(self) -> None:
        pass


def test_camera(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    result = _run("camera:0", "--model", model, "--scales", "1", "--limit", "4", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "camera0_keypoints.json").read_text())["frames"]) == 4
    assert (tmp_path / "camera0_skeleton.mp4").stat().st_size > 0
    result = _run("camera:1", "--model", model, "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert "camera 1 cannot be opened" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_camera_that_fails_costs_itself_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    inputs = (tmp_path / "broken.jpg", tmp_path / "missing.jpg", "camera:1", "camera:0")
    out = tmp_path / "out"
    result = _run(*inputs, "--model", model, "--scales", "1", "--limit", "2", "--out", out)
    assert result.exit_code == 1, result.output
    for bad in ("broken.jpg", "missing.jpg", "camera 1 cannot be opened"):
        assert bad in result.stderr
    assert (out / "camera0_skeleton.mp4").exists()


@pytest.mark.long
def test_a_missing_file_among_many(model: Path, tmp_path: Path) -> None:
    """A thousand images with one missing: the others are done, by workers as by this process."""
    rng = np.random.default_rng(0)
    names = [tmp_path / f"{i:04d}.png" for i in range(1000)]
    for name in names:
        cv2.imwrite(str(name), rng.integers(0, 256, (12, 10, 3), np.uint8))
    names[417].unlink()
    args = ["--model", model, "--scales", "1", "--stages", "1"]
    result = _run(*names, *args, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "999 people" in result.output
    assert [line for line in result.stderr.splitlines() if "not done" in line] == [
        f"not done: {names[417]}: no such image"
    ]
    assert _run(*names[:3], *args, "--workers", "0", "--out", tmp_path / "alone").exit_code == 0
    for i in range(3):
        files = [
            (tmp_path / where / f"{i:04d}_keypoints.json").read_text() for where in ("out", "alone")
        ]
        assert files[0] == files[1]


@pytest.mark.long
@needs_data
def test_sample_photographs(model: Path, tmp_path: Path) -> None:
    """The release's photographs of all kinds and sizes: a skeleton of the photograph's size, maps
    and 14 joints inside each."""
    images = sorted(p for p in (DATA / "samples").rglob("*") if p.suffix in (".png", ".jpg"))
    result = _run(*images, "--model", model, "--scales", "0.8,1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"{len(images)} people in" in result.output
    for image in images:
        height, width = read_picture(image).shape[:2]
        assert read_picture(tmp_path / f"{image.stem}_skeleton.png").shape == (height, width, 3)
        assert (tmp_path / f"{image.stem}_belief.png").exists()
        found = json.loads((tmp_path / f"{image.stem}_keypoints.json").read_text())
        joints = np.array(found["people"][0]["pose_keypoints_2d"]).reshape(14, 3)[:, :2]
        assert found["size"] == [width, height]
        assert (joints >= 0).all()
        assert (joints < (width, height)).all()


@pytest.mark.long
@needs_data
def test_shared_work(model: Path, tmp_path: Path) -> None:
    """Two processes predict a data set and pictures together: the same files as one writes; a dead
    one's share is made up."""
    import subprocess
    import sys

    from reproduce.predict import joint_files

    args = [
        "--dataset",
        "lsp",
        "--data",
        str(DATA),
        "--model",
        str(model),
        "--limit",
        "7",
        "--scales",
        "1",
    ]
    assert _run(*args, "--out", tmp_path / "one").exit_code == 0
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "reproduce.cli.predict",
    ]
    subprocess.run(
        [*torchrun, *args, "--out", str(tmp_path / "two")],
        check=True,
        capture_output=True,
        timeout=300,
    )
    one, two = (
        joint_files.read(tmp_path / n / "LSP_prediction_model_small.mat") for n in ("one", "two")
    )
    np.testing.assert_array_equal(one, two)
    # as if the second process had died at once
    (tmp_path / "two" / "LSP_small_journal1.jsonl").unlink()
    (tmp_path / "two" / "LSP_prediction_model_small.mat").unlink()
    result = _run(*args, "--out", tmp_path / "two", "--resume")
    assert "3 people in" in result.output
    np.testing.assert_array_equal(
        joint_files.read(tmp_path / "two" / "LSP_prediction_model_small.mat"), one
    )
    images = sorted((DATA / "lsp" / "images").glob("im100*.jpg"))[:4]
    more = [*map(str, images), "--model", str(model), "--scales", "1", "--out"]
    assert _run(*more, tmp_path / "a").exit_code == 0
    subprocess.run(
        [*torchrun, *more, str(tmp_path / "b")], check=True, capture_output=True, timeout=300
    )
    files = [{p.name: p.read_text() for p in (tmp_path / n).glob("*.json")} for n in ("a", "b")]
    assert files[0] == files[1]


@needs_data
def test_mpii_validation_benchmark(model: Path, tmp_path: Path) -> None:
    """The images that are there are predicted and scored; the others are listed and nan in the
    file."""
    from reproduce.predict import joint_files

    result = _run(
        "--dataset",
        "mpi-valid",
        "--data",
        DATA,
        "--model",
        model,
        "--scales",
        "1",
        "--limit",
        "7",
        "--out",
        tmp_path,
    )
    assert result.exit_code == 1
    assert "not done" in result.stderr
    joints = joint_files.read(tmp_path / "MPI_valid_prediction_model_small.mat")
    assert joints.shape == (7, 16, 2)
    done = int(np.isfinite(joints[:, 0]).all(1).sum())
    assert json.loads((tmp_path / "MPI_valid_score_small.json").read_text())["people"] == done > 0


@needs_data
def test_mpii_centres_are_the_annotations(model: Path) -> None:
    """valid.h5 holds a moved centre and an enlarged scale; the test people have the annotation's
    own."""
    from reproduce.benchmarks.mpii import MpiiValidation

    truth = json.loads((DATA / "mpii" / "test_mpii.json").read_text())
    people = {
        image.name: person for image, person in MpiiValidation(DATA).people() if image.exists()
    }
    for entry in truth:
        person = people[entry["image"]]
        assert isinstance(person, Standing)
        x, y = person.center
        assert (x + 1, y + 1) == pytest.approx(entry["center"], abs=1e-3)
        assert person.scale == pytest.approx(entry["scale"], abs=1e-5)


@pytest.mark.long
@needs_data
def test_flic_benchmark(tmp_path: Path) -> None:
    from reproduce.predict import joint_files

    config = netgen.CPMConfig(
        stages=1,
        parts=9,
        input_size=96,
        towers=(4, 4, 4),
        features=4,
        wide=4,
        belief=4,
        tower_kernel=3,
    )
    net = Net(netgen.deploy(config), seed=2)
    write_weights(tmp_path / "flic.caffemodel", net.weights(), net.graph.spec)
    result = _run(
        "--dataset",
        "flic",
        "--data",
        DATA,
        "--model",
        tmp_path / "flic.caffemodel",
        "--scales",
        "1",
        "--out",
        tmp_path,
    )
    assert result.exit_code == 1  # most of its images are not there
    joints = joint_files.read(tmp_path / "FLIC_prediction_model_flic.mat")
    _, tested = published()["training"]["flic"]
    assert joints.shape == (tested, 9, 2)
    score = json.loads((tmp_path / "FLIC_score_flic.json").read_text())
    assert score["people"] == int(np.isfinite(joints).all((1, 2)).sum()) > 0
    assert "all in" in result.stderr
    assert (
        _run(
            "--dataset",
            "lsp",
            "--data",
            DATA,
            "--model",
            tmp_path / "flic.caffemodel",
            "--out",
            tmp_path,
        ).exit_code
        == 2
    )


def test_fast_mode_is_close(model: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (80, 70, 3), np.uint8)
    exact = Predictor.load(str(model)).predict(image, keep=True)
    fast = Predictor.load(str(model), amp="bf16").predict(image, keep=True)
    assert exact.maps is not None
    assert fast.maps is not None
    error = np.abs(exact.maps - fast.maps).max() / np.abs(exact.maps).max()
    assert 0 < error < 0.05


@needs_data
def test_lsp_benchmark(model: Path, tmp_path: Path) -> None:
    from reproduce.predict import joint_files

    result = _run(
        "--dataset", "lsp", "--data", DATA, "--model", model, "--limit", "3", "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert joint_files.read(tmp_path / "LSP_prediction_model_small.mat").shape == (3, 14, 2)
    score = json.loads((tmp_path / "LSP_score_small.json").read_text())
    assert score["counted"] == 42
    words = [str(tmp_path / "LSP_prediction_model_small.mat"), "--dataset", "lsp", "--data"]
    compared = CliRunner().invoke(evaluate.main, [*words, str(DATA)])
    assert compared.exit_code == 2
    assert "cpm-predict --limit writes the score of its people" in compared.stderr


@pytest.mark.long
def test_scores_are_means_over_the_scales(model: Path) -> None:
    """A scale that is searched twice changes nothing, neither the scores nor the drawn maps."""
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    found = []
    for search in ((1.0,), (1.0, 1.0)):
        protocol = PROTOCOLS["lsp"].searching(search)
        predictor = Predictor.load(str(model), protocol=protocol, device="cpu")
        job = prepare(Job("a", image, predictor.protocol))
        found += predictor.predict_job(job, shown=60)
    once, twice = found
    assert twice.scores == pytest.approx(once.scores, rel=1e-5)
    assert once.small is not None
    assert twice.small == pytest.approx(once.small, rel=1e-4, abs=1e-6)
