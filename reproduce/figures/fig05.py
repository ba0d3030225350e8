"""Figure 5: magnitudes of the gradients per layer, from input to output, with and without
intermediate supervision.

Rows are epochs, columns are layers on the longest way from the input to the last belief maps, as in
the paper; each panel has the distribution of log10 |g| over a layer's weights for both trainings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat.files import atomic_write
from caffe_compat.network.graph import build
from reproduce.drawing.curves import save
from reproduce.experiments import trained
from reproduce.experiments.lab import BINS
from reproduce.experiments.trained import Claim, Floats
from reproduce.network import netgen

RUNS = {"with intermediate supervision": "joint-{}", "without": "no-supervision-{}"}
_COLOURS = ("#0072B2", "#D55E00")
_COLUMNS = 9
_CENTRES = (BINS[1:] + BINS[:-1]) / 2


def quantiles(histogram: list[int]) -> Floats:
    """10, 50 and 90 % of log10 |g|, by interpolation in the bins."""
    counts = np.asarray(histogram, np.float64)
    cumulated = np.concatenate([[0], np.cumsum(counts)]) / max(1.0, counts.sum())
    return np.asarray(np.interp([0.1, 0.5, 0.9], cumulated, BINS), np.float64)


def spread(histogram: list[int]) -> float:
    """Root mean square of the gradients, from the bins' centres: the width of their distribution
    around zero."""
    counts = np.asarray(histogram, np.float64)
    return float(np.sqrt((counts * 10 ** (2 * _CENTRES)).sum() / max(1.0, counts.sum())))


def way(run: Mapping[str, Any]) -> list[str]:
    """The convolutions on the longest way from the input to the output, in that order."""
    graph = build(netgen.deploy(trained.config(run)))
    paths: dict[str, list[str]] = {}
    for node in graph.nodes:
        longest = max((paths.get(b, []) for b in node.bottoms), key=len, default=[])
        if node.layer.type == "Convolution":
            longest = [*longest, node.layer.name]
        paths |= dict.fromkeys(node.tops, longest)
    return max((paths[name] for name in graph.outputs), key=len)


def _layers(run: Mapping[str, Any], mark: str) -> dict[str, list[int]]:
    """Histogram of each layer's weights, along the longest way."""
    found = run["gradients"].get(mark, {})
    return {n: found[f"{n}/weight"] for n in way(run) if f"{n}/weight" in found}


def medians(run: Mapping[str, Any], mark: str) -> dict[str, float]:
    """Median of log10 |g| of each convolution's weights, from input to output."""
    return {name: float(quantiles(h)[1]) for name, h in _layers(run, mark).items()}


def _pair(results: Mapping[str, Mapping[str, Any]], stages: int) -> dict[str, Mapping[str, Any]]:
    """A training of each kind that has gradients."""
    runs = {label: trained.seeds_of(results, name.format(stages)) for label, name in RUNS.items()}
    return {label: r[0] for label, r in runs.items() if r and r[0].get("gradients")}


