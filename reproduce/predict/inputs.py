"""From an image to the network's inputs: resized to every scale, put into a grey box, centre map
added.

Source: ``applyModel.m`` and the Python notebook of the CPM release (formulas; recorded intermediate
values).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from caffe_compat.lazy import lazy_import
from reproduce.predict.imresize import imresize_region, output_size
from reproduce.predict.protocol import Placement, Protocol, matlab_round
from reproduce.runtime.plain_opencv import resize_cv

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_import("torch")

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]

PAD_VALUE = 128  # the grey around an image
_MAX_SIDE = 100_000  # pixels of a scaled image, of which only the part in the box is computed


@dataclass(frozen=True)
class ScaledInput:
    """A person's image at one scale, as the network sees it.

    Attributes
    ----------
    pixels : (B, B, 3) uint8 R, G, B, where B is the protocol's ``boxsize``; grey outside the image.
    scaled : rows and columns of the scaled image.
    pad : up, left, down, right: rows and columns of grey around the scaled image; negative where
        it is cropped.
    """

    pixels: Image
    scaled: tuple[int, int]
    pad: tuple[int, int, int, int]

    @property
    def boxsize(self) -> int:
        """Height and width of the input."""
        return len(self.pixels)

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """The rectangle (top, left, bottom, right) that shows the image; the rest is grey."""
        up, left, down, right = (max(0, p) for p in self.pad)
        return up, left, self.boxsize - down, self.boxsize - right


def scale_person(image: Image, placement: Placement, protocol: Protocol) -> tuple[ScaledInput, ...]:
    """A person's image at every scale of its placement.

    Parameters
    ----------
    image : (H, W, 3) uint8 R, G, B.
    """
    inputs = []
    for scale in placement.scales:
        scaled = output_size(image.shape, scale)
        _check_scaled(image.shape, scaled)
        by_opencv = resize_cv(image, scale) if in_python(protocol) else None
        if by_opencv is not None:  # OpenCV rounds the size, MATLAB takes the next larger number
            scaled = by_opencv.shape[0], by_opencv.shape[1]
        center = placement.center[0] * scale, placement.center[1] * scale
        pad = padding(scaled, protocol.boxsize, center)
        rows, columns = _shown(scaled, protocol.boxsize, pad)
        pixels = np.full((protocol.boxsize, protocol.boxsize, image.shape[2]), PAD_VALUE, np.uint8)
        if rows and columns:
            top, left = max(0, pad[0]), max(0, pad[1])
            pixels[top : top + len(rows), left : left + len(columns)] = (
                imresize_region(image, scale, rows, columns)
                if by_opencv is None
                else by_opencv[rows.start : rows.stop, columns.start : columns.stop]
            )
        inputs.append(ScaledInput(pixels, scaled, pad))
    return tuple(inputs)


def _check_scaled(size: Sequence[int], scaled: tuple[int, int]) -> None:
    """Refuse scales that make the picture vanish or grow beyond all bounds."""
    if min(scaled) < 1 or max(scaled) > _MAX_SIDE:
        raise CaffeCompatError(
            f"the {size[1]}×{size[0]} picture would be scaled to {scaled[1]}×{scaled[0]} pixels: "
            "the box or the scales do not fit it (boxes are in pixels)"
        )


def padding(
    scaled: tuple[int, int], boxsize: int, center: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Rows and columns of grey around a scaled image (up, left, down, right) that bring its centre
    to the middle of the box; negative where it is cropped.

    Parameters
    ----------
    center : x, y, 1-based as in MATLAB.
    """
    height, width = scaled
    x, y = matlab_round(center[0]), matlab_round(center[1])
    half = boxsize // 2
    return half - y, half - x, half - (height - y), half - (width - x)


def _shown(
    scaled: tuple[int, int], boxsize: int, pad: tuple[int, int, int, int]
) -> tuple[range, range]:
    """Rows and columns of the scaled image that the box shows."""
    found = []
    for axis in (0, 1):
        before, after, length = pad[axis], pad[axis + 2], scaled[axis]
        first, last = max(0, -before), max(0, length + min(0, after))
        found.append(range(first, min(last, first + max(0, boxsize - max(0, before)))))
    return found[0], found[1]


def in_python(protocol: Protocol) -> bool:
    """Does OpenCV resize, and do pixels count from 0, as in the Python demo? MATLAB otherwise."""
    return protocol.combination == "python"


@lru_cache(maxsize=8)
def center_map(boxsize: int, sigma: float, first: int = 1) -> Maps:
    """The fourth input channel: a Gaussian that peaks at pixel boxsize / 2, where ``first`` is the
    number of the first pixel."""
    axis = np.arange(first, boxsize + first, dtype=np.float64) - boxsize / 2
    exponent = (axis[:, None] ** 2 + axis[None] ** 2) / 2.0 / sigma / sigma
    return np.exp(-exponent).astype(np.float32)


def network_input(
    pixels: Image, protocol: Protocol, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """(N, 4, B, B) float32 of (N, B, B, 3) pixels: B, G, R as ``x / 256 - 0.5``, then the centre
    map.

    The bytes travel to the device; both operations are exact in float32.
    """
    colours = torch.from_numpy(pixels).to(device)
    data = torch.empty((len(pixels), 4, protocol.boxsize, protocol.boxsize), device=device)
    data[:, :3] = colours.permute(0, 3, 1, 2).flip(1)
    data[:, :3].div_(256).sub_(0.5)
    first = 0 if in_python(protocol) else 1
    centre = center_map(protocol.boxsize, protocol.sigma, first)
    data[:, 3] = torch.from_numpy(centre).to(device)
    return data
