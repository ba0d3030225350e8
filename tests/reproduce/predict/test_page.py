"""``cpm-predict --page``: the page says what was predicted, and works in a browser."""

from __future__ import annotations

import base64
import html
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from reproduce.cli import predict
from reproduce.drawing.viewer import ViewedPerson, ViewedPicture, picture_data, viewer, write_page
from reproduce.people.skeletons import SKELETON_14, skeleton
from tests.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
look_at_page = importlib.import_module("look_at_page")

needs_browser = pytest.mark.skipif(
    look_at_page.browser() is None, reason="no Chromium on the path (Debian's package chromium)"
)

# Presses keys one after the other; after each the canvas says what it shows and its pixels are
# summed up.
_DRIVE = """<script>
addEventListener('error', e => { document.body.dataset.broken = e.message; });
addEventListener('load', async () => {
  const canvas = document.querySelector('.pose-viewer canvas');
  const seen = [];
  const note = async (key) => {
    await new Promise(done => setTimeout(done, 300));
    const ink = canvas.toDataURL();
    let sum = 0;
    for (let i = 0; i < ink.length; i++) sum = (sum * 31 + ink.charCodeAt(i)) % 1000000007;
    seen.push({key, shown: canvas.dataset.shown, ink: sum,
      said: document.querySelector('figcaption').textContent,
      pressed: [...document.querySelectorAll('[aria-pressed=true]')].map(b => b.textContent)});
  };
  await note('');
  for (const key of KEYS) {
    document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    await note(key);
  }
  document.querySelectorAll('.parts button')[5].click();
  await note('click');
  document.body.dataset.found = JSON.stringify(seen);
});
</script>"""


def _people(rng: np.random.Generator, count: int, stages: int = 3) -> tuple[ViewedPerson, ...]:
    return tuple(
        ViewedPerson(
            rng.uniform(0, 100, (14, 2)),
            rng.uniform(0, 1, 14),
            rng.uniform(0, 1, (stages, 15, 12, 16)).astype(np.float32),
        )
        for _ in range(count)
    )


# what would end the data, and what would keep them from ending
_NAME = "street </script><b><!--<script>.jpg"


def _pictures() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (120, 160, 3), np.uint8)
    found = (
        ViewedPicture(_NAME, image, _people(rng, 2)),
        ViewedPicture("nobody.jpg", image, ()),
        ViewedPicture("one.jpg", image, _people(rng, 1, 1)),
    )
    return [picture_data(picture) for picture in found]


def _data(page: str) -> dict[str, Any]:
    """What the page's viewer is told."""
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    return dict(json.loads(text))


def _decoded(url: str) -> Any:
    content = base64.b64decode(url.split(",", 1)[1])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_what_the_page_is_told() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (1200, 1800, 3), np.uint8)
    (person,) = _people(rng, 1)
    data = _data(viewer([picture_data(ViewedPicture("a", image, (person,)))], SKELETON_14))
    assert data["parts"] == [*SKELETON_14.parts, "background"]
    drawn = [tuple(line[:2]) for line in data["lines"]]
    assert drawn == [*SKELETON_14.torso, *SKELETON_14.limbs]
    colours = {line[2] for line in data["lines"]}
    assert len(colours) == 1 + len(SKELETON_14.limbs)  # the torso has one
    (picture,) = data["pictures"]
    assert _decoded(picture["source"]).shape == (600, 900, 3)  # half the size, and so the joints
    (told,) = picture["people"]
    np.testing.assert_allclose(told["joints"], (person.joints + 0.5) / 2, atol=0.06)
    assert [stage["title"] for stage in told["stages"]] == ["stage 1", "stage 2", "stage 3"]
    for maps, stage in zip(person.stages, told["stages"], strict=True):
        sprite = _decoded(stage["source"]).reshape(15, 12, 16)
        np.testing.assert_allclose(sprite[:14] / 255, maps[:14] / maps[:14].max(), atol=0.003)
        np.testing.assert_allclose(sprite[14] / 255, maps[14] / maps[14].max(), atol=0.003)
        np.testing.assert_allclose(stage["best"], maps.max((1, 2)), atol=1e-4)


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "a < b", "about & more", _pictures(), SKELETON_14)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "a &lt; b" in text and "about &amp; more" in text
    assert _data(text)["pictures"][0]["title"] == _NAME
    assert "$" not in re.sub(r"\$\{", "", text)  # every place of the template was filled


