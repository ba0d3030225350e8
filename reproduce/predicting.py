"""Runs of the predictor over photographs and over a data set's test images."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe_compat.errors import CaffeCompatError, DataError

from . import evaluation, predictions
from .datasets import lsp
from .inference import Predictor, Task, task_demo, task_lsp
from .pictures import draw_skeleton, montage
from .preview import save_png
from .skeletons import LSP_JOINTS, skeleton
from .store import read_image

Say = Callable[[str], None]
Box = tuple[float, float, float, float]


def read_boxes(path: str | os.PathLike[str]) -> dict[str, list[Box]]:
    """People's boxes (x, y, width, height; 0-based pixels) of each image, from JSON or CSV.

    JSON: ``{"photo.jpg": [[x, y, w, h], ...]}``; CSV: a line ``photo.jpg,x,y,w,h`` per person, with or without a heading.

    Raises
    ------
    DataError : no such file, another form, a box without size.
    """
    name = os.fspath(path)
    form = "expected four numbers x, y, width, height with a positive size"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: boxes cannot be read: {error}") from None
    rows: list[tuple[str, str, Any]] = []  # where it stands, image, box
    if name.lower().endswith(".json"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: is no JSON: {error}") from None
        if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
            raise DataError(f'{name}: expected an object of lists: {{"photo.jpg": [[x, y, w, h], ...]}}')
        rows = [(f"{image}, person {i + 1}", image, box) for image, boxes in found.items() for i, box in enumerate(boxes)]
    else:
        try:
            lines = list(csv.reader(text.splitlines()))
        except csv.Error as error:
            raise DataError(f"{name}: is no CSV: {error}") from None
        for i, row in enumerate(lines):
            if row and not (i == 0 and row[1:] and not _number(row[1])):
                rows.append((f"line {i + 1}", row[0], row[1:]))
    boxes: dict[str, list[Box]] = {}
    for where, image, values in rows:
        if not isinstance(values, list) or len(values) != 4 or not all(_number(v) for v in values):
            raise DataError(f"{name}: {where}: {form}, found {values!r}")
        x, y, w, h = (float(v) for v in values)
        if w <= 0 or h <= 0:
            raise DataError(f"{name}: {where}: {form}, found {values!r}")
        boxes.setdefault(image, []).append((x, y, w, h))
    return boxes


def _number(value: object) -> bool:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (ValueError, OverflowError):
        return False


def pictures(
    predictor: Predictor, paths: Sequence[Path], boxes: Box | Mapping[str, Sequence[Box]] | None, out: Path,
    resume: bool, say: Say,
) -> tuple[int, list[str]]:  # fmt: skip
    """Predict the people in each image by the demo's protocol; write skeletons, belief maps and JSON.

    Parameters
    ----------
    boxes : one box for every image, each image's own by its path as given or its file name, or None for the whole image.

    Returns
    -------
    How many people were done, and which images were not and why.
    """
    skeletal = skeleton(predictor.parts)
    names = [*skeletal.parts, "background"]
    stems = Counter(path.stem for path in paths)
    shared = Counter(path.name for path in paths)
    done, bad = 0, []
    for path in paths:
        if shared[path.name] > 1:
            bad.append(f"{path}: {shared[path.name]} inputs have this file name, their results would overwrite each other")
            continue
        target = out / (path.stem if stems[path.stem] == 1 else path.name)
        result = Path(f"{target}_keypoints.json")
        if resume and result.exists():
            continue
        try:
            image = read_image(path, upright=True)
            height, width = image.shape[:2]
            if isinstance(boxes, Mapping):
                own = boxes.get(str(path), boxes.get(path.name))
                if own is None:
                    raise DataError(f"{path}: the boxes file names no person in it")
            else:
                own = [boxes if boxes is not None else (0.0, 0.0, float(width), float(height))]
            rgb = np.ascontiguousarray(image[:, :, ::-1])
            tasks = [task_demo(rgb, (x + 1, y + 1, w, h), predictor.setting) for x, y, w, h in own]
            found = [predictor.run(task, keep=True) for task in tasks]
        except CaffeCompatError as error:
            bad.append(str(error))
            continue
        drawn = image
        for i, person in enumerate(found):
            assert person.maps is not None
            drawn = draw_skeleton(drawn, person.pixels, skeletal)
            which = f"_{i + 1}" if len(found) > 1 else ""
            save_png(montage(image, list(person.maps), names, tile=96), Path(f"{target}_belief{which}.png"))
        people = [(person.pixels, person.scores) for person in found]
        save_png(drawn, Path(f"{target}_skeleton.png"))
        predictions.write_json(result, predictions.openpose(people))
        say(f"{path}: mean score " + ", ".join(f"{scores.mean():.3f}" for _, scores in people))
        done += len(people)
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
