"""The readers of the downloads, against the original scripts' output and on damaged files."""

from __future__ import annotations

import contextlib
import json
import random
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
from click.testing import CliRunner

from caffe_compat.errors import CaffeCompatError, DataError
from reproduce.benchmarks.lsp import Lsp
from reproduce.benchmarks.published import published
from reproduce.cli import export
from reproduce.people import annotation, coco_files, flic_files, lsp_files, matfile, mpii_files
from reproduce.people.imagesize import image_size
from reproduce.people.skeletons import LSP_JOINTS, MPII_JOINTS, PARTS_9
from reproduce.predict import boxes
from tests.paths import DATA, GOLDEN, needs_data
from tests.people import annotation as synthetic

_SETS = GOLDEN / "matlab" / "datasets"
_JSON = GOLDEN / "matlab" / "genjson"


@needs_data
@pytest.mark.golden
def test_mpii_equals_the_original() -> None:
    if not _SETS.is_dir():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    split = mpii_files.read_split(DATA / "release" / "Tompson_valid" / "detections.mat")
    assert len(split) == 2958
    people, stub = mpii_files.read(_SETS / "mpii_release.mat", DATA / "mpii" / "images", split)
    assert annotation.to_json(people, stub=stub) == (_JSON / "mpi.json").read_text()
    left_out: list[str] = []
    nowhere = _SETS / "none"
    found, _ = mpii_files.read(
        _SETS / "mpii_release.mat", nowhere, split, skip_missing=True, left_out=left_out
    )
    assert (found, left_out) == ([], [person.image for person in people])


@needs_data
@pytest.mark.golden
def test_flic_equals_the_original() -> None:
    if not _SETS.is_dir():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    people = flic_files.read_training(_SETS / "flic_examples.mat", DATA / "flic" / "images")
    assert annotation.to_json(people) == (_JSON / "flic.json").read_text()


def _flic_examples(folder: Path, rows: list[tuple[str, bool]], called: str = "") -> Path:
    """A file of examples; each is given by its image and whether it is for testing."""
    kinds = [("filepath", object), ("coords", object), ("torsobox", object)]
    examples = np.zeros((1, len(rows)), [*kinds, ("istrain", object), ("istest", object)])
    for i, (name, test) in enumerate(rows):
        cv2.imwrite(str(folder / name), np.zeros((40, 50, 3), np.uint8))
        coords = np.arange(22.0).reshape(2, 11) + i
        box = np.array([1.0, 2, 20, 30])
        examples[0, i] = (called or name, coords, box, not test, test)
    scipy.io.savemat(folder / "examples.mat", {"examples": examples})
    return folder / "examples.mat"


def test_flic_numbers_and_fellows_are_the_files(tmp_path: Path) -> None:
    """Examples are numbered as they stand in the file, and those for testing are among the others,
    as the original script has it."""
    rows = [("a.png", True), ("b.png", False), ("c.png", False), ("b.png", True), ("d.png", False)]
    people = flic_files.read_training(_flic_examples(tmp_path, rows), tmp_path)
    assert [a.annolist_index for a in people] == [2, 3, 5]
    assert [len(a.others) for a in people] == [1, 0, 0]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("coords", np.zeros((2, 10)), "known points of shape (2, 10), expected 2 × 11"),
        ("torsobox", np.zeros(3), "a torso box of 3 numbers, expected 4"),
    ],
)
def test_a_flic_example_that_is_none_is_named(
    field: str, value: np.ndarray, says: str, tmp_path: Path
) -> None:
    mat = _flic_examples(tmp_path, [("a.png", False), ("b.png", False)])
    (examples,) = matfile.load(mat, "examples", records=True)
    examples[0, 1][field] = value
    scipy.io.savemat(mat, {"examples": examples})
    with pytest.raises(DataError) as raised:
        flic_files.read_training(mat, tmp_path)
    assert str(raised.value).startswith(f"{mat}: ")
    assert str(raised.value).endswith(f"the example of b.png has {says}")


