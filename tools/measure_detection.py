"""How many people the detectors of ``cpm-predict --detect`` find, on photographs with annotations.

FLIC's frames show upper bodies, several people in some of them; Leeds' test images show one person
each, in any posture; the whole people among the release's sample photographs were measured by eye.
A person is found where a box has its middle within a quarter of the person's
height of the body's middle, and a height between 1 / 1.6 and 1.6 times the person's: what the
testing protocols' scales make up for.

  python tools/measure_detection.py --data DOWNLOADS
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from reproduce.network.identify import embedded
from reproduce.people import flic_files, lsp_files, matfile
from reproduce.people.skeletons import PARTS_9
from reproduce.predict.boxes import UNIT_HEIGHT
from reproduce.predict.detection import detect_people
from reproduce.predict.head_finder import THRESHOLD, HeadFinder
from reproduce.predict.predictor import Predictor

# Leeds people (medians over the 1,000 test images) are three times as high as the way from their
# shoulders to their hips.
TORSOS = 3.0
CLOSE, RATIO = 0.25, 1.6


@dataclass(frozen=True)
class Somebody:
    """Where somebody is: the body's middle x, y and the height, pixels."""

    x: float
    y: float
    height: float

    def is_found_by(self, other: Somebody) -> bool:
        """Is the other near, and of about this size?"""
        near = np.hypot(self.x - other.x, self.y - other.y) < CLOSE * self.height
        return bool(near and 1 / RATIO < other.height / self.height < RATIO)


Photographs = dict[Path, list[Somebody]]
Detector = Callable[[np.ndarray], Sequence[Somebody]]


def flic(data: Path) -> Photographs:
    """The people of FLIC's images that are here: middle of the hips, height from the torso."""
    part = {name: i for i, name in enumerate(PARTS_9)}
    found: Photographs = {}
    for example in flic_files.read_examples(next(data.rglob("examples.mat"))):
        path = next(data.rglob("flic")) / "images" / matfile.text(example.filepath)
        if path.exists():
            joints = flic_files.joints_of(example)[0][:, :2] - 1
            hips = (joints[part["Lhip"]] + joints[part["Rhip"]]) / 2
            shoulders = (joints[part["Lsho"]] + joints[part["Rsho"]]) / 2
            height = TORSOS * float(np.hypot(*(hips - shoulders)))
            found.setdefault(path, []).append(Somebody(float(hips[0]), float(hips[1]), height))
    return found


def leeds(data: Path, every: int) -> Photographs:
    """Some of Leeds' test people: middle and longer side of the joints' box."""
    joints, folder = lsp_files.read_joints(data, "lsp")
    found: Photographs = {}
    for i in range(1000, len(joints), every):
        places = joints[i, :, :2] - 1
        low, high = places.min(0), places.max(0)
        x, y = (low + high) / 2
        path = folder / "images" / f"im{i + 1:04d}.jpg"
        found[path] = [Somebody(float(x), float(y), float((high - low).max()))]
    return found


# The one whole person of a sample photograph: the body's middle and height, read off the picture.
_BY_EYE = {
    "nadal.png": Somebody(413, 197, 252),
    "roger.png": Somebody(964, 653, 477),
    "shihen.png": Somebody(197, 443, 275),
    "singer.jpg": Somebody(576, 1126, 993),
}


def samples(data: Path) -> Photographs:
    """The release's sample photographs of one whole person that are here."""
    paths = {data / "samples" / name: [person] for name, person in _BY_EYE.items()}
    return {path: people for path, people in paths.items() if path.exists()}


def hog(image: np.ndarray) -> list[Somebody]:
    """OpenCV's detector."""
    return [Somebody(x + w / 2, y + h / 2, h) for x, y, w, h in detect_people(image)]


def heads(finder: HeadFinder) -> Detector:
    """The pose network's own heads and necks."""

    def find(image: np.ndarray) -> list[Somebody]:
        people = finder.search(image).people
        return [Somebody(*person.center, person.scale * UNIT_HEIGHT) for person in people]

    return find


def main() -> None:
    """Print a row for each set of photographs and detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("."))
    parser.add_argument("--model", default=str(embedded()))
    parser.add_argument("--every", type=int, default=20, help="of Leeds' test images")
    parser.add_argument(
        "--thresholds", default=str(THRESHOLD), help="confidences, comma between them"
    )
    options = parser.parse_args()
    predictor = Predictor.load(options.model)
    detectors: dict[str, Detector] = {"hog": hog}
    for text in options.thresholds.split(","):
        detectors[f"heads > {text}"] = heads(
            HeadFinder(
                predictor.net,
                predictor.protocol.boxsize,
                predictor.skeleton.parts,
                predictor.look,
                threshold=float(text),
            )
        )
    sets = {
        "FLIC": flic(options.data),
        "Leeds": leeds(options.data, options.every),
        "samples": samples(options.data),
    }
    print(f"{'photographs':12}{'detector':14}{'people found':>18}{'boxes':>8}{'s/image':>9}")
    for name, photographs in sets.items():
        if not photographs:
            print(f"{name:12}not there")
            continue
        for label, detector in detectors.items():
            people = hits = boxes = 0
            start = time.perf_counter()
            for path, truth in photographs.items():
                found = detector(cv2.imread(str(path)))
                boxes += len(found)
                people += len(truth)
                hits += sum(any(one.is_found_by(box) for box in found) for one in truth)
            seconds = (time.perf_counter() - start) / len(photographs)
            share = f"{hits} of {people} ({hits / people:.0%})"
            print(f"{name:12}{label:14}{share:>18}{boxes:8}{seconds:9.2f}", flush=True)


if __name__ == "__main__":
    main()
