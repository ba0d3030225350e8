"""Files of CPM records: LMDB as the authors wrote it, read by index and written so that a kill
loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import write_json
from caffe_compat.foreign import read_json, reading
from caffe_compat.training import lmdbcheck
from caffe_compat.training.datum import LMDBReader
from reproduce.people.annotation import Annotation, Other, counted_from_1
from reproduce.records import layout
from reproduce.records.encoding import Encoded, encode_all, image_path
from reproduce.records.images import read_image as read_image
from reproduce.records.joints import OneNumber, joints_of, joints_shown, usual_number
from reproduce.records.layout import Record
from reproduce.records.space import RECORD_BYTES, check_space, map_size, raw_bytes, written
from reproduce.runtime.locks import hold

COMMIT_EVERY = 1000
_LOOKED_AT = 100  # records of a sample, about
_TRANSACTION = 32  # records whose dirty pages still fit into the cache
# the plan of an export, written first, and how far it came
_PLAN, _NOTE = "plan.json", "export.json"
_CONVERSION = {"from": "values"}  # the plan of what is written from other records
_OURS = {"data.mdb", "lock.mdb", _PLAN, _NOTE}
_TEMPORARY = r"\.(plan|export)\.[0-9a-f]{8}\.json"
Progress = Callable[[int, int], None]


class Store(Protocol):
    """Records by index.

    Attributes
    ----------
    joints : joints per person, as they are read.
    joints_shown : joints per person that the records show to have; 0 where they do not tell.
    keys : of all records, in order.
    """

    joints: int
    joints_shown: int
    keys: Sequence[bytes]

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """The i-th record in key order.

        Raises
        ------
        DataError : no record with this number, or a damaged one.
        """
        ...

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        ...


class LMDBStore:
    """Records of an LMDB in the authors' layout.

    Parameters
    ----------
    joints : joints per person in the records (``np_in_lmdb``); None: as many as they show to have
        (records do not tell it), or 16 where they can be the authors' MPI or LEEDS.

    Raises
    ------
    DataError : no records, records with more joints than ``joints``, or of different numbers.
    """

    def __init__(self, path: str | os.PathLike[str], joints: int | None = None) -> None:
        self.reader = LMDBReader(path)
        self.keys: Sequence[bytes] = self.reader.keys
        if not len(self.reader):
            raise DataError(f"{os.fspath(path)}: holds no records")
        sample = self._sample()
        seen: dict[str, int] = {}
        for _, dataset, shown in sample:
            seen[dataset] = max(shown, seen.get(dataset, 0))
        self.joints_shown = max(seen.values(), default=0)
        if joints is not None and self.joints_shown > joints:
            raise DataError(
                f"{os.fspath(path)}: its records have {self.joints_shown} joints per person, more "
                f"than {joints} (--joints, or np_in_lmdb of the definition): some would be dropped"
            )
        self.joints = joints if joints is not None else usual_number(seen)
        self._one_number = OneNumber(seen)
        for index, dataset, shown in sample:
            self._one_number.check(dataset, shown, self._where(index))

    def _sample(self) -> list[tuple[int, str, int]]:
        """Number, data set and joints of a sample of the records; damaged ones are met when they
        are read."""
        found = []
        for index in sampled(len(self.reader)):
            with contextlib.suppress(DataError, IndexError, ValueError):
                found.append((index, *layout.stored_of(self.reader[index])))
        return found

    def _where(self, index: int) -> str:
        return where_of(self.reader.path, self.keys[index])

    def __len__(self) -> int:
        return len(self.reader)

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        self.reader.close()

    def record(self, index: int) -> Record:
        """The i-th record in key order.

        Raises
        ------
        DataError : no record with this number, a damaged one, or one that has not the joints of the
            others; names the key.
        """
        check_number(self.reader.path, index, len(self))
        where = self._where(index)
        try:
            with reading(where, "record"):
                datum = self.reader[index]
                found = layout.decode(datum, self.joints)
                shown = joints_shown(found.annotation)
                self._one_number.check(found.annotation.dataset, shown, where)
                return found
        except DataError as error:
            text = str(error)
            raise DataError(text if text.startswith(where) else f"{where}: {text}") from None


def sampled(count: int) -> range:
    """Numbers of some of so many records, evenly spread over them."""
    return range(0, count, max(1, count // _LOOKED_AT))


def where_of(path: str | os.PathLike[str], key: bytes) -> str:
    """What a message calls a record."""
    return f"{os.fspath(path)}: record {key_text(key)}"


def key_text(key: bytes) -> str:
    """A record's key in plain text."""
    return key.decode("ascii", "backslashreplace")


