"""Prototxt files and texts to specs, and back.

>>> spec = parse_net('input: "x" input_shape { dim: 1 dim: 3 } layer { name: "r" type: "ReLU"
bottom: "x" top: "y" }')
>>> [layer.type for layer in spec.layers]
['Input', 'ReLU']
"""

from __future__ import annotations

import os
from typing import Any

from caffe_compat.definition import schema
from caffe_compat.definition.spec import NetSpec, SolverSpec
from caffe_compat.definition.textformat import Lines, parse
from caffe_compat.definition.upgrade import upgrade_net, upgrade_solver
from caffe_compat.errors import PrototxtError
from caffe_compat.foreign import check_file, decode, kind_of, read_bytes

_MAX_BYTES = 64 << 20


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a definition file.

    Raises
    ------
    PrototxtError : the file is missing, a directory, binary (a model given as definition) or far
        too large.
    """
    name = os.fspath(path)
    if check_file(path, PrototxtError) > _MAX_BYTES:
        raise PrototxtError(
            "is larger than 64 MiB: this is no prototxt (is it the .caffemodel?)", file=name
        )
    data = read_bytes(path, PrototxtError)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PrototxtError("is UTF-16 text; save it as UTF-8", file=name)
    kind = kind_of(data[:1024])
    if kind and "HTML" not in kind:
        raise PrototxtError(f"is {kind}; expected prototxt text", file=name)
    if b"\0" in data:
        raise PrototxtError(
            "is a binary file, expected prototxt text (is it the .caffemodel?)", file=name
        )
    if data.lstrip()[:1] == b"<" and b"html" in data[:512].lower():
        raise PrototxtError(
            "is an HTML page, expected prototxt text: download the file itself again", file=name
        )
    # protobuf reads bytes: what is no UTF-8 (GBK, Latin-1) is taken in comments, and refused by the
    # parser elsewhere
    return decode(data, strict=False)


def _parsed(kind: str, text: str, file: str) -> tuple[Any, Lines]:
    """A definition's message and the lines of its fields.

    Raises
    ------
    PrototxtError : weights in the text. Caffe takes them; here they would be lost.
    """
    message = schema.new(kind)
    lines = parse(text, message, file)
    for path, line in lines.items():
        if "blobs" in path:
            raise PrototxtError(
                "weights in the text of a definition are not read: keep them in a .caffemodel and "
                "leave them out here",
                file=file,
                line=line,
                field="blobs",
            )
    return message, lines


def net_from_message(message: Any, lines: Lines | None = None, file: str = "") -> NetSpec:
    """Upgrade a merged ``NetParameter`` (changed in place) and wrap it."""
    by_layer = upgrade_net(message, file, lines)
    return NetSpec.of(message, by_layer, file)


def parse_net(text: str, file: str = "") -> NetSpec:
    """Read a network definition of any age from text; see :func:`read_net`."""
    message, lines = _parsed("NetParameter", text, file)
    return net_from_message(message, lines, file)


def read_net(path: str | os.PathLike[str]) -> NetSpec:
    """Read a network definition file: V0, V1 or current format, any input style.

    >>> spec = read_net("deploy.prototxt")
    >>> [layer.name for layer in spec.layers if layer.type == "Convolution"]
    ['conv']

    Returns
    -------
    NetSpec in the current format, include and exclude rules not yet applied.

    Raises
    ------
    PrototxtError : with file, line, layer and field.
    """
    return parse_net(read_text(path), os.fspath(path))


def parse_solver(text: str, file: str = "") -> SolverSpec:
    """Read a solver definition from text; see :func:`read_solver`."""
    message, lines = _parsed("SolverParameter", text, file)
    upgrade_solver(message, file)
    flat = {str(path[0]): line for path, line in lines.items() if len(path) == 1}
    return SolverSpec(message, file, flat)


def read_solver(path: str | os.PathLike[str]) -> SolverSpec:
    """Read a solver definition file.

    Raises
    ------
    PrototxtError : with file, line and field.
    """
    return parse_solver(read_text(path), os.fspath(path))
