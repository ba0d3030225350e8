"""``cpm-predict``: the original testing on photographs and on a data set."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import BAD_INPUT, FAILED_CHECK, Command
from caffe_compat.errors import CaffeCompatError, printable
from reproduce.cli import predict_checks, predict_values
from reproduce.cli.common import (
    BENCHMARK_NAME,
    DATA_FOLDER,
    FILE,
    MODEL,
    PROTOCOL_NAME,
    AnyReal,
    common,
    device_option,
    engine_option,
    pixels_option,
    prototxt_option,
    say_line,
    silent,
)

if TYPE_CHECKING:
    from reproduce.predict.predictor import Predictor
    from reproduce.predict.protocol import Protocol
    from reproduce.predict.runs import Done, Find, Run
    from reproduce.runtime.processes import Group

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


class _PredictCommand(Command):
    """``--detect`` may stand alone, before an input too: what follows counts as its value only
    where it is one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        for word in args:
            if joined and joined[-1] == "--detect":
                joined[-1:] = (
                    [f"--detect={word}"] if word in _DETECTORS else ["--detect=auto", word]
                )
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


_DETECTORS = ("auto", "heads", "hog", "person")


@click.command(cls=_PredictCommand, epilog=_EPILOG)
@click.argument("inputs", nargs=-1, type=FILE)
@click.option(
    "--model",
    type=MODEL,
    help="Any weight file that cpm-convert reads or writes, or a name of 'cpm-models list' "
    "(default: the embedded network).",
)
@prototxt_option("Deploy definition")
@click.option(
    "--box",
    callback=predict_values.box,
    help="x,y,width,height of the person (default: the whole image).",
)
@click.option(
    "--boxes",
    type=FILE,
    help="People's boxes: CSV image,x,y,w,h; JSON {image: [[x,y,w,h],...]}; the "
    "authors' or COCO's annotation JSON.",
)
@click.option(
    "--detect",
    type=click.Choice(_DETECTORS),
    is_flag=False,
    flag_value="auto",
    help="Find the people, several per image: by the heads and necks that the network itself sees "
    "(heads; auto takes them where it can), with OpenCV's detector (hog, of upright people), or "
    "with --person-model (person).",
)
@click.option("--person-model", type=MODEL, help="Weight file of a network that finds people.")
@click.option(
    "--person-prototxt", type=FILE, help="Its deploy definition, if the model holds none."
)
@click.option(
    "--person-scales",
    callback=predict_values.scales,
    help="Heights that --detect person looks at, in multiples of the input's (default: "
    "0.5,0.7,1,1.4).",
)
@click.option(
    "--person-threshold",
    type=click.FloatRange(0, 1),
    help="Beliefs of the person network above this are people (default: the authors' 0.5).",
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
    callback=predict_values.scales,
    help="Multiples of the protocol's scale, e.g. 0.8,1,1.2 (default: the paper's).",
)
@click.option(
    "--range",
    "demo_range",
    callback=predict_values.size_range,
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
@click.option("--data", type=DATA_FOLDER, help="Folder that holds the data set.")
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
    "processors, where the network needs both; else 2). For a single image none is started: it is "
    "done sooner.",
)
@click.option(
    "--page",
    is_flag=True,
    help="Write page.html too: choose a part, move through the stages, and its belief map appears "
    "over the photograph.",
)
@click.option(
    "--min-score",
    type=AnyReal(),
    help="Hide joints with a smaller score: they are not drawn, and 0, 0, 0 in OpenPose's and "
    "COCO's JSON; .npz and .mat keep all joints with their scores.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Keep results of the same model, settings and files; make the rest.",
)
@click.option(
    "--out",
    type=FILE,
    default="predicted",
    show_default=True,
    help="Folder for the results.",
)
@pixels_option
@common
def main(
    inputs: tuple[str, ...],
    model: str | None,
    prototxt: str | None,
    box: Any,
    boxes: str | None,
    protocol: str,
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
    min_score: float | None,
    resume: bool,
    out: str,
    **finding: Any,
) -> None:
    """Find the joints of people in the INPUTS: images, folders, patterns, videos, camera:0, rtsp://
    streams.

    Photographs are tested by the demo's protocol unless --protocol says otherwise: each person's
    box, six scales per octave, heat maps averaged. For each image the skeleton drawn on it, a
    montage of the belief maps of every stage and OpenPose's JSON are written, and for all images
    together COCO's JSON, .npz and .mat; for a video its frames with skeletons and one JSON. With
    --dataset the benchmark's protocol runs: seven scales, the release's .mat, the score. Under
    torchrun each process takes its share. Without --model the embedded network is used.
    """
    from reproduce.benchmarks.registry import open_for_testing
    from reproduce.predict.predictor import Predictor
    from reproduce.predict.protocol import PROTOCOLS
    from reproduce.predict.runs import Run
    from reproduce.runtime import processes
    from reproduce.runtime.device import bf16_note, choose

    options = predict_checks.check(click.get_current_context().params)
    images, videos, cameras = predict_values.inputs(inputs)
    predict_checks.check_inputs(images, [*videos, *cameras], page, limit)
    if cameras and boxes is not None:
        raise CaffeCompatError("a camera has no boxes file; give --box or --detect")
    predict_checks.check_overwriting(images, [*videos, *cameras], Path(out))
    where, lost = _where(boxes, box, [*images, *videos])
    test = open_for_testing(dataset, str(data)) if dataset else None
    if test is not None:
        test.people()  # says what is missing in --data
    chosen = test.protocol if test is not None else PROTOCOLS[protocol]
    folder = Path(out)
    # What can be refused is refused before the folder is made.
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes.group(choose(device)))
        say: Callable[[str], None] = say_line if group.first else silent
        if note := bf16_note(amp or "", group.device):
            say(note)
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
        about = _about(predictor, weights, prototxt, scales, dataset or protocol, amp)
        if options.searches_range:
            about["range"] = _range_used(
                predictor.protocol, "--range" if demo_range else "default of this model", say
            )
        found_by, find = _finder(predictor, finding, engine, say)
        about.update(found_by)
        if test is not None:
            test.check_parts(predictor.skeleton)
        _hold(folder, group, stack)
        run = Run(
            predictor=predictor,
            out=folder,
            say=say,
            detect=about.get("detect") == "hog",
            resume=resume,
            workers=_ahead(workers, images, videos),
            about=about,
            group=group,
            limit=limit,
            find=find,
            whole=about.get("detect") == "heads",
            min_score=min_score,
        )
        start = time.perf_counter()
        if test is not None:
            from reproduce.benchmarks.benchmark_run import predict_benchmark

            done = predict_benchmark(run, test, Path(weights).name.split(".")[0])
        else:
            done = _predict(run, images, videos, cameras, where, page)
        seconds = max(time.perf_counter() - start, 1e-9)
        click.echo(f"{_speed(len(done.scores), seconds)}; results in {printable(out)}")
        if test is None:
            _tell_low(done.scores, bool(options.boxes), say)
        bad = [*(lost if group.first else []), *done.bad]
        _tell_bad(folder, bad, group.rank)
    if bad:
        sys.exit(FAILED_CHECK)


