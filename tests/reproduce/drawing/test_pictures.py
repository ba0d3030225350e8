"""Skeletons in pictures: colours of the limbs, the torso, the parts' names."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from caffe_compat.files import TargetError
from reproduce.drawing.colours import TORSO, Colour, as_hex, limb_colours
from reproduce.drawing.names import name_corners
from reproduce.drawing.pictures import draw_skeleton, save_picture
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


@pytest.mark.parametrize("seed", range(20))
def test_names_do_not_cover_each_other(seed: int) -> None:
    """Joints in a heap, at the edge and outside of the picture."""
    rng = np.random.default_rng(seed)
    middle = rng.integers(-30, 400, 2)
    points = [(int(x), int(y)) for x, y in middle + rng.integers(-25, 26, (14, 2))]
    sizes = [(int(width), 12) for width in rng.integers(25, 45, 14)]
    corners = name_corners(sizes, points, (368, 368), 4)
    covered = np.zeros((368, 368), int)
    for (left, top), (width, height) in zip(corners, sizes, strict=True):
        assert 0 <= left <= 368 - width
        assert 0 <= top <= 368 - height
        covered[top : top + height, left : left + width] += 1
    assert covered.max() == 1
    if not seed:  # where there is room, a name stands to the right of its point
        assert name_corners([(30, 12)], [(100, 100)], (368, 368), 4) == [(105, 94)]
        assert name_corners([(500, 12)], [(100, 100)], (368, 368), 4)[0][0] == 0


def test_a_picture_is_what_its_ending_says(tmp_path: Path) -> None:
    beginnings = {"a.png": b"\x89PNG", "b.jpg": b"\xff\xd8\xff", "c.JPEG": b"\xff\xd8\xff"}
    for name, beginning in beginnings.items():
        save_picture(_GREY, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(beginning)
    for name in ("d.gif", "e", "f.png.txt"):
        with pytest.raises(TargetError, match=r"expected a name with the ending \.png"):
            save_picture(_GREY, tmp_path / name)
        assert not (tmp_path / name).exists()
