"""Truth and predictions of the benchmarks, found below one folder.

Layout: ``lsp/joints.mat``, ``flic/examples.mat``, ``mpii/valid.h5`` and ``mpii/*.h5``,
``release/*.mat`` (the authors' predictions), ``predictions/METHOD/pred_keypoints_*.mat`` (other
methods').
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from reproduce.benchmarks import measures
from reproduce.people import flic_files, lsp_files, matfile
from reproduce.predict import joint_files

Floats = npt.NDArray[np.float64]


class Missing(DataError):
    """A file that is not there; the message says which."""


@dataclass(frozen=True)
class Method:
    """A method's predictions on a benchmark: label for people, file, person- or
    observer-centric."""

    label: str
    path: Path
    mode: str


class Benchmarks:
    """Access to what is present below a folder; each file is read once.

    Parameters
    ----------
    root : the folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def need(self, name: str) -> Path:
        """A file below the folder.

        Raises
        ------
        Missing : not there.
        """
        path = self.root / name
        if not path.exists():
            raise Missing(f"{name} is not in {self.root}")
        return path

    @cached_property
    def lsp_truth(self) -> Floats:
        """(1000, 14, 3), person-centric, visible = 1."""
        self.need("lsp/joints.mat")
        return lsp_files.read_joints(self.root, "lsp")[0][1000:]

    @cached_property
    def lsp_truth_oc(self) -> Floats:
        """(1000, 14, 2 or 3), observer-centric."""
        (joints,) = matfile.load(self.need("predictions/LSP-joints-OC.mat"), "joints")
        return np.asarray(joints, np.float64).transpose(2, 1, 0)[-1000:]

    @cached_property
    def flic_tests(self) -> tuple[Floats, Floats]:
        """Test examples: (1016, 9, 2) observer-centric in the network's order, and the 11 raw
        points."""
        tests = [
            e
            for e in flic_files.read_examples(self.need("flic/examples.mat"))
            if matfile.number(e.istest)
        ]
        coords = (np.asarray(e.coords, np.float64) for e in tests)
        return np.stack([flic_files.joints_of(e)[0][:, :2] for e in tests]), np.stack(
            [c[:, ~np.isnan(c[0])].T for c in coords]
        )

    @cached_property
    def flic_boxes(self) -> Floats:
        """Diagonal of each test example's torso box, (1016,)."""
        tests = [
            e
            for e in flic_files.read_examples(self.need("flic/examples.mat"))
            if matfile.number(e.istest)
        ]
        boxes = np.stack([np.asarray(e.torsobox, np.float64).reshape(-1) for e in tests])
        return np.asarray(np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1), np.float64)

    @cached_property
    def mpii_valid(self) -> tuple[Floats, Floats]:
        """Validation split: parts (2958, 16, 2) and head lengths (2958,)."""
        import h5py

        with h5py.File(self.need("mpii/valid.h5"), "r") as file:
            return file["part"][()].astype(np.float64), file["normalize"][()].astype(np.float64)

    def lsp_score(self, name: str, mode: str = "pc") -> measures.EvalResult:
        """PCK of a prediction file on LSP."""
        self.need(name)
        truth = self.lsp_truth if mode == "pc" else self.lsp_truth_oc
        return measures.score_lsp(joint_files.read_mat(self.need(name)), truth)

    def flic_score(self, name: str, normalise: str) -> measures.EvalResult:
        """PCK of a prediction file (9 joints) on FLIC."""
        self.need(name)
        return measures.score_flic(
            joint_files.read_mat(self.need(name)), self.flic_tests[0], normalise=normalise
        )

    def mpii_score(self, name: str) -> measures.EvalResult:
        """PCKh of a prediction file on the validation split."""
        import h5py

        try:
            with h5py.File(self.need(name), "r") as file:
                guess = file["preds"][()].astype(np.float64)
        except (OSError, KeyError) as error:
            raise DataError(
                f"{name}: is no prediction file with a data set 'preds': {error}"
            ) from None
        return measures.score_mpii(
            guess.transpose(2, 1, 0) if guess.shape[0] == 2 else guess, *self.mpii_valid
        )

    def methods(self, dataset: str, modes: Sequence[str] = ("pc",)) -> list[Method]:
        """Other methods' prediction files on a benchmark."""
        found = []
        for mode in modes:
            for path in sorted(
                (self.root / "predictions").glob(f"*/pred_keypoints_{dataset}_{mode}.mat")
            ):
                label = path.parent / "algorithm.txt"
                text = (
                    label.read_text(encoding="utf-8", errors="replace").strip()
                    if label.exists()
                    else path.parent.name
                )
                found.append(Method(text.splitlines()[0] if text else path.parent.name, path, mode))
        return found