def _about(
    predictor: Predictor,
    weights: str,
    prototxt: str | None,
    scales: tuple[float, ...] | None,
    protocol: str,
    amp: str | None,
) -> dict[str, Any]:
    """What the results keep of the network and the settings: ``--resume`` compares it."""
    from reproduce.predict.origin import digest

    about: dict[str, Any] = {
        "model": digest(weights),
        "stages": len(predictor.outputs),
        "scales": scales,
        "protocol": protocol,
        "amp": amp,
    }
    if prototxt is not None:
        about["prototxt"] = digest(prototxt)
    return about


def _hold(folder: Path, group: Group, stack: contextlib.ExitStack) -> None:
    """Make a folder for results and keep other runs out of it: they would overwrite these, and
    these theirs.

    The first process holds it for all of its run; where another run does, all of them end.
    """
    from reproduce.runtime.locks import hold_folder

    refused: CaffeCompatError | None = None
    if group.first:
        try:
            stack.enter_context(hold_folder(folder))
        except CaffeCompatError as error:
            refused = error
    if group.any(refused is not None):
        if refused is not None:
            raise refused
        sys.exit(BAD_INPUT)  # the first process says why


def _where(boxes: str | None, box: Any, inputs: Sequence[Path]) -> tuple[Any, list[str]]:
    """Boxes by image, one box for all, or none; and a line for each row of a file that is no box.

    A file may have boxes of more images than are predicted now, so that these are only said.
    """
    from reproduce.predict.boxes import read_boxes, uses

    if boxes is None:
        return box, []
    found = read_boxes(boxes)
    used = uses(found, inputs)
    unused = [name for name in found if not used[name]]
    if found and len(unused) == len(found):
        raise CaffeCompatError(
            f"{boxes}: has no box of any input (its first image is {unused[0]}); expected the "
            "inputs' names"
        )
    shared = [name for name in found if used[name] > 1]
    for names, one, many, what in (
        (unused, "is", "are", "not among the inputs"),
        (shared, "stands", "stand", "for several inputs of a name, which get the same boxes"),
    ):
        if names:
            verb = one if len(names) == 1 else many
            click.echo(
                f"note: {printable(boxes)}: {len(names)} of its {len(found)} images {verb} {what}, "
                f"{printable(names[0])} for one",
                err=True,
            )
    return found, found.skipped


