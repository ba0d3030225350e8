"""What is tested how: a person in an image becomes the network's inputs, in this process or in a
worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from reproduce.predict.boxes import UNIT_HEIGHT, Box, detect_people
from reproduce.predict.protocol import (
    SEARCH,
    Prepared,
    Setting,
    Task,
    shrink,
    task_demo,
    task_flic,
    task_lsp,
    task_mpi,
)
from reproduce.records.store import read_image

Image = npt.NDArray[np.uint8]
Protocol = Literal["demo", "lsp", "flic", "mpi"]


@dataclass(frozen=True)
class How:
    """The testing protocol.

    Attributes
    ----------
    setting : of the network. protocol : "demo" (box around the person), "lsp" (whole image, no
        box), "flic" (torso box), "mpi" (box of the annotated centre and 200 × scale).
    search : multiples of the protocol's own scale; None: the protocol's.
    detect : take the boxes that OpenCV's people detector gives.
    """

    setting: Setting
    protocol: Protocol = "demo"
    search: tuple[float, ...] | None = None
    detect: bool = False

    def task(self, rgb: Image, box: Box | None) -> Task:
        """One person (R, G, B image; box in 0-based pixels, None = the whole image).

        Raises
        ------
        CaffeCompatError : a box that is missing, not wanted, or outside the image.
        """
        height, width = rgb.shape[:2]
        search = self.search or SEARCH
        if self.protocol == "lsp":
            if box is not None:
                raise CaffeCompatError(
                    "--protocol lsp tests the whole image, a box has no meaning in it"
                )
            return task_lsp(rgb, self.setting, search)
        if self.protocol == "demo":
            x, y, w, h = box if box is not None else (0.0, 0.0, float(width), float(height))
            return task_demo(rgb, (x + 1, y + 1, w, h), self.setting, search=self.search)
        if box is None:
            what = "the torso's box" if self.protocol == "flic" else "a box around the person"
            raise CaffeCompatError(f"--protocol {self.protocol} needs {what} (--box or --boxes)")
        x, y, w, h = box
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise CaffeCompatError(
                f"box {box}: no part of it lies inside the {width}×{height} image"
            )
        if self.protocol == "flic":
            return task_flic(rgb, (x + 1, y + 1, x + 1 + w, y + 1 + h), self.setting, search)
        return task_mpi(rgb, (x + 1 + w / 2, y + 1 + h / 2), h / UNIT_HEIGHT, self.setting, search)


@dataclass(frozen=True)
class Request:
    """An image to test.

    Attributes
    ----------
    name : for messages. image : file, or (H, W, 3) uint8 B, G, R.
    boxes : of its people; None: the detector's, else the whole image.
    keep : give the image back with the result.
    """

    name: str
    image: Path | Image
    boxes: tuple[Box, ...] | None
    how: How
    keep: bool = True


@dataclass(frozen=True)
class Loaded:
    """An image ready for the network.

    Attributes
    ----------
    image : B, G, R, or None if it was not asked for. size : width, height.
    boxes : of its people (None: whole image). people : their inputs. note : something to tell.
    """

    image: Image | None
    size: tuple[int, int]
    boxes: tuple[Box | None, ...]
    people: tuple[Prepared, ...]
    note: str = ""


def load(request: Request) -> Loaded | str:
    """Decode and resize; the message of what is wrong with it otherwise. For worker processes."""
    try:
        image = (
            read_image(request.image, upright=True)
            if isinstance(request.image, Path)
            else request.image
        )
        boxes: tuple[Box | None, ...] = request.boxes if request.boxes is not None else (None,)
        note = ""
        if request.boxes is None and request.how.detect:
            found = detect_people(image)
            boxes = tuple(found) if found else (None,)
            note = (
                f"{request.name}: no person detected, the whole image was taken"
                if not found
                else ""
            )
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        people = tuple(shrink(request.how.task(rgb, box), request.how.setting) for box in boxes)
        return Loaded(
            image if request.keep else None, (image.shape[1], image.shape[0]), boxes, people, note
        )
    except CaffeCompatError as error:
        text = str(error)
        return text if text.startswith(request.name) else f"{request.name}: {text}"
    except ValueError as error:  # a resized image without pixels
        return f"{request.name}: {error}"


@dataclass(frozen=True)
class TestPerson:
    """A person of a data set's test images, by the data set's own centre and scale."""

    __test__ = False  # pytest: no test class

    image: Path
    protocol: Protocol
    box: tuple[float, float, float, float] | None
    objpos: tuple[float, float] | None
    scale: float
    setting: Setting
    search: tuple[float, ...]


def load_person(person: TestPerson) -> Prepared | str:
    """Decode and resize a test image (its pixels as stored); the message of what is wrong
    otherwise."""
    try:
        rgb = np.ascontiguousarray(read_image(person.image)[:, :, ::-1])
    except CaffeCompatError as error:
        return str(error)
    if person.protocol == "lsp":
        task = task_lsp(rgb, person.setting, person.search)
    elif person.protocol == "flic":
        assert person.box is not None
        task = task_flic(rgb, person.box, person.setting, person.search)
    else:
        assert person.objpos is not None
        task = task_mpi(rgb, person.objpos, person.scale, person.setting, person.search)
    return shrink(task, person.setting)
