"""The colours of a skeleton's limbs: each has its own, and limbs of one side are of one family.

The right side is warm (yellow to red), the left side cool (sky blue to navy), the middle green.
Orange and blue are told apart by colour-blind people, too.
"""

from __future__ import annotations

from reproduce.people.skeletons import Skeleton, side

Colour = tuple[int, int, int]  # R, G, B, 0 to 255

# first, middle and last shade of each family
_FAMILIES: dict[str, tuple[Colour, Colour, Colour]] = {
    "right": ((255, 209, 71), (245, 121, 32), (176, 18, 36)),
    "left": ((120, 215, 255), (46, 134, 232), (36, 42, 150)),
    "": ((120, 220, 120), (40, 168, 84), (12, 100, 52)),
}
TORSO: Colour = (205, 205, 205)


def limb_colours(skeletal: Skeleton) -> list[Colour]:
    """A colour for each limb, in their order; no two are the same."""
    families = [_family(skeletal, limb) for limb in skeletal.limbs]
    places = [families[:i].count(family) for i, family in enumerate(families)]
    return [
        _shade(_FAMILIES[family], place / max(1, families.count(family) - 1))
        for family, place in zip(families, places, strict=True)
    ]


def _family(skeletal: Skeleton, limb: tuple[int, int]) -> str:
    """The side on which both ends of a limb are; a limb from side to side is in the middle."""
    one, other = (side(skeletal.parts[part]) for part in limb)
    return one if one == other else ""


def _shade(family: tuple[Colour, Colour, Colour], place: float) -> Colour:
    """The shade at a place from 0 (the first) to 1 (the last)."""
    first = 0 if place <= 0.5 else 1
    share = 2 * place - first
    red, green, blue = (
        round((1 - share) * one + share * other)
        for one, other in zip(family[first], family[first + 1], strict=True)
    )
    return red, green, blue


def as_hex(colour: Colour) -> str:
    """A colour as web pages write it.

    >>> as_hex((255, 0, 16))
    '#ff0010'
    """
    return "#" + "".join(f"{value:02x}" for value in colour)
