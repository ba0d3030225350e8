"""The one exception tree: every message says what, where, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class CaffeCompatError(Exception):
    """Base of everything that this package raises on bad input."""


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
        self.reason, self.file, self.line, self.layer, self.field = (
            message,
            file,
            line,
            layer,
            field,
        )
        where = f"{file or '<text>'}:{line}: " if line else (f"{file}: " if file else "")
        what = f"layer '{layer}': " if layer else ""
        name = f"{field}: " if field else ""
        super().__init__(f"{where}{what}{name}{message}")


class UnsupportedLayer(PrototxtError):
    """A layer type that Caffe knows or a fork added, and that is not implemented here."""


class WeightError(CaffeCompatError):
    """Weights that are damaged, or that do not fit the network.

    ``problems`` lists every single finding, so that nobody has to repair a model one error at a
    time.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  - ".join([message, *self.problems]))


class DataError(CaffeCompatError):
    """A data source (LMDB, HDF5, image list) that cannot be read as asked."""


class SolverError(CaffeCompatError):
    """A solver definition or state that cannot be run or resumed."""
