"""Loading the 125 MB model: ours against OpenCV's Caffe importer, in turn, in one run.

python tools/bench_load.py --json out/load.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import torch
from bench_forward import write_model
from timing import in_turn, keep, machine, medians, network_parser

from caffe_compat import Net, read_net, read_weights


def main() -> None:
    """Run the benchmark."""
    command = network_parser(__doc__, stages=6)
    command.add_argument("--repeat", type=int, default=7)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        prototxt, model = write_model(Path(name), options.stages, options.size)
        loaders = {
            "ours": lambda: Net(read_net(prototxt), read_weights(model)),
            "OpenCV": lambda: cv2.dnn.readNetFromCaffe(str(prototxt), str(model)),
        }
        in_turn(loaders, 1)  # not counted: the files come into the page cache
        times = in_turn(loaders, options.repeat)
        size = model.stat().st_size / 1e6
    print(machine())
    median = medians(times)
    for engine, values in times.items():
        print(f"{engine:8s} {size:.0f} MB: min {min(values):.3f} s, median {median[engine]:.3f} s")
    print(f"ours / OpenCV (medians): {median['ours'] / median['OpenCV']:.2f}")
    keep(
        options.json,
        {
            "ours_s": median["ours"],
            "opencv_s": median["OpenCV"],
            "megabytes": size,
            "machine": machine(),
        },
    )


if __name__ == "__main__":
    main()
