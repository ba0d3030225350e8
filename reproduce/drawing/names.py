"""Where the names of points stand in a picture: beside their points, and not over each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Size = tuple[int, int]  # width, height
Point = tuple[int, int]
_Box = tuple[int, int, int, int]  # left, top, right, bottom

# Directions in which a name may stand from its point, in the order in which they are tried.
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_STEPS = 12  # distances that are tried, half a name's height apart
_EDGE = 1  # pixels around a name that belong to it


def name_corners(
    sizes: Sequence[Size], points: Sequence[Point], picture: Size, gap: int
) -> list[Point]:
    """The upper left corner of each name.

    A name stands as near to its point as it can without covering another name, and beside the
    points rather than on them. Where there is no such room it stands where it covers least.

    Parameters
    ----------
    sizes : of the names, in pixels.
    points : the point of each name.
    picture : the names stay inside, where they fit at all.
    gap : pixels between a point's middle and the nearest place of its name.
    """
    corners: list[Point] = []
    taken: list[_Box] = []
    dots = [(x - gap, y - gap, x + gap, y + gap) for x, y in points]
    for size, point in zip(sizes, points, strict=True):
        best = min(
            enumerate(_candidates(size, point, picture, gap)),
            key=lambda numbered: (
                _covered(_box(numbered[1], size), taken),
                _covered(_box(numbered[1], size), dots) > 0,
                numbered[0],
            ),
        )[1]
        corners.append(best)
        taken.append(_box(best, size))
    return corners


def _candidates(size: Size, point: Point, picture: Size, gap: int) -> Iterator[Point]:
    """Corners around a point, or around the place of the picture that is nearest to it; the near
    ones first, moved into the picture where they leave it."""
    width, height = size
    x, y = (max(0, min(value, limit - 1)) for value, limit in zip(point, picture, strict=True))
    for step in range(_STEPS):
        away = gap + 1 + step * max(1, height // 2)
        for right, down in _SIDES:
            left = x + away if right > 0 else x - away - width if right < 0 else x - width // 2
            top = y + away if down > 0 else y - away - height if down < 0 else y - height // 2
            yield (
                max(0, min(left, picture[0] - width)),
                max(0, min(top, picture[1] - height)),
            )


def _box(corner: Point, size: Size) -> _Box:
    left, top = corner
    return left - _EDGE, top - _EDGE, left + size[0] + _EDGE, top + size[1] + _EDGE


def _covered(box: _Box, others: Sequence[_Box]) -> int:
    """Pixels that a box shares with others."""
    return sum(
        max(0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in others
    )
