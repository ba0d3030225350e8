"""A forward and a backward pass as Caffe runs them: layer by layer, in blobs that may share memory.

Values are torch tensors that nobody overwrites; what Caffe overwrites is here a new tensor under
the same name, and under every other name of that memory. Each layer that takes part in the backward
pass is recorded by itself: autograd knows its derivative, and where the blobs that Caffe's backward
pass reads have changed since, the layer is asked for what Caffe computes then.

Networks of which :attr:`caffe_compat.network.memory.Memory.plain` holds need none of this in a
training: there autograd goes through the whole network at once.

Source: ``Net::ForwardFromTo`` and ``Net::BackwardFromTo`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from caffe_compat.layers.base import Overwritten
from caffe_compat.network.graph import Graph, Node, Param


class Owner(Protocol):
    """The network whose layers a pass runs: what a pass needs of it.

    Attributes
    ----------
    graph : the checked graph.
    left_at_losses : gradients that the latest pass wrote over the weights of losses.
    """

    graph: Graph
    left_at_losses: dict[str, Tensor]

    def param(self, param: Param) -> Tensor:
        """A parameter's tensor."""

    def again(self) -> AbstractContextManager[None]:
        """Layers inside run a second time on the same values."""


@dataclass(frozen=True)
class _Record:
    """What a layer saw in its forward pass.

    Attributes
    ----------
    bottoms : leaves that gradients can be asked of.
    tops : what became of them.
    read, made : how often the memory of each bottom and top had been written.
    params : how often each parameter had been.
    """

    bottoms: list[Tensor]
    tops: Sequence[Tensor]
    read: list[int]
    made: list[int]
    params: list[int]