@pytest.mark.parametrize(
    ("rows", "others"),
    [
        (["a", "a", "b"], 7),  # behind joint_self where the first person has some
        (["b", "a", "a"], 11),  # else at the end
        (["a", "b", "c"], None),  # where nobody has, there are no such fields
    ],
)
def test_flic_fields_as_matlab_fills_them_in(
    rows: list[str], others: int | None, tmp_path: Path
) -> None:
    examples = _flic_examples(tmp_path, [(f"{name}.png", False) for name in rows])
    text = annotation.to_json(flic_files.read_training(examples, tmp_path))
    for record in json.loads(text)["root"]:
        fields = list(record)
        assert ("joint_others" in fields) == (others is not None)
        assert others is None or fields.index("joint_others") == others
    (tmp_path / "o.json").write_text(text)
    assert len(annotation.read_json(tmp_path / "o.json")) == 3


def test_a_limb_that_is_never_seen_with_the_head_counts_nowhere() -> None:
    """MATLAB's median of nothing is NaN, which its quantile leaves out."""
    joints = np.ones((1, 14, 3))
    joints[0, :, :2] = np.arange(28).reshape(14, 2) * 3
    joints[0, LSP_JOINTS.index("head"), 2] = 0
    visible = joints[0, joints[0, :, 2] == 1, :2]
    fit = np.ptp(visible, axis=0).max() * lsp_files.TARGET_DIST / (lsp_files.BOXSIZE - 64)
    assert lsp_files.scales(joints) == pytest.approx([fit])


@needs_data
def test_the_whole_flic_file() -> None:
    left_out: list[str] = []
    people = flic_files.read_folder(DATA / "flic", skip_missing=True, left_out=left_out)
    examples = flic_files.read_examples(DATA / "flic" / "examples.mat")
    trained, tested = published()["training"]["flic"]
    assert len(examples) == trained + tested
    assert sum(bool(matfile.number(e.istrain)) for e in examples) == trained
    assert people
    assert len(people) + len(left_out) == trained
    assert all(np.isfinite(a.joints).all() for a in people)


@pytest.mark.long
@needs_data
def test_the_whole_leeds_set() -> None:
    left_out: list[str] = []
    people = lsp_files.read_training(DATA, skip_missing=True, left_out=left_out)
    trained, tested = published()["training"]["lsp"]
    assert len(people) + len(left_out) == trained
    assert len(Lsp(DATA).people()) == tested
    assert sum(a.image.startswith("lsp/") for a in people) == 1000
    assert not any(a.image >= "lsp/images/im1001.jpg" for a in people if a.image.startswith("lsp/"))
    with pytest.raises(DataError, match="im0"):
        lsp_files.read_training(DATA)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "tif", "ppm"])
def test_size_from_the_header(tmp_path: Path, ending: str) -> None:
    cv2.imwrite(str(tmp_path / f"a.{ending}"), np.zeros((37, 91, 3), np.uint8))
    assert image_size(tmp_path / f"a.{ending}") == (91, 37)
    cut = 6 if ending == "ppm" else 20  # a PPM's head is shorter
    (tmp_path / f"b.{ending}").write_bytes((tmp_path / f"a.{ending}").read_bytes()[:cut])
    with pytest.raises(DataError, match="whole header"):
        image_size(tmp_path / f"b.{ending}")
    with pytest.raises(DataError, match="cannot be read"):
        image_size(tmp_path / "none.png")


