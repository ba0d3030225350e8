"""The paper's training experiments: what is trained for Figures 4, 5 and 6, and with which numbers.

:mod:`reproduce.experiments.lab` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from reproduce.experiments.pose_machine import PoseMachineConfig
from reproduce.network import netgen
from reproduce.predict.protocol import SEARCH


@dataclass(frozen=True)
class Profile:
    """How large everything is. The code is the same, the numbers are not.

    Attributes
    ----------
    config : the network; experiments change its stages and kernels. iterations, batch : of a joint
        training.
    solver : fields of the solver. people : training people at most (evenly spread). tested : test
        people at most.
    search : test scales. operations : assumed rate, per second, for estimates. about : for people.
    baseline : the Pose Machine that Figure 6a compares with.
    """

    name: str
    about: str
    config: netgen.CPMConfig
    iterations: int
    batch: int
    solver: dict[str, Any]
    people: int | None = None
    tested: int = 1000
    search: tuple[float, ...] = SEARCH
    amp: str = ""
    warmup: int = 0
    snapshot: int = 1000
    operations: float = 1.5e11
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
PROFILES = {
    "smoke": Profile(
        "smoke",
        "minutes on two cores: proves the machinery, its numbers mean nothing",
        netgen.CPMConfig(3, 14, 64, (4, 4, 8), 4, 8, 8, 5, 3, 5, 0.0, "msra", 1.0),
        6,
        4,
        {**_ADAM, "base_lr": 1e-3},
        people=100,
        tested=10,
        search=(1.0,),
        snapshot=3,
        baseline=PoseMachineConfig(images=30, cells=8, trees=3, leaves=7),
    ),
    "cpu": Profile(
        "cpu",
        "hours on two cores: a third of the resolution, an eighth to a half of the channels, "
        "all LSP and LSPET people",
        netgen.CPMConfig(3, 14, 128, (16, 32, 64), 32, 128, 64, 7, 5, 7, 0.0, "msra", 1.0),
        4000,
        16,
        {**_ADAM, "base_lr": 2e-3},
        amp="bf16",
        warmup=200,
        snapshot=500,
        operations=4.5e11,
    ),
    "paper": Profile(
        "paper",
        "the paper's sizes and schedule: days on GPUs, resumable, torchrun",
        netgen.CPMConfig(3, 14, 368),
        600000,
        16,
        {"base_lr": 8e-5},
        snapshot=5000,
        operations=4e13,
        baseline=PoseMachineConfig(images=11000, cells=60, trees=200),
    ),
}


@dataclass(frozen=True)
class Experiment:
    """A network to train.

    Attributes
    ----------
    name : of its result. config : the network. scheme : of Figure 6b. iterations : of each of its
        trainings.
    after : experiment whose weights it starts from. gradients : record their magnitudes.
    kind : a network, or the Pose Machine with as many stages.
    """

    name: str
    config: netgen.CPMConfig
    scheme: netgen.Scheme = "joint"
    iterations: int = 0
    after: str = ""
    gradients: bool = False
    seed: int = 1
    kind: Literal["network", "pose-machine"] = "network"

    @property
    def operations(self) -> float:
        """Floating point operations of one forward pass."""
        from caffe_compat.engine.plan import Engine, planned
        from caffe_compat.network.graph import build

        total = 0.0
        for _, c, _ in planned(build(netgen.deploy(self.config)), Engine("direct")):
            out = [s + 2 * p - k + 1 for s, p, k in zip(c.size, c.pad, c.weight[2:], strict=True)]
            total += 2.0 * math.prod(c.weight) * math.prod(out)
        return total

    @property
    def memory(self) -> float:
        """Bytes of the activations and gradients of one training image."""
        from caffe_compat.network.graph import build

        graph = build(netgen.deploy(self.config))
        return 8.0 * sum(math.prod(shape) for shape in graph.blobs.values())


def stages_of_fig6(profile: Profile, stages: int, seeds: int) -> list[Experiment]:
    """Figure 6: (b) four schemes at ``stages``, (c) 1 to 6 stages with intermediate supervision,
    (a) the Pose Machine."""
    found = []
    for seed in range(1, seeds + 1):
        base = replace(profile.config, stages=stages)
        end = f"-seed{seed}" if seed > 1 else ""
        n = profile.iterations
        found += [
            Experiment(f"joint-{stages}{end}", base, "joint", n, gradients=True, seed=seed),
            Experiment(
                f"no-supervision-{stages}{end}",
                base,
                "no-supervision",
                n,
                gradients=True,
                seed=seed,
            ),
            Experiment(
                f"stage-wise-{stages}{end}", base, "stage-wise", max(1, n // stages), seed=seed
            ),
            Experiment(
                f"fine-tuned-{stages}{end}",
                base,
                "joint",
                n,
                f"stage-wise-{stages}{end}",
                seed=seed,
            ),
        ]
        found += [
            Experiment(f"joint-{t}{end}", replace(base, stages=t), "joint", n, seed=seed)
            for t in range(1, 7)
            if t != stages
        ]
        found.append(
            Experiment(f"pose-machine-{stages}{end}", base, seed=seed, kind="pose-machine")
        )
    return found


def of_fig5(profile: Profile, stages: int, seeds: int) -> list[Experiment]:
    """Figure 5: the same trainings as Figure 6b's with and without intermediate supervision."""
    return [e for e in stages_of_fig6(profile, stages, 1) if e.gradients]


