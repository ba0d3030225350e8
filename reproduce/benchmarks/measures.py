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
from reproduce.people.skeletons import LSP_JOINTS

Floats = npt.NDArray[np.float64]

LSP_THRESHOLDS = np.arange(21) / 100
# parts of the published tables: name -> joints of the LSP order
LSP_GROUPS: dict[str, tuple[int, ...]] = {
    "head": (12, 13),
    "shoulder": (8, 9),
    "elbow": (7, 10),
    "wrist": (6, 11),
    "hip": (2, 3),
    "knee": (1, 4),
    "ankle": (0, 5),
}


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
    prediction: Floats,
    truth: Floats,
    reference: Floats,
    thresholds: Floats = LSP_THRESHOLDS,
    names: Sequence[str] = LSP_JOINTS,
) -> EvalResult:
    """Percentage of correct key points: ``error / reference <= threshold``.

    Parameters
    ----------
    prediction, truth : (N, J, 2). Joints whose truth is nan are not counted; a nan prediction is a
        miss.
    reference : (N,) length of each person.

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
    return EvalResult(
        np.asarray(thresholds, np.float64), per_joint, total, number, hits, tuple(names)
    )


def _ratios(
    prediction: Floats, truth: Floats, reference: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Error over reference length (N, J), and which joints count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.linalg.norm(prediction - truth, axis=2) / reference[:, None]
    return ratio, np.asarray(np.isfinite(truth).all(2))


def lsp_hits(prediction: Floats, truth: Floats, threshold: float) -> npt.NDArray[np.int64]:
    """How many joints of each person are within the threshold (N,): what paired comparisons of two
    networks need."""
    ratio, counted = _ratios(prediction, truth[:, :, :2], lsp_reference(truth))
    return np.asarray(((ratio <= threshold) & counted).sum(1), np.int64)


def lsp_reference(truth: Floats) -> Floats:
    """Left shoulder to right hip, of the truth (LSP order)."""
    return np.asarray(np.linalg.norm(truth[:, 9, :2] - truth[:, 2, :2], axis=1), np.float64)


def score_lsp(prediction: Floats, truth: Floats) -> EvalResult:
    """LSP's PCK of predictions (N, 14, 2) in LSP order, as the release scores them."""
    return pck(prediction, truth[:, :, :2], lsp_reference(truth))


def lsp_table(result: EvalResult, threshold: float = 0.2) -> dict[str, Any]:
    """The published row: head to ankle, total, and the area under the curve."""
    row: dict[str, Any] = {
        name: result.group(joints, threshold) for name, joints in LSP_GROUPS.items()
    }
    row["total"] = float(result.total[result.at(threshold)])
    row["auc"] = result.auc
    row["hits"] = int(result.hits[result.at(threshold)].sum())
    row["counted"] = int(result.counted.sum())
    return row


@dataclass(frozen=True)
class Sticks:
    """Limbs that strict PCP scores.

    Attributes
    ----------
    names : of the sticks. ends : for each the joints whose middle its two ends are.
    """

    names: tuple[str, ...]
    ends: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


STICK_NAMES = (
    "R lower leg",
    "R upper leg",
    "L upper leg",
    "L lower leg",
    "R forearm",
    "R upper arm",
    "L upper arm",
    "L forearm",
    "head",
    "torso",
)
LSP_STICKS = Sticks(
    STICK_NAMES,
    (
        ((0,), (1,)),
        ((1,), (2,)),
        ((3,), (4,)),
        ((4,), (5,)),
        ((6,), (7,)),
        ((7,), (8,)),
        ((9,), (10,)),
        ((10,), (11,)),
        ((12,), (13,)),
        ((8, 9), (2, 3)),
    ),
)
MPII_STICKS = Sticks(
    STICK_NAMES,
    (
        ((0,), (1,)),
        ((1,), (2,)),
        ((3,), (4,)),
        ((4,), (5,)),
        ((10,), (11,)),
        ((11,), (12,)),
        ((13,), (14,)),
        ((14,), (15,)),
        ((8,), (9,)),
        ((12, 13), (2, 3)),
    ),
)
FLIC_STICKS = Sticks(
    ("L upper arm", "L forearm", "R upper arm", "R forearm", "torso"),
    (((0,), (1,)), ((1,), (2,)), ((3,), (4,)), ((4,), (5,)), ((0, 3), (6, 7))),
)
WIDE_THRESHOLDS = np.arange(51) / 100
FLIC_JOINTS = (
    "Lsho",
    "Lelb",
    "Lwri",
    "Rsho",
    "Relb",
    "Rwri",
    "Lhip",
    "Rhip",
    "Leye",
    "Reye",
    "nose",
)
# of the network's nine parts, and of the comparison kit's eleven
FLIC_GROUPS: dict[str, tuple[int, ...]] = {
    "shoulder": (0, 3),
    "elbow": (1, 4),
    "wrist": (2, 5),
    "hip": (6, 7),
}
MPII_COUNTED = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9)
MPII_GROUPS: dict[str, tuple[int, ...]] = {
    "head": (8, 9),
    "shoulder": (12, 13),
    "elbow": (11, 14),
    "wrist": (10, 15),
    "hip": (2, 3),
    "knee": (1, 4),
    "ankle": (0, 5),
}


