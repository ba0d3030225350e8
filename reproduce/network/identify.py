"""What makes a network a Convolutional Pose Machine, told from its graph; and the released
models."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from caffe_compat.network.graph import Graph

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Released:
    """A released model, as models/released.toml describes it."""

    id: int
    name: str
    title: str
    file: str
    prototxt: str
    stages: int
    parts: int
    parameters: int
    published: str


@dataclass(frozen=True)
class Identity:
    """What a network is, as far as its structure tells.

    Attributes
    ----------
    stages, parts : of the pose machine; 0 where it is none.
    candidates : released models of exactly this structure.
    named : the one among them that the file name belongs to.
    outputs : blob with each stage's belief maps, stage 1 first.
    """

    stages: int
    parts: int
    candidates: tuple[Released, ...]
    named: Released | None
    outputs: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        if not self.stages:
            return "not a Convolutional Pose Machine"
        what = (
            f"Convolutional Pose Machine, {self.stages} stage(s), {self.parts} parts + background"
        )
        if self.named:
            return (
                f"{what}: released model {self.named.id} ({self.named.title}) by structure "
                "and file name"
            )
        if self.candidates:
            ids = " or ".join(f"{m.id} ({m.title})" for m in self.candidates)
            return (
                f"{what}: has the structure of released model {ids}; the file name is none "
                "of theirs"
            )
        return what


def models_folder() -> Path:
    """The installed models/ folder (``reproduce._models``, or models/ of a checkout)."""
    beside = Path(__file__).resolve().parents[2] / "models"
    if (beside / "released.toml").exists():
        return beside
    return Path(str(resources.files("reproduce._models")))


@cache
def released() -> tuple[Released, ...]:
    """The released models."""
    return tuple(Released(**entry) for entry in _released_toml()["model"])


def how_to_get() -> str:
    """Where released weights are to be had and put."""
    return str(_released_toml()["where"])


def _released_toml() -> dict[str, Any]:
    with open(models_folder() / "released.toml", "rb") as stream:
        return tomllib.load(stream)


def weight_folders() -> list[Path]:
    """Folders that are searched for released weights: ``CPM_MODELS`` (several with the path
    separator), then here."""
    given = os.environ.get("CPM_MODELS", "")
    return [Path(p) for p in given.split(os.pathsep) if p] or [Path.cwd()]


_OUTPUT = re.compile(r"(?:M?conv\d+_stage|conv\d+_stage)(\d+)$")


def stage_outputs(graph: Graph) -> tuple[str, ...]:
    """For each stage, its belief maps: the last convolution's blob whose name ends in ``stage<N>``,
    stage 1 first.

    Empty where the network has no such blobs.
    """
    last: dict[int, str] = {}
    for node in graph.nodes:
        found = _OUTPUT.search(node.layer.name) if node.layer.type == "Convolution" else None
        if found:
            last[int(found[1])] = node.tops[0]
    stages = sorted(last)
    return tuple(last[s] for s in stages) if stages == list(range(1, len(stages) + 1)) else ()


def identify(graph: Graph, path: str = "") -> Identity:
    """Is this network a pose machine, and one of the released ones?

    Parameters
    ----------
    graph : the deploy network.
    path : the model's file name, which alone tells the released models of one structure apart.
    """
    outputs = stage_outputs(graph)
    channels = {graph.blobs[name][1] for name in outputs}
    centre = any(node.layer.name == "pool_center_lower" for node in graph.nodes)
    if not outputs or len(channels) != 1 or not centre:
        return Identity(0, 0, (), None, ())
    parts = channels.pop() - 1
    candidates = tuple(
        m
        for m in released()
        if (m.stages, m.parts, m.parameters) == (len(outputs), parts, graph.count)
    )
    base = os.path.basename(path)
    named = next((m for m in candidates if base == m.file), None)
    return Identity(len(outputs), parts, candidates, named, outputs)
