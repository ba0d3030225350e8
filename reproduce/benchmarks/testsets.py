"""The benchmarks' test people, in the release's order, and how its result files are laid out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import atomic_write
from reproduce.benchmarks import measures
from reproduce.benchmarks.truth import Benchmarks, Missing
from reproduce.people import flic_files, lsp_files, matfile, mpii_files
from reproduce.people.skeletons import LSP_JOINTS, MPII_JOINTS, SKELETON_14
from reproduce.predict import joint_files
from reproduce.predict.protocol import PROTOCOLS, Person, Protocol, Standing

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TestSet:
    """A benchmark.

    Attributes
    ----------
    title : for people. stem : of the result file (``LSP`` gives ``LSP_prediction_model_NAME.mat``).
    people : image file and where in it the person stands, in order.
    parts : that the network must have.
    protocol : how they are tested.
    to_file : joints (P, 2) of the network to the file's (J, 2).
    score : (N, J, 2) predictions and the indices that were done to a table's row; None where the
        truth is not public.
    write : (path, (N, J, 2)) writes the result file.
    """

    __test__ = False  # pytest: no test class

    title: str
    stem: str
    people: list[tuple[Path, Person]]
    parts: int
    protocol: Protocol
    to_file: Callable[[Floats], Floats]
    score: Callable[[Floats, npt.NDArray[np.int64]], dict[str, Any]] | None
    write: Callable[[Path, Floats], None] = joint_files.write_mat


def open_set(
    name: str,
    root: str | os.PathLike[str],
    limit: int | None = None,
) -> TestSet:
    """A benchmark's test people.

    Parameters
    ----------
    name : "lsp", "flic", "mpi" (the test set of MPII's annotation file; the validation split where
        only that is there) or "mpi-valid". root : folder with ``lsp/``, ``flic/`` or ``mpii/``.
        limit : the first so many people.

    Raises
    ------
    DataError : annotations that are missing or not readable.
    """
    if name == "lsp":
        return _lsp(root, limit)
    if name == "flic":
        return _flic(root, limit)
    if name == "mpi":
        found = sorted(Path(root).rglob(mpii_files.MAT)) or sorted(
            Path(root).rglob("mpii*release*.mat")
        )
        if found:
            return mpi_test(found[0], limit)
        if not (Path(root) / "mpii" / "valid.h5").exists():
            raise Missing(
                f"{os.fspath(root)}: neither {mpii_files.MAT} nor mpii/valid.h5 in it (MPII "
                "Human Pose)"
            )
    return _mpi_valid(root, limit)


def _lsp(root: str | os.PathLike[str], limit: int | None) -> TestSet:
    joints, folder = lsp_files.read_joints(root, "lsp")
    truth = joints[1000 : 1000 + (limit or 1000)]
    people: list[tuple[Path, Person]] = [
        (folder / "images" / f"im{1001 + i:04d}.jpg", None) for i in range(len(truth))
    ]
    order = [SKELETON_14.parts.index(j) for j in LSP_JOINTS]
    return TestSet(
        "LSP (person-centric) PCK@0.2",
        "LSP",
        people,
        14,
        replace(PROTOCOLS["lsp"], upright=False),
        lambda j: j[order],
        lambda guess, done: measures.lsp_table(measures.score_lsp(guess[done], truth[done])),
    )


def _flic(root: str | os.PathLike[str], limit: int | None) -> TestSet:
    data = Benchmarks(root)
    examples = flic_files.read_examples(data.need("flic/examples.mat"))
    tests = [e for e in examples if matfile.number(e.istest)][:limit]
    people: list[tuple[Path, Person]] = []
    for e in tests:
        x0, y0, x1, y1 = (float(v) for v in np.asarray(e.torsobox).reshape(-1))
        path = data.root / "flic" / "images" / matfile.text(e.filepath)
        people.append((path, (x0 - 1, y0 - 1, x1 - x0, y1 - y0)))
    truth = np.stack([flic_files.joints_of(e)[0][:, :2] for e in tests])

    def score(guess: Floats, done: npt.NDArray[np.int64]) -> dict[str, Any]:
        return table(measures.score_flic(guess[done], truth[done]), measures.FLIC_GROUPS, 0.2)

    return TestSet(
        "FLIC (by the truth's Lsho to Rhip) PCK@0.2",
        "FLIC",
        people,
        9,
        replace(PROTOCOLS["flic"], upright=False),
        lambda j: j,
        score,
    )


def _to_mpii(joints: Floats) -> Floats:
    """14 parts in MPII's order of 16; pelvis and thorax are nan."""
    out = np.full((len(MPII_JOINTS), 2), np.nan)
    out[[first for first, _ in SKELETON_14.sources]] = joints
    return out


