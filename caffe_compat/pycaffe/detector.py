"""``caffe.Detector``: class scores of windows in pictures (R-CNN).

Source: ``caffe/detector.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from caffe_compat.pycaffe import io
from caffe_compat.pycaffe.blobs import Array
from caffe_compat.pycaffe.classifier import transformer_for
from caffe_compat.pycaffe.nets import TEST, Net


class Detector(Net):
    """A net that scores windows.

    Parameters
    ----------
    model_file, pretrained_file : definition and weights.
    mean, input_scale, raw_scale, channel_swap : as in :class:`caffe_compat.pycaffe.io.Transformer`.
    context_pad : pixels of the input around the window that show its surroundings.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None = None,
        mean: npt.NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_for(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context; what lies outside the picture shows the mean."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_dims = (height, width, channels)
        self.context_pad = context_pad or 0
        empty = np.zeros((1, channels, height, width), np.float32)
        # the picture that becomes 0 in the input
        self.crop_mean = self.transformer.deprocess(name, empty).reshape(self.crop_dims)

    def detect_windows(
        self, images_windows: Iterable[tuple[str, npt.ArrayLike]]
    ) -> list[dict[str, Any]]:
        """Scores of windows.

        Parameters
        ----------
        images_windows : (file name, windows) of each picture; a window is (top, left, bottom,
            right).

        Returns
        -------
        One ``{"window", "prediction", "filename"}`` for each window.
        """
        name = self.inputs[0]
        places, data = [], []
        for filename, windows in images_windows:
            image = io.load_image(filename, color=self.crop_dims[2] != 1)
            for window in np.asarray(windows):
                places.append((filename, window))
                data.append(self.transformer.preprocess(name, self.crop(image, window)))
        if not data:
            return []
        inputs: Any = np.array(data)
        scores = self.forward_all(**{name: inputs})[self.outputs[0]]
        scores = scores.reshape(len(scores), -1) if scores.ndim > 2 else scores
        return [
            {"window": window, "prediction": score, "filename": filename}
            for (filename, window), score in zip(places, scores, strict=True)
        ]

    def detect_selective_search(self, image_fnames: Iterable[str]) -> list[dict[str, Any]]:
        """Not here: the windows come from a MATLAB program.

        Raises
        ------
        CaffeCompatError : always.
        """
        raise CaffeCompatError(
            "selective search is a MATLAB program that is not part of this package: find windows "
            "by other means and give them to detect_windows"
        )

    def crop(self, im: Array, window: npt.ArrayLike) -> Array:
        """The part of a picture in a window; with context it has the input's size.

        Raises
        ------
        CaffeCompatError : the window shows nothing of the picture.
        """
        box = [float(v) for v in np.asarray(window)]
        top, left, bottom, right = box
        if not self.context_pad:
            inside = im[max(0, int(top)) : int(bottom), max(0, int(left)) : int(right)]
            if not inside.size:
                raise CaffeCompatError(f"window {box} shows nothing of {im.shape[:2]} pixels")
            return inside
        size = self.crop_dims[:2]
        # the window grows so that it fills the input less the context on each side
        grow = size[1] / (size[1] - 2.0 * self.context_pad)
        half = np.array([(bottom - top + 1) / 2, (right - left + 1) / 2])
        centre = np.array([top, left]) + half
        first, last = np.round(centre - grow * half), np.round(centre + grow * half)
        scale = np.array(size) / (last - first + 1)
        pad = np.round(np.maximum(0, -first) * scale).astype(int)
        limit = np.array(im.shape[:2])
        first, last = np.clip(first, 0, limit), np.clip(last, 0, limit)
        shown = np.minimum(np.round((last - first + 1) * scale).astype(int), np.array(size) - pad)
        (y, x), (end_y, end_x) = first.astype(int), last.astype(int)
        inside = im[y:end_y, x:end_x]
        if not inside.size or (shown < 1).any():
            raise CaffeCompatError(f"window {box} shows nothing of {im.shape[:2]} pixels")
        made = np.array(self.crop_mean, np.float32)
        made[pad[0] : pad[0] + shown[0], pad[1] : pad[1] + shown[1]] = io.resize_image(
            inside, shown.tolist()
        )
        return made