def test_sizes_of_rarer_heads(tmp_path: Path) -> None:
    """Lossless and extended WebP, whole and cut short, and OS/2's bitmaps."""
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]
    cv2.imwrite(str(tmp_path / "a.webp"), np.zeros((37, 91, 3), np.uint8), lossless)
    simple = (tmp_path / "a.webp").read_bytes()
    assert simple[12:16] == b"VP8L"
    extended = simple[:12] + b"VP8X" + struct.pack("<II", 10, 0) + b"\x5a\0\0\x24\0\0"
    rows = 37 * (-(-91 * 3 // 4) * 4)
    bitmap = struct.pack("<2sIHHI", b"BM", 26 + rows, 0, 0, 26)
    bitmap += struct.pack("<IHHHH", 12, 91, 37, 1, 24) + bytes(rows)
    for name, content in (("l.webp", simple), ("x.webp", extended), ("o.bmp", bitmap)):
        (tmp_path / name).write_bytes(content)
        assert image_size(tmp_path / name) == (91, 37), name
    assert cv2.imread(str(tmp_path / "o.bmp")).shape == (37, 91, 3)  # type: ignore[union-attr]
    for content, cut in ((simple, 20), (extended, 20), (extended, 26), (extended, 29)):
        (tmp_path / "cut.webp").write_bytes(content[:cut])
        with pytest.raises(DataError, match="whole header"):
            image_size(tmp_path / "cut.webp")


@needs_data
def test_sizes_of_real_photographs() -> None:
    """Header and decoder agree, odd JPEGs of the data sets included."""
    for path in sorted(DATA.glob("*/images/*.jpg"))[::200] + sorted(DATA.glob("samples/**/*.jpg")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert image is not None
        assert image_size(path) == (image.shape[1], image.shape[0]), path


def _coco() -> dict[str, Any]:
    points = [0.0] * 51
    for i, (x, y, v) in {
        0: (50, 20, 2),
        5: (60, 40, 2),
        6: (40, 40, 1),
        11: (58, 80, 2),
        12: (42, 80, 2),
        16: (41, 130, 1),
    }.items():
        points[3 * i : 3 * i + 3] = [x, y, v]
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 150}],
        "annotations": [
            {"id": 1, "image_id": 7, "bbox": [30, 10, 40, 130], "keypoints": points, "iscrowd": 0},
            {"id": 2, "image_id": 7, "bbox": [0, 0, 10, 20], "keypoints": points, "iscrowd": 0},
            {"id": 3, "image_id": 7, "bbox": [0, 0, 10, 20], "keypoints": [0] * 51, "iscrowd": 0},
        ],
    }


def test_coco_people_who_lie_or_show_no_nose(tmp_path: Path) -> None:
    """The longer side of the box tells the size; without a nose the head is between the eyes."""
    content = _coco()
    person = content["annotations"][0]
    person["bbox"] = [10, 60, 80, 30]
    points = person["keypoints"] = list(person["keypoints"])
    points[:9] = [0, 0, 0, 54, 18, 2, 46, 16, 1]  # nose, left and right eye
    (tmp_path / "c.json").write_text(json.dumps(content))
    first = coco_files.read(tmp_path / "c.json")[0]
    assert first.scale == 80 / 200
    assert first.joints[MPII_JOINTS.index("head")].tolist() == [50.0, 17.0, 0.0]


def test_categories_with_cocos_points_are_people() -> None:
    """Whatever they are called, beside others with points of their own."""
    rows = [
        {"id": 1, "name": "dancer", "keypoints": list(coco_files.KEYPOINTS)},
        {"id": 2, "name": "dog", "keypoints": ["nose", "tail"]},
    ]
    assert coco_files.people_categories({"categories": rows}) == {1}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (list(coco_files.KEYPOINTS), ""),
        ([name.replace("_", " ").title() for name in coco_files.KEYPOINTS], ""),
        (["root", *coco_files.KEYPOINTS[1:]], "key point 0 is root, COCO's is nose"),
        ([*coco_files.KEYPOINTS[:15], "right_ankle", "left_ankle"], "key point 15 is right_ankle"),
        (list(coco_files.KEYPOINTS[:16]), "key point 16 is none"),
        ([], ""),
    ],
)
def test_coco_points_are_cocos(names: list[str], said: str, tmp_path: Path) -> None:
    """Seventeen points of another skeleton, or in another order, are other joints."""
    category = {"id": 1, "name": "person", "keypoints": names}
    (tmp_path / "c.json").write_text(json.dumps({**_coco(), "categories": [category]}))
    if not said:
        assert len(coco_files.read(tmp_path / "c.json")) == 2
        return
    with pytest.raises(DataError, match=rf"c\.json.*{said}.*--own-keypoints"):
        coco_files.read(tmp_path / "c.json")


