"""One image on its way to the network, in this process or in a worker.

A :class:`Job` says which image and which people; :func:`prepare` gives it back with the network's
inputs in it, or with the error that says what is wrong. It is the only thing that travels between
processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from reproduce.predict.detection import detect_people
from reproduce.predict.inputs import ScaledInput, scale_person
from reproduce.predict.protocol import Person, Protocol
from reproduce.records.images import read_image

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Job:
    """One image and its people, before and after :func:`prepare`.

    Attributes
    ----------
    name : how messages call the image.
    image : file, or (H, W, 3) uint8 B, G, R; after :func:`prepare` the pixels, where ``keep`` is
        set, else None.
    protocol : how its people are tested.
    people : where they are; ``(None,)`` is the whole image.
    detect : take the people that OpenCV's detector sees instead; the whole image where it sees
        nobody.
    sought : others have looked for people; ``(None,)`` then says that they saw nobody.
    keep : whether the image's pixels come back.
    size : rows and columns of the image; made by :func:`prepare`.
    inputs : for each person the network's inputs, one a scale; made by :func:`prepare`.
    left_out : what is wrong with people who cannot be tested; made by :func:`prepare`, which keeps
        the others.
    error : what is wrong with this image; made by :func:`prepare`, or by who looked for people.
    """

    name: str
    image: Path | Image | None
    protocol: Protocol
    people: tuple[Person, ...] = (None,)
    detect: bool = False
    sought: bool = False
    keep: bool = False
    size: tuple[int, int] = (0, 0)
    inputs: tuple[tuple[ScaledInput, ...], ...] = ()
    left_out: tuple[str, ...] = ()
    error: CaffeCompatError | None = None

    @property
    def nobody(self) -> bool:
        """Was nobody found? (The whole image is then taken.) Not where looking failed."""
        return self.error is None and (self.detect or self.sought) and self.people == (None,)

    @property
    def pixels(self) -> Image:
        """The image, of a prepared job that keeps it.

        Raises
        ------
        CaffeCompatError : it was not kept.
        """
        if not isinstance(self.image, np.ndarray):
            raise CaffeCompatError(f"{self.name}: the image was not kept (keep=True keeps it)")
        return self.image


def prepare(job: Job) -> Job:
    """Decode, find the people, resize: the job with its inputs, or with its error. Never raises a
    :class:`CaffeCompatError`, so that one bad image does not stop the others."""
    if job.error is not None:  # of whoever looked for people in it before
        return job
    try:
        return _prepared(job)
    except CaffeCompatError as error:
        text = str(error)
        told = text if text.startswith(job.name) else f"{job.name}: {text}"
        return replace(job, image=None, error=DataError(told))
    except Exception as error:  # OpenCV and numpy raise many kinds; the other images go on
        return replace(job, image=None, error=DataError(f"{job.name}: {first_line(error)}"))


def first_line(error: BaseException) -> str:
    """What a library says about its trouble, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def check_pixels(image: npt.NDArray[Any], order: str) -> None:
    """Refuse an array that is no picture as the networks' inputs are made of.

    Parameters
    ----------
    order : of the colours that is expected, for the message.

    Raises
    ------
    CaffeCompatError : says what was given and what is expected.
    """
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return
    advice = ""
    if image.dtype.kind == "f":
        advice = "; a picture from 0 to 1 becomes one with (255 * image).round().astype(np.uint8)"
    raise CaffeCompatError(
        f"the picture is an array {image.shape} of {image.dtype}; expected (height, width, 3) of "
        f"uint8, values 0 to 255, colours {order}{advice}"
    )


def _prepared(job: Job) -> Job:
    if isinstance(job.image, Path):
        image = read_image(job.image, upright=job.protocol.upright)
    elif job.image is not None:
        image = job.image
    else:
        raise CaffeCompatError("the job has no image")
    check_pixels(image, "B, G, R")
    people = job.people
    if job.detect:
        people = tuple(detect_people(image)) or (None,)
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    size = (image.shape[0], image.shape[1])
    kept: list[Person] = []
    inputs: list[tuple[ScaledInput, ...]] = []
    left_out: list[str] = []
    for number, person in enumerate(people, 1):
        try:
            placement = job.protocol.placement(size, person)
            inputs.append(scale_person(rgb, placement, job.protocol))
            kept.append(person)
        except CaffeCompatError as error:
            left_out.append(f"person {number}: {error}" if len(people) > 1 else str(error))
    if left_out and not kept:
        raise CaffeCompatError("; ".join(left_out))
    return replace(
        job,
        image=image if job.keep else None,
        people=tuple(kept),
        size=size,
        inputs=tuple(inputs),
        left_out=tuple(left_out),
    )
