"""``python -m tests.fuzz --n 20000``: the readers in turn, a line of counts for each."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz, seeds

# readers that cost more than a few milliseconds an input get a smaller share
_SLOW = {"solver": 8, "containers": 4, "caffemodel": 4, "note": 8, "prototxt": 2, "flic": 2}


def main() -> int:
    """Fuzz, print counts, and say with the exit code whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=list(READERS))
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"))
    options = parser.parse_args()
    chosen = options.reader or list(READERS)
    shares = {name: 1 / _SLOW.get(name, 1) for name in chosen}
    failed = 0
    with seeds() as found:
        for name in chosen:
            count = max(1, round(options.n * shares[name] / sum(shares.values())))
            start = time.monotonic()
            outcome = fuzz(name, found[name], count, seed=options.seed, keep=options.keep)
            numbers = ", ".join(f"{n} {what}" for what, n in sorted(outcome.counts.items()))
            print(f"{name:14} {count:7}  {numbers}  {time.monotonic() - start:.0f} s", flush=True)
            for answer, file in outcome.failures[:20]:
                print(f"  {file}: {answer}")
            failed += len(outcome.failures)
    print(f"{failed} failures" + (f", kept in {options.keep}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
