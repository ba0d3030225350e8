"""What a converter of one layer to ONNX works with: the graph in the making, sizes, the registry.

Source: the operator definitions of ONNX, opset 18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import Node

OPSET = 18
Array = npt.NDArray[Any]
# one size as it is in each of the probed networks; a fixed size is the same in all of them
Dim = tuple[int, ...]
Dims = tuple[Dim, ...]


class OnnxError(CaffeCompatError):
    """A network that cannot be written as ONNX."""


class NoForm(Exception):
    """A layer that ONNX cannot express, with the reason."""


def fixed(dim: Dim) -> int | None:
    """The size, or None where it depends on the input."""
    return dim[0] if len(set(dim)) == 1 else None


def per_channel(values: npt.ArrayLike, rank: int) -> Array:
    """Values of the channels, ready for broadcasting over a blob of so many axes."""
    return np.asarray(values, np.float32).reshape(-1, *[1] * (rank - 2))


class OnnxGraph:
    """An ONNX graph in the making: operators and constants under fresh names.

    Parameters
    ----------
    taken : names that the network's own blobs have.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._taken = set(taken)
        self._count = 0

    def fresh(self, name: str) -> str:
        """This name, or where it is taken one that begins so; taken from now on."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _next(self) -> str:
        self._count += 1
        return self.fresh(f"_{self._count}")

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output; returns the output's name."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator with several outputs."""
        from onnx import helper

        names = [self._next() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        """A constant; returns its name."""
        from onnx import numpy_helper

        name = self._next()
        array = np.ascontiguousarray(np.asarray(values, kind))
        self.constants.append(numpy_helper.from_array(array.reshape(np.shape(values)), name))
        return name

    def integers(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant(np.array(values, np.int64), np.int64)

    def sizes(self, value: str, *axes: int) -> str:
        """Sizes of a value along some axes, as a list."""
        return self.op("Gather", self.op("Shape", value), self.integers(*axes), axis=0)

    def reshape(self, value: str, old: Dims, new: Dims) -> str:
        """Another shape; sizes that are not fixed are copied or left to be worked out.

        Raises
        ------
        NoForm : two sizes would have to be worked out.
        """
        wanted: list[int] = []
        for axis, dim in enumerate(new):
            size = fixed(dim)
            copied = axis < len(old) and old[axis] == dim
            wanted.append(size if size is not None else 0 if copied else -1)
        if wanted.count(-1) > 1:
            raise NoForm("two of its sizes change with the input: export it with a fixed size")
        if 0 in [fixed(dim) for dim in new]:
            raise NoForm("a blob without values")
        return self.op("Reshape", value, self.integers(*wanted))

    def flat(self, value: str, rank: int, axis: int) -> str:
        """All axes from ``axis`` on made one."""
        return self.op("Reshape", value, self.integers(*[0] * axis, -1)) if axis < rank else value


class LayerStep:
    """What a converter works with: one layer, its blobs and its parameters.

    Attributes
    ----------
    layer, options : the layer and its message.
    graph : where operators go.
    bottoms : names of the values that it reads.
    shapes, tops : sizes of bottoms and tops.
    params : arrays of its parameter blobs.
    """

    def __init__(
        self,
        node: Node,
        graph: OnnxGraph,
        bottoms: Sequence[str],
        shapes: Sequence[Dims],
        tops: Sequence[Dims],
        params: Sequence[Array],
    ) -> None:
        self.layer: Any = node.layer
        self.options: Any = node.layer.options
        self.graph, self.bottoms = graph, list(bottoms)
        self.shapes, self.tops, self.params = list(shapes), list(tops), list(params)

    @property
    def rank(self) -> int:
        """Number of axes of the first bottom."""
        return len(self.shapes[0])

    def size(self, axis: int) -> int:
        """The size of one axis of the first bottom.

        Raises
        ------
        NoForm : it changes with the input.
        """
        size = fixed(self.shapes[0][axis])
        if size is None:
            raise NoForm(
                f"the size of axis {axis} must be fixed: give --fixed-batch (and no --dynamic-size)"
            )
        return size


Converter = Callable[[LayerStep], Iterable[str]]
CONVERTERS: dict[str, Converter] = {}


def converts(*types: str) -> Callable[[Converter], Converter]:
    """Decorator: the function converts layers of these types."""

    def add(run: Converter) -> Converter:
        for name in types:
            CONVERTERS[name] = run
        return run

    return add
