"""``cpm-export``: annotations to the authors' JSON, records, prototxts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import CommandGroup
from caffe_compat.errors import DataError, printable
from caffe_compat.files import check_target, ending
from reproduce.cli.common import (
    FILE,
    SEED,
    WORKERS,
    common,
    examples,
    joints_option,
    pixels_option,
    say_line,
)
from reproduce.cli.proto import proto

if TYPE_CHECKING:
    from reproduce.people.annotation import Annotation
    from reproduce.records.store import Store
    from reproduce.samples.augment import Settings


@click.group(
    cls=CommandGroup,
    epilog=examples(
        "cpm-export json leeds --data DOWNLOADS -o leeds.json",
        "cpm-export lmdb leeds.json --data DOWNLOADS -o leeds.lmdb",
        "cpm-export preview leeds.lmdb -o look.png",
        "cpm-export proto -o net --stages 3 --source ../leeds.lmdb",
    ),
)
@common
def main() -> None:
    """The original preprocessing: data sets to JSON to LMDB, and prototxts."""


@main.command(
    "json",
    epilog=examples(
        "cpm-export json mpi --data DOWNLOADS -o mpi.json",
        "cpm-export json leeds --data DOWNLOADS --skip-missing -o leeds.json",
        "cpm-export json coco --data person_keypoints_train2017.json -o coco.json",
    ),
)
@click.argument("dataset", type=click.Choice(["mpi", "leeds", "flic", "coco"]))
@click.option(
    "--data",
    required=True,
    type=FILE,
    help="Folder that holds the download (coco: its JSON file).",
)
@click.option("-o", "--out", required=True, type=FILE, help="The JSON file to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["authors", "coco"]),
    default="authors",
    show_default=True,
)
@click.option("--skip-missing", is_flag=True, help="Leave out people whose image is not there.")
@click.option(
    "--own-keypoints",
    is_flag=True,
    help="coco: keep the file's own key points (any number of them).",
)
@click.option(
    "--images",
    type=click.Path(file_okay=False, exists=True),
    help="coco: the folder that the names of images count from (default: that of the JSON file).",
)
def json_(
    dataset: str,
    data: str,
    out: str,
    format_: str,
    skip_missing: bool,
    own_keypoints: bool,
    images: str | None,
) -> None:
    """Write the authors' JSON (or COCO's) of a DATASET's download."""
    from reproduce.people import coco_files, flic_files, lsp_files, mpii_files
    from reproduce.people.annotation import write_json

    if own_keypoints and dataset != "coco":
        raise DataError(f"--own-keypoints goes with coco, {dataset} has its own joints")
    if images is not None and dataset != "coco":
        raise DataError(f"--images goes with coco: --data is the folder of {dataset}'s images")
    check_target(out)
    if Path(out).exists() and Path(out).samefile(data):
        raise DataError(f"-o {out}: is the file that is read; choose another name")
    left_out: list[str] = []
    passed_over: list[str] = []
    missing: dict[str, Any] = {"skip_missing": skip_missing, "left_out": left_out}
    # each gives the people and MPII's trailing record, which the other data sets have not
    readers: dict[str, Callable[[], tuple[list[Annotation], bool | None]]] = {
        "mpi": lambda: mpii_files.read_folder(data, passed_over=passed_over, **missing),
        "leeds": lambda: (lsp_files.read_training(data, **missing), None),
        "flic": lambda: (flic_files.read_folder(data, **missing), None),
        "coco": lambda: (
            coco_files.read(data, own=own_keypoints, pictures=images, **missing),
            None,
        ),
    }
    found, stub = readers[dataset]()
    if not found and left_out:
        where = images or (Path(data).parent if dataset == "coco" else data)
        other = "; --images names another folder" if dataset == "coco" else ""
        raise DataError(
            f"{data}: none of the images of its {len(left_out)} people is in {where}{other}"
        )
    if not found:
        raise DataError(f"{data}: no people found")
    names = coco_files.keypoint_names(data) if own_keypoints else ()
    if format_ == "coco":
        coco_files.write(out, found, names=names)
    else:
        write_json(out, found, stub=stub)
    without = f", {len(left_out)} left out: image not there" if left_out else ""
    click.echo(f"{len(found)} people written to {out}{without}")
    for what, count in Counter(passed_over).items():
        click.echo(f"{count} passed over, as by the original script: no {what} annotated")
    if own_keypoints:
        listed = shlex.quote(printable(",".join(names)))
        click.echo("for cpm-export proto:")
        click.echo(f"--np-in-lmdb {len(names)} --part-names {listed}")


