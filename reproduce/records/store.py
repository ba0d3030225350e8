"""Files of CPM records: LMDB as the authors wrote it, read by index and written so that a kill
loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.training.datum import LMDBReader
from reproduce.people.annotation import Annotation
from reproduce.records import layout
from reproduce.records.layout import Image, Record

COMMIT_EVERY = 1000
_TRANSACTION = 32  # records whose dirty pages still fit into the cache
_NOTE = "export.json"
Progress = Callable[[int, int], None]


class Store(Protocol):
    """Records by index."""

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """The i-th record in key order."""
        ...

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        ...


class LMDBStore:
    """Records of an LMDB in the authors' layout.

    Parameters
    ----------
    joints : joints per person in the records (``np_in_lmdb``).
    """

    def __init__(self, path: str | os.PathLike[str], joints: int = 16) -> None:
        self.reader, self.joints = LMDBReader(path), joints
        if not len(self.reader):
            raise DataError(f"{os.fspath(path)}: holds no records")

    def __len__(self) -> int:
        return len(self.reader)

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        self.reader.close()

    def record(self, index: int) -> Record:
        """The i-th record in key order.

        Raises
        ------
        DataError : names the key.
        """
        try:
            datum = self.reader[index]
            return (
                layout.decode_encoded(datum, self.joints)
                if datum.encoded
                else layout.decode(datum, self.joints)
            )
        except DataError as error:
            raise DataError(
                f"{self.reader.path}: record {self.reader.keys[index].decode()}: {error}"
            ) from None


@dataclass(frozen=True)
class Plan:
    """What an export will write, in order."""

    annotations: tuple[Annotation, ...]
    digest: str

    @property
    def total(self) -> int:
        """Number of records."""
        return len(self.annotations)


def plan(
    annotations: Sequence[Annotation], *, validation: bool = False, seed: int | None = None
) -> Plan:
    """Put records into the order of the original script.

    Parameters
    ----------
    validation : leave out the records of the validation split.
    seed : of numpy's legacy generator (``np.random.seed``), whose permutation the script used.

    Returns
    -------
    The records in writing order.
    """
    state = np.random.RandomState(seed)
    order = state.permutation(len(annotations))
    chosen = tuple(annotations[i] for i in order if not (validation and annotations[i].validation))
    text = json.dumps([[a.image, a.dataset, a.annolist_index, a.people_index] for a in chosen])
    return Plan(chosen, hashlib.sha256(text.encode()).hexdigest())


def read_image(path: str | os.PathLike[str], *, upright: bool = False) -> Image:
    """Decode an image file as (H, W, 3) uint8 B, G, R; grey, 16-bit, transparent and CMYK ones too.

    Parameters
    ----------
    upright : turn it as its EXIF data say, as people see it; data sets are annotated on the pixels
        as stored.

    Raises
    ------
    DataError : missing or not decodable.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise DataError(f"{name}: no such image")
    image = cv2.imread(name, cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))
    if image is None:
        raise DataError(f"{name}: cannot be decoded as an image (damaged, or not an image)")
    return np.asarray(image, np.uint8)


def image_path(root: str | os.PathLike[str], annotation: Annotation) -> Path:
    """Where an annotation's image is: below the authors' folder of its data set, or directly below
    ``root``."""
    folder = Path(root) / layout.ROOTS.get(annotation.dataset, "")
    path = folder / annotation.image
    return path if path.exists() else Path(root) / annotation.image


def _encode_one(job: tuple[str, Annotation, int, int, bool]) -> tuple[int, bytes | bytearray, str]:
    """Worker: (write number, value, error)."""
    path, annotation, number, total, jpeg = job
    try:
        if jpeg:
            height, width = layout.pad_narrow(read_image(path)).shape[:2]
            stored = Path(path).read_bytes()
            return (
                number,
                layout.encode_stored(annotation, stored, (height, width), number, total),
                "",
            )
        return number, layout.encode(annotation, read_image(path), number, total), ""
    except (DataError, OSError) as error:
        return number, b"", str(error)


