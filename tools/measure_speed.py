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
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from caffe_compat.files import atomic_write
from reproduce.runtime.provenance import provenance

TOOLS = Path(__file__).parent
TARGET = TOOLS.parent / "reproduce" / "results" / "speed.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    what : is measured.
    bench : the script ``bench_NAME.py`` that measures it.
    unit : of the numbers.
    more_is_better : or less.
    ours : key of our number in the script's JSON.
    peers : label and key of each other number.
    """

    what: str
    bench: str
    unit: str
    more_is_better: bool
    ours: str
    peers: dict[str, str]


ROWS = (
    Row(
        what="forward pass, 6 stages, 368×368, one image",
        bench="forward",
        unit="s",
        more_is_better=False,
        ours="ours_s",
        peers={"torch, channels-last": "torch_channels_last_s", "OpenCV": "opencv_s"},
    ),
    Row(
        what="LSP's protocol, 7 scales, files to joints",
        bench="predict",
        unit="people/s",
        more_is_better=True,
        ours="ours_people_per_s",
        peers={"torch, channels-last": "direct_people_per_s", "OpenCV": "opencv_people_per_s"},
    ),
    Row(
        what="training step, 3 stages, 368×368, batch of 4",
        bench="train",
        unit="s",
        more_is_better=False,
        ours="ours_step_s",
        peers={
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
            "what": row.what,
            "unit": row.unit,
            "more_is_better": row.more_is_better,
            "ours": measured[row.bench][row.ours],
            "peers": {label: measured[row.bench][key] for label, key in row.peers.items()},
        }
        for row in ROWS
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
