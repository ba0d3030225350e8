"""``cpm-predict``: the original testing on photographs and on a data set."""

from __future__ import annotations

import glob
import sys
import time
from pathlib import Path
from typing import Any

import click

from caffe_compat.errors import CaffeCompatError

from .common import FAILED_CHECK, Command, common

_EPILOG = """
\b
Examples:
  cpm-predict photo.jpg --model pose.safetensors --box 120,40,200,420
  cpm-predict photos/*.jpg --model pose.safetensors --out predicted
  cpm-predict photos --boxes people.csv --model pose.safetensors
  cpm-predict --dataset lsp --data DIR --model pose.safetensors --out lsp
"""


def _box(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(v) for v in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or min(numbers[2:]) <= 0:
        raise click.BadParameter(f"'{value}': expected x,y,width,height in pixels, for example 120,40,200,420")
    return numbers


def _pictures(inputs: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp"))
        elif not path.exists() and any(c in name for c in "*?["):
            found += sorted(Path(p) for p in glob.glob(name, recursive=True)) or [path]  # reported as missing
        else:
            found.append(path)
    if not found:
        raise CaffeCompatError(f"{', '.join(inputs)}: no image files in there")
    return found


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("inputs", nargs=-1, type=click.Path())
@click.option("--model", required=True, type=click.Path(), help="Any weight file that cpm-convert reads or writes.")
@click.option("--prototxt", type=click.Path(), help="Deploy definition, if the model holds none.")
@click.option("--box", callback=_box, help="x,y,width,height of the person (default: the whole image).")
@click.option("--boxes", type=click.Path(), help="People's boxes: JSON {image: [[x,y,w,h],...]} or CSV image,x,y,w,h.")
@click.option("--dataset", type=click.Choice(["lsp"]), help="Benchmark: predict a data set's test images and score them.")
@click.option("--data", type=click.Path(), help="Folder that holds the data set.")
@click.option("--limit", type=int, help="Only the first so many people of the data set.")
@click.option("--stages", type=int, help="Use the first stages only.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N or auto.")
@click.option("--batch", default=16, show_default=True, help="Scaled images that run at once at most.")
@click.option("--resume", is_flag=True, help="Skip images whose predictions are there already.")
@click.option("--out", type=click.Path(), default="predicted", show_default=True, help="Folder for the results.")
@common
def main(
    inputs: tuple[str, ...], model: str, prototxt: str | None, box: Any, boxes: str | None, dataset: str | None,
    data: str | None, limit: int | None, stages: int | None, device: str, batch: int, resume: bool, out: str,
) -> None:  # fmt: skip
    """Find the joints of people in the INPUTS (images, folders or patterns).

    Photographs are tested by the demo's protocol: each person's box, six scales per octave, heat maps averaged. For each image
    the skeleton drawn on it, a montage of the belief maps of every stage, and OpenPose's JSON are written. With --dataset the
    benchmark's protocol runs: seven scales, the release's .mat, the score.
    """
    from reproduce import predicting
    from reproduce.inference import Predictor

    if bool(inputs) == bool(dataset):
        raise CaffeCompatError("give images or folders, or --dataset with --data")
    if boxes is not None and (box is not None or dataset):
        raise CaffeCompatError("--boxes goes with images, without --box")
    where = predicting.read_boxes(boxes) if boxes is not None else box
    predictor = Predictor.load(model, prototxt=prototxt, device=device, stages=stages, batch=batch)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if dataset:
        if data is None:
            raise CaffeCompatError("--dataset needs --data, the folder that holds it")
        count = predicting.lsp_benchmark(predictor, data, folder, Path(model).name.split(".")[0], limit, click.echo)
        bad: list[str] = []
    else:
        count, bad = predicting.pictures(predictor, _pictures(inputs), where, folder, resume, click.echo)
    seconds = time.perf_counter() - start
    click.echo(f"{count} people in {seconds:.1f} s ({count / max(seconds, 1e-9):.2f} people/s)")
    for line in bad:
        click.echo(f"not done: {line}", err=True)
    if bad:
        sys.exit(FAILED_CHECK)


if __name__ == "__main__":
    main()
