"""Run the benchmarks one after another and keep their medians for the report
(reproduce/results/speed.json).

    python tools/measure_speed.py --data DIR

Each benchmark compares in one run, ours and the peers in turn. Nothing else may run on the machine
meanwhile: about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import torch

from caffe_compat.files import atomic_write
from reproduce.runtime.provenance import provenance

TOOLS = Path(__file__).parent
TARGET = TOOLS.parent / "reproduce" / "results" / "speed.json"
# (what, benchmark, unit, is more better, key of ours, keys of the peers)
ROWS = (
    (
        "forward pass, 6 stages, 368×368, one image",
        "forward",
        "s",
        False,
        "ours_s",
        {"torch, channels-last": "torch_channels_last_s", "OpenCV": "opencv_s"},
    ),
    (
        "LSP's protocol, 7 scales, files to joints",
        "predict",
        "people/s",
        True,
        "ours_people_per_s",
        {"torch, channels-last": "direct_people_per_s", "OpenCV": "opencv_people_per_s"},
    ),
    (
        "training step, 3 stages, 368×368, batch of 4",
        "train",
        "s",
        False,
        "ours_step_s",
        {
            "torch, channels-last": "torch_channels_last_step_s",
            "torch, default layout": "torch_step_s",
        },
    ),
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="Folder with lsp/: real images for the prediction benchmark."
    )
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        for bench in ("forward", "predict", "train"):
            out = Path(name) / f"{bench}.json"
            command = [sys.executable, str(TOOLS / f"bench_{bench}.py"), "--json", str(out)]
            if bench == "predict" and options.data is not None:
                command += ["--data", str(options.data)]
            print(f"bench_{bench}", flush=True)
            subprocess.run(command, check=True)
            measured[bench] = json.loads(out.read_text(encoding="utf-8"))
    rows = [
        {
            "what": what,
            "unit": unit,
            "more_is_better": more,
            "ours": measured[bench][ours],
            "peers": {label: measured[bench][key] for label, key in peers.items()},
        }
        for what, bench, unit, more, ours, peers in ROWS
    ]
    data = "LSP images" if options.data is not None else "images made up"
    about = provenance(
        "python tools/measure_speed.py", data, torch=torch.__version__, opencv=cv2.__version__
    )
    with atomic_write(TARGET) as stream:
        stream.write(
            (
                json.dumps({"provenance": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
            ).encode()
        )
    print(TARGET)


if __name__ == "__main__":
    main()
