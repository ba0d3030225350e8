"""Parts, joint orders, flip pairs and limbs. Everything that says "joint" takes its order from
here.

Source: genJSON, the CPM data layer and the testing scripts of the CPM release (facts: orders and
index lists).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
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
    torso : further pairs, the outline of the body between the limbs.
    told : the model itself names its parts; otherwise their number alone is known.
    """

    parts: tuple[str, ...]
    sources: tuple[tuple[int, int], ...]
    flip: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    torso: tuple[tuple[int, int], ...] = ()
    told: bool = False

    def __len__(self) -> int:
        return len(self.parts)


def _numbers(names: Sequence[str], pairs: Iterable[tuple[str, str]]) -> tuple[tuple[int, int], ...]:
    """Pairs of names as places in a list of names."""
    return tuple((names.index(one), names.index(other)) for one, other in pairs)


# limbs of a whole body that a picture joins with a line
_LIMBS = (
    ("head", "neck"),
    ("Rsho", "Relb"),
    ("Relb", "Rwri"),
    ("Lsho", "Lelb"),
    ("Lelb", "Lwri"),
    ("Rhip", "Rkne"),
    ("Rkne", "Rank"),
    ("Lhip", "Lkne"),
    ("Lkne", "Lank"),
)
_ARMS = (("Lsho", "Lelb"), ("Lelb", "Lwri"), ("Rsho", "Relb"), ("Relb", "Rwri"))
_TORSO = (
    ("neck", "Rsho"),
    ("neck", "Lsho"),
    ("Rsho", "Rhip"),
    ("Lsho", "Lhip"),
    ("Rhip", "Lhip"),
)
_TORSO_WITHOUT_NECK = (("Rsho", "Lsho"), *_TORSO[2:])
_FROM_MPII = tuple(MPII_JOINTS.index(part) for part in PARTS_14)

SKELETON_14 = Skeleton(
    parts=PARTS_14,
    sources=tuple((joint, joint) for joint in _FROM_MPII),
    flip=_pairs(PARTS_14),
    limbs=_numbers(PARTS_14, _LIMBS),
    torso=_numbers(PARTS_14, _TORSO),
)
SKELETON_9 = Skeleton(
    parts=PARTS_9,
    sources=tuple((joint, joint) for joint in range(len(PARTS_9))),
    flip=_pairs(PARTS_9),
    limbs=_numbers(PARTS_9, _ARMS),
    torso=_numbers(PARTS_9, _TORSO_WITHOUT_NECK),
)

# sixteen joints, then the middles of these limbs
_MIDDLES = (
    ("head", "neck"),
    ("neck", "Rsho"),
    ("Rsho", "Relb"),
    ("Relb", "Rwri"),
    ("neck", "Lsho"),
    ("Lsho", "Lelb"),
    ("Lelb", "Lwri"),
    ("Rhip", "Rkne"),
    ("Rkne", "Rank"),
    ("Lhip", "Lkne"),
    ("Lkne", "Lank"),
    ("pelvis", "thorax"),
)
_JOINTS_28 = (*PARTS_14, "thorax", "pelvis")
PARTS_28 = (*_JOINTS_28, *(f"{one}-{other}" for one, other in _MIDDLES))
_ON_THE_RIGHT = tuple(part for part in PARTS_28 if re.search(r"\bR", part))
SKELETON_28 = Skeleton(
    parts=PARTS_28,
    sources=_numbers(MPII_JOINTS, (*((joint, joint) for joint in _JOINTS_28), *_MIDDLES)),
    flip=_numbers(PARTS_28, ((part, re.sub(r"\bR", "L", part)) for part in _ON_THE_RIGHT)),
    limbs=_numbers(PARTS_28, _LIMBS),
    torso=_numbers(PARTS_28, _TORSO),
)
_BY_COUNT = {9: SKELETON_9, 14: SKELETON_14, 28: SKELETON_28}


def skeleton(parts: int) -> Skeleton:
    """The skeleton with this number of parts; others get plain parts without flip pairs and
    limbs."""
    if parts in _BY_COUNT:
        return _BY_COUNT[parts]
    return Skeleton(
        parts=tuple(f"part{i}" for i in range(parts)),
        sources=tuple((i, i) for i in range(parts)),
        flip=(),
        limbs=(),
    )


_OTHER_SIDE = {"l": "r", "r": "l"}
# left_x, Left x, l_x; x_left, x.l; xLeft; Lx and Rx
_BEFORE = re.compile(r"(left|right|l(?=[_\W])|r(?=[_\W]))[_\W]*(.+)", re.I)
_AFTER = re.compile(r"(.+?)[_\W]+(left|right|l|r)", re.I)
_CAMEL = re.compile(r"(.*[a-z0-9])(Left|Right)")
_LETTER = re.compile(r"([LR])([A-Za-z].*)")
# letters that tell a side only where the same name with the other letter is there
_OTHER_LETTER = {"l": "r", "r": "l", "L": "R", "R": "L"}


