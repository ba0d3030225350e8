"""``cpm-predict``: the original testing on photographs and on a data set."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.errors import CaffeCompatError
from reproduce.cli.common import (
    BENCHMARK_NAME,
    FAILED_CHECK,
    PROTOCOL_NAME,
    Command,
    common,
    device_option,
    engine_option,
)

if TYPE_CHECKING:
    from reproduce.predict.person_finder import PersonFinder
    from reproduce.predict.protocol import Protocol
    from reproduce.predict.runs import Run

_EPILOG = """
\b
Examples:
  cpm-predict photo.jpg --page
  cpm-predict photo.jpg --model pose.safetensors --box 120,40,200,420
  cpm-predict photos/*.jpg --model pose.safetensors --out predicted
  cpm-predict photos --boxes people.csv --model pose.safetensors
  cpm-predict street.jpg walk.mp4 --detect --model pose.safetensors
  cpm-predict street.jpg --detect person --person-model person.safetensors --model pose.safetensors
  cpm-predict street.jpg --protocol python --person-model person.safetensors --model vgg.safetensors
  cpm-predict camera:0 --limit 300 --model pose.safetensors
  cpm-predict --dataset lsp --data DIR --model pose.safetensors --out lsp
"""


def _numbers(value: str) -> tuple[float, ...]:
    """Numbers with commas between; none where it is something else."""
    try:
        return tuple(float(v) for v in value.split(","))
    except ValueError:
        return ()


def _box(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = _numbers(value)
    if len(numbers) != 4 or min(numbers[2:]) <= 0:
        raise click.BadParameter(
            f"'{value}': expected x,y,width,height in pixels, for example 120,40,200,420"
        )
    return numbers


def _scales(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = _numbers(value)
    if not numbers or not all(0.01 <= n <= 100 for n in numbers):
        raise click.BadParameter(
            f"'{value}': expected multiples of the protocol's scale, for example 0.8,1,1.2"
        )
    return numbers


def _range(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    if value is None:
        return None
    numbers = _numbers(value)
    if len(numbers) != 2 or not 0.01 <= numbers[0] <= numbers[1] <= 100:
        raise click.BadParameter(
            f"'{value}': expected the smallest and the largest size, for example 0.8,1.2"
        )
    return numbers[0], numbers[1]


def _inputs(inputs: tuple[str, ...]) -> tuple[list[Path], list[Path], list[int]]:
    """Images, videos and cameras that the arguments name."""
    from reproduce.predict.photographs import IMAGES
    from reproduce.predict.videos import VIDEOS

    images: list[Path] = []
    videos: list[Path] = []
    cameras: list[int] = []
    for name in inputs:
        path = Path(name)
        if name.startswith("camera:") and name[7:].isdigit():
            cameras.append(int(name[7:]))
        elif path.is_dir():
            found = [p for p in path.iterdir() if p.suffix.lower() in (*IMAGES, *VIDEOS)]
            if not found:
                raise CaffeCompatError(f"{name}: no image or video files in there")
            images += sorted(p for p in found if p.suffix.lower() in IMAGES)
            videos += sorted(p for p in found if p.suffix.lower() in VIDEOS)
        else:
            pattern = not path.exists() and any(c in name for c in "*?[")
            many = sorted(Path(p) for p in glob.glob(name, recursive=True)) if pattern else []
            for one in many or [path]:  # a pattern without a match is reported as missing
                (videos if one.suffix.lower() in VIDEOS else images).append(one)
    return images, videos, cameras


class _PredictCommand(Command):
    """``--detect`` may stand alone, before an input too: what follows counts as its value only
    where it is one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        for word in args:
            if joined and joined[-1] == "--detect":
                joined[-1:] = [f"--detect={word}"] if word in _DETECTORS else ["--detect=hog", word]
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


_DETECTORS = ("hog", "person")


@click.command(cls=_PredictCommand, epilog=_EPILOG)
@click.argument("inputs", nargs=-1, type=click.Path())
@click.option(
    "--model",
    type=click.Path(),
    help="Any weight file that cpm-convert reads or writes (default: the embedded network).",
)
@click.option("--prototxt", type=click.Path(), help="Deploy definition, if the model holds none.")
@click.option(
    "--box", callback=_box, help="x,y,width,height of the person (default: the whole image)."
)
@click.option(
    "--boxes",
    type=click.Path(),
    help="People's boxes: CSV image,x,y,w,h; JSON {image: [[x,y,w,h],...]}; the "
    "authors' or COCO's annotation JSON.",
)
@click.option(
    "--detect",
    type=click.Choice(_DETECTORS),
    is_flag=False,
    flag_value="hog",
    help="Find the people, several per image: with OpenCV's detector (hog, of upright people), or "
    "with --person-model at several scales.",
)
@click.option(
    "--person-model", type=click.Path(), help="Weight file of a network that finds people."
)
@click.option(
    "--person-prototxt", type=click.Path(), help="Its deploy definition, if the model holds none."
)
@click.option(
    "--person-scales",
    callback=_scales,
    help="Heights that --detect person looks at, in multiples of the input's (default: "
    "0.5,0.7,1,1.4).",
)
@click.option(
    "--person-threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Beliefs of the person network above this are people.",
)
@click.option(
    "--protocol",
    type=PROTOCOL_NAME,
    default="demo",
    show_default=True,
    help="demo: a box around the person; lsp: the whole image; flic: the torso's box; mpi: a "
    "square of 200 annotated scales; python: the authors' Python demo, everybody whom "
    "--person-model finds.",
)
@click.option(
    "--scales",
    callback=_scales,
    help="Multiples of the protocol's scale, e.g. 0.8,1,1.2 (default: the paper's).",
)
@click.option(
    "--range",
    "demo_range",
    callback=_range,
    help="demo: smallest and largest size of the person in the input, e.g. 0.8,1.2 (default: that "
    "of the authors' demo for this model; else 0.8,3).",
)
@click.option(
    "--octave",
    type=click.FloatRange(0.1, 100),
    help="demo: scales an octave in that range (default: 6).",
)
@click.option(
    "--dataset",
    type=BENCHMARK_NAME,
    help="Benchmark: predict a data set's test images and score them.",
)
@click.option("--data", type=click.Path(), help="Folder that holds the data set.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Only the first so many people of the data set, or frames.",
)
@click.option("--stages", type=int, help="Use the first stages only.")
@device_option
@engine_option
@click.option(
    "--amp",
    type=click.Choice(["bf16"]),
    help="Fast mode with half the digits, for hardware that has it.",
)
@click.option(
    "--batch",
    default=16,
    show_default=True,
    type=click.IntRange(min=1),
    help="Scaled images at once at most.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that decode and resize ahead of the network (default: none on one or two "
    "processors, where the "
    "network needs both; else 2).",
)
@click.option(
    "--page",
    is_flag=True,
    help="Write page.html too: choose a part, move through the stages, and its belief map appears "
    "over the photograph.",
)
@click.option("--resume", is_flag=True, help="Skip what is done already.")
@click.option(
    "--out",
    type=click.Path(),
    default="predicted",
    show_default=True,
    help="Folder for the results.",
)
@common
def main(
    inputs: tuple[str, ...],
    model: str | None,
    prototxt: str | None,
    box: Any,
    boxes: str | None,
    detect: str | None,
    person_model: str | None,
    person_prototxt: str | None,
    person_scales: tuple[float, ...] | None,
    person_threshold: float,
    protocol: Any,
    scales: tuple[float, ...] | None,
    demo_range: tuple[float, float] | None,
    octave: float | None,
    dataset: str | None,
    data: str | None,
    limit: int | None,
    stages: int | None,
    device: str,
    engine: Any,
    amp: str | None,
    batch: int,
    workers: int | None,
    page: bool,
    resume: bool,
    out: str,
) -> None:
    """Find the joints of people in the INPUTS: images, folders, patterns, videos, camera:0.

    Photographs are tested by the demo's protocol unless --protocol says otherwise: each person's
    box, six scales per octave, heat maps averaged. For each image the skeleton drawn on it, a
    montage of the belief maps of every stage and OpenPose's JSON are written, and for all images
    together COCO's JSON, .npz and .mat; for a video its frames with skeletons and one JSON. With
    --dataset the benchmark's protocol runs: seven scales, the release's .mat, the score. Under
    torchrun each process takes its share. Without --model the embedded network is used.
    """
    from reproduce.benchmarks.registry import open_for_testing
    from reproduce.predict.boxes import read_boxes
    from reproduce.predict.predictor import Predictor
    from reproduce.predict.protocol import PROTOCOLS
    from reproduce.predict.runs import Run
    from reproduce.runtime import processes
    from reproduce.runtime.device import choose

    given_boxes = [given for given in (box, boxes, detect) if given is not None]
    _check_what(inputs, dataset, data, protocol, given_boxes)
    by_network = detect == "person" or (protocol == "python" and not given_boxes)
    _check_person_model(by_network, detect, person_model)
    if (demo_range or octave) and (protocol != "demo" or dataset or scales):
        raise CaffeCompatError("--range and --octave are of --protocol demo, without --scales")
    images, videos, cameras = _inputs(inputs)
    if page and not images:
        raise CaffeCompatError("--page shows photographs: name some")
    where = read_boxes(boxes) if boxes is not None else box
    test = open_for_testing(dataset, str(data)) if dataset else None
    chosen = test.protocol if test is not None else PROTOCOLS[protocol]
    with processes.group(choose(device)) as group:
        say: Callable[[str], None] = click.echo if group.first else _silent
        weights = model if model is not None else _embedded(say)
        predictor = Predictor.load(
            weights,
            prototxt=prototxt,
            protocol=chosen.searching(scales).ranging(demo_range, octave),
            device=group.device,
            stages=stages,
            batch=batch,
            engine=engine,
            amp=amp or "",
        )
        about = {
            "model": _digest(weights),
            "stages": len(predictor.outputs),
            "scales": scales,
            "protocol": dataset or protocol,
            "amp": amp,
        }
        if protocol == "demo" and not dataset and not scales:
            about["range"] = _range_used(
                predictor.protocol, "--range" if demo_range else "default of this model", say
            )
        find = None
        if person_model is not None:
            about["person_model"] = _digest(person_model)
            about["person"] = [detect, person_scales, person_threshold]
            finder = _person_finder(
                person_model, person_prototxt, person_scales, person_threshold, group.device, engine
            )
            find = finder.search if detect == "person" else finder.at_one_scale
        if test is not None:
            test.check_parts(predictor.parts)
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(
            predictor=predictor,
            out=folder,
            say=say,
            detect=detect == "hog",
            resume=resume,
            workers=_ahead(workers, images, videos),
            about=about,
            group=group,
            limit=limit,
            find=find,
        )
        start = time.perf_counter()
        if test is not None:
            from reproduce.benchmarks.benchmark_run import predict_benchmark

            count, bad = predict_benchmark(run, test, Path(weights).name.split(".")[0])
        else:
            count, bad = _predict(run, images, videos, cameras, where, page)
        seconds = time.perf_counter() - start
        click.echo(f"{count} people in {seconds:.1f} s ({count / max(seconds, 1e-9):.2f} people/s)")
        _tell_bad(folder, bad)


def _check_what(
    inputs: Sequence[str],
    dataset: str | None,
    data: str | None,
    protocol: str,
    given_boxes: Sequence[Any],
) -> None:
    """Raise where options say two things of what is to be predicted."""
    if bool(inputs) == bool(dataset):
        raise CaffeCompatError("give images or folders, or --dataset with --data")
    if len(given_boxes) > 1 or (dataset and given_boxes):
        raise CaffeCompatError(
            "--box, --boxes and --detect exclude each other, and --dataset has its own boxes"
        )
    if dataset and (data is None or protocol != "demo"):
        raise CaffeCompatError(
            "--dataset needs --data, the folder that holds it, and has its own protocol"
        )


def _check_person_model(by_network: bool, detect: str | None, person_model: str | None) -> None:
    """Raise where the person network is missing or has nothing to do."""
    if by_network and person_model is None:
        what = "--detect person" if detect == "person" else "--protocol python"
        raise CaffeCompatError(
            f"{what} needs --person-model, the network that finds people (cpm-models info person)"
        )
    if person_model is not None and not by_network:
        raise CaffeCompatError(
            "--person-model goes with --detect person, or with --protocol python without boxes"
        )


def _embedded(say: Callable[[str], None]) -> str:
    """The embedded network's file; said, because nobody named it."""
    from reproduce.network.identify import embedded

    say(f"no --model: the embedded network {embedded().parent.name} predicts")
    return str(embedded())


def _range_used(used: Protocol, source: str, say: Callable[[str], None]) -> list[float]:
    """The demo's range and scales an octave, said and given back for the results."""
    from reproduce.predict.protocol import FIRST_DEMO_RANGE

    least, most = used.demo_range or FIRST_DEMO_RANGE
    say(
        f"the person's size in the input: {least:g} to {most:g} ({source}), {used.octave:g} scales "
        "an octave"
    )
    return [least, most, used.octave]


def _person_finder(
    model: str,
    prototxt: str | None,
    scales: tuple[float, ...] | None,
    threshold: float,
    device: str,
    engine: Any,
) -> PersonFinder:
    from reproduce.predict.person_finder import PERSON_SEARCH, PersonFinder

    return PersonFinder.load(
        model,
        prototxt=prototxt,
        device=device,
        engine=engine,
        threshold=threshold,
        search=scales or PERSON_SEARCH,
    )


def _ahead(workers: int | None, images: Sequence[Path], videos: Sequence[Path]) -> int:
    """Processes that decode and resize ahead."""
    if len(images) == 1 and not videos:  # one image is done sooner than a process starts
        return 0
    return workers if workers is not None else 2 if (os.cpu_count() or 1) > 2 else 0


def _predict(
    run: Run,
    images: Sequence[Path],
    videos: Sequence[Path],
    cameras: Sequence[int],
    where: Any,
    page: bool,
) -> tuple[int, list[str]]:
    """How many people were predicted in everything that was named, and what was not done."""
    from reproduce.predict.photographs import photographs
    from reproduce.predict.videos import camera, video

    count = 0
    bad: list[str] = []
    if images:
        count, bad = photographs(run, images, where, page=page)
    for path in run.mine(videos):
        try:
            more, wrong = video(run, path, where)
        except CaffeCompatError as error:
            more, wrong = 0, [str(error)]
        count, bad = count + more, bad + wrong
    for number in cameras:
        if isinstance(where, dict):
            raise CaffeCompatError("a camera has no boxes file; give --box or --detect")
        count += camera(run, number, where)
    return count, bad


def _tell_bad(folder: Path, bad: list[str]) -> None:
    """Say what was not done; exit 1 if anything was not."""
    for line in bad[:_LISTED]:
        click.echo(f"not done: {line}", err=True)
    if len(bad) > _LISTED:
        click.echo(
            f"not done: {len(bad) - _LISTED} more; all in {_list_bad(folder, bad)}", err=True
        )
    if bad:
        sys.exit(FAILED_CHECK)


_LISTED = 50


def _list_bad(folder: Path, bad: list[str]) -> Path:
    from caffe_compat.files import atomic_write

    path = folder / "not_done.txt"
    with atomic_write(path) as stream:
        stream.write(("\n".join(bad) + "\n").encode())
    return path


def _digest(path: str) -> str:
    """Which weights these are, for results that go on later."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _silent(line: str) -> None:
    """What all processes but the first say."""


if __name__ == "__main__":
    main()
