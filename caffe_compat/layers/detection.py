"""Layers of object detectors: prior boxes, detections, regions of interest, SmoothL1Loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caffe_compat.definition import schema
from caffe_compat.errors import DataError
from caffe_compat.layers.base import Layer, Shape, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_import("torch")

Array = npt.NDArray[np.float32]


@register("PriorBox")
class PriorBox(Layer):
    """Default boxes around every place of a feature map, as shares of the image, and their
    variances.

    Top: 1×2×(4·H·W·n): a row of boxes (xmin, ymin, xmax, ymax), row after row of places, and a row
    of variances. At each place and for each ``min_size``: the square of that size, the square of
    ``sqrt(min_size · max_size)``, then a box for each further ``aspect_ratio`` and, with ``flip``,
    for its inverse. Sizes are cut to whole pixels. ``clip`` touches the boxes only. No gradient.

    Source: ``prior_box_layer.cpp`` of Caffe's branch ssd.
    """

    option = "prior_box_param"
    bottoms = (1, 2)

    def setup(self) -> None:
        o = self.options
        self.least, self.largest = list(o.min_size), list(o.max_size)
        if not self.least or min(self.least) <= 0:
            raise self.error("needs at least one size above 0", "min_size")
        if self.largest and len(self.largest) != len(self.least):
            raise self.error(
                f"{len(self.least)} min_size need as many max_size, found {len(self.largest)}",
                "max_size",
            )
        for small, large in zip(self.least, self.largest, strict=False):
            if large <= small:
                raise self.error(f"{large:g} must be above its min_size {small:g}", "max_size")
        self.ratios = [1.0]
        for ratio in o.aspect_ratio:
            if ratio <= 0:
                raise self.error("must be above 0", "aspect_ratio")
            if any(abs(ratio - known) < 1e-6 for known in self.ratios):
                continue  # a known ratio brings no inverse either
            self.ratios.append(ratio)
            if o.flip:
                self.ratios.append(1 / ratio)
        self.variances = list(o.variance) or [0.1]
        if len(self.variances) not in (1, 4) or min(self.variances) <= 0:
            raise self.error("give none, one or four values above 0", "variance")
        self.image = self._pair("img", "img_size")
        self.spacing = self._pair("step", "step")
        if self.image is None and len(self.spec.bottoms) < 2:
            raise self.error("needs the image as second bottom, or img_size", "bottom")

    def _pair(self, part: str, both: str) -> tuple[float, float] | None:
        """(height, width) from two fields or one for both; None where neither is given."""
        o = self.options
        given = o.HasField(f"{part}_h") or o.HasField(f"{part}_w")
        if given and o.HasField(both):
            raise self.error(f"give {both}, or {part}_h and {part}_w, not both", both)
        if given:
            values = (float(getattr(o, f"{part}_h")), float(getattr(o, f"{part}_w")))
        elif o.HasField(both):
            values = (float(getattr(o, both)),) * 2
        else:
            return None
        if min(values) <= 0:
            raise self.error("must be above 0 for both height and width", both)
        return values

    @property
    def per_place(self) -> int:
        """Boxes at each place."""
        return len(self.least) * len(self.ratios) + len(self.largest)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        height, width = self.four_axes(bottoms[0])[2:]
        if self.image is None:  # where the size is given, nothing is asked of the picture's blob
            self.four_axes(bottoms[1])
        return [(1, 2, 4 * height * width * self.per_place)]

    def boxes(self, bottoms: Sequence[Shape]) -> Array:
        """The top's values, which the bottoms' sizes alone decide."""
        height, width = self.four_axes(bottoms[0])[2:]
        image = self.image
        if image is None:
            picture = self.four_axes(bottoms[1])
            image = float(picture[2]), float(picture[3])
        step = self.spacing or (image[0] / height, image[1] / width)
        sizes: list[tuple[float, float]] = []  # (height, width)
        for i, small in enumerate(self.least):
            side = float(int(small))
            sizes.append((side, side))
            if self.largest:
                sizes.append(((side * int(self.largest[i])) ** 0.5,) * 2)
            for ratio in self.ratios[1:]:
                sizes.append((side / ratio**0.5, side * ratio**0.5))
        tall = np.array([s[0] for s in sizes]) / 2
        wide = np.array([s[1] for s in sizes]) / 2
        y = ((np.arange(height) + self.options.offset) * step[0])[:, None, None]
        x = ((np.arange(width) + self.options.offset) * step[1])[None, :, None]
        sides = np.broadcast_arrays(
            (x - wide) / image[1],
            (y - tall) / image[0],
            (x + wide) / image[1],
            (y + tall) / image[0],
        )
        boxes = np.stack(sides, -1).reshape(-1)
        if self.options.clip:
            boxes = boxes.clip(0, 1)
        variances = np.resize(self.variances, boxes.size)
        both: Array = np.stack([boxes, variances])[None].astype(np.float32)
        return both

    def gradient_to(self, index: int) -> bool:
        return False

    def looks_at(self) -> tuple[str, ...]:
        return self.spec.tops

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        boxes = self.boxes([tuple(bottom.shape) for bottom in bottoms])
        return (torch.from_numpy(boxes).to(bottoms[0].device),)


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of one box (4) with others (K×4)."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    common = np.where((high > low).all(1), (high - low).prod(1), np.float32(0))
    union = _area(box[None])[0] + _area(others) - common
    shares: Array = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
    return shares


def _area(boxes: Array) -> Array:
    """Areas; 0 for boxes turned inside out."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.where((sides >= 0).all(1), sides.prod(1), np.float32(0))


