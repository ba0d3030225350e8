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
class ReceptiveField:
    """What one value of a blob sees of a source.

    Attributes
    ----------
    size : side in the source's pixels.
    jump : the source's pixels between two neighbours.
    """

    size: int = 1
    jump: int = 1

    def through(self, kernel: int, stride: int, dilation: int = 1) -> ReceptiveField:
        """The field of a value that a window operation makes of values with this field."""
        return ReceptiveField(self.size + dilation * (kernel - 1) * self.jump, self.jump * stride)

    def join(self, other: ReceptiveField) -> ReceptiveField:
        """The field of a value that is made of values with either field."""
        return ReceptiveField(max(self.size, other.size), max(self.jump, other.jump))


@dataclass(frozen=True)
class LayerField:
    """A layer's line of the table.

    Attributes
    ----------
    image : field on the image.
    belief : field on the previous stage's belief maps (None: it sees
        none).
    blob : what the layer makes.
    """

    layer: str
    type: str
    kernel: int
    stride: int
    image: ReceptiveField
    belief: ReceptiveField | None
    blob: str = ""


def _window(node: Node, graph: Graph, small_pools: bool) -> tuple[int, int, int]:
    """Kernel, stride and dilation along the height."""
    layer = node.layer
    if layer.type == "Convolution":
        kernel, stride, _, dilation = layer.windows(graph.blobs[node.bottoms[0]])  # type: ignore[attr-defined]
        return kernel[0], stride[0], dilation[0]
    if layer.type == "Pooling":
        kernel, stride = layer.kernel[0], layer.stride[0]  # type: ignore[attr-defined]
        return (stride if small_pools and kernel == stride + 1 else kernel), stride, 1
    return 1, 1, 1


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
        kernel, stride, dilation = _window(node, graph, small_pools)
        fields = [image[name] for name in node.bottoms if name in image]
        seen = [belief[name] for name in node.bottoms if name in belief]
        if not fields:
            continue
        field = fields[0]
        for other in fields[1:]:
            field = field.join(other)
        field = field.through(kernel, stride, dilation)
        maps = seen[0].through(kernel, stride, dilation) if seen else None
        if node.layer.type in ("Convolution", "Pooling"):
            rows.append(
                LayerField(
                    layer=node.layer.name,
                    type=node.layer.type,
                    kernel=kernel,
                    stride=stride,
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
