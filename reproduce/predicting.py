"""Runs of the predictor over photographs and over a data set's test images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from caffe_compat.errors import CaffeCompatError

from . import evaluation, predictions
from .datasets import lsp
from .inference import Predictor, Task, task_demo, task_lsp
from .pictures import draw_skeleton, montage
from .preview import save_png
from .skeletons import LSP_JOINTS, skeleton
from .store import read_image

Say = Callable[[str], None]


def pictures(
    predictor: Predictor, paths: Sequence[Path], box: Sequence[float] | None, out: Path, resume: bool, say: Say
) -> tuple[int, list[str]]:
    """Predict one person in each image by the demo's protocol and write skeleton, belief maps and JSON.

    Returns
    -------
    How many were done, and which were not and why.
    """
    skeletal = skeleton(predictor.parts)
    done, bad = 0, []
    for path in paths:
        target = out / f"{path.stem}_keypoints.json"
        if resume and target.exists():
            continue
        try:
            image = read_image(path, upright=True)
            height, width = image.shape[:2]
            x, y, w, h = box if box is not None else (0, 0, width, height)
            task = task_demo(np.ascontiguousarray(image[:, :, ::-1]), (x + 1, y + 1, w, h), predictor.setting)
            person = predictor.run(task, keep=True)
        except CaffeCompatError as error:
            bad.append(str(error))
            continue
        assert person.maps is not None
        save_png(draw_skeleton(image, person.pixels, skeletal), out / f"{path.stem}_skeleton.png")
        names = [*skeletal.parts, "background"]
        save_png(montage(image, list(person.maps), names, tile=96), out / f"{path.stem}_belief.png")
        predictions.write_json(target, predictions.openpose([(person.pixels, person.scores)]))
        say(f"{path}: mean score {person.scores.mean():.3f}")
        done += 1
    return done, bad


def lsp_tasks(predictor: Predictor, root: str | os.PathLike[str], count: int) -> Iterator[Task]:
    """The test people of LSP, images 1001 and on."""
    _, folder = lsp.read_joints(root, "lsp")
    for i in range(count):
        path = folder / "images" / f"im{1001 + i:04d}.jpg"
        yield task_lsp(np.ascontiguousarray(read_image(path)[:, :, ::-1]), predictor.setting)


def lsp_benchmark(
    predictor: Predictor, root: str | os.PathLike[str], out: Path, name: str, limit: int | None, say: Say
) -> int:
    """Predict LSP's test images by the benchmark's protocol; write the release's .mat and the score.

    Returns
    -------
    How many people were predicted.
    """
    from tqdm import tqdm

    if predictor.parts != len(LSP_JOINTS):
        raise CaffeCompatError(f"the network has {predictor.parts} parts, LSP needs 14")
    truth, _ = lsp.read_joints(root, "lsp")
    truth = truth[1000 : 1000 + (limit or 1000)]
    order = [skeleton(14).parts.index(j) for j in LSP_JOINTS]
    tasks = lsp_tasks(predictor, root, len(truth))
    found = [p.joints[order] for p in tqdm(predictor.run_all(tasks), total=len(truth), unit=" people", disable=None)]
    joints = np.stack(found)
    predictions.write_mat(out / f"LSP_prediction_model_{name}.mat", joints)
    row = evaluation.lsp_table(evaluation.score_lsp(joints, truth))
    (out / f"LSP_score_{name}.json").write_text(json.dumps({"people": len(truth), "threshold": 0.2, **row}, indent=1))
    say("LSP (person-centric) PCK@0.2: " + "  ".join(f"{k} {row[k]:.1f}" for k in (*evaluation.LSP_GROUPS, "total")))
    say(f"{row['hits']} of {row['counted']} joints, AUC {row['auc']:.2f}")
    return len(joints)