def test_coco_images_of_one_id(tmp_path: Path) -> None:
    """Two files that were joined, each of which counts from 1; the same image twice is one."""
    content = _coco()
    content["images"] *= 2
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert len(coco_files.read(tmp_path / "c.json")) == 2
    content["images"][1] = {"id": 7, "file_name": "b.jpg"}
    (tmp_path / "c.json").write_text(json.dumps(content))
    for read in (coco_files.read, boxes.read_boxes):
        with pytest.raises(DataError, match=r"two images have the id 7: a\.jpg and b\.jpg"):
            read(tmp_path / "c.json")


def test_annotations_are_not_overwritten_by_what_is_made_of_them(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(_coco()))
    (tmp_path / "d.json").symlink_to(path)
    for out in ("c.json", "d.json"):
        command = ["json", "coco", "--data", str(path), "-o", str(tmp_path / out)]
        result = CliRunner().invoke(export.main, command)
        assert result.exit_code == 2
        assert f"{out}: is the file that is read" in result.stderr
    assert json.loads(path.read_text()) == _coco()


def test_coco_in(tmp_path: Path) -> None:
    content = _coco()
    # a crowd is nobody
    content["annotations"].append({**content["annotations"][0], "id": 9, "iscrowd": 1})
    (tmp_path / "c.json").write_text(json.dumps(content))
    people = coco_files.read(tmp_path / "c.json")
    assert len(people) == 2
    first = people[0]
    assert len(first.others) == 1
    assert first.size == (100, 150)
    assert first.objpos.tolist() == [50.0, 75.0]
    assert first.scale == 130 / 200
    assert [person.people_index for person in people] == [1, 2]
    names = dict(zip(MPII_JOINTS, first.joints.tolist(), strict=True))
    assert names["Lsho"] == [60, 40, 1]
    assert names["Rsho"] == [40, 40, 0]
    assert names["neck"] == [50, 40, 0]
    assert names["pelvis"] == [50, 80, 1]
    assert names["head"] == [50, 20, 1]
    assert names["Lank"] == [-1, -1, 0]


def test_people_of_a_coco_file_without_their_image(tmp_path: Path) -> None:
    content = _coco()
    content["images"].append({"id": 8, "file_name": "gone.jpg"})
    content["annotations"].append({**content["annotations"][0], "id": 4, "image_id": 8})
    (tmp_path / "c.json").write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((150, 100, 3), np.uint8))
    with pytest.raises(DataError, match=r"gone\.jpg.*--skip-missing"):
        coco_files.read(tmp_path / "c.json")
    left_out: list[str] = []
    found = coco_files.read(tmp_path / "c.json", skip_missing=True, left_out=left_out)
    assert (len(found), left_out) == (2, ["gone.jpg"])
    command = ["json", "coco", "--data", str(tmp_path / "c.json"), "-o", str(tmp_path / "o.json")]
    result = CliRunner().invoke(export.main, [*command, "--skip-missing"])
    assert "2 people written to" in result.stdout
    assert "o.json, 1 left out: image not there" in result.stdout


