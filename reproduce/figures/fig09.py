"""Figure 9: PCK curves on Leeds Sports Pose, person-centric, in total and per pair of parts."""

from __future__ import annotations

from pathlib import Path

from reproduce.benchmarks.benchmark import Missing
from reproduce.benchmarks.lsp import Lsp
from reproduce.figures.method_curves import draw_methods, score_methods
from reproduce.runtime.provenance import provenance

CHECKED = (Lsp.name,)  # benchmarks whose published numbers belong to it


def make(data: Path, out: Path) -> list[Path]:
    """Numbers and picture.

    Raises
    ------
    Missing : LSP's truth or all predictions are not there.
    """
    benchmark = Lsp(data)
    results = score_methods(benchmark)
    if not results:
        raise Missing(
            f"no prediction files on LSP in {data} (release/*.mat, "
            "predictions/*/pred_keypoints_lsp_pc.mat)"
        )
    about = provenance("cpm-reproduce fig9", str(data))
    title = "PCK on Leeds Sports Pose, person-centric"
    return draw_methods(benchmark, results, out / "fig09", about, title)
