"""protobuf's text format, read with line numbers and written back.

Own reader, because Caffe's users need the file, line, layer and field of every mistake, long after
parsing: the options of a layer are checked against the shapes that reach it. It accepts exactly
what the C++ parser of Caffe's time accepts (``a: 1``, ``m {}``, ``m: <>``, ``[1, 2]``, ``,`` and
``;`` separators, ``#`` comments, octal and hex integers, ``1.e-2f``, adjacent strings) and refuses
what that refuses (a singular field given twice, unknown names).

Source: the text format specification of protobuf.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import text_format

from caffe_compat.definition import schema
from caffe_compat.definition.fork_table import FORK_TYPES, STOCK_TYPES
from caffe_compat.definition.schema import FieldType
from caffe_compat.errors import PrototxtError, UnsupportedLayer

# path of field names and, for repeated messages, indices -> line
Lines = dict[tuple[str | int, ...], int]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+|\#[^\n]*)
      |(?P<newline>\n)
      |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
      |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)
      |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      |(?P<symbol>[{}<>\[\]:;,\-./])
    """,
    re.VERBOSE,
)
# the beginning of an octal integer, which the C++ parser never takes as a float
_OCTAL = re.compile("0[0-9]")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"?])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))",
    re.DOTALL,
)
_SIMPLE = {
    "a": 7,
    "b": 8,
    "f": 12,
    "n": 10,
    "r": 13,
    "t": 9,
    "v": 11,
    "\\": 92,
    "'": 39,
    '"': 34,
    "?": 63,
}
_INT_RANGE = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
_TRUTH = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_MAX_DEPTH = 100
_SHORT = 20  # names that a message lists
_LAYERS = ("LayerParameter", "V1LayerParameter", "V0LayerParameter")
_KIND = {number: name for name, number in schema.SCALARS.items()}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def _tokens(text: str, file: str) -> Iterator[_Token]:
    line, at = 1, 0
    glued = False  # was the last thing a number, with no space since?
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            shown = text[at : at + 20].splitlines()[0]
            what = (
                "a string that is not closed on its line"
                if shown[:1] in "\"'"
                else f"unexpected '{shown}'"
            )
            raise PrototxtError(
                f"{what}; expected a field name, a value or a bracket", file=file, line=line
            )
        kind = found.lastgroup or ""
        if kind == "name" and glued:
            raise PrototxtError(
                "a number and a name need a space between them", file=file, line=line
            )
        glued = kind == "number"
        if kind == "newline":
            line += 1
        elif kind != "space":
            yield _Token(kind, found.group(), line)
        at = found.end()
    yield _Token("end", "end of file", line)


def _unescape(token: _Token, file: str) -> bytes:
    def one(found: re.Match[str]) -> str:
        simple, octal, hexa, short, long, wrong = found.groups()
        if wrong is not None:
            raise PrototxtError(
                f"unknown escape '\\{wrong}' in a string; write the \\ of a path as \\\\ or /",
                file=file,
                line=token.line,
            )
        if simple:
            return chr(_SIMPLE[simple])
        if octal or hexa:
            return chr(int(octal, 8) & 255 if octal else int(hexa, 16))
        try:
            return chr(int(short or long, 16)).encode("utf-8").decode("latin-1")
        except (ValueError, OverflowError, UnicodeEncodeError):
            raise PrototxtError(
                "a \\u escape is no character; write the \\ of a path as \\\\ or /",
                file=file,
                line=token.line,
            ) from None

    # latin-1 keeps one character per byte until the bytes are complete
    body = token.text[1:-1].encode("utf-8", "surrogateescape").decode("latin-1")
    return _ESCAPE.sub(one, body).encode("latin-1")


