"""Leeds Sports Pose and its extended training set.

Folders as they unpack: ``lsp/joints.mat`` (3, 14, 2000) with ``lsp/images/im0001.jpg`` .., and
``lspet/joints.mat`` (14, 3, 10000) with ``lspet/images/im00001.jpg`` ... (also under the original
names ``lsp_dataset``, ``lspet_dataset``). Visibility is inverted in LSP (1 = occluded) and not in
LSPET.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from reproduce.people.annotation import Annotation, Floats, counted_from_0
from reproduce.people.imagesize import image_size
from reproduce.people.matfile import load
from reproduce.people.skeletons import LSP_JOINTS, LSP_TO_MPII, MPII_JOINTS

BOXSIZE = 368
TARGET_DIST = 41 / 35
HEAD = ("head", "neck")
# The limbs whose lengths measure a person. The original script pairs the joints of the left arm and
# leg in the wrong direction (knee and hip twice, ankle and wrist with the neck); the published
# training data were made with it, so it stays.
LIMBS = (
    ("Rank", "Rkne"),
    ("Rkne", "Rhip"),
    ("Rhip", "neck"),
    ("Lhip", "Lkne"),
    ("Lkne", "Lhip"),
    ("Lank", "neck"),
    ("Rwri", "Relb"),
    ("Relb", "Rsho"),
    ("Rsho", "neck"),
    ("Lsho", "Lelb"),
    ("Lelb", "Lsho"),
    ("Lwri", "neck"),
    HEAD,
)


@dataclass(frozen=True)
class _Layout:
    """How a data set's joints.mat is laid out.

    Attributes
    ----------
    axes : (people, joints, coordinates) as axes of the array in the file.
    occluded : the third coordinate says "occluded" instead of "visible".
    """

    axes: tuple[int, int, int]
    occluded: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The first two axes of the array: joints and coordinates in the file's order."""
        joints_first = self.axes[1] == 0
        return (len(LSP_JOINTS), 3) if joints_first else (3, len(LSP_JOINTS))


_LAYOUTS = {
    "lsp": _Layout(axes=(2, 1, 0), occluded=True),
    "lspet": _Layout(axes=(2, 0, 1), occluded=False),
}


class NotThere(DataError):
    """No folder holds a Leeds data set's joints."""


def _folder(root: str | os.PathLike[str], *names: str) -> Path:
    if not os.path.isdir(root):
        raise DataError(f"{os.fspath(root)}: no such folder (--data)")
    for name in names:
        if (Path(root) / name / "joints.mat").exists():
            return Path(root) / name
    raise NotThere(
        f"{os.fspath(root)}: no folder {' or '.join(names)} with a joints.mat (Leeds Sports "
        "Pose download)"
    )


def read_joints(root: str | os.PathLike[str], which: str) -> tuple[Floats, Path]:
    """Joints (N, 14, 3) in the data set's order, visible = 1, and the folder.

    Parameters
    ----------
    which : "lsp" or "lspet".

    Raises
    ------
    DataError : the folder or its ``joints.mat`` is missing, or holds another array.
    """
    folder = _folder(root, which, f"{which}_dataset")
    (joints,) = load(folder / "joints.mat", "joints")
    layout = _LAYOUTS[which]
    if (
        getattr(joints, "ndim", 0) != 3
        or joints.shape[:2] != layout.shape
        or joints.dtype.kind not in "fiu"
    ):
        raise DataError(
            f"{folder / 'joints.mat'}: joints have shape {np.shape(joints)}, expected "
            f"{layout.shape} × images"
        )
    return arrange(joints, which), folder


def arrange(joints: Floats, which: str) -> Floats:
    """(N, 14, 3) with visible = 1 from the array of a joints.mat."""
    layout = _LAYOUTS[which]
    ordered = np.array(joints, np.float64).transpose(layout.axes)
    if layout.occluded:
        ordered[..., 2] = 1 - ordered[..., 2]
    return ordered


def to_mpii(joints: Floats) -> Floats:
    """(N, 14, 3) in LSP order to (N, 16, 3) in MPII order; pelvis and thorax are zeros."""
    padded = np.concatenate([joints, np.zeros((len(joints), 1, 3))], 1)
    return padded[:, list(LSP_TO_MPII)]


