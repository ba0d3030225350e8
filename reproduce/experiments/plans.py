"""The paper's training experiments: what is trained for Figures 4, 5 and 6, and with which numbers.

:mod:`reproduce.experiments.lab` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from reproduce.experiments.pose_machine import PoseMachineConfig
from reproduce.experiments.results import SEED, Result
from reproduce.network import netgen
from reproduce.predict.protocol import SEARCH

if TYPE_CHECKING:
    from caffe_compat.network.graph import Graph


@dataclass(frozen=True)
class Profile:
    """How large everything is. The code is the same, the numbers are not.

    Attributes
    ----------
    name : of the profile, as ``--profile`` takes it.
    about : what it is, for people.
    config : the network; experiments change its stages and kernels.
    iterations : of each training.
    batch : images in one iteration.
    solver : fields of the solver definition.
    field_size : side of the input in Figure 4, in pixels; None: that of ``config``.
    people : training people at most, evenly spread; None: all.
    tested : LSP test people at most.
    search : test scales, as multiples of the protocol's own.
    amp : "bf16" or "".
    warmup : iterations over which the learning rate rises linearly.
    snapshot : iterations between two snapshots; the last two are both tested.
    operations : floating point operations per second that estimates assume where no training was
        measured.
    baseline : the Pose Machine that Figure 6a compares with.
    """

    name: str
    about: str
    config: netgen.CPMConfig
    iterations: int
    batch: int
    solver: dict[str, Any]
    field_size: int | None = None
    people: int | None = None
    tested: int = 1000
    search: tuple[float, ...] = SEARCH
    amp: str = ""
    warmup: int = 0
    snapshot: int = 1000
    operations: float = 5e10
    baseline: PoseMachineConfig = field(default_factory=PoseMachineConfig)


_ADAM = {
    "type": "Adam",
    "momentum2": 0.999,
    "lr_policy": "poly",
    "power": 1.0,
    "gamma": None,
    "stepsize": None,
    "weight_decay": 1e-5,
    "solver_mode": None,
}
# Networks of a few channels: small kernels, and a start that lets them learn.
_SMALL = netgen.CPMConfig(
    stages=3,
    parts=14,
    tower_kernel=3,
    feature_kernel=3,
    stage_kernel=5,
    dropout=0.0,
    filler="msra",
    first_mult=1.0,
)
_SMOKE = Profile(
    name="smoke",
    about="minutes on two cores: proves the machinery, its numbers mean nothing",
    config=replace(_SMALL, input_size=64, towers=(4, 4, 8), features=4, wide=8, belief=8),
    iterations=6,
    batch=4,
    solver={**_ADAM, "base_lr": 1e-3},
    people=100,
    tested=10,
    search=(1.0,),
    snapshot=3,
    baseline=PoseMachineConfig(images=30, cells=8, trees=3, leaves=7),
)
# The receptive fields are the paper's shares of the box: stage 1 sees 61 of 136 pixels (45 %; the
# released network 167 of 368), stage 2 sees 157 of 136 (115 %; 407 of 368).
_CPU = Profile(
    name="cpu",
    about="hours on two cores: the paper's proportions at a third of the resolution with 16 to 128 "
    "channels instead of 32 to 512, all LSP and LSPET people",
    config=replace(_SMALL, input_size=136, towers=(16, 32, 64), features=32, wide=128, belief=64),
    iterations=6000,
    batch=16,
    solver={**_ADAM, "base_lr": 2e-3},
    amp="bf16",
    warmup=200,
)
_PAPER = Profile(
    name="paper",
    about="the paper's sizes and schedule: days on GPUs, resumable, torchrun",
    config=netgen.CPMConfig(stages=3, parts=14, input_size=368),
    iterations=600000,
    batch=16,
    solver={"base_lr": 8e-5},
    field_size=304,
    snapshot=5000,
    operations=4e13,
    baseline=PoseMachineConfig(images=11000, cells=60, trees=200),
)
PROFILES = {profile.name: profile for profile in (_SMOKE, _CPU, _PAPER)}


@dataclass(frozen=True)
class Experiment:
    """A network to train.

    Attributes
    ----------
    name : what its result is called.
    config : the network.
    scheme : which of Figure 6b's training schemes.
    iterations : of each of its trainings.
    after : experiment whose weights it starts from.
    kind : a network, or the Pose Machine with as many stages.
    """

    name: str
    config: netgen.CPMConfig
    scheme: netgen.Scheme = "joint"
    iterations: int = 0
    after: str = ""
    seed: int = 1
    kind: Literal["network", "pose-machine"] = "network"

    @property
    def operations(self) -> float:
        """Floating point operations of one forward pass."""
        from caffe_compat.network.graph import build

        return operations_of(build(netgen.deploy(self.config)))

    @property
    def memory(self) -> float:
        """Bytes of the activations and gradients of one training image."""
        from caffe_compat.network.graph import build

        graph = build(netgen.deploy(self.config))
        return 8.0 * sum(math.prod(shape) for shape in graph.blobs.values())


def operations_of(graph: Graph) -> float:
    """Floating point operations of a forward pass of one image through a graph's convolutions."""
    from caffe_compat.engine.plan import Engine
    from caffe_compat.network.planned import planned

    total = 0.0
    for _, c, _ in planned(graph, Engine("direct")):
        sizes = zip(c.size, c.pad, c.weight[2:], c.dilation, strict=True)
        out = [s + 2 * p - d * (k - 1) for s, p, k, d in sizes]
        total += 2.0 * math.prod(c.weight) * math.prod(out)
    return total


