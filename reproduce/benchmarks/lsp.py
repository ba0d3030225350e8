"""Leeds Sports Pose, person-centric: the last 1,000 of its 2,000 people, PCK by left shoulder to
right hip."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from caffe_compat.foreign import reading
from reproduce.benchmarks.benchmark import LSP_FILE, TORSO, Benchmark, Floats, Norm, competitors
from reproduce.people import lsp_files, matfile
from reproduce.people.matlab_pixels import from_matlab
from reproduce.people.skeletons import LSP_JOINTS, SKELETON_14
from reproduce.predict.protocol import PROTOCOLS, Person

FIRST_TEST = 1001  # number of the first test image, counted from 1


class Lsp(Benchmark):
    """LSP's test people; see :class:`reproduce.benchmarks.benchmark.Benchmark`."""

    name = "lsp"
    title = "LSP (person-centric) PCK@0.2"
    stem = "LSP"
    folder = "lsp"
    joints = LSP_JOINTS
    skeleton = SKELETON_14
    protocol = replace(PROTOCOLS["lsp"], upright=False)
    norms: ClassVar = {
        "torso": Norm(TORSO),
        "prediction": Norm(TORSO, of_prediction=True),
        "head": Norm(("neck", "head")),
    }
    annotations = ("pc", "oc")
    released: ClassVar = {
        "CPM (MPII + LSP)": "release/LSP_prediction_model_MPII_LSP_6s.mat",
        "CPM (LSP)": "release/LSP_prediction_model_LSP_6s.mat",
    }

    @cached_property
    def _person_centric(self) -> tuple[Floats, Path]:
        if not (self.root / "lsp_dataset" / "joints.mat").exists():
            self.need("lsp/joints.mat")
        joints, folder = lsp_files.read_joints(self.root, "lsp")
        return from_matlab(joints[FIRST_TEST - 1 :, :, :2]), folder

    @cached_property
    def _observer_centric(self) -> Floats:
        path = self.need("predictions/LSP-joints-OC.mat")
        (joints,) = matfile.load(path, "joints")
        with reading(path, "file of joints"):
            people = np.asarray(joints, np.float64).transpose(2, 1, 0)
            return from_matlab(people[FIRST_TEST - 1 :, :, :2])

    def people(self) -> list[tuple[Path, Person]]:
        truth, folder = self._person_centric
        numbers = range(FIRST_TEST, FIRST_TEST + len(truth))
        return [(folder / "images" / f"im{number:04d}.jpg", None) for number in numbers]

    def truth(self, count: int, annotation: str = "pc") -> tuple[Floats, tuple[str, ...]]:
        if annotation == "oc":
            return self._observer_centric, self.joints
        return self._person_centric[0], self.joints

    def methods(self) -> dict[str, Floats]:
        others = competitors(self.root, LSP_FILE, self.released)
        return {
            **super().methods(),
            **{label: self.read(path) for label, path in others.items()},
        }
