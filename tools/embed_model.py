"""Puts a trained network into models/: prototxts, weights, loss curve, score, and a README that
says how it was made.

    python tools/embed_model.py leeds-small --training DIR --weights pose.caffemodel
    --log FIRST SECOND --scored DIR --quick DIR --about about.md

``--training`` holds the prototxts that it was trained with, ``--weights`` is a snapshot or what
``cpm-convert --merge-batch-norm`` made of it, ``--log`` the ``pose_log.jsonl`` of each training in turn,
``--scored`` what ``cpm-predict --dataset lsp`` wrote, ``--quick`` what it wrote with ``--scales 1``;
``about.md`` is the part of the README that only a person knows (commands, hardware, hours). The logs are
kept in the folder as ``log_1.jsonl``, ``log_2.jsonl``, ...: a later training names them first, so that its
picture shows everything. Of ``--iterations-before`` no log is left, only the picture ``loss_to_N.png``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from caffe_compat.conversion.convert import convert
from caffe_compat.definition.textformat import dump
from reproduce.network.identify import identify
from reproduce.people.matlab_pixels import to_matlab
from reproduce.predict import joint_files
from reproduce.train.logs import read_log

TRAINED_WITH = ("pose_train_test.prototxt", "pose_solver.prototxt")


def loss_curve(logs: list[Path], out: Path, before: int) -> tuple[int, dict[str, float]]:
    """Draw the loss per stage of trainings that followed each other, each one smoothed by itself;
    return the iterations of all together, and the last smoothed values.

    Parameters
    ----------
    before : iterations before the first of these trainings.
    """
    figure, axis = plt.subplots(figsize=(5, 3))
    highest = 0.0
    final: dict[str, float] = {}
    for log in logs:
        # a resumed training repeats iterations: the last time counts
        losses = {report["iteration"]: report["losses"] for report in read_log(log)}
        x = np.array(sorted(losses))
        width = max(1, len(x) // 60)
        for number, stage in enumerate(losses[int(x[-1])]):
            y = np.array([losses[int(i)][stage] for i in x])
            smooth = np.convolve(y, np.ones(width) / width, "valid")
            label = stage.removeprefix("loss_") if log is logs[0] else None
            axis.plot(before + x[width - 1 :], smooth, f"C{number}", label=label, linewidth=1.2)
            final[stage] = float(smooth[-1])
            highest = max(highest, float(np.percentile(y, 95)))
        before += int(2 * x[-1] - x[-2])  # a line is of the iterations up to the next one
        if log is not logs[-1]:
            axis.axvline(before, color="grey", linewidth=0.8, linestyle=":")
    axis.set_xlabel("iteration")
    axis.locator_params(axis="x", nbins=6)  # more numbers of five digits would run into each other
    axis.set_ylabel("loss")
    axis.set_ylim(0, highest * 1.3)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    return before, final


@dataclass(frozen=True)
class About:
    """What a model's README says of it.

    Attributes
    ----------
    network : its kind, size and input, in words.
    weights : the bytes of its weight file.
    iterations : of all trainings together.
    before : how many of them have no log any more.
    losses : of each stage at the end.
    score, quick : of seven scales and of one, as ``cpm-predict --dataset lsp`` wrote them.
    """

    network: str
    weights: bytes
    iterations: int
    before: int
    losses: dict[str, float]
    score: dict[str, Any]
    quick: dict[str, Any]


def readme(name: str, about: About, by_hand: str) -> str:
    """The README of a model.

    Parameters
    ----------
    by_hand : the part that only a person knows.
    """
    score = about.score
    first = f"`loss_to_{about.before}.png`, " if about.before else ""
    begin = f", the first {about.before} in a picture of their own" if about.before else ""
    size, digest = len(about.weights) / 1e6, hashlib.sha256(about.weights).hexdigest()
    losses = ", ".join(f"{loss:.1f}" for loss in about.losses.values())
    rows = "\n".join(
        f"| {key} | {value:.2f} | {about.quick[key]:.2f} |"
        for key, value in score.items()
        if isinstance(value, float)
    )
    return f"""# {name}

{about.network}.
Made with this project's own commands; BSD-3-Clause as the code, the training images have their own terms.

| file | |
|---|---|
| `pose.caffemodel` | weights and the definition that they are for; {size:.1f} MB, sha256 `{digest}` |
| `pose_deploy.prototxt` | that definition |
| `pose_train_test.prototxt`, `pose_solver.prototxt` | what it was trained with at last |
| `score.json`, `lsp_predictions.json` | the score below, and the predictions (1-based, LSP's order) that it is of; `score_one_scale.json`: with one scale |
| {first}`loss.png` | loss per stage, {about.iterations} iterations{begin}; at the end {losses} |
| `log_1.jsonl`, ... | the numbers in `loss.png`, of each training in turn |

## Score

LSP test images, {score["people"]} people, PCK at 0.2 (person-centric), by the original protocol of seven scales: {score["hits"]} of
{score["counted"]} joints; and with its middle scale alone, in less time.

| | seven scales | one scale |
|---|---|---|
{rows}

{by_hand}"""


def main() -> None:
    """Put the model's folder together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--log", type=Path, nargs="+", required=True)
    parser.add_argument("--iterations-before", type=int, default=0)
    parser.add_argument("--scored", type=Path, required=True)
    parser.add_argument("--quick", type=Path, required=True)
    parser.add_argument("--about", type=Path, required=True)
    options = parser.parse_args()
    folder = Path(__file__).resolve().parent.parent / "models" / options.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in TRAINED_WITH:
        shutil.copyfile(options.training / name, folder / name)
    weights = folder / "pose.caffemodel"
    shutil.copyfile(options.weights, weights)
    score_file = next(options.scored.glob("LSP_score_*.json"))
    shutil.copyfile(score_file, folder / "score.json")
    quick_file = next(options.quick.glob("LSP_score_*.json"))
    shutil.copyfile(quick_file, folder / "score_one_scale.json")
    predicted = joint_files.read(next(options.scored.glob("LSP_prediction_model_*.mat")))
    joints = to_matlab(predicted).astype(int)  # whole pixels, from 1
    (folder / "lsp_predictions.json").write_text(
        json.dumps(joints.tolist(), separators=(",", ":")), encoding="utf-8"
    )
    before = options.iterations_before
    iterations, final = loss_curve(options.log, folder / "loss.png", before)
    for number, log in enumerate(options.log, start=1):
        (folder / f"log_{number}.jsonl").write_text(log.read_text())
    made = convert(weights)
    (folder / "pose_deploy.prototxt").write_text(dump(made.net.to_message()), encoding="utf-8")
    kind, shape = identify(made.graph).text, "×".join(map(str, made.graph.blobs["data"]))
    about = About(
        network=f"{kind}; {made.graph.count:,} parameters, input {shape}",
        weights=weights.read_bytes(),
        iterations=iterations,
        before=before,
        losses=final,
        score=json.loads(score_file.read_text()),
        quick=json.loads(quick_file.read_text()),
    )
    text = readme(options.name, about, options.about.read_text())
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(folder)


if __name__ == "__main__":
    main()
