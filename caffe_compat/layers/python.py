"""Python layers: classes of the user's own code that take part in a network.

A definition names the module and the class. That alone never imports anything: a file from
somewhere else could name any module. The user's script imports or defines the class and hands it
over with :func:`register_python`; from then on definitions may name it.

>>> from caffe_compat.layers.python import PythonLayer, register_python
>>> @register_python(module="scaling")
... class Double(PythonLayer):
...     def reshape(self, bottom, top):
...         top[0].reshape(*bottom[0].shape)
...     def forward(self, bottom, top):
...         top[0].data[...] = 2 * bottom[0].data
...     def backward(self, top, propagate_down, bottom):
...         bottom[0].diff[...] = 2 * top[0].diff
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from caffe_compat.definition import schema
from caffe_compat.definition.spec import TRAIN
from caffe_compat.errors import UnsupportedLayer
from caffe_compat.layers.base import Layer, Shape, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_import("torch")

Array = npt.NDArray[np.float32]


class PythonBlob:
    """A blob as a Python layer sees it.

    Attributes
    ----------
    data, diff : float32 arrays of the blob's shape; write into them (``data[...] = ``).
    """

    def __init__(self, *shape: int) -> None:
        self.data: Array = np.zeros(shape, np.float32)
        self.diff: Array = np.zeros(shape, np.float32)

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape. Values are kept where the number of values stays."""
        if self.data.shape == tuple(shape):
            return
        same = self.data.size == count(shape)
        self.data = self.data.reshape(shape) if same else np.zeros(shape, np.float32)
        self.diff = self.diff.reshape(shape) if same else np.zeros(shape, np.float32)

    @property
    def shape(self) -> Shape:
        """The blob's shape."""
        return self.data.shape

    @property
    def count(self) -> int:
        """The number of values."""
        return self.data.size

    @property
    def num(self) -> int:
        """Size of axis 0, or 1."""
        return self._size(0)

    @property
    def channels(self) -> int:
        """Size of axis 1, or 1."""
        return self._size(1)

    @property
    def height(self) -> int:
        """Size of axis 2, or 1."""
        return self._size(2)

    @property
    def width(self) -> int:
        """Size of axis 3, or 1."""
        return self._size(3)

    def _size(self, axis: int) -> int:
        return self.shape[axis] if axis < len(self.shape) else 1


class PythonParams(list[PythonBlob]):
    """The parameter blobs of a Python layer."""

    def add_blob(self, *shape: int) -> PythonBlob:
        """Append a parameter blob of zeros; what ``setup`` writes into it is its first value."""
        self.append(PythonBlob(*shape))
        return self[-1]