@main.command(
    epilog=examples(
        "cpm-export lmdb leeds.json --data DOWNLOADS -o leeds.lmdb",
        "cpm-export lmdb mpi.json leeds.json --data DOWNLOADS -o both.lmdb --jpeg",
    )
)
@click.argument("annotations", nargs=-1, required=True, type=FILE)
@click.option("--data", required=True, type=FILE, help="Folder of the images.")
@click.option("-o", "--out", required=True, type=FILE, help="The LMDB folder to write.")
@click.option("--validation", is_flag=True, help="Leave out the validation split.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of the permutation (numpy's legacy generator).",
)
@click.option(
    "--jpeg",
    is_flag=True,
    help="Keep the original compressed images (smaller; not for Caffe itself).",
)
@click.option("--skip-bad", is_flag=True, help="List missing and damaged images and go on.")
@click.option(
    "--allow-outside",
    is_flag=True,
    help="Follow image names that lead out of the folder of images (absolute, or with ..).",
)
@click.option(
    "--workers",
    default=2,
    show_default=True,
    type=WORKERS,
    help="Threads that decode images.",
)
@pixels_option
def lmdb(
    annotations: tuple[str, ...],
    data: str,
    out: str,
    validation: bool,
    seed: int | None,
    jpeg: bool,
    skip_bad: bool,
    allow_outside: bool,
    workers: int,
) -> None:
    """Write records as the original script did, from its JSON files.

    They grow in OUT.partial; where the export is stopped, the same command goes on from there.
    """
    from reproduce.people.annotation import read_json
    from reproduce.records import store
    from reproduce.records.joints import check_files
    from reproduce.runtime.progress import progress

    files = [(name, read_json(name)) for name in annotations]
    check_files(files)
    people = [a for _, found in files for a in found]
    made = store.plan(people, validation=validation, seed=seed)
    with progress(made.total, "records") as bar:

        def advance(done: int, total: int) -> None:
            bar.update(done - bar.n)

        skipped = store.export_lmdb(
            made,
            data,
            out,
            jpeg=jpeg,
            skip_bad=skip_bad,
            outside=allow_outside,
            workers=workers,
            progress=advance,
        )
    size = sum(p.stat().st_size for p in Path(out).iterdir()) / 1e6
    click.echo(f"{made.total - len(skipped)} records written to {out} ({size:.1f} MB)")
    for line in skipped:
        say_line(f"skipped {line}", err=True)


@main.command(
    epilog=examples(
        "cpm-export hdf5 leeds.lmdb -o leeds.h5",
        "cpm-export hdf5 leeds.h5 -o leeds.lmdb",
    )
)
@click.argument("source", type=FILE)
@click.option(
    "-o",
    "--out",
    required=True,
    type=FILE,
    help="HDF5 file to write; or an LMDB folder from an HDF5 file.",
)
@joints_option
def hdf5(source: str, out: str, joints: int | None) -> None:
    """Convert records from LMDB to HDF5, or back, without loss.

    A conversion that is interrupted leaves nothing under its name; the same command begins anew.
    """
    from reproduce.records import hdf5 as records
    from reproduce.records.store import LMDBStore
    from reproduce.runtime.progress import progress

    if records.holds_hdf5(source):
        if joints is not None:
            raise DataError("--joints goes with an LMDB: an HDF5 file says how many there are")
        store = records.HDF5Store(source)
        with progress(len(store), "records") as bar:
            records.to_lmdb(store, out, lambda done, total: bar.update(done - bar.n) and None)
        click.echo(f"{len(store)} records written to {out}")
        return
    check_target(out)
    if ending(out) not in records.ENDINGS:
        raise DataError(
            f"-o {out}: {source} is an LMDB, whose records become an HDF5 file: give a name that "
            "ends in .h5 or .hdf5, by which the other commands know one"
        )
    lmdb_store = LMDBStore(source, joints)
    with progress(len(lmdb_store), "records") as bar:
        records.from_lmdb(lmdb_store, out, lambda done, total: bar.update(done - bar.n) and None)
    click.echo(
        f"{len(lmdb_store)} records written to {out} ({Path(out).stat().st_size / 1e6:.1f} MB)"
    )


