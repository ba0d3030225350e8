"""Runs the recorded cases and writes what they measured: reproduce/results/parity.json, which docs
and report show.

CPM_GOLDEN=... CPM_DATA=... python tools/measure_parity.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from caffe_compat.files import write_json
from reproduce.report.measured import Measurement, Parity, ParityRow, read_parity
from reproduce.runtime.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "reproduce" / "results" / "parity.json"


def main() -> None:
    """Run pytest on the golden cases and gather."""
    with tempfile.TemporaryDirectory() as name:
        env = {**os.environ, "CPM_PARITY": str(Path(name) / "noted")}
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "golden and not gpu"],
            cwd=ROOT,
            env=env,
            check=True,
        )
        found: dict[str, list[float]] = {}
        for path in Path(name).glob("noted.*"):
            for line in path.read_text(encoding="utf-8").splitlines():
                what, difference = json.loads(line)
                found.setdefault(what, []).append(difference)
    if not found:
        sys.exit("no recorded case was measured: are the recorded outputs there (CPM_GOLDEN)?")
    about = Measurement(**provenance("python tools/measure_parity.py", "", torch=torch.__version__))
    rows = tuple(ParityRow(w, len(d), max(d)) for w, d in sorted(found.items()))
    write_json(TARGET, dataclasses.asdict(Parity(about, rows)))
    for row in read_parity(TARGET).rows:  # type: ignore[union-attr]
        print(f"{row.what}: {row.cases} comparisons, {row.largest:.2e} at most")
    print(TARGET)


if __name__ == "__main__":
    main()
