"""protobuf's wire format, walked without copying: just enough to lift the big arrays out of a model
file.

Caffe models are small definitions around large float arrays. The walk takes the arrays' places in
the file, so that each is read once into memory of its own; what is left of a layer is a few hundred
bytes for protobuf to parse.

Source: the encoding chapter of protobuf's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from caffe_compat.definition import schema
from caffe_compat.definition.schema import FieldType
from caffe_compat.errors import WeightError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_AXES = 32
# NVCaffe's data types of raw_data (field 10) and what they are in numpy
_RAW_KINDS = {0: "<f8", 1: "<f4", 2: "<f2"}
_RAW_NAMES = {3: "int", 4: "unsigned int"}
_WIRE_OF = {
    FieldType.TYPE_DOUBLE: FIXED64,
    FieldType.TYPE_FLOAT: FIXED32,
    FieldType.TYPE_STRING: BYTES,
    FieldType.TYPE_BYTES: BYTES,
    FieldType.TYPE_MESSAGE: BYTES,
}

Array = npt.NDArray[Any]
# (byte offset in the file, count, dtype) -> a fresh array
Loader = Callable[[int, int, str], Array]


class Field(NamedTuple):
    """One field on the wire.

    Attributes
    ----------
    number, wire : the field's number and its wire type.
    value : of a varint; 0 for other wire types.
    begin, stop : the byte offsets of the field.
    start : the byte offset of its payload, which ends where the field ends.
    """

    number: int
    wire: int
    value: int
    begin: int
    start: int
    stop: int


def _varint(buffer: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop:
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise WeightError(f"damaged at byte {at}: a number does not end (truncated file?)")


def walk(buffer: memoryview, start: int, stop: int) -> Iterator[Field]:
    """The fields between two byte offsets.

    Raises
    ------
    WeightError : the bytes are no protobuf message, or end too early; says at which byte.
    """
    at = start
    while at < stop:
        begin = at
        tag, at = _varint(buffer, at, stop)
        number, wire = tag >> 3, tag & 7
        value = 0
        if number == 0 or number > 536870911:
            raise WeightError(f"damaged at byte {begin}: field number {number} cannot exist")
        first = at
        if wire == VARINT:
            value, at = _varint(buffer, at, stop)
        elif wire == FIXED64:
            at += 8
        elif wire == FIXED32:
            at += 4
        elif wire == BYTES:
            size, first = _varint(buffer, at, stop)
            at = first + size
        else:
            raise WeightError(f"damaged at byte {begin}: wire type {wire} is not used by Caffe")
        if at > stop:
            raise WeightError(
                f"truncated: field {number} at byte {begin} needs {at - stop} more byte(s) than "
                "there are; download or copy the file again"
            )
        yield Field(number, wire, value, begin, first, at)


@dataclass(frozen=True)
class Blob:
    """One parameter or history array.

    Attributes
    ----------
    data : float32 or float64, in Caffe's layout and shape.
    legacy : stored with the old num, channels, height, width (always 4-D) instead of a shape.
    """

    data: Array
    legacy: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions, as stored."""
        return tuple(self.data.shape)

    @property
    def is_elsewhere(self) -> bool:
        """Does it stand in for a parameter that another layer keeps? It has no values then."""
        return not self.data.size