def test_pictures_of_a_coco_file_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """As COCO itself has it: annotations/x.json beside train2017/."""
    content = _coco()
    del content["images"][0]["width"]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "c.json").write_text(json.dumps(content))
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "a.jpg"), np.zeros((150, 100, 3), np.uint8))
    command = ["json", "coco", "--data", str(tmp_path / "annotations" / "c.json")]
    command += ["-o", str(tmp_path / "o.json")]
    refused = CliRunner().invoke(export.main, command)
    assert refused.exit_code == 2
    assert "annotations/a.jpg: no such image (--images names the folder" in refused.stderr
    emptied = CliRunner().invoke(export.main, [*command, "--skip-missing"])
    assert emptied.exit_code == 2
    assert "none of the images of its 2 people is in" in emptied.stderr
    assert "annotations; --images names another folder" in emptied.stderr
    assert not (tmp_path / "o.json").exists()
    for more in ([], ["--skip-missing"]):
        made = CliRunner().invoke(
            export.main, [*command, *more, "--images", str(tmp_path / "train")]
        )
        assert made.exit_code == 0, made.output
        assert "2 people written" in made.output
    other = ["json", "leeds", "--data", str(tmp_path), "-o", str(tmp_path / "p.json")]
    refused = CliRunner().invoke(export.main, [*other, "--images", str(tmp_path)])
    assert refused.exit_code == 2
    assert "--images goes with coco" in refused.stderr


@pytest.mark.parametrize("skip_missing", [False, True])
def test_names_of_pictures_do_not_leave_their_folder(skip_missing: bool, tmp_path: Path) -> None:
    """Neither the size of a picture elsewhere nor whether it is there is told."""
    folder = tmp_path / "download"
    folder.mkdir()
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((40, 50, 3), np.uint8))
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        content = _coco()
        content["images"] = [{"id": 7, "file_name": name}]
        (folder / "c.json").write_text(json.dumps(content))
        flic = _flic_examples(folder, [("a.png", False)], called=name)
        mpii = _mpii_release(folder, [], called=name)
        says = f"the file name {re.escape(name)} leads out of its folder"
        with pytest.raises(DataError, match=rf"c\.json: annotation 1: .*{says}"):
            coco_files.read(folder / "c.json", skip_missing=skip_missing)
        with pytest.raises(DataError, match=rf"examples\.mat: .*{says}"):
            flic_files.read_training(flic, folder, skip_missing=skip_missing)
        with pytest.raises(DataError, match=rf"release\.mat: .*{says}"):
            mpii_files.read(mpii, folder, set(), skip_missing=skip_missing)


def test_own_key_points_are_of_coco_files_alone(tmp_path: Path) -> None:
    command = ["json", "flic", "--data", str(tmp_path), "-o", str(tmp_path / "o.json")]
    result = CliRunner().invoke(export.main, [*command, "--own-keypoints"])
    assert result.exit_code == 2
    assert "--own-keypoints goes with coco" in result.stderr
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize("images", ["", "mpii", "mpii/mpii_human_pose_v1_u12_2"])
@pytest.mark.parametrize("root", ["", "mpii", "mpii/mpii_human_pose_v1_u12_2"])
def test_images_lie_beside_their_annotations_or_above(
    images: str, root: str, tmp_path: Path
) -> None:
    mat = tmp_path / "mpii" / "mpii_human_pose_v1_u12_2" / "a.mat"
    mat.parent.mkdir(parents=True)
    (tmp_path / images / "images").mkdir()
    found = matfile.images_of(mat, tmp_path / root)
    inside = (tmp_path / images).is_relative_to(tmp_path / root)
    assert found == (tmp_path / images if inside else mat.parent) / "images"


def test_coco_out_and_in(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(_coco()))
    people = coco_files.read(tmp_path / "c.json")
    coco_files.write(tmp_path / "d.json", people)
    again = coco_files.read(tmp_path / "d.json")
    limbs = [i for i, n in enumerate(MPII_JOINTS) if n[0] in "RL"]
    for a, b in zip(people, again, strict=True):
        np.testing.assert_allclose(a.joints[limbs], b.joints[limbs])
        np.testing.assert_allclose([a.scale, *a.objpos], [b.scale, *b.objpos])


