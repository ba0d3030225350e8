"""Where the protocols look, by numbers that can be checked by eye."""

from __future__ import annotations

import pytest

from caffe_compat.errors import CaffeCompatError
from reproduce.predict.protocol import PYTHON_DEMO, Person, Standing


@pytest.mark.parametrize(
    ("person", "center"),
    [
        ((10.0, 20.0, 31.0, 41.0), (25.0, 40.0)),  # pixels 10 to 40 and 20 to 60
        ((10.0, 20.0, 30.0, 40.0), (24.5, 39.5)),  # pixels 10 to 39 and 20 to 59
        (None, (249.5, 183.5)),  # the whole image
        (Standing((30.0, 50.0), 1.0), (30.0, 50.0)),
    ],
)
def test_the_python_demo_looks_at_the_middle_of_a_person(
    person: Person, center: tuple[float, float]
) -> None:
    """In an image that is as high as the network's input already."""
    placed = PYTHON_DEMO.placement((368, 500), person)
    assert placed.center == pytest.approx(center)
    assert placed.scales == (1.0,)


def test_the_python_demo_refuses_a_box_outside_the_picture() -> None:
    """Somebody who was found may stand in the padding, a box of a file may not."""
    with pytest.raises(CaffeCompatError, match="no part of it lies inside the 500×368 image"):
        PYTHON_DEMO.placement((368, 500), (5000.0, 5000.0, 30.0, 40.0))
    assert PYTHON_DEMO.placement((368, 500), Standing((510.0, 50.0), 1.0)).center[0] > 500
