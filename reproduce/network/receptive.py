"""Receptive fields, computed from the graph.

Of every blob: how many input pixels one of its values sees, and how many values of the previous
stage's belief maps.

Source: paper, section 3 (160 pixels after stage 1, 31×31 on the belief maps, 400 pixels after stage
2).
"""

from __future__ import annotations

from dataclasses import dataclass

from caffe_compat.network.graph import Graph, Node
from reproduce.network.identify import stage_outputs


@dataclass(frozen=True)
class Window:
    """What one value of a layer's top sees of its bottom, along the height.

    Attributes
    ----------
    whole : does it always see all of it?
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    whole: bool = False


@dataclass(frozen=True)
class ReceptiveField:
    """What one value of a blob sees of a source.

    Attributes
    ----------
    size : height in the source's pixels; may reach over its edges.
    jump : the source's pixels between two neighbours.
    whole : is it the whole source, whatever its size?
    """

    size: int = 1
    jump: int = 1
    whole: bool = False

    def through(self, window: Window) -> ReceptiveField:
        """The field of a value that a window operation makes of values with this field."""
        return ReceptiveField(
            self.size + window.dilation * (window.kernel - 1) * self.jump,
            self.jump * window.stride,
            self.whole or window.whole,
        )

    def join(self, other: ReceptiveField) -> ReceptiveField:
        """The field of a value that is made of values with either field."""
        return ReceptiveField(
            max(self.size, other.size), max(self.jump, other.jump), self.whole or other.whole
        )

    @property
    def text(self) -> str:
        """The size for people."""
        return "whole" if self.whole else str(self.size)


@dataclass(frozen=True)
class LayerField:
    """A layer's line of the table.

    Attributes
    ----------
    image : field on the image.
    belief : field on the previous stage's belief maps (None: it sees none).
    blob : what the layer makes.
    """

    layer: str
    type: str
    kernel: int
    stride: int
    image: ReceptiveField
    belief: ReceptiveField | None
    blob: str = ""


# layers that make each value of all of their bottom
_WHOLE = ("InnerProduct", "SPP")


def _window(node: Node, graph: Graph, small_pools: bool) -> Window | None:
    """The window of a layer; None where each value sees one value."""
    layer = node.layer
    if layer.type in _WHOLE or (layer.type == "Pooling" and layer.options.global_pooling):
        shape = node.bottom_shapes[0]
        return Window(kernel=shape[2] if len(shape) == 4 else 1, whole=True)
    if layer.type == "Convolution":
        kernel, stride, _, dilation = layer.windows(graph.blobs[node.bottoms[0]])  # type: ignore[attr-defined]
        return Window(kernel[0], stride[0], dilation[0])
    if layer.type == "Pooling":
        side, step = layer.kernel[0], layer.stride[0]  # type: ignore[attr-defined]
        return Window(step if small_pools and side == step + 1 else side, step)
    return None


def table(graph: Graph, *, small_pools: bool = False) -> list[LayerField]:
    """Fields of all layers with windows, in order.

    Parameters
    ----------
    small_pools : count pools of 3 with stride 2 as 2×2, as the paper does; the released networks
        have 3×3.
    """
    image: dict[str, ReceptiveField] = {name: ReceptiveField() for name in graph.inputs}
    belief: dict[str, ReceptiveField] = {}
    outputs = set(stage_outputs(graph))
    rows = []
    for node in graph.nodes:
        window = _window(node, graph, small_pools)
        fields = [image[name] for name in node.bottoms if name in image]
        seen = [belief[name] for name in node.bottoms if name in belief]
        if not fields:
            continue
        field = fields[0]
        for other in fields[1:]:
            field = field.join(other)
        maps = seen[0] if seen else None
        if window is not None:
            field = field.through(window)
            maps = maps.through(window) if maps else None
            rows.append(
                LayerField(
                    layer=node.layer.name,
                    type=node.layer.type,
                    kernel=window.kernel,
                    stride=window.stride,
                    image=field,
                    belief=maps,
                    blob=node.tops[0],
                )
            )
        for name in node.tops:
            image[name] = field
            if name in outputs:
                belief[name] = ReceptiveField()  # the next stage looks at these maps
            elif maps is not None:
                belief[name] = maps
            else:
                belief.pop(name, None)
    return rows


def stages(
    graph: Graph, *, small_pools: bool = False
) -> list[tuple[str, ReceptiveField, ReceptiveField | None]]:
    """(blob, field on the image, field on the previous belief maps) of each stage's output."""
    found = {row.blob: row for row in table(graph, small_pools=small_pools)}
    return [(name, found[name].image, found[name].belief) for name in stage_outputs(graph)]
