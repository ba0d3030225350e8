"""One limit for every picture that is decoded, which the user can raise."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from caffe_compat.errors import CaffeCompatError
from caffe_compat.picturesize import check_pixels
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
