"""Where people are in photographs, by the heads and necks that a pose network's first stage sees.

The first stage looks at small neighbourhoods and knows no centre map, so its maps show the parts of
everybody in a photograph. A head above a neck at the distance that belongs to the photograph's size
is somebody: the line between them tells which way the body goes, and how large it is.

Its constants were chosen with ``tools/measure_detection.py``, which says how many people of
photographs with annotations are found, and how many OpenCV's detector finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from reproduce.network.structure import find_machine
from reproduce.predict.boxes import UNIT_HEIGHT
from reproduce.predict.person_finder import PeopleFound, peaks_of
from reproduce.predict.protocol import Standing
from reproduce.predict.whole_image import STRIDE, belief_maps, padded
from reproduce.runtime.plain_opencv import resize_cv

if TYPE_CHECKING:
    from caffe_compat.network.net import Net

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
Point = tuple[float, float]

THRESHOLD = 0.35  # the mean belief in a head and its neck that makes somebody

# Heights of people that are looked for, in multiples of the photograph's larger side.
_LARGEST, _STEP, _LEVELS = 1.6, 1.26, 9
# A person of this share of the network's input is what the search takes for the right size.
_SHARE = 0.8
# Leeds people are 7 times as high as the way from the neck to the top of the head.
_HEADS = 7.0
# How far that way may be, in multiples of what belongs to a person of the right size.
_SHORTEST, _LONGEST = 0.6, 1.6
# The belief is highest in photographs that are somewhat too large for the person.
_TALLER = 1.25
# From the neck to the middle of the body, in heights.
_TO_CENTRE = 0.35
_WEAKEST = 0.15  # peaks below are not looked at
_CLOSE = 0.2  # necks nearer than this share of the height are one person
_ENLARGED = 4  # the maps are searched at a quarter of a cell
_LEAST = 24  # pixels of the shorter side of a photograph that is looked at


@dataclass(frozen=True)
class _Found:
    """Somebody at one size of the photograph.

    Attributes
    ----------
    belief : mean of the head's and the neck's.
    neck : x, y in pixels of the photograph.
    standing : the person.
    """

    belief: float
    neck: Point
    standing: Standing


class HeadFinder:
    """Finds people with the pose network itself.

    Parameters
    ----------
    net : the pose network; one of its parts is a head, one a neck.
    boxsize : height of the network's input, pixels.
    parts : names of its parts.
    threshold : mean belief in a head and its neck above which they are somebody.

    Raises
    ------
    CaffeCompatError : a network without a head and a neck.
    """

    def __init__(
        self, net: Net, boxsize: int, parts: Sequence[str], *, threshold: float = THRESHOLD
    ) -> None:
        machine = find_machine(net.graph)
        if machine is None or not {"head", "neck"} <= set(parts):
            raise CaffeCompatError(
                "the network has no head and neck among its parts; people are found by OpenCV's "
                "detector (--detect hog) or by a person network (--detect person)"
            )
        self.net = net
        self.boxsize = boxsize
        self.threshold = threshold
        self._image = machine.image
        self._maps = machine.outputs[0]
        self._head, self._neck = parts.index("head"), parts.index("neck")

    def search(self, image: Image) -> PeopleFound:
        """People of all sizes, the surest first; the belief in heads and necks, at the size of the
        map in which it was highest.

        Parameters
        ----------
        image : (H, W, 3) uint8 B, G, R.
        """
        found: list[_Found] = []
        beliefs: list[Maps] = []
        largest = max(image.shape[:2])
        for level in range(_LEVELS):
            height = _LARGEST * largest / _STEP**level
            scale = _SHARE * self.boxsize / height
            if min(image.shape[:2]) * scale < _LEAST:
                continue
            maps = self._maps_at(image, scale)
            beliefs.append(maps.max(axis=0))
            found += self._people(maps, scale, height)
        people = tuple(person.standing for person in _surest(found))
        return PeopleFound(people, _surest_belief(beliefs))

    def _maps_at(self, image: Image, scale: float) -> Maps:
        """Enlarged maps (2, h, w) of heads and necks in the photograph at one size."""
        import cv2

        scaled = resize_cv(image, scale)
        small = belief_maps(self.net, self._image, self._maps, padded(scaled))
        rows, columns = (-(-side * _ENLARGED // STRIDE) for side in scaled.shape[:2])
        wide = [
            cv2.resize(
                small[part], None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC
            )[:rows, :columns]
            for part in (self._head, self._neck)
        ]
        return np.asarray(wide, np.float32)

    def _people(self, maps: Maps, scale: float, height: float) -> list[_Found]:
        """Each neck with its surest head, where both are believed in."""
        heads, necks = (peaks_of(one, _WEAKEST) for one in maps)
        if not len(heads):
            return []
        cell = STRIDE / _ENLARGED
        expected = _SHARE * self.boxsize / _HEADS / cell
        found = []
        for x, y in necks:
            way = np.hypot(heads[:, 0] - x, heads[:, 1] - y)
            fits = heads[(way > _SHORTEST * expected) & (way < _LONGEST * expected)]
            if not len(fits):
                continue
            beliefs = maps[0, fits[:, 1], fits[:, 0]]
            head = fits[int(np.argmax(beliefs))]
            belief = float(beliefs.max() + maps[1, y, x]) / 2
            if belief <= self.threshold:
                continue
            down = np.array([x, y]) - head
            length = float(np.hypot(*down)) * cell / scale
            neck = (np.array([x, y]) + 0.5) * cell / scale - 0.5
            size = _TALLER * float(np.sqrt(height * _HEADS * length))
            centre = neck + down / np.hypot(*down) * _TO_CENTRE * size
            standing = Standing((float(centre[0]), float(centre[1])), size / UNIT_HEIGHT, belief)
            found.append(_Found(belief, (float(neck[0]), float(neck[1])), standing))
        return found


def _surest(found: list[_Found]) -> list[_Found]:
    """Of people with one neck the surest, the surest first."""
    kept: list[_Found] = []
    for person in sorted(found, key=lambda one: -one.belief):
        if all(
            np.hypot(person.neck[0] - other.neck[0], person.neck[1] - other.neck[1])
            > _CLOSE * UNIT_HEIGHT * min(person.standing.scale, other.standing.scale)
            for other in kept
        ):
            kept.append(person)
    return kept


def _surest_belief(beliefs: list[Maps]) -> Maps:
    """The map with the highest belief; one cell of nothing where no size was looked at."""
    if not beliefs:
        return np.zeros((1, 1), np.float32)
    return max(beliefs, key=lambda one: float(one.max()))
