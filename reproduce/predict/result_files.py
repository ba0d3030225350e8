"""What a run of the predictor writes: OpenPose's and COCO's JSON, .npz and .mat of many images."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from caffe_compat import foreign
from caffe_compat.errors import printable
from caffe_compat.files import TargetError, atomic_write
from reproduce.people.matlab_pixels import to_matlab
from reproduce.people.skeletons import Skeleton

Floats = npt.NDArray[np.float64]
_RESULT_FIELDS = ("image_id", "category_id", "keypoints", "score")


def openpose(people: Sequence[tuple[Floats, Floats]]) -> dict[str, Any]:
    """OpenPose's JSON of an image: x, y (0-based pixels), score of each joint, per person.

    Parameters
    ----------
    people : (joints (P, 2) 0-based, scores (P,)) of each; a joint that is nan is hidden: 0, 0, 0.
    """
    rows = []
    for joints, scores in people:
        values = np.column_stack([joints, scores]).round(3)
        values[~np.isfinite(values).all(1)] = 0
        rows.append(values.ravel().tolist())
    return {"version": 1.0, "people": [{"pose_keypoints_2d": row} for row in rows]}


def keypoints(person: Mapping[str, Any]) -> Floats:
    """x, y, score (P, 3) of a person as :func:`openpose` writes it; nan where hidden."""
    values = np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3)
    if "all_keypoints_2d" in person:  # else nothing was hidden, and 0, 0, 0 is a joint
        values[(values == 0).all(1)] = np.nan
    return values


def all_keypoints(person: Mapping[str, Any]) -> Floats:
    """x, y, score (P, 3) of a person as they were predicted, hidden joints too."""
    row = person.get("all_keypoints_2d", person["pose_keypoints_2d"])
    return np.array(row, np.float64).reshape(-1, 3)


def gathered_files(path: Path) -> list[Path]:
    """The files of :func:`write_all`."""
    endings = ("_coco.json", "_coco_results.json", ".npz", ".mat")
    return [path.with_name(path.name + ending) for ending in endings]


def write_all(path: Path, images: Iterable[Mapping[str, Any]], skeletal: Skeleton) -> int:
    """People of many images: ``PATH_coco.json``, ``PATH_coco_results.json`` (the list that COCO's
    ``loadRes`` takes), ``PATH.npz`` and ``PATH.mat``.

    Parameters
    ----------
    images : of each ``image`` (its name), ``size`` (width, height) and ``people`` as
        :func:`openpose` writes them. They are read once, one after the other, and not kept: what
        the files need waits in unnamed files beside ``path``.

    ``.npz`` holds ``joints`` (N, P, 2) and ``scores`` (N, P), ``image`` (N,) and ``parts`` (P,);
    ``.mat`` holds ``prediction_all`` (P, 2, N). Both count pixels from 1, as the data sets' files
    do; JSON counts from 0. Hidden joints are 0, 0, 0 in COCO's files, where that means "not
    labelled"; these two hold every joint as it was predicted, with its score.

    Returns
    -------
    How many people there are. Without people the files hold empty lists; without any image there
    are no files: those of an earlier run, whose images may be others, are removed.

    Raises
    ------
    TargetError : a file cannot be written, a full disk among the reasons.
    """
    with contextlib.ExitStack() as stack:
        pictures, annotations = _Rows(path, stack), _Rows(path, stack)
        people = _People(path, stack, len(skeletal.parts))
        for number, image in enumerate(images, 1):
            pictures.add(coco_image(number, image))
            for person in image["people"]:
                people.add(image["image"], all_keypoints(person))
                annotations.add(coco_person(people.count, number, person))
        if not pictures.count:
            for older in gathered_files(path):
                older.unlink(missing_ok=True)
            return 0
        category = json.dumps([coco_category(skeletal)])
        with atomic_write(path.with_name(path.name + "_coco.json")) as stream:
            stream.write(b'{"images": ')
            pictures.copy(stream)
            stream.write(f', "categories": {category}, "annotations": '.encode())
            annotations.copy(stream)
            stream.write(b"}\n")
        with atomic_write(path.with_name(path.name + "_coco_results.json")) as stream:
            annotations.copy(stream, _of_results)
            stream.write(b"\n")
        people.write(path, skeletal)
        return people.count


@contextlib.contextmanager
def _waiting(path: Path) -> Iterator[IO[bytes]]:
    """An unnamed file in the folder of results, where there has to be room for them anyway; it is
    gone at the end, however that comes."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as stream:
            yield stream
    except OSError as error:
        reason = error.strerror or error
        raise TargetError(f"{path.parent}: results cannot be put together: {reason}") from None


