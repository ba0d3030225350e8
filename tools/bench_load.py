"""Loading the 125 MB model: ours against OpenCV's Caffe importer, in turn, in one run.

python tools/bench_load.py --json out/load.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import torch
from bench_forward import machine, write_model

from caffe_compat import Net, read_net, read_weights
from caffe_compat.files import make_folder, write_json


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stages", type=int, default=6)
    parser.add_argument("--size", type=int, default=368)
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        prototxt, model = write_model(Path(name), options.stages, options.size)
        loaders = {
            "ours": lambda: Net(read_net(prototxt), read_weights(model)),
            "OpenCV": lambda: cv2.dnn.readNetFromCaffe(str(prototxt), str(model)),
        }
        times: dict[str, list[float]] = {engine: [] for engine in loaders}
        for load in loaders.values():
            load()
        for _ in range(options.repeat):
            for engine, load in loaders.items():
                start = time.perf_counter()
                load()
                times[engine].append(time.perf_counter() - start)
        size = model.stat().st_size / 1e6
    print(machine())
    for engine, values in times.items():
        print(
            f"{engine:8s} {size:.0f} MB: min {min(values):.3f} s, median "
            f"{statistics.median(values):.3f} s"
        )
    ours, opencv = (statistics.median(times[engine]) for engine in ("ours", "OpenCV"))
    print(f"ours / OpenCV (medians): {ours / opencv:.2f}")
    if options.json:
        report = {"ours_s": ours, "opencv_s": opencv, "megabytes": size, "machine": machine()}
        make_folder(options.json.parent)
        write_json(options.json, report)


if __name__ == "__main__":
    main()
