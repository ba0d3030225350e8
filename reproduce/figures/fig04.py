"""Figure 4: accuracy against the size of the receptive field, one-stage networks with about the
same number of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat.network.graph import build
from reproduce.drawing.curves import Curve, draw, write_numbers
from reproduce.experiments import trained
from reproduce.experiments.trained import Claim
from reproduce.network import netgen, receptive


def fields(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, float, str]]:
    """(receptive field in input pixels, PCK@0.2, experiment), by size; the field is computed from
    the graph."""
    found = []
    for name, run in results.items():
        if not (name == "joint-1" or name.startswith("kernel-")) or "-seed" in name:
            continue
        graph = build(netgen.deploy(trained.config(run)))
        found.append(
            (
                receptive.stages(graph)[0][1].size,
                trained.at(trained.seeds_of(results, name), 0.2),
                name,
            )
        )
    return sorted(found)


def claims(results: Mapping[str, Mapping[str, Any]], stages: int) -> list[Claim]:
    """The paper's statement about Figure 4."""
    text = "accuracy grows with the receptive field and saturates"
    points = fields(results)
    if len(points) < 4:
        why = f"{len(points)} of 5 networks trained"
        return [trained.absent("Figure 4", text, "grows, saturates near 250 of 304 px", why)]
    sizes, values = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    first, last = (trained.seeds_of(results, points[i][2]) for i in (0, -1))
    grows = values[-1] - values[0] > trained.margin(results, first, last)
    saturates = abs(values[-1] - values[-2]) < abs(values[1] - values[0])
    ours = ", ".join(f"{s} px {v:.1f}" for s, v in zip(sizes, values, strict=True))
    side = trained.config(first[0]).input_size
    best = int(values.argmax())
    widths = [trained.config(results[points[i][2]]).towers[-1] for i in (best, -1)]
    why = (
        f"input of {side} px; confirmed where the last is above the first and the last step "
        "smaller than the first step"
    )
    if best != len(points) - 1:
        why += (
            f"; here it is best at {sizes[best]} px and falls beyond: with equal parameters "
            f"conv3 has {widths[0]} channels "
            f"there, {widths[1]} at {sizes[-1]} px"
        )
    why += f". {trained.noise_text(results)}"
    return [
        Claim(
            "Figure 4",
            text,
            "grows, saturates near 250 of 304 px",
            ours,
            trained.verdict(grows and saturates),
            why,
        )
    ]


def make(
    results: Mapping[str, Mapping[str, Any]],
    out: Path,
    about: Mapping[str, Any],
    stages: int = 3,
    data: Path | None = None,
) -> list[Path]:
    """Numbers and picture of what there is; ``data`` is for Figure 6, which shows released
    predictions beside ours."""
    points = fields(results)
    if not points:
        return []
    line = Curve(
        "one stage, about equal parameters",
        np.array([p[0] for p in points], float),
        np.array([p[1] for p in points]),
    )
    path = out / "fig04"
    panels = {"PCK@0.2 on Leeds Sports Pose, one stage": [line]}
    write_numbers(panels, path, about)
    draw(
        panels,
        path,
        xlabel="receptive field, pixels of the input",
        ylabel="PCK@0.2, %",
        columns=1,
        at=float(line.x[-1]),
        points=True,
    )
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
