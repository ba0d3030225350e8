"""CPM records as HDF5: the same content as the LMDB, self-describing.

Layout: ``images`` (variable-length uint8: raw B, G, R planes or the image file's own bytes),
``size`` (N, 2: height, width of the stored planes), and one array per annotation field:
``annotated_size`` (N, 2 width, height), ``objpos``, ``scale``, ``joints`` (N, J, 3),
``validation``, ``annolist_index``, ``people_index``, ``dataset``, ``key``; other people of record i
are rows ``others_start[i]`` to ``others_start[i + 1]`` of ``others_objpos``, ``others_scale`` and
``others_joints``. Coordinates are 1-based float32, as in the LMDB. Attributes say all this in the
file itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat.errors import DataError
from caffe_compat.files import ending, write_hdf5
from caffe_compat.foreign import Unfit, open_hdf5, reading, take
from caffe_compat.training.datum import Datum
from reproduce.people.annotation import Annotation, Other, counted_from_0, counted_from_1
from reproduce.records import layout
from reproduce.records.joints import OneNumber, last_marked
from reproduce.records.layout import Record
from reproduce.records.space import RECORD_BYTES, check_space, raw_bytes
from reproduce.records.store import (
    LMDBStore,
    Progress,
    check_number,
    sampled,
    where_of,
    write_values,
)

FORMAT = "cpm records 1"
ENDINGS = (".h5", ".hdf5")
# what the file's attributes say of it
_ABOUT = {
    "format": FORMAT,
    "coordinates": "1-based pixels (x, y), float32; joints are x, y, visible",
    "images": "per record: raw B, G, R planes (3, height, width), or with encoded = 1 the image "
    "file's bytes",
    "others": "rows others_start[i]:others_start[i+1] belong to record i",
}

# name -> (letters of numpy's kinds, axes); the first axis is the record or the other person
_COLUMNS = {
    "key": ("S", 1),
    "size": ("iu", 2),
    "annotated_size": ("iu", 2),
    "objpos": ("f", 2),
    "scale": ("f", 1),
    "joints": ("f", 3),
    "validation": ("iu", 1),
    "annolist_index": ("iu", 1),
    "people_index": ("iu", 1),
    "dataset": ("S", 1),
    "write_number": ("iu", 1),
    "others_start": ("iu", 1),
    "others_objpos": ("f", 2),
    "others_scale": ("f", 1),
    "others_joints": ("f", 3),
}
# what is known of everybody in an image
_PERSON = ("objpos", "scale", "joints")
# types of numbers in the tables, where they are not 4-byte integers
_KINDS = {"objpos": "f4", "scale": "f4", "joints": "f4", "validation": "u1"}
_WHAT = "file of CPM records"
# bytes that a text column has at least: the authors' keys and names need no more
_TEXT_BYTES = {"key": 7, "dataset": 16}


def _columns(file: Any) -> dict[str, Any]:
    """The tables of a file, checked: sizes that fit together, numbers that a picture can have."""
    count = len(take(file, "key", kinds="S", axes=1))
    found: dict[str, Any] = {}
    for name, (kinds, axes) in _COLUMNS.items():
        others = name.startswith("others_")
        rows = None if others else count
        found[name] = take(file, name, kinds=kinds, axes=axes, rows=rows)
    starts, others_count = found["others_start"].astype(np.int64), len(found["others_scale"])
    sound = len(starts) == count + 1 and starts[0] == 0 and starts[-1] <= others_count
    if not sound or (np.diff(starts) < 0).any():
        raise Unfit("'others_start' does not divide the other people among the records")
    for name in _PERSON:
        if len(found[f"others_{name}"]) != others_count:
            raise Unfit(f"'others_{name}' has another number of people than 'others_scale'")
        if found[f"others_{name}"].shape[1:] != found[name].shape[1:] and others_count:
            raise Unfit(f"'others_{name}' and '{name}' have different shapes")
    for name, width in {"size": 2, "annotated_size": 2, "objpos": 2, "joints": 3}.items():
        if found[name].shape[-1] != width:
            raise Unfit(f"'{name}' has the shape {found[name].shape}, expected {width} at its end")
    if (found["size"] < 1).any() or (found["size"] > layout.MAX_SIDE).any():
        raise Unfit("'size' holds no sizes of pictures")
    return found


def holds_hdf5(path: str | os.PathLike[str]) -> bool:
    """Is it an HDF5 file, by its contents or by its name, rather than an LMDB?"""
    import h5py

    if os.path.isdir(path):
        return False
    return ending(path) in ENDINGS or (os.path.isfile(path) and h5py.is_hdf5(os.fspath(path)))


class HDF5Store:
    """Records of an HDF5 file.

    Parameters
    ----------
    path : a file of :func:`from_lmdb`.

    Raises
    ------
    DataError : missing, damaged, another format, or records whose people have different numbers of
        joints.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file: Any = None
        self._pid = -1
        with open_hdf5(path, _WHAT) as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(
                    f"{self.path}: is no {_WHAT} (its attribute format is not '{FORMAT}')"
                )
            self._columns = _columns(file)
            self.keys: Sequence[bytes] = self._columns["key"].tolist()
            self._count = len(self.keys)
            self.joints = self.joints_shown = self._columns["joints"].shape[1]
            self._check_joints()
            images = file["images"]
            if images.shape != (self._count,):
                raise Unfit(f"'images' has the shape {images.shape}, expected {self._count}")
            self.encoded = bool(file.attrs["encoded"])
            self.total = int(file.attrs["total"])
        if not self._count:
            raise DataError(f"{self.path}: holds no records")

    def _check_joints(self) -> None:
        """Refuse records that an earlier version took out of an LMDB of different data sets."""
        names = [name.decode("ascii", "replace") for name in self._columns["dataset"].tolist()]
        shown = last_marked((self._columns["joints"] != 0).any(2)).tolist()
        seen: dict[str, int] = {}
        for name, count in zip(names, shown, strict=True):
            seen[name] = max(count, seen.get(name, 0))
        one_number = OneNumber(seen)
        for i, (name, count) in enumerate(zip(names, shown, strict=True)):
            one_number.check(name, count, self._where(i))

    def _open(self) -> Any:
        """This process's handle; the file was checked when the store was made."""
        import h5py

        if self._file is None or self._pid != os.getpid():
            with reading(self.path, _WHAT):
                self._file = h5py.File(self.path, "r")
            self._pid = os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_pid": -1}

    def __len__(self) -> int:
        return self._count

    def annotation(self, index: int) -> Annotation:
        """The annotation of the i-th record."""
        c = self._columns
        first, last = c["others_start"][index], c["others_start"][index + 1]
        others = tuple(
            Other(
                c["others_joints"][i].astype(np.float64),
                c["others_objpos"][i].astype(np.float64),
                float(c["others_scale"][i]),
            )
            for i in range(first, last)
        )
        width, height = (int(v) for v in c["annotated_size"][index])
        found = Annotation(
            image="",
            dataset=c["dataset"][index].decode("ascii", "replace"),
            joints=c["joints"][index].astype(np.float64),
            objpos=c["objpos"][index].astype(np.float64),
            scale=float(c["scale"][index]),
            size=(width, height),
            others=others,
            validation=bool(c["validation"][index]),
            annolist_index=int(c["annolist_index"][index]),
            people_index=int(c["people_index"][index]),
        )
        return counted_from_0(found)

    def record(self, index: int) -> Record:
        """The i-th record in key order.

        Raises
        ------
        DataError : no record with this number, or a damaged image.
        """
        check_number(self.path, index, len(self))
        raw = self.raw(index)
        height, width = (int(v) for v in self._columns["size"][index])
        if self.encoded:
            with reading(self._where(index), "picture"):
                image = layout.decode_image(raw, height, width)
        else:
            if len(raw) != 3 * height * width:
                raise DataError(
                    f"{self._where(index)} has {len(raw)} bytes, expected 3×{height}×{width}"
                )
            planes = np.frombuffer(raw, np.uint8).reshape(3, height, width)
            image = np.ascontiguousarray(planes.transpose(1, 2, 0))
        number = int(self._columns["write_number"][index])
        annotation = self.annotation(index)
        layout.check_person(annotation, self._where(index))
        return Record(image, annotation, number, self.total)

    def raw(self, index: int) -> bytes:
        """The bytes of the i-th image as stored."""
        with reading(self._where(index), "picture"):
            return np.asarray(self._open()["images"][index], np.uint8).tobytes()

    def _where(self, index: int) -> str:
        return where_of(self.path, self.keys[index])


