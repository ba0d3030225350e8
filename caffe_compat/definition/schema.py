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

# protobuf's numbers for types and labels of fields
FieldType = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "double": FieldType.TYPE_DOUBLE,
    "float": FieldType.TYPE_FLOAT,
    "int32": FieldType.TYPE_INT32,
    "int64": FieldType.TYPE_INT64,
    "uint32": FieldType.TYPE_UINT32,
    "uint64": FieldType.TYPE_UINT64,
    "bool": FieldType.TYPE_BOOL,
    "string": FieldType.TYPE_STRING,
    "bytes": FieldType.TYPE_BYTES,
}
# Merged numbers of rows whose own number another dialect already uses; far above every real one.
_SHIFT = 30000


@dataclass(frozen=True)
class SchemaRow:
    """One field of a message, or one value of an enum (``type`` empty), as the table gives it.

    Attributes
    ----------
    number, name : of the field, or of the value.
    type : a scalar's name, or that of an enum or a message.
    label : "" (optional), "!" (required), "*" (repeated) or "**" (repeated and packed).
    default : as text; None where the table gives none.
    only : the dialects that have it, with commas between them; "" for all.
    """

    number: int
    name: str
    type: str = ""
    label: str = ""
    default: str | None = None
    only: str = ""


@dataclass
class _Block:
    """An enum or a message of the table, with its rows.

    Attributes
    ----------
    kind : "enum" or "message".
    name : with the message that it stands in, if any: ``ConvolutionParameter.Engine``.
    only : the dialects that have it, with commas between them; "" for all.
    """

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
    """All enums and messages of a dialect, as protobuf's descriptors."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"caffe_{dialect}.proto", package="caffe", syntax="proto2"
    )
    owners: dict[str, Any] = {}
    blocks = [b for b in _blocks() if _wanted(b.only, dialect)]
    for block in blocks:
        if block.kind == "message":
            owners[block.name] = file.message_type.add(name=block.name)
    for block in blocks:
        rows = _rows_of(block, dialect)
        if block.kind == "enum":
            scope, _, name = block.name.rpartition(".")
            enum = (owners[scope] if scope else file).enum_type.add(name=name)
            for row in rows:
                enum.value.add(name=row.name, number=row.number)
        else:
            for row in _merge(rows) if dialect == "merged" else rows:
                _add_field(owners[block.name], row)
    pool = descriptor_pool.DescriptorPool()
    if hasattr(pool, "AddSerializedFile"):
        pool.AddSerializedFile(file.SerializeToString())
    else:
        pool.Add(file)
    return pool


def _rows_of(block: _Block, dialect: str) -> list[SchemaRow]:
    """The rows of an enum or a message that a dialect has."""
    rows = [row for row in block.rows if _wanted(row.only, dialect)]
    if dialect not in FORKS:
        return rows
    # a fork took numbers that the later upstream gave to something else
    own = {row.number for row in rows if row.only}
    return [row for row in rows if row.only or row.number not in own]


def _add_field(owner: Any, row: SchemaRow) -> None:
    """Give a message (a ``DescriptorProto``) the field that a row tells of."""
    made = owner.field.add(name=row.name, number=row.number)
    if row.type in SCALARS:
        made.type = SCALARS[row.type]
    else:
        made.type = FieldType.TYPE_ENUM if row.type in _enums() else FieldType.TYPE_MESSAGE
        made.type_name = f".caffe.{row.type}"
    labels = {
        "": FieldType.LABEL_OPTIONAL,
        "!": FieldType.LABEL_REQUIRED,
        "*": FieldType.LABEL_REPEATED,
        "**": FieldType.LABEL_REPEATED,
    }
    made.label = labels[row.label]
    if row.label == "**":
        made.options.packed = True
    if row.default is not None:
        made.default_value = row.default


@cache
def _enums() -> frozenset[str]:
    """The names of all enums."""
    return frozenset(block.name for block in _blocks() if block.kind == "enum")


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
    layer = next(block for block in _blocks() if block.name == "LayerParameter")
    named = [row.only.split(",") for row in layer.rows if row.name == option]
    return tuple(dict.fromkeys(fork for forks in named for fork in forks if fork))


def is_repeated(descriptor: Any) -> bool:
    """True for a repeated field, whatever the protobuf release calls that."""
    value = getattr(descriptor, "is_repeated", None)
    return bool(value) if value is not None else bool(descriptor.label == FieldType.LABEL_REPEATED)


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
            raise SchemaError(f"the {kind} dialect has no field '{path}'")
        repeated = is_repeated(descriptor)
        if descriptor.type == FieldType.TYPE_MESSAGE:
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
