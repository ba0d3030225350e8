"""The released models, and which of them a network is: by its structure and its counts."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import Graph
from reproduce.network.netgen import CPMConfig, cpm, person, vgg
from reproduce.network.structure import find_machine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_EMBEDDED_WEIGHTS = "pose.caffemodel"


@dataclass(frozen=True)
class Released:
    """A released model, as models/released.toml describes it.

    Attributes
    ----------
    id, name : its number and its short name, either of which ``--model`` takes.
    title : what it is, for people.
    file, prototxt : names of the authors' files.
    stages, parts, parameters : of the network; the person network has no parts.
    front : the architecture, "cpm" or "vgg" (:class:`reproduce.network.netgen.CPMConfig`).
    demo_range : smallest and largest size of the person in the input that the authors' MATLAB demo
        tries, in multiples of the input; empty where no demo takes a rectangle for it.
    demo : the demo that the model belongs to.
    published : its published scores.
    """

    id: int
    name: str
    title: str
    file: str
    prototxt: str
    front: Literal["cpm", "vgg"]
    stages: int
    parts: int
    parameters: int
    demo: str
    published: str
    demo_range: tuple[float, ...] = ()

    @property
    def maps(self) -> int:
        """Belief maps of a stage: the parts and the background, or the one of body centres."""
        return self.parts + 1

    def config(self, input_size: int = 368, **changes: Any) -> CPMConfig:
        """The description from which :mod:`reproduce.network.netgen` makes this network, with
        changes."""
        make = cpm if self.front == "cpm" else vgg if self.parts else person
        own = {"stages": self.stages, "parts": self.parts}
        return make(**{**own, "input_size": input_size, "input_width": 0, **changes})


@dataclass(frozen=True)
class Identity:
    """What a network is, as far as its structure tells.

    Attributes
    ----------
    stages : of the pose machine; 0 where it is none.
    parts : without the background; 0 where the network gives one map (a body's centre).
    candidates : released models of exactly this structure.
    named : the one among them that the file name belongs to.
    outputs : blob with each stage's belief maps, stage 1 first.
    image : the input blob that takes the image.
    centre : does the network take a centre map?
    other : the released model whose file name it has, although its structure is another one.
    """

    stages: int = 0
    parts: int = 0
    candidates: tuple[Released, ...] = ()
    named: Released | None = None
    outputs: tuple[str, ...] = ()
    image: str = ""
    centre: bool = False
    other: Released | None = None

    @property
    def person(self) -> bool:
        """Does it find people (one map, of body centres) and not their parts?"""
        return self.stages > 0 and self.parts == 0

    @property
    def text(self) -> str:
        """What was found, as one line of text."""
        if not self.stages:
            return "not a Convolutional Pose Machine"
        maps = f"{self.parts} parts + background" if self.parts else "one map (a body's centre)"
        what = f"Convolutional Pose Machine, {self.stages} stage(s), {maps}"
        if not self.centre:
            what += ", no centre map"
        if self.named:
            return (
                f"{what}: released model {self.named.id} ({self.named.title}) by structure "
                "and file name"
            )
        if self.other:
            what += (
                f": not released model {self.other.id} ({self.other.title}), whose file name it "
                f"has; that one has {self.other.stages} stages and {self.other.parameters:,} "
                "parameters"
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
    return tuple(
        Released(**{**entry, "demo_range": tuple(entry.get("demo_range", ()))})
        for entry in _released_toml()["model"]
    )


def embedded() -> Path:
    """The weight file of the network that comes with the package."""
    return models_folder() / str(_released_toml()["embedded"]) / _EMBEDDED_WEIGHTS


def how_to_get() -> str:
    """Where released weights are to be had and put."""
    return str(_released_toml()["where"])


def _released_toml() -> dict[str, Any]:
    with open(models_folder() / "released.toml", "rb") as stream:
        return tomllib.load(stream)


def weight_folders() -> list[Path]:
    """Folders that are searched for released weights: ``CPM_MODELS`` (several with the path
    separator), or here where it is not set."""
    given = os.environ.get("CPM_MODELS", "")
    return [Path(p) for p in given.split(os.pathsep) if p] or [Path.cwd()]


def embedded_models() -> dict[str, Path]:
    """Folders of the networks that come with the package, by name."""
    folders = sorted(p for p in models_folder().iterdir() if (p / "pose_deploy.prototxt").exists())
    return {folder.name: folder for folder in folders}


def embedded_weights() -> dict[str, Path]:
    """Weight files of the networks that come with the package, by name."""
    return {name: folder / _EMBEDDED_WEIGHTS for name, folder in embedded_models().items()}


def released_named(name: str) -> Released | None:
    """The released model of this name, number or file; None where there is none."""
    return next((m for m in released() if name in (m.name, str(m.id), m.file)), None)


def weights_of(model: Released) -> Path | None:
    """Where a released model's weights are; None where they are in none of the folders."""
    files = (folder / model.file for folder in weight_folders())
    return next((file for file in files if file.exists()), None)


def model_file(name: str) -> str:
    """The weight file that ``--model`` means: a file, or the name of a network.

    Parameters
    ----------
    name : of a file; of a network that comes with the package; or of a released one (its name,
        number or file) that is in one of :func:`weight_folders`.

    Returns
    -------
    A file name; ``name`` itself where it is no known network.

    Raises
    ------
    CaffeCompatError : a released network that is not here; says where to get it.
    """
    if os.path.exists(name) and not os.path.isdir(name):  # data sets lie in folders lsp and flic
        return name
    if name in embedded_models():
        return str(embedded_models()[name] / _EMBEDDED_WEIGHTS)
    model = released_named(name)
    if model is not None:
        if (found := weights_of(model)) is None:
            places = [f"{p}{'' if p.is_dir() else ' (no such folder)'}" for p in weight_folders()]
            raise CaffeCompatError(
                f"the weights of '{name}' are not here: no {model.file} in {', '.join(places)}. "
                f"{how_to_get()}"
            )
        return str(found)
    if os.path.exists(name):
        return name
    if os.sep not in name and "." not in name:
        known = ", ".join([*embedded_models(), *(model.name for model in released())])
        raise CaffeCompatError(f"{name}: no file of this name, and no model; known: {known}")
    return name


def stage_outputs(graph: Graph) -> tuple[str, ...]:
    """The blob with each stage's belief maps, stage 1 first; none where the network is no pose
    machine."""
    machine = find_machine(graph)
    return machine.outputs if machine else ()


def identify(graph: Graph, path: str = "") -> Identity:
    """Is this network a pose machine, and one of the released ones?

    Parameters
    ----------
    graph : the deploy network.
    path : the model's file name, which alone tells the released models of one structure apart.
    """
    machine = find_machine(graph)
    if machine is None:
        return Identity()
    stages = len(machine.outputs)
    candidates = tuple(
        m
        for m in released()
        if (m.stages, m.maps, m.parameters) == (stages, machine.maps, graph.count)
    )
    base = os.path.basename(path)
    named = next((m for m in candidates if base == m.file), None)
    other = None if named else next((m for m in released() if base == m.file), None)
    return Identity(
        stages,
        machine.maps - 1,
        candidates,
        named,
        machine.outputs,
        machine.image,
        machine.centre,
        other,
    )