def from_lmdb(
    store: LMDBStore, out: str | os.PathLike[str], progress: Progress = lambda done, total: None
) -> None:
    """Write the content of an LMDB as HDF5, whole or not at all; :func:`to_lmdb_values` gives the
    same records back.

    Parameters
    ----------
    out : the file to write.
    progress : called with how many records are done, and how many there are.

    Raises
    ------
    DataError : a record that is none; target that cannot be written.
    """
    import h5py

    count = len(store)
    check_space(Path(out), count * _mean_bytes(store))
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS if name != "others_start"}
    starts = [0]
    encoded, total = False, 0
    with write_hdf5(out) as file:
        images = file.create_dataset(
            "images", (count,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1,)
        )
        for i in range(count):
            datum = store.reader[i]
            if i and datum.encoded != encoded:
                raise DataError(
                    f"{store.reader.path}: holds raw and encoded images, an HDF5 file one kind: "
                    "export the records again (cpm-export lmdb, with or without --jpeg)"
                )
            encoded = datum.encoded
            record = store.record(i)
            total = record.total
            stored = _picture_bytes(datum)
            images[i] = np.frombuffer(stored, np.uint8)
            rows["key"].append(store.reader.keys[i])
            rows["size"].append((datum.height, datum.width))
            rows["write_number"].append(record.write_number)
            _add_people(rows, counted_from_1(record.annotation))
            starts.append(len(rows["others_scale"]))
            progress(i + 1, count)
        _write_columns(file, rows, store.joints)
        file.create_dataset("others_start", data=np.array(starts, "i8"))
        file.attrs.update(
            {**_ABOUT, "encoded": int(encoded), "total": total, "joints_per_person": store.joints}
        )