@register("DetectionOutput")
class DetectionOutput(Layer):
    """Detections from box offsets, class scores and prior boxes: decoded, sorted, overlapping ones
    dropped.

    Bottoms: offsets N×(P·classes·4) (``share_location``: N×(P·4)), scores N×(P·classes), priors
    1×2×(4·P). Top: 1×1×K×7, rows of image, label, score, xmin, ymin, xmax, ymax, by image, label
    and falling score; if nothing was found in any image, a row [image, -1, ...] for each. Boxes are
    not clipped. No gradient.

    Differs from the fork: background_label_id -1 with shared boxes, which its schema recommends and
    its code stops at, means that there is no background class.

    Source: ``detection_output_layer.cpp``, ``bbox_util.cpp`` of Caffe's branch ssd.
    """

    option = "detection_output_param"
    bottoms = (3, 4)
    in_place = False
    has_backward = False

    def setup(self) -> None:
        o = self.options
        if o.num_classes < 1:
            raise self.error("must be given", "num_classes")
        if o.nms_param.nms_threshold < 0:
            raise self.error("must not be negative", "nms_param.nms_threshold")
        if not 0 < o.nms_param.eta <= 1:
            raise self.error("must be above 0 and at most 1", "nms_param.eta")
        if o.save_output_param.output_directory:
            raise self.error(
                "writing result files is not supported: leave output_directory out",
                "save_output_param",
            )
        self.code = schema.enum_name(o, "code_type")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        offsets, scores, priors = bottoms[:3]
        if len(priors) < 3 or priors[1] != 2 or priors[2] % 4:
            raise self.error(f"the priors must be 1×2×(4·P), found {priors}", "bottom")
        boxes, classes = priors[2] // 4, self.options.num_classes
        own = 1 if self.options.share_location else classes
        wanted = {"offsets": boxes * own * 4, "scores": boxes * classes}
        for (what, size), shape in zip(wanted.items(), (offsets, scores), strict=True):
            if self.four_axes(shape)[1:] != (size, 1, 1) or shape[0] != scores[0]:
                raise self.error(
                    f"{boxes} priors and {classes} classes need {what} of N×{size}, found {shape}",
                    "bottom",
                )
        return [(1, 1, 1, 7)]

    def gradient_to(self, index: int) -> bool:
        return False

    def decode(self, offsets: Array, priors: Array, variances: Array) -> Array:
        """Boxes (..., 4) from offsets (..., 4), prior boxes (P×1×4) and their variances.

        Raises
        ------
        PrototxtError : a prior box without an area, where the code divides by its size.
        """
        moved: Array = offsets if self.options.variance_encoded_in_target else offsets * variances
        size: Array = priors[..., 2:] - priors[..., :2]
        if self.code != "CORNER" and not (size > 0).all():
            raise self.error(
                f"with code_type {self.code} each prior box needs a width and a height above 0",
                "code_type",
            )
        if self.code != "CENTER_SIZE":
            unit: Any = 1 if self.code == "CORNER" else np.concatenate([size, size], -1)
            corners: Array = priors + moved * unit
            return corners
        centre = (priors[..., :2] + priors[..., 2:]) / 2 + moved[..., :2] * size
        half = np.exp(moved[..., 2:]) * size / 2
        return np.concatenate([centre - half, centre + half], -1)

    def suppress(self, boxes: Array, scores: Array) -> list[int]:
        """Indices of the boxes of one class that stay, by falling score; of equals the lower
        first."""
        o = self.options
        order = np.argsort(-scores, kind="stable")
        if o.HasField("confidence_threshold"):
            order = order[scores[order] > np.float32(o.confidence_threshold)]
        if o.nms_param.HasField("top_k") and o.nms_param.top_k > -1:
            order = order[: o.nms_param.top_k]
        threshold = o.nms_param.nms_threshold
        kept: list[int] = []
        for index in order:
            if kept and overlaps(boxes[index], boxes[kept]).max() > threshold:
                continue
            kept.append(int(index))
            if threshold > 0.5:
                threshold *= o.nms_param.eta
        return kept

    def detect(self, boxes: Array, scores: Array) -> list[tuple[int, float, Array]]:
        """(label, score, box) of one image, from boxes (P, own or 1, 4) and scores (P, classes)."""
        o = self.options
        found: list[tuple[int, float, Array]] = []
        for label in range(o.num_classes):
            if label == o.background_label_id:
                continue
            own = boxes[:, 0 if o.share_location else label]
            for index in self.suppress(own, scores[:, label]):
                found.append((label, float(scores[index, label]), own[index]))
        if o.keep_top_k > -1 and len(found) > o.keep_top_k:
            found = sorted(found, key=lambda row: -row[1])[: o.keep_top_k]
            found.sort(key=lambda row: row[0])
        return found

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        offsets, scores, priors = (b.detach().float().cpu().numpy() for b in bottoms[:3])
        fixed = priors.reshape(priors.shape[0], 2, -1, 1, 4)[0]
        rows: list[list[float]] = []
        for image in range(len(offsets)):
            moved = offsets[image].reshape(fixed.shape[1], -1, 4)
            boxes = self.decode(moved, fixed[0], fixed[1])
            found = self.detect(boxes, scores[image].reshape(fixed.shape[1], -1))
            rows += [[image, label, score, *box.tolist()] for label, score, box in found]
        if not rows:
            rows = [[image, -1, -1, -1, -1, -1, -1] for image in range(len(offsets))]
        top = torch.tensor(rows, dtype=torch.float32, device=bottoms[0].device)
        return (top.reshape(1, 1, -1, 7),)


