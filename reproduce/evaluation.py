"""PCK and its kin: how often a predicted joint lies within a fraction of a person's size.

Coordinates of predictions and truth must count alike (both 1-based here, as the files have them).

Source: the evaluation code of the CPM release and of the data sets' kits (recorded tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError

from .skeletons import LSP_JOINTS

Floats = npt.NDArray[np.float64]

LSP_THRESHOLDS = np.arange(21) / 100
# parts of the published tables: name -> joints of the LSP order
LSP_GROUPS: dict[str, tuple[int, ...]] = {
    "head": (12, 13), "shoulder": (8, 9), "elbow": (7, 10), "wrist": (6, 11), "hip": (2, 3), "knee": (1, 4), "ankle": (0, 5),
}  # fmt: skip


@dataclass(frozen=True)
class EvalResult:
    """A curve per joint and in total.

    Attributes
    ----------
    thresholds : (T,) fractions of the reference length.
    per_joint : (T, J) percent. total : (T,) percent over all counted joints.
    counted : (J,) how many joints were scored. hits : (T, J) how many were within the threshold.
    names : of the joints.
    """

    thresholds: Floats
    per_joint: Floats
    total: Floats
    counted: npt.NDArray[np.int64]
    hits: npt.NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def auc(self) -> float:
        """Area under the total curve, in percent of the largest possible."""
        span = self.thresholds[-1] - self.thresholds[0]
        return float(np.trapezoid(self.total, self.thresholds) / span)

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

    def group(self, joints: Sequence[int], threshold: float) -> float:
        """Mean percentage of some joints at a threshold."""
        return float(self.per_joint[self.at(threshold), list(joints)].mean())


def pck(
    prediction: Floats, truth: Floats, reference: Floats, thresholds: Floats = LSP_THRESHOLDS, names: Sequence[str] = LSP_JOINTS
) -> EvalResult:
    """Percentage of correct key points: ``error / reference <= threshold``.

    Parameters
    ----------
    prediction, truth : (N, J, 2). Joints whose truth is nan are not counted; a nan prediction is a miss.
    reference : (N,) length of each person.

    Raises
    ------
    CaffeCompatError : arrays of different sizes.
    """
    if prediction.shape != truth.shape or len(reference) != len(truth):
        sizes = f"{prediction.shape}, truth {truth.shape} and references {reference.shape}"
        raise CaffeCompatError(f"predictions {sizes} differ in size")
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.linalg.norm(prediction - truth, axis=2) / reference[:, None]
    counted = np.isfinite(truth).all(2)
    hits = np.stack([((ratio <= t) & counted).sum(0) for t in thresholds])
    number = counted.sum(0)
    with np.errstate(invalid="ignore"):
        per_joint = 100 * hits / number
    total = 100 * hits.sum(1) / max(1, int(number.sum()))
    return EvalResult(np.asarray(thresholds, np.float64), per_joint, total, number, hits, tuple(names))


def lsp_reference(truth: Floats) -> Floats:
    """Left shoulder to right hip, of the truth (LSP order)."""
    return np.asarray(np.linalg.norm(truth[:, 9, :2] - truth[:, 2, :2], axis=1), np.float64)


def score_lsp(prediction: Floats, truth: Floats) -> EvalResult:
    """LSP's PCK of predictions (N, 14, 2) in LSP order, as the release scores them."""
    return pck(prediction, truth[:, :, :2], lsp_reference(truth))


def lsp_table(result: EvalResult, threshold: float = 0.2) -> dict[str, Any]:
    """The published row: head to ankle, total, and the area under the curve."""
    row: dict[str, Any] = {name: result.group(joints, threshold) for name, joints in LSP_GROUPS.items()}
    row["total"] = float(result.total[result.at(threshold)])
    row["auc"] = result.auc
    row["hits"] = int(result.hits[result.at(threshold)].sum())
    row["counted"] = int(result.counted.sum())
    return row