def claims(results: Mapping[str, Mapping[str, Any]], stages: int) -> list[Claim]:
    """The paper's statements about Figure 5."""
    vanish = (
        "without intermediate supervision the gradients vanish towards the input, with it "
        "they do not"
    )
    calm = (
        "with intermediate supervision the gradients' spread falls in all layers as the "
        "training converges"
    )
    runs = list(_pair(results, stages).values())
    if len(runs) < 2:
        wanted = {vanish: "larger near the input with it", calm: "falls"}
        return [
            trained.absent("Figure 5", text, said, "not trained yet")
            for text, said in wanted.items()
        ]
    first, last = (str(f(map(int, runs[0]["gradients"]))) for f in (min, max))
    values = [list(medians(r, first).values()) for r in runs]
    lost = [v[-1] - v[0] for v in values]
    gap = values[0][0] - values[1][0]
    ours = (
        f"iteration {int(first) + 1}: median |g| in the first layer 10^{values[0][0]:.1f} with, "
        f"10^{values[1][0]:.1f} without; "
        f"from output to input it loses {lost[0]:.1f} and {lost[1]:.1f} decades"
    )
    verdict = trained.verdict(gap > 0.5 and lost[1] > lost[0] + 0.5)
    found = [
        Claim(
            "Figure 5",
            vanish,
            "larger near the input with it",
            ours,
            verdict,
            "half a decade counts",
        )
    ]
    before, after = ([spread(h) for h in _layers(runs[0], mark).values()] for mark in (first, last))
    falls = sum(a < b for a, b in zip(after, before, strict=True))
    ours = (
        f"falls in {falls} of {len(before)} layers from iteration {int(first) + 1} to "
        f"{int(last) + 1}"
    )
    middle = np.median(np.log10(np.array(after) / np.array(before)))
    verdict = trained.verdict(falls >= 0.9 * len(before))
    found.append(
        Claim(
            "Figure 5",
            calm,
            "falls",
            f"{ours}, by a factor of {10**-middle:.1f} in the middle one",
            verdict,
        )
    )
    return found


def make(
    results: Mapping[str, Mapping[str, Any]],
    out: Path,
    about: Mapping[str, Any],
    stages: int = 3,
    data: Path | None = None,
) -> list[Path]:
    """Numbers and picture of what there is; ``data`` is for Figure 6, which shows released
    predictions beside ours."""
    kept = _pair(results, stages)
    if not kept:
        return []
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    marks = sorted({int(m) for run in kept.values() for m in run["gradients"]})
    layers = way(next(iter(kept.values())))
    places = np.unique(
        np.linspace(0, len(layers) - 1, min(_COLUMNS, len(layers))).round().astype(int)
    )
    size = 1.25 * len(places) + 0.8, 1.25 * len(marks) + 1.1
    figure, axes = plt.subplots(
        len(marks), len(places), figsize=size, squeeze=False, sharex=True, sharey="row"
    )
    numbers: dict[str, Any] = {}
    for (label, run), colour in zip(kept.items(), _COLOURS, strict=False):
        for row, mark in zip(axes, marks, strict=True):
            found = _layers(run, str(mark))
            numbers.setdefault(label, {})[str(mark)] = {
                n: {"log10 |g| at 10, 50, 90 %": quantiles(h).tolist(), "rms": spread(h)}
                for n, h in found.items()
            }
            for axis, place in zip(row, places, strict=True):
                counts = np.asarray(found.get(layers[place], np.zeros(len(BINS) - 1)), np.float64)
                share = 100 * counts / max(1.0, counts.sum())
                axis.fill_between(
                    _CENTRES, share, step="mid", color=colour, alpha=0.35, linewidth=0
                )
                axis.step(_CENTRES, share, where="mid", color=colour, linewidth=0.9, label=label)
                axis.set_xlim(-12, 1)
                axis.set_xticks([-10, -5, 0])
                axis.set_yticks([])
                axis.set_ylim(0)
                axis.tick_params(labelsize=7)
    for axis, place in zip(axes[0], places, strict=True):
        axis.set_title(f"layer {place + 1}\n{layers[place]}", fontsize=7)
    some = next(iter(kept.values()))
    for row, mark in zip(axes, marks, strict=True):
        row[0].set_ylabel(f"epoch {trained.epoch(some, mark)}\niteration {mark + 1}", fontsize=7)
    axes[-1][0].set_xlabel("input →", fontsize=8, loc="left")
    axes[-1][-1].set_xlabel("→ output", fontsize=8, loc="right")
    axes[-1][len(places) // 2].set_xlabel("log10 |gradient|", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()), w_pad=0.3)
    path = out / "fig05"
    save(figure, path)
    with atomic_write(path.with_suffix(".json")) as stream:
        stream.write(
            json.dumps({"provenance": dict(about), "gradients": numbers}, indent=1).encode()
        )
    return [path.with_suffix(e) for e in (".json", ".png", ".pdf", ".svg")]
