"""What tests of ``cpm-predict`` share: untrained models, pictures and films of noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner, Result

from caffe_compat import Net, write_weights
from reproduce.cli import predict
from reproduce.network import netgen
from tests.nets import TINY_MACHINE


def write_model(path: Path, seed: int) -> Path:
    """An untrained pose machine."""
    net = Net(netgen.deploy(TINY_MACHINE), seed=seed)
    write_weights(path, net.weights(), net.graph.spec)
    return path


def run_predict(*args: object, errors: bool = False) -> Result:
    """``cpm-predict`` with these words, on the CPU; ``errors``: those of a test come out."""
    words = [str(word) for word in (*args, "--device", "cpu", "--workers", "0")]
    return CliRunner().invoke(predict.main, words, catch_exceptions=not errors)


def write_picture(path: Path, seed: int = 0) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 50, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def write_film(path: Path, frames: int = 4, seed: int = 0) -> Path:
    """Write a film of noise."""
    rng = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path
