"""What a benchmark is: everything that is known of one data set that networks are tested on.

Each data set has a file of its own in this folder with one subclass of :class:`Benchmark`. Commands
and figures ask that class and compare no names, so that a new benchmark is one new file
(:mod:`reproduce.benchmarks.registry` finds it).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import ending
from reproduce.benchmarks import measures
from reproduce.benchmarks.measures import EvalResult, Stick
from reproduce.benchmarks.published import source_of
from reproduce.people.skeletons import Skeleton
from reproduce.predict import joint_files
from reproduce.predict.protocol import Person, Protocol

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Missing(DataError):
    """A file that is not there; the message says which."""


@dataclass(frozen=True)
class Norm:
    """What the error of a joint is divided by.

    Attributes
    ----------
    ends : two joints whose distance it is; None: a length of its own that the data set annotates
        (:meth:`Benchmark.annotated_lengths`).
    of_prediction : the distance is the prediction's own instead of the truth's.
    """

    ends: tuple[str, str] | None
    of_prediction: bool = False


# The published tables of whole bodies: a row's name and the joints whose mean it is.
BODY_GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("neck", "head"),
    "shoulder": ("Rsho", "Lsho"),
    "elbow": ("Relb", "Lelb"),
    "wrist": ("Rwri", "Lwri"),
    "hip": ("Rhip", "Lhip"),
    "knee": ("Rkne", "Lkne"),
    "ankle": ("Rank", "Lank"),
}
# The limbs of a whole body that PCP scores.
BODY_STICKS = (
    Stick("R lower leg", ("Rank",), ("Rkne",)),
    Stick("R upper leg", ("Rkne",), ("Rhip",)),
    Stick("L upper leg", ("Lhip",), ("Lkne",)),
    Stick("L lower leg", ("Lkne",), ("Lank",)),
    Stick("R forearm", ("Rwri",), ("Relb",)),
    Stick("R upper arm", ("Relb",), ("Rsho",)),
    Stick("L upper arm", ("Lsho",), ("Lelb",)),
    Stick("L forearm", ("Lelb",), ("Lwri",)),
    Stick("head", ("neck",), ("head",)),
    Stick("torso", ("Rsho", "Lsho"), ("Rhip", "Lhip")),
)
BODY_STICK_GROUPS: dict[str, tuple[str, ...]] = {
    "torso": ("torso",),
    "upper leg": ("R upper leg", "L upper leg"),
    "lower leg": ("R lower leg", "L lower leg"),
    "upper arm": ("R upper arm", "L upper arm"),
    "forearm": ("R forearm", "L forearm"),
    "head": ("head",),
}
TORSO = ("Lsho", "Rhip")  # the release's reference length: left shoulder to right hip


class Benchmark(ABC):
    """One data set that networks are tested on, and its data below a folder.

    A class attribute says a fact, a method reads data. All coordinates count pixels from 0; only
    the files of data sets and results count from 1.

    Parameters
    ----------
    root : folder that holds the data sets' folders, ``release/`` and ``predictions/``.

    Attributes
    ----------
    name : what commands call it.
    title : name and measure, as tables and figures show them.
    stem : first part of a result file's name (``LSP_prediction_model_NAME.mat``).
    folder : below ``root``; the key of published.toml's ``[where]``.
    joints : order of the joints in its files.
    skeleton : the parts that its networks predict.
    no_other_parts : networks of further parts mean something else by one of these names.
    protocol : how its people are tested.
    groups : rows of its table, each the mean of some joints.
    threshold : the table's, in reference lengths.
    thresholds : (T,) the curves', in reference lengths.
    counted : joints that are scored; empty: all.
    norms : what errors may be divided by; the first is the paper's.
    script_norm : the norm of the released script, where it is another one than the paper's.
    sticks : limbs that PCP scores.
    stick_groups : rows of the PCP table.
    annotations : kinds of truth there are; "pc" (person-centric) or "oc" (observer-centric) first.
    released : label and file (below ``root``) of the authors' predictions, the best first.
    public : whether the truth of its test people is public.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stem: ClassVar[str]
    folder: ClassVar[str]
    joints: ClassVar[tuple[str, ...]]
    skeleton: ClassVar[Skeleton]
    no_other_parts: ClassVar[bool] = False
    protocol: ClassVar[Protocol]
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = BODY_GROUPS
    threshold: ClassVar[float] = 0.2
    thresholds: ClassVar[Floats] = measures.NARROW_THRESHOLDS
    counted: ClassVar[tuple[str, ...]] = ()
    norms: ClassVar[Mapping[str, Norm]] = {"torso": Norm(TORSO)}
    script_norm: ClassVar[str] = ""
    sticks: ClassVar[tuple[Stick, ...]] = BODY_STICKS
    stick_groups: ClassVar[Mapping[str, tuple[str, ...]]] = BODY_STICK_GROUPS
    annotations: ClassVar[tuple[str, ...]] = ("pc",)
    released: ClassVar[Mapping[str, str]] = {}
    public: ClassVar[bool] = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    @classmethod
    def for_testing(cls, root: str | os.PathLike[str]) -> Benchmark:
        """The benchmark whose people a network is run on; another split where scores are made on
        one and results handed in of another."""
        return cls(root)

    # ------------------------------------------------------------ what each data set must say

    @abstractmethod
    def people(self) -> list[tuple[Path, Person]]:
        """Image file and place of each test person, in the order of its result files.

        Raises
        ------
        DataError : annotations that are missing or not readable.
        """

    @abstractmethod
    def truth(self, count: int, annotation: str = "pc") -> tuple[Floats, tuple[str, ...]]:
        """The test people's joints for predictions of ``count`` joints a person, and their names.

        Returns
        -------
        (N, count, 2), nan where a joint is not annotated; names of the joints.

        Raises
        ------
        DataError : annotations that are missing or not readable.
        """

    # ------------------------------------------------------------ what some data sets say

    def annotated_lengths(self, norm: str) -> Floats:
        """(N,) lengths that the data set annotates, for a norm without ends.

        Raises
        ------
        CaffeCompatError : the data set annotates no such length.
        """
        raise CaffeCompatError(f"{self.name} annotates no length '{norm}'")

    def reference_points(
        self, count: int, annotation: str = "pc"
    ) -> tuple[Floats, tuple[str, ...]]:
        """The true joints that reference lengths of predictions with ``count`` joints are taken
        from; see :meth:`truth`."""
        return self.truth(count, annotation)

    def methods(self) -> dict[str, Floats]:
        """Predictions (N, J, 2) of the methods that there are, by label; the authors' first."""
        return {
            label: self.read(self.root / file)
            for label, file in self.released.items()
            if (self.root / file).exists()
        }

    def write(self, path: Path, predicted: Floats) -> None:
        """Write a result file of predictions (N, J, 2) as the release lays it out."""
        joint_files.write_mat(path, predicted)

    # ------------------------------------------------------------ what follows

    def need(self, name: str) -> Path:
        """A file below the folder.

        Raises
        ------
        Missing : not there.
        """
        path = self.root / name
        if not path.exists():
            raise Missing(f"{name} is not in {self.root} (--data){source_of(name)}")
        return path

    @classmethod
    def paper_norm(cls) -> str:
        """The norm of the paper's numbers."""
        return next(iter(cls.norms))

    @classmethod
    def to_file(cls, predicted: Floats, network: Skeleton | None = None) -> Floats:
        """What a network predicts, (..., P, 2), in the order of the data set's joints, (..., J, 2);
        nan where the network has no such part.

        Parameters
        ----------
        network : the network's parts; without it, or where it does not tell their names, they are
            those that the benchmark's networks have, in that order.
        """
        names = cls.skeleton.parts if network is None or not network.told else network.parts
        return cls._in_order(predicted, names)

    def read(self, path: str | os.PathLike[str], *, base: int = 1) -> Floats:
        """(N, J, 2) predictions of a file, in 0-based pixels and the data set's order; a file that
        names its parts may have another order.

        Parameters
        ----------
        base : the number of the first pixel in the file, as :func:`joint_files.read` takes it.

        Raises
        ------
        DataError : the file cannot be read, or names other parts than the benchmark needs.
        """
        predicted, parts = joint_files.read_named(path, base=base)
        return self.by_names(predicted, parts, os.fspath(path)) if parts else predicted

    def by_names(self, predicted: Floats, parts: Sequence[str], source: str) -> Floats:
        """Predictions (N, P, 2) of named parts in the order of the truth's joints (N, J, 2); nan
        where there is no such part.

        Raises
        ------
        DataError : they are neither the truth's joints nor the parts that networks predict.
        """
        if len(parts) == predicted.shape[1]:
            joints = self.joints_of(len(parts))
            if sorted(joints) == sorted(parts):
                return predicted[:, [parts.index(joint) for joint in joints]]
            if self._serves(parts):
                return self._in_order(predicted, parts)
        raise DataError(f"{source}: its parts are {', '.join(parts)}; {self._needs()}")

    @classmethod
    def _needs(cls) -> str:
        """What is expected of parts that do not serve."""
        names = ", ".join(cls.skeleton.parts)
        if not cls.no_other_parts:
            return f"{cls.name} needs {names}"
        return (
            f"{cls.name} needs just these, since larger networks mean something else by one of "
            f"them: {names}"
        )

    @classmethod
    def joints_of(cls, count: int) -> tuple[str, ...]:
        """The joints of the truth that predictions of so many joints are held against."""
        return cls.joints

    @classmethod
    def _serves(cls, parts: Sequence[str]) -> bool:
        """Are the parts that the benchmark's networks predict among these?"""
        if cls.no_other_parts and len(parts) > len(cls.skeleton):
            return False
        return set(cls.skeleton.parts) <= set(parts)

    @classmethod
    def _in_order(cls, predicted: Floats, parts: Sequence[str]) -> Floats:
        """Named parts (..., P, 2) as the data set's joints (..., J, 2)."""
        found = np.full((*predicted.shape[:-2], len(cls.joints), 2), np.nan)
        for row, joint in enumerate(cls.joints):
            if joint in parts:
                found[..., row, :] = predicted[..., parts.index(joint), :]
        return found

    @classmethod
    def to_parts(cls, joints: Floats) -> Floats:
        """The data set's joints (N, J, 2) in the order of the network's parts (N, P, 2)."""
        return joints[:, [cls.joints.index(part) for part in cls.skeleton.parts]]

    def check_parts(self, network: Skeleton) -> None:
        """Raise where a network has other parts than the benchmark needs.

        Parameters
        ----------
        network : its parts; where it does not tell their names, their number has to be right.

        Raises
        ------
        CaffeCompatError : it has.
        """
        if not network.told and len(network) != len(self.skeleton):
            raise CaffeCompatError(
                f"the network has {len(network)} parts, {self.title.split(' ')[0]} needs "
                f"{len(self.skeleton)}"
            )
        if network.told and not self._serves(network.parts):
            raise CaffeCompatError(
                f"the network's parts are {', '.join(network.parts)}; {self._needs()}"
            )

    def reference(self, norm: str, predicted: Floats, annotation: str = "pc") -> Floats:
        """(N,) what each person's errors are divided by.

        Parameters
        ----------
        predicted : (N, J, 2) predictions of all test people.

        Raises
        ------
        CaffeCompatError : no such norm, or predictions without the joints that it needs.
        """
        if norm not in self.norms:
            raise CaffeCompatError(f"--norm {norm}: {self.name} has {', '.join(self.norms)}")
        by = self.norms[norm]
        if by.ends is None:
            return self.annotated_lengths(norm)
        if by.of_prediction:
            points, names = predicted, self.truth(predicted.shape[1], annotation)[1]
        else:
            points, names = self.reference_points(predicted.shape[1], annotation)
        if not set(by.ends) <= set(names):
            raise CaffeCompatError(
                f"--norm {norm} needs {' and '.join(by.ends)}, these predictions have not both"
            )
        first, second = (points[:, names.index(end)] for end in by.ends)
        return np.asarray(np.linalg.norm(first - second, axis=1), np.float64)

    def score(
        self,
        predicted: Floats,
        *,
        norm: str = "",
        annotation: str = "pc",
        thresholds: Floats | None = None,
        people: Indices | None = None,
        source: str = "predictions",
    ) -> EvalResult:
        """PCK of predictions.

        People whose truth lacks the reference length are not counted; where it is the prediction's
        own, its lack makes every joint of the person a miss.

        Parameters
        ----------
        predicted : (N, J, 2) in 0-based pixels, joints as in the data set's files.
        norm : one of :attr:`norms`; default: the paper's.
        annotation : one of :attr:`annotations`.
        thresholds : default: :attr:`thresholds`.
        people : (N,) which test people these are; default: all.
        source : what the predictions are called in messages.

        Raises
        ------
        CaffeCompatError : other people or joints than the benchmark has; an unknown norm.
        """
        guess, truth, reference, names = self._aligned(predicted, norm, annotation, people, source)
        grid = self.thresholds if thresholds is None else thresholds
        without = 0
        if not self.norms[norm or self.paper_norm()].of_prediction:
            # a person whom the truth does not measure says nothing about the predictions
            lost = ~(reference > 0)
            truth = np.where(lost[:, None, None], np.nan, truth)
            without = int(lost.sum())
        result = measures.pck(guess, truth, reference, names, grid)
        return replace(result, unmeasured=without)

    def hits_of_people(
        self, predicted: Floats, threshold: float, people: Indices | None = None
    ) -> Indices:
        """How many joints of each person are within the threshold (N,): what paired comparisons of
        two networks need."""
        guess, truth, reference, _ = self._aligned(predicted, people=people)
        return measures.hits_of_people(guess, truth, reference, threshold)

    def _aligned(
        self,
        predicted: Floats,
        norm: str = "",
        annotation: str = "pc",
        people: Indices | None = None,
        source: str = "predictions",
    ) -> tuple[Floats, Floats, Floats, list[str]]:
        """Predictions and truth (N, C, 2) of the counted joints, the reference lengths (N,), and
        the joints' names."""
        truth, names = self._truth_for(predicted, annotation, source)
        rows = np.arange(len(truth)) if people is None else people
        self._check_shape(predicted, (len(rows), *truth.shape[1:]), source)
        # every row where it belongs, so that a reference of the prediction finds its people
        whole = np.full_like(truth, np.nan)
        whole[rows] = predicted
        reference = self.reference(norm or self.paper_norm(), whole, annotation)
        counted = [name for name in names if name in self.counted] if self.counted else list(names)
        counted.sort(key=(self.counted or names).index)
        columns = [names.index(name) for name in counted]
        return predicted[:, columns], truth[rows][:, columns], reference[rows], counted

    def score_file(self, name: str, *, norm: str = "", annotation: str = "pc") -> EvalResult:
        """PCK of a prediction file below the folder.

        Raises
        ------
        Missing : it is not there.
        """
        predicted = self.read(self.need(name))
        return self.score(predicted, norm=norm, annotation=annotation, source=name)

    def read_file(self, name: str) -> Floats:
        """(N, J, 2) predictions of all test people in a file below the folder.

        Raises
        ------
        Missing : it is not there.
        CaffeCompatError : it cannot be read, or holds other people or joints.
        """
        predicted = self.read(self.need(name))
        truth, _ = self._truth_for(predicted, self.annotations[0], name)
        self._check_shape(predicted, truth.shape, name)
        return predicted

    def score_limbs(
        self,
        predicted: Floats,
        *,
        annotation: str = "pc",
        thresholds: Floats | None = None,
        source: str = "predictions",
    ) -> EvalResult:
        """Strict PCP of predictions; see :meth:`score`.

        Raises
        ------
        CaffeCompatError : other people than the benchmark has, or joints missing for a limb.
        """
        truth, names = self._truth_for(predicted, annotation, source)
        self._check_shape(predicted, truth.shape, source)
        needed = {end for stick in self.sticks for end in (*stick.first, *stick.second)}
        if not needed <= set(names):
            missing = ", ".join(sorted(needed - set(names)))
            raise CaffeCompatError(f"{source}: PCP needs the joints {missing}, which are not there")
        grid = measures.WIDE_THRESHOLDS if thresholds is None else thresholds
        return measures.pcp(predicted, truth, names, self.sticks, grid)

    def table(self, result: EvalResult) -> dict[str, Any]:
        """The published row at :attr:`threshold`: percent of each group and in total, area under
        the curve, how many joints were within the threshold and how many were counted."""
        at = result.at(self.threshold)
        row: dict[str, Any] = {
            name: result.group(joints, self.threshold) for name, joints in self.groups.items()
        }
        return {
            **row,
            "total": float(result.total[at]),
            "auc": result.auc,
            "hits": int(result.hits[at].sum()),
            "counted": int(result.counted.sum()),
        }

    def _truth_for(
        self, predicted: Floats, annotation: str, source: str
    ) -> tuple[Floats, tuple[str, ...]]:
        """The truth that predictions are held against, if they are predictions at all."""
        if predicted.ndim != 3 or predicted.shape[2] != 2:
            raise CaffeCompatError(
                f"{source}: the array has the shape {predicted.shape}, expected (people, joints, 2)"
            )
        return self.truth(predicted.shape[1], annotation)

    @staticmethod
    def _check_shape(predicted: Floats, wanted: tuple[int, ...], source: str) -> None:
        if predicted.shape != wanted:
            advice = ""
            if predicted.shape[0] != wanted[0]:
                advice = (
                    "; a file of all people is compared here, with nan where nothing was predicted "
                    "(cpm-predict --limit writes the score of its people beside its file)"
                )
            raise CaffeCompatError(
                f"{source}: holds {predicted.shape[0]} people with {predicted.shape[1]} joints, "
                f"the benchmark has {wanted[0]} with {wanted[1]}{advice}"
            )