def _picture_bytes(datum: Datum) -> bytes:
    """A record's picture as HDF5 holds it: the image file's bytes, or three planes."""
    return layout.image_bytes(datum) if datum.encoded else datum.data[:3].tobytes()


def _mean_bytes(store: LMDBStore) -> float:
    """Bytes of a picture, from a sample; damaged records are met when they are read."""
    sizes = []
    for i in sampled(len(store)):
        with contextlib.suppress(DataError, IndexError, ValueError):
            sizes.append(len(_picture_bytes(store.reader[i])))
    return float(np.mean(sizes)) if sizes else 0.0


def _add_people(rows: dict[str, list[Any]], person: Annotation) -> None:
    """Append what is known of a person, and of the others in the image."""
    rows["annotated_size"].append(person.size)
    rows["dataset"].append(person.dataset.encode())
    for name in (*_PERSON, "validation", "annolist_index", "people_index"):
        rows[name].append(getattr(person, name))
    for other in person.others:
        for name in _PERSON:
            rows[f"others_{name}"].append(getattr(other, name))


def _write_columns(file: Any, rows: dict[str, list[Any]], joints: int) -> None:
    """Write the tables; ``joints`` : joints per person."""
    empty = {"others_objpos": (0, 2), "others_joints": (0, joints, 3)}
    for name, values in rows.items():
        kind = _KINDS.get(name.removeprefix("others_"), "i4")
        if name in _TEXT_BYTES:
            kind = f"S{max([_TEXT_BYTES[name], *map(len, values)])}"
        shape = empty.get(name, (len(values),))
        array = np.array(values, kind) if values else np.zeros(shape, kind)
        file.create_dataset(name, data=array)


def to_lmdb(
    store: HDF5Store, out: str | os.PathLike[str], progress: Progress = lambda done, total: None
) -> None:
    """Write the content of an HDF5 file as an LMDB, whole or not at all: byte for byte the one that
    it came from.

    Parameters
    ----------
    out : the folder to write.
    progress : called with how many records are done, and how many there are.

    Raises
    ------
    DataError : a damaged record; a target that exists or cannot be written.
    """
    count = len(store)
    if store.encoded:
        need = os.path.getsize(store.path) + count * RECORD_BYTES
    else:
        sizes = store._columns["size"].tolist()
        need = sum(raw_bytes(width, height) for height, width in sizes)
    values = to_lmdb_values(store)
    write_values(values, out, need=need, progress=lambda done: progress(done, count))


def to_lmdb_values(store: HDF5Store) -> Iterable[tuple[bytes, bytes | bytearray]]:
    """(key, value) of every record, byte for byte as the LMDB had them."""
    for i in range(len(store)):
        annotation, record_number = store.annotation(i), int(store._columns["write_number"][i])
        if store.encoded:
            height, width = (int(v) for v in store._columns["size"][i])
            yield (
                store.keys[i],
                layout.encode_stored(
                    annotation, store.raw(i), (height, width), record_number, store.total
                ),
            )
            continue
        image = store.record(i).image
        yield store.keys[i], layout.encode(annotation, image, record_number, store.total)
