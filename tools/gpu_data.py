"""The data of ``measure_gpu.py`` as one small file: training records of Leeds people, resized to
what the network sees, and the first LSP test people as they are.

    python tools/measure_gpu.py --pack leeds.tar.gz --data DIR

A training picture is made smaller where the network never sees it as large: the data layer scales a
person to ``target_dist``, by chance up to 1.3 times that. It is never enlarged. Test pictures keep
their bytes, because the testing protocol goes by the height of the picture. Where the file would be
larger than the limit, every n-th training person stays.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.files import atomic_write, write_json
from reproduce.benchmarks.lsp import Lsp
from reproduce.network.netgen import DataConfig
from reproduce.people import lsp_files
from reproduce.people.annotation import Annotation
from reproduce.records import encoding, store
from reproduce.records.images import read_image

LIMIT = 60 << 20  # bytes of the packed file
TESTED = 500  # LSP test people at most
_QUALITY = 85  # of the training pictures' JPEG, as most of LSP's are
_RECORDS, _ABOUT = "leeds.lmdb", "about.json"
_RESERVE = 1500  # bytes a record takes beside its picture once compressed, at most


@dataclass(frozen=True)
class Packed:
    """What an unpacked file gives.

    Attributes
    ----------
    folder : as ``--data`` of the commands takes it: lsp/ with the test people.
    records : LMDB of the training people.
    trained, tested : how many people these are.
    """

    folder: Path
    records: Path
    trained: int
    tested: int


def shrunk(annotation: Annotation, image: np.ndarray) -> tuple[Annotation, np.ndarray]:
    """A person and picture as large as the network sees them at most.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R.
    """
    layer = DataConfig()
    most = layer.target_dist * layer.scale_max
    if annotation.scale <= most:
        return annotation, image
    factor = most / annotation.scale
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    ratio = np.array([size[0] / width, size[1] / height])

    def moved(points: np.ndarray) -> np.ndarray:
        """Pixel centres stay pixel centres."""
        return np.asarray((points + 0.5) * ratio - 0.5)

    joints = annotation.joints.copy()
    known = (joints[:, :2] != -1).any(1)  # (-1, -1): nobody annotated it
    joints[known, :2] = moved(joints[known, :2])
    person = replace(
        annotation,
        joints=joints,
        objpos=moved(annotation.objpos),
        scale=annotation.scale * float(ratio.mean()),
        size=size,
    )
    return person, cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def pack(data: Path, target: Path, limit: int = LIMIT) -> dict[str, int]:
    """Write the file.

    Returns
    -------
    Its bytes, and the people in it.

    Raises
    ------
    DataError : no pictures below ``data``, or more test pictures than the limit holds.
    """
    people = lsp_files.read_training(data, skip_missing=True)
    tests = [path for path, _ in Lsp(data).people()[:TESTED] if path.exists()]
    if not people or not tests:
        raise DataError(f"{data}: no pictures of LSP and LSPET in it (lsp/images, lspet/images)")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "packed"
        images = folder / "lsp" / "images"
        images.mkdir(parents=True)
        for path in tests:
            shutil.copyfile(path, images / path.name)
        for which in ("lsp", "lspet"):  # the trainings read both
            (folder / which).mkdir(exist_ok=True)
            source = lsp_files.read_joints(data, which)[1] / "joints.mat"
            shutil.copyfile(source, folder / which / "joints.mat")
        room = limit - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        chosen = _fitting(data, people, work / "small", room)
        store.export_lmdb(store.plan(chosen, seed=1), work / "small", folder / _RECORDS, jpeg=True)
        about = {"trained": len(chosen), "tested": len(tests)}
        write_json(folder / _ABOUT, about)
        with (
            atomic_write(target) as stream,
            tarfile.open(fileobj=stream, mode="w:gz") as archive,
        ):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.name != "lock.mdb":
                    archive.add(path, str(path.relative_to(folder)), recursive=False)
    size = target.stat().st_size
    if size > limit:
        raise DataError(f"{target}: {size:,} bytes, more than {limit:,}; pack fewer people")
    return {"bytes": size, **about}


def _fitting(data: Path, people: Sequence[Annotation], out: Path, room: int) -> list[Annotation]:
    """Small pictures of the people, and as many of these, evenly spread, as there is room for."""
    if room <= 0:
        raise DataError("the test pictures alone are larger than the limit")
    made, sizes = [], []
    for person in people:
        small, image = shrunk(person, read_image(encoding.image_path(data, person)))
        path = out / Path(person.image).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        done, stored = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not done:
            raise DataError(f"{person.image}: cannot be written as JPEG")
        path.write_bytes(stored.tobytes())
        made.append(replace(small, image=str(path.relative_to(out))))
        sizes.append(path.stat().st_size + _RESERVE)
    count = len(made)
    while True:
        places = np.unique(np.linspace(0, len(made) - 1, count).round().astype(int))
        need = sum(sizes[i] for i in places)
        if need <= room:
            return [made[i] for i in places]
        count = min(count - 1, int(count * room / need))
        if count < 1:
            raise DataError("not one training person fits into the limit")


def unpack(path: Path, folder: Path) -> Packed:
    """Unpack such a file into a folder.

    Raises
    ------
    DataError : no such file.
    """
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        return Packed(folder, folder / _RECORDS, int(about["trained"]), int(about["tested"]))
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise DataError(f"{path}: is no file of measure_gpu.py --pack: {error}") from error