def _lengths(joints: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(N, 13) limb lengths, and whether both ends are visible."""
    a, b = np.array([[LSP_JOINTS.index(end) for end in limb] for limb in LIMBS]).T
    length = np.linalg.norm(joints[:, a, :2] - joints[:, b, :2], axis=2)
    seen = (joints[:, a, 2] == 1) & (joints[:, b, 2] == 1)
    return length, seen


def scales(joints: Floats) -> Floats:
    """``scale_provided`` of every person (N, 14, 3 in LSP order, visible = 1).

    Limb lengths are divided by the limb's median ratio to the head-neck limb (over the people in
    whom both are visible), the 0.75 quantile of the visible ones is the person's size in head-neck
    units, / 35 the scale; a limb that is nowhere seen together with the head counts nowhere. The
    scale is enlarged where the visible joints would not fit into boxsize - 64 otherwise.
    """
    length, seen = _lengths(joints)
    head = LIMBS.index(HEAD)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = length / length[:, head : head + 1]
    both = seen & seen[:, head : head + 1]
    sizes = np.empty_like(length)
    for limb in range(len(LIMBS)):
        valid = ratio[both[:, limb], limb]
        valid = valid[~np.isnan(valid)]
        sizes[:, limb] = length[:, limb] / (np.median(valid) if valid.size else np.nan)
    found = np.empty(len(joints))
    for i, (size, ok) in enumerate(zip(sizes, seen, strict=True)):
        visible = joints[i, joints[i, :, 2] == 1, :2]
        known = size[ok & ~np.isnan(size)]
        # MATLAB's quantile puts the i-th of n sorted values at (i - 0.5) / n
        scale = np.quantile(known, 0.75, method="hazen") / 35 if known.size else 0.0
        fit = np.ptp(visible, axis=0).max() * TARGET_DIST / (BOXSIZE - 64) if len(visible) else 0.0
        found[i] = max(scale, fit)
    return found


def annotate(
    lspet: Floats,
    lsp: Floats,
    sizes: Sequence[tuple[int, int]],
    names: tuple[str, str] = ("lspet_dataset/images/im%05d.jpg", "lsp_dataset/images/im%04d.jpg"),
) -> list[Annotation]:
    """The training set as the authors made it: LSPET people first, then LSP's.

    Parameters
    ----------
    lspet, lsp : (N, 14, 3) and (M, 14, 3) in LSP order, visible = 1.
    sizes : (width, height) of all N + M images.
    names : patterns of the images' paths, whose numbers count from 1 in each of the two.
    """
    both = np.concatenate([lspet, lsp])
    scale = scales(both)
    mapped = to_mpii(both)
    # the script inverts LSP's visibility after filling in pelvis and thorax, which makes these
    # "visible" at (0, 0)
    absent = [MPII_JOINTS.index(joint) for joint in ("pelvis", "thorax")]
    mapped[len(lspet) :, absent, 2] = 1
    paths = [names[0] % number for number in range(1, len(lspet) + 1)]
    paths += [names[1] % number for number in range(1, len(lsp) + 1)]
    found = []
    for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        visible = both[i, both[i, :, 2] == 1, :2]
        if i < len(lspet) and len(visible):
            objpos = (visible.min(0) + visible.max(0)) / 2
        else:
            objpos = np.array([size[0] / 2, size[1] / 2])
        found.append(
            counted_from_0(
                Annotation(
                    image=path,
                    dataset="LEEDS",
                    joints=mapped[i],
                    objpos=objpos,
                    scale=float(scale[i]),
                    size=size,
                    annolist_index=i + 1,
                    people_index=1,
                )
            )
        )
    return found


def read_training(
    root: str | os.PathLike[str],
    *,
    skip_missing: bool = False,
    left_out: list[str] | None = None,
) -> list[Annotation]:
    """The training annotations: LSPET, then LSP 1 to 1000.

    Scales are computed over all people of the joints files, as the authors did, whether or not
    their image is here.

    Parameters
    ----------
    root : folder that holds the two data sets.
    skip_missing : leave out people whose image file is missing (default: an error that names it).
    left_out : takes the image of each person left out.

    Returns
    -------
    Annotations with image paths relative to ``root``.
    """
    lspet, first = read_joints(root, "lspet")
    lsp, second = read_joints(root, "lsp")
    lsp = lsp[:1000]
    patterns = (f"{first.name}/images/im%05d.jpg", f"{second.name}/images/im%04d.jpg")
    sizes: list[tuple[int, int]] = []
    for pattern, people in zip(patterns, (lspet, lsp), strict=True):
        for number in range(1, len(people) + 1):
            path = Path(root) / (pattern % number)
            sizes.append((0, 0) if skip_missing and not path.exists() else image_size(path))
    found = annotate(lspet, lsp, sizes, patterns)
    if left_out is not None:
        left_out.extend(a.image for a in found if a.size == (0, 0))
    return [a for a in found if a.size != (0, 0)]
