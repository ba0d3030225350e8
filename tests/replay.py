"""Replays a recorded net: Caffe's forward and backward pass, blob by blob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from caffe_compat.layers.loss import HingeLoss
from caffe_compat.network.net import Net

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass
class Replay:
    """Values and gradients of a run."""

    net: Net
    blobs: dict[str, Tensor]
    first: dict[str, Tensor] = field(default_factory=dict)
    touched_by_clearing: set[str] = field(default_factory=set)

    def diff(self, blob: str) -> npt.NDArray[np.float32]:
        """Gradient of a blob; of an in-place blob, of the value below; 0 where there is none."""
        tensor = self.first[blob]
        return (
            (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)
            .detach()
            .cpu()
            .numpy()
        )

    def param_diff(self, layer: str, index: int) -> npt.NDArray[np.float32]:
        """Gradient of a parameter; 0 where there is none."""
        tensor = self.param(layer, index)
        return (
            (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)
            .detach()
            .cpu()
            .numpy()
        )

    def param(self, layer: str, index: int) -> Tensor:
        """A parameter."""
        node = next(n for n in self.net.graph.nodes if n.layer.name == layer)
        return self.net.param(node.params[index])


def set_params(net: Net, arrays: Arrays) -> None:
    """Take the parameters ``param:LAYER/I``."""
    with torch.no_grad():
        for node in net.graph.nodes:
            for i, param in enumerate(node.params):
                net.param(param).copy_(torch.from_numpy(arrays[f"param:{node.layer.name}/{i}"]))


def forward(net: Net, arrays: Arrays, device: str = "cpu") -> Replay:
    """Run on the inputs ``in:BLOB`` on the net's device, keeping each blob's first value for its
    gradient."""
    inputs = {
        key[3:]: torch.from_numpy(np.array(value)).to(device)
        for key, value in arrays.items()
        if key.startswith("in:")
    }
    wanted: set[str] = set()
    for node in net.graph.nodes:
        wanted.update(
            name for name, grad in zip(node.bottoms, node.bottom_grad, strict=True) if grad
        )
    for name, tensor in inputs.items():
        tensor.requires_grad_(name in wanted)
    first: dict[str, Tensor] = dict(inputs)
    for node in net.graph.nodes:
        if not node.layer.data:
            node.layer.forward = _watched(node.layer.forward, node.tops, first)  # type: ignore[method-assign]
    blobs = net.all_blobs(**inputs)
    replay = Replay(net, blobs, first)
    # The recorder cleared all diffs between forward and backward; HingeLoss keeps its margins there
    # in Caffe.
    for node in net.graph.nodes:
        if isinstance(node.layer, HingeLoss):
            replay.touched_by_clearing.add(node.bottoms[0])
    return replay


def _watched(run: Any, tops: tuple[str, ...], first: dict[str, Tensor]) -> Any:
    def watched(params: Any, *bottoms: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = run(params, *bottoms)
        for name, tensor in zip(tops, out, strict=True):
            if name not in first:
                first[name] = tensor
                if tensor.requires_grad:
                    tensor.retain_grad()
        return out

    return watched


def backward(replay: Replay, arrays: Arrays) -> None:
    """Start from what the outputs' diffs held.

    Where Caffe shares the memory of top and bottom (Reshape, a Concat of one), the recorder's
    clearing of the bottom's diff cleared the top's too, and ``diff:`` says so. An in-place output's
    diff is overwritten by the backward pass: there ``topdiff:`` is what it held.
    """
    in_place = {
        name for node in replay.net.graph.nodes for name in node.tops if name in node.bottoms
    }
    tops, grads = [], []
    for key in arrays:
        if key.startswith("topdiff:"):
            name = key[8:]
            top = replay.blobs[name]
            if top.requires_grad:
                tops.append(top)
                start = arrays[key] if name in in_place else arrays[f"diff:{name}"]
                grads.append(torch.from_numpy(np.array(start)).reshape(top.shape).to(top.device))
    if tops:
        torch.autograd.backward(tops, grads)


def relative_error(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """Largest difference over the largest recorded value; inf where shapes or nan places differ."""
    largest = np.nanmax(np.abs(theirs.astype(np.float64)), initial=1e-6)
    return absolute_error(ours, theirs) / float(largest)


def absolute_error(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """Largest difference; inf where shapes or nan places differ."""
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float("inf")
    real = ~np.isnan(theirs)
    a, b = ours[real].astype(np.float64), theirs[real].astype(np.float64)
    return float(np.abs(a - b).max(initial=0.0))
