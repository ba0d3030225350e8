"""Figure 8 on the validation split: PCKh curves of MPII.

The paper's figure is on the test set, whose truth is not public. Here are the predictions that
there are on Tompson's validation split (2,958 people); the published test numbers stand in the JSON
beside them and are not the same measurement.
"""

from __future__ import annotations

from pathlib import Path

from reproduce.benchmarks.check import published
from reproduce.benchmarks.measures import MPII_COUNTED, MPII_GROUPS
from reproduce.benchmarks.truth import Benchmarks, Missing
from reproduce.drawing.curves import Curve, draw, write_numbers
from reproduce.runtime.provenance import provenance

LABELS = {"tompson": "Tompson et al., CVPR'15", "newell": "Newell et al., ECCV'16"}
KINDS = ("mpii",)  # of the published numbers that belong to it


def make(data: Benchmarks, out: Path) -> list[Path]:
    """Numbers and picture.

    Raises
    ------
    Missing : the validation split or all predictions are not there.
    """
    data.need("mpii/valid.h5")
    files = sorted(p for p in (data.root / "mpii").glob("*.h5") if p.name != "valid.h5")
    if not files:
        raise Missing(f"no prediction files in {data.root / 'mpii'} (preds in an .h5 file)")
    results = {LABELS.get(p.stem, p.stem): data.mpii_score(f"mpii/{p.name}") for p in files}
    order = sorted(results, key=lambda label: -results[label].total[-1])
    panels = {"total": [Curve(n, results[n].thresholds, results[n].total) for n in order]}
    for part, joints in MPII_GROUPS.items():
        columns = [MPII_COUNTED.index(j) for j in joints]
        panels[part] = [
            Curve(n, results[n].thresholds, results[n].per_joint[:, columns].mean(1)) for n in order
        ]
    path = out / "fig08"
    about = {
        **provenance("cpm-reproduce fig8", str(data.root)),
        "published test set (not comparable)": published()["mpii_test"],
    }
    write_numbers(panels, path, about)
    draw(
        panels,
        path,
        xlabel="distance / head size",
        ylabel="detection rate, %",
        columns=4,
        at=0.5,
        title="PCKh on MPII, validation split (the paper's figure is on the test set)",
    )
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
