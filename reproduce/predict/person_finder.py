"""Where people are in photographs, by the person network: one map of everybody's body centre.

:meth:`PersonFinder.at_one_scale` is what the release's Python demo does: the image is made as high
as the network's input, and every peak above a half is somebody. :meth:`PersonFinder.search` goes
beyond it: several scales, of which the surest one tells each person's size, and close peaks are
one person.

Source: the Python notebook of the CPM release (steps, constants; recorded intermediate values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.lazy import lazy_import
from reproduce.predict.belief import enlarge
from reproduce.predict.boxes import UNIT_HEIGHT
from reproduce.predict.protocol import RELEASED_BOXSIZE, TARGET_DIST, Standing
from reproduce.predict.whole_image import STRIDE, belief_maps, padded
from reproduce.runtime.plain_opencv import resize_cv

if TYPE_CHECKING:
    import torch

    from caffe_compat.engine.plan import Mode
    from caffe_compat.network.net import Net
    from reproduce.network.identify import Identity
else:
    torch = lazy_import("torch")

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
Peaks = npt.NDArray[np.int64]
Point = tuple[float, float]
_Found = TypeVar("_Found")

THRESHOLD = 0.5
# Heights of the image that the search looks at, in multiples of the demo's.
PERSON_SEARCH = (0.5, 0.7, 1.0, 1.4)
_MOST_PIXELS = 1 << 23  # of a scaled image: its maps take gigabytes
_CLOSE = 0.25  # peaks nearer than this share of the person's height are one person


@dataclass(frozen=True)
class PeopleFound:
    """What the person network sees in an image.

    Attributes
    ----------
    people : centres and sizes, the surest first (at one scale: in reading order).
    belief : (h, w) the belief in a body's centre over the image; of several scales the largest.
    """

    people: tuple[Standing, ...]
    belief: Maps


class PersonFinder:
    """The person network.

    Parameters
    ----------
    net : the network. identity : its structure.
    height : what images are made high by the demo, pixels.
    threshold : beliefs above it are people.
    """

    def __init__(
        self,
        net: Net,
        identity: Identity,
        *,
        height: int = RELEASED_BOXSIZE,
        threshold: float = THRESHOLD,
        search: Sequence[float] = PERSON_SEARCH,
    ) -> None:
        self.net = net
        self.identity = identity
        self.height = height
        self.threshold = threshold
        self.search_scales = tuple(search)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        prototxt: str | None = None,
        device: str = "auto",
        engine: Mode = "auto",
        height: int = RELEASED_BOXSIZE,
        threshold: float = THRESHOLD,
        search: Sequence[float] = PERSON_SEARCH,
    ) -> PersonFinder:
        """Load any weight file that ``cpm-convert`` reads.

        Parameters
        ----------
        height : what images are made high; the pose network's input, as in the demo.

        Raises
        ------
        CaffeCompatError : no person network, or weights that do not fit.
        """
        from caffe_compat.conversion.convert import convert
        from caffe_compat.network.net import Net
        from reproduce.network.identify import identify
        from reproduce.runtime.device import choose

        made = convert(model, prototxt=prototxt)
        identity = identify(made.graph, model)
        if not identity.person:
            raise CaffeCompatError(
                f"{model}: is no person network (a pose machine with one map of body centres); it "
                f"is: {identity.text}"
            )
        net = Net(made.graph, made.weights, engine=engine).to(choose(device)).eval()
        return cls(net, identity, height=height, threshold=threshold, search=search)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def belief(self, image: Image) -> Maps:
        """The last stage's map (H / 8, W / 8) of a padded image.

        Parameters
        ----------
        image : (H, W, 3) uint8 B, G, R; multiples of 8.
        """
        last = self.identity.outputs[-1]
        (belief,) = belief_maps(self.net, self.identity.image, last, image)
        return np.asarray(belief, np.float32)

    def at_one_scale(self, image: Image) -> PeopleFound:
        """People as the Python demo finds them, in reading order; some may stand in the padding.

        Parameters
        ----------
        image : (H, W, 3) uint8 B, G, R.
        """
        people, belief = self._at_scale(image, self.height / image.shape[0])
        return PeopleFound(tuple(people), belief)

    def search(self, image: Image) -> PeopleFound:
        """People at several scales, the surest first; close ones are one.

        A peak is highest at the scale at which the person is as large as those that the network was
        trained on: that scale tells the person's size.

        Parameters
        ----------
        image : (H, W, 3) uint8 B, G, R.
        """
        people: list[Standing] = []
        beliefs: list[Maps] = []
        for multiple in self.search_scales:
            scale = multiple * self.height / image.shape[0]
            if min(image.shape[:2]) * scale < STRIDE:
                continue
            some, belief = self._at_scale(image, scale)
            people += [p for p in some if _inside(p, image)]
            beliefs.append(belief)
        return PeopleFound(tuple(merged(people)), _largest(beliefs))

    def _at_scale(self, image: Image, scale: float) -> tuple[list[Standing], Maps]:
        """People at one scale, and the belief over the image without the padding."""
        if image.shape[0] * image.shape[1] * scale**2 > _MOST_PIXELS:
            raise DataError(
                f"an image of {image.shape[1]}×{image.shape[0]} made "
                f"{round(image.shape[0] * scale)} pixels high is too wide for the person network: "
                "cut it into pieces, or give smaller --person-scales"
            )
        scaled = resize_cv(image, scale)
        wide = enlarge(self.belief(padded(scaled))[None], STRIDE)[0]
        size = TARGET_DIST * self.height / RELEASED_BOXSIZE / scale
        people = [
            Standing(
                ((float(x) + 0.5) / scale - 0.5, (float(y) + 0.5) / scale - 0.5),
                size,
                float(wide[y, x]),
            )
            for x, y in peaks_of(wide, self.threshold)
        ]
        return people, wide[: scaled.shape[0], : scaled.shape[1]]


def peaks_of(belief: Maps, threshold: float = THRESHOLD) -> Peaks:
    """Peaks (N, 2) x, y of a map, in reading order: the highest of their 3×3 pixels and above the
    threshold."""
    from scipy.ndimage import maximum_filter

    highest = maximum_filter(belief, size=3, mode="reflect")
    rows, columns = np.nonzero((belief == highest) & (belief > threshold))
    return np.stack([columns, rows], 1).astype(np.int64)


def merged(people: Sequence[Standing]) -> list[Standing]:
    """The surest of people who stand in the same place, the surest first."""
    return one_of_each(sorted(people, key=lambda person: -(person.confidence or 0.0)), _one_place)


def one_of_each(found: Iterable[_Found], same: Callable[[_Found, _Found], bool]) -> list[_Found]:
    """Of those that are the same, by ``same(one, other)``, the first."""
    kept: list[_Found] = []
    for one in found:
        if not any(same(one, other) for other in kept):
            kept.append(one)
    return kept


def distance(one: Point, other: Point) -> float:
    """Between two places, pixels."""
    return float(np.hypot(one[0] - other[0], one[1] - other[1]))


def _one_place(one: Standing, other: Standing) -> bool:
    """Do both stand in the same place?"""
    near = _CLOSE * UNIT_HEIGHT * max(one.scale, other.scale)
    return distance(one.center, other.center) <= near


def _inside(person: Standing, image: Image) -> bool:
    """Does the person's centre lie in the image, and not in the padding?"""
    x, y = person.center
    return bool(x < image.shape[1] and y < image.shape[0])


def _largest(beliefs: Sequence[Maps]) -> Maps:
    """The largest belief of several scales, at the size of the largest map."""
    import cv2

    if not beliefs:
        return np.zeros((1, 1), np.float32)
    height, width = max((one.shape for one in beliefs), key=lambda shape: shape[0])
    wide = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in beliefs]
    return np.asarray(np.max(wide, axis=0), np.float32)
