"""Files of public bug reports, made anew: each is read, or refused in one sentence."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.readers import READERS, imported
from tests.fuzz.run import forked, try_reader
from tests.paths import REPORTED, listed

# folder of reports -> reader of its files
_FOLDERS = {
    "authors_json": "authors",
    "boxes": "boxes",
    "coco_variants": "coco",
    "eval_forms": "joints",
    "gbk_comment": "prototxt",
    "text_misc": "prototxt",
    "trainval": "prototxt",
    "unknown_field": "prototxt",
    "weights_only": "caffemodel",
    "wrong_files": "caffemodel",
    "predict": "images",
}
_NO_FILES = (".py", ".pyc")
# files that another program of their folder reads
_ELSEWHERE = {"boxes": (".jpg",), "coco_variants": (".jpg",), "weights_only": (".prototxt",)}
_PICTURES = {"authors_json": (".jpg",), "predict": (".csv",), "trainval": (".caffemodel",)}


def _files() -> Iterator[tuple[tuple[str, Path], str]]:
    for folder, reader in _FOLDERS.items():
        skipped = (*_NO_FILES, *_ELSEWHERE.get(folder, ()), *_PICTURES.get(folder, ()))
        if folder == "unknown_field":
            skipped = (*skipped, ".caffemodel")
        place = REPORTED / "bugs" / folder
        for path in sorted(place.glob("*")) if place.is_dir() else []:
            if path.is_file() and path.suffix not in skipped:
                yield (reader, path), f"{folder}/{path.name}"


@pytest.mark.parametrize("case", listed(_files()))
def test_read_or_refused_in_one_sentence(case: tuple[str, Path], tmp_path: Path) -> None:
    reader, path = case
    imported()
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    for picture in path.parent.glob("*.jpg"):  # sizes are read from the pictures beside a file
        if picture != path:
            (tmp_path / picture.name).write_bytes(picture.read_bytes())

    def work() -> Iterator[str]:
        from caffe_compat.errors import CaffeCompatError

        yield try_reader(reader, copy)
        try:
            READERS[reader].call(copy)
        except CaffeCompatError as error:
            yield str(error)

    answers, ended = forked(work)
    assert not ended
    assert answers[0] in ("read", "refused")
    if answers[0] == "refused":
        assert path.name in answers[1] or reader == "caffemodel"  # embedded nets have no name
        assert len(answers[1]) < 1500


def _coco(tmp_path: Path, **changes: Any) -> Path:
    import json

    from reproduce.people.coco_files import KEYPOINTS

    keypoints = [v for i in range(17) for v in (50 + 3 * i, 40 + 5 * i, 2)]
    person = {"id": 7, "image_id": 1, "category_id": 1, "keypoints": keypoints, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 300}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(KEYPOINTS)}],
        "annotations": [{**person, "bbox": [40, 30, 80, 120], **changes.pop("person", {})}],
        **changes,
    }
    path = tmp_path / "coco.json"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    return path


def test_coco_people_alone_are_taken(tmp_path: Path) -> None:
    """No cars, no crowds; sizes from the picture; a key point that is no number is not labelled."""
    import cv2
    import numpy as np

    from caffe_compat.errors import DataError
    from reproduce.people import coco_files
    from reproduce.predict.boxes import read_boxes

    cars = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    rows = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 90, 90]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [40, 20, 120, 280]},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 200, 320], "iscrowd": 1},
        {"id": 4, "image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 0]},
    ]
    found = read_boxes(_coco(tmp_path, annotations=rows, categories=cars))
    assert dict(found) == {"a.jpg": [(40.0, 20.0, 120.0, 280.0)]}
    assert [line.split(": ")[1] for line in found.skipped] == ["annotation 4"]

    image = {"id": 1, "file_name": "a.jpg"}
    with pytest.raises(DataError, match="no such image"):
        coco_files.read(_coco(tmp_path, images=[image]))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((30, 20, 3), np.uint8))
    (person,) = coco_files.read(_coco(tmp_path, images=[image]))
    assert person.size == (20, 30)
    flat = [float("nan"), 40, 2, *[v for i in range(16) for v in (50, 40 + i, 2)]]
    (person,) = coco_files.read(_coco(tmp_path, person={"keypoints": flat}))
    assert np.isfinite(person.joints).all()


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,1,2,30,40",
        "image;x;y;w;h\na.jpg;1;2;30;40\n",
        "a.jpg\t1\t2\t30\t40\n",
        "# boxes\nimage,x,y,w,h\n\na.jpg, 1, 2, 30, 40\n",
        "a.jpg,1,2,30,40,0.9\n",
        "File Name,bbox_left,bbox_top,Width,Height,score\na.jpg,1,2,30,40,1\n",
        '{"a.jpg": [1, 2, 30, 40]}',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_forms_of_boxes(tmp_path: Path, text: str, encoding: str) -> None:
    from reproduce.predict.boxes import read_boxes

    path = tmp_path / ("b.json" if text.startswith("{") else "b.csv")
    path.write_text(text, encoding=encoding)
    assert dict(read_boxes(path)) == {"a.jpg": [(1.0, 2.0, 30.0, 40.0)]}


@pytest.mark.parametrize(
    "columns",
    [
        "xmin,ymin,xmax,ymax",
        "x1,y1,x2,y2",
        "left,top,right,bottom",
        "cx,cy,w,h",
        "x (center),y (center),w,h",
        "x(max),y(max),w,h",
        "box",
    ],
)
def test_a_heading_with_other_columns_is_refused(tmp_path: Path, columns: str) -> None:
    from caffe_compat.errors import DataError
    from reproduce.predict.boxes import read_boxes

    path = tmp_path / "b.csv"
    path.write_text(f"image,{columns}\na.jpg,10,20,210,420\n")
    with pytest.raises(DataError, match=f"line 1: its columns are image, {columns[:1]}.*expected"):
        read_boxes(path)


def test_a_row_that_is_no_box_costs_itself(tmp_path: Path) -> None:
    """In every form of the file, the first row among them; each is told with its place."""
    import json

    from reproduce.predict.boxes import read_boxes

    good: dict[str, Any] = {"img_paths": "a.jpg", "objpos": [101, 201], "scale_provided": 0.5}
    bad: list[dict[str, Any]] = [{"scale_provided": None}, {"objpos": []}, {"objpos": [1, "x"]}]
    files = {
        "nan.csv": ("a.jpg,nan,20,200,400\na.jpg,1,2,3,4\na.jpg,x,2,3,4", ["line 1", "line 3"]),
        "none.csv": ("a.jpg,,,,\na.jpg,1,2,3,4", ["line 1"]),
        "own.json": (
            json.dumps({"root": [good, *({**good, **one} for one in bad)]}),
            ["record 2", "record 3", "record 4"],
        ),
    }
    for name, (text, places) in files.items():
        (tmp_path / name).write_text(text)
        found = read_boxes(tmp_path / name)
        assert len(found["a.jpg"]) == 1
        assert [line.split(": ")[1] for line in found.skipped] == places


def test_names_in_a_csv_file_of_boxes(tmp_path: Path) -> None:
    """A quoted name may hold a line's end or begin as a comment does; lines count as in the file."""
    from reproduce.predict.boxes import read_boxes

    path = tmp_path / "b.csv"
    path.write_text('# x\n"a\nb.jpg",1,2,3,4\n"#1.jpg",1,2,3,4\n#2.jpg,1,2,3,4\nc.jpg,1,2,3,0\n')
    found = read_boxes(path)
    assert list(found) == ["a\nb.jpg", "#1.jpg"]
    assert "line 6:" in found.skipped[0]


