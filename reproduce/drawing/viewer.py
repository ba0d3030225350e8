"""A page to look at: belief maps of every stage over the pictures, in one HTML file.

Choose a picture, a person and a part, and move through the stages, as the paper's Figure 1 does on
paper. The page needs nothing but itself: pictures and maps are in it.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.files import atomic_write
from reproduce.drawing.colours import TORSO, as_hex, limb_colours
from reproduce.people.skeletons import Skeleton

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_LARGEST, _SMALLEST = 900, 600  # longer side of a picture in the page, pixels
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class ViewedPerson:
    """Somebody in a picture of the page.

    Attributes
    ----------
    joints : (P, 2) x, y in 0-based pixels of the picture; nan where one is hidden.
    scores : (P,) beliefs there.
    stages : (stages, P + 1, h, w) belief maps over the whole picture, the background last.
    """

    joints: Floats
    scores: Floats
    stages: Maps


@dataclass(frozen=True)
class ViewedPicture:
    """A picture of the page.

    Attributes
    ----------
    title : for people.
    image : (H, W, 3) uint8 B, G, R.
    people : who is in it.
    """

    title: str
    image: Image
    people: tuple[ViewedPerson, ...]


def picture_data(picture: ViewedPicture) -> dict[str, Any]:
    """What the page keeps of a picture: in the size in which it is shown, as text."""
    import cv2

    height, width = picture.image.shape[:2]
    longer = max(height, width)
    ratio = min(max(longer, _SMALLEST), _LARGEST) / longer
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    shown = cv2.resize(picture.image, size, interpolation=method)
    encoded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return {
        "title": picture.title,
        "source": _url("jpeg", encoded),
        "people": [
            {
                "title": f"person {i}",
                "joints": [
                    joint.tolist() if np.isfinite(joint).all() else None
                    for joint in ((person.joints + 0.5) * ratio).round(1)
                ],
                "scores": person.scores.round(4).tolist(),
                "stages": [
                    _stage_data(f"stage {number}", maps)
                    for number, maps in enumerate(person.stages, 1)
                ],
            }
            for i, person in enumerate(picture.people, 1)
        ],
    }


def _stage_data(title: str, maps: Maps) -> dict[str, Any]:
    """The maps of a stage, one below the other in a picture of grey levels: 0 to the stage's
    highest belief; the background has a scale of its own."""
    import cv2

    parts, background = maps[:-1], maps[-1:]
    levels = [np.clip(some / max(float(some.max()), 1e-6), 0, 1) for some in (parts, background)]
    grey = np.concatenate(levels).reshape(-1, maps.shape[-1])
    encoded = cv2.imencode(".png", (grey * 255).round().astype(np.uint8))[1]
    best = maps.reshape(len(maps), -1).max(1)
    return {"title": title, "source": _url("png", encoded), "best": best.round(4).tolist()}


def _url(kind: str, content: npt.NDArray[np.uint8]) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def viewer(
    pictures: Sequence[dict[str, Any]], skeletal: Skeleton, *, keys_of_page: bool = False
) -> str:
    """The viewer's markup with its data, for a page that has :func:`style` and :func:`script`.

    Parameters
    ----------
    pictures : of :func:`picture_data`.
    keys_of_page : whether keys that are pressed anywhere in the page move this viewer.
    """
    colours = [as_hex(colour) for colour in limb_colours(skeletal)]
    data = {
        "parts": [*skeletal.parts, "background"],
        "lines": [  # both ends, colour, width
            *([*pair, as_hex(TORSO), 0.6] for pair in skeletal.torso),
            *([*limb, colour, 1.3] for limb, colour in zip(skeletal.limbs, colours, strict=True)),
        ],
        "pictures": list(pictures),
    }
    text = json.dumps(data).replace(
        "<", "\\u003c"
    )  # nothing in it is markup: names may be anything
    return Template(_file("viewer.html")).substitute(
        data=text, keys="page" if keys_of_page else "own"
    )


def style() -> str:
    """The viewer's style sheet."""
    return _file("viewer.css")


def script() -> str:
    """The viewer's program; it starts every viewer that stands before it in the page."""
    return _file("viewer.js")


def write_page(
    path: Path, title: str, about: str, pictures: Sequence[dict[str, Any]], skeletal: Skeleton
) -> None:
    """Write the page, whole or not at all."""
    text = Template(_file("viewer_page.html")).substitute(
        title=html.escape(title),
        about=html.escape(about),
        style=style(),
        script=script(),
        viewer=viewer(pictures, skeletal, keys_of_page=True),
    )
    with atomic_write(path) as stream:
        stream.write(text.encode())


def _file(name: str) -> str:
    return (resources.files("reproduce.drawing") / name).read_text(encoding="utf-8")