def check_number(path: str | os.PathLike[str], index: int, count: int) -> None:
    """Raise where a file has no record with this number.

    Raises
    ------
    DataError : says how many there are.
    """
    if not 0 <= index < count:
        raise DataError(
            f"{os.fspath(path)}: has no record {index}; its {count} records count from 0"
        )


@dataclass(frozen=True)
class Plan:
    """What an export will write.

    Attributes
    ----------
    people : as they were given, less those left out.
    order : which of them comes when.
    seed : of the permutation; None: any will do.
    """

    people: tuple[Annotation, ...]
    order: tuple[int, ...]
    seed: int | None = None

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """The people in writing order."""
        return tuple(self.people[i] for i in self.order)

    @property
    def total(self) -> int:
        """Number of records."""
        return len(self.order)

    @property
    def digest(self) -> str:
        """SHA-256 over everything of the people that goes into a record, in the order given."""
        digest = hashlib.sha256()
        for a in map(counted_from_1, self.people):
            about = [a.image, a.dataset, a.annolist_index, a.people_index, a.size, a.validation]
            digest.update(json.dumps(about).encode())
            everybody: tuple[Annotation | Other, ...] = (a, *a.others)
            for person in everybody:
                for values in (person.joints, person.objpos, np.float64(person.scale)):
                    digest.update(np.ascontiguousarray(values, "<f8").tobytes() + b"|")
        return digest.hexdigest()


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

    Raises
    ------
    DataError : people with different numbers of joints.
    """
    joints_of(annotations)
    state = np.random.RandomState(seed)
    given = state.permutation(len(annotations)).tolist()
    chosen = [i for i, a in enumerate(annotations) if not (validation and a.validation)]
    place = {i: k for k, i in enumerate(chosen)}
    order = tuple(place[i] for i in given if i in place)
    return Plan(tuple(annotations[i] for i in chosen), order, seed)


def export_lmdb(
    made: Plan,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    jpeg: bool = False,
    skip_bad: bool = False,
    outside: bool = False,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Write an LMDB; an interrupted one goes on where it was committed last.

    The database grows in ``OUT.partial`` and gets its name when it is complete: nothing that is
    called ``OUT`` is ever half-written. Where a bad image stops it, the records before it stay
    there for the next run. One that was begun with other people, images, options or another seed is
    kept, and refused.

    Parameters
    ----------
    root : folder of the images.
    jpeg : keep the images' original compressed bytes (an encoded Datum; Caffe's CPMData layer
        cannot read it).
    skip_bad : leave out missing and damaged images (their numbers stay unused) instead of stopping.
    outside : follow image names that lead out of ``root``.
    workers : threads that decode; 0 = none.

    Returns
    -------
    What was skipped and why.

    Raises
    ------
    DataError : a bad image, an existing ``out``, too little space, an ``OUT.partial`` that is not
        ours.
    Taken : another process writes there.
    """
    with hold(out):
        return _export(made, root, out, jpeg, skip_bad, outside, workers, progress)


def _export(
    made: Plan,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    jpeg: bool,
    skip_bad: bool,
    outside: bool,
    workers: int,
    progress: Progress,
) -> list[str]:
    target, partial = _names(out)
    if os.path.lexists(target):
        raise DataError(f"{target}: exists already; remove it or choose another name with -o")
    if not made.total:
        raise DataError(
            f"{target}: nobody to write: the annotations hold nobody (--validation leaves out the "
            "validation split)"
        )
    about = {
        "people": made.digest,
        "images": os.path.realpath(root),
        "outside": outside,
        "jpeg": jpeg,
    }
    made, done, skipped = _begin(partial, made, about, skip_bad)
    try:
        paths = [image_path(root, a, outside=outside) for a in made.annotations]
        need = _check_space(made, paths, target, jpeg, done)
    except DataError:
        _remove_empty(partial, done)
        raise
    jobs = [
        (str(paths[i]), a, i, made.total, jpeg) for i, a in enumerate(made.annotations) if i >= done
    ]
    import lmdb

    size = map_size(need, partial)
    # a killed process loses nothing without sync; the disk is synced once, before the database gets
    # its name
    env = lmdb.open(str(partial), map_size=size, sync=False, metasync=False)
    try:
        results = encode_all(jobs, workers)
        bad, done = _write_records(
            env, results, partial, made.total, skipped, skip_bad=skip_bad, progress=progress
        )
        env.sync(True)
    except lmdb.Error as error:
        raise DataError(f"{partial}: cannot be written: {error}") from None
    finally:
        env.close()
    if bad:
        _remove_empty(partial, done)
        why = f"{bad} (--skip-bad leaves such records out)"
        if done:
            why += f"; the {done} records before it stay in {partial}, and the same command goes "
            why += "on from them"
        raise DataError(why)
    if len(skipped) == made.total:
        _remove_empty(partial, 0)
        raise DataError(f"{target}: nothing to write: every record is bad; {skipped[0]}")
    _finish(partial, target)
    return skipped