def test_coco_people_without_a_box(tmp_path: Path) -> None:
    """Their box is around the labelled key points, as where people are read for training."""
    from reproduce.people import coco_files
    from reproduce.predict.boxes import read_boxes

    keypoints = [10, 20, 2, 0, 0, 0, 40, 80, 1]
    rows = [
        {"id": 1, "image_id": 1, "keypoints": keypoints},
        {"id": 2, "image_id": 1, "keypoints": keypoints, "bbox": None},
        {"id": 3, "image_id": 1},
        {"id": 4, "image_id": 1, "keypoints": [1, 2, 0]},
        {"id": 5, "image_id": 1, "keypoints": "none"},
    ]
    found = read_boxes(_coco(tmp_path, annotations=rows))
    assert found["a.jpg"] == [(10, 20, 30, 60)] * 2
    assert [line.split(": ")[1] for line in found.skipped] == [f"annotation {i}" for i in (3, 4, 5)]
    (person,) = coco_files.read(_coco(tmp_path, person={"bbox": None}))
    assert person.scale == 80 / 200


def test_boxes_are_in_pixels() -> None:
    from caffe_compat.errors import CaffeCompatError
    from reproduce.predict.protocol import PROTOCOLS

    for box in ((0.1, 0.1, 0.9, 0.9), (10.0, 10.0, 1.0, 1.0), (0.0, 0.0, float("nan"), 9.0)):
        with pytest.raises(CaffeCompatError, match="pixels"):
            PROTOCOLS["demo"].placement((100, 100), box)


