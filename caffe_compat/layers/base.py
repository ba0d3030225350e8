"""What every layer class is, and the registry of Caffe's type names.

A layer is made from its spec, checks every rule that Caffe checks, infers shapes in plain integers
without torch, and computes its tops from its bottoms. Gradients come from torch's autograd; a layer
writes its own backward pass only where Caffe's differs from the derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from caffe_compat.definition.spec import TEST, LayerSpec
from caffe_compat.errors import PrototxtError, UnsupportedLayer

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
_MAX_COUNT = 2**31 - 1


class Layer:
    """Base of all layers.

    Class attributes
    ----------------
    type : Caffe's type string, set by :func:`register`.
    option : name of the options message in ``LayerParameter`` ("" where there is none).
    blob_names : names of the parameter blobs in ``state_dict``, in Caffe's order.
    bottoms, tops : (least, most) number of blobs; None = no limit.
    loss : does a top without ``loss_weight`` count into the loss (first top, weight 1)?
    data : does the layer bring data in from outside?
    trainable : blobs that a solver may change (BatchNorm's are statistics).
    same_count : one top for each bottom.
    in_place : may top and bottom be the same blob?
    effect : does a forward pass do something beside its tops, such as writing a file?
    stateful : does a forward pass change the layer object? Each network then has one of its own.

    Attributes
    ----------
    repeating : the pass under way repeats the last one (for blobs or gradients that were not kept):
        a stateful layer then begins where the last pass began, and writes nothing.
    """

    type: ClassVar[str] = ""
    option: ClassVar[str] = ""
    blob_names: ClassVar[tuple[str, ...]] = ()
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    loss: ClassVar[bool] = False
    data: ClassVar[bool] = False
    trainable: ClassVar[bool] = True
    same_count: ClassVar[bool] = False
    in_place: ClassVar[bool] = True
    effect: bool = False
    stateful: ClassVar[bool] = False

    def __init__(self, spec: LayerSpec, phase: str = TEST) -> None:
        self.spec, self.phase, self.repeating = spec, phase, False
        self.name = spec.name
        self.options: Any = getattr(spec.message, self.option) if self.option else None
        self._check_count("bottom", len(spec.bottoms), self.bottoms)
        if not (
            self.loss and len(spec.tops) < self.tops[0]
        ):  # Caffe adds the missing top of a loss itself
            self._check_count("top", len(spec.tops), self.tops)
        if self.same_count and len(spec.bottoms) != len(spec.tops):
            raise self.error(
                f"produces one top for each bottom, found {len(spec.bottoms)} bottom(s) and "
                f"{len(spec.tops)} top(s)",
                "top",
            )
        if not self.in_place and set(spec.tops) & set(spec.bottoms):
            raise self.error(f"{self.type} cannot work in place: give the top another name", "top")
        self.setup()

    def _check_count(self, what: str, count: int, allowed: tuple[int, int | None]) -> None:
        least, most = allowed
        if count < least or (most is not None and count > most):
            wanted = (
                str(least)
                if most == least
                else f"at least {least}"
                if most is None
                else f"{least} to {most}"
            )
            raise self.error(f"{self.type} takes {wanted} {what} blob(s), found {count}", what)

    def separable(self, bottoms: Sequence[Shape]) -> bool:
        """Does each image of a batch give its own tops, whatever the others are? Said only where it
        is known."""
        return False

    def error(self, message: str, field: str = "") -> PrototxtError:
        """An error at this layer; ``field`` is an option's name or a field of the layer."""
        if (
            field
            and self.option
            and field not in ("bottom", "top", "param", "loss_weight", "propagate_down")
        ):
            field = f"{self.option}.{field}"
        return self.spec.error(message, field)

    def has(self, name: str) -> bool:
        """Was the singular option given?"""
        return bool(self.options.HasField(name))

    def axis(self, value: int, axes: int, field: str = "axis") -> int:
        """A canonical axis index.

        Raises
        ------
        PrototxtError : outside -axes .. axes-1.
        """
        if not -axes <= value < axes:
            raise self.error(f"axis {value} is out of range for a blob of {axes} axes", field)
        return value % axes if axes else 0

    # what a layer class fills in

    def setup(self) -> None:
        """Read and check the options that need no shapes."""

    def names(self) -> tuple[str, ...]:
        """Names of this layer's parameter blobs, in order (there may be fewer blobs, never
        more)."""
        return self.blob_names

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the parameter blobs."""
        return []

    def fillers(self) -> list[Any]:
        """One ``FillerParameter`` per parameter blob."""
        return []

    def initial(self) -> Sequence[Any] | None:
        """First values of the parameter blobs as arrays, where the layer itself knows them; else
        the fillers give them."""
        return None

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the tops."""
        return list(bottoms)

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        raise UnsupportedLayer(
            "cannot be computed: it brings data in from outside", layer=self.name
        )

    def fresh(self) -> Layer:
        """This layer without the traces of forward passes; itself where it keeps none."""
        return self

    def gradient_to(self, index: int) -> bool:
        """Caffe's ``AllowForceBackward``: may a forced backward pass reach this bottom?"""
        return not (self.loss and index == 1)


_REGISTRY: dict[str, type[Layer]] = {}
_L = TypeVar("_L", bound=type[Layer])


def register(name: str) -> Callable[[_L], _L]:
    """Class decorator: make a layer class known under Caffe's exact type string.

    Raises
    ------
    ValueError : the name is taken.
    """

    def add(cls: _L) -> _L:
        if name in _REGISTRY:
            raise ValueError(f"layer type {name} is registered twice")
        cls.type = name
        _REGISTRY[name] = cls
        return cls

    return add


def registry() -> dict[str, type[Layer]]:
    """Every known layer class by type string."""
    return dict(sorted(_REGISTRY.items()))


def make(spec: LayerSpec, phase: str = TEST) -> Layer:
    """The layer object of a spec.

    Raises
    ------
    UnsupportedLayer : unknown type; the message lists the known ones.
    PrototxtError : options that Caffe would refuse.
    """
    if spec.type not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY))
        what = f"unsupported layer type '{spec.type}'" if spec.type else "has no type"
        raise spec.error(f"{what}; supported: {known}", "type", UnsupportedLayer)
    return _REGISTRY[spec.type](spec, phase)


def count(shape: Sequence[int]) -> int:
    """Number of elements; 1 for a scalar."""
    total = 1
    for size in shape:
        total *= size
    return total


FILLERS = ("constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear")


def check_filler(filler: Any, shape: Shape, layer: Layer) -> None:
    """Refuse what Caffe's fillers refuse."""
    if filler.type not in FILLERS:
        raise layer.error(f"unknown filler '{filler.type}'; known: {', '.join(FILLERS)}")
    if filler.type != "gaussian" and filler.sparse != -1:
        raise layer.error(f"sparse is for the gaussian filler only, not for '{filler.type}'")
    if filler.type == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise layer.error(
            f"the bilinear filler needs a blob of 4 axes with square kernels, not {shape}"
        )
    if count(shape) == 0:
        raise layer.error(f"a parameter of shape {shape} has no values to fill")


def check_blob(shape: Sequence[int], layer: Layer) -> None:
    """Refuse what Caffe's blobs cannot hold."""
    if any(size < 0 for size in shape):
        raise layer.error(f"a top would have the impossible shape {'x'.join(map(str, shape))}")
    if count(shape) > _MAX_COUNT:
        raise layer.error(
            f"a blob of shape {'x'.join(map(str, shape))} is larger than Caffe's limit of 2^31 "
            "- 1 values"
        )
