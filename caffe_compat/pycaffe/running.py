"""Passes that start from what a script's blobs hold, and leave their results there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from caffe_compat.engine.plan import using
from caffe_compat.network.graph import Node
from caffe_compat.network.net import Net
from caffe_compat.network.passes import Pass
from caffe_compat.pycaffe.blobs import Array, Blob, Blobs


class Running:
    """The latest pass of a net.

    Parameters
    ----------
    net : the net.
    blobs : its blobs as scripts see them.
    params : parameter key -> its blob.
    """

    def __init__(self, net: Net, blobs: Blobs, params: dict[tuple[int, int], Blob]) -> None:
        self._net, self._blobs, self._params = net, blobs, params
        self._pass = Pass(net)
        memory = net.graph.memory
        owners: dict[str, Blob] = {
            step.tops[0]: params[step.params[0].owner]
            for step in net.graph.steps
            if step.layer.type == "Parameter"
        }
        for name, blob in blobs.everything().items():
            owner = owners.setdefault(memory.diff[name], blob)
            if owner is not blob:
                blob.share_diff(owner)

    def begin(self, given: dict[str, Tensor]) -> None:
        """A new pass from these inputs."""
        self._pass = Pass(self._net)
        for name, value in given.items():
            self._pass.put(name, value)

    def forward(self, steps: Sequence[Node], leave: Iterable[str] | None = None) -> None:
        """Run layers, and leave these blobs' values (default: all)."""
        with using(self._net.engine):
            self._pass.forward(steps)
        self._leave(self._net.graph.blobs if leave is None else leave)
        for name, blob in self._blobs.everything().items():
            if (piece := self._net.graph.memory.diff[name]) in self._pass.left:
                blob._set_diff(_array(self._pass.left[piece].reshape(blob._data.shape)))

    def take(self) -> None:
        """What a script wrote into blobs counts from now on, for all that share their memory."""
        run = self._pass
        changed = []
        for name in self._net.graph.blobs:
            array = self._blobs[name]._data
            if name not in run.values:
                run.load(name, self._tensor(array))
            elif not np.array_equal(array, _array(run.values[name]), equal_nan=True):
                changed.append((name, self._tensor(array)))
        for name, value in changed:
            run.put(name, value)
        if changed:
            self._leave(self._net.graph.blobs)

    def backward(self, steps: Sequence[Node]) -> None:
        """Run the layers' backward passes from the blobs' diffs; parameters' diffs add up."""
        run, memory = self._pass, self._net.graph.memory
        blobs = self._blobs.everything()
        seen = {
            memory.diff[name]: self._tensor(blob.diff)
            for name, blob in blobs.items()
            if blob.has_diff
        }
        run.diffs = {**run.left, **seen}  # no script sees the split copies, where margins may be
        run.param_diffs = {
            key: self._tensor(blob.diff) for key, blob in self._params.items() if blob.has_diff
        }
        with using(self._net.engine):
            changed = run.backward(steps)
        for key, gradient in run.param_diffs.items():
            self._params[key]._set_diff(_array(gradient))
        for name, blob in blobs.items():
            if memory.diff[name] in changed:
                blob._set_diff(_array(run.diff(name)))

    def _tensor(self, array: Array) -> Tensor:
        device = next(iter(self._net.parameters()), torch.zeros(0)).device
        return torch.from_numpy(np.array(array, np.float32)).to(device)

    def _leave(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._pass.values:
                self._blobs[name]._set(_array(self._pass.values[name]))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().numpy()
