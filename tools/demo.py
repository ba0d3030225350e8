"""What ``make demo`` does: write a released-size model, convert it, run it on a photograph, show its belief maps.

Until a trained network comes with the toolkit, the network is filled with Caffe's fillers: its maps show that the
machinery runs, not where anybody's joints are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch

from caffe_compat import Net
from caffe_compat.convert import convert
from reproduce.cpm import stage_outputs
from reproduce.pictures import montage
from reproduce.skeletons import skeleton
from reproduce.targets import center_map

BOX = 368


def photograph() -> np.ndarray:
    """A square crop of the photograph that ships with matplotlib, B, G, R, 368 pixels."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    side = min(image.shape[:2])
    return cv2.resize(image[:side, :side], (BOX, BOX), interpolation=cv2.INTER_AREA)


def command(*args: str) -> None:
    """Run one of our commands, as a user would."""
    print("$", " ".join(args), flush=True)
    subprocess.run([str(Path(sys.executable).parent / args[0]), *args[1:]], check=True)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--stages", default="6")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    model = out / "random_6stages.caffemodel"
    command("cpm-models", "random", "--stages", parser.parse_args().stages, "-o", str(model))
    command("cpm-convert", str(model), "-o", str(out / "random_6stages.safetensors"))
    made = convert(out / "random_6stages.safetensors")
    net = Net(made.graph, made.weights)
    image = photograph()
    data = np.empty((1, 4, BOX, BOX), np.float32)
    data[0, :3] = image.transpose(2, 0, 1) / np.float32(256) - np.float32(0.5)
    data[0, 3] = center_map(np.array([BOX / 2, BOX / 2], np.float32), BOX, BOX, 21)
    names = stage_outputs(made.graph)
    with torch.no_grad():
        net(torch.from_numpy(data), blobs=names)
        start = time.perf_counter()
        maps = net(torch.from_numpy(data), blobs=names)
        seconds = time.perf_counter() - start
    skeletal = skeleton(14)
    stages = [maps[name][0].numpy() for name in names]
    cv2.imwrite(str(out / "belief_maps.png"), montage(image, stages, [*skeletal.parts, "background"], tile=96))
    for name, stage in zip(names, stages, strict=True):
        print(f"{name:14s} {stage.shape}  min {stage.min():+.4f}  max {stage.max():+.4f}")
    print(f"one forward pass of {made.graph.count:,} parameters: {seconds:.2f} s with {torch.get_num_threads()} threads")
    print(f"picture: {out / 'belief_maps.png'}")


if __name__ == "__main__":
    main()
