"""A pose machine over a whole photograph, of any size: for what needs no centre map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.lazy import lazy_import
from reproduce.predict.inputs import PAD_VALUE

if TYPE_CHECKING:
    import torch

    from caffe_compat.network.net import Net
else:
    torch = lazy_import("torch")

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]

STRIDE = 8  # pixels of the input in a cell of the belief maps


def padded(image: Image) -> Image:
    """An image with grey to the right and below, so that its sides are multiples of 8."""
    height, width = image.shape[:2]
    out = np.full(
        (-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE, 3), PAD_VALUE, np.uint8
    )
    out[:height, :width] = image
    return out


def belief_maps(net: Net, image_blob: str, maps_blob: str, image: Image) -> Maps:
    """Belief maps (P + 1, H / 8, W / 8) of a padded image.

    Parameters
    ----------
    image_blob : the network's input that takes the image.
    maps_blob : the maps that are wanted. A centre map that the network takes besides is empty.
    image : (H, W, 3) uint8 B, G, R; multiples of 8.
    """
    device = next(net.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    data = pixels.permute(2, 0, 1)[None].float().div_(256).sub_(0.5).contiguous()
    given = {image_blob: data}
    for name in net.graph.inputs:
        missing = net.graph.blobs[name][1] - (3 if name == image_blob else 0)
        if missing > 0:
            empty = torch.zeros(1, missing, *data.shape[2:], device=device)
            given[name] = torch.cat([given[name], empty], 1) if name in given else empty
    with torch.inference_mode():
        found = net(blobs=[maps_blob], **given)[maps_blob]
    return np.asarray(found[0].float().cpu().numpy(), np.float32)