@dataclass
class _Parser:
    """Reads one text, token by token.

    Attributes
    ----------
    lines : the line of every field so far.
    layer : name of the layer that is being read, "" outside of layers or before its name.
    inside : its message, None outside of layers.
    inside_depth : how many brackets deep it stands.
    now : the token that is looked at.
    """

    file: str
    tokens: Iterator[_Token]
    lines: Lines = field(default_factory=dict)
    layer: str = ""
    inside: Any = None
    inside_depth: int = 0

    def __post_init__(self) -> None:
        self.now = next(self.tokens)

    def fail(self, message: str, name: str = "") -> PrototxtError:
        return PrototxtError(
            message, file=self.file, line=self.now.line, layer=self.layer, field=name
        )

    def step(self) -> _Token:
        token = self.now
        if token.kind != "end":
            self.now = next(self.tokens)
        return token

    def take(self, symbol: str) -> bool:
        if self.now.kind == "symbol" and self.now.text == symbol:
            self.step()
            return True
        return False

    def message(self, target: Any, path: tuple[str | int, ...], close: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self.fail("brackets are nested too deeply")
        fields = target.DESCRIPTOR.fields_by_name
        while not (close and self.take(close)):
            if not close and self.now.kind == "end":
                return
            if self.now.kind != "name":
                inside = f"in '{target.DESCRIPTOR.name}'" if close else "at the top level"
                raise self.fail(f"expected a field name {inside}, found '{self.now.text}'")
            name = self.now.text
            if name not in fields:
                raise self._unknown(name, target, depth)
            self.lines.setdefault((*path, name), self.now.line)
            self._field(target, fields[name], (*path, name), depth)
            if name == "name" and target.DESCRIPTOR.name in _LAYERS:
                self.layer = target.name
            if not self.take(";"):
                self.take(",")

    def _unknown(self, name: str, target: Any, depth: int) -> PrototxtError:
        if self.inside is not None:
            where = self.now
            kind = self._layer_type(depth - self.inside_depth)
            self.now = where
            old = self.inside.DESCRIPTOR.enum_types_by_name.get("LayerType")  # V1 layers have it
            known = old.values_by_name if old else {**FORK_TYPES, **dict.fromkeys(STOCK_TYPES, "")}
            if kind and kind not in known:
                return UnsupportedLayer(
                    f"unsupported layer type '{kind}': its field '{name}' belongs to a Caffe "
                    "that is not known here",
                    file=self.file,
                    line=where.line,
                    layer=self.layer,
                    field="type",
                )
        line = self.now.line
        if depth == 0 and (other := self._other_kind(target)):
            return PrototxtError(other, file=self.file or "<text>")
        kind = target.DESCRIPTOR.name
        known = schema.known_fields(kind) if "." not in kind else ()
        return PrototxtError(
            f"{kind} has no field '{name}'{_known_instead(name, known)}",
            file=self.file,
            line=line,
            layer=self.layer,
            field=name,
        )

    def _other_kind(self, target: Any) -> str:
        """What to do where the whole file is a network given as a solver, or a solver given as a
        network; empty where it is neither. Reading cannot go on after this.

        Parameters
        ----------
        target : the message that the file's own fields were read into.
        """
        names = {descriptor.name for descriptor, _ in target.ListFields()}
        try:
            names |= self._own_names()
        except PrototxtError:  # further down the text cannot even be taken apart
            return ""
        kind = target.DESCRIPTOR.name
        if kind == "SolverParameter" and names & {"layer", "layers"}:
            if names <= set(schema.known_fields("NetParameter")):
                return (
                    "is a network's definition, not a solver's; give the solver, whose 'net' names "
                    "this file"
                )
        elif kind == "NetParameter" and names <= set(schema.known_fields("SolverParameter")):
            return (
                "is a solver's definition, not a network's; give the network's, which the "
                "solver's 'net' names"
            )
        return ""

    def _own_names(self) -> set[str]:
        """The names of the fields that the rest of the text has outside of all brackets."""
        names = set()
        depth, before = 0, _Token("end", "", 0)
        while self.now.kind != "end":
            token = self.step()
            if token.kind == "symbol":
                depth += (token.text in "{<[") - (token.text in "}>]")
            elif depth == 0 and token.kind == "name" and before.text not in (":", "-"):
                names.add(token.text)
            before = token
        return names

    def _layer_type(self, depth: int) -> str:
        """The type of the layer that is being read: known already, or found further down.

        ``depth`` : how many brackets deep in the layer the reader stands. Reading cannot go on
        after this.
        """
        if self.inside.DESCRIPTOR.name == "LayerParameter" and self.inside.type:
            return str(self.inside.type)
        while depth >= 0 and self.now.kind != "end":
            token = self.step()
            if token.kind == "symbol":
                depth += (token.text in "{<") - (token.text in "}>")
            elif depth == 0 and token.text == "type" and self.take(":"):
                return self.now.text.strip("\"'")
        return ""

    def _field(self, target: Any, descriptor: Any, path: tuple[str | int, ...], depth: int) -> None:
        name = descriptor.name
        repeated = schema.is_repeated(descriptor)
        if not repeated and target.HasField(name):
            raise self.fail("given twice, but may be given once only", name)
        nested = descriptor.type == FieldType.TYPE_MESSAGE
        self.step()
        if not self.take(":") and not nested:
            raise self.fail(f"expected ':' after '{name}', found '{self.now.text}'", name)
        if repeated and self.take("["):
            if self.take("]"):
                return
            while True:
                self._value(target, descriptor, path, nested, True, depth)
                if self.take("]"):
                    return
                if not self.take(","):
                    raise self.fail(f"expected ',' or ']', found '{self.now.text}'", name)
        else:
            self._value(target, descriptor, path, nested, repeated, depth)

    def _value(
        self,
        target: Any,
        descriptor: Any,
        path: tuple[str | int, ...],
        nested: bool,
        repeated: bool,
        depth: int,
    ) -> None:
        name = descriptor.name
        if not nested:
            value = self._scalar(descriptor)
            try:
                if repeated:
                    getattr(target, name).append(value)
                else:
                    setattr(target, name, value)
            except (ValueError, TypeError) as error:
                raise self.fail(f"{error}", name) from None
            return
        start = self.now.line
        if self.take("{"):
            close = "}"
        elif self.take("<"):
            close = ">"
        else:
            raise self.fail(f"expected '{{' after '{name}', found '{self.now.text}'", name)
        if repeated:
            path = (*path, len(getattr(target, name)))
            self.lines[path] = start
            child = getattr(target, name).add()
        else:
            child = getattr(target, name)
            child.SetInParent()
        outer, within, at = self.layer, self.inside, self.inside_depth
        if child.DESCRIPTOR.name in _LAYERS[:2]:
            self.inside, self.inside_depth = child, depth + 1
        self.message(child, path, close, depth + 1)
        self.inside, self.inside_depth = within, at
        if not child.IsInitialized():
            raise self.fail(
                f"{child.DESCRIPTOR.name} needs {', '.join(child.FindInitializationErrors())}", name
            )
        self.layer = outer

    def _scalar(self, descriptor: Any) -> Any:
        name = descriptor.name
        if descriptor.type == FieldType.TYPE_ENUM:
            return self._enum(descriptor)
        kind = _KIND[descriptor.type]
        if kind in ("string", "bytes"):
            return self._string(kind, name)
        if kind == "bool":
            return self._truth(name)
        return self._whole(kind, name) if kind in _INT_RANGE else self._real(kind, name)

    def _truth(self, name: str) -> bool:
        token = self.step()
        if token.kind == "name" and token.text in _TRUTH:
            return _TRUTH[token.text]
        if token.kind == "number" and (number := _integer(token.text)) in (0, 1):
            return bool(number)
        raise PrototxtError(
            f"expected true or false, found '{token.text}'",
            file=self.file,
            line=token.line,
            layer=self.layer,
            field=name,
        )

    def _whole(self, kind: str, name: str) -> int:
        sign = -1 if self.take("-") else 1
        token = self.now
        value = _integer(token.text) if token.kind == "number" else None
        if value is None:
            raise self.fail(f"expected an integer, found '{token.text}'", name)
        value *= sign
        low, high = _INT_RANGE[kind]
        if not low <= value <= high or (sign < 0 and low == 0):
            raise self.fail(f"{value} is out of range for {kind} ({low} to {high})", name)
        self.step()
        return value

    def _real(self, kind: str, name: str) -> float:
        sign = -1 if self.take("-") else 1
        if self.now.kind == "number" and _OCTAL.match(self.now.text):
            raise self.fail(
                "expected a number without a 0 in front, which makes it an octal integer, found "
                f"'{self.now.text}'",
                name,
            )
        value = _float(self.now)
        if value is None:
            raise self.fail(f"expected a number, found '{self.now.text}'", name)
        self.step()
        return _round_float32(sign * value) if kind == "float" else sign * value

    def _string(self, kind: str, name: str) -> Any:
        if self.now.kind != "string":
            raise self.fail(f"expected a quoted string, found '{self.now.text}'", name)
        data = b""
        while self.now.kind == "string":
            data += _unescape(self.now, self.file)
            self.step()
        if kind == "bytes":
            return data
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("the string is not valid UTF-8", name) from None

    def _enum(self, descriptor: Any) -> int:
        values = descriptor.enum_type.values_by_name
        sign = -1 if self.take("-") else 1
        token = self.now
        number: int | None = None
        if token.kind == "name" and sign > 0:
            number = values[token.text].number if token.text in values else None
        elif token.kind == "number":
            number = _integer(token.text)
            if number is not None and number * sign not in descriptor.enum_type.values_by_number:
                number = None
        if number is None and descriptor.full_name == "caffe.V1LayerParameter.type":
            error = self.fail(
                f"unsupported layer type '{token.text}'{_today(token.text)}", descriptor.name
            )
            raise UnsupportedLayer(
                error.reason, file=error.file, line=error.line, layer=error.layer, field=error.field
            )
        if number is None:
            raise self.fail(
                f"unknown value '{token.text}'; allowed: {', '.join(values)}", descriptor.name
            )
        self.step()
        return number * sign


# names that forks gave to what Caffe got later
_OTHER_NAMES = {"hole": "dilation"}  # DeepLab


def _today(old: str) -> str:
    """The end of a message about a type of old layers that was never one of Caffe's."""
    plain = old.replace("_", "").lower()
    now = [name for name in (*STOCK_TYPES, *FORK_TYPES) if name.lower() == plain]
    if not now:
        return ""
    return f' in old layers; the current form has it: layer {{ type: "{now[0]}" }}'


def _known_instead(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown field: near names of a long list, else all of it."""
    import difflib  # only when something is wrong

    near = difflib.get_close_matches(name, known, 3, 0.6)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    if name in _OTHER_NAMES and _OTHER_NAMES[name] in known:
        return f"; it is called {_OTHER_NAMES[name]} here, and means the same"
    if len(known) <= _SHORT:
        return f"{hint} Known: {', '.join(known)}" if known else hint.rstrip(".")
    if near:
        return f"{hint} There are {len(known) - len(near)} others"
    shown = ", ".join(known[:_SHORT])
    return f"{hint} Known: {shown} and {len(known) - _SHORT} others"


def _integer(text: str) -> int | None:
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if not text.isdigit():
        return None
    if len(text) > 1 and text[0] == "0":
        return int(text, 8) if set(text) <= set("01234567") else None
    return int(text) if len(text) < 30 else None


def _float(token: _Token) -> float | None:
    if token.kind == "name":
        return {"inf": float("inf"), "infinity": float("inf"), "nan": float("nan")}.get(
            token.text.lower()
        )
    if token.kind != "number" or token.text[:2] in ("0x", "0X"):
        return None
    return float(token.text.rstrip("fF"))


def _round_float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def parse(text: str, target: Any, file: str = "") -> Lines:
    """Parse text format into ``target`` (a merged message, changed in place).

    Returns
    -------
    The line of every field, keyed by its path, e.g. ``("layer", 3, "convolution_param",
    "kernel_size")``.

    Raises
    ------
    PrototxtError : with file, line and field.
    """
    parser = _Parser(file, _tokens(text, file))
    parser.message(target, (), "", 0)
    return parser.lines


def dump(message: Any) -> str:
    """Text format of a message (protobuf's printer; floats with the fewest digits that give the
    same float32)."""
    return str(text_format.MessageToString(message))
