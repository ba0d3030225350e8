"""What several of the tools need: their common options, and a net with its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffe_compat.definition.prototxt import read_net
from caffe_compat.definition.spec import TEST
from caffe_compat.errors import CaffeCompatError, printable

if TYPE_CHECKING:
    from caffe_compat.network.match import LayerMatch
    from caffe_compat.network.net import Net
    from caffe_compat.training.feed import DataFeed

FILE = click.Path(exists=True, dir_okay=False)
PHASE = click.Choice(["TEST", "TRAIN"], case_sensitive=False)


def open_net(
    definition: str, weights: str | None, phase: str, level: int, stages: tuple[str, ...]
) -> tuple[Net, DataFeed]:
    """A net with the sources of its data layers."""
    from caffe_compat.network.net import Net
    from caffe_compat.training.feed import DataFeed
    from caffe_compat.weights.containers import read_weights

    spec = read_net(definition)
    feed = DataFeed(spec, phase, Path("."), None, level, stages)
    stored = None if weights is None else read_weights(weights)
    net = Net(
        spec,
        stored,
        phase=phase,
        level=level,
        stages=stages,
        strict=False,
        input_shapes=feed.shapes or None,
    )
    if weights is not None:
        _tell(weights, net.loaded)
    return net, feed


def _tell(weights: str, layers: Sequence[LayerMatch]) -> None:
    """Say which layers have the fillers' values, and which stored ones have no place.

    Raises
    ------
    CaffeCompatError : no layer took anything.
    """
    by_status: dict[str, list[str]] = {}
    for layer in layers:
        by_status.setdefault(layer.status, []).append(printable(layer.name))
    missing, unused = by_status.get("missing", []), by_status.get("unused", [])
    if missing and not {"matched", "reshaped"} & set(by_status):
        raise CaffeCompatError(
            f"{weights}: has parameters of none of the layers; is it of another model? It has "
            f"{', '.join(unused) or 'none at all'}; expected {', '.join(missing)}"
        )
    for names, what in (
        (missing, "not in the file, so that their fillers count"),
        (unused, "in the file only"),
    ):
        if names:
            click.echo(f"note: {weights}: layers {what}: {', '.join(names)}", err=True)


def open_test_net(
    definition: str, weights: str, level: int, stages: tuple[str, ...], purpose: str
) -> tuple[Net, DataFeed]:
    """A net in phase TEST with the sources of its data layers, of which it has at least one.

    Raises
    ------
    CaffeCompatError : no data layer; ``purpose`` says what there is nothing for.
    """
    net, feed = open_net(definition, weights, TEST, level, stages)
    if not feed.shapes:
        raise CaffeCompatError(f"{definition}: no data layer in phase TEST, nothing to {purpose}")
    return net, feed
