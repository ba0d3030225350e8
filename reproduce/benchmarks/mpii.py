"""MPII Human Pose: PCKh on Tompson's validation split of 2,958 people; results of the test set,
whose truth is not public."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write
from caffe_compat.foreign import Unfit, open_hdf5, reading, stay_inside, take
from reproduce.benchmarks import measures
from reproduce.benchmarks.benchmark import TORSO, Benchmark, Floats, Missing, Norm
from reproduce.people import matfile, mpii_files
from reproduce.people.matlab_pixels import from_matlab, to_matlab
from reproduce.people.skeletons import LSP_JOINTS, MPII_JOINTS, SKELETON_14
from reproduce.predict.protocol import PROTOCOLS, Person, Standing

VALID = "mpii/valid.h5"
# The makers of valid.h5 enlarged MPII's scale, and moved the centre down by pixels per scale.
ENLARGED, MOVED_DOWN = 1.25, 15.0
# what one person has of each data set of valid.h5
_SHAPES: dict[str, tuple[int, ...]] = {
    "center": (2,),
    "scale": (),
    "part": (len(MPII_JOINTS), 2),
    "normalize": (),
}
LABELS = {"tompson": "Tompson et al., CVPR'15", "newell": "Newell et al., ECCV'16"}


class MpiiValidation(Benchmark):
    """MPII's validation split; see :class:`reproduce.benchmarks.benchmark.Benchmark`.

    The reference length is 0.6 of the head box's diagonal. Pelvis and thorax are not scored.
    """

    name = "mpi-valid"
    title = "MPII (Tompson's validation split) PCKh@0.5"
    stem = "MPI_valid"
    folder = "mpii"
    joints = MPII_JOINTS
    skeleton = SKELETON_14
    protocol = replace(PROTOCOLS["mpi"], upright=False)
    threshold = 0.5
    thresholds = measures.WIDE_THRESHOLDS
    counted = LSP_JOINTS  # the order of the recorded tables
    norms: ClassVar = {"head": Norm(None), "torso": Norm(TORSO)}

    @cached_property
    def _valid(self) -> dict[str, npt.NDArray[Any]]:
        with open_hdf5(self.need(VALID), "file of MPII's validation split") as file:
            found = {"imgname": take(file, "imgname", kinds="SO", axes=1)}
            count = len(found["imgname"])
            for name, shape in _SHAPES.items():
                array = take(file, name, axes=1 + len(shape), rows=count)
                if array.shape[1:] != shape or not np.isfinite(array).all():
                    raise Unfit(f"'{name}' has the shape {array.shape}, or no numbers")
                found[name] = array
            if not count:
                raise Unfit("it holds nobody")
            return found

    def people(self) -> list[tuple[Path, Person]]:
        scales = self._valid["scale"].astype(np.float64) / ENLARGED
        centers = self._valid["center"].astype(np.float64)
        centers[:, 1] -= MOVED_DOWN * scales
        found: list[tuple[Path, Person]] = []
        for name, (x, y), scale in zip(
            self._valid["imgname"], from_matlab(centers).tolist(), scales.tolist(), strict=True
        ):
            text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
            with reading(self.need(VALID), "file of MPII's validation split"):
                stay_inside(text)
            standing = Standing((x, y), scale)
            found.append((self.root / "mpii" / "images" / text, standing))
        return found

    def truth(self, count: int, annotation: str = "pc") -> tuple[Floats, tuple[str, ...]]:
        part = self._valid["part"].astype(np.float64)
        known = (part != 0).any(2, keepdims=True)
        return np.where(known, from_matlab(part), np.nan), self.joints

    def annotated_lengths(self, norm: str) -> Floats:
        """(N,) 0.6 of the head boxes' diagonals."""
        return self._valid["normalize"].astype(np.float64)

    def methods(self) -> dict[str, Floats]:
        """Predictions of the methods that there are: of others, and what ``cpm-predict`` wrote."""
        self.need(VALID)
        folder = self.root / self.folder
        ours = f"{MpiiValidation.stem}_prediction_model_"
        found: dict[str, Floats] = {}
        for path in (*sorted(folder.glob("*.h5")), *sorted(folder.glob(f"{ours}*.mat"))):
            if path.name == Path(VALID).name:
                continue
            name = path.stem.removeprefix(ours)
            label = LABELS.get(name, name)
            if label in found:
                raise DataError(
                    f"{path}: is called '{label}', as another file of predictions in {folder} is; "
                    "give each method a name of its own"
                )
            found[label] = self.read(path)
        return found