class PythonLayer:
    """Base of the user's layer classes; pycaffe calls it ``caffe.Layer``.

    Attributes
    ----------
    param_str, param_str_ : ``python_param.param_str`` of the definition; the second is its name in
        Caffe of early 2015.
    phase : 0 in TRAIN, 1 in TEST.
    blobs : parameter blobs; ``setup`` adds them with ``self.blobs.add_blob``.
    """

    param_str: str = ""
    param_str_: str = ""
    phase: int = 1
    blobs: PythonParams

    def setup(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Called once, when the network is made: check bottoms and options, add parameters."""

    def reshape(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Called before every forward pass: give the tops their shapes."""

    def forward(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Write the tops' ``data``."""

    def backward(
        self,
        top: Sequence[PythonBlob],
        propagate_down: Sequence[bool],
        bottom: Sequence[PythonBlob],
    ) -> None:
        """Write the bottoms' ``diff`` where ``propagate_down``, and add to the parameters'."""


_CLASSES: dict[tuple[str, str], type[Any]] = {}
_C = TypeVar("_C", bound=type[Any])


def register_python(cls: Any = None, /, *, module: str = "", layer: str = "") -> Any:
    """Let definitions use a class of yours as a Python layer.

    Parameters
    ----------
    cls : the class, a :class:`PythonLayer`; without it this is a class decorator.
    module, layer : what ``python_param`` of the definition calls them; default: the module that the
        class stands in, and its name.

    Raises
    ------
    TypeError : no subclass of :class:`PythonLayer`.
    """

    def add(chosen: _C) -> _C:
        if not (isinstance(chosen, type) and issubclass(chosen, PythonLayer)):
            raise TypeError(f"{chosen!r} is no subclass of PythonLayer")
        _CLASSES[module or chosen.__module__, layer or chosen.__name__] = chosen
        return chosen

    return add if cls is None else add(cls)


@register("Python")
class Python(Layer):
    """A class of the user's own code, registered with ``register_python``; a file that only names
    one is refused.

    Source: ``python_layer.hpp`` of BVLC Caffe.
    """

    truth = "our reference"
    option = "python_param"
    bottoms = (0, None)
    tops = (0, None)
    stateful = True
    reads = ()  # its blobs are copies of its own

    def looks_at(self) -> tuple[str, ...]:
        return ()  # who knows

    def setup(self) -> None:
        o = self.options
        found = _CLASSES.get((o.module, o.layer))
        if found is None:
            known = ", ".join(f"{m}.{n}" for m, n in sorted(_CLASSES)) or "none"
            raise self.spec.error(
                f"the class '{o.layer}' of module '{o.module}' is not registered (registered: "
                f"{known}). A definition never imports a module by itself: import or define the "
                "class in your script and call caffe_compat.layers.python.register_python"
                f"({o.layer or 'YourLayer'}, module='{o.module}')",
                "python_param.module",
                UnsupportedLayer,
            )
        self.effect = not self.spec.tops
        self.made = found()
        self.made.param_str = self.made.param_str_ = o.param_str
        self.made.phase = 0 if self.phase == TRAIN else 1
        self.made.blobs = PythonParams()
        # a blob that is read twice has a gradient for each; a top in place is its bottom
        self.bottom = [PythonBlob() for _ in self.spec.bottoms]
        in_place = dict(zip(self.spec.bottoms, self.bottom, strict=True))
        self.top = [in_place.get(name) or PythonBlob() for name in self.spec.tops]
        self.begun = False

    def fresh(self) -> Layer:
        other = Python(self.spec, self.phase)
        other.output_shapes([blob.shape for blob in self.bottom])
        return other

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for blob, shape in zip(self.bottom, bottoms, strict=True):
            blob.reshape(*shape)
        if not self.begun:
            self.made.setup(self.bottom, self.top)
            self.begun = True
        self.made.reshape(self.bottom, self.top)
        return [blob.shape for blob in self.top]

    def names(self) -> tuple[str, ...]:
        return tuple(f"blob{i}" for i in range(len(self.made.blobs)))

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [blob.shape for blob in self.made.blobs]

    def fillers(self) -> list[Any]:
        return [schema.new("FillerParameter") for _ in self.made.blobs]

    def initial(self) -> Sequence[Array]:
        return [blob.data for blob in self.made.blobs]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops: tuple[Tensor, ...] = _function().apply(self, len(params), *params, *bottoms)
        return tops

    def compute(self, params: Sequence[Array], bottoms: Sequence[Array]) -> list[Array]:
        """The tops; of a repeated pass, what the last one gave."""
        if not self.repeating:
            for blob, values in zip(self.made.blobs, params, strict=True):
                blob.data[...] = values
            self.output_shapes([values.shape for values in bottoms])
            for blob, values in zip(self.bottom, bottoms, strict=True):
                blob.data[...] = values
            self.made.forward(self.bottom, self.top)
        return [blob.data.astype(np.float32) for blob in self.top]

    def gradients(
        self, diffs: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[list[Array], list[Array]]:
        """What the user's ``backward`` adds to the parameters' gradients, and the bottoms'
        gradients."""
        for blob in (*self.made.blobs, *self.bottom):
            blob.diff[...] = 0
        for blob, values in zip(self.top, diffs, strict=True):
            blob.diff[...] = values
        self.made.backward(self.top, list(wanted), self.bottom)
        return (
            [blob.diff.copy() for blob in self.made.blobs],
            [blob.diff.copy() for blob in self.bottom],
        )


@cache
def _function() -> Any:
    """The bridge to torch's autograd; made at first use, because this module must not import
    torch."""

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, layer: Python, params: int, *tensors: Tensor) -> tuple[Tensor, ...]:
            ctx.layer, ctx.params = layer, params
            arrays = [t.detach().float().cpu().numpy() for t in tensors]
            device = tensors[0].device if tensors else "cpu"
            tops = layer.compute(arrays[:params], arrays[params:])
            return tuple(torch.from_numpy(top).to(device) for top in tops)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
            wanted = ctx.needs_input_grad[2:]
            diffs = [g.detach().float().cpu().numpy() for g in grads]
            learned, bottoms = ctx.layer.gradients(diffs, wanted[ctx.params :])
            found = [
                torch.from_numpy(array).to(grads[0].device) if want else None
                for array, want in zip([*learned, *bottoms], wanted, strict=True)
            ]
            return (None, None, *found)

    return Bridge
