"""Pictures of belief maps and skeletons."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import printable
from caffe_compat.files import TargetError, atomic_write, check_target
from reproduce.drawing.colours import TORSO, limb_colours
from reproduce.drawing.names import name_corners
from reproduce.people.skeletons import Skeleton

Maps = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

# colour-blind safe (Okabe and Ito), for people, B, G, R
_PALETTE = (
    (0, 159, 230),
    (233, 180, 86),
    (115, 158, 0),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
    (167, 121, 204),
)


def overlay(
    image: Image, belief: Maps, *, low: float | None = None, high: float | None = None
) -> Image:
    """A belief map in false colours over a grey copy of the image.

    Parameters
    ----------
    image : (H, W, 3) uint8, B, G, R.
    belief : (h, w) of any size; scaled to the image.
    low, high : values shown as lowest and highest colour; default: the map's own range.
    """
    import cv2

    low = float(belief.min()) if low is None else low
    high = float(belief.max()) if high is None else high
    wide = cv2.resize(
        belief.astype(np.float32), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC
    )
    level = np.clip((wide - low) / max(high - low, 1e-12), 0, 1)
    heat = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(grey, 0.4, heat, 0.6, 0), np.uint8)


_TALLEST = 4  # times its width a reduced picture is high at most
_WIDEST = 6  # times its height it is wide at most, so that the rows' names have room


def reduced_height(size: tuple[int, int], width: int) -> int:
    """The height of a picture of ``size`` (rows, columns) that is reduced to ``width``: in
    proportion, but at least a sixth of the width and at most four times of it."""
    return min(max(width // _WIDEST, round(width * size[0] / size[1])), _TALLEST * width)


def montage(
    image: Image, stages: Sequence[Maps], names: Sequence[str], *, tile: int = 120
) -> Image:
    """Belief maps of every part (columns) and stage (rows), as the paper's Figure 1 shows them.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R, what the network saw.
    stages : per stage (P + 1, h, w); all parts of a stage share a colour scale.
    names : of the columns, background included.
    tile : width of a small picture, in pixels.
    """
    import cv2

    height = reduced_height((image.shape[0], image.shape[1]), tile)
    small = np.asarray(cv2.resize(image, (tile, height), interpolation=cv2.INTER_AREA), np.uint8)
    margin, head = 64, 22
    out = np.full(
        (head + len(stages) * (height + 4), margin + len(names) * (tile + 4), 3), 255, np.uint8
    )
    for column, name in enumerate(names):
        _write(out, name, margin + column * (tile + 4) + 2, 15)
    for row, maps in enumerate(stages):
        top = head + row * (height + 4)
        _write(out, f"stage {row + 1}", 4, top + height // 2)
        low, high = float(maps[:-1].min()), float(maps[:-1].max())
        for column, belief in enumerate(maps[: len(names)]):
            left = margin + column * (tile + 4)
            last = column == len(maps) - 1
            tile_image = overlay(
                small, belief, low=None if last else low, high=None if last else high
            )
            out[top : top + height, left : left + tile] = tile_image
    return out


def _write(image: Image, text: str, x: int, y: int) -> None:
    import cv2

    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)


def draw_skeleton(
    image: Image,
    joints: npt.NDArray[np.floating[Any]],
    skeleton: Skeleton,
    *,
    names: bool = False,
) -> Image:
    """Torso, limbs and joints on a copy of the image; colours of
    :mod:`reproduce.drawing.colours`.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R.
    joints : (P, 2) x, y in 0-based pixels; nan = not drawn.
    names : write each part's name beside it, none over another?
    """
    import cv2

    out = np.ascontiguousarray(image.copy())
    size = max(image.shape[:2])
    thick = max(2, size // 160)
    places = [
        (round(float(x)), round(float(y))) if np.isfinite([x, y]).all() else None for x, y in joints
    ]
    colours = limb_colours(skeleton)
    lines = [
        *((limb, TORSO, max(1, thick // 2)) for limb in skeleton.torso),
        *((limb, colour, thick) for limb, colour in zip(skeleton.limbs, colours, strict=True)),
    ]
    for (a, b), colour, width in lines:
        start, stop = places[a], places[b]
        if start is not None and stop is not None:
            cv2.line(out, start, stop, colour[::-1], width, cv2.LINE_AA)
    for place in places:
        if place is not None:
            cv2.circle(out, place, thick + 1, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(out, place, thick, (30, 30, 30), -1, cv2.LINE_AA)
    if names:
        shown = [
            (printable(name), place)
            for name, place in zip(skeleton.parts, places, strict=True)
            if place is not None
        ]
        _write_names(out, shown, thick)
    return out


def _write_names(image: Image, shown: Sequence[tuple[str, tuple[int, int]]], thick: int) -> None:
    """Light texts with a dark edge beside their places; a thin line leads to a text that stands
    away from its place because there was no room."""
    import cv2

    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.18 * (thick + 0.2)
    sizes, heights = [], []
    for text, _ in shown:
        (width, height), below = cv2.getTextSize(text, font, scale, 1)
        sizes.append((width, height + below // 2))
        heights.append(height)
    picture = (image.shape[1], image.shape[0])
    places = [place for _, place in shown]
    gap = 2 * thick
    corners = name_corners(sizes, places, picture, gap)
    for (x, y), (left, top), (width, height) in zip(places, corners, sizes, strict=True):
        end = min(max(x, left), left + width), min(max(y, top), top + height)
        if max(abs(end[0] - x), abs(end[1] - y)) > gap + 1:
            cv2.line(image, (x, y), end, (255, 255, 255), 1, cv2.LINE_AA)
    for (text, _), (left, top), height in zip(shown, corners, heights, strict=True):
        for colour, weight in (((20, 20, 20), 3), ((255, 255, 255), 1)):
            cv2.putText(image, text, (left, top + height), font, scale, colour, weight, cv2.LINE_AA)


def draw_people(
    image: Image,
    belief: Maps,
    centers: Sequence[tuple[float, float]],
    boxes: Sequence[tuple[float, float, float, float]],
) -> Image:
    """The person network's map in false colours over the image, with who was found: centre and
    box.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R.
    belief : (h, w) over the image; 0 to 1 are the lowest and the highest colour.
    centers : x, y of each person in 0-based pixels.
    boxes : x, y, width, height of each in 0-based pixels.
    """
    import cv2

    out = overlay(image, belief, low=0.0, high=1.0)
    size = max(image.shape[:2])
    thick = max(1, size // 320)
    for i, ((x, y), (left, top, width, height)) in enumerate(zip(centers, boxes, strict=True)):
        colour = _PALETTE[i % len(_PALETTE)]
        corner = round(left), round(top)
        cv2.rectangle(out, corner, (round(left + width), round(top + height)), colour, thick)
        place = round(x), round(y)
        cv2.drawMarker(
            out, place, (255, 255, 255), cv2.MARKER_CROSS, size // 30, thick + 2, cv2.LINE_AA
        )
        cv2.drawMarker(out, place, colour, cv2.MARKER_CROSS, size // 30, thick, cv2.LINE_AA)
        beside = place[0] + size // 50, place[1] - size // 50
        cv2.putText(
            out,
            str(i + 1),
            beside,
            cv2.FONT_HERSHEY_SIMPLEX,
            size / 900,
            (255, 255, 255),
            thick,
            cv2.LINE_AA,
        )
    return out


_PNG_HEADER = 33  # bytes of the signature and of the first chunk


def save_png(image: Image, path: str | os.PathLike[str], *, software: str = "") -> None:
    """Write a picture (H, W, 3) uint8 B, G, R, whole or not at all.

    Parameters
    ----------
    software : the program that made it; the file says so.
    """
    import cv2

    data = cv2.imencode(".png", image)[1].tobytes()
    if software:
        body = b"tEXtSoftware\0" + software.encode("latin-1")
        text = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        data = data[:_PNG_HEADER] + text + data[_PNG_HEADER:]
    with atomic_write(path) as stream:
        stream.write(data)


_ENDINGS = (".png", ".jpg", ".jpeg")


def check_picture_target(path: str | os.PathLike[str]) -> None:
    """See that :func:`save_picture` can write a file, before the work for it begins.

    Raises
    ------
    TargetError : says why not; also where the ending is of no picture that is written here.
    """
    check_target(path)
    if not os.fspath(path).lower().endswith(_ENDINGS):
        raise TargetError(
            f"{os.fspath(path)}: expected a name with the ending {', '.join(_ENDINGS[:-1])} or "
            f"{_ENDINGS[-1]}"
        )


def save_picture(image: Image, path: str | os.PathLike[str]) -> None:
    """Write a picture (H, W, 3) uint8 B, G, R as its ending says, PNG or JPEG, whole or not at all.

    Raises
    ------
    TargetError : another ending, or a file that cannot be written.
    """
    import cv2

    check_picture_target(path)
    with atomic_write(path) as stream:
        stream.write(cv2.imencode(os.path.splitext(path)[1].lower(), image)[1].tobytes())
