"""Pictures for tests."""

from __future__ import annotations

import os

import cv2
import numpy as np
import numpy.typing as npt


def read_picture(
    path: str | os.PathLike[str], flags: int = cv2.IMREAD_COLOR
) -> npt.NDArray[np.uint8]:
    """A picture that must be there: (H, W, 3) uint8, B, G, R, or as OpenCV's flags ask."""
    image = cv2.imread(str(path), flags)
    assert image is not None, path
    return np.asarray(image, np.uint8)
