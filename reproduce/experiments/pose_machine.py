"""The Pose Machine of Figure 6a: boosted trees on HOG-like features, each stage seeing the one
before.

A stage classifies every cell of the stride-8 grid (parts and background) from the gradients and
colours around it; later stages also see the previous stage's belief maps around the cell and the
way to each part's best place. As in the original, a stage is trained on context that its
predecessor gave for images it had not seen (two halves, each predicted by the other's trees).
Training crops, scales and the testing protocol are those of the networks that it is compared with.

Needs scikit-learn (``pip install 'convolutional-pose-machines[baseline]'``).

Source: Ramakrishna, Munoz, Hebert, Bagnell, Sheikh, "Pose Machines: Articulated Pose Estimation via
Inference Machines", ECCV 2014 (method; features and trees here are a library's, not theirs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from caffe_compat.lazy import lazy_import
from reproduce.people.skeletons import skeleton
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import DEMO, Protocol
from reproduce.samples.augment import Settings

torch = lazy_import("torch")
Floats = npt.NDArray[np.float32]
CELL = 8
_ORIENTATIONS = 9
_TOGETHER = 16  # images that the trees are asked about at once
_NEAR, _FAR = 2, 4  # cells around: of the features, of the context (every second)


@dataclass(frozen=True)
class PoseMachineConfig:
    """How large a Pose Machine is, and what it learns from.

    Attributes
    ----------
    stages : how many stages it has.
    images : training images at most.
    cells : background cells per image.
    trees : boosting rounds; each grows a tree per class.
    leaves : the most leaves that a tree may have.
    """

    stages: int = 3
    images: int = 4000
    cells: int = 30
    trees: int = 60
    leaves: int = 31


def features(data: Floats) -> Floats:
    """Per cell: nine orientations of the gradient (normalised by the neighbourhood's), and the mean
    colour.

    Parameters
    ----------
    data : (4, S, S) a network's input.

    Returns
    -------
    (S / 8, S / 8, 12) float32.
    """
    grey = data[:3].mean(0)
    dy, dx = np.gradient(grey)
    size = grey.shape[0] // CELL
    angle = np.mod(np.arctan2(dy, dx), np.pi) / np.pi * _ORIENTATIONS
    magnitude = np.hypot(dx, dy)
    low = np.floor(angle).astype(np.int64) % _ORIENTATIONS
    share = angle - np.floor(angle)
    histogram = np.zeros((_ORIENTATIONS, *grey.shape), np.float32)
    rows, columns = np.indices(grey.shape)
    histogram[low, rows, columns] += magnitude * (1 - share)
    histogram[(low + 1) % _ORIENTATIONS, rows, columns] += magnitude * share

    def per_cell(maps: Floats) -> Floats:
        return np.asarray(maps.reshape(len(maps), size, CELL, size, CELL).mean((2, 4)), np.float32)

    oriented = per_cell(histogram)
    energy = np.pad((oriented**2).sum(0), 1, mode="edge")
    around = sum(energy[i : i + size, j : j + size] for i in range(3) for j in range(3))
    oriented = (oriented / np.sqrt(around + 1e-6)).astype(np.float32)
    return np.ascontiguousarray(
        np.concatenate([oriented, per_cell(data[:3])]).transpose(1, 2, 0), np.float32
    )


def _around(maps: Floats, cells: npt.NDArray[np.int64], reach: int, step: int) -> Floats:
    """What lies around cells: (H, W, C) at every ``step`` up to ``reach``, zeros outside; (N, C ·
    (2 reach / step + 1)²)."""
    padded = np.pad(maps, ((reach, reach), (reach, reach), (0, 0)))
    offsets = range(0, 2 * reach + 1, step)
    found = [padded[cells[:, 0] + i, cells[:, 1] + j] for i in offsets for j in offsets]
    return np.concatenate(found, 1)


def describe(image: Floats, belief: Floats | None, cells: npt.NDArray[np.int64]) -> Floats:
    """What a stage sees of cells (N, 2 row and column): features, place in the crop, and
    context."""
    size = image.shape[0]
    place = cells.astype(np.float32) / size - 0.5
    parts = [_around(image, cells, _NEAR, 1), place]
    if belief is not None:
        flat = belief[..., :-1].reshape(-1, belief.shape[2] - 1).argmax(0)
        best = np.stack([flat // size, flat % size], 1).astype(np.float32)
        ways = (best[None] - cells[:, None].astype(np.float32)).reshape(len(cells), -1)
        parts += [_around(belief, cells, _FAR, 2), ways]
    return np.concatenate(parts, 1).astype(np.float32)


class PoseMachine:
    """Stages of boosted trees.

    Parameters
    ----------
    config : sizes.
    parts : without the background.
    """

    def __init__(self, config: PoseMachineConfig, parts: int = 14) -> None:
        self.config, self.parts = config, parts
        self.stages: list[list[Any]] = []

    def _predict(self, model: Any, rows: Floats) -> Floats:
        """Probabilities (N, P + 1); a class that a model never saw gets 0."""
        out = np.zeros((len(rows), self.parts + 1), np.float32)
        out[:, model.classes_.astype(np.int64)] = model.predict_proba(rows)
        return out

    def _beliefs(
        self, models: Sequence[Any], images: Sequence[Floats], before: Sequence[Floats | None]
    ) -> list[Floats]:
        """Belief maps (S, S, P + 1) of images, many at a time: a library's trees cost a fixed time
        for each call."""
        size = images[0].shape[0]
        cells = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), 2).reshape(
            -1, 2
        )
        found: list[Floats] = []
        for first in range(0, len(images), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            rows = np.concatenate(
                [describe(i, b, cells) for i, b in zip(images[some], before[some], strict=True)]
            )
            mean = np.mean([self._predict(m, rows) for m in models], axis=0)
            found += list(np.asarray(mean, np.float32).reshape(-1, size, size, self.parts + 1))
        return found

    def fit(
        self, samples: Sequence[tuple[Floats, Floats]], seed: int = 1, say: Any = lambda text: None
    ) -> None:
        """Train on (features (S, S, 12), labels (P + 1, S, S)) of images.

        Raises
        ------
        CaffeCompatError : scikit-learn is not installed, or fewer than two images.
        """
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier  # type: ignore[import-untyped]
        except ImportError:
            raise CaffeCompatError(
                "the Pose Machine needs scikit-learn: pip install scikit-learn"
            ) from None
        if len(samples) < 2:
            raise CaffeCompatError(
                "the Pose Machine is trained on two halves: give at least two images"
            )
        rng = np.random.default_rng(seed)
        halves = rng.permutation(len(samples)) % 2
        chosen = [self._cells(label, rng) for _, label in samples]
        beliefs: list[Floats | None] = [None] * len(samples)
        for stage in range(self.config.stages):
            models: list[Any] = []
            for half in (0, 1):
                mine = [i for i in range(len(samples)) if halves[i] == half]
                rows = np.concatenate(
                    [describe(samples[i][0], beliefs[i], chosen[i][0]) for i in mine]
                )
                classes = np.concatenate([chosen[i][1] for i in mine])
                model = HistGradientBoostingClassifier(
                    max_iter=self.config.trees,
                    max_leaf_nodes=self.config.leaves,
                    max_bins=63,
                    early_stopping=False,
                    random_state=seed,
                )
                models.append(model.fit(rows, classes))
                say(
                    f"stage {stage + 1}, half {half + 1}: {len(rows)} cells, {rows.shape[1]} "
                    "features"
                )
            self.stages.append(models)
            if stage + 1 == self.config.stages:
                break
            # context for the next stage: from the trees that did not see the image
            for half in (0, 1):
                mine = [i for i in range(len(samples)) if halves[i] == half]
                made = self._beliefs(
                    [models[1 - half]], [samples[i][0] for i in mine], [beliefs[i] for i in mine]
                )
                for i, belief in zip(mine, made, strict=True):
                    beliefs[i] = belief

    def _cells(
        self, label: Floats, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cells of a training image and their classes: all near a joint, some of the background."""
        best = label[:-1].argmax(0)
        near = label[:-1].max(0) > 0.5
        part_cells = np.argwhere(near)
        background = np.argwhere(label[:-1].max(0) < 0.1)
        some = background[rng.permutation(len(background))[: self.config.cells]]
        classes = np.concatenate([best[near], np.full(len(some), self.parts)])
        return np.concatenate([part_cells, some]), classes.astype(np.int64)

    def maps(self, data: Floats) -> list[Floats]:
        """Belief maps (N, P + 1, S / 8, S / 8) of every stage for a network's input (N, 4, S,
        S)."""
        images = [features(one) for one in data]
        beliefs: Sequence[Floats | None] = [None] * len(images)
        found = []
        for models in self.stages:
            made = self._beliefs(models, images, beliefs)
            found.append(np.stack(made).transpose(0, 3, 1, 2))
            beliefs = made
        return found


class PoseMachinePredictor(Predictor):
    """The testing protocol with a Pose Machine in the network's place."""

    def __init__(self, machine: PoseMachine, protocol: Protocol) -> None:
        self.machine, self.protocol = machine, protocol
        self.skeleton = skeleton(machine.parts)
        self.outputs = tuple(f"stage{i + 1}" for i in range(len(machine.stages)))
        self.batch, self.amp = _TOGETHER, ""

    @property
    def device(self) -> Any:
        return torch.device("cpu")

    @property
    def parts(self) -> int:
        return self.machine.parts

    def forward(self, data: Any, names: Sequence[str], rects: Any = None) -> Any:
        wanted = [int(name.removeprefix("stage")) - 1 for name in names]
        found = self.machine.maps(data.numpy())
        return torch.from_numpy(np.stack([found[stage] for stage in wanted]))


def training_samples(records: Path, size: int, count: int) -> list[tuple[Floats, Floats]]:
    """Features and labels of people as the networks see them, without augmentation, at equal
    distances in the records."""
    from reproduce.samples.schedule import CPMDataset

    released = DEMO.at(size)
    plain = Settings(
        stride=CELL,
        crop_size_x=size,
        crop_size_y=size,
        target_dist=released.target_dist,
        sigma_center=released.sigma,
        scale_prob=0,
        scale_min=1,
        scale_max=1,
        max_rotate_degree=0,
        center_perterb_max=0,
        flip_prob=0,
    )
    people = CPMDataset(records, plain)
    chosen = np.linspace(0, len(people) - 1, min(count, len(people))).round().astype(int)
    found = []
    for i in chosen:
        sample = people[int(i)]
        found.append((features(np.asarray(sample["data"])), np.asarray(sample["label"])))
    return found