def _write_records(
    env: Any,
    results: Iterable[Encoded],
    partial: Path,
    total: int,
    skipped: list[str],
    *,
    skip_bad: bool,
    progress: Progress,
) -> tuple[str, int]:
    """Write encoded records in order, and note now and then how many are safe.

    Parameters
    ----------
    results : number, value and error of each record that is left.
    total : how many records there will be.
    skipped : takes what is left out, and why.

    Returns
    -------
    What is wrong with the record that it stopped at, "" where it did not; how many records are
    done.
    """
    bad, done = "", total
    transaction = env.begin(write=True)
    for number, value, error in results:
        if error and not skip_bad:
            bad, done = f"record {number} of {total}: {error}", number
            break
        if error:
            skipped.append(f"record {number}: {error}")
        else:
            _append(transaction, b"%07d" % number, value)
        if (number + 1) % COMMIT_EVERY == 0:
            _commit(transaction, partial, number + 1, skipped)
            transaction = env.begin(write=True)
        elif (number + 1) % _TRANSACTION == 0:
            transaction.commit()
            transaction = env.begin(write=True)
        progress(number + 1, total)
    _commit(transaction, partial, done, skipped)
    return bad, done


def _remove_empty(partial: Path, done: int) -> None:
    """Take away the folder of an export that has written nothing."""
    if not done:
        _clear(partial)
        partial.rmdir()


