"""``caffe.draw``: pictures of definitions.

A box is a layer, with the layers that work in place on its top inside the same box; an arrow is a
blob. Nothing but matplotlib is needed. The same graph can be written in the language of graphviz
(``.dot``).

>>> from caffe_compat.definition.prototxt import read_net
>>> draw_net_to_file(read_net("net.prototxt").to_message(), "net.png")  # doctest: +SKIP

Source: ``caffe/draw.py`` of BVLC Caffe (the interface).
"""

from __future__ import annotations

import io as streams
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import net_from_message
from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import atomic_write

FORMATS = ("png", "svg", "pdf", "dot")
_DIRECTIONS = ("LR", "TB", "RL", "BT")
_FONT = 9.0  # points
_LINE = 12.0  # height of a line of text, in points
_GAP, _WAY = 18.0, 46.0  # between boxes side by side, and between one row of boxes and the next
_MOST_PIXELS = 30_000
_COLOURS = (
    (("Convolution", "Deconvolution", "ConvolutionDepthwise"), "#f4b8a8"),
    (("Pooling", "ROIPooling", "PSROIPooling", "Upsample", "Interp"), "#f6d89a"),
    (("InnerProduct", "LSTM", "RNN", "Embed"), "#cdb8e8"),
    (("Input", "DummyData"), "#c9d6df"),
)


@dataclass
class _Box:
    """A layer with those that work in place on its tops; or a bend of a long arrow, without text.

    Attributes
    ----------
    lines : of text.
    colour : of the box.
    rank : how far from the data.
    x, y : centre, y downwards.
    width, height : in points.
    """

    lines: list[str] = field(default_factory=list)
    colour: str = ""
    rank: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        return max((len(line) for line in self.lines), default=0) * _FONT * 0.62 + 12

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 8


@dataclass
class _Arrow:
    source: _Box
    target: _Box
    blob: str
    bends: list[_Box] = field(default_factory=list)


# ------------------------------------------------------------ what is said


def get_layer_label(layer: Any, display_lrm: bool = False) -> list[str]:
    """What stands in a layer's box: name and type, and the sizes that matter.

    Parameters
    ----------
    layer : a ``LayerParameter``.
    display_lrm : also the ``lr_mult`` of its parameters, where the definition gives them.
    """
    lines = [layer.name, f"({layer.type})"]
    if layer.type in ("Convolution", "Deconvolution", "ConvolutionDepthwise"):
        o = layer.convolution_param
        lines.append(f"{o.num_output} × {_size(o, 'kernel_size', 'kernel', '')}")
        lines.append(_steps(o, list(o.stride), list(o.pad)))
    elif layer.type == "Pooling":
        o = layer.pooling_param
        kernel = "whole" if o.global_pooling else _size(o, "kernel_size", "kernel", "")
        lines.append(f"{schema.enum_name(o, 'pool')} {kernel}")
        lines.append(_steps(o, [o.stride], [o.pad]))
    elif layer.type == "InnerProduct":
        lines.append(f"{layer.inner_product_param.num_output} outputs")
    elif layer.type == "Eltwise":
        lines.append(schema.enum_name(layer.eltwise_param, "operation"))
    if display_lrm:
        lines.append(_rates(layer))
    return [line for line in lines if line]


def _rates(layer: Any) -> str:
    """The ``lr_mult`` of a layer's parameters; empty where the definition gives none."""
    rates = ", ".join(f"{param.lr_mult:g}" for param in layer.param)
    return rates and f"lr_mult {rates}"


def _size(options: Any, name: str, stem: str, default: str) -> str:
    if options.HasField(f"{stem}_h") or options.HasField(f"{stem}_w"):
        return f"{getattr(options, f'{stem}_h')}×{getattr(options, f'{stem}_w')}"
    given = getattr(options, name)
    sizes = list(given) if hasattr(given, "extend") else [given]
    return "×".join(str(size) for size in (sizes * 2 if len(sizes) == 1 else sizes)) or default


