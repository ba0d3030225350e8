"""The report begins with a summary and with people to look at, and its figures fit a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from reproduce.cli import reproduce
from reproduce.report import page
from reproduce.report.samples import numbers
from tests.paths import DATA, needs_data


def _report(data: Path, out: Path, code: int = 0) -> str:
    result = CliRunner().invoke(reproduce.main, ["report", "--data", str(data), "-o", str(out)])
    assert result.exit_code == code, result.output
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.long
@needs_data
def test_summary_and_sample_people(tmp_path: Path) -> None:
    text = _report(DATA, tmp_path)
    summary, first = text.index('class="summary"'), text.index("<h2>")
    people, claims = text.index('class="pose-viewer"'), text.index("claims, one by one")
    assert summary < first < people < claims
    assert "numbers, published or stored" in text[summary:first]
    (told,) = re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    pictures = json.loads(told)["pictures"]
    assert [p["title"] for p in pictures] == [f"im{n}.jpg" for n in numbers()]
    for picture in pictures:
        (person,) = picture["people"]
        assert len(person["stages"]) == 3  # the embedded network's
        assert max(person["stages"][-1]["best"][:14]) <= 1.05  # means, not sums over the scales
    # each figure of curves once for a desk and once for a phone, under ids of their own
    assert text.count('class="narrow"') == text.count('class="wide"') >= 3
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "90.1 with the front end of VGG-19" in text


def test_published_receptive_fields_stand_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"receptive": {"stage1": 161, "belief": 32, "stage2": 401}}
    monkeypatch.setattr(page, "published", lambda: said)
    (text,) = page._fields().notes
    assert text.endswith("The paper: 161 px after stage 1, 32×32 and 401 px after 2.")


@pytest.mark.long
def test_without_photographs(tmp_path: Path) -> None:
    text = _report(tmp_path, tmp_path / "out", code=1)  # nothing is checked without data
    assert "<h2>What the network believes</h2>" in text
    assert "Not here: lsp/joints.mat" in text
    assert 'class="pose-viewer"' not in text