def test_coco_keeps_the_validation_split(tmp_path: Path) -> None:
    """Else an export that leaves it out, and a training, would take the people that are scored."""
    (tmp_path / "c.json").write_text(json.dumps(_coco()))
    first, second = coco_files.read(tmp_path / "c.json")
    assert not (first.validation or second.validation)
    coco_files.write(tmp_path / "d.json", [first, replace(second, validation=True)])
    again = coco_files.read(tmp_path / "d.json")
    assert [person.validation for person in again] == [False, True]


def test_coco_out_of_nine_parts_and_of_own_key_points(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(_coco()))
    person = coco_files.read(tmp_path / "c.json")[0]
    nine = np.array([(10.0 + part, 20.0, part % 2) for part in range(len(PARTS_9))])
    nine[PARTS_9.index("Lwri"), 0] = -27.1  # as LSPET marks what nobody saw
    coco_files.write(tmp_path / "d.json", [replace(person, joints=nine)])
    (entry,) = json.loads((tmp_path / "d.json").read_text())["annotations"]
    points = np.array(entry["keypoints"]).reshape(17, 3)
    found = dict(zip(coco_files.KEYPOINTS, points.tolist(), strict=True))
    assert found["left_elbow"] == [11, 20, 2]
    assert found["right_hip"] == [17, 20, 2]
    assert found["left_wrist"] == [0, 0, 0]
    assert entry["num_keypoints"] == 7  # not the head, not the wrist

    own = np.array([[1.0, 2.0, 1.0], [3.0, 4.0, 0.0]])
    dog = replace(person, joints=own, others=())
    coco_files.write(tmp_path / "e.json", [dog], names=("tail", "paw"))
    assert coco_files.keypoint_names(tmp_path / "e.json") == ("tail", "paw")
    (again,) = coco_files.read(tmp_path / "e.json", own=True)
    np.testing.assert_array_equal(again.joints, own)
    with pytest.raises(DataError, match="people of 2 joints"):
        coco_files.write(tmp_path / "f.json", [dog])
    assert not (tmp_path / "f.json").exists()


@pytest.mark.parametrize(
    ("x", "y", "labelled"),
    [
        (0, 0, True),
        (99.5, 49.5, True),
        (100, 20, False),
        (20, 50, False),
        (-0.5, 20, False),
        (20, -0.5, False),
    ],
)
def test_coco_out_labels_what_lies_in_the_picture(
    x: float, y: float, labelled: bool, tmp_path: Path
) -> None:
    """A picture of 100×50 pixels; pixels count from 0, so that 100 and 50 are beside it."""
    paw = annotation.Annotation(
        "a.jpg", "COCO", np.array([[x, y, 1.0]]), np.array([50.0, 25.0]), 0.25, (100, 50)
    )
    coco_files.write(tmp_path / "a.json", [paw], names=("paw",))
    (entry,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert entry["keypoints"] == ([x, y, 2] if labelled else [0, 0, 0])
    assert entry["num_keypoints"] == labelled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"images": 3, "annotations": []}',
        '{"images": [], "annotations": [{"keypoints": [1,2,2]}]}',
    ],
)
def test_coco_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=r"c\.json"):
        coco_files.read(tmp_path / "c.json")


def test_missing_downloads_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"joints\.mat"):
        lsp_files.read_training(tmp_path)
    with pytest.raises(DataError, match="MPII Human Pose"):
        mpii_files.read_folder(tmp_path)
    with pytest.raises(DataError, match="FLIC"):
        flic_files.read_folder(tmp_path)
    (tmp_path / "lsp").mkdir()
    (tmp_path / "lsp" / "joints.mat").write_bytes(
        b"not a mat file, but long enough to have a header of 128 bytes" * 4
    )
    with pytest.raises(DataError, match="no readable MATLAB file"):
        lsp_files.read_joints(tmp_path, "lsp")


def test_what_was_expected_is_said_in_good_english(tmp_path: Path) -> None:
    for data, says in (
        (b"\x89PNG\r\n", "a PNG image; expected an annotation file"),
        (b'{"root": \xff\xff}', "expected an annotation file"),
        (b'{"a": "\0"}', "is binary, expected an annotation file"),
    ):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(DataError, match=says):
            annotation.read_json(tmp_path / "a.json")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.golden
