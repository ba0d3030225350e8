"""PCK and its kin: how often a predicted joint lies within a fraction of a person's size.

Predictions and truth are in 0-based pixels.

Source: the evaluation code of the CPM release and of the data sets' kits (recorded tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError

Floats = npt.NDArray[np.float64]

NARROW_THRESHOLDS = np.arange(21) / 100
WIDE_THRESHOLDS = np.arange(51) / 100


@dataclass(frozen=True)
class EvalResult:
    """A curve per joint and in total.

    Attributes
    ----------
    thresholds : (T,) fractions of the reference length.
    per_joint : (T, J) percent.
    total : (T,) percent over all counted joints.
    counted : (J,) how many joints were scored.
    hits : (T, J) how many were within the threshold.
    names : of the joints (or limbs).
    unmeasured : people of whose truth the reference length is missing; none of their joints is
        counted.
    placeless : counted joints (or limbs) that were predicted nowhere (nan, infinite): misses.
    """

    thresholds: Floats
    per_joint: Floats
    total: Floats
    counted: npt.NDArray[np.int64]
    hits: npt.NDArray[np.int64]
    names: tuple[str, ...]
    unmeasured: int = 0
    placeless: int = 0

    @property
    def auc(self) -> float:
        """Area under the total curve, in percent of the largest possible.

        Raises
        ------
        CaffeCompatError : a single threshold, which makes no curve.
        """
        return self._area(self.total)

    def auc_of(self, joints: Sequence[str]) -> float:
        """Area under the :meth:`curve` of some joints, in percent of the largest possible.

        Raises
        ------
        CaffeCompatError : a single threshold, which makes no curve.
        """
        return self._area(self.curve(joints))

    def _area(self, curve: Floats) -> float:
        span = self.thresholds[-1] - self.thresholds[0]
        if not span:
            raise CaffeCompatError("one threshold has no area under its curve: score at several")
        # numpy's own function is called trapz before numpy 2
        middles = (curve[1:] + curve[:-1]) / 2
        return float((np.diff(self.thresholds) * middles).sum() / span)

    def at(self, threshold: float) -> int:
        """Index of a threshold.

        Raises
        ------
        CaffeCompatError : not one of them.
        """
        found = np.flatnonzero(np.isclose(self.thresholds, threshold))
        if not len(found):
            raise CaffeCompatError(f"threshold {threshold} was not evaluated")
        return int(found[0])

    def has(self, joints: Sequence[str]) -> bool:
        """Were all of these joints scored?"""
        return set(joints) <= set(self.names)

    def curve(self, joints: Sequence[str]) -> Floats:
        """Mean percentage of some joints at every threshold, (T,)."""
        columns = [self.names.index(joint) for joint in joints]
        return np.asarray(self.per_joint[:, columns].mean(1), np.float64)

    def group(self, joints: Sequence[str], threshold: float) -> float:
        """Mean percentage of some joints at a threshold."""
        return float(self.curve(joints)[self.at(threshold)])


def pck(
    prediction: Floats,
    truth: Floats,
    reference: Floats,
    names: Sequence[str],
    thresholds: Floats = NARROW_THRESHOLDS,
) -> EvalResult:
    """Percentage of correct key points: ``error / reference <= threshold``.

    >>> truth = np.array([[[10.0, 10.0], [50.0, 90.0]]])  # one person, two joints
    >>> found = truth + [[[3.0, 4.0], [0.0, 25.0]]]  # off by 5 and by 25 pixels
    >>> result = pck(found, truth, np.array([100.0]), ["head", "ankle"], np.array([0.1, 0.3]))
    >>> result.total.tolist()
    [50.0, 100.0]

    Parameters
    ----------
    prediction, truth : (N, J, 2). Joints whose truth is nan are not counted; a nan prediction is a
        miss.
    reference : (N,) length of each person; where it is nan or 0, every joint is a miss.
    names : of the J joints.

    Raises
    ------
    CaffeCompatError : arrays of different sizes.
    """
    if prediction.shape != truth.shape or len(reference) != len(truth):
        sizes = f"{prediction.shape}, truth {truth.shape} and references {reference.shape}"
        raise CaffeCompatError(f"predictions {sizes} differ in size")
    ratio, counted = _ratios(prediction, truth, reference)
    hits = np.stack([((ratio <= t) & counted).sum(0) for t in thresholds])
    number = counted.sum(0)
    with np.errstate(invalid="ignore"):
        per_joint = 100 * hits / number
    total = 100 * hits.sum(1) / max(1, int(number.sum()))
    placeless = int((counted & ~np.isfinite(prediction).all(2)).sum())
    grid = np.asarray(thresholds, np.float64)
    return EvalResult(grid, per_joint, total, number, hits, tuple(names), placeless=placeless)


def _ratios(
    prediction: Floats, truth: Floats, reference: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Error over reference length (N, J), and which joints count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.linalg.norm(prediction - truth, axis=2) / reference[:, None]
    return ratio, np.asarray(np.isfinite(truth).all(2))


def hits_of_people(
    prediction: Floats, truth: Floats, reference: Floats, threshold: float
) -> npt.NDArray[np.int64]:
    """How many joints of each person are within the threshold (N,); see :func:`pck`."""
    ratio, counted = _ratios(prediction, truth, reference)
    return np.asarray(((ratio <= threshold) & counted).sum(1), np.int64)


@dataclass(frozen=True)
class Stick:
    """A limb that strict PCP scores.

    Attributes
    ----------
    name : as tables show it.
    first, second : joints whose middle is the limb's end.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]


def pcp(
    prediction: Floats,
    truth: Floats,
    names: Sequence[str],
    sticks: Sequence[Stick],
    thresholds: Floats = WIDE_THRESHOLDS,
) -> EvalResult:
    """Strict PCP: both ends of a stick within ``threshold × length`` of the true stick's.

    Parameters
    ----------
    prediction, truth : (N, J, 2). A stick whose truth has a nan is not counted; one whose ends are
        a single point is a miss, as in the comparison kit.
    names : of the J joints.

    Returns
    -------
    The curve of each stick, nan of one that nobody has; in total the mean of the others.
    """
    found, placeless = [], 0
    for stick in sticks:
        first = [names.index(joint) for joint in stick.first]
        second = [names.index(joint) for joint in stick.second]
        true_first, true_second = truth[:, first].mean(1), truth[:, second].mean(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            miss_first = np.linalg.norm(prediction[:, first].mean(1) - true_first, axis=1)
            miss_second = np.linalg.norm(prediction[:, second].mean(1) - true_second, axis=1)
            length = np.linalg.norm(true_first - true_second, axis=1)
            miss = np.maximum(miss_first, miss_second)
            worst = miss / length
        scored = np.isfinite(length)
        found.append(worst[scored])
        placeless += int((~np.isfinite(miss[scored])).sum())
    counted = np.array([len(worst) for worst in found])
    hits = np.array([[(worst <= t).sum() for worst in found] for t in thresholds])
    with np.errstate(invalid="ignore"):
        table = 100 * hits / counted
    total = table[:, counted > 0].mean(1) if counted.any() else np.full(len(table), np.nan)
    limbs = tuple(stick.name for stick in sticks)
    grid = np.asarray(thresholds, np.float64)
    return EvalResult(grid, table, total, counted, hits, limbs, placeless=placeless)