def _mpi_valid(root: str | os.PathLike[str], limit: int | None) -> TestSet:
    import h5py

    data = Benchmarks(root)
    with h5py.File(data.need("mpii/valid.h5"), "r") as file:
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in file["imgname"][()]]
        centers, scales = (
            file["center"][()].astype(np.float64),
            file["scale"][()].astype(np.float64),
        )
    # the file's makers enlarged MPII's scale by a quarter and moved the centre down by 15 pixels
    # per unit: undone
    scales = scales / 1.25
    centers = centers - np.column_stack([np.zeros(len(scales)), 15 * scales])
    part, head = data.mpii_valid
    people: list[tuple[Path, Person]] = [
        (
            data.root / "mpii" / "images" / n,
            Standing((float(c[0]) - 1, float(c[1]) - 1), float(s)),
        )
        for n, c, s in zip(names[:limit], centers, scales, strict=False)
    ]

    def score(guess: Floats, done: npt.NDArray[np.int64]) -> dict[str, Any]:
        groups = {
            n: tuple(measures.MPII_COUNTED.index(j) for j in joints)
            for n, joints in measures.MPII_GROUPS.items()
        }
        return table(measures.score_mpii(guess[done], part[done], head[done]), groups, 0.5)

    return TestSet(
        "MPII (Tompson's validation split) PCKh@0.5",
        "MPI_valid",
        people,
        14,
        replace(PROTOCOLS["mpi"], upright=False),
        _to_mpii,
        score,
    )


def table(
    result: measures.EvalResult, groups: dict[str, tuple[int, ...]], threshold: float
) -> dict[str, Any]:
    """A row of percentages at a threshold, with the area under the curve and the joints counted."""
    at = result.at(threshold)
    row: dict[str, Any] = {name: result.group(joints, threshold) for name, joints in groups.items()}
    return {
        **row,
        "total": float(result.total[at]),
        "auc": result.auc,
        "hits": int(result.hits[at].sum()),
        "counted": int(result.counted.sum()),
    }


def mpi_test(
    mat: str | os.PathLike[str],
    limit: int | None = None,
) -> TestSet:
    """MPII's test people (``img_train`` 0, with ``scale`` and ``objpos``); images lie in
    ``images/`` beside the file.

    The result file is the annotation file with the predicted points in it, as the release's
    ``RELEASE_predicted``.
    """
    from scipy.io import loadmat, savemat

    try:
        release = loadmat(mat)["RELEASE"]
        root = release[0, 0]
        entries, training = root["annolist"].reshape(-1), root["img_train"].reshape(-1)
    except (OSError, KeyError, ValueError, IndexError, NotImplementedError, TypeError) as error:
        raise DataError(f"{os.fspath(mat)}: is no annotation file of MPII: {error!r}") from None
    people: list[tuple[Path, Person]] = []
    places: list[tuple[int, int]] = []
    for e, entry in enumerate(entries):
        rectangles = entry["annorect"].reshape(-1)
        names = rectangles.dtype.names or ()
        if training[e] or "scale" not in names or "objpos" not in names:
            continue
        for p, person in enumerate(rectangles):
            if person["scale"].size and person["objpos"].size:
                place = person["objpos"].reshape(-1)[0]
                path = (
                    Path(mat).parent
                    / "images"
                    / str(entry["image"].reshape(-1)[0]["name"].reshape(-1)[0])
                )
                center = float(place["x"].item()) - 1, float(place["y"].item()) - 1
                people.append((path, Standing(center, float(person["scale"].item()))))
                places.append((e, p))
    people, places = people[:limit], places[:limit]

    def write(path: Path, guess: Floats) -> None:
        for (e, p), joints in zip(places, guess, strict=True):
            rectangles = entries[e]["annorect"]
            if "annopoints" not in rectangles.dtype.names:
                rectangles = _with_field(rectangles, "annopoints")
                entries[e]["annorect"] = rectangles
            rectangles.reshape(-1)[p]["annopoints"] = _points(joints)
        with atomic_write(path) as stream:
            savemat(stream, {"RELEASE_predicted": release}, do_compression=True)

    return TestSet(
        "MPII test set (truth not public: no score)",
        "MPI",
        people,
        14,
        replace(PROTOCOLS["mpi"], upright=False),
        _to_mpii,
        None,
        write,
    )


def _with_field(structs: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """A struct array with one field more, empty in all."""
    out = np.empty(
        structs.shape, [*((n, object) for n in structs.dtype.names or ()), (name, object)]
    )
    for field in structs.dtype.names or ():
        out[field] = structs[field]
    for one in out.reshape(-1):
        one[name] = np.zeros((0, 0))
    return out


def _points(joints: Floats) -> npt.NDArray[Any]:
    """``annopoints`` with a ``point`` (id, x, y) per predicted joint, in the order of ids."""
    known = [i for i, xy in enumerate(joints) if np.isfinite(xy).all()]
    points = np.empty((1, len(known)), [("id", object), ("x", object), ("y", object)])
    for place, i in enumerate(known):
        points[0, place] = tuple(np.array([[float(v)]]) for v in (i, *joints[i]))
    out = np.empty((1, 1), [("point", object)])
    out[0, 0] = (points,)
    return out


def check_parts(test: TestSet, parts: int) -> None:
    """Raise where a network has other parts than a benchmark needs."""
    if parts != test.parts:
        raise CaffeCompatError(
            f"the network has {parts} parts, {test.title.split(' ')[0]} needs {test.parts}"
        )