class _Rows:
    """Objects that become a JSON list; they wait on disk."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self.count = 0
        self._lines = stack.enter_context(_waiting(path))

    def add(self, row: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(row).encode() + b"\n")
        self.count += 1

    def copy(self, stream: IO[bytes], change: Callable[[bytes], bytes] = bytes) -> None:
        """Write the list, one member a line."""
        self._lines.seek(0)
        stream.write(b"[")
        for number, line in enumerate(self._lines):
            stream.write((b",\n" if number else b"\n") + change(line.rstrip(b"\n")))
        stream.write(b"\n]")


class _People:
    """Joints, scores and image names of people, as .npz and .mat have them; they wait on disk."""

    _TOGETHER = 4096  # names that are in memory at once

    def __init__(self, path: Path, stack: contextlib.ExitStack, parts: int) -> None:
        self.count = 0
        self._parts = parts
        self._longest = 1  # characters of a name
        self._joints, self._scores, self._names, self._equally_long = (
            stack.enter_context(_waiting(path)) for _ in range(4)
        )

    def add(self, image: str, values: Floats) -> None:
        """One more: x, y (0-based), score (P, 3)."""
        self._joints.write(to_matlab(values[:, :2]).tobytes())
        self._scores.write(values[:, 2].tobytes())
        self._names.write(json.dumps(image).encode() + b"\n")
        self._longest = max(self._longest, len(image))
        self.count += 1

    def write(self, path: Path, skeletal: Skeleton) -> None:
        """Write ``PATH.npz`` and ``PATH.mat``."""
        from scipy.io import savemat

        parts = np.array(skeletal.parts)
        joints = self._mapped(self._joints, np.dtype(np.float64), (self._parts, 2))
        scores = self._mapped(self._scores, np.dtype(np.float64), (self._parts,))
        kind = np.dtype((np.str_, self._longest))
        names = self._all_names()
        while some := list(itertools.islice(names, self._TOGETHER)):
            self._equally_long.write(np.array(some, kind).tobytes())
        image = self._mapped(self._equally_long, kind, ())
        with atomic_write(path.with_name(path.name + ".npz")) as stream:
            np.savez(stream, joints=joints, scores=scores, image=image, parts=parts)
        cells = np.empty((self.count, 1), object)
        for number, name in enumerate(self._all_names()):
            # people of one image share its name; MATLAB's files hold Unicode only, so that broken
            # UTF-8 in a name is escaped
            again = number > 0 and cells[number - 1, 0] == printable(name)
            cells[number, 0] = cells[number - 1, 0] if again else printable(name)
        with atomic_write(path.with_name(path.name + ".mat")) as stream:
            everything = {
                "prediction_all": joints.transpose(1, 2, 0),
                "scores": scores.T,
                "image": cells,
                "parts": np.array(parts, object)[:, None],
            }
            savemat(stream, everything)

    def _mapped(
        self, stream: IO[bytes], kind: np.dtype[Any], shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """What waits in a file, as an array (people, ...) that is read when it is needed."""
        stream.flush()
        if not self.count:  # a file without contents cannot be mapped
            return np.zeros((0, *shape), kind)
        return np.memmap(stream, kind, "r", shape=(self.count, *shape))

    def _all_names(self) -> Iterator[str]:
        self._names.seek(0)
        return map(json.loads, self._names)


def coco_category(skeletal: Skeleton) -> dict[str, Any]:
    """The one category of COCO's key-point JSON: a person with these parts."""
    return {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(skeletal.parts),
        "skeleton": [[a + 1, b + 1] for a, b in skeletal.limbs],
    }


def coco_image(number: int, image: Mapping[str, Any]) -> dict[str, Any]:
    """An image of COCO's JSON."""
    width, height = image["size"]
    return {"id": number, "file_name": image["image"], "width": width, "height": height}


def coco_person(number: int, image: int, person: Mapping[str, Any]) -> dict[str, Any]:
    """An annotation of COCO's JSON (pixels from 0); hidden joints are 0, 0, 0.

    Parameters
    ----------
    number, image : of the person and of the image.
    person : as :func:`openpose` writes it.
    """
    values = keypoints(person)
    seen = values[np.isfinite(values).all(1)]
    low = seen[:, :2].min(0) if len(seen) else np.zeros(2)
    high = seen[:, :2].max(0) if len(seen) else np.zeros(2)
    wide, tall = (high - low).tolist()
    rows = [
        (x, y, 2) if math.isfinite(x + y + score) else (0.0, 0.0, 0)
        for x, y, score in values.tolist()
    ]
    scores = np.nan_to_num(all_keypoints(person)[:, 2], posinf=0.0, neginf=0.0)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": [value for row in rows for value in row],
        "num_keypoints": len(seen),
        "score": round(float(scores.mean()), 4),
        "bbox": [*low.tolist(), wide, tall],
        "area": wide * tall,
        "iscrowd": 0,
    }


def _of_results(line: bytes) -> bytes:
    """What ``COCO.loadRes`` takes of an annotation."""
    row = json.loads(line)
    return json.dumps({name: row[name] for name in _RESULT_FIELDS}).encode()


def lines_left_out(result: dict[str, Any]) -> list[str]:
    """What a result says about people who were left out.

    Raises
    ------
    Unfit : it is no list of lines.
    """
    lines = result.get("left_out", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise foreign.Unfit("its left_out is no list of lines")
    return lines


def read_result(path: Path, parts: int) -> dict[str, Any]:
    """A ``_keypoints.json`` of :mod:`reproduce.predict.photographs`, checked.

    Parameters
    ----------
    parts : of the network whose results are wanted.

    Raises
    ------
    DataError : damaged, or of another network.
    """
    what, advice = "result of cpm-predict", "remove it to make it again"
    content = foreign.read_json(path, what, nan=True, advice=advice)
    with foreign.reading(path, what, advice=advice):
        if not isinstance(content, dict) or not isinstance(content.get("image"), str):
            raise foreign.Unfit("it names no image")
        width, height = content["size"]
        if type(width) is not int or type(height) is not int or min(width, height) < 1:
            raise foreign.Unfit("its size is no width and height")
        lines_left_out(content)
        for person in content["people"]:
            for name in ("pose_keypoints_2d", "all_keypoints_2d"):
                row = np.array(person.get(name, person["pose_keypoints_2d"]), np.float64)
                if row.shape != (3 * parts,):
                    raise foreign.Unfit(f"a person has {row.size} numbers, expected {3 * parts}")
    return content
