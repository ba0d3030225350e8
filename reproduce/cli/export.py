"""``cpm-export``: annotations to the authors' JSON, records, prototxts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffe_compat.errors import DataError

from .common import Group, common


@click.group(cls=Group)
@common
def main() -> None:
    """The original preprocessing: data sets to JSON to LMDB, and prototxts."""


@main.command("json")
@click.argument("dataset", type=click.Choice(["leeds"]))
@click.option("--data", required=True, type=click.Path(), help="Folder that holds the download.")
@click.option("-o", "--out", required=True, type=click.Path(), help="The JSON file to write.")
@click.option("--skip-missing", is_flag=True, help="Leave out people whose image is not there.")
def json_(dataset: str, data: str, out: str, skip_missing: bool) -> None:
    """Write the authors' JSON of a DATASET's download."""
    from reproduce.annotations import write_json
    from reproduce.datasets import lsp

    found = lsp.read_training(data, skip_missing=skip_missing)
    write_json(out, found)
    click.echo(f"{len(found)} people written to {out}")


@main.command()
@click.argument("annotations", nargs=-1, required=True, type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="Folder of the images.")
@click.option("-o", "--out", required=True, type=click.Path(), help="The LMDB folder to write.")
@click.option("--validation", is_flag=True, help="Leave out the validation split.")
@click.option("--seed", type=int, help="Seed of the permutation (numpy's legacy generator).")
@click.option("--jpeg", is_flag=True, help="Keep the original compressed images (smaller; not for Caffe itself).")
@click.option("--skip-bad", is_flag=True, help="List missing and damaged images and go on.")
@click.option("--workers", default=2, show_default=True, help="Processes that decode images.")
def lmdb(
    annotations: tuple[str, ...], data: str, out: str, validation: bool, seed: int | None, jpeg: bool, skip_bad: bool,
    workers: int,
) -> None:  # fmt: skip
    """Write records as the original script did, from its JSON files."""
    from tqdm import tqdm

    from reproduce import store
    from reproduce.annotations import read_json

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
@click.option("-o", "--out", required=True, type=click.Path(), help="Folder for the prototxts.")
@click.option("--stages", default=6, show_default=True, help="Number of stages.")
@click.option("--parts", default=14, show_default=True, help="Number of parts.")
@click.option("--input", "size", default=368, show_default=True, help="Input height and width.")
@click.option("--channels", default="128,128,128,32,512,128", show_default=True,
              help="Channels of conv1, conv2, conv3, stage features, conv5/conv6, Mconv1..4.")  # fmt: skip
@click.option("--kernels", default="9,5,11", show_default=True, help="Kernels of conv1..3/5, of the features, of Mconv1..3.")
@click.option("--dropout", default=0.5, show_default=True, help="Dropout ratio of stage 1 (0: none).")
@click.option("--filler", type=click.Choice(["gaussian", "msra"]), default="gaussian", show_default=True)
@click.option("--first-mult", default=5.0, show_default=True, help="lr_mult of stage 1.")
@click.option("--source", default="lmdb/MPI", show_default=True, help="The LMDB of the CPMData layer.")
@click.option("--batch", default=16, show_default=True, help="Batch size.")
@click.option("--target-dist", default=1.171, show_default=True, help="target_dist of the CPMData layer.")
@click.option("--sigma-center", type=float, help="sigma_center of the CPMData layer (default: the schema's 21).")
@click.option("--np-in-lmdb", type=int, help="Joints per person in the LMDB, where not 16.")
@click.option("--solver", "settings", multiple=True, metavar="FIELD=VALUE", help="Solver fields to set or change.")
def proto(
    out: str, stages: int, parts: int, size: int, channels: str, kernels: str, dropout: float, filler: Any,
    first_mult: float, source: str, batch: int, target_dist: float, sigma_center: float | None,
    np_in_lmdb: int | None, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Write pose_train_test, pose_deploy and pose_solver prototxts of any size."""
    from caffe_compat import schema, textformat
    from reproduce import netgen

    wide = _numbers(channels, 6, "--channels")
    sizes = _numbers(kernels, 3, "--kernels")
    config = netgen.CPMConfig(
        stages=stages, parts=parts, input_size=size, towers=(wide[0], wide[1], wide[2]), features=wide[3],
        wide=wide[4], belief=wide[5], tower_kernel=sizes[0], feature_kernel=sizes[1], stage_kernel=sizes[2],
        dropout=dropout, filler=filler, first_mult=first_mult,
    )  # fmt: skip
    data = netgen.DataConfig(source=source, batch_size=batch, target_dist=target_dist, sigma_center=sigma_center,
                             np_in_lmdb=np_in_lmdb)  # fmt: skip
    base = netgen.solver()
    message = schema.new("SolverParameter")
    for item in settings:
        name, _, value = item.partition("=")
        text = value if value.replace(".", "").replace("-", "").replace("e", "").isdigit() or value.isupper() else f'"{value}"'
        textformat.parse(f"{name}: {text}", message, "--solver")
    for descriptor, _ in message.ListFields():
        base.message.ClearField(descriptor.name)
    base.message.MergeFrom(message)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pose_train_test.prototxt").write_text(netgen.train_test(config, data).to_text(), encoding="utf-8")
    (folder / "pose_deploy.prototxt").write_text(netgen.deploy(config).to_text(), encoding="utf-8")
    (folder / "pose_solver.prototxt").write_text(textformat.dump(base.message), encoding="utf-8")
    click.echo(f"pose_train_test, pose_deploy and pose_solver.prototxt written to {out}")


def _numbers(text: str, count: int, option: str) -> list[int]:
    try:
        found = [int(v) for v in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or min(found) < 1:
        raise DataError(f"{option}: expected {count} positive numbers with commas between, found '{text}'")
    return found


if __name__ == "__main__":
    main()