class Pass:
    """Values and gradients of a network's blobs.

    Parameters
    ----------
    net : whose layers and parameters to use.

    Attributes
    ----------
    values : by blob, split copies included.
    diffs : gradients by piece of memory (:attr:`caffe_compat.network.memory.Memory.diff`).
    param_diffs : by parameter key; what the latest backward pass computed.
    left : gradients by piece of memory in which a forward pass left something.
    """

    def __init__(self, net: Owner) -> None:
        self.net = net
        self.memory = net.graph.memory
        self.values: dict[str, Tensor] = {}
        self.diffs: dict[str, Tensor] = {}
        self.param_diffs: dict[tuple[int, int], Tensor] = {}
        self.left: dict[str, Tensor] = {}
        self._records: dict[int, _Record] = {}
        self._written: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        for name, piece in self.memory.data.items():
            self._names.setdefault(piece, []).append(name)
        self._parameters = {
            step.tops[0]: step.params[0]
            for step in net.graph.steps
            if step.layer.type == "Parameter"
        }

    def put(self, name: str, value: Tensor) -> None:
        """Overwrite a blob, and all that share its memory."""
        piece = self.memory.data[name]
        self._written[piece] = self._written.get(piece, 0) + 1
        self.values[name] = value
        copies = self.net.graph.aliases
        for other in self._names[piece]:
            if copies.get(other) == name:
                self.values[other] = value
            elif other != name and other in self.values:
                self.values[other] = value.reshape(self.values[other].shape)
        if piece in self._parameters and piece in self.values:
            param = self._parameters[piece]
            with torch.no_grad():
                self.net.param(param).copy_(self.values[piece].reshape(param.shape))

    def load(self, name: str, value: Tensor) -> None:
        """Give a blob that holds nothing yet its value."""
        self.values[name] = value
        copies = self.net.graph.aliases
        self.values.update(
            (other, value)
            for other in self._names[self.memory.data[name]]
            if copies.get(other) == name
        )

    def forward(self, steps: Iterable[Node], record: bool = True) -> None:
        """Run layers on what the blobs hold; ``record`` what their backward pass needs."""
        for step in steps:
            if step.layer.data:
                continue
            with torch.set_grad_enabled(record and step.backward):
                self._run(step)

    def _run(self, step: Node) -> None:
        recorded = torch.is_grad_enabled()
        bottoms = [self.values[name] for name in step.bottoms]
        if recorded:
            bottoms = [
                b.detach().requires_grad_(goes)
                for b, goes in zip(bottoms, step.bottom_grad, strict=True)
            ]
        read = [self._count(name) for name in step.bottoms]
        with torch.no_grad():
            margins = step.layer.margins(bottoms)
        if margins is not None:
            self.left[self.memory.diff[step.bottoms[0]]] = margins
        tops = step.layer.run_forward(self._params(step), *bottoms)
        for name, top in zip(step.tops, tops, strict=True):
            if step.layer.shares_data():
                self.values[name] = top.detach()  # nothing is written: it is the bottom's memory
            elif step.layer.type == "Parameter":
                self.values[name] = top.detach().clone()  # a parameter's memory may change later
            else:
                self.put(name, top.detach())
        if recorded:
            made = [self._count(name) for name in step.tops]
            self._records[id(step)] = _Record(bottoms, tops, read, made, self._versions(step))

    def _params(self, step: Node) -> list[Tensor]:
        return [self.net.param(param) for param in step.params]

    def _versions(self, step: Node) -> list[int]:
        return [tensor._version for tensor in self._params(step)]

    def _count(self, name: str) -> int:
        return self._written.get(self.memory.data[name], 0)

    # ------------------------------------------------------------ backward

    def diff(self, name: str) -> Tensor:
        """The gradient of a blob; 0 where nobody computed one."""
        piece = self.memory.diff[name]
        if piece not in self.diffs:
            self.diffs[piece] = torch.zeros_like(self.values[name])
        return self.diffs[piece].reshape(self.values[name].shape)

    def backward(self, steps: Sequence[Node]) -> set[str]:
        """Run the layers' backward passes, the last one first, on what ``diffs`` holds.

        Returns
        -------
        The pieces of memory whose gradients were computed.

        Raises
        ------
        PrototxtError : a layer that Caffe's backward pass stops at.
        """
        changed: set[str] = set()
        for step in reversed(steps):
            if not step.backward:
                continue
            if (refused := step.layer.refused_gradient(step.bottom_grad)) is not None:
                raise refused
            if id(step) not in self._records:  # its forward pass was not run, its blobs hold values
                with torch.enable_grad():
                    self._run(step)
            for name, gradient in self._gradients(step):
                piece = self.memory.diff[name]
                self.diffs[piece] = gradient
                changed.add(piece)
        return changed

    def _gradients(self, step: Node) -> list[tuple[str, Tensor]]:
        """Gradients of a layer's bottoms; those of its parameters go to ``param_diffs``."""
        record = self._records[id(step)]
        bottoms, tops = record.bottoms, record.tops
        # a layer in place behind this one may have given the memory another shape
        diffs = [
            self.diff(name).reshape(top.shape) for name, top in zip(step.tops, tops, strict=True)
        ]
        if self._overwritten(step, record):
            now = self._present(step.bottoms, bottoms)
            if step.layer.copies_first and step.layer.works_in_place:
                now[0] = bottoms[0]
            made = self._present(step.tops, tops)
            computed = step.layer.backward_overwritten(Overwritten(bottoms, now, made, diffs))
            if computed is not None:
                both = zip(step.bottoms, computed, step.bottom_grad, strict=True)
                return [(name, gradient) for name, gradient, goes in both if goes]
            bottoms, tops = self._again(step, now)
        elif record.params != self._versions(step) and not step.layer.changes_state:
            bottoms, tops = self._again(step, bottoms)  # Caffe takes the present parameters
        learned = [
            (param, tensor)
            for param, tensor, goes in zip(
                step.params, self._params(step), step.param_grad, strict=True
            )
            if goes and tensor.requires_grad
        ]
        # two parameters of a layer may be one by their name: its gradient is of both uses already
        learned = list({param.owner: (param, tensor) for param, tensor in learned}.values())
        asked = [
            (n, b) for n, b, g in zip(step.bottoms, bottoms, step.bottom_grad, strict=True) if g
        ]
        wanted = [b for _, b in asked] + [tensor for _, tensor in learned]
        gradients = _derivative(tops, diffs, wanted)
        for (param, _), gradient in zip(learned, gradients[len(asked) :], strict=True):
            self._add(step, param, gradient)
        found = [(n, gradient) for (n, _), gradient in zip(asked, gradients, strict=False)]
        others = step.bottom_grad[1:] or step.param_grad
        if bottoms and not step.bottom_grad[0] and any(others):
            with torch.no_grad():
                product = step.layer.product(bottoms, diffs)
            if product is not None:
                found.append((step.bottoms[0], product))
        return found

    def _present(self, names: Sequence[str], seen: Sequence[Tensor]) -> list[Tensor]:
        """What blobs hold now, in the shapes in which a layer saw them."""
        return [
            self.values[name].reshape(tensor.shape)
            for name, tensor in zip(names, seen, strict=True)
        ]

    def _again(
        self, step: Node, bottoms: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """Run a layer on other values than its forward pass saw; its blobs stay."""
        leaves = [
            b.detach().requires_grad_(goes)
            for b, goes in zip(bottoms, step.bottom_grad, strict=True)
        ]
        with torch.enable_grad(), self.net.again():
            return leaves, step.layer.run_forward(self._params(step), *leaves)

    def _overwritten(self, step: Node, record: _Record) -> bool:
        reads = step.layer.reads
        if "diff" in reads and step.layer.works_in_place:
            return True
        before = (record.read if "bottom" in reads else []) + (
            record.made if "top" in reads else []
        )
        names = (step.bottoms if "bottom" in reads else ()) + (step.tops if "top" in reads else ())
        if "sign" in reads:
            before, names = before + record.made, names + step.tops
        return before != [self._count(name) for name in names]

    def _add(self, step: Node, param: Param, gradient: Tensor) -> None:
        """Add to a parameter's gradient; shared parameters have one."""
        key = param.owner
        shapes = [tuple(b.shape) for b in self._records[id(step)].bottoms]
        number = step.params.index(param)
        if key in self.param_diffs and not step.layer.replaces_gradient(number, shapes):
            gradient = self.param_diffs[key] + gradient
        self.param_diffs[key] = gradient


def _derivative(
    tops: Sequence[Tensor], diffs: Sequence[Tensor], wanted: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of ``wanted``; 0 where no top depends on it."""
    ends = [(top, diff) for top, diff in zip(tops, diffs, strict=True) if top.requires_grad]
    if not ends or not wanted:
        return [torch.zeros_like(tensor) for tensor in wanted]
    found = torch.autograd.grad(
        [top for top, _ in ends],
        wanted,
        [diff.reshape(top.shape).to(top.dtype) for top, diff in ends],
        retain_graph=True,
        allow_unused=True,
    )
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(wanted, found, strict=True)
    ]


class Whole(torch.autograd.Function):
    """A pass through a whole network as one function of its inputs and parameters, for autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        run: Pass,
        names: Sequence[str],
        wanted: Sequence[str],
        owners: Sequence[tuple[int, int]],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Values of the wanted blobs.

        Parameters
        ----------
        names : of the input blobs, the first of ``tensors``.
        owners : keys of the parameters, the rest of them.
        """
        ctx.set_materialize_grads(False)
        ctx.run, ctx.names, ctx.wanted, ctx.owners = run, names, wanted, owners
        for name, tensor in zip(names, tensors, strict=False):
            run.put(name, tensor.detach())
        run.forward(run.net.graph.steps)
        return tuple(run.values[name].clone() for name in wanted)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of inputs and parameters."""
        run: Pass = ctx.run
        # where a loss with a weight is read, too, the weight stands at the copy made for it
        moved = {
            step.bottoms[0]: step.tops[0]
            for step in run.net.graph.steps
            if step.index < 0 and step.loss_weights[0]
        }
        run.diffs, run.param_diffs = dict(run.left), {}
        for name, gradient in zip(ctx.wanted, gradients, strict=True):
            if gradient is not None:
                run.diffs[run.memory.diff[moved.get(name, name)]] = gradient
        changed = run.backward(run.net.graph.steps)
        written = run.memory.reread | run.memory.kept
        run.net.left_at_losses.update({name: run.diff(name) for name in written})
        inputs = [run.diff(n) if run.memory.diff[n] in changed else None for n in ctx.names]
        params = [run.param_diffs.get(owner) for owner in ctx.owners]
        return (None, None, None, None, *inputs, *params)


def without_backward(value: Tensor, error: Exception) -> Tensor:
    """The same value; a backward pass that begins at it raises the error."""

    def stop(_: Tensor) -> None:
        raise error.with_traceback(None)  # the graph keeps it, and a traceback keeps tensors

    value = value.detach().requires_grad_()
    value.register_hook(stop)  # type: ignore[no-untyped-call]
    return value
