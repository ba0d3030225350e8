"""Caffe's protobuf schema in three forms, built at import from one table: no protoc, no generated
file.

``upstream`` and ``fork`` (that of Convolutional Pose Machines) are the two binary dialects of a
whole file; they give a few field numbers different meanings. :data:`FORKS` are further forks, each
of which added fields for its own layer types. ``merged`` knows every field name of all of them and
is what the rest of the package works with: text files are parsed into it directly (names are
unambiguous), binary files are parsed in their own dialect, or a layer of a fork's type in that
fork's, and moved over by name.

Source: protobuf's dynamic messages (``google.protobuf.descriptor_pool``); numbers:
:mod:`caffe_compat.definition.schema_table` and :mod:`caffe_compat.definition.fork_table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from caffe_compat.definition.fork_table import FORK_TABLE, FORK_TYPES
from caffe_compat.definition.schema_table import TABLE
from caffe_compat.errors import SchemaError

Dialect = Literal["upstream", "fork"]
DIALECTS: tuple[Dialect, ...] = ("upstream", "fork")
FORKS = (
    "ssd",
    "rcnn",
    "rfcn",
    "pspnet",
    "segnet",
    "enet",
    "rtpose",
    "intel",
    "happynear",
    "shufflenet",
)

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}
# Merged numbers of rows whose own number another dialect already uses; far above every real one.
_SHIFT = 30000


@dataclass(frozen=True)
class SchemaRow:
    """One field of a message, or one value of an enum (``type`` empty), as the table gives it."""

    number: int
    name: str
    type: str = ""
    label: str = ""
    default: str | None = None
    only: str = ""


@dataclass
class _Block:
    kind: str
    name: str
    only: str
    rows: list[SchemaRow] = field(default_factory=list)


_HEAD = re.compile(r"(enum|message) (\S+)(?: @([\w,]+))?$")
_FIELD = re.compile(r"(\d+) ([\w.]+)(\*\*|\*|!|) (\w+)(?: =(?: (.*?))?)?(?: @([\w,]+))?$")
_VALUE = re.compile(r"(\d+) (\w+)(?: @([\w,]+))?$")


@cache
def _blocks() -> tuple[_Block, ...]:
    found: dict[str, _Block] = {}
    for raw in (TABLE + FORK_TABLE).splitlines():
        line = raw.strip()
        if head := _HEAD.match(line):
            # the second table adds rows to messages of the first, and may say who else has them
            block = found.setdefault(head[2], _Block(head[1], head[2], ""))
            block.only = head[3] or block.only
        elif block.kind == "enum" and (value := _VALUE.match(line)):
            block.rows.append(SchemaRow(int(value[1]), value[2], only=value[3] or ""))
        elif part := _FIELD.match(line):
            block.rows.append(
                SchemaRow(int(part[1]), part[4], part[2], part[3], part[5], part[6] or "")
            )
        else:
            raise SchemaError(f"schema table: cannot read the row '{line}'")
    return tuple(found.values())


def _wanted(only: str, dialect: str) -> bool:
    return not only or dialect == "merged" or dialect in only.split(",")


def _merge(rows: list[SchemaRow]) -> Iterator[SchemaRow]:
    """Give every name one field: a number already taken by another name is shifted."""
    names: dict[str, SchemaRow] = {}
    numbers: set[int] = set()
    for row in rows:
        if row.name in names:  # same setting, another number in the other dialect
            if (row.type, row.label) != (names[row.name].type, names[row.name].label):
                raise SchemaError(f"schema table: '{row.name}' has two types")
            continue
        number = row.number
        while number in numbers:
            number += _SHIFT
        names[row.name] = row
        numbers.add(number)
        yield SchemaRow(number, row.name, row.type, row.label, row.default, row.only)


@cache
def _pool(dialect: str) -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"caffe_{dialect}.proto", package="caffe", syntax="proto2"
    )
    enums = {b.name for b in _blocks() if b.kind == "enum"}
    owners: dict[str, Any] = {}
    blocks = [b for b in _blocks() if _wanted(b.only, dialect)]
    for block in blocks:
        if block.kind == "message":
            owners[block.name] = file.message_type.add(name=block.name)
    for block in blocks:
        rows = [r for r in block.rows if _wanted(r.only, dialect)]
        if dialect in FORKS:  # a fork took numbers that the later upstream gave to something else
            own = {r.number for r in rows if r.only}
            rows = [r for r in rows if r.only or r.number not in own]
        if block.kind == "enum":
            scope, _, name = block.name.rpartition(".")
            enum = (owners[scope] if scope else file).enum_type.add(name=name)
            for row in rows:
                enum.value.add(name=row.name, number=row.number)
            continue
        for row in _merge(rows) if dialect == "merged" else rows:
            made = owners[block.name].field.add(name=row.name, number=row.number)
            if row.type in _SCALARS:
                made.type = _SCALARS[row.type]
            else:
                made.type = _Field.TYPE_ENUM if row.type in enums else _Field.TYPE_MESSAGE
                made.type_name = f".caffe.{row.type}"
            repeated = row.label.startswith("*")
            required = row.label == "!"
            made.label = (
                _Field.LABEL_REPEATED
                if repeated
                else _Field.LABEL_REQUIRED
                if required
                else _Field.LABEL_OPTIONAL
            )
            if row.label == "**":
                made.options.packed = True
            if row.default is not None:
                made.default_value = row.default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(
        file.SerializeToString()
    )
    return pool


@cache
def message_class(name: str, dialect: str = "merged") -> Any:
    """The protobuf class of a Caffe message, e.g. ``message_class("LayerParameter")``.

    Parameters
    ----------
    name : message name without package.
    dialect : "merged", "upstream", "fork" or one of :data:`FORKS`.

    Raises
    ------
    SchemaError : the dialect has no such message.
    """
    try:
        descriptor = _pool(dialect).FindMessageTypeByName(f"caffe.{name}")
    except KeyError:
        raise SchemaError(f"the {dialect} dialect has no message '{name}'") from None
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    factory: Any = message_factory.MessageFactory(_pool(dialect))  # protobuf 4.21
    return factory.GetPrototype(descriptor)


def new(name: str, /, **fields: Any) -> Any:
    """A fresh merged message with the given fields set."""
    return message_class(name)(**fields)


def forks_of(layer_type: str) -> tuple[str, ...]:
    """The schemas that could have written the options of a layer type that only forks have.

    Empty for stock types, and for fork types that read no options of their own.
    """
    option = FORK_TYPES.get(layer_type, "")
    rows = [r for b in _blocks() if b.name == "LayerParameter" for r in b.rows if r.name == option]
    return tuple(dict.fromkeys(fork for row in rows for fork in row.only.split(",") if fork))


def is_repeated(descriptor: Any) -> bool:
    """True for a repeated field, whatever the protobuf release calls that."""
    value = getattr(descriptor, "is_repeated", None)
    return bool(value) if value is not None else bool(descriptor.label == _Field.LABEL_REPEATED)


def known_fields(name: str) -> tuple[str, ...]:
    """All field names of a message in the merged schema, for error messages."""
    return tuple(f.name for f in message_class(name).DESCRIPTOR.fields)


def move(source: Message, target: Any, where: str = "") -> None:
    """Copy a message into one of another dialect, field by field, by name.

    Raises
    ------
    SchemaError : the target dialect lacks a field that is set, or an enum value.
    """
    fields = target.DESCRIPTOR.fields_by_name
    for descriptor, value in source.ListFields():
        path = f"{where}.{descriptor.name}" if where else descriptor.name
        if descriptor.name not in fields:
            kind = target.DESCRIPTOR.file.name.removeprefix("caffe_").removesuffix(".proto")
            raise SchemaError(f"the {kind} dialect has no field '{path}'; choose the other dialect")
        repeated = is_repeated(descriptor)
        if descriptor.type == _Field.TYPE_MESSAGE:
            if repeated:
                for item in value:
                    move(item, getattr(target, descriptor.name).add(), path)
            else:
                getattr(target, descriptor.name).SetInParent()
                move(value, getattr(target, descriptor.name), path)
        elif repeated:
            getattr(target, descriptor.name).extend(value)
        else:
            try:
                setattr(target, descriptor.name, value)
            except ValueError as error:
                raise SchemaError(f"field '{path}': {error}") from None


def enum_name(message: Any, name: str) -> str:
    """The name of an enum field's value (or of its default)."""
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    return str(descriptor.enum_type.values_by_number[getattr(message, name)].name)