def test_forms_of_predictions(tmp_path: Path) -> None:
    """The same joints in every form that is in use come out the same, counted from 0."""
    import json

    import h5py
    import numpy as np
    from scipy.io import savemat

    from reproduce.predict import joint_files

    joints = np.random.default_rng(0).uniform(1, 99, (5, 14, 2))
    scored = np.concatenate([joints, np.ones((5, 14, 1))], 2)
    cells = np.empty((1, 5), object)
    for i in range(5):
        cells[0, i] = joints[i]
    files = {
        "a": {"prediction_all": joints.transpose(1, 2, 0)},
        "b": {"pred": joints.transpose(2, 1, 0)},
        "c": {"preds": joints},
        "d": {"preds": scored},
        "e": {"prediction_all": cells},
        "f": {"prediction_all": joints.transpose(1, 2, 0) + 0j},
    }
    for name, content in files.items():
        savemat(tmp_path / f"{name}.mat", content)
    with h5py.File(tmp_path / "octave.mat", "w") as file:
        group = file.create_group("prediction_all")
        group["type"], group["value"] = b"matrix", joints.transpose(0, 2, 1)
    np.savez(tmp_path / "g.npz", joints)
    np.save(tmp_path / "h.npy", joints)
    (tmp_path / "i.json").write_text(json.dumps(joints.tolist()))
    zero = np.concatenate([joints - 1, np.ones((5, 14, 1))], 2).reshape(5, -1).tolist()
    rows = [{"image_id": i, "category_id": 1, "keypoints": row} for i, row in enumerate(zero)]
    (tmp_path / "coco.json").write_text(json.dumps(rows))
    people = {"people": [{"pose_keypoints_2d": row} for row in zero]}
    (tmp_path / "openpose.json").write_text(json.dumps(people))
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(joint_files.read(path), joints - 1, err_msg=path.name)


def test_files_that_lead_elsewhere(tmp_path: Path) -> None:
    """External links, external storage and virtual data sets are refused; so are pipes, devices and
    directories."""
    import os

    import h5py

    from caffe_compat.errors import CaffeCompatError
    from caffe_compat.weights import containers

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = [1.0, 2.0]
    for kind in ("link", "storage", "virtual"):
        path = tmp_path / f"{kind}.caffemodel.h5"
        with h5py.File(path, "w") as file:
            layer = file.create_group("data/conv")
            if kind == "link":
                layer["0"] = h5py.ExternalLink("secret.h5", "/x")
            elif kind == "storage":
                layer.create_dataset("0", (2,), "f4", external=[("/etc/passwd", 0, 8)])
            else:
                made = h5py.VirtualLayout((2,), "f8")
                made[:] = h5py.VirtualSource("secret.h5", "x", (2,))
                layer.create_virtual_dataset("0", made)
        with pytest.raises(CaffeCompatError, match=r"another file|other files"):
            containers.read_weights(path)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for reader in ("caffemodel", "prototxt", "boxes", "images", "joints", "solverstate"):
            with pytest.raises(CaffeCompatError, match=r"pipe|device|directory|expected a"):
                READERS[reader].call(name)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_values_under_many_names(tmp_path: Path, kind: str) -> None:
    """40 names of the same 64 MB, which a file of 100 kB may hold, are 2.5 GB when they are read."""
    import h5py

    from caffe_compat.errors import CaffeCompatError
    from caffe_compat.training.snapshots import read_state

    path = tmp_path / "a.solverstate.h5"
    with h5py.File(path, "w") as file:
        zeros = file.create_dataset("x", (1 << 24,), "f4", chunks=(1 << 20,), compression="gzip")
        file["iter"], file["current_step"] = [1], [0]
        history = file.create_group("history")
        for i in range(40):
            history[str(i)] = zeros if kind == "hard" else h5py.SoftLink("/x")
    with pytest.raises(CaffeCompatError, match="more than such a file may hold"):
        read_state(path)


def test_modes_and_names(tmp_path: Path) -> None:
    """A replaced file hands its permissions on; nothing but the umask decides on those of a new
    one; names of layers cannot move the cursor."""
    import os
    import stat

    from caffe_compat.errors import CaffeCompatError
    from caffe_compat.files import TargetError, atomic_write

    secret = tmp_path / "secret"
    secret.write_text("old")
    secret.chmod(0o600)
    before = os.umask(0o027)
    try:
        for path in (secret, tmp_path / "new"):
            with atomic_write(path) as stream:
                stream.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    with pytest.raises(TargetError, match="device"), atomic_write("/dev/null"):
        pass
    assert str(CaffeCompatError("layer '\x1b[2J\n'")) == "layer '\\x1b[2J\\n'"


