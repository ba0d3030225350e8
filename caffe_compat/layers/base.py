"""What every layer class is, and the registry of Caffe's type names.

A layer is made from its spec, checks every rule that Caffe checks, infers shapes in plain integers
without torch, and computes its tops from its bottoms. Gradients come from torch's autograd; a layer
writes its own backward pass only where Caffe's differs from the derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from caffe_compat.definition.spec import TEST, LayerSpec
from caffe_compat.errors import DataError, PrototxtError, UnsupportedLayer

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
LOWEST = -3.4028234663852886e38  # -FLT_MAX, what Caffe starts a maximum from
_MAX_COUNT = 2**31 - 1
_MAX_AXES = 32


@dataclass(frozen=True)
class Overwritten:
    """What a backward pass finds where blobs have been overwritten since the forward pass.

    Attributes
    ----------
    seen : bottoms as the forward pass saw them.
    bottoms : what they hold now.
    tops : what the tops hold now.
    diffs : gradients of the tops.
    """

    seen: Sequence[Tensor]
    bottoms: Sequence[Tensor]
    tops: Sequence[Tensor]
    diffs: Sequence[Tensor]


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
    reads : what Caffe's backward pass of this layer looks at when it runs: "bottom" or "top" data,
        or only the "sign" of its top. Where a later layer works in place, this is not what the
        forward pass saw. "diff" where it looks at the top's gradient after it has begun to write
        the bottom's, which are one where the layer works in place. Empty where the layer keeps what
        it needs, or needs nothing.
    keeps_sign : does the top have the bottom's sign wherever a gradient passes?
    changes_state : does a forward pass change its parameters?
    truth : what the layer's results are held against: recorded outputs of the real Caffe, OpenCV's
        and our own reference, that alone, or nothing.
    unasked : the bottoms whose gradients Caffe's backward pass writes without being asked.
    always_learns : does Caffe's backward pass write the parameters' gradients without being asked?
    copies_first : does Caffe keep a copy of the first bottom where the layer works in place?
    leaves_margins : does :meth:`margins` give something?
    not_differentiable : the bottoms whose gradients Caffe's backward pass refuses to compute.
    has_backward : False where Caffe has no backward pass for this layer at all.

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
    truth: ClassVar[str] = "Caffe"
    stateful: ClassVar[bool] = False
    reads: tuple[str, ...] = ("bottom",)
    keeps_sign: bool = False
    changes_state: bool = False
    unasked: tuple[int, ...] = ()
    always_learns: bool = False
    copies_first: bool = False
    leaves_margins: ClassVar[bool] = False
    not_differentiable: tuple[int, ...] = ()
    has_backward: ClassVar[bool] = True

    def __init__(self, spec: LayerSpec, phase: str = TEST) -> None:
        self.spec, self.phase, self.repeating = spec, phase, False
        self.name = spec.name
        self.options: Any = getattr(spec.message, self.option) if self.option else None
        self._check_count("bottom", len(spec.bottoms), self.bottoms)
        # Caffe adds the missing top of a loss itself
        if not (self.loss and len(spec.tops) < self.tops[0]):
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

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copies: the options are the spec's and come back from there."""
        return {name: value for name, value in self.__dict__.items() if name != "options"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.options = getattr(self.spec.message, self.option) if self.option else None

    def _check_count(self, what: str, count: int, allowed: tuple[int, int | None]) -> None:
        least, most = allowed
        if count < least or (most is not None and count > most):
            wanted = f"at least {least}" if most is None else f"{least} to {most}"
            wanted = str(least) if most == least else wanted
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

    def four_axes(self, shape: Shape) -> Shape:
        """A shape as N×C×H×W, which this layer's code in Caffe takes for granted; missing axes are
        1.

        Raises
        ------
        PrototxtError : more than 4 axes.
        """
        if len(shape) > 4:
            raise self.error(f"the bottom must have 4 axes or fewer, found {len(shape)}", "bottom")
        return (*shape, 1, 1, 1, 1)[:4]

    def indices(
        self, bottom: int, values: Tensor, classes: int, ignored: int | None = None
    ) -> Tensor:
        """What a bottom holds, as whole numbers from 0 to ``classes - 1`` (or ``ignored``).

        Raises
        ------
        DataError : another value; Caffe would read foreign memory.
        """
        found = values.detach().long()
        wrong = (found < 0) | (found >= classes)
        if ignored is not None:
            wrong &= found != ignored
        if bool(wrong.any()):
            name, value = self.spec.bottoms[bottom], values.detach()[wrong][0].item()
            raise DataError(
                f"layer '{self.name}': blob '{name}' holds {value:g}, which is no class: there are "
                f"{classes}, counted from 0"
            )
        return found

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

    def learned(self, index: int) -> bool:
        """May a solver change this parameter blob? (Stored statistics are none of its business.)"""
        return self.trainable

    def initial(self) -> Sequence[Any] | None:
        """First values of the parameter blobs as arrays, where the layer itself knows them; else
        the fillers give them."""
        return None

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the tops."""
        return list(bottoms)

    @property
    def leaves_a_trace(self) -> bool:
        """Does a pass do more than make the tops?"""
        return self.effect or self.changes_state or self.stateful

    def looks_at(self) -> tuple[str, ...]:
        """The blobs whose values Caffe's forward pass reads or writes."""
        return (*self.spec.bottoms, *self.spec.tops)

    def scratch(self, bottoms: Sequence[Shape]) -> int:
        """Values that a forward pass may take beside its blobs, such as a padded bottom; 0 where
        they are about as many as those of the blobs."""
        return 0

    def run_forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        """:meth:`forward`; what torch refuses (an empty blob, too little memory) is this layer's
        error.

        Raises
        ------
        PrototxtError : names the layer and the shapes that reached it.
        """
        try:
            return self.forward(params, *bottoms)
        except (RuntimeError, IndexError) as error:
            if self.type == "Python":  # the user's own code: its traceback tells more
                raise
            shapes = ", ".join(
                f"{name} {tuple(b.shape)}"
                for name, b in zip(self.spec.bottoms, bottoms, strict=False)
            )
            reason = str(error).strip().splitlines()
            raise self.error(
                f"cannot be computed for {shapes or 'its inputs'}: "
                f"{reason[0][:200] if reason else type(error).__name__}"
            ) from error

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops.

        Raises
        ------
        UnsupportedLayer : the layer brings data in from outside, so that nothing can be computed.
        """
        raise UnsupportedLayer(
            "cannot be computed: it brings data in from outside", layer=self.name
        )

    def fresh(self) -> Layer:
        """This layer without the traces of forward passes; itself where it keeps none."""
        return self

    def gradient_to(self, index: int) -> bool:
        """Caffe's ``AllowForceBackward``: may a forced backward pass reach this bottom?"""
        return not (self.loss and index == 1)

    def writes_gradient(self, asked: Sequence[bool]) -> Sequence[bool]:
        """Which bottoms' gradients does Caffe's backward pass write, where it is asked for
        these?"""
        return [goes or number in self.unasked for number, goes in enumerate(asked)]

    def refused_gradient(self, asked: Sequence[bool]) -> PrototxtError | None:
        """The error that Caffe's backward pass stops with, where these bottoms' gradients are asked
        for; None where it goes through."""
        if not self.has_backward:
            return self.error(
                f"{self.type} has no gradient, and Caffe stops here: leave out force_backward, or "
                "say propagate_down: false in the layers that read its top"
            )
        for number, goes in enumerate(asked):
            if goes and number in self.not_differentiable:
                return self.error(
                    f"{self.type} has no gradient for bottom '{self.spec.bottoms[number]}', and "
                    "Caffe stops here: leave out force_backward, or say propagate_down: false for "
                    "this bottom"
                )
        return None

    def shares_data(self) -> bool:
        """Are the tops the first bottom's own memory, so that writing to one changes the other?"""
        return False

    def shares_diff(self, backward: bool) -> bool:
        """Is the top's gradient the first bottom's own memory?

        Parameters
        ----------
        backward : does the layer take part in the backward pass?
        """
        return False

    def replaces_gradient(self, index: int, bottoms: Sequence[Shape]) -> bool:
        """Does Caffe overwrite this parameter's gradient in each backward pass instead of adding to
        it?"""
        return False

    @property
    def works_in_place(self) -> bool:
        """Is the first top the first bottom?"""
        return self.spec.tops[:1] == self.spec.bottoms[:1]

    def margins(self, bottoms: Sequence[Tensor]) -> Tensor | None:
        """What Caffe's forward pass leaves in the first bottom's gradient, where it keeps something
        there."""
        return None

    def product(self, bottoms: Sequence[Tensor], diffs: Sequence[Tensor]) -> Tensor | None:
        """What Caffe's backward pass leaves in the first bottom's gradient, though it was not asked
        for it."""
        return None

    def backward_overwritten(self, blobs: Overwritten) -> tuple[Tensor, ...] | None:
        """The bottoms' gradients where what this layer :attr:`reads` has been overwritten.

        Returns
        -------
        None where Caffe's formula is the derivative at the present bottoms; autograd knows that.
        """
        return None


class Weighted(Layer):
    """A layer whose parameters are a weight and, where ``bias_term`` says so, a bias."""

    blob_names = ("weight", "bias")

    def fillers(self) -> list[Any]:
        return [self.options.weight_filler, self.options.bias_filler][: 1 + self.options.bias_term]


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
    """The layer object of a spec; the layer's own ``phase``, where it gives one, goes before the
    network's.

    Raises
    ------
    UnsupportedLayer : unknown type; the message lists the known ones.
    PrototxtError : options that Caffe would refuse.
    """
    if spec.type not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY))
        what = f"unsupported layer type '{spec.type}'" if spec.type else "has no type"
        raise spec.error(f"{what}; supported: {known}", "type", UnsupportedLayer)
    return _REGISTRY[spec.type](spec, spec.phase or phase)


