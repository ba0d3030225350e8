"""What a pose machine says of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Joints of one person.

    Attributes
    ----------
    joints : (P, 2) x, y in 0-based pixels of the image, in the network's part order.
    scores : (P,) the belief maps' value there; the benchmark's sum is divided by the number of
        scales.
    maps : belief maps in the image: benchmark (1, P + 1, H, W) summed over the scales, demo
        (stages, P + 1, H, W) averaged; None where they were not asked for.
    small : the belief maps of every stage reduced for a picture, (stages, P + 1, h, w), averaged
        over the scales; None where they were not asked for.
    """

    joints: Floats
    scores: Floats
    maps: Maps | None = None
    small: Maps | None = None