def _side(name: str) -> tuple[str, str, bool]:
    """(letter of the side, rest of the name, whether it can be nothing else) of a part; ("", "",
    False) for one in the middle."""
    if found := _BEFORE.fullmatch(name):
        return found[1].lower()[0], found[2].lower(), True
    if found := _AFTER.fullmatch(name) or _CAMEL.fullmatch(name):
        return found[2].lower()[0], found[1].lower(), True
    if found := _LETTER.fullmatch(name):
        return found[1].lower(), found[2].lower(), False
    return "", "", False


def _sides(names: Sequence[str]) -> list[tuple[str, str, bool]]:
    """What :func:`_side` says of each part; lhand and rhand, handL and handR are sides where both
    are there."""
    sides = [_side(name) for name in names]
    there = {(letter, rest) for letter, rest, _ in sides}
    for i, name in enumerate(names):
        letter, rest, certain = sides[i]
        # the L of LegL looks like a side, too: what has its partner comes first
        if certain or (letter and (_OTHER_SIDE[letter], rest) in there):
            continue
        for before, mark, after in (("", name[0], name[1:]), (name[:-1], name[-1], "")):
            other = _OTHER_LETTER.get(mark, "")
            if other and before + after and f"{before}{other}{after}" in names:
                sides[i] = mark.lower(), (before + after).lower(), False
    return sides


def side(part: str) -> str:
    """The side that a part's name tells: "left", "right", or "" for the middle.

    >>> side("Lank"), side("right_knee"), side("neck")
    ('left', 'right', '')
    """
    return {"l": "left", "r": "right", "": ""}[_side(part)[0]]


def named(
    names: tuple[str, ...],
    *,
    mirrored: bool = True,
    where: str = "--parts",
    instead: str = "set flip_prob: 0",
) -> Skeleton:
    """A skeleton of the user's own parts: those called left_x and right_x (x_left and x_right,
    xLeft and xRight, Lx and Rx, lx and rx, xL and xR) change places in a mirror image. Parts that
    are called as the authors' have their limbs.

    Parameters
    ----------
    mirrored : will there be mirror images? Without them nothing has to have a partner.
    where, instead : where the names stand, and how to do without mirror images, for messages.

    Raises
    ------
    CaffeCompatError : a part of one side without its partner: a typo would keep it in its place.
    """
    if len(set(names)) < len(names) or "" in names:
        raise CaffeCompatError(f"{where} {','.join(names)}: a name is empty or given twice")
    sides = _sides(names)
    place = {(letter, rest): i for i, (letter, rest, _) in enumerate(sides) if letter}
    pairs = []
    for i, (letter, rest, certain) in enumerate(sides):
        partner = place.get((_OTHER_SIDE[letter], rest)) if letter else None
        if partner is not None:
            if letter == "r":
                pairs.append((i, partner))
        elif mirrored and (certain or _looks_lost(names, sides, i)):
            raise CaffeCompatError(
                f"{where}: '{names[i]}' has no partner on the other side, so that mirror images "
                f"would mix up left and right: correct the name, or {instead}"
            )
    return Skeleton(
        parts=names,
        sources=tuple((i, i) for i in range(len(names))),
        flip=tuple(pairs),
        limbs=_numbers(names, _among(names, _LIMBS)),
        torso=_numbers(names, _among(names, _TORSO if "neck" in names else _TORSO_WITHOUT_NECK)),
        told=True,
    )


def mirror_text(skeleton: Skeleton) -> str:
    """What a mirror image does with parts, for people to see whether it is what they meant."""
    parts = skeleton.parts
    pairs = ", ".join(f"{parts[i]} and {parts[j]}" for i, j in skeleton.flip)
    if not pairs:
        return "mirror images exchange no parts: no names tell two sides"
    moved = {place for pair in skeleton.flip for place in pair}
    others = ", ".join(part for i, part in enumerate(parts) if i not in moved)
    return f"mirror images exchange {pairs}" + (f"; in the middle: {others}" if others else "")


def _among(names: Sequence[str], pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs both of whose names are there."""
    return [pair for pair in pairs if set(pair) <= set(names)]


def _looks_lost(names: tuple[str, ...], sides: list[tuple[str, str, bool]], index: int) -> bool:
    """Is a part called Lx, and nearly its partner is there (a typo)? Of the authors' names of three
    letters two in the wrong order still are alike: sho and soh by two thirds."""
    letter, rest, _ = sides[index]
    across = _OTHER_SIDE.get(letter)
    others = [other for theirs, other, _ in sides if theirs and theirs == across]
    return bool(difflib.get_close_matches(rest, others, 1, 0.65))


def joint_names(count: int) -> tuple[str, ...]:
    """Names of the joints of a record, as their number tells them; plain ones where it does not."""
    return MPII_JOINTS if count == len(MPII_JOINTS) else skeleton(count).parts


def known(parts: int) -> bool:
    """Are the sides of a skeleton with this number of parts known?"""
    return parts in _BY_COUNT
