"""Exporting LSPET to LMDB: ours against a straightforward port of the original script, in turn, on
the same images.

The port does what the original did: one loop; decode with OpenCV, planes by transposing, the
metadata plane element by element, the Datum through protobuf, one put per record, a commit every
1000.

    python tools/bench_export.py ../shared/data
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import lmdb
import numpy as np
from timing import machine, parser, seconds_of

from caffe_compat.definition import schema
from reproduce.people import lsp_files
from reproduce.people.annotation import Annotation, counted_from_1
from reproduce.records import encoding, store


def floats(values: object) -> list[int]:
    """Bytes of float32 values, one by one, as the script packed them."""
    return [byte for value in np.asarray(values).ravel() for byte in struct.pack("<f", value)]


def straightforward(plan: store.Plan, root: Path, out: Path) -> None:
    """The original script's way, step by step."""
    env = lmdb.open(str(out), map_size=1 << 40)
    transaction = env.begin(write=True)
    datum_class = schema.message_class("Datum")
    for count, a in enumerate(map(counted_from_1, plan.annotations)):
        image = cv2.imread(str(encoding.image_path(root, a)))
        if image.shape[1] < 64:
            image = cv2.copyMakeBorder(
                image, 0, 0, 0, 64 - image.shape[1], cv2.BORDER_CONSTANT, value=(128, 128, 128)
            )
        height, width = image.shape[:2]
        meta = np.zeros((height, width, 1), np.uint8)
        rows: list[list[int]] = [
            [ord(c) for c in a.dataset],
            floats([a.size[1], a.size[0]]),
            [
                int(a.validation),
                len(a.others),
                a.people_index,
                *floats([a.annolist_index, count, plan.total]),
            ],
            floats(a.objpos),
            floats([a.scale]),
            *(floats(a.joints[:, c]) for c in range(3)),
        ]
        for i, row in enumerate(rows):
            for j, byte in enumerate(row):
                meta[i, j] = byte
        planes = np.concatenate((image, meta), axis=2).transpose((2, 0, 1))
        datum = datum_class(
            channels=planes.shape[0], height=height, width=width, data=planes.tobytes(), label=0
        )
        transaction.put(b"%07d" % count, datum.SerializeToString())
        if (count + 1) % 1000 == 0:
            transaction.commit()
            transaction = env.begin(write=True)
    transaction.commit()
    env.close()


def main() -> None:
    """Run the benchmark."""
    command = parser(__doc__)
    command.add_argument("data", type=Path, help="folder with lspet/ and lsp/")
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--workers", type=int, default=2)
    options = command.parse_args()
    people: list[Annotation] = [
        a for a in lsp_files.read_training(options.data, skip_missing=True) if "lspet" in a.image
    ]
    plan = store.plan(people, seed=0)

    def ours(out: Path, jpeg: bool = False) -> None:
        store.export_lmdb(plan, options.data, out, workers=options.workers, jpeg=jpeg)

    ways: dict[str, Callable[[Path], None]] = {
        "ours": ours,
        "ours --jpeg": partial(ours, jpeg=True),
        "port": partial(straightforward, plan, options.data),
    }
    best = dict.fromkeys(ways, float("inf"))
    sizes = {}
    with tempfile.TemporaryDirectory() as name:
        for i in range(options.repeat):
            for what, export in ways.items():
                out = Path(name) / f"{what.replace(' ', '')}{i}"
                best[what] = min(best[what], seconds_of(partial(export, out)))
                sizes[what] = sum(p.stat().st_size for p in out.iterdir()) / 1e6
                shutil.rmtree(out)  # 3 GB each would fill the page cache
    print(machine())
    for what, seconds in best.items():
        print(
            f"{what:12s} {plan.total} records in {seconds:.2f} s: {plan.total / seconds:.0f}/s, "
            f"{sizes[what]:.0f} MB"
        )
    print(
        f"ours is {best['port'] / best['ours']:.2f} times as fast as the port (best of "
        f"{options.repeat})"
    )


if __name__ == "__main__":
    main()