def _rounded(values: Array) -> Array:
    """C's ``round``: halves away from zero."""
    away: Array = np.trunc(values + np.copysign(np.float32(0.5), values))
    return away


class _Regions(Layer):
    """Pools regions (rows of image index, x1, y1, x2, y2 in pixels of the input) of N×C×H×W."""

    bottoms = (2, 2)

    def gradient_to(self, index: int) -> bool:
        return index == 0

    def check(self, bottoms: Sequence[Shape]) -> None:
        """Refuse other shapes of features and regions."""
        if len(bottoms[0]) != 4:
            raise self.error(f"the features must be N×C×H×W, found {bottoms[0]}", "bottom")
        if count(bottoms[1][1:]) != 5:
            raise self.error(
                f"regions are rows of image, x1, y1, x2, y2; found {bottoms[1]}", "bottom"
            )

    def rows(self, regions: Tensor) -> Array:
        """The second bottom as an array R×5.

        Raises
        ------
        DataError : a number that is nan, infinite or too large for a pixel's place (2^31).
        """
        rows: Array = regions.detach().float().cpu().numpy().reshape(-1, 5)
        wrong = ~(np.abs(rows) < 2**31).all(1)
        if wrong.any():
            first = int(wrong.argmax())
            values = ", ".join(f"{value:g}" for value in rows[first])
            raise DataError(
                f"layer '{self.name}': blob '{self.spec.bottoms[1]}' holds the region {values} "
                f"(row {first}, counted from 0): its numbers must be finite, between -2^31 and 2^31"
            )
        return rows

    def images(self, regions: Array, batch: int) -> list[int]:
        """The image of each region, in a batch of so many.

        Raises
        ------
        PrototxtError : one that the batch does not have.
        """
        found = [int(region[0]) for region in regions]
        if any(not 0 <= image < batch for image in found):
            raise self.error(f"regions of images outside the batch of {batch}: {found}", "bottom")
        return found