def _steps(options: Any, stride: list[int], pad: list[int]) -> str:
    strides = _size(options, "stride", "stride", "")
    pads = _size(options, "pad", "pad", "")
    said = []
    if options.HasField("stride_h") or any(s != 1 for s in stride):
        said.append(f"stride {strides if options.HasField('stride_h') else stride[0]}")
    if options.HasField("pad_h") or any(pad):
        said.append(f"pad {pads if options.HasField('pad_h') else pad[0]}")
    return ", ".join(said)


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    if layertype.endswith("Data"):
        return "#c9d6df"
    if "Loss" in layertype or layertype in ("Accuracy", "Softmax", "ArgMax"):
        return "#b9dcae"
    return next((colour for types, colour in _COLOURS if layertype in types), "#d7e6f5")


# ------------------------------------------------------------ the graph


def _graph(net: Any, phase: int | None, rates: bool) -> tuple[list[_Box], list[_Arrow]]:
    message = schema.new("NetParameter")
    message.CopyFrom(net)
    spec = net_from_message(message)
    if phase is not None:
        spec = spec.filter({0: "TRAIN", 1: "TEST"}[phase])
    boxes: list[_Box] = []
    arrows: list[_Arrow] = []
    makers: dict[str, _Box] = {}
    for layer in spec.layers:
        lines = get_layer_label(layer.message, rates)
        inside = bool(layer.bottoms) and layer.tops == layer.bottoms and layer.tops[0] in makers
        if inside:
            said = [*lines[:2], _rates(layer.message) if rates else ""]
            makers[layer.tops[0]].lines.append(" ".join(said).rstrip())
            continue
        box = _Box(lines, choose_color_by_layertype(layer.type))
        boxes.append(box)
        for blob in layer.bottoms:
            if blob in makers:
                arrows.append(_Arrow(makers[blob], box, blob))
        makers.update((blob, box) for blob in layer.tops)
    return boxes, arrows


def _set_ranks(boxes: Sequence[_Box], arrows: Sequence[_Arrow]) -> None:
    """Boxes stand in the order of the file, which makes one pass enough."""
    into: dict[int, list[_Arrow]] = {}
    for arrow in arrows:
        into.setdefault(id(arrow.target), []).append(arrow)
    for box in boxes:
        box.rank = max((a.source.rank + 1 for a in into.get(id(box), ())), default=0)
    # what needs no data stands right before its first reader
    readers: dict[int, int] = {}
    for arrow in arrows:
        ranks = readers.get(id(arrow.source), arrow.target.rank)
        readers[id(arrow.source)] = min(ranks, arrow.target.rank)
    for box in boxes:
        if id(box) not in into and id(box) in readers:
            box.rank = readers[id(box)] - 1


def _layout(boxes: list[_Box], arrows: list[_Arrow], across: bool) -> tuple[float, float]:
    """Give every box its place.

    Parameters
    ----------
    across : ranks go from left to right, else downwards.

    Returns
    -------
    (width, height) of the picture in points.
    """
    _set_ranks(boxes, arrows)
    rows: list[list[_Box]] = [[] for _ in range(max((b.rank for b in boxes), default=0) + 1)]
    for box in boxes:
        rows[box.rank].append(box)
    near: dict[int, list[_Box]] = {id(box): [] for box in boxes}
    for arrow in arrows:
        arrow.bends = [_Box(rank=r) for r in range(arrow.source.rank + 1, arrow.target.rank)]
        way = [arrow.source, *arrow.bends, arrow.target]
        for bend in arrow.bends:
            near[id(bend)] = []
            rows[bend.rank].append(bend)
        for one, other in pairwise(way):
            near[id(one)].append(other)
            near[id(other)].append(one)

    def side(box: _Box) -> float:  # along the row
        return (box.height if across else box.width) if box.lines else 4.0

    place = {id(box): float(i) * 40 for row in rows for i, box in enumerate(row)}
    for sweep in range(24):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wish = {
                id(b): sum(place[id(n)] for n in near[id(b)]) / len(near[id(b)])
                if near[id(b)]
                else place[id(b)]
                for b in row
            }
            row.sort(key=lambda b: wish[id(b)])
            _spread(row, wish, place, side)
    lowest = min(place[id(b)] - side(b) / 2 for b in boxes) if boxes else 0.0
    depth = 20.0
    for row in rows:
        thick = max((b.width if across else b.height for b in row if b.lines), default=10.0)
        for box in row:
            along, down = place[id(box)] - lowest + 20, depth + thick / 2
            box.x, box.y = (down, along) if across else (along, down)
        depth += thick + _WAY
    end = max((place[id(b)] + side(b) / 2 for b in boxes), default=0.0) - lowest + 40
    return (depth - _WAY + 20, end) if across else (end, depth - _WAY + 20)