# what other methods' files are called: person-centric and observer-centric on LSP, on FLIC, and
# those of MODEC, which are of a form of their own
LSP_FILE, LSP_OC_FILE = "pred_keypoints_lsp_pc.mat", "pred_keypoints_lsp_oc.mat"
FLIC_FILE, MODEC_FILE = "pred_keypoints_flic_oc.mat", "MODEC/results.mat"
_PREDICTIONS = (".mat", ".npz", ".npy", ".h5", ".hdf5", ".json")


def unread_methods(root: Path) -> list[str]:
    """Folders ``predictions/METHOD`` with predictions of which none has a name that is read."""
    folders = [path for path in sorted((root / "predictions").glob("*")) if path.is_dir()]
    known = [root / "predictions" / MODEC_FILE]
    known += [folder / name for folder in folders for name in (LSP_FILE, LSP_OC_FILE, FLIC_FILE)]
    read = {path.parent for path in known if path.exists()}
    return [
        folder.name
        for folder in folders
        if folder not in read and any(ending(path) in _PREDICTIONS for path in folder.iterdir())
    ]


def competitors(root: Path, pattern: str, taken: Iterable[str]) -> dict[str, Path]:
    """Other methods' prediction files ``predictions/METHOD/PATTERN``, by their label: the first
    line of the ``algorithm.txt`` beside them. The authors' own predictions are left out.

    Parameters
    ----------
    taken : labels of the authors' own predictions.

    Raises
    ------
    DataError : a method with the label of another one, whose curve it would replace.
    """
    found: dict[str, Path] = {}
    owners = dict.fromkeys(taken, "the authors' predictions")
    for path in sorted((root / "predictions").glob(f"*/{pattern}")):
        if path.parent.name == "WeiCVPR16":
            continue
        about = path.parent / "algorithm.txt"
        text = about.read_text(encoding="utf-8", errors="replace") if about.exists() else ""
        lines: Sequence[str] = text.strip().splitlines()
        label = lines[0] if lines else path.parent.name
        if label in owners:
            raise DataError(
                f"{about if lines else path.parent}: is called '{label}', as {owners[label]} are; "
                "give each method a name of its own, in the first line of its algorithm.txt"
            )
        found[label], owners[label] = path, f"those of {path.parent}"
    return found
