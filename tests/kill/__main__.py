"""``python -m tests.kill --n 300``: kills of every command in turn, a line of counts for each."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from tests.kill.run import WORKS, kill, prepare


def main() -> None:
    """Kill, and print how many of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", action="append", choices=list(WORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.work or list(WORKS)
    with tempfile.TemporaryDirectory(prefix="kill-input-") as folder:
        prepare(Path(folder))
        for name in chosen:
            counts = kill(name, Path(folder), -(-options.n // len(chosen)), options.seed)
            print(f"{name:22} {counts}", flush=True)
    print("nothing was lost")


if __name__ == "__main__":
    main()
