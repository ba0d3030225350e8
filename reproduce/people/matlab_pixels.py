"""The one place that knows that MATLAB counts pixels from 1.

Everything in this package counts from 0: pixel (0, 0) is the top left one, as for numpy and OpenCV.
The data sets' files, the authors' JSON and LMDB, and result files count from 1. Their readers call
:func:`from_matlab` last and their writers :func:`to_matlab` first, so that nobody between them has
to know. (The testing protocol's formulas are MATLAB's and count from 1 inside
:mod:`reproduce.predict.protocol`.)

For a coordinate of 1 or more both steps are exact in double precision: what was read is written
back bit by bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Files mark a joint that nobody annotated by (0, 0). Counted from 0 that is this:
ABSENT = -1.0


def from_matlab(points: npt.ArrayLike) -> Floats:
    """Points of a file, counted from 1, as 0-based pixels.

    Parameters
    ----------
    points : (..., 2) x, y or (..., 3) x, y, visible (or score), which stays.
    """
    return _moved(points, -1.0)


def to_matlab(points: npt.ArrayLike) -> Floats:
    """Points in 0-based pixels as a file counts them, from 1; see :func:`from_matlab`."""
    return _moved(points, 1.0)


def _moved(points: npt.ArrayLike, by: float) -> Floats:
    moved = np.array(points, np.float64)
    moved[..., :2] += by
    return moved


def annotated(joints: Floats) -> npt.NDArray[np.bool_]:
    """Which of some joints (J, 2 or 3) in 0-based pixels somebody annotated, (J,)."""
    return np.asarray((joints[:, :2] != ABSENT).any(1))
