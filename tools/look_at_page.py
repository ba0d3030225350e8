"""Open a page in headless Chromium at the widths of a desk and of a phone: console errors,
pictures, text that is too small.

    python tools/look_at_page.py report/index.html --out shots

The page is shown in a frame of the wanted width (a window of its own cannot be as narrow as a
phone). Prints what was measured, writes a screenshot per width where --out is given, exits 1 if
something is wrong. Needs Chromium on the path (Debian's package ``chromium``).
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
SMALLEST = 7.0  # CSS pixels of the smallest text; below, it cannot be read
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
)
_MEASURE = """<script>
addEventListener('load', () => {
  const shown = e => e.getClientRects().length > 0; // not an edition for another width
  const pictures = [...document.querySelectorAll('img, svg[role=img]')].filter(shown);
  const broken = pictures.filter(p => p.tagName === 'IMG' ? !p.naturalWidth : !(p.getBoundingClientRect().width > 1)).length;
  const small = [];
  for (const t of [...document.querySelectorAll('svg text, p, td, th, li, figcaption, h1, h2, h3')].filter(shown)) {
    let size = parseFloat(getComputedStyle(t).fontSize);
    if (t.ownerSVGElement) { const m = t.getScreenCTM(); size *= Math.hypot(m.a, m.b); }
    if (t.textContent.trim()) small.push(size);
  }
  parent.postMessage(JSON.stringify({width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    pictures: pictures.length, broken, smallest: Math.min(...small)}), '*');
});
</script>"""
_FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe src="{name}" style="border:0;display:block" width="{width}" height="{height}"></iframe>
<script>addEventListener('message', e => {{ document.body.dataset.found = e.data; }});</script>"""


def browser() -> str | None:
    """The browser's name on the path."""
    return next(
        (name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)),
        None,
    )


def _run(program: str, *args: str, timeout: int = 180) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *_QUIET, f"--user-data-dir={profile}", "--enable-logging=stderr", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def look(page: Path, width: int, picture: Path | None = None) -> dict[str, Any]:
    """Measure a page at a width.

    Returns
    -------
    width and height of its content, number of pictures, how many of them are broken, size of the
    smallest text in CSS pixels, and the console's messages.
    """
    program = browser()
    if program is None:
        raise SystemExit("no Chromium on the path: install Debian's package chromium")
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(
            text.replace("</body>", _MEASURE + "</body>"), encoding="utf-8"
        )
        frame = Path(folder) / "frame.html"
        frame.write_text(
            _FRAME.format(name="page.html", width=width, height=2000), encoding="utf-8"
        )
        size = f"--window-size={max(width, 600)},2000"
        done = _run(program, size, "--virtual-time-budget=20000", "--dump-dom", frame.as_uri())
        match = re.search(r'data-found="([^"]*)"', done.stdout)
        if match is None:
            raise SystemExit(f"{page}: Chromium did not show it: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(html.unescape(match[1]))
        found["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        if picture is not None:
            height = int(found["height"])
            frame.write_text(
                _FRAME.format(name="page.html", width=width, height=height), encoding="utf-8"
            )
            _run(
                program,
                f"--window-size={max(width, 600)},{height}",
                "--virtual-time-budget=20000",
                f"--screenshot={picture.resolve()}",
                frame.as_uri(),
            )
            found["picture"] = str(picture)
    return found


def faults(found: dict[str, Any], width: int) -> list[str]:
    """What is wrong at a width, in words."""
    wrong = [f"console: {line}" for line in found["console"]]
    if found["width"] > width:
        wrong.append(f"the content is {found['width']} px wide")
    if found["broken"] or not found["pictures"]:
        wrong.append(f"{found['broken']} of {found['pictures']} pictures are missing")
    if found["smallest"] < SMALLEST:
        wrong.append(f"the smallest text has {found['smallest']:.1f} px")
    return wrong


def main() -> int:
    """Open the page at every width and print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, help="Folder for the screenshots.")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    bad = 0
    for width in WIDTHS:
        found = look(
            options.page, width, options.out / f"{width}.png" if options.out is not None else None
        )
        wrong = faults(found, width)
        bad += len(wrong)
        print(
            f"{width} px: {found['pictures']} pictures, smallest text {found['smallest']:.1f} px, "
            f"{found['height']} px high; {'; '.join(wrong) or 'nothing wrong'}"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
