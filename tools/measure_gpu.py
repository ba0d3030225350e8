"""Everything that a GPU is wanted for, in one call of less than 20 minutes: one JSON, one log.

    python tools/measure_gpu.py --pack leeds.tar.gz --data DIR     # once, where the data are
    python tools/measure_gpu.py --out out/gpu --data leeds.tar.gz  # on the machine with the GPU

Sections, each with a budget of its own: the recorded cases on the device; what the chip does in a
large matrix product (fractions of the peak are of this number); the released networks at several
batches, in several precisions and ways; the LSP protocol in people per second; a training step;
what bf16 costs in PCK; and in the time that is left the first iterations of the ``paper`` profile.
A section that fails is noted and the rest goes on. The same call skips sections that are complete,
does the others again, and goes on with the training.

``--smoke`` runs the same code on the CPU at tiny sizes; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu_data
from gpu_run import FULL, SMOKE, OutOfTimeError, Run, allow_tf32, first_line
from gpu_sections import SECTIONS

from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import write_json
from reproduce.runtime.provenance import provenance


def measure(run: Run, wanted: Sequence[str], again: bool) -> dict[str, Any]:
    """All wanted sections; what is complete in ``measured.json`` already is kept.

    The training is never complete: every call goes on with it.
    """
    target = run.out / "measured.json"
    content: dict[str, Any] = {"sections": {}}
    if target.exists() and not again:
        content = json.loads(target.read_text(encoding="utf-8"))
    gpu = torch.cuda.get_device_name() if run.device == "cuda" else ""
    about = provenance(
        "python tools/measure_gpu.py", str(run.data), torch=torch.__version__, gpu=gpu
    )
    if content.get("gpu") not in (None, gpu):
        raise CaffeCompatError(f"{target}: was measured on {content['gpu']}; give another --out")
    content["gpu"] = gpu
    start = time.monotonic()
    for name in wanted:
        stored = content["sections"].get(name, {})
        if stored.get("state") == "complete" and name != "first_iterations":
            run.say(f"{name}: complete already")
            continue
        left = run.sizes.seconds - (time.monotonic() - start)
        run.until = time.monotonic() + min(left, SECTIONS[name].share * run.sizes.seconds)
        run.before = {key: one["found"] for key, one in content["sections"].items()}
        content["sections"][name] = {**_measured(run, name), "provenance": about}
        write_json(target, content)
    return content


def _measured(run: Run, name: str) -> dict[str, Any]:
    """One section's state, its reason and what it found, whatever happens in it."""
    run.found = {}
    run.say(f"{name}: {max(0, run.left):.0f} s at most")
    began = time.monotonic()
    state, why = "complete", ""
    try:
        run.check_time()
        SECTIONS[name].work(run)
    except OutOfTimeError as problem:
        state, why = "out of time", str(problem)
    except Exception as problem:  # the other sections go on
        state, why = "failed", first_line(problem)
        run.say("".join(traceback.format_exception(problem)))
    finally:
        allow_tf32(False)
        if run.device == "cuda":
            torch.cuda.empty_cache()
    took = time.monotonic() - began
    run.say(f"{name}: {state} in {took:.0f} s{': ' if why else ''}{why}")
    return {"state": state, "why": why, "seconds": took, "found": run.found}


@contextmanager
def log_of(out: Path) -> Iterator[Callable[[str], None]]:
    """What writes a line to the screen and, with the time, into ``measured.log``."""
    with (out / "measured.log").open("a", encoding="utf-8") as log:

        def say(text: str) -> None:
            print(text, flush=True)
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            log.flush()

        yield say


def run_of(options: argparse.Namespace, say: Callable[[str], None]) -> Run:
    """The run that the command line asks for; a packed file is unpacked."""
    sizes = SMOKE if options.smoke else FULL
    if options.seconds is not None:
        sizes = replace(sizes, seconds=options.seconds)
    packed = None
    if options.data is not None:
        packed = gpu_data.unpack(options.data, options.out.resolve() / "data")
        say(f"data: {packed.trained} people to train on, {packed.tested} to test on")
    else:
        say("no --data: pictures are made up; bf16's cost and the training are left out")
    return Run(
        device="cpu" if options.smoke else "cuda",
        sizes=sizes,
        out=options.out,
        data=packed.folder if packed else None,
        records=packed.records if packed else None,
        golden=options.golden.resolve() if options.golden else None,
        say=say,
    )


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    parser.add_argument("--data", type=Path, help="a packed file; for --pack a folder with lsp/")
    parser.add_argument("--golden", type=Path, help="folder of the recorded cases")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="pack --data into this file")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="this section")
    parser.add_argument("--again", action="store_true", help="also what is complete already")
    parser.add_argument("--seconds", type=float, help=f"for everything ({FULL.seconds:.0f})")
    parser.add_argument("--smoke", action="store_true", help="tiny, on the CPU; proves the code")
    return parser


def main() -> int:
    """Measure, or pack the data for it."""
    parser = arguments()
    options = parser.parse_args()
    if options.pack is not None:
        if options.data is None:
            parser.error("--pack needs the folder of the data: --data DIR")
        made = gpu_data.pack(options.data, options.pack)
        size = f"{made['bytes'] / 2**20:.1f} MiB"
        people = f"{made['trained']} people to train on, {made['tested']} to test on"
        print(f"{options.pack}: {size}, {people}")
        return 0
    if not options.smoke and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured on a GPU (--smoke tries the code)")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with log_of(options.out) as say:
        run = run_of(options, say)
        content = measure(run, options.only or list(SECTIONS), options.again)
        states = {name: one["state"] for name, one in content["sections"].items()}
        say(", ".join(f"{name}: {state}" for name, state in states.items()))
        if options.smoke:
            say("tiny sizes on the CPU: nothing was measured on a GPU")
    return 1 if "failed" in states.values() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CaffeCompatError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
