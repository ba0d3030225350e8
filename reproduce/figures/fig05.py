"""Figure 5: magnitudes of the gradients per layer, from input to output, with and without
intermediate supervision.

Rows are epochs, columns are layers on the longest way from the input to the last belief maps, as in
the paper; each panel has the distribution of log10 |g| over a layer's weights for both kinds of
training, all seeds together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat.files import write_json
from caffe_compat.network.graph import Graph, build
from reproduce.drawing.curves import NARROW_WIDTH, files_of, narrow_path, narrow_title, save
from reproduce.experiments.results import BINS, Floats, Result
from reproduce.figures import verdicts
from reproduce.figures.verdicts import Claim, Verdict
from reproduce.network import netgen

RUNS = {"with intermediate supervision": "joint-{}", "without": "no-supervision-{}"}
_COLOURS = ("#0072B2", "#D55E00")
_COLUMNS, _NARROW_COLUMNS = 9, 3
HALF_A_DECADE = 0.5
A_DECADE = 1.0  # what is lost on the way to the first layer up to here has not vanished
_CENTRES = (BINS[1:] + BINS[:-1]) / 2


def quantiles(histogram: Sequence[int]) -> Floats:
    """10, 50 and 90 % of log10 |g|, by interpolation in the bins."""
    counts = np.asarray(histogram, np.float64)
    cumulated = np.concatenate([[0], np.cumsum(counts)]) / max(1.0, counts.sum())
    return np.asarray(np.interp([0.1, 0.5, 0.9], cumulated, BINS), np.float64)


def spread(histogram: Sequence[int]) -> float:
    """Root mean square of the gradients, from the bins' centres: the width of their distribution
    around zero."""
    counts = np.asarray(histogram, np.float64)
    return float(np.sqrt((counts * 10 ** (2 * _CENTRES)).sum() / max(1.0, counts.sum())))


@functools.cache
def _graph(config: netgen.CPMConfig) -> Graph:
    return build(netgen.deploy(config))


def way(run: Result) -> list[str]:
    """The convolutions on the longest way from the input to the output, in that order."""
    graph = _graph(run.config)
    paths: dict[str, list[str]] = {}
    for node in graph.nodes:
        longest = max((paths.get(b, []) for b in node.bottoms), key=len, default=[])
        if node.layer.type == "Convolution":
            longest = [*longest, node.layer.name]
        paths |= dict.fromkeys(node.tops, longest)
    return max((paths[name] for name in graph.outputs), key=len)


def _sizes(run: Result) -> dict[str, int]:
    """How many weights each convolution has, by its name."""
    return {
        node.layer.name: math.prod(node.params[0].shape)
        for node in _graph(run.config).nodes
        if node.layer.type == "Convolution"
    }


def _layers(runs: Sequence[Result], mark: str) -> dict[str, list[int]]:
    """Histogram of each convolution's weights, of all seeds together.

    Weights that a result's histogram does not count have a gradient of exactly 0: they stand in
    the lowest bin.
    """
    found = {}
    for name, size in _sizes(runs[0]).items():
        kept = [run.gradients.get(mark, {}).get(f"{name}/weight") for run in runs]
        counted = [np.asarray(one) for one in kept if one is not None]
        if counted:
            total = np.sum(counted, axis=0)
            total[0] += max(0, size * len(counted) - int(total.sum()))
            found[name] = [int(n) for n in total]
    return found


def medians(runs: Sequence[Result], mark: str) -> dict[str, float]:
    """Median of log10 |g| of the convolutions on the longest way, from input to output."""
    found = _layers(runs, mark)
    return {name: float(quantiles(found[name])[1]) for name in way(runs[0]) if name in found}


def changes(runs: Sequence[Result], first: str, last: str) -> dict[str, float]:
    """By what factor the spread of each convolution's gradients changed from one iteration to
    another; of several seeds, the largest."""
    found: dict[str, float] = {}
    for run in runs:
        before, after = _layers([run], first), _layers([run], last)
        for name in before.keys() & after.keys():
            ratio = spread(after[name]) / spread(before[name])
            found[name] = max(found.get(name, 0.0), ratio)
    return {name: found[name] for name in _sizes(runs[0]) if name in found}


def _pair(results: Mapping[str, Result], stages: int) -> dict[str, list[Result]]:
    """The trainings of each kind that have gradients: all their seeds."""
    runs = {label: verdicts.seeds_of(results, n.format(stages)) for label, n in RUNS.items()}
    kept = {label: [run for run in found if run.gradients] for label, found in runs.items()}
    return {label: found for label, found in kept.items() if found}


def _marks(pair: Mapping[str, Sequence[Result]]) -> list[int]:
    """The iterations, from 0, at which all trainings have gradients."""
    every = [set(map(int, run.gradients)) for runs in pair.values() for run in runs]
    return sorted(set.intersection(*every))


def vanishing(first_layer: float, with_lost: float, without_lost: float) -> Verdict:
    """Whether the gradients vanish without intermediate supervision and do not with it.

    Parameters
    ----------
    first_layer : by how many decades the median in the first layer is larger with it.
    with_lost, without_lost : decades from the last layer to the first, with it and without.
    """
    decades = (first_layer, without_lost - with_lost)
    arrive: Verdict = "confirmed" if with_lost <= A_DECADE else "contradicted"
    return verdicts.together([arrive, *(verdicts.ahead(value, HALF_A_DECADE) for value in decades)])


def claims(results: Mapping[str, Result], stages: int) -> list[Claim]:
    """The paper's statements about Figure 5."""
    vanish = (
        "without intermediate supervision the gradients vanish towards the input, with it "
        "they do not"
    )
    calm = (
        "with intermediate supervision the gradients' spread falls in all layers as the "
        "training converges"
    )
    pair = _pair(results, stages)
    marks = _marks(pair) if len(pair) == len(RUNS) else []
    if not marks:
        wanted = {vanish: "larger near the input with it", calm: "falls"}
        return [
            verdicts.absent("Figure 5", text, said, "not trained yet")
            for text, said in wanted.items()
        ]
    first, last = str(marks[0]), str(marks[-1])
    supervised, bare = pair.values()
    values = [list(medians(runs, first).values()) for runs in (supervised, bare)]
    lost = [v[-1] - v[0] for v in values]
    ours = (
        f"iteration {int(first) + 1}: median |g| in the first layer 10^{values[0][0]:.1f} with, "
        f"10^{values[1][0]:.1f} without; "
        f"from output to input it changes by {-lost[0]:+.1f} and {-lost[1]:+.1f} decades"
    )
    verdict = vanishing(values[0][0] - values[1][0], *lost)
    seeds = f"{len(supervised)} and {len(bare)} trainings with and without"
    why = (
        "half a decade counts, in the first layer and on the way to it; with it no more than a "
        f"decade may be lost there; {seeds}"
    )
    found = [Claim("Figure 5", vanish, "larger near the input with it", ours, verdict, why)]
    ratios = changes(supervised, first, last)
    falls = sum(ratio < 1 for ratio in ratios.values())
    ours = (
        f"falls in {falls} of {len(ratios)} layers from iteration {int(first) + 1} to "
        f"{int(last) + 1}, by a factor of {1 / float(np.median(list(ratios.values()))):.1f} in the "
        "middle one"
    )
    grown = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio >= 1]
    if grown:
        ours += f"; after ÷ before: {', '.join(grown)}"
    why = (
        "confirmed where it falls in all convolutions, contradicted where it grows by a tenth in "
        f"one; of {len(supervised)} trainings the worst counts"
    )
    verdict = verdicts.all_fall(list(ratios.values()))
    return [*found, Claim("Figure 5", calm, "falls", ours, verdict, why)]


