"""How a convolution is run. The one place that decides."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_RUN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    group: int,
) -> Tensor:
    """Convolution of N×C×spatial, 0 to 3 spatial axes.

    Parameters
    ----------
    x, weight, bias : as torch's; weight (O, C/group, kernel).
    """
    if not stride:  # no spatial axes: one place
        return F.conv1d(x.unsqueeze(-1), weight.unsqueeze(-1), bias, groups=group).squeeze(-1)
    return _RUN[len(stride)](x, weight, bias, stride, pad, dilation, group)
