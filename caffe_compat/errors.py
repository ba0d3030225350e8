"""The one exception tree: every message says what, where, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Text for one line of a terminal: control characters and broken UTF-8 become escapes.

    Names come out of files that others wrote; printed as they are, they could move the cursor,
    change colours or pretend to be further lines.

    >>> printable("conv\\n\\x1b[2J")
    'conv\\\\n\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# Abbreviations that are spelled aloud and begin with a vowel then: an aitch, an em, an en.
_SPELLED = ("HDF5", "LMDB", "MPII", "npy", "npz")


def with_article(noun: str) -> str:
    """A noun with the article that it is spoken with.

    >>> with_article("annotation file"), with_article("file of boxes"), with_article("HDF5 file")
    ('an annotation file', 'a file of boxes', 'an HDF5 file')
    """
    vowel = noun[:1].lower() in tuple("aeiou") or noun.startswith(_SPELLED)
    return f"{'an' if vowel else 'a'} {noun}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape for people.

    >>> shape_text((1, 3, 368, 368))
    '1×3×368×368'
    """
    return "×".join(map(str, shape)) or "scalar"


class CaffeCompatError(Exception):
    """Base of everything that this package raises on bad input; its message is one line."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class SchemaError(CaffeCompatError):
    """A message does not fit the schema dialect that it is read or written with."""


class PrototxtError(CaffeCompatError):
    """A text definition that Caffe would refuse.

    Parameters
    ----------
    message : what is wrong and what is allowed, one line.
    file, line : where (line counts from 1; 0 = unknown, for models that were read from a binary
        file).
    layer, field : the layer's name and the dotted field name, where known.
    """

    def __init__(
        self, message: str, *, file: str = "", line: int = 0, layer: str = "", field: str = ""
    ) -> None:
        self.reason = message
        self.file = file
        self.line = line
        self.layer = layer
        self.field = field
        where = f"{file or '<text>'}:{line}: " if line else (f"{file}: " if file else "")
        what = f"layer '{layer}': " if layer else ""
        name = f"{field}: " if field else ""
        super().__init__(f"{where}{what}{name}{message}")


class UnknownInput(PrototxtError):
    """The definition does not tell the size of an input; ``blob`` is the input's name."""

    def __init__(
        self,
        message: str,
        *,
        blob: str,
        file: str = "",
        line: int = 0,
        layer: str = "",
        field: str = "",
    ) -> None:
        super().__init__(message, file=file, line=line, layer=layer, field=field)
        self.blob = blob


class UnsupportedLayer(PrototxtError):
    """A layer type that Caffe knows or a fork added, and that is not implemented here."""


class WeightError(CaffeCompatError):
    """Weights that are damaged, or that do not fit the network.

    ``problems`` lists every single finding, so that nobody has to repair a model one error at a
    time.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        lines = map(printable, (message, *self.problems))
        Exception.__init__(self, "\n  - ".join(lines))


class DataError(CaffeCompatError):
    """A data source (LMDB, HDF5, image list) that cannot be read as asked."""


class SolverError(CaffeCompatError):
    """A solver definition or state that cannot be run or resumed."""