def make(
    results: Mapping[str, Result],
    out: Path,
    about: Mapping[str, Any],
    stages: int = 3,
    data: Path | None = None,
) -> list[Path]:
    """Numbers and picture of what there is; ``data`` is for Figure 6 alone."""
    kept = _pair(results, stages)
    if not kept:
        return []
    marks = _marks(kept)
    if not marks:
        return []
    numbers = {
        label: {
            str(mark): {
                n: {"log10 |g| at 10, 50, 90 %": quantiles(h).tolist(), "rms": spread(h)}
                for n, h in _layers(runs, str(mark)).items()
            }
            for mark in marks
        }
        for label, runs in kept.items()
    }
    path = out / "fig05"
    save(_compose(kept, marks, _COLUMNS), path)
    save(_compose(kept, marks, _NARROW_COLUMNS, narrow=True), narrow_path(path), ("svg",))
    write_json(path.with_suffix(".json"), {"provenance": dict(about), "gradients": numbers})
    return files_of(path, numbers=(".json",))


def _compose(
    kept: Mapping[str, Sequence[Result]],
    marks: Sequence[int],
    columns: int,
    *,
    narrow: bool = False,
) -> Any:
    """The histograms of some layers (columns) at some moments (rows); ``narrow`` for a phone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    some = next(iter(kept.values()))[0]
    layers = way(some)
    places = np.unique(
        np.linspace(0, len(layers) - 1, min(columns, len(layers))).round().astype(int)
    )
    width = NARROW_WIDTH if narrow else 1.25 * len(places) + 0.9
    head = 0.95 if narrow else 0.6  # inches above the histograms
    height = 1.25 * len(marks) + 1.0 + head
    figure, axes = plt.subplots(
        len(marks), len(places), figsize=(width, height), squeeze=False, sharex=True, sharey="row"
    )
    shown_layers = [layers[place] for place in places]
    for (label, runs), colour in zip(kept.items(), _COLOURS, strict=False):
        for row, mark in zip(axes, marks, strict=True):
            _draw_histograms(row, _layers(runs, str(mark)), shown_layers, label, colour)
    for axis in axes.ravel():
        # every bin is shown, also the lowest one with the gradients that are exactly 0
        axis.set_xlim(float(BINS[0]), float(BINS[-1]))
        axis.set_xticks([-12, -8, -4, 0])
        axis.set_ylim(0, None)
        axis.margins(y=0.08)
        axis.locator_params(axis="y", nbins=3)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis, place in zip(axes[0], places, strict=True):
        axis.set_title(f"layer {place + 1}\n{layers[place]}", fontsize=7)
    for row, mark in zip(axes, marks, strict=True):
        moment = f"epoch {some.epoch(mark)}\niteration {mark + 1}"
        row[0].set_ylabel(f"{moment}\n% of weights", fontsize=7)
    what = "log10 |gradient|, exactly 0 at the left edge; layers from the input to the output"
    figure.supxlabel(narrow_title(what) if narrow else what, fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    shown = {run.experiment: run for runs in kept.values() for run in runs}
    title = verdicts.title(shown, "Gradients by layer")
    figure.suptitle(narrow_title(title) if narrow else title, fontsize=9 if narrow else 10)
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - (0.45 if narrow else 0.42) / height),
        ncol=1 if narrow else 2,
        fontsize=8,
        frameon=False,
    )
    # the title's own room is added to this
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.4 if narrow else 0.25) / height), w_pad=0.3)
    return figure


def _draw_histograms(
    axes: Sequence[Any],
    histograms: Mapping[str, Sequence[int]],
    layers: Sequence[str],
    label: str,
    colour: str,
) -> None:
    """The histograms of some layers, a panel for each, in percent of a layer's weights."""
    for axis, layer in zip(axes, layers, strict=True):
        counts = np.asarray(histograms.get(layer, np.zeros(len(_CENTRES))), np.float64)
        share = 100 * counts / max(1.0, counts.sum())
        axis.fill_between(_CENTRES, share, step="mid", color=colour, alpha=0.35, linewidth=0)
        axis.step(_CENTRES, share, where="mid", color=colour, linewidth=0.9, label=label)
