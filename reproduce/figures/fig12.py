"""Figure 12: PCK of elbows and wrists on FLIC, observer-centric.

The paper normalises by the truth's left shoulder to right hip; the released script by the
prediction's own. Both are drawn; the paper's is the first row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reproduce.benchmarks import measures
from reproduce.benchmarks.truth import Benchmarks
from reproduce.drawing.curves import Curve, draw, write_numbers
from reproduce.people import matfile
from reproduce.predict import joint_files
from reproduce.runtime.provenance import provenance

CPM = "release/FLIC_prediction_model_FLIC_4s.mat"
OWN = "CPM (FLIC)"
PARTS = {"elbow": (1, 4), "wrist": (2, 5)}
KINDS = ("flic",)  # of the published numbers that belong to it


def by_truth(data: Benchmarks) -> dict[str, measures.EvalResult]:
    """All methods as the paper scores them: by the truth's left shoulder to right hip.

    Raises
    ------
    Missing : FLIC's truth or the authors' predictions are not there.
    """
    found = {OWN: data.flic_score(CPM, "truth")}
    _, raw = data.flic_tests
    reference = np.linalg.norm(raw[:, 0] - raw[:, 7], axis=1)
    for method in data.methods("flic", ("oc",)):
        if "WeiCVPR16" not in method.path.parts:
            guess = joint_files.read_mat(method.path)
            found[method.label] = measures.pck(guess, raw, reference, names=measures.FLIC_JOINTS)
    modec = data.root / "predictions" / "MODEC" / "results.mat"
    if modec.exists():
        (guess,) = matfile.load(modec, "pred_coords")
        points = np.asarray(guess, np.float64).transpose(2, 1, 0)
        found["MODEC, Sapp & Taskar CVPR'13"] = measures.pck(
            points, raw[:, :6], reference, names=measures.FLIC_JOINTS[:6]
        )
    return found


def make(data: Benchmarks, out: Path) -> list[Path]:
    """Numbers and picture.

    Raises
    ------
    Missing : FLIC's truth or the authors' predictions are not there.
    """
    paper = by_truth(data)
    found = {"by the truth": paper, "by the prediction": {OWN: data.flic_score(CPM, "prediction")}}
    order = sorted(paper, key=lambda label: -paper[label].group(PARTS["wrist"], 0.2))
    panels = {}
    for how, results in found.items():
        for part, joints in PARTS.items():
            names = [n for n in order if n in results]
            panels[f"{part}, {how}"] = [
                Curve(n, results[n].thresholds, results[n].per_joint[:, list(joints)].mean(1))
                for n in names
            ]
    path = out / "fig12"
    write_numbers(panels, path, provenance("cpm-reproduce fig12", str(data.root)))
    draw(
        panels,
        path,
        xlabel="normalised distance",
        ylabel="detection rate, %",
        columns=2,
        at=0.2,
        title="PCK on FLIC (the paper normalises by the truth)",
    )
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
