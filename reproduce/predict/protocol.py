"""The original testing protocols: where a person is looked for, and at which scales.

The release has three kinds. A *benchmark* (LSP, FLIC, MPII) tests seven scales about the size that
the data set annotates and sums the last stage's belief maps. The MATLAB *demo* takes a rectangle
around the person, tests six scales an octave, and averages the belief maps of every stage. The
*Python* demo makes every image as high as the network's input and looks at the people whom the
person network finds in it, at that one scale.

A :class:`Protocol` is chosen once, when the network is loaded, and everything after it reads it:
:mod:`reproduce.predict.inputs` (the scaled inputs), :mod:`reproduce.predict.belief` (the way back)
and :mod:`reproduce.predict.predictor`.

Pixels count from 0 everywhere but inside this module's formulas: the release is MATLAB, which
counts from 1, so a :class:`Placement` keeps MATLAB's centre.

Source: ``applyModel.m``, ``run_benchmark.m`` and the Python notebook of the CPM release (formulas;
recorded intermediate values).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from caffe_compat.errors import CaffeCompatError
from reproduce.predict.boxes import UNIT_HEIGHT, Box, checked_box

Combination = Literal["benchmark", "demo", "python"]
Size = tuple[int, int]  # rows and columns of an image

SEARCH = tuple(0.7 + 0.1 * i for i in range(7))
RELEASED_BOXSIZE = 368
RELEASED_SIGMA = 21.0
TARGET_DIST = 41 / 35
# Smallest and largest size of the demo's rectangle, in multiples of the network's input.
FIRST_DEMO_RANGE = (0.8, 3.0)


@dataclass(frozen=True)
class Standing:
    """Where a data set says that somebody stands.

    Attributes
    ----------
    center : x, y of the body's middle, 0-based pixels.
    scale : the person's height in units of 200 pixels.
    confidence : of the network that found the person; None where a data set or somebody says so.
    """

    center: tuple[float, float]
    scale: float
    confidence: float | None = None

    @property
    def box(self) -> Box:
        """The square of the person's height around the middle."""
        side = UNIT_HEIGHT * self.scale
        return self.center[0] - side / 2, self.center[1] - side / 2, side, side


# A person in an image: a box, a data set's annotation, or nothing (the whole image is the person).
Person = Box | Standing | None


@dataclass(frozen=True)
class Placement:
    """What the network looks at.

    Attributes
    ----------
    center : x, y of the pixel that comes to the input's middle, **1-based** as MATLAB counts.
    scales : factors that the image is resized by, one network input each.
    """

    center: tuple[float, float]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Protocol:
    """How a network is tested.

    Attributes
    ----------
    place : ``place(protocol, size, person)`` gives a person's :class:`Placement`; a function of a
        module, so that worker processes find it.
    combination : "benchmark" (the last stage's maps, summed over the scales), "demo" (every
        stage's maps, averaged) or "python" (the last stage's maps of one scale, enlarged and
        searched in the crop, by OpenCV).
    search : multiples of the protocol's own scale; empty: ``octave`` scales an octave.
    octave : scales an octave, where ``search`` is empty.
    demo_range : smallest and largest size of the demo's rectangle, in multiples of the input, where
        ``search`` is empty; None: what belongs to the network, or the demo's first state.
    boxsize : height and width of the network's input, pixels.
    sigma : standard deviation of the centre map, pixels of the network's input.
    target_dist : scale that the network was trained to see people at (1: 200 pixels high).
    upright : whether a photograph is turned as its EXIF data say; data sets are annotated on the
        pixels as stored.
    needs : what must be known of a person, in words; "" where the whole image will do.
    """

    place: Callable[[Protocol, Size, Person], Placement]
    combination: Combination = "benchmark"
    search: tuple[float, ...] = SEARCH
    octave: float = 6.0
    demo_range: tuple[float, float] | None = None
    boxsize: int = RELEASED_BOXSIZE
    sigma: float = RELEASED_SIGMA
    target_dist: float = TARGET_DIST
    upright: bool = True
    needs: str = ""

    def at(self, boxsize: int) -> Protocol:
        """This protocol for a network of another input size, everything shrunk alike."""
        ratio = boxsize / self.boxsize
        return replace(
            self, boxsize=boxsize, sigma=self.sigma * ratio, target_dist=self.target_dist * ratio
        )

    def searching(self, search: tuple[float, ...] | None) -> Protocol:
        """This protocol with other multiples of its scale; None leaves it as it is."""
        return self if search is None else replace(self, search=search)

    def ranging(self, demo_range: tuple[float, float] | None, octave: float | None) -> Protocol:
        """This protocol with another range of the demo's sizes and other steps; None leaves it as
        it is."""
        return replace(self, demo_range=demo_range or self.demo_range, octave=octave or self.octave)

    def placement(self, size: Size, person: Person) -> Placement:
        """What the network looks at for a person in an image of ``size`` (rows, columns).

        Raises
        ------
        CaffeCompatError : a box that is missing, not wanted, or outside the image.
        """
        if isinstance(person, Standing):
            center_x, center_y = person.center
            if not (1e-3 < person.scale < 1e4 and abs(center_x) < 1e7 and abs(center_y) < 1e7):
                raise CaffeCompatError(
                    f"a person at {person.center} of scale {person.scale:g}: the annotation is "
                    "damaged"
                )
        elif person is not None:
            person = checked_box(person)
        return self.place(self, size, person)


def place_whole_image(protocol: Protocol, size: Size, person: Person) -> Placement:
    """LSP: the image's centre and height; the person fills the image. Of somebody who was found in
    the image, the own centre and height.

    Raises
    ------
    CaffeCompatError : a box is given.
    """
    if isinstance(person, Standing):
        return place_annotated(protocol, size, person)
    if person is not None:
        raise CaffeCompatError("--protocol lsp tests the whole image, a box has no meaning in it")
    height, width = size
    scale = 0.8 / (height / protocol.boxsize)
    return Placement((width / 2, height / 2), tuple(scale * s for s in protocol.search))


