"""Skeletons of the user's own parts."""

from __future__ import annotations

import pytest

from caffe_compat.errors import CaffeCompatError
from reproduce.people.skeletons import named


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (("Lsho", "Rsoh"), "Lsho"),
        (("head", "Rkne", "Lkn"), "Rkne"),
        (("Lshoulder", "Rshuolder"), "Lshoulder"),
        (("left_eye", "nose"), "left_eye"),
    ],
)
def test_a_part_whose_partner_is_misspelt_is_refused(names: tuple[str, ...], lost: str) -> None:
    """It would keep its place in a mirror image. Without mirror images nothing is wrong."""
    with pytest.raises(CaffeCompatError, match=f"'{lost}' has no partner on the other side"):
        named(names)
    assert named(names, mirrored=False).flip == ()


def test_partners_change_places() -> None:
    assert named(("head", "Lsho", "Rsho")).flip == ((2, 1),)


def test_names_that_happen_to_begin_with_l_or_r_are_no_sides() -> None:
    assert named(("Root", "Leg", "Lip", "Rump")).flip == ()