def test_links_at_temporary_names_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who guesses a temporary name cannot lead the writing elsewhere."""
    import secrets

    from caffe_compat.files import atomic_write

    guesses = iter(["guessed", "free"])
    monkeypatch.setattr(secrets, "token_hex", lambda count: next(guesses))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".out.guessed.json").symlink_to(victim)
    with atomic_write(tmp_path / "out.json") as stream:
        stream.write(b"{}")
    assert victim.read_text() == "mine"
    assert (tmp_path / "out.json").read_text() == "{}"
    assert not (tmp_path / "out.json").is_symlink()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_spreadsheet_takes_no_name_for_a_formula(text: str) -> None:
    from caffe_compat.files import csv_cell

    assert csv_cell(text) == f"'{text}"
    assert csv_cell("CPM (6 stages)") == "CPM (6 stages)"


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.png", "a/../../secret.png"])
def test_images_stay_below_their_folder(tmp_path: Path, name: str) -> None:
    from dataclasses import replace

    import numpy as np

    from caffe_compat.errors import DataError
    from reproduce.records.encoding import image_path
    from tests.people import annotation

    one = replace(annotation(np.random.default_rng(0), "a.png", 64, 48), image=name)
    with pytest.raises(DataError, match="--allow-outside"):
        image_path(tmp_path, one)
    assert image_path(tmp_path, one, outside=True).name == Path(name).name


def test_keys_that_collide(tmp_path: Path) -> None:
    """Layers a, a and a#1 come back each with its own values, from every container."""
    import numpy as np

    from caffe_compat import parse_net
    from caffe_compat.weights import containers
    from caffe_compat.weights.model import LayerBlobs, Weights
    from caffe_compat.weights.wire import Blob

    names = ("a", "a", "a#1", "file", "../../x", "/etc/x", "%2E", "c/d")
    layers = tuple(
        LayerBlobs(name, "X", (Blob(np.full(2, i, np.float32)), Blob(np.full(1, -i, np.float32))))
        for i, name in enumerate(names)
    )
    net = parse_net('input: "data" input_shape { dim: 1 }')
    for kind in ("npz", "safetensors", "pth"):
        path = tmp_path / f"x.{kind}"
        containers.write(path, Weights(layers), net, kind)
        found = containers.read_weights(path).layers
        assert [entry.name for entry in found] == list(names)
        for i, entry in enumerate(found):
            assert [blob.data[0] for blob in entry.blobs] == [i, -i]
    inside = zipfile.ZipFile(tmp_path / "x.npz").namelist()
    # whoever unpacks it stays in the folder
    assert not [name for name in inside if ".." in name or name.startswith("/")]


def test_lmdb_cut_short(tmp_path: Path) -> None:
    """One line with the sizes, at any length."""
    from caffe_compat.errors import DataError
    from reproduce.records import store
    from tests.people import dataset

    store.export_lmdb(store.plan(dataset(tmp_path, 4), seed=0), tmp_path, tmp_path / "out")
    whole = (tmp_path / "out" / "data.mdb").read_bytes()
    for part in range(1, 8):
        cut = tmp_path / f"cut{part}.mdb"
        cut.write_bytes(whole[: len(whole) * part // 8])
        with pytest.raises(DataError, match="cut short"):
            store.LMDBStore(cut)


def test_only_the_shown_part_is_computed() -> None:
    """The same to the last bit, for a picture enlarged a hundred times too."""
    import numpy as np

    from reproduce.predict.imresize import imresize
    from reproduce.predict.inputs import PAD_VALUE, padding, scale_person
    from reproduce.predict.protocol import PROTOCOLS, Placement

    rng = np.random.default_rng(0)
    protocol = PROTOCOLS["demo"].at(64)
    image = rng.integers(0, 256, (50, 70, 3), np.uint8)
    grey = 200
    for scale in (0.1, 0.73, 1.0, 2.9, 7.0):
        for center in ((35.0, 25.0), (1.0, 50.0), (90.0, -20.0)):
            (found,) = scale_person(image, Placement(center, (scale,)), protocol)
            scaled = imresize(image, scale)
            pad = padding(scaled.shape[:2], 64, (center[0] * scale, center[1] * scale))
            # the box is cut out of the whole scaled picture with much grey around it
            wide = np.pad(scaled, ((grey, grey), (grey, grey), (0, 0)), constant_values=PAD_VALUE)
            top, left = grey - pad[0], grey - pad[1]
            np.testing.assert_array_equal(found.pixels, wide[top : top + 64, left : left + 64])
            assert (found.scaled, found.pad) == (scaled.shape[:2], pad)
    (large,) = scale_person(image, Placement((35.0, 25.0), (1000.0,)), protocol)
    assert large.scaled == (50_000, 70_000)
