"""Training samples per second on one core: ours against the step-by-step port of the original
layer, in turn.

The port lies in tests/oracle; it follows the original's steps (whole canvases, a loop over every
cell of every map). Its loops run in Python here, in C++ there: the honest peer beside it is the
same sequence of OpenCV calls with the loops in numpy, printed as "steps, vectorised".

    python tools/bench_data_layer.py FILE.lmdb
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timing import machine, parser, seconds_of

from reproduce.records.layout import Record
from reproduce.records.store import LMDBStore
from reproduce.samples.augment import Augmentation, Settings, augment, roll
from reproduce.samples.dice import SampleDice
from tests.oracle import cpm_layer

SETTINGS = Settings(
    stride=8,
    target_dist=1.171,
    scale_prob=1,
    scale_min=0.7,
    scale_max=1.3,
    max_rotate_degree=40,
    center_perterb_max=0,
)


def vectorised_gaussian(plane: np.ndarray, x: float, y: float, stride: int, sigma: float) -> None:
    """The port's peak over the whole map at once."""
    start = stride / 2.0 - 0.5
    across = (np.arange(plane.shape[1]) * stride + start - x) ** 2
    down = (np.arange(plane.shape[0]) * stride + start - y) ** 2
    exponent = (down[:, None] + across[None]) / 2.0 / sigma / sigma
    plane += np.where(exponent > 4.6052, 0, np.exp(-exponent))
    np.minimum(plane, 1, out=plane)


def vectorised(image: np.ndarray, record: Record, choice: Augmentation) -> object:
    """The original's steps with numpy for loops: whole resized image, whole rotated canvas, whole
    maps."""
    from reproduce.samples.augment import read_scene

    a = record.annotation
    scene = read_scene(a, SETTINGS)
    scale = SETTINGS.target_dist / scene.scale * choice.scale_multiplier
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    h, w = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((w / 2.0, h / 2.0), choice.degree, 1.0)
    box = cv2.RotatedRect((w / 2.0, h / 2.0), (float(w), float(h)), choice.degree).boundingRect()
    matrix[0, 2] += box[2] / 2.0 - w / 2.0
    matrix[1, 2] += box[3] / 2.0 - h / 2.0
    image = cv2.warpAffine(
        image, matrix, (box[2], box[3]), flags=cv2.INTER_CUBIC, borderValue=(128, 128, 128)
    )
    scene = scene.map(lambda p: ((p * scale) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32))
    left, top = int(scene.objpos[0]) - 184, int(scene.objpos[1]) - 184
    out = np.full((368, 368, 3), 128, np.uint8)
    y0, y1, x0, x1 = (
        max(0, top),
        min(image.shape[0], top + 368),
        max(0, left),
        min(image.shape[1], left + 368),
    )
    if y0 < y1 and x0 < x1:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    if choice.flip:
        out = cv2.flip(out, 1)
    data = np.zeros((4, 368, 368), np.float32)
    data[:3] = (out.transpose(2, 0, 1).astype(np.float32) - 128) / 256
    vectorised_gaussian(data[3], 184, 184, 1, 21)
    label = np.zeros((2, 15, 46, 46), np.float32)
    for person in scene.people:
        for part, (x, y) in enumerate(person.joints - [left, top]):
            for which in (0, 1):
                vectorised_gaussian(label[which, part], float(x), float(y), 8, 7)
    label[:, -1] = np.maximum(1 - label[:, :-1].max(1), 0)
    return data, label


def main() -> None:
    """Run the benchmark."""
    command = parser(__doc__)
    command.add_argument("records", type=Path)
    command.add_argument("--n", type=int, default=60)
    options = command.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    store = LMDBStore(options.records)
    records = [store.record(i) for i in range(options.n)]
    choices = [roll(SETTINGS, SampleDice(0, 0, i)) for i in range(options.n)]
    engines: dict[str, Callable[[Record, Augmentation], object]] = {
        "ours": lambda r, c: augment(r.image, r.annotation, SETTINGS, c),
        "steps, vectorised": lambda r, c: vectorised(r.image, r, c),
        "step by step": lambda r, c: cpm_layer.sample(r.image, r.annotation, SETTINGS, c),
    }
    times = dict.fromkeys(engines, 0.0)
    counts = dict.fromkeys(engines, 0)
    for i, (record, choice) in enumerate(zip(records, choices, strict=True)):
        for name, run in engines.items():
            if name == "step by step" and i >= 6:
                continue
            times[name] += seconds_of(partial(run, record, choice))
            counts[name] += 1
    reading = seconds_of(lambda: [store.record(i) for i in range(options.n)]) / options.n
    print(machine())
    rates = {name: counts[name] / times[name] for name in engines}
    for name, rate in rates.items():
        print(f"{name:18s} {rate:8.1f} samples/s ({1e3 / rate:.2f} ms)")
    whole = 1 / (1 / rates["ours"] + reading)
    print(
        f"reading a record {1e3 * reading:.2f} ms; both: {whole:.0f} samples/s a core, "
        f"{12 * whole:.0f} on 12 cores"
    )
    print(f"ours / step by step: {rates['ours'] / rates['step by step']:.1f}")
    print(f"ours / steps, vectorised: {rates['ours'] / rates['steps, vectorised']:.2f}")


if __name__ == "__main__":
    main()
