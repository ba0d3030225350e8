"""Figure 8 on the validation split: PCKh curves of MPII.

The paper's figure is on the test set, whose truth is not public. Here are the predictions that
there are on Tompson's validation split (2,958 people); the published test numbers (the paper's, and
that of the network which the authors released later) stand in the JSON beside them and in the
picture's title; they are not the same measurement.
"""

from __future__ import annotations

from pathlib import Path

from reproduce.benchmarks.benchmark import Missing
from reproduce.benchmarks.measures import EvalResult
from reproduce.benchmarks.mpii import LABELS, Mpii, MpiiValidation
from reproduce.benchmarks.published import published
from reproduce.figures.method_curves import draw_methods, score_methods
from reproduce.runtime.provenance import provenance

CHECKED = (Mpii.name,)  # benchmarks whose published numbers belong to it


def make(data: Path, out: Path) -> list[Path]:
    """Numbers and picture.

    Raises
    ------
    Missing : the validation split or all predictions are not there.
    """
    benchmark = Mpii(data)
    results = score_methods(benchmark)
    if not results:
        folder = data / benchmark.folder
        raise Missing(
            f"no prediction files in {folder} (preds in an .h5 file, or "
            f"{MpiiValidation.stem}_prediction_model_NAME.mat)"
        )
    test = published()["mpii_test"]
    about = {
        **provenance("cpm-reproduce fig8", str(data)),
        "published test set (not comparable)": test,
    }
    title = (
        "PCKh on MPII, Tompson's validation split: not the paper's figure, which is on the test set"
        f"\n(published there: {test['total']:g}, with LSP {test['total_with_lsp']:g}, with VGG's "
        f"front end {test['total_vgg']:g})"
    )
    if set(results) <= set(LABELS.values()):
        title += "; no curve of a CPM: none was published on this split"
    shown = {_label(name, result): result for name, result in results.items()}
    return draw_methods(
        benchmark, shown, out / "fig08", about, title, xlabel="distance / head size"
    )


def _label(name: str, result: EvalResult) -> str:
    """What a curve is called; joints that were not predicted are counted as missed, and said."""
    if not result.placeless:
        return name
    return f"{name} ({result.placeless} of {result.counted.sum()} joints not predicted)"
