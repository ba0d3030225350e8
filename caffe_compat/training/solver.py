"""Caffe's solvers: training loop, updates, testing, snapshots that Caffe resumes and resuming from
Caffe's.

Source: ``solver.cpp`` and ``sgd_solver.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import net_from_message, read_net
from caffe_compat.definition.spec import TEST, TRAIN, NetSpec, NetState, SolverSpec
from caffe_compat.engine.plan import Mode
from caffe_compat.errors import SolverError, shape_text
from caffe_compat.layers.base import Shape
from caffe_compat.network.graph import Node, build
from caffe_compat.network.net import Net
from caffe_compat.training import snapshots
from caffe_compat.training.averages import add_share, shown
from caffe_compat.training.draws import Draws
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.rules import RULES, check, learning_rate, next_step, unused
from caffe_compat.training.sources import BatchSource
from caffe_compat.weights import containers
from caffe_compat.weights.model import Weights, overlaid
from caffe_compat.weights.write import check_hdf5_names, dialect_for

_GPU = 1  # of SolverParameter.SolverMode
# Fields that choose hardware or logging in Caffe and mean nothing here; snapshot_diff writes
# gradients into models, which nothing reads.
_MEANINGLESS = (
    "device_id",
    "debug_info",
    "layer_wise_reduce",
    "snapshot_diff",
    "ap_version",
    "plateau_winsize",
    "show_per_class_result",
)


@dataclass(frozen=True)
class Step:
    """What one iteration did.

    Attributes
    ----------
    iteration : counted from 0, before the update.
    loss : mean over ``iter_size`` batches.
    smoothed : mean over the last ``average_loss`` iterations.
    rate : the learning rate of the update.
    outputs : values of the net's loss and output blobs of the last batch, of blobs with up to 32:
        ``name``, or ``name[i]`` of several.
    """

    iteration: int
    loss: float
    smoothed: float
    rate: float
    outputs: dict[str, float] = field(default_factory=dict)


def _load(spec: SolverSpec, root: Path, field: str, index: int = -1) -> NetSpec:
    """The definition that a field of the solver names or holds; ``index`` of a repeated one."""
    value = getattr(spec.message, field)
    one = value if index < 0 else value[index]
    found = read_net(root / one) if isinstance(one, str) else net_from_message(_copy(one))
    return found.named(spec.network) if spec.network else found


def _state(definition: NetSpec, given: Any, phase: str, spec: SolverSpec, name: str) -> NetState:
    """The state of a net: its own, with what the solver says on top."""
    if given.HasField("phase") and schema.enum_name(given, "phase") != phase:
        raise spec.error(f"phase can only be {phase} here: leave it out", name)
    level = given.level if given.HasField("level") else definition.state.level
    return NetState(phase, level, tuple(given.stage))


def train_definition(spec: SolverSpec, root: Path) -> tuple[NetSpec, NetState]:
    """The training net of a solver, rules not applied yet, and the state they look at.

    Raises
    ------
    PrototxtError : no training net, more than one, or one that cannot be read.
    """
    names = ("net", "net_param", "train_net", "train_net_param")
    given = [name for name in names if spec.has(name)]
    if len(given) != 1:
        raise spec.error(
            f"give the training net in one place, found {', '.join(given) or 'none'}", "net"
        )
    definition = _load(spec, root, given[0])
    state = spec.message.train_state
    return definition, _state(definition, state, TRAIN, spec, "train_state")


def _test_definitions(spec: SolverSpec, root: Path) -> list[tuple[NetSpec, NetState]]:
    """All test nets of a solver, as Caffe counts them.

    Those with a definition of their own come first; what ``test_iter`` has beyond them are test
    nets of the training net's definition.
    """
    settings = spec.message
    own = len(settings.test_net_param) + len(settings.test_net)
    general = next((name for name in ("net", "net_param") if spec.has(name)), "")
    count = len(settings.test_iter)
    if count < own or (count > own and not general):
        raise spec.error(f"{own} test net(s) need as many test_iter, found {count}", "test_iter")
    if settings.test_state and len(settings.test_state) != count:
        raise spec.error(
            f"give no test_state, or one for each of {count} test net(s), found "
            f"{len(settings.test_state)}",
            "test_state",
        )
    if count and settings.test_interval < 1:
        raise spec.error("must be at least 1 where there are test nets", "test_interval")
    definitions = [
        *(_load(spec, root, "test_net_param", i) for i in range(len(settings.test_net_param))),
        *(_load(spec, root, "test_net", i) for i in range(len(settings.test_net))),
        *(_load(spec, root, general) for _ in range(count - own)),
    ]
    states = list(settings.test_state) or [type(settings.train_state)()] * count
    return [
        (definition, _state(definition, state, TEST, spec, "test_state"))
        for definition, state in zip(definitions, states, strict=True)
    ]


def _without_effect(settings: Any, device: torch.device) -> list[str]:
    """Settings of a solver that mean nothing here, one line each."""
    given = {descriptor.name for descriptor, _ in settings.ListFields()}
    lines = [f"{name} has no effect here" for name in _MEANINGLESS if name in given]
    asks_for_gpu = settings.solver_mode == _GPU
    if settings.HasField("solver_mode") and asks_for_gpu != (device.type == "cuda"):
        mode = "GPU" if asks_for_gpu else "CPU"
        lines.append(f"solver_mode {mode} has no effect: this trains on {device}")
    return lines


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made


class Solver:
    """A training as ``caffe train`` runs it.

    >>> from caffe_compat.definition.prototxt import read_solver
    >>> solver = Solver(read_solver("solver.prototxt"))
    >>> done = solver.step()
    >>> solver.iteration
    1

    Parameters
    ----------
    spec : solver definition.
    root : folder that relative names in it count from; default: the current one, as in Caffe.
    weights : initial parameters by layer name (layers without any keep their fillers), instead of
        those that the definition's ``weights`` names.
    sources : data sources by layer name, instead of those that the data layers name.
    device : where to run.
    engine : how convolutions run on the CPU, as in :class:`Net`.
    share : (rank, processes) where several train together, as in :class:`DataFeed`.
    amp : "bf16" runs the forward pass in bfloat16 where torch deems it safe (weights and updates
        stay float32).

    Attributes
    ----------
    net : the training net.
    iteration : how many updates were made.
    current_step : how many steps of lr_policy "step" or "multistep" were taken.
    histories : the update rule's state.
    warnings : settings of the definition, and of its data layers, that have no effect.
    prefix : what the names of snapshots begin with; None: as the definition says, looked up when
        the first one is written and kept, since that may make the folder that the prefix names.
    """

    def __init__(
        self,
        spec: SolverSpec,
        *,
        root: str | os.PathLike[str] = ".",
        weights: Weights | None = None,
        sources: Mapping[str, BatchSource] | None = None,
        device: torch.device | str = "cpu",
        amp: str = "",
        engine: Mode = "auto",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        check(spec)
        self.spec, self.root, self.device, self.amp = spec, Path(root), torch.device(device), amp
        settings = spec.message
        self.warnings = [*_without_effect(settings, self.device), *unused(spec)]
        # Caffe takes a seed from the clock where none is given; here a run can be repeated
        self.seed = settings.random_seed if settings.random_seed >= 0 else 1
        if weights is None and settings.weights:
            weights = overlaid(
                *(containers.read_list(names, self.root) for names in settings.weights)
            )
        # the training net and the test nets take their data layers' seeds from it in turn
        self._draws = Draws(self.seed)
        definition, state = train_definition(spec, self.root)
        self.prefix: str | None = None
        self.feed = DataFeed(
            definition,
            TRAIN,
            self.root,
            sources,
            state.level,
            state.stages,
            self._draws,
            share,
        )
        graph = build(
            definition,
            phase=TRAIN,
            level=state.level,
            stages=state.stages,
            input_shapes=self.feed.shapes,
        )
        self.net = (
            Net(graph, weights, strict=False, seed=self.seed, engine=engine).to(self.device).pack()
        )
        # a snapshot that cannot be written shows now
        if settings.snapshot_format == 0:  # HDF5
            check_hdf5_names([node.layer.name for node in graph.nodes if node.params])
        else:
            dialect_for(graph.spec.bare())
        self._tests = self._make_tests(weights, engine)
        # a layer without rules feeds the training net and the test nets: its notes come once
        feeds = [self.feed, *(feed for _, feed, _ in self._tests)]
        self.warnings += dict.fromkeys(note for feed in feeds for note in feed.notes)
        self._prepare_updates()
        self.iteration = 0
        self.saved: int | None = None  # the iteration of the last snapshot of this run
        self.current_step = 0
        self.rate_scale: Callable[[int], float] = lambda iteration: 1.0
        # called with the iteration and (layer/blob, gradient) pairs before each update
        self.on_gradients: Callable[[int, Iterator[tuple[str, Tensor]]], None] | None = None
        # called after each update with what was subtracted from the parameters
        self.on_update: Callable[[list[Tensor]], None] | None = None
        # called with every blob of each batch, as they were before the update; without it only what
        # is needed is kept
        self.on_blobs: Callable[[dict[str, Tensor]], None] | None = None
        # gives the tops of a net's Input layers for each batch; without it such nets cannot be run
        self.fill: Callable[[Net], Mapping[str, Tensor]] | None = None
        self._recent: deque[float] = deque(maxlen=settings.average_loss)
        self._runner: torch.nn.Module = _LossOf(self.net)

    def _prepare_updates(self) -> None:
        """The parameters with their multipliers, and the update rule with its histories."""
        settings = self.spec.message
        self._rule, per_param = RULES[settings.type]
        owned = list(self.net.owned_params())
        self._params = [tensor for _, _, tensor in owned]
        self._decays = [settings.weight_decay * param.decay_mult for _, param, _ in owned]
        self._lr_mults = [
            param.lr_mult if node.layer.learned(param.key[1]) else 0.0 for node, param, _ in owned
        ]
        self._replaced = [
            self.net.param(param)
            for node in self.net.graph.nodes
            for i, param in enumerate(node.params)
            if node.layer.replaces_gradient(i, node.bottom_shapes)
        ]
        with torch.no_grad():
            self.histories = [[torch.zeros_like(p) for p in self._params] for _ in range(per_param)]

    def _batch(self, net: Net, feed: DataFeed) -> dict[str, Tensor]:
        """All input blobs of a net, for its next batch.

        Raises
        ------
        SolverError : an Input layer, which has no data of its own, and nobody who fills it.
        """
        data = feed.next(self.device)
        if self.fill is not None:
            return {**data, **self.fill(net)}
        if feed.unfilled:
            top, layer = next(iter(feed.unfilled.items()))
            raise SolverError(
                f"layer '{layer}' is an Input layer and blob '{top}' has no source: give the net a "
                "data layer (Data, HDF5Data, ...), or fill the blob in a script with "
                "caffe_compat.pycaffe"
            )
        return data

    # ------------------------------------------------------------ testing

    def _make_tests(self, weights: Weights | None, engine: Mode) -> list[tuple[Net, DataFeed, int]]:
        """The test nets, each with its data and its number of batches."""
        settings = self.spec.message
        made = []
        for i, (definition, state) in enumerate(_test_definitions(self.spec, self.root)):
            feed = DataFeed(
                definition, TEST, self.root, None, state.level, state.stages, self._draws
            )
            graph = build(
                definition,
                phase=TEST,
                level=state.level,
                stages=state.stages,
                input_shapes=feed.shapes,
            )
            net = Net(graph, weights, strict=False, seed=self.seed, engine=engine).to(self.device)
            self._share(net)
            made.append((net, feed, settings.test_iter[i]))
        return made

    def test(self, stop: Callable[[], bool] = lambda: False) -> list[dict[str, float]]:
        """Run all test nets with the current weights; mean of each output value over ``test_iter``
        batches.

        Parameters
        ----------
        stop : asked before each batch; where it says yes, what was measured until then of the net
            in work is no mean, and there is nothing of it and of the nets behind it.
        """
        results: list[dict[str, float]] = []
        for net, feed, batches in self._tests:
            total: dict[str, float] = {}
            with torch.no_grad():
                for _ in range(batches):
                    if stop():
                        return results
                    found = self._tested_blobs(net, self._batch(net, feed))
                    add_share(total, found, batches)
            results.append(total)
        return results

    def test_lines(self, stop: Callable[[], bool] = lambda: False) -> list[str]:
        """What :meth:`test` gives, one line for people for each test net."""
        results = self.test(stop)
        lines = [
            f"test net {i}: " + ", ".join(f"{name} {value:.4g}" for name, value in result.items())
            for i, result in enumerate(results)
        ]
        if len(results) < len(self._tests):
            lines.append(f"test net {len(results)}: interrupted")
        return lines

    def _tested_blobs(self, net: Net, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a test net, with its loss where the definition asks for that."""
        if not self.spec.message.test_compute_loss or not net.losses:
            plain: dict[str, Tensor] = net(**data)
            return plain
        outputs = net.graph.outputs
        found = net(blobs=dict.fromkeys((*net.losses, *outputs)), **data)
        return {**{name: found[name] for name in outputs}, "test loss": net.loss(found)}

    def _share(self, net: Net) -> None:
        """Let a test net have the training net's parameters, layer by layer name. They are the very
        same, so that statistics that a test changes are the training's, as in Caffe.

        Raises
        ------
        SolverError : layers of one name have parameters of different numbers or shapes.
        """
        test_nodes: dict[str, Node] = {}
        for node in net.graph.nodes:
            test_nodes.setdefault(node.layer.name, node)
        # sharers count, too: the layer that owns the memory may be in one of the two nets only
        for node in self.net.graph.nodes:
            test_node = test_nodes.get(node.layer.name)
            if test_node is None:
                continue
            needed = [param.shape for param in test_node.params]
            given = [param.shape for param in node.params]
            if needed != given:
                raise SolverError(
                    f"layer '{node.layer.name}': the test net needs {_shapes(needed)}, the "
                    f"training net has {_shapes(given)}: give both nets the same layer, or each "
                    "layer a name of its own"
                )
            for mine, theirs in zip(node.params, test_node.params, strict=True):
                net.adopt(theirs, self.net.param(mine))

    # ------------------------------------------------------------ training

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        plain = learning_rate(self.spec.message, self.iteration, self._next_step)
        return plain * self.rate_scale(self.iteration)

    @property
    def _next_step(self) -> int:
        return next_step(self.spec.message, self.iteration, self.current_step)

    def wrap(self, wrapper: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
        """Run forward and backward through a wrapped module (DistributedDataParallel,
        torch.compile)."""
        self._runner = wrapper(self._runner)

    def step(self) -> Step:
        """One iteration: forward and backward over ``iter_size`` batches, then the update.

        Raises
        ------
        SolverError : the loss is not finite; names the first layer whose output is not.
        """
        settings = self.spec.message
        # dropout and fillers' noise depend on the iteration alone: a resumed run repeats them
        # (torch takes 64 bits; a seed of the file's may be as long)
        torch.manual_seed(((self.seed << 32) ^ self.iteration) % 2**63)
        for param in self._params:
            param.grad = None
        total = 0.0
        outputs: dict[str, Tensor] = {}
        for _ in range(settings.iter_size):
            data = self._batch(self.net, self.feed)
            for param in self._replaced:  # Caffe does not add up these over iter_size
                param.grad = None
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp == "bf16"):
                loss, outputs = self._runner(data, self.on_blobs is not None)
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
            if self.on_blobs is not None:
                self.on_blobs({**data, **outputs})
        total /= settings.iter_size
        if not math.isfinite(total):
            raise SolverError(
                f"iteration {self.iteration}: the loss is {total}; {self._culprit(data)}"
            )
        self._recent.append(total)
        if self.on_gradients is not None:
            self.on_gradients(self.iteration, self._gradients())
        iteration = self.iteration
        rate = self.apply_update()
        return Step(
            iteration,
            total,
            sum(self._recent) / len(self._recent),
            rate,
            shown(outputs),
        )

    def apply_update(self) -> float:
        """Update the parameters by the gradients that they have; this ends an iteration.

        Returns
        -------
        The rate that it was done with.
        """
        rate = self.rate
        self._update(rate)
        self.current_step = self._next_step
        self.iteration += 1
        return rate

    def _culprit(self, data: dict[str, Tensor]) -> str:
        with torch.no_grad():
            blobs = self.net.all_blobs(**data)
        for node in self.net.graph.nodes:
            for top in node.tops:
                if top in blobs and not torch.isfinite(blobs[top]).all():
                    return f"first blob that is not finite: '{top}' of layer '{node.layer.name}'"
        return "all blobs are finite in float32: lower the learning rate or leave out --amp"

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        for node, param, tensor in self.net.owned_params():
            if tensor.grad is not None:
                yield f"{node.layer.name}/{param.name}", tensor.grad

    @torch.no_grad()
    def _update(self, rate: float) -> None:
        settings = self.spec.message
        if not self._params:  # torch's functions on lists want one
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        if settings.clip_gradients >= 0:
            norms = torch._foreach_norm(grads)
            norm = float(torch.linalg.vector_norm(torch.stack(list(norms))))
            if norm > settings.clip_gradients:
                torch._foreach_mul_(grads, settings.clip_gradients / norm)
        if settings.iter_size > 1:
            torch._foreach_mul_(grads, 1.0 / settings.iter_size)
        decayed = [i for i, d in enumerate(self._decays) if d]
        if decayed:
            weights = [self._params[i] for i in decayed]
            if settings.regularization_type == "L1":
                weights = list(torch._foreach_sign(weights))
            pulls = torch._foreach_mul(weights, [self._decays[i] for i in decayed])
            torch._foreach_add_([grads[i] for i in decayed], pulls)
        rates = [rate * mult for mult in self._lr_mults]
        updates = self._rule(settings, rates, grads, self.histories, self.iteration)
        torch._foreach_sub_(self._params, updates)
        if self.on_update is not None:
            self.on_update(updates)

    # ------------------------------------------------------------ snapshots

    def snapshot(self, prefix: str | None = None) -> tuple[Path, Path]:
        """Write model and state as Caffe names them, ``PREFIX_iter_N.caffemodel`` and
        ``.solverstate`` (or ``.h5``).

        Returns
        -------
        The two paths.
        """
        settings = self.spec.message
        if prefix is not None:
            target = snapshots.prefix_of(self.spec, self.root, prefix)
        else:
            target = self.prefix or snapshots.prefix_of(self.spec, self.root)
            self.prefix = target
            self.saved = self.iteration
        return snapshots.write(
            target,
            self.iteration,
            self.net.weights(),
            self.net.graph.spec,
            self.history_arrays(),
            self.current_step,
            hdf5=settings.snapshot_format == 0,
        )

    def history_arrays(self) -> list[Any]:
        """The histories as Caffe stores them: all first ones, then all second ones."""
        return [t.detach().cpu().contiguous().numpy() for group in self.histories for t in group]

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a ``.solverstate`` (or ``.solverstate.h5``): iteration, histories, and the
        model that it names.

        Raises
        ------
        SolverError : damaged, or of another network or solver type.
        """
        state = snapshots.read_state(path)
        weights = snapshots.learned_weights(state, path)
        flat = [t for group in self.histories for t in group]
        if len(flat) != len(state.history):
            raise SolverError(
                f"{os.fspath(path)}: holds {len(state.history)} history blobs, solver "
                f"{self.spec.message.type} and this network need {len(flat)}"
            )
        problems = [
            f"history {i}: {tuple(a.shape)} in the file, {tuple(t.shape)} here"
            for i, (t, a) in enumerate(zip(flat, state.history, strict=True))
            if not _same_size(t, a)
        ]
        if problems:
            raise SolverError(
                f"{os.fspath(path)}: the state is of another network: {'; '.join(problems)}"
            )
        loaded = Net(self.net.graph, weights, seed=self.seed)
        with torch.no_grad():
            for (_, _, mine), (_, _, other) in zip(
                self.net.owned_params(), loaded.owned_params(), strict=True
            ):
                mine.copy_(other)
            for t, array in zip(flat, state.history, strict=True):
                t.copy_(torch.from_numpy(array).reshape(t.shape))
        self.iteration, self.current_step = state.iteration, state.current_step
        # a resumed training sees the batches that an uninterrupted one would see
        self.feed.position = self.iteration * self.spec.message.iter_size


def _shapes(shapes: list[Shape]) -> str:
    return f"parameters of {', '.join(map(shape_text, shapes))}" if shapes else "no parameters"


def _same_size(tensor: Tensor, array: Any) -> bool:
    """Equal shapes, leading ones of old 4-axis blobs aside."""
    shape = tuple(array.shape)
    while len(shape) > tensor.dim() and shape[0] == 1:
        shape = shape[1:]
    return shape == tuple(tensor.shape)


class _LossOf(torch.nn.Module):
    """Data in, loss out: what a wrapper such as DistributedDataParallel sees."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, data: dict[str, Tensor], everything: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        wanted = dict.fromkeys(
            self.net.graph.blobs if everything else (*self.net.losses, *self.net.graph.outputs)
        )
        found = self.net(blobs=wanted, **data)
        return self.net.loss(found), {name: value.detach() for name, value in found.items()}
