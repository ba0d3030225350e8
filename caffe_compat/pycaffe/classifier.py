"""``caffe.Classifier``: pictures to class scores.

Source: ``caffe/classifier.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.pycaffe import io
from caffe_compat.pycaffe.blobs import Array
from caffe_compat.pycaffe.nets import TEST, Net


def transformer_for(
    net: Net,
    mean: npt.NDArray[Any] | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """Pictures to a net's first input, with the given steps."""
    name = net.inputs[0]
    made = io.Transformer({name: net.blobs[name].shape})
    made.set_transpose(name, (2, 0, 1))
    if mean is not None:
        made.set_mean(name, mean)
    if input_scale is not None:
        made.set_input_scale(name, input_scale)
    if raw_scale is not None:
        made.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        made.set_channel_swap(name, channel_swap)
    return made


class Classifier(Net):
    """A net that gives scores for pictures.

    Parameters
    ----------
    model_file, pretrained_file : definition and weights.
    image_dims : (height, width) that pictures are resized to before crops are taken; default: the
        input's.
    mean, input_scale, raw_scale, channel_swap : as in :class:`caffe_compat.pycaffe.io.Transformer`.

    Attributes
    ----------
    transformer : pictures to input.
    crop_dims : the input's (height, width).
    image_dims : as given.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None = None,
        image_dims: Sequence[int] | None = None,
        mean: npt.NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_for(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = np.array(image_dims) if image_dims is not None else self.crop_dims

    def predict(self, inputs: Sequence[npt.NDArray[Any]], oversample: bool = True) -> Array:
        """Scores of pictures.

        Parameters
        ----------
        inputs : H×W×K pictures as :func:`caffe_compat.pycaffe.io.load_image` gives them.
        oversample : the mean over ten crops; else the centre only.

        Returns
        -------
        (N, classes).
        """
        size, crop = self.image_dims.tolist(), self.crop_dims.tolist()
        images = np.array([io.resize_image(image, size) for image in inputs])
        if oversample:
            crops = io.oversample(images, crop)
        else:
            top, left = (int(d / 2 - c / 2) for d, c in zip(size, crop, strict=True))
            crops = images[:, top : top + crop[0], left : left + crop[1]]
        name = self.inputs[0]
        data: Any = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        scores = self.forward_all(**{name: data})[self.outputs[0]]
        if oversample:
            scores = scores.reshape(len(scores) // 10, 10, -1).mean(1)
        return scores
