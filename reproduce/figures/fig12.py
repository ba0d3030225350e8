"""Figure 12: PCK of elbows and wrists on FLIC, observer-centric.

The paper normalises by the truth's left shoulder to right hip; the released script by the
prediction's own. Both are drawn; the paper's is the first row.
"""

from __future__ import annotations

from pathlib import Path

from reproduce.benchmarks.flic import Flic
from reproduce.drawing.curves import draw, files_of, write_numbers
from reproduce.figures.method_curves import curves, published_marks, score_methods
from reproduce.runtime.provenance import provenance

((OWN, CPM),) = Flic.released.items()  # label and file of the authors' predictions
PARTS = ("elbow", "wrist")
CHECKED = (Flic.name,)  # benchmarks whose published numbers belong to it


def make(data: Path, out: Path) -> list[Path]:
    """Numbers and picture.

    Raises
    ------
    Missing : FLIC's truth or the authors' predictions are not there.
    """
    benchmark = Flic(data)
    benchmark.need(CPM)
    by_truth = score_methods(benchmark)
    by_prediction = {OWN: benchmark.score_file(CPM, norm=benchmark.script_norm)}
    wrists = benchmark.groups["wrist"]
    order = sorted(by_truth, key=lambda label: -by_truth[label].group(wrists, benchmark.threshold))
    panels = {}
    for how, results in {"by the truth": by_truth, "by the prediction": by_prediction}.items():
        ordered = {label: results[label] for label in order if label in results}
        groups = {f"{part}, {how}": benchmark.groups[part] for part in PARTS}
        panels.update(curves(ordered, groups))
    said = published_marks(benchmark)
    marks = {f"{part}, by the truth": said[part] for part in PARTS}
    path = out / "fig12"
    write_numbers(panels, path, provenance("cpm-reproduce fig12", str(data)))
    draw(
        panels,
        path,
        xlabel="normalised distance",
        ylabel="detection rate, %",
        columns=2,
        at=benchmark.threshold,
        title="PCK on FLIC (the paper normalises by the truth)",
        marks=marks,
    )
    return files_of(path)