class Mpii(MpiiValidation):
    """MPII: scored on the validation split; networks run on the test set where it is there."""

    name = "mpi"

    @classmethod
    def for_testing(cls, root: str | os.PathLike[str]) -> Benchmark:
        """The test set; the validation split where only that is there.

        Raises
        ------
        Missing : neither.
        """
        folder = Path(root)
        found = sorted(folder.rglob(mpii_files.MAT)) or sorted(folder.rglob("mpii*release*.mat"))
        if found:
            return MpiiTest(root, found[0])
        if not (folder / VALID).exists():
            raise Missing(
                f"{os.fspath(root)}: neither {mpii_files.MAT} nor {VALID} in it (MPII Human Pose)"
            )
        return MpiiValidation(root)


class MpiiTest(MpiiValidation):
    """MPII's test people: ``img_train`` 0, with ``scale`` and ``objpos``.

    Their truth is not public. The result file is the annotation file with the predicted points in
    it, as the release's ``RELEASE_predicted``.

    Parameters
    ----------
    mat : the annotation file; images lie in ``images/`` beside or above it.
    """

    name = ""  # found through Mpii
    title = "MPII test set (truth not public: no score)"
    stem = "MPI"
    public = False

    def __init__(self, root: str | os.PathLike[str], mat: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self.mat = Path(mat)

    @cached_property
    def _release(self) -> npt.NDArray[Any]:
        (release,) = matfile.load(self.mat, "RELEASE", records=True)
        return np.asarray(release)

    @cached_property
    def _found(self) -> list[tuple[Path, Standing, tuple[int, int]]]:
        """Image, place, and number of image and rectangle of each test person."""
        with reading(self.mat, "annotation file of MPII"):
            return self._test_people()

    def _test_people(self) -> list[tuple[Path, Standing, tuple[int, int]]]:
        root = self._release[0, 0]
        images = matfile.images_of(self.mat, self.root)
        entries, training = root["annolist"].reshape(-1), root["img_train"].reshape(-1)
        found = []
        for e, entry in enumerate(entries):
            rectangles = entry["annorect"].reshape(-1)
            names = rectangles.dtype.names or ()
            if training[e] or "scale" not in names or "objpos" not in names:
                continue
            for p, person in enumerate(rectangles):
                if person["scale"].size and person["objpos"].size:
                    name = stay_inside(str(entry["image"].reshape(-1)[0]["name"].reshape(-1)[0]))
                    place = person["objpos"].reshape(-1)[0]
                    x, y = from_matlab([place["x"].item(), place["y"].item()]).tolist()
                    standing = Standing((x, y), float(person["scale"].item()))
                    found.append((images / name, standing, (e, p)))
        return found

    def people(self) -> list[tuple[Path, Person]]:
        return [(path, standing) for path, standing, _ in self._found]

    def truth(self, count: int, annotation: str = "pc") -> tuple[Floats, tuple[str, ...]]:
        raise Missing(f"{self.mat}: the truth of MPII's test set is not public")

    def write(self, path: Path, predicted: Floats) -> None:
        """Write the annotation file with the points of its first people."""
        from scipy.io import savemat

        entries = self._release[0, 0]["annolist"].reshape(-1)
        for (_, _, (e, p)), joints in zip(self._found, predicted, strict=False):
            rectangles = entries[e]["annorect"]
            if "annopoints" not in rectangles.dtype.names:
                rectangles = _with_field(rectangles, "annopoints")
                entries[e]["annorect"] = rectangles
            rectangles.reshape(-1)[p]["annopoints"] = _annopoints(to_matlab(joints))
        with atomic_write(path) as stream:
            savemat(stream, {"RELEASE_predicted": self._release}, do_compression=True)


def _with_field(structs: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """A struct array with one field more, empty in all."""
    fields = [*((field, object) for field in structs.dtype.names or ()), (name, object)]
    out = np.empty(structs.shape, fields)
    for field in structs.dtype.names or ():
        out[field] = structs[field]
    for one in out.reshape(-1):
        one[name] = np.zeros((0, 0))
    return out


def _annopoints(joints: Floats) -> npt.NDArray[Any]:
    """``annopoints`` with a ``point`` (id, x, y, from 1) per predicted joint, in the order of
    ids."""
    known = [i for i, xy in enumerate(joints) if np.isfinite(xy).all()]
    points = np.empty((1, len(known)), [("id", object), ("x", object), ("y", object)])
    for place, i in enumerate(known):
        points[0, place] = tuple(np.array([[float(v)]]) for v in (i, *joints[i]))
    out = np.empty((1, 1), [("point", object)])
    out[0, 0] = (points,)
    return out