def _drive(page: Path, keys: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """What the page shows after each key, and the console's messages."""
    copy = page.with_name("driven.html")
    script = _DRIVE.replace("KEYS", json.dumps(keys))
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"))
    program = look_at_page.browser()
    assert program is not None
    done: subprocess.CompletedProcess[str] = look_at_page._run(
        program,
        "--window-size=1280,900",
        "--virtual-time-budget=20000",
        "--dump-dom",
        copy.as_uri(),
    )
    assert "data-broken" not in done.stdout
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match, done.stderr[-2000:]
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])), messages


@needs_browser
def test_keys_move_through_the_page(tmp_path: Path) -> None:
    """picture/person/part/stage after each key; other pixels for another stage, part, person."""
    write_page(tmp_path / "page.html", "t", "a", _pictures(), SKELETON_14)
    keys = {
        "ArrowLeft": "0/0/0/1",
        "ArrowDown": "0/0/1/1",
        "p": "0/1/1/2",
        "ArrowRight": "0/1/1/2",  # the last stage is the end
        "m": "0/1/1/2",
        "s": "0/1/1/2",
        "n": "1/0/1/0",
        "N": "0/0/1/2",
        "ArrowUp": "0/0/0/2",
    }
    seen, messages = _drive(tmp_path / "page.html", list(keys))
    assert messages == []
    assert seen[0]["shown"] == "0/0/0/2"
    assert [one["shown"] for one in seen[1:-1]] == list(keys.values())
    assert seen[-1]["shown"] == "0/0/5/2"
    ink = {one["key"]: one["ink"] for one in seen}
    changing = [ink[""], ink["ArrowLeft"], ink["ArrowDown"], ink["p"], ink["m"], ink["s"]]
    assert len(set(changing)) == len(changing)
    assert ink["ArrowRight"] == ink["p"]  # nothing further
    assert "stage 2" in seen[1]["pressed"]
    assert "head after stage 2" in seen[1]["said"]
    assert "no person found" in seen[7]["said"]


@pytest.mark.long
@needs_browser
def test_the_page_fits_a_desk_and_a_phone(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "t", "a", _pictures(), SKELETON_14)
    for width in look_at_page.WIDTHS:
        found = look_at_page.look(tmp_path / "page.html", width)
        assert look_at_page.faults(found, width) == []


def _run(*args: object) -> Result:
    return CliRunner().invoke(predict.main, [str(a) for a in args])


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["demo", "lsp"])
def test_the_command_writes_the_page(protocol: str, tmp_path: Path) -> None:
    """The embedded network's three stages, with joints and scores of the JSON; --resume keeps what
    is there and makes what is not."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        small = rng.integers(0, 256, (9, 7, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.resize(small, (84, 108)))
    out = tmp_path / "out"
    options = ("--protocol", protocol, "--scales", "1,1.2", "--out", out)
    assert _run(tmp_path / "a.png", *options).exit_code == 0
    assert not (out / "page.html").exists()
    result = _run(tmp_path / "a.png", tmp_path / "b.png", *options, "--page", "--resume")
    assert result.exit_code == 0, result.output
    assert "2 people" in result.stdout  # of the first run no maps were kept
    assert "page.html: 2 pictures" in result.stdout
    data = _data((out / "page.html").read_text(encoding="utf-8"))
    assert [picture["title"] for picture in data["pictures"]] == ["a.png", "b.png"]
    for picture in data["pictures"]:
        (person,) = picture["people"]
        assert len(person["stages"]) == 3
        file = out / picture["title"].replace(".png", "_keypoints.json")
        row = json.loads(file.read_text())["people"][0]["pose_keypoints_2d"]
        joints = np.array(row).reshape(-1, 3)
        ratio = _decoded(picture["source"]).shape[0] / 108  # small pictures are enlarged
        np.testing.assert_allclose(person["joints"], (joints[:, :2] + 0.5) * ratio, atol=0.1)
        np.testing.assert_allclose(person["scores"], joints[:, 2], atol=1e-3)
        # the reduced map's highest value is near the score, which is the full map's
        best = person["stages"][-1]["best"][: len(skeleton(14))]
        np.testing.assert_allclose(best, joints[:, 2], atol=0.1)
    again = _run(tmp_path / "a.png", tmp_path / "b.png", *options, "--page", "--resume")
    assert "0 people" in again.stdout
    assert _run(tmp_path / "none.mp4", "--page").exit_code == 2
