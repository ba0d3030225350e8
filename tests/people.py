"""Synthetic people in synthetic images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from reproduce.people.annotation import Annotation, Other, counted_from_0


def person(rng: np.random.Generator, width: int, height: int) -> Other:
    """A person somewhere in an image of this size, as a file counts pixels: from 1."""
    joints = np.column_stack(
        [rng.uniform(1, width, 16), rng.uniform(1, height, 16), rng.integers(0, 2, 16)]
    ).round(3)
    return Other(
        joints,
        np.array([width * 0.5, height * 0.45]).round(3),
        round(float(rng.uniform(0.3, 0.7)), 3),
    )


def annotation(
    rng: np.random.Generator, name: str, width: int, height: int, others: int = 0, number: int = 1
) -> Annotation:
    """A record's annotation."""
    own = person(rng, width, height)
    in_a_file = Annotation(
        image=name,
        dataset="MPI",
        joints=own.joints,
        objpos=own.objpos,
        scale=own.scale,
        size=(width, height),
        others=tuple(person(rng, width, height) for _ in range(others)),
        validation=number % 5 == 0,
        annolist_index=number,
        people_index=1,
    )
    return counted_from_0(in_a_file)


def dataset(folder: Path, count: int, seed: int = 0) -> list[Annotation]:
    """Images under MPI/images and their annotations; some narrow, some with other people."""
    rng = np.random.default_rng(seed)
    images = folder / "MPI" / "images"
    images.mkdir(parents=True)
    found = []
    for i in range(count):
        width, height = (
            (50 if i % 7 == 3 else int(rng.integers(80, 150))),
            int(rng.integers(70, 120)),
        )
        noise = cv2.resize(
            rng.integers(0, 256, (12, 12, 3), np.uint8),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        name = f"im{i:04d}.{'jpg' if i % 2 else 'png'}"
        cv2.imwrite(str(images / name), noise)
        found.append(annotation(rng, name, width, height, i % 3, i + 1))
    return found


def leeds(folder: Path, trained: int = 12, tested: int = 2) -> Path:
    """A folder like that of LSP and LSPET with made-up people, few of whom have a picture."""
    rng = np.random.default_rng(0)
    joints = np.empty((14, 3, 2000))
    joints[:, :2] = rng.uniform(10, 100, (14, 2, 2000))
    joints[:, 2] = 1
    for name, people in (("lsp", joints.transpose(1, 0, 2)), ("lspet", joints[:, :, :trained])):
        (folder / name / "images").mkdir(parents=True)
        savemat(folder / name / "joints.mat", {"joints": people})
    numbers = [f"lsp/images/im{1001 + i:04d}" for i in range(tested)]
    numbers += [f"lspet/images/im{1 + i:05d}" for i in range(trained)]
    for number in numbers:
        noise = rng.integers(0, 256, (12, 10, 3), np.uint8)
        picture = cv2.resize(noise, (110, 130), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), picture)
    return folder
