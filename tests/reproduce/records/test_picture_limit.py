"""One limit for every picture that is decoded, which the user can raise."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from caffe_compat.errors import CaffeCompatError
from caffe_compat.picturesize import check_pixels, size_of
from caffe_compat.pycaffe.io import load_image
from caffe_compat.training.pictures import decode_picture
from reproduce.cli import export
from reproduce.people.annotation import write_json
from reproduce.records.images import read_image
from tests.people import dataset


def test_every_decoder_obeys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((30, 40, 3), np.uint8))
    readers = (
        lambda: read_image(path),
        lambda: decode_picture(path.read_bytes(), "color", "a.png"),
        lambda: load_image(path),
    )
    monkeypatch.setenv("CPM_MAX_PIXELS", "1200")
    for reader in readers:
        reader()
    monkeypatch.setenv("CPM_MAX_PIXELS", "1199")
    for reader in readers:
        with pytest.raises(CaffeCompatError, match=r"a\.png.*40 × 30 pixels.*CPM_MAX_PIXELS"):
            reader()


def test_a_claim_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """65,500 pixels in both directions are refused by the head alone."""
    monkeypatch.delenv("CPM_MAX_PIXELS", raising=False)
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (65500).to_bytes(4, "big") * 2
    with pytest.raises(CaffeCompatError, match="65500 × 65500"):
        check_pixels(head)


@pytest.mark.parametrize("ending", ["pgm", "ppm", "pbm", "pam", "pfm", "hdr", "ras", "jp2", "avif"])
def test_sizes_of_rarer_formats(ending: str) -> None:
    """As OpenCV writes them, where it can."""
    kind = np.float32 if ending in ("pfm", "hdr") else np.uint8
    image = np.zeros((300, 400) if ending in ("pgm", "pbm") else (300, 400, 3), kind)
    try:
        written, data = cv2.imencode(f".{ending}", image)
    except cv2.error:
        pytest.skip(f"this OpenCV writes no .{ending}")
    assert written
    assert size_of(data.tobytes()) == (400, 300)


@pytest.mark.parametrize(
    "head",
    [
        b"P5 # a comment\n# 1 1\n 65500\t65500\n255\n",
        b"P6\n65500 65500\n255\n",
        b"PF\n65500 65500\n-1\n",
        b"P7\nWIDTH 65500\nHEIGHT 65500\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 65500 +X 65500\n",
        b"\x59\xa6\x6a\x95" + (65500).to_bytes(4, "big") * 2,
        b"\xff\x4f\xff\x51\0\x2f\0\0" + (65500).to_bytes(4, "big") * 2,
        b"\0\0\0\x0cjP  \r\n\x87\n....jp2h....ihdr" + (65500).to_bytes(4, "big") * 2,
        b"\0\0\0\x20ftypavif....ispe\0\0\0\0" + (65500).to_bytes(4, "big") * 2,
    ],
)
def test_claims_of_rarer_formats(head: bytes) -> None:
    with pytest.raises(CaffeCompatError, match="65500 × 65500"):
        check_pixels(head)
    assert size_of(head[: len(head) // 2]) is None


def test_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--max-pixels goes before the variable, and ends with its command."""
    people = dataset(tmp_path, 2)
    annotations = tmp_path / "people.json"
    write_json(annotations, people)
    monkeypatch.setenv("CPM_MAX_PIXELS", "100")
    out = tmp_path / "records"
    words = ["lmdb", str(annotations), "--data", str(tmp_path), "-o", str(out), "--seed", "1"]
    refused = CliRunner().invoke(export.main, words)
    assert refused.exit_code == 2
    assert "--max-pixels" in refused.stderr
    assert not out.exists()
    taken = CliRunner().invoke(export.main, [*words, "--max-pixels", "1000000"])
    assert taken.exit_code == 0, taken.output
    assert os.environ["CPM_MAX_PIXELS"] == "100"