def _finder(
    predictor: Predictor, finding: Mapping[str, Any], engine: Any, say: Callable[[str], None]
) -> tuple[dict[str, Any], Find | None]:
    """What finds people, and what the results keep of it; None where boxes say where they are, or
    OpenCV's detector looks.

    Parameters
    ----------
    finding : the options --detect and --person-*.
    """
    from reproduce.predict.origin import digest
    from reproduce.predict.person_finder import PERSON_SEARCH, THRESHOLD, PersonFinder

    detect, model, threshold = (
        finding[name] for name in ("detect", "person_model", "person_threshold")
    )
    if model is None:
        return ({}, None) if detect is None else _detector(predictor, detect, say)
    threshold = THRESHOLD if threshold is None else threshold
    finder = PersonFinder.load(
        model,
        prototxt=finding["person_prototxt"],
        device=str(predictor.device),
        engine=engine,
        threshold=threshold,
        search=finding["person_scales"] or PERSON_SEARCH,
    )
    about = {
        "person_model": digest(model),
        "person": [detect, finding["person_scales"], threshold],
    }
    if finding["person_prototxt"] is not None:
        about["person_prototxt"] = digest(finding["person_prototxt"])
    return about, finder.search if detect == "person" else finder.at_one_scale


def _detector(
    predictor: Predictor, detect: str, say: Callable[[str], None]
) -> tuple[dict[str, Any], Find | None]:
    """The detector that ``--detect`` means for this network, and what finds people, where that is
    the network itself."""
    finder = predictor.heads if detect in ("auto", "heads") else None
    if detect == "heads" and finder is None:
        raise CaffeCompatError(
            "--detect heads: the network has no head and neck among its parts; take --detect hog"
        )
    if detect == "auto":
        how = (
            "OpenCV's detector (the network has no head and neck)"
            if finder is None
            else "the heads and necks that the network sees"
        )
        say(f"people are found by {how}")
    if finder is None:
        return {"detect": "hog"}, None
    return {"detect": "heads", "person": ["joints", finder.threshold]}, finder.search


def _speed(count: int, seconds: float) -> str:
    """How many people were predicted in what time; the rate where there were some."""
    said = f"{count} {'person' if count == 1 else 'people'} in {seconds:.1f} s"
    return f"{said} ({count / seconds:.2f} people/s)" if count else said


# A mean score below this says that the network is not sure of anything.
_LOW_SCORE = 0.25


def _tell_low(scores: Sequence[float], placed: bool, say: Callable[[str], None]) -> None:
    """Say what to try where people were predicted with little belief; ``placed``: somebody or
    something said where they are."""
    low = sum(score < _LOW_SCORE for score in scores)
    if low:
        advice = "another --box, or --min-score to hide guesses"
        if not placed:
            advice = (
                "--box x,y,width,height around the person, or --detect; --min-score hides guesses"
            )
        who = f"{low} of {len(scores)} people {'has' if low == 1 else 'have'}"
        if len(scores) == 1:
            who = "the person has"
        say(f"{who} a mean score below {_LOW_SCORE}: try {advice}")


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


