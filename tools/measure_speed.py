"""Run every benchmark and keep the medians for README, docs and report
(reproduce/results/speed.json).

    python tools/measure_speed.py --data DIR
    python tools/measure_speed.py --only forward-vgg --only train

Each benchmark compares in one run, ours and the peers in turn. Nothing else may run on the machine
meanwhile: about half an hour on two cores. A part's numbers are kept as soon as they are there; the
same command goes on with the parts that this machine has not measured with these very programs.
``--again`` measures them all. At the end the tables of README.md and docs/engine.md are made anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import write_json
from reproduce.report.measured import Measurement, Speed, SpeedRow, read_speed
from reproduce.runtime.provenance import provenance

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
TARGET = ROOT / "reproduce" / "results" / "speed.json"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A run of a benchmark and its line of the table.

    Attributes
    ----------
    name : what ``--only`` calls it.
    what : is measured.
    bench : the script ``bench_NAME.py`` that measures it.
    unit : of the numbers.
    more_is_better : or less.
    ours : key of our number in the script's JSON.
    peers : label and key of each other number.
    options : of the script.
    small : options that make it a matter of seconds, for a test.
    photographs : whether it works on images of the data folder.
    """

    name: str
    what: str
    bench: str
    unit: str = "s"
    more_is_better: bool = False
    ours: str = "ours_s"
    peers: Mapping[str, str]
    options: Sequence[str] = ()
    small: Sequence[str] = ()
    photographs: bool = False


_FORWARD = {"torch, channels-last": "torch_channels_last_s", "OpenCV": "opencv_s"}
_NETWORKS = {
    "cpm": "forward pass, 6 stages, 368×368, one image",
    "vgg": "forward pass, VGG front, 368×368, one image",
    "person": "forward pass, person finder, 376×656, one image",
}
_SIZES = {"cpm": "368", "vgg": "368", "person": "376"}


def _forward(model: str, busy: bool) -> Part:
    """A released network's forward pass, on an idle machine or beside another program."""
    return Part(
        name=f"forward-{model}{'-busy' if busy else ''}",
        what=_NETWORKS[model] + (", another program on one core" if busy else ""),
        bench="forward",
        peers=_FORWARD,
        options=("--model", model, "--size", _SIZES[model], *(["--busy"] if busy else [])),
        small=("--model", model, "--size", "64", "--stages", "2", "--repeat", "1"),
    )


PARTS = (
    *(_forward(model, False) for model in _NETWORKS),
    *(_forward(model, True) for model in _NETWORKS),
    Part(
        name="load",
        what="loading the released 6-stage network",
        bench="load",
        peers={"OpenCV": "opencv_s"},
        small=("--stages", "2", "--size", "64", "--repeat", "1"),
    ),
    Part(
        name="predict",
        what="LSP's protocol, 7 scales, files to joints",
        bench="predict",
        unit="people/s",
        more_is_better=True,
        ours="ours_people_per_s",
        peers={"torch, channels-last": "direct_people_per_s", "OpenCV": "opencv_people_per_s"},
        small=("--stages", "2", "--size", "64", "--people", "1", "--rounds", "1"),
        photographs=True,
    ),
    Part(
        name="train",
        what="training step, 3 stages, 368×368, batch of 4",
        bench="train",
        ours="ours_step_s",
        peers={
            "torch, channels-last": "torch_channels_last_step_s",
            "torch, default layout": "torch_step_s",
        },
        small=("--stages", "2", "--size", "64", "--batch", "1", "--repeat", "1"),
    ),
)


def code_digest() -> str:
    """One text for everything that is timed: it changes with any program of both packages and of
    this folder."""
    digest = hashlib.sha256()
    for folder in (ROOT / "caffe_compat", ROOT / "reproduce", TOOLS):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def this_run(data: Path | None) -> Measurement:
    """What is written beside each number."""
    return Measurement(
        **provenance(
            "python tools/measure_speed.py",
            "LSP images" if data is not None else "images made up",
            torch=torch.__version__,
            opencv=cv2.__version__,
            code=code_digest(),
        )
    )


def missing(parts: Sequence[Part], stored: Sequence[SpeedRow], now: Measurement) -> list[Part]:
    """Parts that this machine has not measured with these very programs."""

    def same(row: SpeedRow, part: Part) -> bool:
        about = row.provenance
        known = (about.machine, about.code, about.torch, about.opencv)
        images = not part.photographs or about.data == now.data
        return known == (now.machine, now.code, now.torch, now.opencv) and images

    rows = {row.part: row for row in stored}
    return [part for part in parts if part.name not in rows or not same(rows[part.name], part)]


def row_of(part: Part, found: Mapping[str, Any], now: Measurement) -> SpeedRow:
    """A part's line from what its script wrote.

    Raises
    ------
    DataError : the script did not write one of the numbers.
    """
    keys = [part.ours, *part.peers.values()]
    lacking = [key for key in keys if not isinstance(found.get(key), float | int)]
    if lacking:
        raise DataError(f"bench_{part.bench}.py wrote no number {', '.join(lacking)}")
    return SpeedRow(
        part=part.name,
        what=part.what,
        unit=part.unit,
        more_is_better=part.more_is_better,
        ours=found[part.ours],
        peers={label: found[key] for label, key in part.peers.items()},
        provenance=now,
    )


def merged(stored: Sequence[SpeedRow], new: SpeedRow) -> Speed:
    """The stored lines with a new one in place of its part's, in the order of the parts."""
    rows = {**{row.part: row for row in stored}, new.part: new}
    order = [part.name for part in PARTS]
    return Speed(tuple(rows[name] for name in order if name in rows))


def measure(part: Part, data: Path | None, small: bool) -> dict[str, Any]:
    """Run a part's script; what it wrote as JSON."""
    options = part.small if small else part.options
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "found.json"
        command = [sys.executable, str(TOOLS / f"bench_{part.bench}.py"), "--json", str(out)]
        command += options
        if part.photographs and data is not None:
            command += ["--data", str(data)]
        subprocess.run(command, check=True)
        return dict(json.loads(out.read_text(encoding="utf-8")))


def main() -> int:
    """Measure and write."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with lsp/: real images for 'predict'")
    parser.add_argument(
        "--only", action="append", choices=names, help="this part; may be given several times"
    )
    parser.add_argument("--again", action="store_true", help="also what is measured already")
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument(
        "--small", action="store_true", help="tiny networks: proves that it runs; needs a --target"
    )
    options = parser.parse_args()
    if options.small and options.target.resolve() == TARGET:
        parser.error("--small measures nothing worth keeping: give another --target")
    now = this_run(options.data)
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    stored = read_speed(options.target).rows
    wanted = parts if options.again else missing(parts, stored, now)
    for part in parts:
        if part not in wanted:
            print(f"{part.name}: measured already (--again measures it anew)")
    failed = []
    for part in wanted:
        print(f"{part.name}: {part.what}", flush=True)
        try:
            row = row_of(part, measure(part, options.data, options.small), now)
        except (subprocess.CalledProcessError, CaffeCompatError) as error:
            print(f"{part.name}: failed: {error}", file=sys.stderr)
            failed.append(part.name)
            continue
        speed = merged(read_speed(options.target).rows, row)
        write_json(options.target, dataclasses.asdict(speed))
    if options.target.resolve() == TARGET:
        from make_docs import write_speed_tables

        write_speed_tables()
    print(options.target)
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
