"""Names of parts in a model, so that they are not lost between training and prediction.

They stand in the network's own ``name``, behind ``parts=``::

    name: "hands and feet parts=nose,left_hand,right_hand,left_foot,right_foot"

Caffe keeps that field in every definition and in every ``.caffemodel``, prints it, and does nothing
else with it: such files are as good for Caffe as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from caffe_compat.errors import CaffeCompatError
from reproduce.people.skeletons import Skeleton, named, skeleton

if TYPE_CHECKING:
    from caffe_compat.conversion.convert import Conversion
    from caffe_compat.definition.spec import NetSpec
    from caffe_compat.weights.model import Weights

_MARK = "parts="


def in_name(name: str) -> tuple[str, ...]:
    """The parts that a network's name tells; none where it tells none.

    >>> in_name("dogs parts=nose,left_ear,right_ear")
    ('nose', 'left_ear', 'right_ear')
    """
    before, mark, listed = name.partition(_MARK)
    if not mark or (before and not before[-1].isspace()):
        return ()
    return tuple(part.strip() for part in listed.split(","))


def with_parts(name: str, parts: Sequence[str]) -> str:
    """A network's name that tells these parts, instead of those that it told.

    >>> with_parts("dogs", ("nose", "tail"))
    'dogs parts=nose,tail'

    Raises
    ------
    CaffeCompatError : a name that would read as something else.
    """
    for part in parts:
        if not part.isprintable() or part != part.strip() or not part or "," in part:
            raise CaffeCompatError(
                f"the part's name {part!r} cannot be kept: it must be printable, without commas "
                "and without spaces around it"
            )
    own = name.partition(_MARK)[0].rstrip() if in_name(name) else name
    return " ".join(text for text in (own, _MARK + ",".join(parts)) if text) if parts else own


def named_net(net: NetSpec, parts: Sequence[str]) -> NetSpec:
    """The definition with these parts in its name; without any, the definition as it is."""
    return replace(net, name=with_parts(net.name, parts)) if parts else net


def of_weights(weights: Weights) -> tuple[str, ...]:
    """The parts' names that a weight file tells."""
    return in_name(weights.source.network)


def of_model(made: Conversion) -> tuple[str, ...]:
    """The parts' names that a model tells: its definition, or else the file of its weights."""
    return in_name(made.net.name) or of_weights(made.weights)


def kept(made: Conversion) -> Conversion:
    """The model with its parts' names in its definition, also where that is another file's."""
    net = named_net(made.net, of_model(made))
    graph = replace(made.graph, spec=net)
    return replace(made, graph=graph, weights=replace(made.weights, net=net))


def skeleton_of(made: Conversion, parts: int) -> Skeleton:
    """The skeleton of a pose network: by the names that its model tells, or else by the number of
    parts as the authors have them.

    Parameters
    ----------
    made : the model.
    parts : how many parts its belief maps have, without the background.

    Raises
    ------
    CaffeCompatError : the model tells the names of another number of parts, or one twice.
    """
    names = of_model(made)
    if not names:
        return skeleton(parts)
    where = made.weights.source.path or "the model"
    _check_count(names, parts, where)
    return named(names, mirrored=False, where=where)


def _check_count(names: Sequence[str], parts: int, where: str) -> None:
    """Are as many parts named as there are?

    Raises
    ------
    CaffeCompatError : says where the names stand.
    """
    if len(names) != parts:
        raise CaffeCompatError(
            f"{where}: names {len(names)} part(s) ({', '.join(names)}) of {parts}: correct the "
            "name of the network in its definition"
        )
