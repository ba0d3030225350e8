"""``cpm-export``: annotations to the authors' JSON, records, prototxts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffe_compat.errors import DataError
from reproduce.cli.common import CommandGroup, common


@click.group(cls=CommandGroup)
@common
def main() -> None:
    """The original preprocessing: data sets to JSON to LMDB, and prototxts."""


@main.command("json")
@click.argument("dataset", type=click.Choice(["mpi", "leeds", "flic", "coco"]))
@click.option(
    "--data",
    required=True,
    type=click.Path(),
    help="Folder that holds the download (coco: its JSON file).",
)
@click.option("-o", "--out", required=True, type=click.Path(), help="The JSON file to write.")
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
def json_(
    dataset: str, data: str, out: str, format_: str, skip_missing: bool, own_keypoints: bool
) -> None:
    """Write the authors' JSON (or COCO's) of a DATASET's download."""
    from reproduce.people import coco_files, flic_files, lsp_files, mpii_files
    from reproduce.people.annotation import write_json

    stub: bool | None = None
    if dataset == "mpi":
        found, stub = mpii_files.read_folder(data, skip_missing=skip_missing)
    elif dataset == "leeds":
        found = lsp_files.read_training(data, skip_missing=skip_missing)
    elif dataset == "flic":
        found = flic_files.read_folder(data, skip_missing=skip_missing)
    else:
        found = coco_files.read(data, own=own_keypoints)
    if not found:
        raise DataError(f"{data}: no people found (with --skip-missing: are the images there?)")
    if format_ == "coco":
        coco_files.write(out, found)
    else:
        write_json(out, found, stub=stub)
    click.echo(f"{len(found)} people written to {out}")
    if own_keypoints:
        names = coco_files.keypoint_names(data)
        click.echo(
            f"--parts {len(names)} --np-in-lmdb {len(names)} for cpm-export proto; for cpm-train:"
        )
        click.echo(f"--parts {','.join(names)}")


@main.command()
@click.argument("annotations", nargs=-1, required=True, type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="Folder of the images.")
@click.option("-o", "--out", required=True, type=click.Path(), help="The LMDB folder to write.")
@click.option("--validation", is_flag=True, help="Leave out the validation split.")
@click.option("--seed", type=int, help="Seed of the permutation (numpy's legacy generator).")
@click.option(
    "--jpeg",
    is_flag=True,
    help="Keep the original compressed images (smaller; not for Caffe itself).",
)
@click.option("--skip-bad", is_flag=True, help="List missing and damaged images and go on.")
@click.option("--workers", default=2, show_default=True, help="Threads that decode images.")
def lmdb(
    annotations: tuple[str, ...],
    data: str,
    out: str,
    validation: bool,
    seed: int | None,
    jpeg: bool,
    skip_bad: bool,
    workers: int,
) -> None:
    """Write records as the original script did, from its JSON files."""
    from tqdm import tqdm

    from reproduce.people.annotation import read_json
    from reproduce.records import store

    people = [a for name in annotations for a in read_json(name)]
    made = store.plan(people, validation=validation, seed=seed)
    with tqdm(total=made.total, unit=" records", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        skipped = store.export_lmdb(
            made, data, out, jpeg=jpeg, skip_bad=skip_bad, workers=workers, progress=progress
        )
    size = sum(p.stat().st_size for p in Path(out).iterdir()) / 1e6
    click.echo(f"{made.total - len(skipped)} records written to {out} ({size:.1f} MB)")
    for line in skipped:
        click.echo(f"skipped {line}", err=True)


@main.command()
@click.argument("source", type=click.Path())
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(),
    help="HDF5 file to write; or an LMDB folder from an HDF5 file.",
)
@click.option(
    "--joints", default=16, show_default=True, help="Joints per person in an LMDB (FLIC: 9)."
)
def hdf5(source: str, out: str, joints: int) -> None:
    """Convert records from LMDB to HDF5, or back, without loss."""
    from tqdm import tqdm

    from reproduce.records import hdf5 as records
    from reproduce.records.store import LMDBStore, write_values

    if source.endswith((".h5", ".hdf5")):
        store = records.HDF5Store(source)
        write_values(records.to_lmdb_values(store), out)
        click.echo(f"{len(store)} records written to {out}")
        return
    lmdb_store = LMDBStore(source, joints)
    with tqdm(total=len(lmdb_store), unit=" records", disable=None) as bar:
        records.from_lmdb(lmdb_store, out, lambda done, total: bar.update(done - bar.n) and None)
    click.echo(
        f"{len(lmdb_store)} records written to {out} ({Path(out).stat().st_size / 1e6:.1f} MB)"
    )


