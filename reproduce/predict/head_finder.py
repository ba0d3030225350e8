"""Where people are in photographs, by the heads and necks that a pose network's first stage sees.

The first stage looks at small neighbourhoods and knows no centre map, so its maps show the parts of
everybody in a photograph. A head above a neck at the distance that belongs to the photograph's size
may be somebody: the line between them tells which way the body goes, and how large it is. The whole
network then looks at each of them once. Those whose joints it believes in are people, and where
it sees their legs, the joints tell their middle and height better than head and neck do.

Its constants were chosen with ``tools/measure_detection.py``, which says how many people of
photographs with annotations are found, and how many OpenCV's detector finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from reproduce.network.structure import find_machine
from reproduce.predict.boxes import UNIT_HEIGHT
from reproduce.predict.person_finder import (
    PeopleFound,
    Point,
    distance,
    one_of_each,
    peaks_of,
)
from reproduce.predict.prediction import Prediction
from reproduce.predict.protocol import Standing
from reproduce.predict.whole_image import STRIDE, belief_maps, padded
from reproduce.runtime.plain_opencv import resize_cv

if TYPE_CHECKING:
    from caffe_compat.network.net import Net

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
# Joints of some people of a photograph (H, W, 3) uint8 B, G, R, in their order.
Look = Callable[[Image, Sequence[Standing]], Sequence[Prediction]]

# Somebody is surer than this: the mean of the belief in head and neck and of all joints' scores.
THRESHOLD = 0.4

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
_WEAKEST = 0.15  # peaks below are no heads and no necks
_PROPOSED = 0.22  # the mean belief in a head and its neck that is worth a look
# Proposals whose necks and middles lie within these shares of the height, and whose heights within
# this factor, are one.
_LIKE_NECKS, _LIKE_MIDDLES, _LIKE_HEIGHTS = 0.1, 0.2, 1.2
_CLOSE = 0.2  # necks nearer than this share of the height are one person
_SAME = 0.125  # joints nearer than this share of the height, in the median, are one person's
_SEEN = 0.1  # joints of this score tell where the body is
_LEGS = ("Rkne", "Rank", "Lkne", "Lank")
_LEGS_SEEN = 0.3  # the mean score of legs that are in the photograph
_AROUND = 1.1  # a person's height, in multiples of the longer side of the joints' box
_TOO_SMALL = 0.25  # share of the height that head and neck tell: joints in such a box tell nothing
_ENLARGED = 4  # the maps are searched at a quarter of a cell
_LEAST = 24  # pixels of the shorter side of a photograph that is looked at


@dataclass(frozen=True)
class _Proposal:
    """Somebody who may be there, at one size of the photograph.

    Attributes
    ----------
    belief : mean of the head's and the neck's.
    neck : x, y in pixels of the photograph.
    standing : the person.
    """

    belief: float
    neck: Point
    standing: Standing


@dataclass(frozen=True)
class _Somebody:
    """Somebody whom the whole network has looked at.

    Attributes
    ----------
    neck : x, y that the first stage saw, pixels of the photograph.
    joints : (P, 2) of the whole network.
    standing : the person, with the confidence.
    """

    neck: Point
    joints: npt.NDArray[np.float64]
    standing: Standing

    @property
    def sureness(self) -> float:
        """The confidence."""
        return self.standing.confidence or 0.0

    def is_also(self, other: _Somebody) -> bool:
        """Are both the same person: one neck, or the same joints?"""
        height = UNIT_HEIGHT * min(self.standing.scale, other.standing.scale)
        joints = np.hypot(*(self.joints - other.joints).T)
        return bool(
            distance(self.neck, other.neck) <= _CLOSE * height
            or np.median(joints) <= _SAME * height
        )


class HeadFinder:
    """Finds people with the pose network itself.

    Parameters
    ----------
    net : the pose network; one of its parts is a head, one a neck.
    boxsize : height of the network's input, pixels.
    parts : names of its parts.
    look : what the whole network sees of people, quickly (:meth:`Predictor.look`).
    threshold : the confidence above which somebody is a person: the mean of the belief in head and
        neck and of the joints' mean score.

    Raises
    ------
    CaffeCompatError : a network without a head and a neck.
    """

    def __init__(
        self,
        net: Net,
        boxsize: int,
        parts: Sequence[str],
        look: Look,
        *,
        threshold: float = THRESHOLD,
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
        self._look = look
        self._image = machine.image
        self._maps = machine.outputs[0]
        self._head, self._neck = parts.index("head"), parts.index("neck")
        self._legs = [number for number, part in enumerate(parts) if part in _LEGS]

    def search(self, image: Image) -> PeopleFound:
        """People of all sizes, the surest first; the belief in heads and necks, at the size of the
        map in which it was highest.

        Parameters
        ----------
        image : (H, W, 3) uint8 B, G, R.
        """
        proposals: list[_Proposal] = []
        beliefs: list[Maps] = []
        largest = max(image.shape[:2])
        for level in range(_LEVELS):
            height = _LARGEST * largest / _STEP**level
            scale = _SHARE * self.boxsize / height
            if min(image.shape[:2]) * scale < _LEAST:
                continue
            maps = self._maps_at(image, scale)
            beliefs.append(maps.max(axis=0))
            proposals += self._proposals(maps, scale, height)
        worth = _unlike(proposals)
        seen = self._look(image, [proposal.standing for proposal in worth])
        judged = [self._judged(*both) for both in zip(worth, seen, strict=True)]
        people = _surest(judged, self.threshold)
        return PeopleFound(tuple(people), _surest_belief(beliefs))

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

    def _proposals(self, maps: Maps, scale: float, height: float) -> list[_Proposal]:
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
            if belief <= _PROPOSED:
                continue
            down = np.array([x, y]) - head
            length = float(np.hypot(*down)) * cell / scale
            neck = (np.array([x, y]) + 0.5) * cell / scale - 0.5
            size = _TALLER * float(np.sqrt(height * _HEADS * length))
            centre = neck + down / np.hypot(*down) * _TO_CENTRE * size
            standing = Standing((float(centre[0]), float(centre[1])), size / UNIT_HEIGHT)
            found.append(_Proposal(belief, (float(neck[0]), float(neck[1])), standing))
        return found

    def _judged(self, proposal: _Proposal, seen: Prediction) -> _Somebody:
        """A proposal after the whole network has looked at it."""
        confidence = (proposal.belief + float(seen.scores.mean())) / 2
        standing = replace(proposal.standing, confidence=confidence)
        if self._legs and seen.scores[self._legs].mean() > _LEGS_SEEN:
            places = seen.joints[seen.scores > _SEEN]
            low, high = places.min(0), places.max(0)
            x, y = (low + high) / 2
            height = _AROUND * float((high - low).max())
            if height > _TOO_SMALL * UNIT_HEIGHT * standing.scale:
                standing = Standing((float(x), float(y)), height / UNIT_HEIGHT, confidence)
        return _Somebody(proposal.neck, seen.joints, standing)


def _unlike(proposals: list[_Proposal]) -> list[_Proposal]:
    """Of proposals that hardly differ the one with the highest belief: a second look would show
    the same."""
    return one_of_each(sorted(proposals, key=lambda one: -one.belief), _alike)


def _alike(one: _Proposal, other: _Proposal) -> bool:
    """Do neck, middle and height of both hardly differ?"""
    smaller, larger = sorted((one.standing.scale, other.standing.scale))
    height = UNIT_HEIGHT * smaller
    return (
        distance(one.neck, other.neck) <= _LIKE_NECKS * height
        and distance(one.standing.center, other.standing.center) <= _LIKE_MIDDLES * height
        and larger <= _LIKE_HEIGHTS * smaller
    )


def _surest(people: list[_Somebody], threshold: float) -> list[Standing]:
    """Those above a threshold, of one person the surest, the surest first."""
    sure = [person for person in people if person.sureness > threshold]
    sure.sort(key=lambda person: -person.sureness)
    return [person.standing for person in one_of_each(sure, _Somebody.is_also)]


def _surest_belief(beliefs: list[Maps]) -> Maps:
    """The map with the highest belief; one cell of nothing where no size was looked at."""
    if not beliefs:
        return np.zeros((1, 1), np.float32)
    return max(beliefs, key=lambda one: float(one.max()))