def stages_of_fig6(profile: Profile, stages: int, seeds: int) -> list[Experiment]:
    """Figure 6: (b) four schemes at ``stages``, (c) 1 to 6 stages with intermediate supervision,
    (a) the Pose Machine.

    Trained ``seeds`` times are the networks of 1, ``stages``, 5 and 6 stages with intermediate
    supervision and that of ``stages`` without; all others once.
    """
    base, n = replace(profile.config, stages=stages), profile.iterations
    found = [
        Experiment(f"joint-{stages}", base, "joint", n),
        Experiment(f"no-supervision-{stages}", base, "no-supervision", n),
        Experiment(f"stage-wise-{stages}", base, "stage-wise", n),
        Experiment(f"fine-tuned-{stages}", base, "joint", n, f"stage-wise-{stages}"),
    ]
    others = [t for t in range(1, 7) if t != stages]
    found += [Experiment(f"joint-{t}", replace(base, stages=t), "joint", n) for t in others]
    found.append(Experiment(f"pose-machine-{stages}", base, kind="pose-machine"))
    decisive = {f"joint-{t}" for t in (1, stages, 5, 6)} | {f"no-supervision-{stages}"}
    repeated = [e for e in found if e.name in decisive]
    for seed in range(2, seeds + 1):
        found += [replace(e, name=f"{e.name}{SEED}{seed}", seed=seed) for e in repeated]
    return found


def of_fig5(profile: Profile, stages: int, seeds: int) -> list[Experiment]:
    """Figure 5: the same trainings as Figure 6b's with and without intermediate supervision."""
    compared = (f"joint-{stages}", f"no-supervision-{stages}")
    return [e for e in stages_of_fig6(profile, stages, seeds) if e.name.startswith(compared)]


# What stage 1 sees in Figure 4, as shares of the box: the paper's figure spans about 50 to more
# than 300 of 304 pixels.
SHARES = (0.155, 0.21, 0.33, 0.45, 0.57, 0.68, 0.92, 1.15)


def of_fig4(profile: Profile, stages: int, seeds: int) -> list[Experiment]:
    """Figure 4: one-stage networks that differ in their receptive field.

    All have 3×3 kernels. Larger fields come from dilation in conv4 and conv5 alone, so those
    networks have the same channels and parameters. Fields below that come from 1×1 kernels in place
    of 3×3, and the parameters that this saves go into wider 1×1 layers: no layer gets narrower.
    """
    base = replace(
        profile.config,
        stages=1,
        input_size=profile.field_size or profile.config.input_size,
        tower_kernel=3,
        feature_kernel=3,
        wide_kernel=None,
    )
    found: dict[int, Experiment] = {}
    for share in SHARES:
        config = _with_field(base, share * base.input_size)
        size = field_of(config)
        same = config == replace(profile.config, stages=1)  # Figure 6c trains that one, too
        name = "joint-1" if same else f"field-{size}"
        found.setdefault(size, Experiment(name, config, "joint", profile.iterations))
    once = list(found.values())
    again = range(2, seeds + 1)
    return once + [replace(e, name=f"{e.name}{SEED}{s}", seed=s) for s in again for e in once]


