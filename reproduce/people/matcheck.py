"""Is a MATLAB 5 file sound? Asked before scipy reads it, which ends the whole process on some that
are not.

The file is a row of elements: a tag of two numbers (type, bytes), then the bytes, filled up to a
multiple of eight; up to four bytes stand inside the tag itself. A matrix is an element of elements:
flags, dimensions, name, then its values, or further matrices for cells and structs. The walk
follows the tags as scipy does and looks at every type, size and count on the way.

Source: MathWorks, "MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from caffe_compat.foreign import Unfit

_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32, _UTF8 = 1, 5, 6, 16
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5
_NUMBERS = range(6, 16)
_FUNCTION, _OPAQUE = 16, 17
# bytes of a value of each type of numbers
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_TEXTS = (1, 2, 3, 4, 16, 17, 18)
_MAX_DEPTH, _MAX_AXES, _MAX_BLANK = 50, 32, 1 << 20
_HEADER = 128


@dataclass
class _Walk:
    """The bytes of one variable, and the byte order of their numbers (``<`` or ``>``)."""

    data: bytes | memoryview
    order: str

    def __post_init__(self) -> None:
        self._tag = struct.Struct(f"{self.order}II")
        self._head = struct.Struct(f"{self.order}10I")

    def tag(self, at: int) -> tuple[int, int, int, int]:
        """(type, bytes, where they begin, where the next element begins)."""
        if at < 0 or at + 8 > len(self.data):
            raise Unfit(f"it ends within an element at byte {at}")
        kind, size = self._tag.unpack_from(self.data, at)
        if kind >> 16:
            small = kind >> 16
            if small > 4:
                raise Unfit(f"a short element at byte {at} claims {small} bytes")
            return kind & 0xFFFF, small, at + 4, at + 8
        first = at + 8
        if first + size > len(self.data):
            raise Unfit(f"an element at byte {at} claims {size} bytes, more than there are")
        return kind, size, first, first + size + -size % 8

    def numbers(self, at: int, count: int | None = None) -> tuple[int, int, int, int]:
        """An element of numbers: (type, how many, where, the next element)."""
        kind, size, first, after = self.tag(at)
        if kind not in _SIZES or size % _SIZES[kind]:
            raise Unfit(f"the values at byte {at} have the type {kind} and {size} bytes")
        found = size // _SIZES[kind]
        if count is not None and found != count:
            raise Unfit(f"{found} values at byte {at}, its dimensions need {count}")
        return kind, found, first, after

    def text(self, at: int) -> tuple[int, int]:
        """An element of characters: (bytes, the next element)."""
        kind, size, _, after = self.tag(at)
        if kind not in (_INT8, _UTF8, 2):
            raise Unfit(f"a name at byte {at} has the type {kind}")
        return size, after

    def matrix(self, at: int, depth: int = 0) -> int:
        """Look at a matrix; where the next element begins."""
        kind, size, first, _ = self.tag(at)
        if kind != _MATRIX:
            raise Unfit(f"an element of type {kind} at byte {at}, expected a matrix")
        if depth > _MAX_DEPTH:
            raise Unfit("its cells and structs are nested too deeply")
        if not size:
            if not depth:
                raise Unfit(f"a variable at byte {at} is empty")
            return first
        flags, shape, after = self._describe(first)
        what, count = flags & 0xFF, math.prod(shape)
        if what == _OPAQUE:
            for _ in range(3):
                _, after = self.text(after)
            return self.matrix(after, depth + 1)
        parts = 2 if flags & 0x800 else 1
        if what in _NUMBERS:
            for _ in range(parts):
                *_, after = self.numbers(after, count)
            return after
        if what == _CHAR:
            return self._characters(after, count)
        if what == _SPARSE:
            return self._sparse(after, shape, parts)
        if what == _FUNCTION:
            return self.matrix(after, depth + 1)
        if what not in (_CELL, _STRUCT, _OBJECT):
            raise Unfit(f"a matrix at byte {at} is of the unknown class {what}")
        if what == _OBJECT:
            _, after = self.text(after)
        inner = count
        if what != _CELL:
            fields, after = self._fields(after)
            inner = count * fields
        if 8 * inner > len(self.data) - after or count > max(inner, _MAX_BLANK):
            raise Unfit(f"a matrix at byte {at} claims {count} entries, more than there are")
        for _ in range(inner):
            after = self.matrix(after, depth + 1)
        return after

    def _describe(self, first: int) -> tuple[int, tuple[int, ...], int]:
        """Flags, dimensions, and what stands behind the name."""
        if first + 40 <= len(self.data):
            # nearly all: two dimensions, and no name
            f = self._head.unpack_from(self.data, first)
            usual = f[:2] == (_UINT32, 8) and f[4:6] == (_INT32, 8) and f[8:] == (_INT8, 0)
            if usual and f[2] & 0xFF != _OPAQUE:
                if (f[6] | f[7]) >> 31:
                    raise Unfit(f"a matrix at byte {first} has a negative dimension")
                return f[2], (f[6], f[7]), first + 40
        kind, size, start, after = self.tag(first)
        if kind != _UINT32 or size != 8:
            raise Unfit(f"a matrix at byte {first} has no flags")
        (flags, _) = self._tag.unpack_from(self.data, start)
        if flags & 0xFF == _OPAQUE:
            return flags, (), after
        kind, size, start, after = self.tag(after)
        axes = size // 4
        if kind != _INT32 or size % 4 or not 2 <= axes <= _MAX_AXES:
            raise Unfit(f"a matrix at byte {first} has no dimensions")
        shape = struct.unpack_from(f"{self.order}{axes}i", self.data, start)
        if min(shape) < 0:
            raise Unfit(f"a matrix at byte {first} has the dimensions {shape}")
        _, after = self.text(after)
        return flags, shape, after

    def _characters(self, at: int, count: int) -> int:
        kind, size, _, after = self.tag(at)
        if kind not in _TEXTS:
            raise Unfit(f"characters at byte {at} have the type {kind}")
        if count > max(size, 0 if size else _MAX_BLANK):
            raise Unfit(f"{size} bytes of characters at byte {at}, its dimensions need {count}")
        return after

    def _sparse(self, at: int, shape: tuple[int, ...], parts: int) -> int:
        if len(shape) != 2:
            raise Unfit(f"a sparse matrix at byte {at} has the dimensions {shape}")
        kind, held, first, after = self.numbers(at)
        rows = self._array(kind, held, first)
        kind, count, first, after = self.numbers(after)
        ends = self._array(kind, count, first)
        used = int(ends[-1]) if count else 0
        sound = count == shape[1] + 1 and ends[0] == 0 and (np.diff(ends) >= 0).all()
        if not sound or used > held or (rows[:used] < 0).any() or (rows[:used] >= shape[0]).any():
            raise Unfit(f"a sparse matrix at byte {at} has places outside its dimensions")
        for _ in range(parts):
            _, values, _, after = self.numbers(after)
            if values < used:
                raise Unfit(f"a sparse matrix at byte {at} lacks values")
        return after

    def _array(
        self, kind: int, count: int, first: int
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        if kind not in (_INT32, _UINT32):
            raise Unfit(f"places at byte {first} have the type {kind}")
        return np.frombuffer(self.data, f"{self.order}i4", count, first).astype(np.int64)

    def _fields(self, at: int) -> tuple[int, int]:
        """How many fields a struct has, and where the first value begins."""
        kind, size, start, after = self.tag(at)
        if kind != _INT32 or size != 4:
            raise Unfit(f"a struct at byte {at} does not tell the length of its field names")
        (length,) = struct.unpack_from(f"{self.order}i", self.data, start)
        size, after = self.text(after)
        if length < 1 or size % length:
            raise Unfit(f"a struct at byte {at} has field names of {length} in {size} bytes")
        return size // length, after


def check(data: bytes, limit: int) -> None:
    """Look at every element of a MATLAB 5 file.

    Parameters
    ----------
    data : the whole file.
    limit : bytes that its variables may take unpacked.

    Raises
    ------
    Unfit : says at which byte of the variable something is wrong.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise Unfit("it has no MATLAB 5 header")
    order = "<" if data[126:128] == b"IM" else ">"
    whole = _Walk(memoryview(data), order)
    at, total = _HEADER, 0
    while at < len(data):
        kind, size, first, after = whole.tag(at)
        if kind == _COMPRESSED:
            total += _check_compressed(data[first : first + size], order, limit - total)
            at = first + size  # compressed elements are not filled up
        elif kind == _MATRIX:
            whole.matrix(at)
            at = after
        else:
            raise Unfit(f"an element of type {kind} at byte {at}, expected a variable")


def _check_compressed(packed: bytes, order: str, limit: int) -> int:
    """Unpack a variable and look at it; how many bytes it has."""
    unpack = zlib.decompressobj()
    data = unpack.decompress(packed, max(limit, 1))
    if unpack.unconsumed_tail and len(data) >= limit:
        raise Unfit("it unpacks to more than such a file may hold")
    if not unpack.eof:
        raise Unfit("a compressed variable is cut short")
    _Walk(data, order).matrix(0)
    return len(data)
