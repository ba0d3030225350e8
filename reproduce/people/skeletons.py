"""Parts, joint orders, flip pairs and limbs. Everything that says "joint" takes its order from
here.

Source: genJSON, the CPM data layer and the testing scripts of the CPM release (facts: orders and
index lists).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from caffe_compat.errors import CaffeCompatError

PARTS_14 = (
    "head",
    "neck",
    "Rsho",
    "Relb",
    "Rwri",
    "Lsho",
    "Lelb",
    "Lwri",
    "Rhip",
    "Rkne",
    "Rank",
    "Lhip",
    "Lkne",
    "Lank",
)
PARTS_9 = ("Lsho", "Lelb", "Lwri", "Rsho", "Relb", "Rwri", "Lhip", "Rhip", "head")

MPII_JOINTS = (
    "Rank",
    "Rkne",
    "Rhip",
    "Lhip",
    "Lkne",
    "Lank",
    "pelvis",
    "thorax",
    "neck",
    "head",
    "Rwri",
    "Relb",
    "Rsho",
    "Lsho",
    "Lelb",
    "Lwri",
)
LSP_JOINTS = (
    "Rank",
    "Rkne",
    "Rhip",
    "Lhip",
    "Lkne",
    "Lank",
    "Rwri",
    "Relb",
    "Rsho",
    "Lsho",
    "Lelb",
    "Lwri",
    "neck",
    "head",
)
# the points that FLIC annotates, and that other methods predict on it
FLIC_POINTS = (
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
# LSP joint that stands at each MPII position (-1: none: zeros)
LSP_TO_MPII = tuple(LSP_JOINTS.index(j) if j in LSP_JOINTS else -1 for j in MPII_JOINTS)


def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((i, names.index("L" + n[1:])) for i, n in enumerate(names) if n.startswith("R"))


@dataclass(frozen=True)
class Skeleton:
    """The parts that a network predicts.

    Attributes
    ----------
    parts : names in channel order, background not included.
    sources : for each part, the two joints of a record that it is the mean of (twice the same for a
        plain joint).
    flip : pairs of channels that change places in a mirror image.
    limbs : pairs of channels that a picture joins with a line.
    """

    parts: tuple[str, ...]
    sources: tuple[tuple[int, int], ...]
    flip: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.parts)


_FROM_MPII = tuple(MPII_JOINTS.index(p) for p in PARTS_14)
_LIMBS_14 = ((0, 1), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13))

SKELETON_14 = Skeleton(PARTS_14, tuple((i, i) for i in _FROM_MPII), _pairs(PARTS_14), _LIMBS_14)
SKELETON_9 = Skeleton(
    PARTS_9, tuple((i, i) for i in range(9)), _pairs(PARTS_9), ((0, 1), (1, 2), (3, 4), (4, 5))
)

# 16 joints, then the middles of 12 limbs
_MIDDLES = (
    (9, 8),
    (8, 12),
    (12, 11),
    (11, 10),
    (8, 13),
    (13, 14),
    (14, 15),
    (2, 1),
    (1, 0),
    (3, 4),
    (4, 5),
    (6, 7),
)
SKELETON_28 = Skeleton(
    (*PARTS_14, "thorax", "pelvis", *(f"{MPII_JOINTS[a]}-{MPII_JOINTS[b]}" for a, b in _MIDDLES)),
    (*((i, i) for i in (*_FROM_MPII, 7, 6)), *_MIDDLES),
    (*_pairs(PARTS_14), (17, 20), (18, 21), (19, 22), (23, 25), (24, 26)),
    _LIMBS_14,
)
_BY_COUNT = {9: SKELETON_9, 14: SKELETON_14, 28: SKELETON_28}


def skeleton(parts: int) -> Skeleton:
    """The skeleton with this number of parts; others get plain parts without flip pairs and
    limbs."""
    if parts in _BY_COUNT:
        return _BY_COUNT[parts]
    return Skeleton(
        tuple(f"part{i}" for i in range(parts)), tuple((i, i) for i in range(parts)), (), ()
    )


_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
# left_x, Left x, l_x; x_left, x.l; Lx and Rx
_BEFORE = re.compile(r"(left|right|l(?=[_\W])|r(?=[_\W]))[_\W]*(.+)", re.I)
_AFTER = re.compile(r"(.+?)[_\W]+(left|right|l|r)", re.I)
_LETTER = re.compile(r"([LR])([A-Za-z].*)")


def _side(name: str) -> tuple[str, str, bool]:
    """(side, rest of the name, whether it can be nothing else) of a part; ("", "", False) for one
    in the middle."""
    if found := _BEFORE.fullmatch(name):
        return found[1].lower()[0], found[2].lower(), True
    if found := _AFTER.fullmatch(name):
        return found[2].lower()[0], found[1].lower(), True
    if found := _LETTER.fullmatch(name):
        return found[1].lower(), found[2].lower(), False
    return "", "", False


def named(names: tuple[str, ...], *, mirrored: bool = True) -> Skeleton:
    """A skeleton of the user's own parts: those called left_x and right_x (x_left and x_right, Lx
    and Rx) change places in a mirror image.

    Parameters
    ----------
    mirrored : will there be mirror images? Without them nothing has to have a partner.

    Raises
    ------
    CaffeCompatError : a part of one side without its partner: a typo would keep it in its place.
    """
    if len(set(names)) < len(names) or "" in names:
        raise CaffeCompatError(f"--parts {','.join(names)}: a name is empty or given twice")
    sides = [_side(name) for name in names]
    place = {(side, rest): i for i, (side, rest, _) in enumerate(sides) if side}
    pairs = []
    for i, (side, rest, certain) in enumerate(sides):
        partner = place.get((_SIDES[side], rest)) if side else None
        if partner is not None:
            if side == "r":
                pairs.append((i, partner))
        elif mirrored and (certain or _looks_lost(names, sides, i)):
            raise CaffeCompatError(
                f"--parts: '{names[i]}' has no partner on the other side, so that mirror images "
                "would mix up left and right: correct the name, or set flip_prob: 0"
            )
    return Skeleton(names, tuple((i, i) for i in range(len(names))), tuple(pairs), ())


def _looks_lost(names: tuple[str, ...], sides: list[tuple[str, str, bool]], index: int) -> bool:
    """Is a part called Lx, and nearly its partner is there (a typo)?"""
    side, rest, _ = sides[index]
    others = [other for s, other, _ in sides if side and s == _SIDES[side]]
    return bool(difflib.get_close_matches(rest, others, 1, 0.75))


def known(parts: int) -> bool:
    """Are the sides of a skeleton with this number of parts known?"""
    return parts in _BY_COUNT