def test_damaged_mat_files(tmp_path: Path) -> None:
    """Flipped bytes in the real formats: our errors, or other numbers, but nothing else."""
    if not _SETS.is_dir():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    chance = random.Random(0)
    for name in ("mpii_release.mat", "flic_examples.mat"):
        data = (_SETS / name).read_bytes()
        for i in range(40):
            broken = bytearray(data)
            for _ in range(3):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            path = tmp_path / f"{i}_{name}"
            path.write_bytes(bytes(broken))
            with contextlib.suppress(CaffeCompatError):
                if "mpii" in name:
                    mpii_files.read(path, DATA / "mpii" / "images", set())
                else:
                    flic_files.read_training(path, DATA / "flic" / "images")


def _mpii_release(folder: Path, people: list[dict[str, Any]], called: str = "a.png") -> Path:
    """MPII's annotation file with one image for training, and these people in it."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((40, 50, 3), np.uint8))
    rows = np.zeros((1, len(people)), [(n, object) for n in ("annopoints", "objpos", "scale")])
    for i, person in enumerate(people):
        for name in ("annopoints", "objpos", "scale"):
            rows[name][0, i] = person.get(name, np.zeros((0, 0)))
    image = {"image": {"name": called}, "annorect": rows}
    release = {"RELEASE": {"annolist": image, "img_train": 1.0}}
    scipy.io.savemat(folder / "release.mat", release)
    return folder / "release.mat"


def test_mpii_empty_lists_of_points(tmp_path: Path) -> None:
    """The original script looks at ``annopoints`` alone: a person whose list of points is empty is
    kept with 16 rows of zeros. Who is passed over is told."""
    point = {"id": 0.0, "x": 3.0, "y": 4.0, "is_visible": 1.0}
    place = {"objpos": {"x": 20.0, "y": 21.0}, "scale": 0.5}
    people = [
        {"annopoints": {"point": point}, **place},
        {"annopoints": {"point": np.zeros((0, 0))}, **place},
        place,
        {"annopoints": {"point": point}, "scale": 0.5},
        {"annopoints": {"point": point}, "objpos": place["objpos"]},
    ]
    passed: list[str] = []
    release = _mpii_release(tmp_path, people)
    found, stub = mpii_files.read(release, tmp_path, set(), passed_over=passed)
    assert [a.people_index for a in found] == [1, 2]
    assert stub is False
    assert passed == ["points", "centre", "scale"]
    text = annotation.to_json(found)
    first, second = json.loads(text)["root"]
    assert second["joint_self"] == [[0.0, 0.0, 0.0]] * 16
    assert first["joint_others"]["_ArraySize_"] == [0, 0]
    (tmp_path / "o.json").write_text(text)
    again = annotation.read_json(tmp_path / "o.json")
    assert all(a.same(b) for a, b in zip(again, found, strict=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numOtherPeople": 0}, "joint_others holds somebody"),
        ({"numOtherPeople": None}, "joint_others holds somebody"),
        ({"numOtherPeople": 0.5}, "numOtherPeople is 0.5, expected a whole number"),
        ({"numOtherPeople": -1}, "numOtherPeople is -1, expected a whole number"),
        ({"isValidation": "0"}, "isValidation is '0', expected a number"),
        ({"people_index": 1.5}, "people_index is 1.5, expected a whole number"),
    ],
)
def test_a_record_that_contradicts_itself(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Nobody is dropped and no number changed for want of a word."""
    rng = np.random.default_rng(0)
    content = json.loads(annotation.to_json([synthetic(rng, "a.png", 90, 80, others=2)]))
    record = content["root"][0]
    record.update(change)
    if change.get("numOtherPeople", 0) is None:
        del record["numOtherPeople"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"a.json: record 0: .*{said}"):
        annotation.read_json(tmp_path / "a.json")