def _edges(begin: Any, size: Any, bins: int, limit: int) -> list[tuple[int, int]]:
    """Borders of the bins along one axis, clipped to the map."""
    steps = np.arange(bins, dtype=np.float32)
    low = np.floor(steps * size + begin).clip(0, limit)
    high = np.ceil((steps + 1) * size + begin).clip(0, limit)
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]


@register("ROIPooling")
class ROIPooling(_Regions):
    """Maximum over a fixed number of bins of each region: N×C×H×W and regions R×5 to
    R×C×pooled_h×pooled_w; 0 for an empty bin, the gradient to the first of equals.

    Source: ``roi_pooling_layer.cpp`` of Fast R-CNN's Caffe.
    """

    truth = "OpenCV"
    option = "roi_pooling_param"

    def setup(self) -> None:
        o = self.options
        sizes = list(o.pooled_size)
        if sizes and (o.HasField("pooled_h") or o.HasField("pooled_w") or len(sizes) > 2):
            raise self.error("give pooled_size once or twice, or pooled_h and pooled_w", "pooled_h")
        self.pooled = (sizes[0], sizes[-1]) if sizes else (o.pooled_h, o.pooled_w)
        if min(self.pooled) < 1:
            raise self.error("pooled_h and pooled_w must be at least 1", "pooled_h")

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(bottoms)
        return [(bottoms[1][0], bottoms[0][1], *self.pooled)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        regions = self.rows(bottoms[1])
        scaled = _rounded(regions[:, 1:] * np.float32(self.options.spatial_scale))
        tops = []
        for image, (x1, y1, x2, y2) in zip(self.images(regions, len(x)), scaled, strict=True):
            tall = max(y2 - y1 + 1, np.float32(1)) / np.float32(self.pooled[0])
            wide = max(x2 - x1 + 1, np.float32(1)) / np.float32(self.pooled[1])
            rows = _region_edges(y1, tall, self.pooled[0], x.shape[2])
            columns = _region_edges(x1, wide, self.pooled[1], x.shape[3])
            bins = [_largest(x[image, :, a:b, c:d]) for a, b in rows for c, d in columns]
            tops.append(torch.stack(bins, 1).reshape(-1, *self.pooled))
        if not tops:
            return (x.new_zeros(0, x.shape[1], *self.pooled),)
        return (torch.stack(tops),)


def _region_edges(begin: Any, size: Any, bins: int, limit: int) -> list[tuple[int, int]]:
    """As :func:`_edges`, but rounded before the beginning of the region is added."""
    steps = np.arange(bins, dtype=np.float32)
    low = (np.floor(steps * size) + begin).clip(0, limit)
    high = (np.ceil((steps + 1) * size) + begin).clip(0, limit)
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def _largest(window: Tensor) -> Tensor:
    """The maximum of each channel; 0 where the window is empty."""
    flat = window.reshape(window.shape[0], -1)
    return flat.max(1).values if flat.shape[1] else flat.new_zeros(flat.shape[0])


@register("PSROIPooling")
class PSROIPooling(_Regions):
    """Mean over the bins of each region, each bin from channels of its own: N×(D·g·g)×H×W and
    regions R×5 to R×D×g×g.

    Source: ``psroi_pooling_layer.cu`` of R-FCN's Caffe.
    """

    truth = "OpenCV"
    option = "psroi_pooling_param"

    def setup(self) -> None:
        for name in ("output_dim", "group_size", "spatial_scale"):
            if getattr(self.options, name) <= 0:
                raise self.error("must be above 0", name)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(bottoms)
        depth, size = self.options.output_dim, self.options.group_size
        if bottoms[0][1] != depth * size * size:
            raise self.error(
                f"{depth} outputs of {size}×{size} bins need {depth * size * size} channels, found "
                f"{bottoms[0][1]}",
                "bottom",
            )
        return [(bottoms[1][0], depth, size, size)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, size = bottoms[0], self.options.group_size
        scale = np.float32(self.options.spatial_scale)
        regions = self.rows(bottoms[1])
        rounded = _rounded(regions[:, 1:])
        begin, end = rounded[:, :2] * scale, (rounded[:, 2:] + 1) * scale
        sizes = np.maximum(end - begin, np.float32(0.1)) / np.float32(size)
        tops = []
        for image, (x1, y1), (wide, tall) in zip(
            self.images(regions, len(x)), begin, sizes, strict=True
        ):
            maps = x[image].reshape(-1, size, size, *x.shape[2:])
            rows = _edges(y1, tall, size, x.shape[2])
            columns = _edges(x1, wide, size, x.shape[3])
            bins = [
                _mean(maps[:, i, j, a:b, c:d])
                for i, (a, b) in enumerate(rows)
                for j, (c, d) in enumerate(columns)
            ]
            tops.append(torch.stack(bins, 1).reshape(-1, size, size))
        if not tops:
            return (x.new_zeros(0, self.options.output_dim, size, size),)
        return (torch.stack(tops),)


def _mean(window: Tensor) -> Tensor:
    """The mean of each channel; 0 where the window is empty."""
    flat = window.reshape(window.shape[0], -1)
    return flat.mean(1) if flat.shape[1] else flat.new_zeros(flat.shape[0])


@register("SmoothL1Loss")
class SmoothL1Loss(Layer):
    """``sum s(a - b) / N`` with ``s(d) = (sigma · d)² / 2`` for ``|d| < 1 / sigma²``, else ``|d| -
    1 / (2 sigma²)``; gradients to both bottoms.

    A third bottom weighs the differences inside ``s``, a fourth the results outside. With three
    bottoms the gradient leaves the weight out, as the forks' does (the same for weights of 0 and
    1).

    Source: ``smooth_L1_loss_layer.cpp`` of Caffe's branch ssd and of py-faster-rcnn's Caffe.
    """

    option = "smooth_l1_loss_param"
    bottoms = (2, 4)
    loss = True

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        first = bottoms[0]
        for other in bottoms[1:]:
            if self.four_axes(other) != self.four_axes(first):
                raise self.error(
                    f"all bottoms need the same axes, found {first} and {other}", "bottom"
                )
        return [()]

    def gradient_to(self, index: int) -> bool:
        return index < 2

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        first = bottoms[0]
        difference = first - bottoms[1].reshape(first.shape)
        if len(bottoms) > 2:
            weighted = difference * bottoms[2].detach().reshape(first.shape)
            if len(bottoms) == 3:
                weighted = difference + (weighted - difference).detach()
            difference = weighted
        square = self.options.sigma**2
        size = difference.abs()
        loss = torch.where(
            size < 1 / square, 0.5 * square * difference * difference, size - 0.5 / square
        )
        if len(bottoms) > 3:
            loss = loss * bottoms[3].detach().reshape(first.shape)
        return (loss.sum() / first.shape[0],)
