"""Files of public bug reports: what is right of each, where that is a value and not only one line of
refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caffe_compat import read_net
from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import build
from caffe_compat.weights import containers
from reproduce.people import annotation, coco_files
from reproduce.predict.boxes import read_boxes
from reproduce.records import store
from tests.fuzz.readers import imported
from tests.fuzz.run import forked
from tests.paths import reported
from tests.predicting import run_predict, write_model

_NAMES_OF_BOXES = {"quote.csv": "my, photo.jpg"}
_REFUSED_BOXES = {
    "cococrowd.json": "holds no box of a person",
    "cocores.json": "is a list, such as COCO's results, which do not name their images",
}


_READ_BOXES = (
    *("cococar.json", "cocozero.json", "flat.json", "inst.json", "hdr2.csv", "quote.csv", "x.tsv"),
    *("score.csv", "semi.csv", "space.csv", "tab.csv", "utf16.csv"),
)


def _known(folder: str, *names: str) -> list[Any]:
    """The reported files of a folder whose right value is known here."""
    found = reported(folder, "*")
    return [case for case in found if case.values[0] is None or case.values[0].name in names]


@pytest.mark.parametrize("path", _known("boxes", *_READ_BOXES, *_REFUSED_BOXES))
def test_boxes_are_those_of_people(path: Path) -> None:
    """No cars, no crowds; a row that is no box costs itself."""
    if why := _REFUSED_BOXES.get(path.name):
        with pytest.raises(CaffeCompatError, match=why):
            read_boxes(path)
        return
    found = read_boxes(path)
    box = (40, 20, 120, 280) if path.name == "inst.json" else (1, 2, 3, 4)
    assert dict(found) == {_NAMES_OF_BOXES.get(path.name, "a.jpg"): [box]}
    lost = ["annotation 1"] if path.name == "cocozero.json" else []
    assert [line.split(": ")[1] for line in found.skipped] == lost


_REFUSED_PEOPLE = {
    "imgid_missing.json": "its image_id 99 is not among the images",
    "strid.json": "its image_id 1 is not among the images",
    "results.json": "is a list",
    "short.json": "its keypoints are 48 numbers",
}


_READ_PEOPLE = (
    *("base.json", "bom.json", "boolv.json", "dogonly.json", "frac.json", "multi.json", "nan.json"),
    *("nobbox.json", "nocat.json", "nowh.json", "nulls.json", "wnull.json", "zerobbox.json"),
)


@pytest.mark.parametrize("path", _known("coco_variants", *_READ_PEOPLE, *_REFUSED_PEOPLE))
def test_people_of_coco(path: Path, tmp_path: Path) -> None:
    """The one person, no dogs; the size from the picture where the file has none; what is written
    is sound JSON."""
    if why := _REFUSED_PEOPLE.get(path.name):
        with pytest.raises(CaffeCompatError, match=why):
            coco_files.read(path)
        return
    (person,) = coco_files.read(path)
    assert (person.image, person.size) == ("a.jpg", (200, 200))
    # joint 0 is the right ankle, which one of the files has not
    assert person.joints[0, 0] == {"nulls.json": -1, "frac.json": 98.5}.get(path.name, 98)
    annotation.write_json(tmp_path / "out.json", [person])

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "out.json").read_text(), parse_constant=no_constant)


# file -> line and reason, as Caffe's parser refuses it
_REFUSED_TEXT = {
    "enumquoted.prototxt": (1, "pool: unknown value"),
    "fullwidth.prototxt": (5, "unexpected '："),
    "iter_step.prototxt": (1, "no field 'net'"),
    "mem_param.prototxt": (1, "no field 'mem_param'"),
    "mix.prototxt": (2, "unsupported layer type"),
    "mix2.prototxt": (2, "expected a quoted string"),
    "nbsp.prototxt": (4, "unexpected '\\\\xa0"),
    "quoted_num.prototxt": (5, "expected an integer"),
    "smart.prototxt": (4, "unexpected '“"),
    "trailing.prototxt": (6, "expected a field name at the top level"),
    "unclosed.prototxt": (5, "found 'end of file'"),
}
# shape of the only layer's top
_SHAPES = {"enumnum.prototxt": (1, 3, 4, 4), "phase_top.prototxt": (1, 3, 8, 8)}


_READ_TEXT = ("bigfile_line.prototxt", "cr.prototxt", *_SHAPES)


@pytest.mark.parametrize(
    "path",
    [
        *_known("gbk_comment", "latin1.prototxt", "net.prototxt"),
        *_known("text_misc", *_READ_TEXT, *_REFUSED_TEXT),
    ],
)
def test_definitions_are_read_as_caffe_reads_them(path: Path) -> None:
    if refused := _REFUSED_TEXT.get(path.name):
        line, why = refused
        with pytest.raises(CaffeCompatError, match=f"{path.name}:{line}: .*{why}"):
            build(read_net(path))
        return
    graph = build(read_net(path))
    assert graph.blobs[graph.outputs[0]] == _SHAPES.get(path.name, (1, 2, 6, 6))


_NO_WEIGHTS = {
    "crlf": "damaged at byte 5",
    "gz": "is a gzip archive",
    "half": "truncated",
    "json": "is text",
    "mean": "is a single blob, such as a mean image",
    "text": "is text",
    "xml": "is an XML page",
    "zero": "damaged at byte 524",
    "zip": "is a zip archive",
}


@pytest.mark.parametrize(
    "path",
    _known(
        "wrong_files", "mean.binaryproto", *(f"{name}.caffemodel" for name in ("ok", *_NO_WEIGHTS))
    ),
)
def test_wrong_files_are_named_for_what_they_are(path: Path) -> None:
    if path.stem == "ok":
        assert [blob.shape for blob in containers.read_weights(path)["conv"]] == [
            (4, 3, 3, 3),
            (4,),
        ]
        return
    with pytest.raises(CaffeCompatError, match=f"{path.name}: {_NO_WEIGHTS[path.stem]}"):
        containers.read_weights(path)


@pytest.mark.parametrize("path", _known("lmdb", "a.json", "c.json"))
def test_people_of_an_lmdb_come_back(path: Path, tmp_path: Path) -> None:
    """From the authors' JSON and from COCO's; and a database that was cut short at any place is
    refused with its sizes, without a signal from the system."""
    people = annotation.read_json(path) if path.name == "a.json" else coco_files.read(path)
    imported()
    store.export_lmdb(store.plan(people, seed=0), path.parent, tmp_path / "out")
    opened = store.LMDBStore(tmp_path / "out")
    stored = {opened.record(i).annotation.annolist_index for i in range(len(opened))}
    assert stored == set(range(1, len(people) + 1))
    opened.close()
    whole = (tmp_path / "out" / "data.mdb").read_bytes()
    lengths = [len(whole) // 2, len(whole) - 4096, len(whole) - 1, 3 * 4096 + 5]

    def work() -> Iterator[str]:
        for length in lengths:
            cut = tmp_path / f"cut{length}.mdb"
            cut.write_bytes(whole[:length])
            with pytest.raises(CaffeCompatError) as refused:
                store.LMDBStore(cut)
            yield str(refused.value)

    answers, ended = forked(work)
    assert not ended
    for length, answer in zip(lengths, answers, strict=True):
        assert "cut short" in answer
        assert f"{length:,}" in answer or str(length) in answer


_NO_PICTURE = {
    "empty.jpg": "is empty",
    "one_px.png": "no part of it lies inside the 1×1 image",
    "text.jpg": "is text, not a picture",
    "trunc.jpg": "is cut short",
}
_OTHER_ENDINGS = {"b.csv", "make.py", "noext"}


# the program that made the pictures stands for its folder
@pytest.mark.parametrize("path", reported("predict", "make.py"))
def test_a_folder_of_odd_pictures_goes_on(path: Path, tmp_path: Path) -> None:
    """Each picture is predicted, or named in one line that says why not."""
    folder = shutil.copytree(path.parent, tmp_path / "pictures")
    model = write_model(tmp_path / "m.caffemodel", seed=2)
    out = tmp_path / "out"
    result = run_predict(folder, "--model", model, "--out", out, "--scales", "1")
    assert result.exit_code == 1, result.output  # some were not done
    not_done = [line for line in result.stderr.splitlines() if line.startswith("not done: ")]
    reasons = {line.split(": ")[1].rpartition("/")[2]: line for line in not_done}
    assert len(not_done) == len(reasons)
    assert reasons.keys() == _NO_PICTURE.keys()
    for name, why in _NO_PICTURE.items():
        assert why in reasons[name]
    pictures = {file.name for file in folder.iterdir()} - _OTHER_ENDINGS - _NO_PICTURE.keys()
    assert "3: .csv, .py, none" in result.stderr
    assert len(list(out.glob("*_keypoints.json"))) == len(pictures)
