"""``cpm-predict`` on photographs of every kind, and the predictor from Python."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from caffe_compat import Net, write_weights
from reproduce import netgen
from reproduce.cli import predict
from reproduce.inference import Predictor, Setting, task_demo
from tests.paths import DATA, needs_data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained pose machine."""
    config = netgen.CPMConfig(stages=2, input_size=96, towers=(4, 4, 8), features=4, wide=8, belief=8, tower_kernel=5,
                              stage_kernel=5, filler="msra")  # fmt: skip
    net = Net(netgen.deploy(config), seed=2)
    path = tmp_path_factory.mktemp("model") / "small.caffemodel"
    write_weights(path, net.weights(), net.graph.spec)
    return path


def _run(*args: object) -> Result:
    return CliRunner().invoke(predict.main, [str(a) for a in args])


def test_photograph(model: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    result = _run(tmp_path / "a.png", "--model", model, "--out", tmp_path / "out", "--box", "10,10,60,100")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "a_keypoints.json").read_text())
    assert len(found["people"][0]["pose_keypoints_2d"]) == 42
    assert cv2.imread(str(tmp_path / "out" / "a_skeleton.png")).shape == image.shape
    assert (tmp_path / "out" / "a_belief.png").exists()
    assert "1 people" in result.output
    again = _run(tmp_path / "a.png", "--model", model, "--out", tmp_path / "out", "--resume")
    assert "0 people" in again.output


def test_boxes_file(model: Path, tmp_path: Path) -> None:
    """Several people in a picture, each as if alone; CSV and JSON say the same; an image without boxes is listed."""
    rng = np.random.default_rng(0)
    for name in ("two.png", "none.png"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (120, 90, 3), np.uint8))
    boxes = [[10, 10, 40, 90], [30.5, 20, 50, 70]]
    (tmp_path / "b.json").write_text(json.dumps({"two.png": boxes}))
    (tmp_path / "b.csv").write_text("image,x,y,w,h\n" + "".join(f"two.png,{x},{y},{w},{h}\n" for x, y, w, h in boxes))
    found = []
    for kind in ("json", "csv"):
        out = tmp_path / kind
        result = _run(tmp_path / "*.png", "--model", model, "--boxes", tmp_path / f"b.{kind}", "--out", out)
        assert result.exit_code == 1
        assert "names no person in it" in result.stderr
        assert "none.png" in result.stderr
        assert "2 people" in result.stdout
        assert (out / "two_belief_1.png").exists()
        assert (out / "two_belief_2.png").exists()
        found.append(json.loads((out / "two_keypoints.json").read_text())["people"])
    assert found[0] == found[1]
    for i, box in enumerate(boxes):
        _run(tmp_path / "two.png", "--model", model, "--box", ",".join(map(str, box)), "--out", tmp_path / "alone")
        assert json.loads((tmp_path / "alone" / "two_keypoints.json").read_text())["people"] == [found[0][i]]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("b.json", "{", "is no JSON"),
        ("b.json", "[1]", "expected an object of lists"),
        ("b.json", '{"a.png": [1, 2, 3, 4]}', "a.png, person 1: expected four numbers"),
        ("b.json", '{"a.png": [[1, 2, 0, 4]]}', "positive size"),
        ("b.csv", "image,x,y,w,h\na.png,1,2,nan,4", "line 2: expected four numbers"),
        ("b.csv", "a.png," + "1" * 200_000, "is no CSV"),
        ("b.csv", "a.png,1,2,3", "line 1: expected four numbers"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_bad_boxes_file(model: Path, tmp_path: Path, file: str, text: str | None, said: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    if text is not None:
        (tmp_path / file).write_text(text)
    result = _run(tmp_path / "a.png", "--model", model, "--boxes", tmp_path / file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_failing_person_does_not_stop_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    from caffe_compat.errors import CaffeCompatError

    for name, width in (("a.png", 40), ("b.png", 50)):
        cv2.imwrite(str(tmp_path / name), np.zeros((60, width, 3), np.uint8))
    run = Predictor.run
    calls: list[int] = []

    def failing(self: Predictor, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise CaffeCompatError("a.png: the network fails")
        return run(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "run", failing)
    result = _run(tmp_path / "a.png", tmp_path / "b.png", "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "the network fails" in result.stderr
    assert [p.name for p in (tmp_path / "out").glob("*.json")] == ["b_keypoints.json"]


def test_results_do_not_overwrite_each_other(model: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    for name in ("a.png", "a.jpg", "x/b.png", "y/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), image)
    inputs = [tmp_path / n for n in ("a.png", "a.jpg", "x/b.png", "y/b.png")]
    result = _run(*inputs, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {"a.png_keypoints.json", "a.jpg_keypoints.json"}
    assert "x/b.png: 2 inputs have this file name" in result.stderr


def test_every_kind_of_picture(model: Path, tmp_path: Path) -> None:
    """Grey, 16-bit, transparent and tiny images are read; damaged and missing ones are listed, the others done, exit 1."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), rng.integers(0, 256, (50, 60), np.uint8))
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (50, 60, 3), np.uint16))
    cv2.imwrite(str(folder / "clear.png"), rng.integers(0, 256, (50, 60, 4), np.uint8))
    cv2.imwrite(str(folder / "plain.jpg"), rng.integers(0, 256, (50, 60, 3), np.uint8))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    result = _run(folder, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert {p.name.split("_")[0] for p in (tmp_path / "out").glob("*_keypoints.json")} == {"grey", "deep", "clear", "plain"}
    for name in ("broken.jpg", "empty.png"):
        assert name in result.stderr
    assert "Traceback" not in result.output


def test_bad_requests(model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    for args in (
        [], [tmp_path / "a.png", "--dataset", "lsp"], [tmp_path / "a.png", "--box", "1,2"], ["--dataset", "lsp"],
        [tmp_path / "a.png", "--stages", "3"], [tmp_path / "a.png", "--device", "tpu"], [tmp_path],
    ):  # fmt: skip
        args = [*args, "--model", model, "--out", tmp_path / "out"]
        if args[0] == tmp_path:
            (tmp_path / "a.png").unlink()
        result = _run(*args)
        assert result.exit_code == 2, args
        assert "Traceback" not in result.output


def test_box_outside_the_image() -> None:
    from caffe_compat.errors import CaffeCompatError

    image = np.zeros((40, 30, 3), np.uint8)
    with pytest.raises(CaffeCompatError, match="no part of it lies inside the 30×40 image"):
        task_demo(image, (100, 100, 10, 10), Setting())


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


@needs_data
def test_lsp_benchmark(model: Path, tmp_path: Path) -> None:
    from reproduce import predictions

    result = _run("--dataset", "lsp", "--data", DATA, "--model", model, "--limit", "3", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert predictions.read_mat(tmp_path / "LSP_prediction_model_small.mat").shape == (3, 14, 2)
    score = json.loads((tmp_path / "LSP_score_small.json").read_text())
    assert score["counted"] == 42