@main.command()
@click.argument("file", type=click.Path())
@click.argument("key", required=False)
@click.option(
    "--joints", default=16, show_default=True, help="Joints per person in an LMDB (FLIC: 9)."
)
@click.option("-o", "--out", type=click.Path(), help="Also draw the record into this PNG.")
def show(file: str, key: str | None, joints: int, out: str | None) -> None:
    """Print a record's annotation (default: the first) and draw it."""
    from reproduce.samples.preview import draw_record
    from reproduce.samples.schedule import open_store

    store = open_store(file, joints)
    index = _index(store, key)
    record = store.record(index)
    a = record.annotation
    click.echo(
        f"record {index} of {len(store)}: {a.dataset}, image "
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
    for i, (x, y, visible) in enumerate(a.joints):
        click.echo(f"  joint {i:2d}  {x:8.2f} {y:8.2f}  visible {visible:g}")
    if out:
        draw_record(record, out)
        click.echo(f"drawn in {out}")


def _index(store: Any, key: str | None) -> int:
    if key is None:
        return 0
    if not key.isdigit() or int(key) >= len(store):
        raise DataError(f"no record '{key}': give a number from 0 to {len(store) - 1}")
    return int(key)


@main.command()
@click.argument("file", type=click.Path())
@click.option("--n", "count", default=16, show_default=True, help="How many samples.")
@click.option(
    "--prototxt", type=click.Path(), help="train_test definition whose CPMData layer to use."
)
@click.option(
    "--joints", default=16, show_default=True, help="Joints per person in an LMDB (FLIC: 9)."
)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "-o",
    "--out",
    default="preview.png",
    show_default=True,
    type=click.Path(),
    help="The PNG to write.",
)
def preview(file: str, count: int, prototxt: str | None, joints: int, seed: int, out: str) -> None:
    """Draw a contact sheet of augmented samples, joints, centre and labels over them."""
    from reproduce.samples.augment import Settings
    from reproduce.samples.preview import contact_sheet
    from reproduce.samples.schedule import open_store

    settings = Settings(
        stride=8,
        target_dist=1.171,
        scale_prob=1,
        scale_min=0.7,
        scale_max=1.3,
        max_rotate_degree=40,
        center_perterb_max=0,
        num_parts=9 if joints == 9 else 14,
        np_in_lmdb=joints,
    )
    if prototxt:
        from caffe_compat import read_net

        layers = [layer for layer in read_net(prototxt).layers if layer.type == "CPMData"]
        if not layers:
            raise DataError(f"{prototxt}: has no CPMData layer")
        settings = Settings.of(layers[0].message.transform_param)
    contact_sheet(open_store(file, settings.np_in_lmdb), settings, count, seed, out)
    click.echo(f"{count} samples drawn in {out}")