@main.command(epilog=examples("cpm-export show leeds.lmdb 7 -o record.png"))
@click.argument("file", type=FILE)
@click.argument("key", required=False)
@joints_option
@click.option("-o", "--out", type=FILE, help="Also draw the record into this PNG or JPEG.")
@pixels_option
def show(file: str, key: str | None, joints: int | None, out: str | None) -> None:
    """Print a record's annotation (default: the first) and draw it.

    KEY is the record's key, as messages name it: 7 or 0000007.
    """
    from reproduce.drawing.pictures import check_picture_target
    from reproduce.people.annotation import counted_from_1
    from reproduce.people.skeletons import joint_names
    from reproduce.records.opening import open_store
    from reproduce.records.store import key_text
    from reproduce.samples.preview import draw_record

    if out:
        check_picture_target(out)
    store = open_store(file, joints)
    index = _index(store, file, key)
    record = store.record(index)
    a = counted_from_1(record.annotation)  # as the record has it
    say_line(
        f"record {key_text(store.keys[index])} ({index + 1} of {len(store)}): {a.dataset}, image "
        f"{record.image.shape[1]}×{record.image.shape[0]}"
    )
    click.echo(
        f"write number {record.write_number} of {record.total}; annolist {a.annolist_index}, "
        f"person {a.people_index}"
    )
    click.echo(
        f"objpos {a.objpos.tolist()}  scale {a.scale:.4f}  validation {a.validation}  others "
        f"{len(a.others)}"
    )
    names = joint_names(len(a.joints))
    for i, (name, (x, y, visible)) in enumerate(zip(names, a.joints, strict=True)):
        click.echo(f"  joint {i:2d} {name:<8} {x:8.2f} {y:8.2f}  visible {visible:g}")
    if out:
        draw_record(record, out)
        blue = "; blue dots are the other people's joints" if a.others else ""
        click.echo(f"drawn in {out}{blue}")


def _index(store: Store, file: str, key: str | None) -> int:
    """The place of a record; its key may be given without the zeros in front."""
    from reproduce.records.store import key_text

    if key is None:
        return 0
    for name in (key, f"{int(key):07d}" if key.isdecimal() else ""):
        if name.encode() in store.keys:
            return store.keys.index(name.encode())
    first, last = key_text(store.keys[0]), key_text(store.keys[-1])
    raise DataError(
        f"{file}: has no record {key}; the keys of its {len(store)} records run from {first} to "
        f"{last}, and those of records that --skip-bad left out are not there"
    )


@main.command(
    epilog=examples(
        "cpm-export preview leeds.lmdb -o look.png",
        "cpm-export preview leeds.lmdb --n 30 --prototxt net/pose_train_test.prototxt -o look.png",
    )
)
@click.argument("file", type=FILE)
@click.option(
    "--n",
    "count",
    default=16,
    show_default=True,
    type=click.IntRange(1, 400),
    help="How many samples.",
)
@click.option("--prototxt", type=FILE, help="train_test definition whose CPMData layer to use.")
@joints_option
@click.option("--seed", default=1, show_default=True, type=SEED)
@click.option(
    "-o",
    "--out",
    default="preview.png",
    show_default=True,
    type=FILE,
    help="The PNG or JPEG to write.",
)
@pixels_option
def preview(
    file: str, count: int, prototxt: str | None, joints: int | None, seed: int, out: str
) -> None:
    """Draw a contact sheet of augmented samples, joints, centre and labels over them."""
    from reproduce.drawing.pictures import check_picture_target
    from reproduce.records.opening import open_store
    from reproduce.samples.augment import Settings, open_records
    from reproduce.samples.preview import contact_sheet

    if prototxt and joints is not None:
        raise DataError(
            "--joints and --prototxt exclude each other: the definition says how many joints the "
            "records have (np_in_lmdb)"
        )
    check_picture_target(out)
    settings = Settings(
        stride=8,
        target_dist=1.171,
        scale_prob=1,
        scale_min=0.7,
        scale_max=1.3,
        max_rotate_degree=40,
        center_perterb_max=0,
    )
    if prototxt:
        settings = _trained_with(prototxt)
        store = open_records(file, settings)
    else:
        store = open_store(file, joints)
        found = len(store.record(0).annotation.joints)
        usual = found == 16
        sided = usual or found == 9
        settings = replace(
            settings,
            num_parts=14 if usual else found,
            np_in_lmdb=found,
            # sides of other joints are not known
            transform_body_joint=sided,
            flip_prob=settings.flip_prob if sided else 0.0,
        )
    contact_sheet(store, settings, count, seed, out)
    click.echo(f"{count} samples drawn in {out}")


def _trained_with(prototxt: str) -> Settings:
    """The settings of a training by a definition.

    Raises
    ------
    DataError : it has no CPMData layer for training.
    PrototxtError : a training would not take it.
    """
    from caffe_compat import read_net
    from caffe_compat.definition.spec import TRAIN
    from caffe_compat.layers import make
    from reproduce.people.part_names import in_name
    from reproduce.samples.schedule import settings_of

    net = read_net(prototxt)
    layers = [layer for layer in net.filter(TRAIN).layers if layer.type == "CPMData"]
    if not layers:
        raise DataError(f"{prototxt}: has no CPMData layer for phase TRAIN")
    layer = make(layers[0], TRAIN)
    layer.output_shapes([])  # refuses sizes that a training would refuse
    return settings_of(layer, in_name(net.name))


main.add_command(proto)


if __name__ == "__main__":
    main()
