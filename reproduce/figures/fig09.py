"""Figure 9: PCK curves on Leeds Sports Pose, person-centric, in total and per pair of parts."""

from __future__ import annotations

from pathlib import Path

from reproduce.benchmarks import measures
from reproduce.benchmarks.truth import Benchmarks, Missing
from reproduce.drawing.curves import Curve, draw, write_numbers
from reproduce.runtime.provenance import provenance

OWN = {
    "CPM (MPII + LSP)": "release/LSP_prediction_model_MPII_LSP_6s.mat",
    "CPM (LSP)": "release/LSP_prediction_model_LSP_6s.mat",
}
KINDS = ("lsp",)  # of the published numbers that belong to it


def make(data: Benchmarks, out: Path) -> list[Path]:
    """Numbers and picture.

    Raises
    ------
    Missing : LSP's truth or all predictions are not there.
    """
    results: dict[str, measures.EvalResult] = {}
    for label, name in OWN.items():
        if (data.root / name).exists():
            results[label] = data.lsp_score(name)
    for method in data.methods("lsp", ("pc",)):
        if "WeiCVPR16" in method.path.parts:
            continue  # the authors' own file once more
        results[method.label] = data.lsp_score(str(method.path.relative_to(data.root)))
    if not results:
        raise Missing(
            f"no prediction files on LSP in {data.root} (release/*.mat, "
            "predictions/*/pred_keypoints_lsp_pc.mat)"
        )
    order = sorted(results, key=lambda label: -results[label].total[-1])
    panels = {"total": [Curve(n, results[n].thresholds, results[n].total) for n in order]}
    for part, joints in measures.LSP_GROUPS.items():
        panels[part] = [
            Curve(n, results[n].thresholds, results[n].per_joint[:, list(joints)].mean(1))
            for n in order
        ]
    path = out / "fig09"
    write_numbers(panels, path, provenance("cpm-reproduce fig9", str(data.root)))
    draw(
        panels,
        path,
        xlabel="normalised distance",
        ylabel="detection rate, %",
        columns=4,
        at=0.2,
        title="PCK on Leeds Sports Pose, person-centric",
    )
    return [path.with_suffix(e) for e in (".json", ".csv", ".png", ".pdf", ".svg")]