def field_of(config: netgen.CPMConfig, stage: int = 1) -> int:
    """The receptive field of a stage's output in pixels of the input, from the graph."""
    from caffe_compat.network.graph import build
    from reproduce.network import receptive

    return receptive.stages(build(netgen.deploy(config)))[stage - 1][1].size


def _with_field(base: netgen.CPMConfig, pixels: float) -> netgen.CPMConfig:
    """A one-stage network whose field is as near to a number of pixels as the construction allows.

    Three 3×3 convolutions, each before a pool of 3×3, see 29 pixels; each cell by which a sample of
    conv4 or conv5 is further away adds 16.
    """
    cells = max(0, round((pixels - 29) / 16))
    if cells >= 2:
        # conv5 looks at least twice as far as conv4: together they leave no gap
        near = max(1, cells // 3)
        return replace(base, feature_dilation=near, wide_dilation=cells - near)
    kernels = (3, 3, 1) if pixels < 25 else 3
    small = replace(base, tower_kernel=kernels, feature_kernel=1 + 2 * cells, wide_kernel=1)
    wanted = _parameters(base)
    widths = range(base.wide, 4 * base.wide)
    return min(
        (replace(small, wide=width) for width in widths),
        key=lambda config: abs(_parameters(config) - wanted),
    )


def _parameters(config: netgen.CPMConfig) -> int:
    """Parameters of a one-stage network, counted from its layers' sizes."""
    inputs, total = 3, 0
    kernels = (*config.tower_kernels, config.feature_kernel)
    for outputs, kernel in zip((*config.towers, config.features), kernels, strict=True):
        total += outputs * (inputs * kernel**2 + 1)
        inputs = outputs
    last = config.wide_kernel or config.tower_kernels[2]
    for outputs, kernel in ((config.wide, last), (config.wide, 1), (config.parts + 1, 1)):
        total += outputs * (inputs * kernel**2 + 1)
        inputs = outputs
    return total


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training will take.

    Attributes
    ----------
    experiment : its name.
    scheme : of the training, or "boosted trees".
    iterations : of each training; rounds of the trees.
    operations : floating point operations of the whole training; 0 where they are not counted.
    memory : bytes of the activations and gradients of a batch; 0 where they are not counted.
    seconds : at the rate of the measured trainings, or else at the one that the profile assumes.
    """

    experiment: str
    scheme: str
    iterations: int
    operations: float
    memory: float
    seconds: float


# seconds that a tree takes on two cores, about
_TREE = 0.4


def measured_rate(results: Iterable[Result]) -> float:
    """Floating point operations per second of trainings' processes; 0 where none was measured."""
    trained = [r for r in results if r.seconds and r.machine is None]
    counts = [_operations(r.config, r.scheme, r.iterations, r.batch) / r.processes for r in trained]
    return sum(counts) / sum(r.seconds for r in trained) if trained else 0.0


def estimates(
    profile: Profile, experiments: Sequence[Experiment], rate: float = 0.0
) -> list[Estimate]:
    """What each experiment will take, for ``--dry-run``.

    Parameters
    ----------
    rate : floating point operations per second (:func:`measured_rate`); 0: the profile's.
    """
    speed = rate or profile.operations
    return [_estimate(profile, experiment, speed) for experiment in experiments]


def _operations(config: netgen.CPMConfig, scheme: str, iterations: int, batch: int) -> float:
    """Floating point operations of a training; forward and backward count as three forwards."""
    operations = 3 * Experiment("", config).operations * iterations * batch
    if scheme == "stage-wise":
        # a training a stage; those of the first stages have smaller networks
        operations *= (config.stages + 1) / 2
    return operations


def _estimate(profile: Profile, e: Experiment, rate: float) -> Estimate:
    if e.kind == "pose-machine":
        rounds = profile.baseline.trees
        # a tree per class, half and round
        trees = 2 * e.config.stages * rounds * (e.config.parts + 1)
        return Estimate(
            experiment=e.name,
            scheme="boosted trees",
            iterations=rounds,
            operations=0.0,
            memory=0.0,
            seconds=_TREE * trees,
        )
    operations = _operations(e.config, e.scheme, e.iterations, profile.batch)
    return Estimate(
        experiment=e.name,
        scheme=e.scheme,
        iterations=e.iterations,
        operations=operations,
        memory=e.memory * profile.batch,
        seconds=operations / rate,
    )