@main.command()
@click.option("-o", "--out", required=True, type=click.Path(), help="Folder for the prototxts.")
@click.option("--stages", default=6, show_default=True, help="Number of stages.")
@click.option("--parts", default=14, show_default=True, help="Number of parts.")
@click.option("--input", "size", default=368, show_default=True, help="Input height and width.")
@click.option(
    "--channels",
    default="128,128,128,32,512,128",
    show_default=True,
    help="Channels of conv1, conv2, conv3, stage features, conv5/conv6, Mconv1..4.",
)
@click.option(
    "--kernels",
    default="9,5,11",
    show_default=True,
    help="Kernels of conv1..3/5, of the features, of Mconv1..3.",
)
@click.option(
    "--dropout", default=0.5, show_default=True, help="Dropout ratio of stage 1 (0: none)."
)
@click.option(
    "--filler", type=click.Choice(["gaussian", "msra"]), default="gaussian", show_default=True
)
@click.option("--first-mult", default=5.0, show_default=True, help="lr_mult of stage 1.")
@click.option(
    "--source", default="lmdb/MPI", show_default=True, help="The LMDB of the CPMData layer."
)
@click.option("--batch", default=16, show_default=True, help="Batch size.")
@click.option(
    "--target-dist", default=1.171, show_default=True, help="target_dist of the CPMData layer."
)
@click.option(
    "--sigma-center",
    type=float,
    help="sigma_center of the CPMData layer (default: the schema's 21).",
)
@click.option("--np-in-lmdb", type=int, help="Joints per person in the LMDB, where not 16.")
@click.option(
    "--scheme",
    type=click.Choice(["joint", "stage-wise", "fine-tuned", "no-supervision"]),
    default="joint",
    show_default=True,
    help="Of the paper's Figure 6b; stage-wise and fine-tuned write a solver per stage.",
)
@click.option(
    "--solver",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Solver fields to set or change.",
)
def proto(
    out: str,
    stages: int,
    parts: int,
    size: int,
    channels: str,
    kernels: str,
    dropout: float,
    filler: Any,
    first_mult: float,
    source: str,
    batch: int,
    target_dist: float,
    sigma_center: float | None,
    np_in_lmdb: int | None,
    scheme: Any,
    settings: tuple[str, ...],
) -> None:
    """Write pose_train_test, pose_deploy and pose_solver prototxts of any size."""
    from caffe_compat.definition import schema, textformat
    from reproduce.network import netgen

    wide = _numbers(channels, 6, "--channels")
    sizes = _numbers(kernels, 3, "--kernels")
    config = netgen.CPMConfig(
        stages=stages,
        parts=parts,
        input_size=size,
        towers=(wide[0], wide[1], wide[2]),
        features=wide[3],
        wide=wide[4],
        belief=wide[5],
        tower_kernel=sizes[0],
        feature_kernel=sizes[1],
        stage_kernel=sizes[2],
        dropout=dropout,
        filler=filler,
        first_mult=first_mult,
    )
    data = netgen.DataConfig(
        source=source,
        batch_size=batch,
        target_dist=target_dist,
        sigma_center=sigma_center,
        np_in_lmdb=np_in_lmdb,
    )
    base = netgen.solver()
    message = schema.new("SolverParameter")
    for item in settings:
        name, _, value = item.partition("=")
        text = (
            value
            if value.replace(".", "").replace("-", "").replace("e", "").isdigit() or value.isupper()
            else f'"{value}"'
        )
        textformat.parse(f"{name}: {text}", message, "--solver")
    for descriptor, _ in message.ListFields():
        base.message.ClearField(descriptor.name)
    base.message.MergeFrom(message)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    nets = netgen.plan(config, data, scheme)
    prefix = base.message.snapshot_prefix
    for suffix, net in nets.items():
        (folder / f"pose_train_test{suffix}.prototxt").write_text(net.to_text(), encoding="utf-8")
        base.message.net, base.message.snapshot_prefix = (
            f"pose_train_test{suffix}.prototxt",
            prefix + suffix,
        )
        (folder / f"pose_solver{suffix}.prototxt").write_text(
            textformat.dump(base.message), encoding="utf-8"
        )
    (folder / "pose_deploy.prototxt").write_text(netgen.deploy(config).to_text(), encoding="utf-8")
    click.echo(f"pose_train_test, pose_deploy and pose_solver.prototxt written to {out}")
    if len(nets) > 1:
        click.echo(
            "train with: cpm-train "
            + " ".join(f"{out}/pose_solver{suffix}.prototxt" for suffix in nets)
        )


def _numbers(text: str, count: int, option: str) -> list[int]:
    try:
        found = [int(v) for v in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or min(found) < 1:
        raise DataError(
            f"{option}: expected {count} positive numbers with commas between, found '{text}'"
        )
    return found


if __name__ == "__main__":
    main()