def _spread(row: list[_Box], wish: dict[int, float], place: dict[int, float], side: Any) -> None:
    """As near to the wishes as boxes without overlap can be: groups that touch move as one."""
    groups: list[tuple[float, float, list[_Box]]] = []  # (wished begin, extent, boxes)
    for box in row:
        extent = side(box) + _GAP
        groups.append((wish[id(box)] - extent / 2, extent, [box]))
        while len(groups) > 1 and groups[-2][0] + groups[-2][1] > groups[-1][0]:
            (b0, e0, m0), (b1, e1, m1) = groups[-2:]
            n0, n1 = len(m0), len(m1)
            begin = (b0 * n0 + (b1 - e0) * n1) / (n0 + n1)
            groups[-2:] = [(begin, e0 + e1, m0 + m1)]
    for begin, _, members in groups:
        at = begin
        for box in members:
            extent = side(box) + _GAP
            place[id(box)] = at + extent / 2
            at += extent


# ------------------------------------------------------------ output


def _paint(net: Any, rankdir: str, phase: int | None, rates: bool, kind: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    boxes, arrows = _graph(net, phase, rates)
    across = rankdir in ("LR", "RL")
    leftwards, upwards = rankdir == "RL", rankdir == "BT"
    width, height = _layout(boxes, arrows, across)
    width, height = max(width, 72.0), max(height, 72.0)
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    # the layout runs right or down; a reversed axis mirrors it, and leaves the letters as they are
    axes.set_xlim(*((width, 0) if leftwards else (0, width)))
    axes.set_ylim(*((0, height) if upwards else (height, 0)))
    axes.axis("off")
    for arrow in arrows:
        points, codes = _curve(arrow, across)
        path = Path(points, [getattr(Path, code) for code in codes])
        axes.add_patch(PathPatch(path, fill=False, edgecolor="#888888", linewidth=0.9))
        x1, y1 = points[-1]
        axes.annotate(
            "",
            (x1, y1),
            (x1 - 0.1, y1) if across else (x1, y1 - 0.1),
            arrowprops={"arrowstyle": "-|>", "color": "#888888", "lw": 0.9},
        )
        if arrow.blob != arrow.source.lines[0]:
            x, y = points[0]
            where = (x + 3, y - 3) if across else (x + 3, y + 8)
            side = "right" if leftwards else "left"
            axes.text(*where, arrow.blob, fontsize=6, color="#555555", ha=side)
    for box in boxes:
        corner = (box.x - box.width / 2, box.y - box.height / 2)
        style = FancyBboxPatch(
            corner,
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=4",
            facecolor=box.colour,
            edgecolor="#555555",
            linewidth=0.8,
        )
        axes.add_patch(style)
        for number, line in enumerate(box.lines):
            below = (number - (len(box.lines) - 1) / 2) * _LINE
            y = box.y - below if upwards else box.y + below
            weight = "bold" if number == 0 else "normal"
            axes.text(
                box.x, y, line, fontsize=_FONT - 1, ha="center", va="center", fontweight=weight
            )
    target = streams.BytesIO()
    dots = min(110.0, _MOST_PIXELS * 72 / max(width, height))
    figure.savefig(target, format=kind, dpi=dots, facecolor="white")
    return target.getvalue()


def _curve(arrow: _Arrow, across: bool) -> tuple[list[tuple[float, float]], list[str]]:
    """A smooth line from box to box by its bends."""
    a, b = arrow.source, arrow.target
    if across:
        ends = [(a.x + a.width / 2, a.y), *((p.x, p.y) for p in arrow.bends)]
        ends.append((b.x - b.width / 2, b.y))
    else:
        ends = [(a.x, a.y + a.height / 2), *((p.x, p.y) for p in arrow.bends)]
        ends.append((b.x, b.y - b.height / 2))
    points, codes = [ends[0]], ["MOVETO"]
    for (x0, y0), (x1, y1) in pairwise(ends):
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        bends = ((middle[0], y0), (middle[0], y1)) if across else ((x0, middle[1]), (x1, middle[1]))
        points += [*bends, (x1, y1)]
        codes += ["CURVE4"] * 3
    return points, codes


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _dot(net: Any, rankdir: str, phase: int | None, rates: bool) -> Iterator[str]:
    boxes, arrows = _graph(net, phase, rates)
    number = {id(box): f"layer{i}" for i, box in enumerate(boxes)}
    yield f"digraph {_quoted(net.name or 'Net')} {{"
    yield f"  rankdir={rankdir};"
    yield '  node [shape=box, style="rounded,filled", fontname="sans"];'
    for box in boxes:
        label = _quoted("\n".join(box.lines))
        yield f"  {number[id(box)]} [label={label}, fillcolor={_quoted(box.colour)}];"
    for arrow in arrows:
        label = f" [label={_quoted(arrow.blob)}]" if arrow.blob != arrow.source.lines[0] else ""
        yield f"  {number[id(arrow.source)]} -> {number[id(arrow.target)]}{label};"
    yield "}"


def draw_net(
    caffe_net: Any,
    rankdir: str = "LR",
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """A picture of a definition.

    Parameters
    ----------
    caffe_net : a ``NetParameter`` of any age.
    rankdir : LR, from left to right, TB, downwards, RL, to the left, or BT, upwards.
    ext : png, svg, pdf, or dot (graphviz's language).
    phase : ``caffe.TRAIN`` or ``caffe.TEST``: only the layers of this phase; default: all.
    display_lrm : also the ``lr_mult`` of each layer's parameters.

    Returns
    -------
    The content of the file.

    Raises
    ------
    CaffeCompatError : another direction or format.
    """
    if rankdir not in _DIRECTIONS:
        raise CaffeCompatError(f"direction '{rankdir}': expected one of {', '.join(_DIRECTIONS)}")
    kind = ext.removeprefix(".").lower()
    if kind not in FORMATS:
        raise CaffeCompatError(f"format '{ext}': expected one of {', '.join(FORMATS)}")
    if kind == "dot":
        return ("\n".join(_dot(caffe_net, rankdir, phase, display_lrm)) + "\n").encode()
    return _paint(caffe_net, rankdir, phase, display_lrm, kind)


def draw_net_to_file(
    caffe_net: Any,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write a picture of a definition; the file's ending says the format.

    Parameters
    ----------
    caffe_net, rankdir, phase, display_lrm : as for :func:`draw_net`.

    Raises
    ------
    CaffeCompatError : an ending that is none of .png, .svg, .pdf, .dot; see :func:`draw_net`.
    """
    content = draw_net(caffe_net, rankdir, os.path.splitext(filename)[1], phase, display_lrm)
    with atomic_write(filename) as target:
        target.write(content)