def count(shape: Sequence[int]) -> int:
    """Number of elements; 1 for a scalar."""
    total = 1
    for size in shape:
        total *= size
    return total


FILLERS = ("constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear")


def check_filler(filler: Any, shape: Shape, layer: Layer) -> None:
    """Refuse what Caffe's fillers refuse.

    Raises
    ------
    PrototxtError : says which setting of the filler does not go, or does not fit the shape.
    """
    if filler.type not in FILLERS:
        raise layer.error(f"unknown filler '{filler.type}'; known: {', '.join(FILLERS)}")
    if filler.type != "gaussian" and filler.sparse != -1:
        raise layer.error(f"sparse is for the gaussian filler only, not for '{filler.type}'")
    if filler.type == "uniform" and filler.min > filler.max:
        raise layer.error(
            f"the uniform filler's min {filler.min:g} is more than its max {filler.max:g}"
        )
    if filler.type == "gaussian" and not filler.std > 0:
        raise layer.error(f"the gaussian filler's std {filler.std:g} must be above 0")
    if filler.sparse < -1:
        raise layer.error(f"sparse {filler.sparse} must be -1 (not sparse) or more")
    if filler.sparse >= 0 and (not shape or filler.sparse > shape[0]):
        raise layer.error(
            f"sparse {filler.sparse} is more than the first axis of a blob of shape {shape}"
        )
    if filler.type in ("positive_unitball", "xavier", "msra") and len(shape) > 4:
        raise layer.error(
            f"the {filler.type} filler takes blobs of 4 axes or fewer, found {len(shape)}"
        )
    if filler.type == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise layer.error(
            f"the bilinear filler needs a blob of 4 axes with square kernels, not {shape}"
        )
    if count(shape) == 0:
        raise layer.error(f"a parameter of shape {shape} has no values to fill")


def check_blob(shape: Sequence[int], layer: Layer) -> None:
    """Refuse what Caffe's blobs cannot hold.

    Raises
    ------
    PrototxtError : an axis is negative, there are more than 32 axes, or more than 2^31 - 1 values.
    """
    if len(shape) > _MAX_AXES:
        raise layer.error(f"a top would have {len(shape)} axes; Caffe's blobs have at most 32")
    if any(size < 0 for size in shape):
        raise layer.error(f"a top would have the impossible shape {'x'.join(map(str, shape))}")
    if count(shape) > _MAX_COUNT:
        raise layer.error(
            f"a blob of shape {'x'.join(map(str, shape))} is larger than Caffe's limit of 2^31 "
            "- 1 values"
        )