def pcp(
    prediction: Floats,
    truth: Floats,
    thresholds: Floats = WIDE_THRESHOLDS,
    sticks: Sticks = LSP_STICKS,
) -> Floats:
    """Strict PCP: both ends of a stick within ``threshold × length`` of the true stick's.

    Parameters
    ----------
    prediction, truth : (N, J, 2). A stick whose truth has a nan is not counted.

    Returns
    -------
    (T, S + 1) percent: the sticks, then their mean.
    """
    columns = []
    for first, second in sticks.ends:
        pa, pb, ga, gb = (
            points[:, list(end)].mean(1)
            for points in (prediction, truth)
            for end in (first, second)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            length = np.linalg.norm(ga - gb, axis=1)
            worst = (
                np.maximum(np.linalg.norm(pa - ga, axis=1), np.linalg.norm(pb - gb, axis=1))
                / length
            )
        known = np.isfinite(length)
        columns.append([100 * np.mean(worst[known] <= t) for t in thresholds])
    table = np.array(columns).T
    return np.concatenate([table, table.mean(1, keepdims=True)], 1)


def score_flic_kit(prediction: Floats, truth: Floats) -> EvalResult:
    """FLIC as the comparison kit scores it: by the diagonal of the torso box.

    Parameters
    ----------
    prediction : (N, 11, 2) in the order of :data:`FLIC_JOINTS`.
    truth : (N, 12, 2) observer-centric; the last row is the box's width and height.
    """
    return pck(prediction, truth[:, :11], np.linalg.norm(truth[:, 11], axis=1), names=FLIC_JOINTS)


def score_flic(prediction: Floats, truth: Floats, *, normalise: str = "truth") -> EvalResult:
    """FLIC as the CPM release scores it: by left shoulder to right hip.

    Parameters
    ----------
    prediction, truth : (N, 9, 2) in the network's order.
    normalise : "truth" (the paper's numbers) or "prediction" (what the released script does).

    Raises
    ------
    CaffeCompatError : another normalisation.
    """
    if normalise not in ("truth", "prediction"):
        raise CaffeCompatError(
            f"normalise by 'truth' (paper) or 'prediction' (released script), not '{normalise}'"
        )
    by = truth if normalise == "truth" else prediction
    reference = np.linalg.norm(by[:, 0] - by[:, 7], axis=1)
    return pck(
        prediction,
        truth,
        reference,
        names=("Lsho", "Lelb", "Lwri", "Rsho", "Relb", "Rwri", "Lhip", "Rhip", "head"),
    )


def score_mpii(
    prediction: Floats, part: Floats, head: Floats, thresholds: Floats = WIDE_THRESHOLDS
) -> EvalResult:
    """MPII's PCKh: error over 0.6 × the head box's diagonal; pelvis and thorax are not counted.

    Parameters
    ----------
    prediction, part : (N, 16, 2) in MPII order; a part at (0, 0) is not annotated.
    head : (N,) the reference lengths (``normalize`` of the validation file).
    """
    truth = np.where((part == 0).all(2, keepdims=True), np.nan, part)
    from reproduce.people.skeletons import MPII_JOINTS

    chosen = list(MPII_COUNTED)
    return pck(
        prediction[:, chosen], truth[:, chosen], head, thresholds, [MPII_JOINTS[i] for i in chosen]
    )