def _names(out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """A database's name, and the one under which it grows beside it."""
    target = Path(out)
    return target, Path(f"{target}.partial")


def _append(transaction: Any, key: bytes, value: bytes | bytearray) -> None:
    """Write a record behind all others; LMDB says no by its answer, not by an error."""
    if not transaction.put(key, value, append=True):
        raise DataError(
            f"record {key.decode()} is there already, or a later one: another process wrote into "
            "this database"
        )


def _finish(partial: Path, target: Path) -> None:
    """Give a complete database its name."""
    for name in (_NOTE, "lock.mdb"):
        (partial / name).unlink(missing_ok=True)
    os.replace(partial, target)
    # last: a folder without its plan would not be known as ours after a kill
    (target / _PLAN).unlink(missing_ok=True)


def _commit(transaction: Any, partial: Path, done: int, skipped: list[str]) -> None:
    """Commit, then say so: a kill in between repeats the last thousand, which gives the same
    bytes."""
    transaction.commit()
    _note(partial / _NOTE, {"done": done, "skipped": skipped})


def _note(path: Path, content: dict[str, Any]) -> None:
    write_json(path, content, indent=None)


def _begin(
    partial: Path, made: Plan, about: dict[str, Any], skip_bad: bool
) -> tuple[Plan, int, list[str]]:
    """Open the folder of an export.

    Returns
    -------
    The plan, how many records are done, and what was skipped. Without a seed an interrupted export
    of the same people goes on in the order that it began with.

    Raises
    ------
    DataError : the folder is there and no export wrote it, or another one than this.
    """
    begun = _resume(partial, made, about, skip_bad)
    if begun is not None:
        return begun
    _clear(partial)
    _note(partial / _PLAN, {**about, "seed": made.seed, "order": made.order})
    return made, 0, []


def _clear(partial: Path) -> None:
    """An empty folder for an export; only what an export wrote is removed.

    Raises
    ------
    DataError : the folder holds something else, or is none.
    """
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise DataError(f"{partial}: is in the way and was not made by an export; remove it")
    with reading(partial, "folder of an export"):
        partial.mkdir(parents=True, exist_ok=True)
        found = [path.name for path in partial.iterdir()]
    temporary = {name for name in found if re.fullmatch(_TEMPORARY, name)}
    others = sorted(set(found) - _OURS - temporary)
    if others or (found and _PLAN not in found and not temporary):
        raise DataError(
            f"{partial}: is in the way and was not made by an export (it holds "
            f"{(others or sorted(found))[0]}); move or remove it"
        )
    for name in sorted(found, key=lambda name: name == _PLAN):  # the plan last: see _finish
        (partial / name).unlink()


def _resume(
    partial: Path, made: Plan, about: dict[str, Any], skip_bad: bool
) -> tuple[Plan, int, list[str]] | None:
    """What an interrupted export left; None where there is none, or nothing that can be read.

    Raises
    ------
    DataError : it was begun with other people, images, options or another seed.
    """
    if not (partial / _PLAN).is_file() or partial.is_symlink():
        return None
    try:
        stored = read_json(partial / _PLAN)
        note = read_json(partial / _NOTE)
        lmdbcheck.check(partial / "data.mdb")
        same = all(stored[key] == value for key, value in about.items())
        same &= made.seed in (None, stored["seed"])
        order = tuple(stored["order"])
        done, skipped = note["done"], [str(text) for text in note["skipped"]]
    except (CaffeCompatError, OSError, ValueError, KeyError, TypeError):
        return None
    if not same or (skipped and not skip_bad):
        raise DataError(
            f"{partial}: an export was begun there with other people, images, options or another "
            "seed; go on with the same command, or remove that folder to begin anew"
        )
    if sorted(order) != list(range(len(made.people))):
        return None
    if type(done) is not int or not 0 <= done <= made.total:
        return None
    # records after the note's count were committed just before a kill: remove them, they are
    # written again
    import lmdb

    size = map_size(0, partial)
    with lmdb.open(str(partial), map_size=size) as env, env.begin(write=True) as transaction:
        cursor = transaction.cursor()
        if cursor.set_range(b"%07d" % done):
            while cursor.delete():
                pass
    return replace(made, order=order), done, skipped


def _check_space(made: Plan, paths: Sequence[Path], target: Path, jpeg: bool, done: int) -> int:
    """Refuse when the disk cannot hold the rest, with 5 % to spare."""
    need = 0
    for path, a in list(zip(paths, made.annotations, strict=True))[done:]:
        if jpeg:
            need += path.stat().st_size + RECORD_BYTES if path.exists() else 0
        else:
            need += raw_bytes(*a.size)
    check_space(target, need)
    return need


def write_values(
    values: Iterable[tuple[bytes, bytes | bytearray]],
    out: str | os.PathLike[str],
    *,
    need: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write (key, value) pairs, rising by key, as an LMDB that appears whole or not at all. What an
    interrupted call left is written anew.

    Parameters
    ----------
    need : bytes that the disk must have free.
    progress : called with how many are done.

    Raises
    ------
    DataError : ``out`` exists, or cannot be written; an interrupted export is kept there.
    """
    import lmdb

    target, partial = _names(out)
    with hold(out):
        if os.path.lexists(target):
            raise DataError(f"{target}: exists already; remove it or choose another name with -o")
        _refuse_export(partial)
        check_space(target, need - written(partial))  # what is thrown away makes room
        done = 0
        try:
            _clear(partial)
            _note(partial / _PLAN, _CONVERSION)
            with lmdb.open(str(partial), map_size=1 << 40, sync=False, metasync=False) as env:
                left = iter(values)
                while some := tuple(islice(left, _TRANSACTION)):
                    with env.begin(write=True) as transaction:
                        for key, value in some:
                            _append(transaction, key, value)
                    done += len(some)
                    progress(done)
                env.sync(True)
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{partial}: cannot be written: {error}") from None
        _finish(partial, target)


def _refuse_export(partial: Path) -> None:
    """Keep the records of an interrupted export.

    Raises
    ------
    DataError : there are some.
    """
    if (partial / _PLAN).is_file() and read_json(partial / _PLAN) != _CONVERSION:
        raise DataError(
            f"{partial}: an interrupted 'cpm-export lmdb' is kept there; go on with its command, "
            "remove that folder, or choose another name with -o"
        )
