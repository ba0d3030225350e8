"""What all figures share: colours of methods, curves, files with provenance."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.files import atomic_write, csv_cell, write_csv, write_json

Floats = npt.NDArray[np.float64]

# Okabe and Ito's colours, safe for the colour-blind; ours are always the first two
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
# The edition for a phone: inches, and characters of a line of its title.
NARROW_WIDTH, _NARROW_TITLE = 3.7, 50
# How a published number is drawn.
_MARK: dict[str, Any] = {
    "marker": "D",
    "markersize": 5,
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "linestyle": "",
    "zorder": 6,
}
_FIXED = {"CPM (MPII + LSP)": 0, "CPM (LSP)": 1, "CPM": 0, "CPM (FLIC)": 0}
# a place in this list is a colour and a dash: the same method looks alike in every figure
_METHODS = (
    "Newell",
    "Chen",
    "Tompson",
    "Yang",
    "MODEC",
    "Sapp",
    "Bulat",
    "Insafutdinov",
    "Pishchulin et al., CVPR",
    "Lifshitz",
    "Belagiannis",
    "Yu",
    "Rafi",
    "Fan",
    "Pishchulin et al., ICCV",
    "Wang",
    "Chu",
    "Ouyang",
    "Kiefel",
    "Fu",
    "Ramakrishna",
)


@dataclass(frozen=True)
class Curve:
    """A method's curve in one panel.

    Attributes
    ----------
    label : the method.
    x, y : (n,) thresholds (or whatever the figure varies), and percent.
    """

    label: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Mark:
    """A published number at a place of a panel.

    Attributes
    ----------
    x, y : the place, in the panel's units.
    label : what the legend says of it.
    """

    x: float
    y: float
    label: str = "the paper"


def styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A line style per method: the same in every panel, by label, ours thick and in fixed
    colours."""
    found: dict[str, dict[str, Any]] = {}
    unknown = sorted(label for label in labels if label not in _FIXED and _place(label) < 0)
    for label in labels:
        if label in _FIXED:
            found[label] = {
                "color": _COLOURS[_FIXED[label]],
                "linewidth": 2.4,
                "linestyle": "-",
                "zorder": 5,
            }
    for label in labels:
        if label in found:
            continue
        i = _place(label) if _place(label) >= 0 else len(_METHODS) + unknown.index(label)
        colour = _COLOURS[2 + i % (len(_COLOURS) - 2)]
        dash = _DASHES[(i // (len(_COLOURS) - 2)) % len(_DASHES)]
        found[label] = {"color": colour, "linewidth": 1.2, "linestyle": dash}
    return found


def _place(label: str) -> int:
    """A known method's place in the list; -1 for others."""
    return next((i for i, name in enumerate(_METHODS) if label.startswith(name)), -1)


def draw(
    panels: Mapping[str, Sequence[Curve]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    columns: int,
    at: float,
    title: str = "",
    own_legends: bool = False,
    points: bool = False,
    marks: Mapping[str, Sequence[Mark]] | None = None,
    line: tuple[float, str] | None = None,
) -> None:
    """Panels of curves with one legend below; PNG, PDF and SVG, and ``PATH_narrow.svg`` for a
    phone: as wide as one, panels below each other.

    Parameters
    ----------
    panels : title -> curves.
    path : of the files, with any ending.
    xlabel, ylabel : of the axes.
    columns : how many panels stand beside each other; on a phone fewer.
    at : threshold whose percentage stands in the legend of the first panel.
    own_legends : the panels show different methods, each has its legend.
    points : a few measured places: they are marked and have their values beside them, there is no
        legend.
    marks : published numbers of a panel, drawn as open diamonds.
    line : x and text of a vertical line in all panels.
    """
    for narrow in (False, True):
        figure = _compose(
            panels,
            xlabel=xlabel,
            ylabel=ylabel,
            columns=columns,
            at=at,
            title=title,
            own_legends=own_legends,
            points=points,
            marks=marks,
            line=line,
            narrow=narrow,
        )
        if narrow:
            save(figure, narrow_path(path), ("svg",))
        else:
            save(figure, path)


def narrow_title(title: str) -> str:
    """A title in lines that fit the edition for a phone."""
    return "\n".join(textwrap.fill(line, _NARROW_TITLE) for line in title.splitlines())


def files_of(path: Path, numbers: Sequence[str] = (".json", ".csv")) -> list[Path]:
    """The files of a figure: its numbers and its pictures, the edition for a phone at last."""
    pictures = (".png", ".pdf", ".svg")
    whole = [path.with_suffix(ending) for ending in (*numbers, *pictures)]
    return [*whole, narrow_path(path.with_suffix(".svg"))]


def narrow_path(path: Path) -> Path:
    """Where a figure's edition for a phone is."""
    return path.with_name(f"{path.stem}_narrow{path.suffix}")


def _compose(
    panels: Mapping[str, Sequence[Curve]],
    *,
    xlabel: str,
    ylabel: str,
    columns: int,
    at: float,
    title: str = "",
    own_legends: bool = False,
    points: bool = False,
    marks: Mapping[str, Sequence[Mark]] | None = None,
    line: tuple[float, str] | None = None,
    narrow: bool = False,
) -> Any:
    """The figure of :func:`draw`; see there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    marks = marks or {}
    first = next(iter(panels.values()))
    look = _look_by_panel(panels) if own_legends else styles([c.label for c in first])
    width = (2.5 if columns > 2 else 3.2) * columns + 0.6
    legend_columns = 3 if columns > 2 else 2
    if narrow:
        columns = 2 if columns > 2 and not own_legends else 1
        width, legend_columns = NARROW_WIDTH, 1
        title = narrow_title(title)
    rows = -(-len(panels) // columns)
    entries = -(-(len(first) + len(_mark_entries(marks))) // legend_columns)
    below = 0.0 if own_legends or points else 0.17 * entries + 0.35
    longest = max(len(curves) for curves in panels.values())
    height = (2.9 + 0.17 * longest if own_legends else 2.5) * rows + below + 0.15
    height += 0.25 * (title.count("\n") + 1) if title else 0.0
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for axis, (name, curves) in zip(axes.ravel(), panels.items(), strict=False):
        _draw_panel(axis, curves, marks.get(name, ()), look, line, points=points)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(xlabel, fontsize=8)
        if not points:
            axis.set_xlim(float(first[0].x[0]), float(first[0].x[-1]))
        if own_legends:
            shown = _curve_entries(curves, at, look) + _mark_entries({name: marks.get(name, ())})
            _legend_below(axis, shown, f"@{at:g}")
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel(ylabel, fontsize=8)
    if not own_legends and not points:
        figure.legend(
            handles=_curve_entries(first, at, look) + _mark_entries(marks),
            loc="lower center",
            ncol=legend_columns,
            fontsize=7,
            frameon=False,
            title=f"{next(iter(panels))} @{at:g}",
            title_fontsize=8,
        )
    if title:
        figure.suptitle(title, fontsize=9 if narrow else 11)
    figure.tight_layout(rect=(0, below / height, 1, 1))
    return figure


def _draw_panel(
    axis: Any,
    curves: Sequence[Curve],
    marks: Sequence[Mark],
    look: Mapping[str, Mapping[str, Any]],
    line: tuple[float, str] | None,
    *,
    points: bool,
) -> None:
    """What is in a panel; ``line`` and ``points`` are those of :func:`draw`."""
    for curve in curves:
        axis.plot(curve.x, curve.y, marker="o" if points else None, **look[curve.label])
    for mark in marks:
        axis.plot(mark.x, mark.y, **_MARK, label=mark.label, clip_on=False)
    if line is not None:
        _draw_line(axis, *line)
    axis.set_ylim(0, 100)
    if points:
        _write_values(axis, curves)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", nbins=5)


def _look_by_panel(panels: Mapping[str, Sequence[Curve]]) -> dict[str, dict[str, Any]]:
    """A line style per method where panels show different methods: by its place in its panel."""
    return {
        c.label: {"color": _COLOURS[i % 7], "linestyle": _DASHES[i // 7], "linewidth": 1.6}
        for curves in panels.values()
        for i, c in enumerate(curves)
    }


def _draw_line(axis: Any, x: float, text: str) -> None:
    """A vertical line, and what it means."""
    axis.axvline(x, color="#666", linestyle=":", linewidth=1)
    # on the left of the line there is room: the curve is above it
    axis.annotate(
        text,
        (x, 0.03),
        (-3, 0),
        ha="right",
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=7,
        color="#444",
    )


def _write_values(axis: Any, curves: Sequence[Curve]) -> None:
    """The value of each measured place above it, and room for them."""
    axis.margins(x=0.12)
    axis.set_ylim(0, 1.25 * max(float(c.y.max()) for c in curves))
    for curve in curves:
        for x, y in zip(curve.x, curve.y, strict=True):
            axis.annotate(
                f"{y:.1f}",
                (x, y),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                # where the curve is steep it would run through the number
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )


def _legend_below(axis: Any, handles: list[Any], heading: str) -> None:
    """A panel's own legend, below its x axis."""
    from matplotlib.transforms import offset_copy

    axis.legend(
        handles=handles,
        fontsize=7,
        title=heading,
        title_fontsize=7.5,
        loc="upper center",
        frameon=False,
        bbox_to_anchor=(0.5, 0),
        bbox_transform=offset_copy(axis.transAxes, axis.figure, y=-0.42),
    )


def _curve_entries(
    curves: Sequence[Curve], at: float, look: Mapping[str, Mapping[str, Any]]
) -> list[Any]:
    """A legend's entries of curves, each with its percentage at a threshold."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label=f"{c.label}  {np.interp(at, c.x, c.y):.1f}", **look[c.label])
        for c in curves
    ]


def _mark_entries(marks: Mapping[str, Sequence[Mark]]) -> list[Any]:
    """A legend's entries of published numbers, one for each label."""
    from matplotlib.lines import Line2D

    labels = dict.fromkeys(mark.label for found in marks.values() for mark in found)
    return [Line2D([], [], **_MARK, label=label) for label in labels]


def save(figure: Any, path: Path, endings: Sequence[str] = ("png", "pdf", "svg")) -> None:
    """A matplotlib figure as PNG, PDF and SVG; it is closed."""
    import matplotlib.pyplot as plt

    for ending in endings:
        buffer = io.BytesIO()
        # text stays text: it can be searched and read out
        with plt.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}):
            figure.savefig(buffer, format=ending, dpi=150)
        with atomic_write(path.with_suffix(f".{ending}")) as stream:
            stream.write(buffer.getvalue())
    plt.close(figure)


def write_numbers(
    panels: Mapping[str, Sequence[Curve]], path: Path, about: Mapping[str, Any]
) -> None:
    """JSON and CSV of all curves.

    Parameters
    ----------
    panels : title -> curves.
    path : of the files, with any ending.
    about : where the numbers come from.
    """
    content = {
        "provenance": dict(about),
        "panels": {
            n: {c.label: {"x": c.x.tolist(), "y": c.y.tolist()} for c in curves}
            for n, curves in panels.items()
        },
    }
    write_json(path.with_suffix(".json"), content)
    rows = [
        (csv_cell(name), csv_cell(c.label), f"{x:g}", f"{y:.4f}")
        for name, curves in panels.items()
        for c in curves
        for x, y in zip(c.x, c.y, strict=True)
    ]
    write_csv(path.with_suffix(".csv"), [("panel", "method", "threshold", "percent"), *rows])