def place_torso(protocol: Protocol, size: Size, person: Person) -> Placement:
    """FLIC: from the torso's box, in single precision (the data set's file holds float32, and so
    does what MATLAB makes of it). Of somebody who was found in the image, from centre and height.

    Raises
    ------
    CaffeCompatError : no box, or one outside the image.
    """
    if isinstance(person, Standing):
        return place_annotated(protocol, size, person)
    if not isinstance(person, tuple):
        raise CaffeCompatError("--protocol flic needs the torso's box (--box or --boxes)")
    _check_inside(person, size)
    x, y, width, height = person
    left, top, right, bottom = np.asarray((x + 1, y + 1, x + 1 + width, y + 1 + height), np.float32)
    scale = np.float32(protocol.target_dist) / (np.float32(0.0110) * (bottom - top))
    center_x = (left + right) / np.float32(2)
    center_y = np.float32(0.7) * top + np.float32(0.3) * bottom
    scales = tuple(float(scale * np.float32(s)) for s in protocol.search)
    return Placement((float(center_x), float(center_y)), scales)


def place_annotated(protocol: Protocol, size: Size, person: Person) -> Placement:
    """MPII: the annotated centre and scale, or the square of 200 scales around the centre.

    Raises
    ------
    CaffeCompatError : neither, or a box outside the image.
    """
    if person is None:
        raise CaffeCompatError("--protocol mpi needs a box around the person (--box or --boxes)")
    if isinstance(person, Standing):
        center_x, center_y = person.center
        scale = person.scale
    else:
        _check_inside(person, size)
        x, y, width, height = person
        center_x, center_y = x + width / 2, y + height / 2
        scale = height / UNIT_HEIGHT
    scales = tuple(protocol.target_dist / scale * s for s in protocol.search)
    return Placement((center_x + 1, center_y + 1), scales)


def place_rectangle(protocol: Protocol, size: Size, person: Person) -> Placement:
    """The demo: a rectangle around the person; none is the whole image.

    Without ``search`` the scales run from a third to 1 / 0.8 of the one that makes the person fill
    the input, ``octave`` of them an octave; ``demo_range`` takes the place of 3 and 0.8. Somebody
    who was found in the image stands in the square of the own height.

    Raises
    ------
    CaffeCompatError : the rectangle has no area inside the image.
    """
    height, width = size
    if isinstance(person, Standing):
        person = person.box
    box = person if person is not None else (0.0, 0.0, float(width), float(height))
    x0, y0 = max(box[0] + 1, 1.0), max(box[1] + 1, 1.0)
    x1, y1 = min(box[0] + 1 + box[2], width), min(box[1] + 1 + box[3], height)
    if not (x1 > x0 and y1 > y0):
        raise CaffeCompatError(f"box {box}: no part of it lies inside the {width}×{height} image")
    ratio = (y1 - y0) / height * 1.2
    scales: tuple[float, ...]
    if protocol.search:
        scales = tuple(s * protocol.boxsize / (ratio * height) for s in protocol.search)
    else:
        least, most = protocol.demo_range or FIRST_DEMO_RANGE
        start, stop = (math.log2(protocol.boxsize / (m * ratio * height)) for m in (most, least))
        scales = tuple(2.0**e for e in colon(start, 1 / protocol.octave, stop))
    return Placement(((x0 + x1) / 2, (y0 + y1) / 2), scales)


def place_peak(protocol: Protocol, size: Size, person: Person) -> Placement:
    """The Python demo: the image as high as the network's input, the person's centre in the
    middle, on the pixel that counts half the input from 0. Somebody who was found may stand in the
    padding around the image, as in the original.

    Raises
    ------
    CaffeCompatError : a box outside the image.
    """
    height, width = size
    if isinstance(person, Standing):
        x, y = person.center
    else:
        box = person if person is not None else (0.0, 0.0, float(width), float(height))
        _check_inside(box, size)
        x, y = box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2
    scale = protocol.boxsize / height
    # Resizing scales distances from the image's corner. The middle of a pixel is half a pixel from
    # it, in the image and in the resized image alike.
    center = ((x + 0.5) * scale - 0.5) / scale, ((y + 0.5) * scale - 0.5) / scale
    return Placement(center, (scale,))


def _check_inside(box: Box, size: Size) -> None:
    height, width = size
    x, y, w, h = box
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise CaffeCompatError(f"box {box}: no part of it lies inside the {width}×{height} image")


def matlab_round(value: float) -> int:
    """MATLAB's round: halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def colon(first: float, step: float, last: float) -> tuple[float, ...]:
    """MATLAB's ``first:step:last``."""
    count = math.floor((last - first) / step * (1 + np.finfo(np.float64).eps)) + 1
    return tuple(first + i * step for i in range(max(0, count)))


DEMO = Protocol(place_rectangle, "demo", search=())
PYTHON_DEMO = Protocol(place_peak, "python")
# A look at people whom a search proposes: at the size that the network was trained for, by OpenCV,
# which finds the joints without maps of the image's size.
QUICK = Protocol(place_annotated, "python", search=(1.0,))
# The protocols by the names that ``cpm-predict --protocol`` takes.
PROTOCOLS: dict[str, Protocol] = {
    "demo": DEMO,
    "lsp": Protocol(place_whole_image),
    "flic": Protocol(place_torso, needs="the torso's box"),
    "mpi": Protocol(place_annotated, needs="a box around the person"),
    "python": PYTHON_DEMO,
}
