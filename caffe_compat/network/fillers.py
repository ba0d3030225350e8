"""Caffe's weight fillers.

The distributions are Caffe's; the random numbers are torch's, so that a seed gives the same network
on any machine but not the one that Caffe's generator would have given.

Source: ``filler.hpp`` of BVLC Caffe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe_compat.definition import schema
from caffe_compat.errors import PrototxtError
from caffe_compat.layers.base import FILLERS


def fill(blob: Tensor, filler: Any, generator: torch.Generator) -> None:
    """Fill a parameter blob in place.

    Parameters
    ----------
    blob : any shape, float.
    filler : a ``FillerParameter``.
    generator : source of random numbers.

    Raises
    ------
    PrototxtError : unknown filler type, or one that does not fit the blob.
    """
    kind = filler.type
    count = blob.numel()
    num = blob.shape[0] if blob.dim() else 1
    fan_in = count / max(1, num)
    fan_out = count / blob.shape[1] if blob.dim() > 1 else count
    norm = schema.enum_name(filler, "variance_norm")
    fan = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[norm]
    with torch.no_grad():
        if kind == "constant":
            blob.fill_(filler.value)
        elif kind == "uniform":
            blob.uniform_(filler.min, filler.max, generator=generator)
        elif kind == "gaussian":
            blob.normal_(filler.mean, filler.std, generator=generator)
            if filler.sparse >= 0:
                keep = filler.sparse / num
                blob.mul_(torch.rand(blob.shape, generator=generator) < keep)
        elif kind == "positive_unitball":
            rows = blob.uniform_(0, 1, generator=generator).reshape(num, -1)
            rows.div_(rows.sum(1, keepdim=True))
        elif kind == "xavier":
            scale = (3 / fan) ** 0.5
            blob.uniform_(-scale, scale, generator=generator)
        elif kind == "msra":
            blob.normal_(0, (2 / fan) ** 0.5, generator=generator)
        elif kind == "bilinear":
            size = blob.shape[3]
            factor = (size + 1) // 2
            centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
            ramp = 1 - (torch.arange(size, dtype=torch.float64) / factor - centre).abs()
            blob.copy_((ramp[:, None] * ramp[None, :]).expand(blob.shape))
        else:
            raise PrototxtError(
                f"unknown filler '{kind}'; known: {', '.join(FILLERS)}", field="type"
            )
