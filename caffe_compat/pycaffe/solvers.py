"""Solvers as scripts see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffe_compat.definition.prototxt import read_solver
from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.net import Net as _Net
from caffe_compat.pycaffe.mode import current_device, log
from caffe_compat.pycaffe.nets import Net
from caffe_compat.pycaffe.paths import existing
from caffe_compat.training.solver import Solver as _Solver


class SGDSolver:
    """A training, step by step.

    Parameters
    ----------
    path : solver definition; names in it count from the current folder, as in Caffe.

    Attributes
    ----------
    net : the training net; after :meth:`step` its blobs are those of the last batch, from before
        the update.

    Raises
    ------
    CaffeCompatError : the definition is of another type than this class; :func:`get_solver` takes
        any.
    MissingFile : the definition, or a net or weights that it names, are not there.
    """

    type: ClassVar[str] = "SGD"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        spec = read_solver(existing(path, "solver"))
        if spec.message.type != self.type:
            kind = spec.message.type
            raise CaffeCompatError(
                f"{os.fspath(path)}: is a solver of type {kind}, not {self.type}: use get_solver"
            )
        _check_files(spec.message)
        self._solver = _Solver(spec, root=Path("."), device=current_device())
        self.net = Net._of(self._solver.net, self._solver.feed)
        self._tests = [Net._of(net, feed) for net, feed, _ in self._solver._tests]
        faces = (self.net, *self._tests)
        for face in faces:
            face._kin = faces
        for face in self._tests:
            face.share_with(self.net)
        self._solver.fill = self._filled
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any]]] = []

    def _filled(self, net: _Net) -> dict[str, Tensor]:
        """What the blobs of a net's Input layers hold, which a script fills before each step, and
        those of DummyData's constants, which Caffe fills once, so that a script may, too."""
        faces = {id(face._net): face for face in (self.net, *self._tests)}
        face = faces[id(net)]
        fed = set(face._feed.shapes if face._feed is not None else {}) - set(face._constants)
        return {name: face._tensor(name) for name in net.graph.inputs if name not in fed}

    @property
    def iter(self) -> int:
        """Updates made so far."""
        return self._solver.iteration

    @property
    def test_nets(self) -> list[Net]:
        """The test nets; they have the training net's parameters."""
        return self._tests

    def _take_params(self) -> None:
        """What scripts wrote into parameters counts from now on, for all nets; their latest passes
        are of the old ones."""
        self.net._finish_all()
        for face in (self.net, *self._tests):
            face._take_params()

    def step(self, count: int) -> None:
        """Make some updates, with the definition's tests before and its snapshots after them."""
        for left in range(count, 0, -1):
            if self._test_is_due and (self.iter or self.param.test_initialization):
                self._test()
            for on_start, _ in self._callbacks:
                on_start()
            self._take_params()
            last = left == 1 or bool(self._callbacks)
            self._solver.on_blobs = self._keep if last else None
            self._solver.on_update = self._keep_updates if left == 1 else None
            if self._callbacks:
                self._solver.on_gradients = lambda *_: self._call_back()
            self._solver.step()
            if last:
                self.net._give_params()
            if self._snapshot_is_due:
                self.snapshot()

    @property
    def _test_is_due(self) -> bool:
        interval = self.param.test_interval
        return bool(interval) and self.iter % interval == 0

    @property
    def _snapshot_is_due(self) -> bool:
        interval = self.param.snapshot
        return bool(interval) and self.iter % interval == 0

    def _test(self) -> None:
        """Run the test nets; the results are messages of the log."""
        self._take_params()
        for line in self._solver.test_lines():
            log(line)
        for face in (self.net, *self._tests):
            face._give_params()

    def _call_back(self) -> None:
        """Let scripts look at the gradients, and change them."""
        for _, on_gradients_ready in self._callbacks:
            on_gradients_ready()
        self._take_gradients()

    def _take_gradients(self) -> None:
        for blob, (_, _, tensor) in zip(
            self.net._owned, self._solver.net.owned_params(), strict=True
        ):
            if blob.has_diff and tensor.requires_grad:
                given = torch.from_numpy(blob.diff.copy()).to(tensor.device)
                tensor.grad = given.reshape(tensor.shape)

    def add_callback(
        self, on_start: Callable[[], Any], on_gradients_ready: Callable[[], Any]
    ) -> None:
        """Call a script's functions in every step from now on.

        Parameters
        ----------
        on_start : before the forward pass.
        on_gradients_ready : after the backward pass, before the update; it may change the
            parameters' ``diff``.
        """
        self._callbacks.append((on_start, on_gradients_ready))

    def apply_update(self) -> None:
        """Update the parameters by what their ``diff`` holds, as one iteration does after its
        backward pass (decay, rate and momentum included); counts as an iteration."""
        self._take_params()
        self._take_gradients()
        self._solver.on_update = self._keep_updates
        self._solver.apply_update()
        self.net._give_params()

    def share_weights(self, net: Net) -> None:
        """Let another net have the training net's parameters."""
        net.share_with(self.net)

    @property
    def param(self) -> Any:
        """The definition, a ``SolverParameter``."""
        return self._solver.spec.message

    def _keep_updates(self, updates: Sequence[Tensor]) -> None:
        """After an update Caffe's parameters have it as their ``diff``."""
        for blob, update in zip(self.net._owned, updates, strict=True):
            blob._set_diff(update.detach().float().cpu().numpy())

    def solve(self, resume: str | os.PathLike[str] | None = None) -> None:
        """Train to ``max_iter``, with the definition's tests and snapshots."""
        if resume is not None:
            self.restore(resume)
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and not self._snapshot_is_due:
            self.snapshot()
        if self._test_is_due:
            self._test()

    def snapshot(self) -> None:
        """Write ``PREFIX_iter_N.caffemodel`` and ``.solverstate``."""
        self.net._take_params()
        self._solver.snapshot()

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a ``.solverstate``."""
        state = existing(path, "state")
        self.net._finish_all()
        self._solver.restore(state)
        self.net._give_params()

    def _keep(self, blobs: dict[str, Tensor]) -> None:
        self.net._stale = set()
        self.net._last = {name: blobs[name] for name in self._solver.net.graph.inputs}
        self.net._leave(blobs)
        for node, param, tensor in self._solver.net.owned_params():
            # a parameter without a way to the loss has the gradient 0, as each step of Caffe begins
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            self.net.params[node.layer.name][node.params.index(param)]._set_diff(
                gradient.float().cpu().numpy()
            )


def _check_files(settings: Any) -> None:
    """See that the nets and weights which a solver names are there."""
    for net in filter(None, (settings.net, settings.train_net, *settings.test_net)):
        existing(net, "net")
    for names in settings.weights:
        for name in filter(None, map(str.strip, names.split(","))):
            existing(name, "weights")


class NesterovSolver(SGDSolver):
    """Nesterov's momentum."""

    type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """AdaDelta."""

    type = "AdaDelta"


class AdamSolver(SGDSolver):
    """Adam."""

    type = "Adam"


def get_solver(path: str | os.PathLike[str]) -> SGDSolver:
    """The solver of a definition, of whatever type it is.

    Raises
    ------
    CaffeCompatError : not a solver, or of a type that does not exist.
    """
    known = (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
    kinds: dict[str, type[SGDSolver]] = {one.type: one for one in known}
    kind = read_solver(existing(path, "solver")).message.type
    if kind not in kinds:
        raise CaffeCompatError(
            f"{os.fspath(path)}: no solver of type {kind}; there are {', '.join(kinds)}"
        )
    return kinds[kind](path)
