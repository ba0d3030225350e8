"""Boxes from OpenCV's people detector."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from reproduce.predict.detection import detect_people


class _Detector:
    """Takes the place of OpenCV's: sees two people in any picture, the surer one second."""

    shapes: list[tuple[int, ...]]

    def setSVMDetector(self, _: Any) -> None:
        """Nothing to be learned."""

    def detectMultiScale(self, image: Any, **_: Any) -> tuple[Any, Any]:
        self.shapes.append(image.shape)
        return np.array([[300, 20, 64, 128], [16, 32, 128, 256]]), np.array([[0.5], [0.9]])


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the pictures that the detector is given."""
    monkeypatch.setattr(_Detector, "shapes", [], raising=False)
    monkeypatch.setattr(cv2, "HOGDescriptor", _Detector)
    return _Detector.shapes


def test_boxes_are_the_people_in_the_middle_of_the_windows(shapes: list[tuple[int, ...]]) -> None:
    """In a window of 64×128 pixels the person takes 32×96; the surest comes first."""
    found = detect_people(np.zeros((400, 800, 3), np.uint8))
    assert shapes == [(400, 800, 3)]
    assert found == [(48, 64, 64, 192), (316, 36, 32, 96)]


def test_boxes_are_pixels_of_the_photograph_that_was_given(shapes: list[tuple[int, ...]]) -> None:
    """The detector looks at large ones at 800 pixels."""
    found = detect_people(np.zeros((800, 1600, 3), np.uint8))
    assert shapes == [(400, 800, 3)]
    assert found == [(96, 128, 128, 384), (632, 72, 64, 192)]


@pytest.mark.parametrize("size", [(127, 64), (128, 63), (140, 1600), (2000, 70)])
def test_a_photograph_smaller_than_the_window_shows_nobody(
    size: tuple[int, int], shapes: list[tuple[int, ...]]
) -> None:
    """As it is, or made 800 pixels long."""
    assert detect_people(np.zeros((*size, 3), np.uint8)) == []
    assert shapes == []


def test_a_photograph_as_large_as_the_window_is_looked_at(shapes: list[tuple[int, ...]]) -> None:
    assert len(detect_people(np.zeros((128, 64, 3), np.uint8))) == 2
    assert shapes == [(128, 64, 3)]
