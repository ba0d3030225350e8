"""Figure 5: magnitudes of the gradients per layer, from input to output, with and without intermediate supervision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat.files import atomic_write
from reproduce.experiments import BINS

from . import training
from .common import save
from .training import Claim, Floats

RUNS = {"with intermediate supervision": "joint-{}", "without": "no-supervision-{}"}


def quantiles(histogram: list[int]) -> Floats:
    """10, 50 and 90 % of log10 |g|, by interpolation in the bins."""
    counts = np.asarray(histogram, np.float64)
    cumulated = np.concatenate([[0], np.cumsum(counts)]) / max(1.0, counts.sum())
    return np.asarray(np.interp([0.1, 0.5, 0.9], cumulated, BINS), np.float64)


def medians(run: Mapping[str, Any], mark: str) -> dict[str, float]:
    """Median of log10 |g| of each convolution's weights, from input to output."""
    return {name: float(quantiles(h)[1]) for name, h in _layers(run, mark).items()}


def _layers(run: Mapping[str, Any], mark: str) -> dict[str, list[int]]:
    """Histogram of each layer's weights, from input to output."""
    return {n.removesuffix("/weight"): h for n, h in run["gradients"].get(mark, {}).items() if n.endswith("/weight")}


def claims(results: Mapping[str, Mapping[str, Any]], stages: int) -> list[Claim]:
    """The paper's statements about Figure 5."""
    text = "without intermediate supervision the gradients vanish towards the input, with it they do not"
    runs = [training.seeds_of(results, name.format(stages)) for name in RUNS.values()]
    if not all(runs) or not all(r[0].get("gradients") for r in runs):
        return [training.absent("5", text, "larger near the input with it", "not trained yet")]
    first = min(runs[0][0]["gradients"], key=int)
    values = [medians(r[0], first)["conv1_stage1"] for r in runs]
    gap = values[0] - values[1]
    ours = f"first layer, first epoch: median |g| 10^{values[0]:.1f} with, 10^{values[1]:.1f} without"
    return [Claim("5", text, "larger near the input with it", ours, "confirmed" if gap > 0.5 else "not confirmed")]


def make(results: Mapping[str, Mapping[str, Any]], out: Path, about: Mapping[str, Any], stages: int = 3) -> list[Path]:
    """Numbers and picture of what there is."""
    runs = {label: training.seeds_of(results, name.format(stages)) for label, name in RUNS.items()}
    kept = {label: r[0] for label, r in runs.items() if r and r[0].get("gradients")}
    if not kept:
        return []
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    marks = sorted({int(m) for run in kept.values() for m in run["gradients"]})
    figure, axes = plt.subplots(len(kept), len(marks), figsize=(2.7 * len(marks) + 0.7, 2.2 * len(kept) + 0.9), squeeze=False,
                                sharey=True, sharex=True)  # fmt: skip
    numbers: dict[str, Any] = {}
    for row, (label, run) in zip(axes, kept.items(), strict=True):
        for axis, mark in zip(row, marks, strict=True):
            layers = _layers(run, str(mark))
            grid = np.array([np.asarray(h, np.float64) / max(1, sum(h)) for h in layers.values()])
            numbers.setdefault(label, {})[str(mark)] = {n: quantiles(h).tolist() for n, h in layers.items()}
            axis.pcolormesh(np.arange(len(layers) + 1), BINS, grid.T, cmap="viridis", rasterized=True)
            axis.plot(np.arange(len(layers)) + 0.5, [quantiles(h)[1] for h in layers.values()], color="w", linewidth=1)
            axis.set_title(f"{label}\niteration {mark + 1}", fontsize=8)
            axis.set_ylim(-12, 1)
            axis.tick_params(labelsize=7)
        row[0].set_ylabel("log10 |gradient|", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("layer, input to output", fontsize=8)
    figure.tight_layout()
    path = out / "fig05"
    save(figure, path)
    with atomic_write(path.with_suffix(".json")) as stream:
        content = {"provenance": dict(about), "log10 of |g|: 10, 50, 90 %": numbers}
        stream.write(json.dumps(content, indent=1).encode())
    return [path.with_suffix(e) for e in (".json", ".png", ".pdf", ".svg")]