def of_fig4(profile: Profile, stages: int, seeds: int) -> list[Experiment]:
    """Figure 4: one-stage networks with other kernels and about the same number of parameters."""
    from caffe_compat.network.graph import build

    base = replace(profile.config, stages=1)
    wanted = build(netgen.deploy(base)).count
    found = []
    for kernel in (3, 5, 7, 9, 11):
        best = min(
            (_widened(base, kernel, share / 16) for share in range(6, 49)),
            key=lambda c: abs(build(netgen.deploy(c)).count - wanted),
        )
        name = "joint-1" if best == base else f"kernel-{kernel}"  # Figure 6c trains that one, too
        found += [
            Experiment(
                f"{name}{f'-seed{seed}' if seed > 1 else ''}",
                best,
                "joint",
                profile.iterations,
                seed=seed,
            )
            for seed in range(1, seeds + 1)
        ]
    return found


def _widened(config: netgen.CPMConfig, kernel: int, share: float) -> netgen.CPMConfig:
    towers = tuple(max(2, round(c * share)) for c in config.towers)
    small = min(config.feature_kernel, kernel)
    return replace(
        config,
        tower_kernel=kernel,
        feature_kernel=small,
        towers=(towers[0], towers[1], towers[2]),
        features=max(2, round(config.features * share)),
        wide=max(2, round(config.wide * share)),
    )


def estimates(
    profile: Profile, experiments: Sequence[Experiment]
) -> list[tuple[str, str, int, float, float, float]]:
    """(name, scheme, iterations, operations of the training, bytes of a batch, seconds) of each,
    for ``--dry-run``.

    Forward and backward count as three forwards; the time is at the profile's assumed rate.
    """
    rows: list[tuple[str, str, int, float, float, float]] = []
    for e in experiments:
        if (
            e.kind == "pose-machine"
        ):  # a tree per class, half and round; about a quarter of a second each on two cores
            trees = 2 * e.config.stages * profile.baseline.trees * (e.config.parts + 1)
            rows.append((e.name, "boosted trees", profile.baseline.trees, 0.0, 0.0, 0.25 * trees))
            continue
        trainings = e.config.stages if e.scheme == "stage-wise" else 1
        operations = 3 * e.operations * e.iterations * profile.batch * trainings
        if e.scheme == "stage-wise":
            operations *= (e.config.stages + 1) / (
                2 * e.config.stages
            )  # the first stages' nets are smaller
        rows.append(
            (
                e.name,
                e.scheme,
                e.iterations,
                operations,
                e.memory * profile.batch,
                operations / profile.operations,
            )
        )
    return rows
