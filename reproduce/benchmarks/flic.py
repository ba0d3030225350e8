"""FLIC (Frames Labeled In Cinema), observer-centric: 1,016 test frames, PCK by left shoulder to
right hip.

Networks predict nine parts, other methods eleven points or, without hips and eyes, six. The paper
normalises by the truth, the released script by the prediction.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from caffe_compat.foreign import Unfit, reading, stay_inside
from reproduce.benchmarks.benchmark import (
    FLIC_FILE,
    MODEC_FILE,
    TORSO,
    Benchmark,
    Floats,
    Norm,
    competitors,
)
from reproduce.benchmarks.measures import Stick
from reproduce.people import flic_files, matfile
from reproduce.people.matlab_pixels import from_matlab
from reproduce.people.skeletons import FLIC_POINTS, PARTS_9, SKELETON_9
from reproduce.predict.protocol import PROTOCOLS, Person

_MODEC = "MODEC, Sapp & Taskar CVPR'13"  # its predictions are of a form of their own
_FILE, _WHAT = "flic/examples.mat", "list of FLIC's examples"


class Flic(Benchmark):
    """FLIC's test people; see :class:`reproduce.benchmarks.benchmark.Benchmark`."""

    name = "flic"
    title = "FLIC (by the truth's Lsho to Rhip) PCK@0.2"
    stem = "FLIC"
    folder = "flic"
    joints = PARTS_9
    skeleton = SKELETON_9
    no_other_parts = True  # its head is the nose, that of whole bodies the top of the head
    protocol = replace(PROTOCOLS["flic"], upright=False)
    groups: ClassVar = {
        "shoulder": ("Lsho", "Rsho"),
        "elbow": ("Lelb", "Relb"),
        "wrist": ("Lwri", "Rwri"),
        "hip": ("Lhip", "Rhip"),
    }
    norms: ClassVar = {
        "torso": Norm(TORSO),
        "prediction": Norm(TORSO, of_prediction=True),
        "box": Norm(None),
        "pdj": Norm(("Rsho", "Lhip")),
    }
    script_norm = "prediction"
    sticks = (
        Stick("L upper arm", ("Lsho",), ("Lelb",)),
        Stick("L forearm", ("Lelb",), ("Lwri",)),
        Stick("R upper arm", ("Rsho",), ("Relb",)),
        Stick("R forearm", ("Relb",), ("Rwri",)),
        Stick("torso", ("Lsho", "Rsho"), ("Lhip", "Rhip")),
    )
    stick_groups: ClassVar = {
        "upper arm": ("L upper arm", "R upper arm"),
        "forearm": ("L forearm", "R forearm"),
        "torso": ("torso",),
    }
    annotations = ("oc",)
    released: ClassVar = {"CPM (FLIC)": "release/FLIC_prediction_model_FLIC_4s.mat"}

    @cached_property
    def _tests(self) -> list[Any]:
        """The test examples of the data set's file."""
        path = self.need(_FILE)
        with reading(path, _WHAT):
            examples = flic_files.read_examples(path)
            found = [e for e in examples if matfile.number(getattr(e, "istest", None))]
            if not found:
                raise Unfit("it has no test examples")
            return found

    @cached_property
    def _parts(self) -> Floats:
        """(N, 9, 2) in the network's order."""
        with reading(self.need(_FILE), _WHAT):
            joints = [flic_files.joints_of(example)[0][:, :2] for example in self._tests]
            return from_matlab(np.stack(joints))

    @cached_property
    def _points(self) -> Floats:
        """(N, 11, 2) the annotated points, in the order of :data:`FLIC_POINTS`."""
        with reading(self.need(_FILE), _WHAT):
            coords = [np.asarray(example.coords, np.float64) for example in self._tests]
            return from_matlab(np.stack([one[:, ~np.isnan(one[0])].T for one in coords]))

    @cached_property
    def _boxes(self) -> Floats:
        """(N, 4) the torso's left, top, right, bottom in 0-based pixels."""
        with reading(self.need(_FILE), _WHAT):
            boxes = [np.asarray(one.torsobox, np.float64).reshape(2, 2) for one in self._tests]
            return from_matlab(np.stack(boxes)).reshape(-1, 4)

    def people(self) -> list[tuple[Path, Person]]:
        found: list[tuple[Path, Person]] = []
        with reading(self.need(_FILE), _WHAT):
            for example, box in zip(self._tests, self._boxes.tolist(), strict=True):
                left, top, right, bottom = box
                name = stay_inside(matfile.text(example.filepath))
                path = self.root / "flic" / "images" / name
                found.append((path, (left, top, right - left, bottom - top)))
        return found

    def truth(self, count: int, annotation: str = "oc") -> tuple[Floats, tuple[str, ...]]:
        points = self._parts if count == len(PARTS_9) else self._points[:, :count]
        return points, self.joints_of(count)

    @classmethod
    def joints_of(cls, count: int) -> tuple[str, ...]:
        return PARTS_9 if count == len(PARTS_9) else FLIC_POINTS[:count]

    def reference_points(
        self, count: int, annotation: str = "oc"
    ) -> tuple[Floats, tuple[str, ...]]:
        """Parts are measured by parts, points by all eleven points: six of them have no hips."""
        return self.truth(count if count == len(PARTS_9) else len(FLIC_POINTS))

    def annotated_lengths(self, norm: str) -> Floats:
        """(N,) diagonals of the torso boxes."""
        size = self._boxes[:, 2:] - self._boxes[:, :2]
        return np.asarray(np.linalg.norm(size, axis=1), np.float64)

    def methods(self) -> dict[str, Floats]:
        others = competitors(self.root, FLIC_FILE, [*self.released, _MODEC])
        found = {
            **super().methods(),
            **{label: self.read(path) for label, path in others.items()},
        }
        modec = self.root / "predictions" / MODEC_FILE
        if modec.exists():
            (points,) = matfile.load(modec, "pred_coords")
            with reading(modec, "file of predicted joints"):
                found[_MODEC] = from_matlab(np.asarray(points, np.float64).transpose(2, 1, 0))
        return found
