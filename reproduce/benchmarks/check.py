"""The regression check: published numbers against ours, on whatever data are present."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from caffe_compat.errors import CaffeCompatError
from reproduce.benchmarks import measures
from reproduce.benchmarks.truth import Benchmarks, Missing
from reproduce.network.identify import models_folder
from reproduce.predict import joint_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Outcome:
    """One check.

    Attributes
    ----------
    ours : None where data are missing. difference : the largest. verdict : "equal", "differs",
        "missing".
    """

    name: str
    published: list[float]
    ours: list[float] | None
    difference: float | None
    tolerance: float
    verdict: str
    source: str
    missing: str = ""


def published() -> dict[str, Any]:
    """published.toml."""
    return tomllib.loads(
        (resources.files("reproduce") / "published.toml").read_text(encoding="utf-8")
    )


def measure(check: dict[str, Any], data: Benchmarks) -> list[float]:
    """Our value(s) of a check.

    Raises
    ------
    Missing : a file that it needs is not there.
    """
    if check["kind"] == "flic":
        result = data.flic_score(check["file"], check["normalise"])
        return [result.group((1, 4), check["threshold"]), result.group((2, 5), check["threshold"])]
    if check["kind"] == "mpii":
        result = data.mpii_score(check["file"])
        return [float(result.total[result.at(check["threshold"])])]
    result = data.lsp_score(check["file"])
    if check["measure"] == "lead":
        other = data.lsp_score(check["other"])
        return [
            float(result.total[result.at(t)] - other.total[other.at(t)]) for t in check["threshold"]
        ]
    if check["measure"] == "hits":
        return [float(result.hits[result.at(0.2)].sum())]
    if check["measure"] == "auc":
        return [result.auc]
    if check["measure"] == "groups":
        return [result.group(joints, check["threshold"]) for joints in measures.LSP_GROUPS.values()]
    if check["measure"] == "total":
        return [float(result.total[result.at(check["threshold"])])]
    raise CaffeCompatError(f"published.toml: unknown measure '{check['measure']}'")


def run(root: str | os.PathLike[str], kinds: Sequence[str] | None = None) -> list[Outcome]:
    """Every check of published.toml, or those of some kinds."""
    data, table = Benchmarks(root), published()
    outcomes = []
    for check in table["check"]:
        if kinds is not None and check["kind"] not in kinds:
            continue
        value = check["value"] if isinstance(check["value"], list) else [check["value"]]
        expected = [float(v) for v in value]
        try:
            ours = measure(check, data)
        except Missing as error:
            sources = {
                check["kind"],
                *(check[f].split("/")[0] for f in ("file", "other") if f in check),
            }
            where = "; ".join(table["where"][k] for k in sorted(sources) if k in table["where"])
            missing = f"{error}. To be had: {where}"
            outcomes.append(
                Outcome(
                    check["name"],
                    expected,
                    None,
                    None,
                    check["tolerance"],
                    "missing",
                    check["source"],
                    missing,
                )
            )
            continue
        difference = max((a - b for a, b in zip(ours, expected, strict=True)), key=abs)
        verdict = "equal" if abs(difference) <= check["tolerance"] + 1e-9 else "differs"
        outcomes.append(
            Outcome(
                check["name"],
                expected,
                ours,
                difference,
                check["tolerance"],
                verdict,
                check["source"],
            )
        )
    if kinds is None or "lsp" in kinds:
        files = sorted(models_folder().glob("*/lsp_predictions.json"))
        outcomes += [_embedded(file, data, table["where"]["lsp"]) for file in files]
    return outcomes


def _embedded(file: Path, data: Benchmarks, where: str) -> Outcome:
    """The stored score of a model in models/ against its stored predictions, scored anew."""
    stored = json.loads((file.parent / "score.json").read_text(encoding="utf-8"))
    name = f"{file.parent.name} (embedded model), LSP-PC, joints within 0.2"
    source = "stored when the model was embedded; not a published number"
    try:
        result = measures.score_lsp(joint_files.read(file), data.lsp_truth)
    except Missing as error:
        return Outcome(
            name, [stored["hits"]], None, None, 0, "missing", source, f"{error}. To be had: {where}"
        )
    ours = float(result.hits[result.at(0.2)].sum())
    difference = ours - stored["hits"]
    return Outcome(
        name, [stored["hits"]], [ours], difference, 0, "differs" if difference else "equal", source
    )
