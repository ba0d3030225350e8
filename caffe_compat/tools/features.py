"""``extract-features``: blobs of a network, written to files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffe_compat.commands import Command
from caffe_compat.definition import schema
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import atomic_write, check_target, ending, write_hdf5
from caffe_compat.tools.opening import FILE, open_test_net

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_HDF5 = (".h5", ".hdf5")


@click.command("extract-features", cls=Command)
@click.argument("definition", type=FILE)
@click.argument("weights", type=FILE)
@click.argument("blobs")
@click.argument("targets")
@click.argument("batches", type=click.IntRange(1))
def extract_features(definition: str, weights: str, blobs: str, targets: str, batches: int) -> None:
    """Write BLOBS of BATCHES batches of the TEST data layers to TARGETS.

    BLOBS and TARGETS are names with commas between them, one target for each blob: a .npz or .h5
    file, or else the folder of an LMDB of Datums (float_data, keys of ten digits) as Caffe's.

    \b
    python -m caffe_compat.tools extract-features net.prototxt w.caffemodel fc7,prob 7.h5,p_lmdb 9
    """
    import numpy as np
    import torch

    names, places = blobs.split(","), targets.split(",")
    if len(names) != len(places):
        raise CaffeCompatError(f"{len(names)} blobs, {len(places)} targets: give one for each blob")
    if len({os.path.realpath(place) for place in places}) < len(places):
        raise CaffeCompatError(f"targets {targets}: give each blob a file of its own")
    for place in places:
        _check_place(place, (definition, weights))
    net, feed = open_test_net(definition, weights, 0, (), "compute from")
    if unknown := [name for name in names if name not in net.graph.blobs]:
        raise CaffeCompatError(
            f"no blob is called {', '.join(unknown)}; blobs: {', '.join(net.graph.blobs)}"
        )
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    with torch.no_grad():
        for number in range(batches):
            found = net(blobs=list(parts), **feed.batch(number, "cpu"))
            for name in parts:
                parts[name].append(found[name].float().contiguous().numpy())
    for name, place in zip(names, places, strict=True):
        rows = np.concatenate([np.atleast_1d(part) for part in parts[name]])
        _write_features(place, name, rows)
        click.echo(f"wrote {place}: {len(rows)} features of shape {rows.shape[1:]}")


def _check_place(place: str, inputs: tuple[str, ...]) -> None:
    """See that a target can be written, before the first of them is."""
    if not place:
        raise CaffeCompatError("a target has no name; give one for each blob, with commas between")
    if os.path.realpath(place) in map(os.path.realpath, inputs):
        raise CaffeCompatError(f"{place}: is read, too; choose another name for the features")
    if os.path.exists(place) and ending(place) not in (".npz", *_HDF5):
        raise CaffeCompatError(f"{place}: exists already; remove it or choose another name")
    check_target(place)


def _write_features(place: str, name: str, rows: npt.NDArray[np.float32]) -> None:
    if ending(place) == ".npz":
        import zipfile

        import numpy as np

        # as np.savez does, which cannot take the name "file"
        with (
            atomic_write(place) as file,
            zipfile.ZipFile(file, "w") as archive,
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
        ):
            np.lib.format.write_array(member, rows)
    elif ending(place) in _HDF5:
        with write_hdf5(place) as file:
            file[name] = rows
    else:
        _write_lmdb(place, rows)


def _write_lmdb(place: str, rows: npt.NDArray[np.float32]) -> None:
    """Datums with ``float_data``, one a row; the folder appears when it is whole."""
    import lmdb

    folder = os.path.dirname(os.path.abspath(place))
    try:
        partial = tempfile.mkdtemp(prefix=f".{os.path.basename(place)}.", dir=folder)
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror}") from None
    try:
        size = rows.nbytes * 2 + len(rows) * 4096 + (16 << 20)
        with lmdb.open(partial, map_size=size) as env, env.begin(write=True) as transaction:
            for number, row in enumerate(rows):
                shape = (*row.shape, 1, 1, 1)[:3]
                datum = schema.new("Datum")
                datum.channels = shape[0] if row.ndim <= 3 else row.size
                datum.height, datum.width = shape[1:] if row.ndim <= 3 else (1, 1)
                datum.float_data.extend(row.reshape(-1).tolist())
                transaction.put(b"%010d" % number, datum.SerializeToString())
        (Path(partial) / "lock.mdb").unlink(missing_ok=True)
        os.chmod(partial, 0o755)
        os.rename(partial, place)
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{place}: cannot be written: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
