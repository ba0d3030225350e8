"""Losses and Accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_compat.definition import schema
from caffe_compat.layers.base import Layer, Shape, count, register
from caffe_compat.layers.slopes import with_slopes
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")

_FLT_MIN_LOG = -87.33654475055310898657  # log of the smallest normal float32
_LOG_THRESHOLD = 1e-20


def _floor(p: Tensor, least: float) -> Tensor:
    """``max(p, least)`` in value, with the gradient 1 everywhere, as Caffe's backward passes have
    it."""
    return with_slopes()(p.detach().clamp_min(least), (p.new_ones(()),), p)


class _Loss(Layer):
    bottoms = (2, 2)
    loss = True
    not_differentiable: tuple[int, ...] = (1,)  # labels

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if not bottoms[0] or not bottoms[1] or bottoms[0][0] != bottoms[1][0]:
            raise self.error(
                f"both bottoms need the same first dimension, found {bottoms[0]} and {bottoms[1]}",
                "bottom",
            )
        return [()]

    def normalization(self, default: str) -> str:
        """What ``loss_param`` says the loss is divided by: FULL, VALID, BATCH_SIZE or NONE.

        The old ``normalize`` counts where ``normalization`` is not given; ``default`` where neither
        is.
        """
        given = self.spec.message.loss_param
        if given.HasField("normalization"):
            return schema.enum_name(given, "normalization")
        if given.HasField("normalize"):
            return "VALID" if given.normalize else "BATCH_SIZE"
        return default

    @property
    def ignored(self) -> int | None:
        """The label that ``loss_param`` leaves out."""
        given = self.spec.message.loss_param
        return int(given.ignore_label) if given.HasField("ignore_label") else None

    @staticmethod
    def divided(total: Tensor, valid: Tensor, batch: int, how: str) -> Tensor:
        """A sum over places, normalized; ``valid`` tells which places count."""
        divisors: dict[str, Tensor | float] = {
            "FULL": float(valid.numel()),
            "VALID": valid.sum().to(total.dtype).clamp_min(1.0),
            "BATCH_SIZE": float(batch),
            "NONE": 1.0,
        }
        return total / divisors[how]

    @staticmethod
    def classes(x: Tensor) -> Tensor:
        """Predictions as one row per item."""
        return x.reshape(x.shape[0], count(x.shape[1:]))


@register("EuclideanLoss")
class EuclideanLoss(_Loss):
    """``sum (a - b)² / (2 N)``, N the first dimension; gradients to both bottoms.

    Source: ``euclidean_loss_layer.cpp`` of BVLC Caffe.
    """

    reads = ()
    not_differentiable = ()

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.four_axes(bottoms[0])
        if count(bottoms[0][1:]) != count(bottoms[1][1:]):
            raise self.error(
                f"both bottoms need the same size per item, found {bottoms[0]} and {bottoms[1]}",
                "bottom",
            )
        return super().output_shapes(bottoms)

    def gradient_to(self, index: int) -> bool:
        return True

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        return ((difference * difference).sum() / (2 * bottoms[0].shape[0]),)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(_Loss):
    """Cross-entropy of the softmax along ``softmax_param.axis``.

    Divided by ``normalization``: VALID (labels not ignored, the default), FULL, BATCH_SIZE, NONE.

    Source: ``softmax_loss_layer.cpp`` of BVLC Caffe.
    """

    option = "loss_param"
    tops = (1, None)  # more than one is refused by name
    reads = ()

    def setup(self) -> None:
        if len(self.spec.tops) > 1:
            raise self.error(
                "a second top is refused, as by Caffe; put a Softmax layer beside it for the "
                "probabilities",
                "top",
            )

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        super().output_shapes(bottoms)
        axis = self.axis(self.spec.message.softmax_param.axis, len(bottoms[0]))
        wanted = count(bottoms[0][:axis]) * count(bottoms[0][axis + 1 :])
        if count(bottoms[1]) != wanted:
            raise self.error(
                f"predictions {bottoms[0]} need {wanted} labels (one for each place outside "
                f"axis {axis}), found "
                f"{count(bottoms[1])}",
                "bottom",
            )
        return [()]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0]
        axis = self.axis(self.spec.message.softmax_param.axis, x.dim())
        rows = x.movedim(axis, -1)
        places = rows.shape[:-1]
        ignored = self.ignored
        label = self.indices(1, bottoms[1].reshape(places), rows.shape[-1], ignored)
        valid = torch.ones_like(label, dtype=torch.bool) if ignored is None else label != ignored
        logs = torch.log_softmax(rows, -1)
        picked = _floor(
            logs.gather(-1, torch.where(valid, label, 0).unsqueeze(-1)).squeeze(-1), _FLT_MIN_LOG
        )
        total = -torch.where(valid, picked, 0.0).sum()
        batch = count(tuple(x.shape[:axis]))
        return (self.divided(total, valid, batch, self.normalization("VALID")),)


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(_Loss):
    """``-mean log p[label]`` of given probabilities (not below 1e-20).

    Source: ``multinomial_logistic_loss_layer.cpp`` of BVLC Caffe.
    """

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.four_axes(bottoms[0])
        if count(self.four_axes(bottoms[1])[1:]) != 1:
            raise self.error(f"labels must be one per item, found shape {bottoms[1]}", "bottom")
        return super().output_shapes(bottoms)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        p = self.classes(bottoms[0])
        picked = p.gather(1, self.indices(1, bottoms[1].reshape(-1, 1), p.shape[1]))
        return (-torch.log(_floor(picked, _LOG_THRESHOLD)).sum() / p.shape[0],)


@register("InfogainLoss")
class InfogainLoss(_Loss):
    """``-mean sum_j H[label, j] log p_j``; H is the third bottom.

    p are given probabilities; with ``axis`` or ``loss_param`` in the definition, which only later
    Caffe has, p is the softmax of given scores along the axis, divided as in SoftmaxWithLoss, and
    a second top gives p.

    Source: ``infogain_loss_layer.cpp`` of the Caffe that the CPM release forked, and of BVLC Caffe.
    """

    option = "infogain_loss_param"
    bottoms = (2, 3)
    tops = (1, 2)
    not_differentiable = (1, 2)

    def setup(self) -> None:
        if len(self.spec.bottoms) < 3:
            raise self.error(
                "give the matrix H as third bottom (reading it from a file is not supported)",
                "source",
            )
        self._later = self.has("axis") or self.spec.message.HasField("loss_param")
        if not self._later and len(self.spec.tops) > 1:
            raise self.error("a second top needs the form with axis", "top")

    def _axis(self, axes: int) -> int:
        return self.axis(self.options.axis, axes) if self._later else 1

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if not self._later:
            size = count(self.four_axes(bottoms[0])[1:])
            if count(self.four_axes(bottoms[1])[1:]) != 1:
                raise self.error(f"labels must be one per item, found shape {bottoms[1]}", "bottom")
            if self.four_axes(bottoms[2]) != (1, 1, size, size):
                raise self.error(f"H must be 1×1×{size}×{size}, found shape {bottoms[2]}", "bottom")
            return super().output_shapes(bottoms)
        size = bottoms[0][self._axis(len(bottoms[0]))]
        places = count(bottoms[0]) // max(size, 1)
        if count(bottoms[1]) != places:
            raise self.error(
                f"scores {bottoms[0]} need {places} labels, found {count(bottoms[1])}", "bottom"
            )
        if count(bottoms[2]) != size * size:
            raise self.error(f"H must be {size}×{size}, found shape {bottoms[2]}", "bottom")
        super().output_shapes(bottoms)
        return [(), bottoms[0]][: max(1, len(self.spec.tops))]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self._later:
            return self._forward_scores(*bottoms)
        p = self.classes(bottoms[0])
        matrix = bottoms[2].detach().reshape(p.shape[1], p.shape[1])
        rows = matrix[self.indices(1, bottoms[1].reshape(-1), p.shape[1])]
        return (-(rows * torch.log(_floor(p, _LOG_THRESHOLD))).sum() / p.shape[0],)

    def _forward_scores(self, x: Tensor, label: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        axis = self._axis(x.dim())
        logs = torch.log_softmax(x, axis).movedim(axis, -1)
        places = label.reshape(logs.shape[:-1])
        labels = self.indices(1, places, logs.shape[-1], self.ignored)
        valid = torch.ones_like(labels, dtype=torch.bool)
        if self.ignored is not None:
            valid = labels != self.ignored
        gains = matrix.detach().reshape(logs.shape[-1], -1)[torch.where(valid, labels, 0)]
        each = (gains * _floor(logs, math.log(_LOG_THRESHOLD))).sum(-1)
        total = -torch.where(valid, each, 0.0).sum()
        batch = count(tuple(x.shape[:axis]))
        loss = self.divided(total, valid, batch, self.normalization("VALID"))
        return (loss, torch.softmax(x, axis).detach())[: max(1, len(self.spec.tops))]


@register("HingeLoss")
class HingeLoss(_Loss):
    """One-against-all hinge loss, L1 or L2, divided by N.

    Caffe keeps the margins in the bottom's diff between forward and backward: who clears diffs in
    between (no solver does) gets no gradient from it. Ours does not depend on that.

    Source: ``hinge_loss_layer.cpp`` of BVLC Caffe.
    """

    option = "hinge_loss_param"
    reads = ()
    leaves_margins = True

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.four_axes(bottoms[0])
        return super().output_shapes(bottoms)

    def margins(self, bottoms: Sequence[Tensor]) -> Tensor:
        x = self.classes(bottoms[0])
        labels = bottoms[1].reshape(-1, 1)[: len(x)]  # there may be more than Caffe looks at
        sign = torch.ones_like(x).scatter(1, self.indices(1, labels, x.shape[1]), -1.0)
        margins = 1 + sign * x
        return torch.where(margins > 0, margins, 0.0)  # 0 for nan, too

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        margin = self.margins(bottoms)
        if schema.enum_name(self.options, "norm") == "L2":
            margin = margin * margin
        return (margin.sum() / len(margin),)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_Loss):
    """``-sum (t log σ(x) + (1-t) log(1-σ(x))) / N``; no gradient to the targets.

    ``loss_param`` of later Caffe leaves out targets that equal ``ignore_label`` and divides by
    something else than N.

    Source: ``sigmoid_cross_entropy_loss_layer.cpp`` of BVLC Caffe (the one that the CPM release
    forked divides by N always).
    """

    option = "loss_param"
    reads = ()

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if count(bottoms[0]) != count(bottoms[1]):
            raise self.error(
                f"both bottoms need the same size, found {bottoms[0]} and {bottoms[1]}", "bottom"
            )
        return super().output_shapes(bottoms)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, target = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        each = F.binary_cross_entropy_with_logits(x, target, reduction="none")
        valid = torch.ones_like(target, dtype=torch.bool)
        if self.ignored is not None:
            valid = target.long() != self.ignored
        total = torch.where(valid, each, 0.0).sum()
        return (self.divided(total, valid, x.shape[0], self.normalization("BATCH_SIZE")),)


@register("ContrastiveLoss")
class ContrastiveLoss(_Loss):
    """Pairs pulled together (similar) or pushed apart to a margin, ``/ (2 N)``; ``legacy_version``
    uses squared distances.

    Caffe's gradient adds 1e-4 to the distance it divides by; so does ours.

    Source: ``contrastive_loss_layer.cpp`` of BVLC Caffe.
    """

    option = "contrastive_loss_param"
    bottoms = (3, 3)
    reads = ()
    not_differentiable = ()

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        first, second, label = (self.four_axes(bottom) for bottom in bottoms)
        if (
            not all(bottoms)
            or first != second
            or count(first[2:]) != 1
            or count(label[1:]) != 1
            or label[0] < first[0]
        ):
            raise self.error(
                f"needs two blobs N×C(×1×1) and N labels, found {list(bottoms)}", "bottom"
            )
        return super().output_shapes(bottoms)

    def gradient_to(self, index: int) -> bool:
        return index != 2

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        a = self.classes(bottoms[0])
        difference = a - bottoms[1].reshape(a.shape)
        square = (difference * difference).sum(1)
        similar = bottoms[2].detach().reshape(-1)[: len(a)].long() != 0  # 0.5 counts as 0
        margin = self.options.margin
        if self.options.legacy_version:
            apart = torch.relu(margin - square)
        else:
            distance = square.detach().sqrt()
            # value sqrt(square), gradient difference / (distance + 1e-4)
            soft = distance + (square - square.detach()) / (2 * (distance + 1e-4))
            apart = torch.relu(margin - soft) ** 2
        return (torch.where(similar, square, apart).sum() / (2 * a.shape[0]),)


@register("Accuracy")
class Accuracy(Layer):
    """Share of labels among the ``top_k`` predictions; of equal scores the higher index ranks
    first.

    A label that is no class is never among them. A second top gives the accuracy of each class (0
    where a class does not occur), and has no place for such a label. Where every label is ignored
    the accuracy is no number. (This is Caffe as recorded; later versions count equal scores against
    the label, and give 0 for no labels.)

    Source: ``accuracy_layer.cpp`` of BVLC Caffe.
    """

    option = "accuracy_param"
    bottoms = (2, 2)
    reads = ()
    not_differentiable = (0, 1)
    tops = (1, 2)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        x, label = bottoms
        axis = self.axis(self.options.axis, len(x))
        wanted = count(x[:axis]) * count(x[axis + 1 :])
        if count(label) != wanted:
            raise self.error(
                f"predictions {x} need {wanted} labels, found {count(label)}", "bottom"
            )
        if self.options.top_k > x[axis]:
            raise self.error(
                f"is more than the number of classes: {self.options.top_k} > {x[axis]}", "top_k"
            )
        return [(), (x[axis],)][: len(self.spec.tops)]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x = bottoms[0].detach()
        rows = x.movedim(self.axis(self.options.axis, x.dim()), -1)
        classes = rows.shape[-1]
        rows = rows.reshape(-1, classes)
        ignored = self.options.ignore_label if self.has("ignore_label") else None
        given = bottoms[1].detach().reshape(-1)
        by_class = len(self.spec.tops) > 1
        label = self.indices(1, given, classes, ignored) if by_class else given.long()
        valid = torch.ones_like(label, dtype=torch.bool) if ignored is None else label != ignored
        rows, label = rows[valid], label[valid]
        known = (label >= 0) & (label < classes)
        own = rows.gather(1, label.clamp(0, classes - 1)[:, None])
        later = torch.arange(classes, device=x.device)[None] > label[:, None]
        ahead = ((rows > own) | ((rows == own) & later)).sum(1)
        wide = torch.promote_types(x.dtype, torch.float32)  # bfloat16 cannot count
        hit = (known & (ahead < self.options.top_k)).to(wide)
        tops = [hit.sum() / max(1, len(hit)) if len(hit) else hit.sum() / 0.0]
        if by_class:
            total = torch.bincount(label, minlength=classes).to(wide)
            tops.append(torch.bincount(label, hit, classes).to(wide) / total.clamp_min(1))
        return tuple(tops)
