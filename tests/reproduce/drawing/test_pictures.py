"""Skeletons in pictures: colours of the limbs, the torso, the parts' names."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt
import pytest

from reproduce.drawing.colours import TORSO, Colour, as_hex, limb_colours
from reproduce.drawing.pictures import draw_skeleton
from reproduce.people.skeletons import (
    SKELETON_9,
    SKELETON_14,
    SKELETON_28,
    Skeleton,
    side,
)

_SKELETONS = {9: SKELETON_9, 14: SKELETON_14, 28: SKELETON_28}
_GREY = np.full((400, 400, 3), 90, np.uint8)


def _hue(colour: Colour) -> float:
    """0 is red, 120 green, 240 blue."""
    red, green, blue = (value / 255 for value in colour)
    return 360 * colorsys.rgb_to_hsv(red, green, blue)[0]


def _distance(one: Colour, other: Colour) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))


@pytest.mark.parametrize("parts", _SKELETONS)
def test_every_limb_has_a_colour_of_its_own(parts: int) -> None:
    skeletal = _SKELETONS[parts]
    colours = limb_colours(skeletal)
    assert len(colours) == len(skeletal.limbs)
    everything = [*colours, TORSO]
    for i, one in enumerate(everything):
        assert all(_distance(one, other) > 40 for other in everything[:i])


@pytest.mark.parametrize("parts", _SKELETONS)
def test_a_side_has_a_family_of_colours(parts: int) -> None:
    skeletal = _SKELETONS[parts]
    for (part, _), colour in zip(skeletal.limbs, limb_colours(skeletal), strict=True):
        hue = (_hue(colour) + 60) % 360 - 60  # red has no break
        warm, cool = -15 < hue < 60, 190 < hue < 260
        assert {"right": warm, "left": cool, "": 90 < hue < 160}[side(skeletal.parts[part])]


def test_nine_limbs_of_a_body() -> None:
    assert len(set(limb_colours(SKELETON_14))) == 9


def test_many_limbs_have_as_many_colours() -> None:
    parts = tuple(f"L{i}x" if i % 2 else f"left_{i}" for i in range(13))
    limbs = tuple((i, i + 1) for i in range(12))
    assert len(set(limb_colours(Skeleton(parts, (), (), limbs)))) == 12


def test_colours_of_web_pages() -> None:
    assert as_hex((255, 7, 16)) == "#ff0710"


def _spread(skeletal: Skeleton) -> npt.NDArray[np.float64]:
    """A place for each part, far from the others."""
    turn = 2 * np.pi * np.arange(len(skeletal)) / len(skeletal)
    return 200 + 150 * np.stack([np.cos(turn), np.sin(turn)], 1)


@pytest.mark.parametrize("parts", [9, 14])
def test_limbs_and_torso_are_drawn(parts: int) -> None:
    skeletal = _SKELETONS[parts]
    drawn = draw_skeleton(_GREY, _spread(skeletal), skeletal)
    seen = {tuple(int(v) for v in pixel[::-1]) for pixel in drawn.reshape(-1, 3)}
    assert {*limb_colours(skeletal), TORSO} <= seen
    assert (_GREY == 90).all()


def test_a_torso_joins_both_sides() -> None:
    for skeletal in (SKELETON_9, SKELETON_14):
        ends = {skeletal.parts[part] for pair in skeletal.torso for part in pair}
        assert {"Rsho", "Lsho", "Rhip", "Lhip"} <= ends


def test_what_is_not_annotated_is_not_drawn() -> None:
    joints = np.full((14, 2), np.nan)
    assert (draw_skeleton(_GREY, joints, SKELETON_14, names=True) == _GREY).all()


def test_names_are_written_beside_their_parts() -> None:
    joints = np.full((14, 2), np.nan)
    for x in (100, 399):  # at the edge the name stands on the other side
        joints[0] = (x, 200)
        plain = draw_skeleton(_GREY, joints, SKELETON_14)
        written = draw_skeleton(_GREY, joints, SKELETON_14, names=True)
        rows, columns = np.nonzero((written != plain).any(2))
        assert len(rows) > 50
        assert abs(rows.mean() - 200) < 8
        assert (columns.mean() > x) == (x == 100)
