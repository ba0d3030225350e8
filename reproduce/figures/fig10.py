"""Figure 10: predictions drawn on test images of LSP and FLIC.

Every n-th test image that is here is shown, and the choice does not ask how good it looks; the JSON
says which they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import csv_cell, write_csv, write_json
from reproduce.benchmarks.benchmark import Benchmark, Missing
from reproduce.benchmarks.flic import Flic
from reproduce.benchmarks.lsp import Lsp
from reproduce.drawing.curves import save
from reproduce.drawing.pictures import draw_skeleton, save_png
from reproduce.people.skeletons import Skeleton
from reproduce.records.images import read_image
from reproduce.runtime.provenance import provenance

CHECKED: tuple[str, ...] = ()  # no published number belongs to it
ROWS: dict[type[Benchmark], int] = {Lsp: 2, Flic: 1}  # of people of each benchmark
COLUMNS, TILE = 8, (150, 200)  # width, height
_PIXELS_AN_INCH = 150  # on the PDF page
HEAD = 28  # pixels for the name above a benchmark's rows
_Image = npt.NDArray[np.uint8]
# A person's name for the JSON, the image, the parts (P, 2) in 0-based pixels, the skeleton.
_Shown = tuple[str, Path, npt.NDArray[np.float64], Skeleton]


def _tile(image: _Image, joints: npt.NDArray[np.float64], skeletal: Skeleton) -> _Image:
    """The person with some room around, skeleton drawn, in a tile of fixed size (white outside the
    image)."""
    import cv2

    low, high = joints.min(0), joints.max(0)
    center, (width, height) = (low + high) / 2, TILE
    side = 1.35 * max((high - low)[0] / width, (high - low)[1] / height, 20 / height)
    scale = 1 / side
    move = np.array(
        [[scale, 0, width / 2 - scale * center[0]], [0, scale, height / 2 - scale * center[1]]]
    )
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cut = cv2.warpAffine(
        image, move, TILE, flags=kind, borderMode=cv2.BORDER_CONSTANT, borderValue=(255, 255, 255)
    )
    points = joints * scale + move[:, 2]
    return draw_skeleton(np.asarray(cut, np.uint8), points, skeletal)


def _spread(items: list[Any], count: int) -> list[Any]:
    """``count`` items, evenly spread over all."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _people(benchmark: Benchmark) -> list[_Shown]:
    """The test people whose images and released predictions are there."""
    file = next(iter(benchmark.released.values()))
    try:
        predicted = benchmark.read_file(file)
        people = benchmark.people()
    except Missing:
        return []
    parts = benchmark.to_parts(predicted)
    return [
        (f"{benchmark.stem} {image.stem}", image, joints, benchmark.skeleton)
        for (image, _), joints in zip(people, parts, strict=True)
        if image.exists()
    ]


def _benchmark(row: _Shown) -> str:
    """The name of the benchmark that a person is of."""
    return row[0].split(" ")[0]


def _strip(name: str, tiles: list[_Image], here: int) -> _Image:
    """The rows of one benchmark under its name, white around; ``here``: how many test people it
    has whose images are there."""
    import cv2

    width, height = TILE
    lines = -(-len(tiles) // COLUMNS)
    strip = np.full((lines * (height + 4) + HEAD, COLUMNS * (width + 4), 3), 255, np.uint8)
    text = f"{name}: the authors' released predictions of {len(tiles)} of the {here} people here"
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, text, (4, HEAD - 8), font, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    for i, tile in enumerate(tiles):
        y, x = HEAD + i // COLUMNS * (height + 4), i % COLUMNS * (width + 4)
        strip[y : y + height, x : x + width] = tile
    return strip


def make(data: Path, out: Path) -> list[Path]:
    """Picture, and which people it shows.

    Raises
    ------
    Missing : no test image with predictions is there.
    CaffeCompatError : none of them can be read, or predictions that cannot be.
    """
    rows: list[_Shown] = []
    here: dict[str, int] = {}
    for kind, lines in ROWS.items():
        people = _people(kind(data))
        rows += _spread(people, lines * COLUMNS)
        if people:
            here[_benchmark(people[0])] = len(people)
    if not rows:
        pairs = ", ".join(
            f"{next(iter(one.released.values()))} with {one.folder}/images" for one in ROWS
        )
        raise Missing(f"no test images with predictions in {data} ({pairs})")
    shown: list[dict[str, str]] = []
    unread: list[str] = []
    tiles: dict[str, list[_Image]] = {}
    for row in rows:
        name, path, joints, skeletal = row
        try:
            tile = _tile(read_image(path), joints, skeletal)
        except DataError as error:
            unread.append(str(error))
            shown.append({"person": name, "left out": str(error)})
            continue
        tiles.setdefault(_benchmark(row), []).append(tile)
        shown.append({"person": name})
    if not tiles:
        raise DataError(f"none of the {len(rows)} images can be read; the first: {unread[0]}")
    sheet = np.concatenate([_strip(name, found, here[name]) for name, found in tiles.items()])
    path = out / "fig10"
    save_png(sheet, path.with_suffix(".png"))
    about = provenance("cpm-reproduce fig10", str(data))
    write_json(path.with_suffix(".json"), {"provenance": about, "people": shown})
    _save_page(sheet, path)
    rows_of_table = [[csv_cell(one["person"]), csv_cell(one.get("left out", ""))] for one in shown]
    write_csv(path.with_suffix(".csv"), [("person", "left out"), *rows_of_table])
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf")]


def _save_page(sheet: _Image, path: Path) -> None:
    """The picture as a PDF page of its own size."""
    import matplotlib.pyplot as plt

    height, width = sheet.shape[:2]
    page = plt.figure(figsize=(width / _PIXELS_AN_INCH, height / _PIXELS_AN_INCH))
    axis = page.add_axes((0, 0, 1, 1))
    axis.axis("off")
    axis.imshow(sheet[:, :, ::-1], interpolation="none")
    save(page, path, ("pdf",))
