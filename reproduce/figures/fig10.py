"""Figure 10: predictions drawn on test images of LSP and FLIC.

The people are taken at equal distances from the test sets, not by how good they look; the JSON says
which.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write
from reproduce.benchmarks.truth import Benchmarks, Missing
from reproduce.drawing.pictures import draw_skeleton, save_png
from reproduce.people import flic_files, matfile
from reproduce.people.skeletons import LSP_JOINTS, SKELETON_9, SKELETON_14, Skeleton
from reproduce.predict import joint_files
from reproduce.records.store import read_image
from reproduce.runtime.provenance import provenance

KINDS: tuple[str, ...] = ()  # no published number belongs to it
LSP_FILE = "release/LSP_prediction_model_MPII_LSP_6s.mat"
FLIC_FILE = "release/FLIC_prediction_model_FLIC_4s.mat"
COLUMNS, TILE = 8, (150, 200)  # width, height
_Image = npt.NDArray[np.uint8]


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
    """``count`` items at equal distances."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def make(data: Benchmarks, out: Path) -> list[Path]:
    """Picture, and which people it shows.

    Raises
    ------
    Missing : no test image with predictions is there.
    """
    rows: list[tuple[str, Path, npt.NDArray[np.float64], Skeleton]] = []
    if (data.root / LSP_FILE).exists() and (data.root / "lsp" / "images").is_dir():
        order = [LSP_JOINTS.index(part) for part in SKELETON_14.parts]
        guess = joint_files.read_mat(data.need(LSP_FILE))[:, order] - 1
        images = [data.root / "lsp" / "images" / f"im{1001 + i:04d}.jpg" for i in range(len(guess))]
        there = [
            (f"LSP {p.stem}", p, g, SKELETON_14)
            for p, g in zip(images, guess, strict=True)
            if p.exists()
        ]
        rows += _spread(there, 2 * COLUMNS)
    if (data.root / FLIC_FILE).exists() and (data.root / "flic" / "examples.mat").exists():
        tests = [
            e
            for e in flic_files.read_examples(data.need("flic/examples.mat"))
            if matfile.number(e.istest)
        ]
        guess = joint_files.read_mat(data.need(FLIC_FILE)) - 1
        images = [data.root / "flic" / "images" / matfile.text(e.filepath) for e in tests]
        there = [
            (f"FLIC {p.stem}", p, g, SKELETON_9)
            for p, g in zip(images, guess, strict=True)
            if p.exists()
        ]
        rows += _spread(there, COLUMNS)
    if not rows:
        pairs = f"{LSP_FILE} with lsp/images, {FLIC_FILE} with flic/images"
        raise Missing(f"no test images with predictions in {data.root} ({pairs})")
    shown, tiles = [], []
    for name, path, joints, skeletal in rows:
        try:
            tiles.append(_tile(read_image(path), joints, skeletal))
        except DataError as error:
            shown.append({"person": name, "left out": str(error)})
            continue
        shown.append({"person": name})
    width, height = TILE
    lines = -(-len(tiles) // COLUMNS)
    sheet = np.full(
        (lines * (height + 4), min(len(tiles), COLUMNS) * (width + 4), 3), 255, np.uint8
    )
    for i, tile in enumerate(tiles):
        y, x = i // COLUMNS * (height + 4), i % COLUMNS * (width + 4)
        sheet[y : y + height, x : x + width] = tile
    path = out / "fig10"
    save_png(sheet, path.with_suffix(".png"))
    with atomic_write(path.with_suffix(".json")) as stream:
        about = provenance("cpm-reproduce fig10", str(data.root))
        stream.write(json.dumps({"provenance": about, "people": shown}, indent=1).encode())
    return [path.with_suffix(e) for e in (".json", ".png")]
