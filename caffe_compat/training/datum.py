"""Caffe's Datum records and the LMDB files that hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError, WeightError
from caffe_compat.foreign import check_file, reading
from caffe_compat.training import lmdbcheck
from caffe_compat.weights.wire import (
    BYTES,
    VARINT,
    encode_bytes,
    encode_varint,
    memory_loader,
    read_floats,
    signed,
    walk,
)


@dataclass(frozen=True)
class Datum:
    """One record.

    Attributes
    ----------
    channels, height, width : the record's shape.
    raw : the bytes as stored (an encoded image if ``encoded``).
    label : its class, or whatever number the data set keeps there.
    encoded : is ``raw`` a compressed picture?
    floats : (channels × height × width) float32 instead of bytes, or None.
    """

    channels: int
    height: int
    width: int
    raw: bytes | memoryview
    label: int = 0
    encoded: bool = False
    floats: npt.NDArray[np.float32] | None = None

    @property
    def values(self) -> npt.NDArray[Any]:
        """Pixels (channels, height, width): uint8, or float32 where the record holds floats.

        Raises
        ------
        DataError : encoded, or of another size than channels × height × width.
        """
        if len(self.raw) or self.encoded or self.floats is None:
            return self.data
        if self.floats.size != self.channels * self.height * self.width:
            raise DataError(
                f"the record holds {self.floats.size} floats, expected "
                f"{self.channels}×{self.height}×{self.width}"
            )
        return self.floats.reshape(self.channels, self.height, self.width)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """Pixels (channels, height, width).

        Raises
        ------
        DataError : encoded, or of another size than channels × height × width.
        """
        if self.encoded:
            raise DataError("the record holds an encoded image; decode 'raw'")
        if len(self.raw) != self.channels * self.height * self.width:
            raise DataError(
                f"the record holds {len(self.raw)} bytes, expected "
                f"{self.channels}×{self.height}×{self.width}"
            )
        return np.frombuffer(self.raw, np.uint8).reshape(self.channels, self.height, self.width)

    def encode(self) -> bytes:
        """The serialized message: fields in number order, label always written, ``encoded`` only if
        true."""
        head, tail = self.around(len(self.raw))
        return b"".join((head, self.raw, tail))

    def around(self, size: int) -> tuple[bytes, bytes]:
        """What stands before and after ``size`` bytes of data in the serialized message."""
        head = b"".join(
            encode_varint(number << 3) + encode_varint(value)
            for number, value in ((1, self.channels), (2, self.height), (3, self.width))
        )
        tail = encode_varint(5 << 3) + encode_varint(self.label)
        if self.encoded:
            tail += encode_varint(7 << 3) + b"\x01"
        return head + encode_bytes(4, size), tail


def decode(value: bytes | memoryview) -> Datum:
    """Read a serialized Datum; pixel bytes are not copied.

    Raises
    ------
    DataError : damaged, or no Datum.
    """
    view = memoryview(value)
    numbers = {1: 0, 2: 0, 3: 0, 5: 0, 7: 0}
    raw: bytes | memoryview = b""
    floats: list[npt.NDArray[np.float32]] = []
    at = 0
    try:
        while at < len(view):
            field = next(walk(view, at, len(view)))
            at = field.stop
            if field.number == 4 and field.wire == BYTES:
                raw = view[field.start : field.stop]
            elif field.number == 6:
                found, at = read_floats(view, field, memory_loader(view), len(view), "<f4")
                floats.append(found)
            elif field.wire == VARINT and field.number in numbers:
                numbers[field.number] = signed(field.value, 32)
            elif field.number in numbers or field.number == 4:
                raise DataError(f"the record is no Datum: field {field.number} is damaged")
    except WeightError as error:
        raise DataError(f"the record is no Datum: {error}") from None
    return Datum(
        numbers[1],
        numbers[2],
        numbers[3],
        raw,
        numbers[5],
        bool(numbers[7]),
        np.concatenate(floats) if floats else None,
    )


# open handles, by process and path
_OPEN: dict[tuple[int, str], Any] = {}


class LMDBReader:
    """Read-only access to an LMDB of Datums, by key order. Safe to use from forked and spawned
    workers: each process opens its own handle.

    Parameters
    ----------
    path : folder with data.mdb, or the file itself.

    Attributes
    ----------
    keys : of all records, in order.

    Raises
    ------
    DataError : no such database, or a damaged one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._check()
        self.keys = self._read_keys()

    def _check(self) -> None:
        """See that the file is whole; the LMDB library would end the process where it is not."""
        file = self.path
        if os.path.isdir(file):
            file = os.path.join(file, "data.mdb")
        if not os.path.lexists(file):
            raise DataError(f"{self.path}: no such LMDB")
        check_file(file)
        with reading(self.path, "LMDB"):
            lmdbcheck.check(file)

    def _open(self) -> Any:
        """This process's handle; LMDB allows one per file and process, so readers of one file share
        it."""
        import lmdb

        place = (os.getpid(), os.path.realpath(self.path))
        if place not in _OPEN:
            try:
                _OPEN[place] = lmdb.open(
                    self.path,
                    readonly=True,
                    lock=False,
                    readahead=False,
                    max_readers=1,
                    subdir=os.path.isdir(self.path),
                )
            except lmdb.Error as error:
                raise DataError(f"{self.path}: cannot be opened as LMDB: {error}") from None
        return _OPEN[place]

    def close(self) -> None:
        """Close this process's handle; it opens again when needed. Do so before forking: handles do
        not survive it."""
        env = _OPEN.pop((os.getpid(), os.path.realpath(self.path)), None)
        if env is not None:
            env.close()

    def _read_keys(self) -> list[bytes]:
        import lmdb

        try:
            with self._open().begin() as transaction:
                return [bytes(key) for key in transaction.cursor().iternext(values=False)]
        except lmdb.Error as error:
            raise DataError(f"{self.path}: damaged LMDB: {error}") from None

    def __len__(self) -> int:
        return len(self.keys)

    def raw(self, key: bytes | int) -> bytes:
        """The stored value of a key, or of the i-th key.

        Raises
        ------
        DataError : no such key, or a damaged file.
        """
        name = self.keys[key] if isinstance(key, int) else key
        import lmdb

        try:
            with self._open().begin(buffers=False) as transaction:
                value = transaction.get(name)
        except lmdb.Error as error:
            raise DataError(f"{self.path}: damaged LMDB: {error}") from None
        if value is None:
            raise DataError(f"{self.path}: has no key {name.decode(errors='replace')}")
        return bytes(value)

    def __getitem__(self, key: bytes | int) -> Datum:
        return decode(self.raw(key))

    def __iter__(self) -> Iterator[Datum]:
        return (self[i] for i in range(len(self)))