def export_lmdb(
    made: Plan,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    jpeg: bool = False,
    skip_bad: bool = False,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Write an LMDB; an interrupted one goes on where it was committed last.

    The database grows in ``OUT.partial`` and gets its name when it is complete: nothing that is
    called ``OUT`` is ever half-written.

    Parameters
    ----------
    root : folder of the images.
    jpeg : keep the images' original compressed bytes (an encoded Datum; Caffe's CPMData layer
        cannot read it).
    skip_bad : leave out missing and damaged images (their numbers stay unused) instead of stopping.
    workers : threads that decode; 0 = none.

    Returns
    -------
    What was skipped and why.

    Raises
    ------
    DataError : a bad image, an existing ``out``, too little space.
    """
    target, partial = Path(out), Path(f"{os.fspath(out)}.partial")
    if target.exists():
        raise DataError(f"{target}: exists already; remove it or choose another name with -o")
    note = {"plan": made.digest, "jpeg": jpeg, "skip_bad": skip_bad}
    done, skipped = _resume(partial, note)
    _check_space(made, root, target, jpeg, done)
    jobs = [
        (str(image_path(root, a)), a, i, made.total, jpeg)
        for i, a in enumerate(made.annotations)
        if i >= done
    ]
    import lmdb

    partial.mkdir(parents=True, exist_ok=True)
    size = 1 << 40
    # a killed process loses nothing without sync; the disk is synced once, before the database gets
    # its name
    env = lmdb.open(str(partial), map_size=size, sync=False, metasync=False)
    try:
        transaction = env.begin(write=True)
        for number, value, error in _results(jobs, workers):
            if error:
                if not skip_bad:
                    transaction.commit()
                    raise DataError(f"record {number} of {made.total}: {error}")
                skipped.append(f"record {number}: {error}")
            else:
                transaction.put(b"%07d" % number, value, append=True)
            if (number + 1) % COMMIT_EVERY == 0:
                _commit(transaction, partial, note, number + 1, skipped)
                transaction = env.begin(write=True)
            elif (number + 1) % _TRANSACTION == 0:
                transaction.commit()
                transaction = env.begin(write=True)
            progress(number + 1, made.total)
        _commit(transaction, partial, note, made.total, skipped)
        env.sync(True)
    except lmdb.Error as error:
        raise DataError(f"{partial}: cannot be written: {error}") from None
    finally:
        env.close()
    (partial / _NOTE).unlink()
    (partial / "lock.mdb").unlink(missing_ok=True)
    os.replace(partial, target)
    return skipped


def _commit(
    transaction: Any, partial: Path, note: dict[str, Any], done: int, skipped: list[str]
) -> None:
    """Commit, then say so: a kill in between repeats the last thousand, which gives the same
    bytes."""
    transaction.commit()
    text = json.dumps({**note, "done": done, "skipped": skipped})
    temporary = partial / f"{_NOTE}.new"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, partial / _NOTE)


def _resume(partial: Path, note: dict[str, Any]) -> tuple[int, list[str]]:
    """How many records an interrupted export of the same plan has; another plan's leavings are
    removed."""
    if not partial.exists():
        return 0, []
    try:
        found = json.loads((partial / _NOTE).read_text(encoding="utf-8"))
        same = all(found[key] == value for key, value in note.items())
        done, skipped = int(found["done"]), [str(s) for s in found["skipped"]]
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        shutil.rmtree(partial)
        return 0, []
    # records after the note's count were committed just before a kill: remove them, they are
    # written again
    import lmdb

    with lmdb.open(str(partial), map_size=1 << 40) as env, env.begin(write=True) as transaction:
        cursor = transaction.cursor()
        if cursor.set_range(b"%07d" % done):
            while cursor.delete():
                pass
    return done, skipped


def _check_space(
    made: Plan, root: str | os.PathLike[str], target: Path, jpeg: bool, done: int
) -> None:
    """Refuse when the disk cannot hold the rest, with 5 % to spare."""
    need = 0
    for a in made.annotations[done:]:
        if jpeg:
            path = image_path(root, a)
            need += path.stat().st_size + 4096 if path.exists() else 0
        else:
            need += 4 * max(a.size[0], layout.MIN_WIDTH) * a.size[1] + 4096
    folder = target.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need * 1.05 > free:
        raise DataError(
            f"{target}: needs {need / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free"
        )


def _results(jobs: list[Any], workers: int) -> Iterator[tuple[int, bytes | bytearray, str]]:
    """Encoded records in order. Threads: decoding and copying release the interpreter's lock, and
    records are large."""
    if workers < 1:
        yield from map(_encode_one, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[tuple[int, bytes | bytearray, str]]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(_encode_one, job))
                if len(waiting) > 16 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def write_values(
    values: Iterable[tuple[bytes, bytes | bytearray]], out: str | os.PathLike[str]
) -> None:
    """Write (key, value) pairs, rising by key, as an LMDB that appears whole or not at all.

    Raises
    ------
    DataError : ``out`` exists, or cannot be written.
    """
    import lmdb

    target, partial = Path(out), Path(f"{os.fspath(out)}.partial")
    if target.exists():
        raise DataError(f"{target}: exists already; remove it or choose another name with -o")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with lmdb.open(str(partial), map_size=1 << 40) as env, env.begin(write=True) as transaction:
            for key, value in values:
                transaction.put(key, value, append=True)
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{partial}: cannot be written: {error}") from None
    (partial / "lock.mdb").unlink(missing_ok=True)
    os.replace(partial, target)