def _ahead(workers: int | None, images: Sequence[Path], videos: Sequence[Path]) -> int:
    """Processes that decode and resize ahead."""
    from reproduce.runtime.processes import usable_cores

    if len(images) == 1 and not videos:  # one image is done sooner than a process starts
        return 0
    return workers if workers is not None else 2 if usable_cores() > 2 else 0


def _predict(
    run: Run,
    images: Sequence[Path],
    videos: Sequence[Path],
    cameras: Sequence[int | str],
    where: Any,
    page: bool,
) -> Done:
    """Predict the people of everything that was named."""
    from reproduce.predict.photographs import gather, photographs
    from reproduce.predict.result_names import result_names
    from reproduce.predict.runs import Done
    from reproduce.predict.tasks import Target, tasks_of
    from reproduce.predict.videos import camera, video

    done = Done()
    sources = [*images, *videos, *cameras]
    names = result_names(sources)
    _say_names(sources, names, run.say)
    targets: list[Target] = []
    recordings: list[tuple[int | str, Path]] = []
    for number, (source, name) in enumerate(zip(sources, names, strict=True)):
        if name is None:
            if run.group.first:
                done.bad.append(f"{source}: its results would have the name of another input's")
        elif isinstance(source, Path):
            targets.append(Target(source, run.out / name, film=number >= len(images)))
        else:
            recordings.append((source, run.out / name))
    tasks = tasks_of(run, targets, where, done, page=page)
    done.join(photographs(run, [task for task in tasks if not task.target.film], page=page))
    failed = set().union(*run.group.gather(done.failed))  # waits for all processes
    pictures = [target for target in targets if not target.film]
    if pictures and run.group.first:
        done.join(gather(run, pictures, failed, page=page))
    for task in tasks:
        if task.target.film:
            try:
                done.join(video(run, task))
            except CaffeCompatError as error:
                done.fail(task.target.prefix, str(error))
    for source, prefix in recordings if run.group.first else ():
        try:
            done.join(camera(run, source, prefix, where))
        except CaffeCompatError as error:
            if len(sources) == 1:
                raise
            done.fail(prefix, str(error))
    return done


def _say_names(
    sources: Sequence[Path | int | str], names: Sequence[str | None], say: Callable[[str], None]
) -> None:
    """Say where results have other names than their inputs: longer ones, so that no two inputs
    share one, or shorter ones that a file system takes."""
    other = [
        (source, name)
        for source, name in zip(sources, names, strict=True)
        if isinstance(source, Path) and name not in (None, source.stem)
    ]
    longer = [pair for pair in other if len(str(pair[1])) > len(pair[0].stem)]
    shorter = [pair for pair in other if pair not in longer]
    for pairs, why in (
        (longer, "inputs share their names with others; their results have longer names"),
        (shorter, "inputs have long names; their results have shorter ones"),
    ):
        if pairs:
            source, name = pairs[0]
            say(
                f"{len(pairs)} {why}: those of {printable(str(source))} begin with "
                f"{printable(str(name))}_"
            )


def _tell_bad(folder: Path, bad: list[str], rank: int) -> None:
    """Say what this process has not done."""
    from caffe_compat.files import atomic_write

    for line in bad[:_LISTED]:
        say_line(f"not done: {line}", err=True)
    # a list for each process: they would overwrite each other's
    listed = folder / (f"not_done_{rank}.txt" if rank else "not_done.txt")
    listed.unlink(missing_ok=True)  # of an earlier run
    if len(bad) > _LISTED:
        with atomic_write(listed) as stream:
            stream.write("".join(f"{printable(line)}\n" for line in bad).encode())
        say_line(f"not done: {len(bad) - _LISTED} more; all in {listed}", err=True)


_LISTED = 50


if __name__ == "__main__":
    main()