def read_floats(
    buffer: memoryview, field: Field, load: Loader, stop: int, kind: str
) -> tuple[Array, int]:
    """Values of a packed field, or of the run of unpacked ones that begins here; and where they
    end.

    Raises
    ------
    WeightError : another wire type, or a length that is no whole number of values; says the byte.
    """
    size = 8 if kind == "<f8" else 4
    if field.wire == BYTES:
        length = field.stop - field.start
        if length % size:
            raise WeightError(
                f"damaged at byte {field.begin}: {length} bytes are no whole number of "
                f"{size}-byte values"
            )
        return load(field.start, length // size, kind), field.stop
    if field.wire != (FIXED64 if size == 8 else FIXED32):
        raise WeightError(f"damaged at byte {field.begin}: blob data has the wrong wire type")
    head = field.start - field.begin
    row = np.dtype([("tag", f"V{head}"), ("value", kind)])
    tag = bytes(buffer[field.begin : field.start])
    most = (stop - field.begin) // row.itemsize
    rows = np.frombuffer(buffer[field.begin : field.begin + most * row.itemsize], row)
    other = rows["tag"] != np.void(tag)
    count = int(np.argmax(other)) if other.any() else len(rows)
    return rows["value"][:count].copy(), field.begin + count * row.itemsize


def read_blob(buffer: memoryview, start: int, stop: int, load: Loader, what: str) -> Blob:
    """Read a ``BlobProto``; NVCaffe's form with ``raw_data`` as well.

    Parameters
    ----------
    load : fetches the array itself, so that nothing is held twice.
    what : name of the blob in errors.

    Raises
    ------
    WeightError : shape and data disagree, or the bytes are damaged. Nothing is allocated for a
        false shape.
    """
    legacy: dict[int, int] = {}
    dims: list[int] = []
    raw: Field | None = None
    raw_type = 0
    parts: dict[str, list[Array]] = {"<f4": [], "<f8": []}
    at = start
    while at < stop:
        field = next(walk(buffer, at, stop))
        at = field.stop
        if field.number in (1, 2, 3, 4) and field.wire == VARINT:
            legacy[field.number] = signed(field.value, 32)
        elif field.number == 7 and field.wire == BYTES:
            dims += _blob_shape(buffer, field)
        elif field.number in (5, 8):
            kind = "<f4" if field.number == 5 else "<f8"
            values, at = read_floats(buffer, field, load, stop, kind)
            parts[kind].append(values)
        elif field.number == 10 and field.wire == VARINT:
            raw_type = field.value
        elif field.number == 12 and field.wire == BYTES:
            raw = field
    if raw is not None:
        kind, values = _raw_values(raw, raw_type, load, what)
        parts[kind].append(values)
    # Caffe prefers double_data when there is any
    chosen = parts["<f8"] or parts["<f4"] or [np.zeros(0, np.float32)]
    data = chosen[0] if len(chosen) == 1 else np.concatenate(chosen)
    shape = tuple(legacy.get(i, 0) for i in (1, 2, 3, 4)) if legacy else tuple(dims)
    _check_shape(shape, data.size, what)
    return Blob(data.reshape(shape), bool(legacy))


def _blob_shape(buffer: memoryview, field: Field) -> Iterator[int]:
    """The dimensions in a ``BlobShape``, packed or one by one."""
    for inner in walk(buffer, field.start, field.stop):
        if inner.number == 1 and inner.wire == VARINT:
            yield signed(inner.value, 64)
        elif inner.number == 1 and inner.wire == BYTES:
            at = inner.start
            while at < inner.stop:
                value, at = _varint(buffer, at, inner.stop)
                yield signed(value, 64)


def _check_shape(shape: tuple[int, ...], size: int, what: str) -> None:
    """Refuse a shape that is not one of so many values; ``what`` names the blob in errors."""
    if len(shape) > _MAX_AXES:
        raise WeightError(f"{what}: {len(shape)} axes; Caffe allows {_MAX_AXES}")
    count = 1
    for dim in shape:
        if dim < 0:
            raise WeightError(f"{what}: negative dimension in shape {_dims(shape)}")
        count *= dim
    if count != size:
        raise WeightError(
            f"{what}: shape {_dims(shape)} needs {count} values, the file holds {size}: "
            "the model is damaged"
        )


def _raw_values(field: Field, number: int, load: Loader, what: str) -> tuple[str, Array]:
    """NVCaffe's ``raw_data``: the values as bytes, of the type that another field names.

    Returns
    -------
    The dtype that the values are kept in (half precision is widened to float32), and the values.
    """
    if number not in _RAW_KINDS:
        kind = _RAW_NAMES.get(number, f"number {number}")
        raise WeightError(f"{what}: raw_data of type {kind}; known: double, float and half")
    stored = _RAW_KINDS[number]
    size = np.dtype(stored).itemsize
    length = field.stop - field.start
    if length % size:
        raise WeightError(f"{what}: {length} bytes of raw_data are no whole number of values")
    values = load(field.start, length // size, stored)
    return ("<f8", values) if stored == "<f8" else ("<f4", values.astype("<f4", copy=False))


def memory_loader(buffer: memoryview) -> Loader:
    """Fetches arrays out of bytes in memory."""

    def load(offset: int, count: int, kind: str) -> Array:
        size = np.dtype(kind).itemsize
        return np.frombuffer(buffer[offset : offset + count * size], kind).copy()

    return load


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def signed(value: int, bits: int) -> int:
    """A varint's value as a signed number of so many bits."""
    value &= (1 << 64) - 1
    if value >= 1 << 63:
        value -= 1 << 64
    return value if bits == 64 else ((value + 2**31) % 2**32) - 2**31


def encode_varint(value: int) -> bytes:
    """A number as a varint: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_bytes(number: int, size: int) -> bytes:
    """The head of a length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(size)


def encode_blob(blob: Blob) -> list[bytes | memoryview]:
    """A ``BlobProto`` as chunks, as Caffe writes it: packed data, then the shape; nothing large is
    copied. One of old fields (num, channels, height, width) keeps them: it may stand for a shape of
    fewer axes."""
    dims = b"".join(encode_varint(d) for d in blob.shape)
    kind, number = ("<f8", 8) if blob.data.dtype == np.float64 else ("<f4", 5)
    data = np.ascontiguousarray(blob.data, dtype=kind).reshape(-1)
    shape = encode_bytes(1, len(dims)) + dims
    # a blob without axes has no shape message at all in Caffe's files
    tail = encode_bytes(7, len(shape)) + shape if dims else b""
    body: list[bytes | memoryview] = []
    if data.size:
        body = [encode_bytes(number, data.nbytes), data.view(np.uint8).data]
    if blob.legacy and len(blob.shape) == 4:
        old = [encode_varint(n << 3) + encode_varint(d) for n, d in enumerate(blob.shape, 1)]
        return [b"".join(old), *body]
    # fields in number order: data (5), shape (7), double_data (8)
    return [*body, tail] if number == 5 else [tail, *body]


def bytes_in(chunks: Iterable[bytes | memoryview]) -> int:
    """How many bytes some chunks have together."""
    return sum(c.nbytes if isinstance(c, memoryview) else len(c) for c in chunks)


def in_utf8(data: bytes, descriptor: Any) -> bytes:
    r"""A message with its strings made UTF-8: other bytes become ``\xd6``, as Python writes them.

    Caffe takes any bytes for a string, such as a name in GBK; the protobuf of Python does not.
    """
    out = bytearray()
    for field in walk(memoryview(data), 0, len(data)):
        spec = descriptor.fields_by_number.get(field.number)
        stored = data[field.start : field.stop]
        body = stored
        if spec is not None and field.wire == BYTES and spec.message_type is not None:
            body = in_utf8(stored, spec.message_type)
        elif spec is not None and field.wire == BYTES and spec.type == FieldType.TYPE_STRING:
            body = stored.decode("utf-8", "backslashreplace").encode()
        if body == stored:
            out += data[field.begin : field.stop]
        else:
            out += encode_bytes(field.number, len(body)) + body
    return bytes(out)


def misfits(
    buffer: memoryview, start: int, stop: int, descriptor: Any, path: str = ""
) -> Iterator[str]:
    """Names every field that the message type does not have, or has with another wire type.

    protobuf keeps such fields unread and silent; here they decide which dialect a file was written
    in.
    """
    known = descriptor.fields_by_number
    for field in walk(buffer, start, stop):
        name = f"{path}#{field.number}"
        if field.number not in known:
            yield name
            continue
        spec = known[field.number]
        label = f"{path}{spec.name}"
        expected = _WIRE_OF.get(spec.type, VARINT)
        if field.wire == BYTES and expected != BYTES and schema.is_repeated(spec):
            continue  # packed
        if field.wire != expected:
            yield f"{label} (wire type {field.wire})"
        elif spec.message_type is not None:
            yield from misfits(buffer, field.start, field.stop, spec.message_type, f"{label}.")
        elif _is_foreign_value(spec, field.value):
            yield f"{label} = {field.value}"


def _is_foreign_value(spec: Any, value: int) -> bool:
    """Is this a number that an enum or a truth value of this field cannot have?"""
    if spec.enum_type is not None:
        return value not in spec.enum_type.values_by_number
    return bool(spec.type == FieldType.TYPE_BOOL and value > 1)
