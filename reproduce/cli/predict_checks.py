"""Which options of ``cpm-predict`` go together: what two say differently, what misses another, and
what would do nothing is refused before anything is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe_compat.errors import CaffeCompatError

if TYPE_CHECKING:
    from reproduce.predict.protocol import Protocol


@dataclass(frozen=True)
class Checked:
    """What the options amount to.

    Attributes
    ----------
    boxes : which of box, boxes and detect say where people are; one at most.
    searches_range : does the protocol look for the person's size in a range?
    """

    boxes: tuple[str, ...]
    searches_range: bool


def check(given: Mapping[str, Any]) -> Checked:
    """See that the options go together.

    Parameters
    ----------
    given : all options by the names of the command's parameters.

    Raises
    ------
    CaffeCompatError : names the option and what to do.
    """
    from caffe_compat.picturesize import pixel_limit
    from reproduce.predict.protocol import PROTOCOLS

    pixel_limit()  # says what is wrong with CPM_MAX_PIXELS
    boxes = tuple(name for name in ("box", "boxes", "detect") if given[name] is not None)
    protocol = PROTOCOLS[given["protocol"]]
    of_demo = protocol.combination == "demo" and not given["dataset"] and not given["scales"]
    _check_what(given, boxes)
    _check_person_model(given, boxes, protocol)
    _check_protocol(given, boxes, protocol)
    if (given["demo_range"] or given["octave"]) and not of_demo:
        raise CaffeCompatError("--range and --octave are of --protocol demo, without --scales")
    return Checked(boxes, of_demo)


def _refuse(given: Mapping[str, Any], names: Sequence[str], why: str) -> None:
    """Raise where one of these options is given, though it would do nothing."""
    for name in names:
        if given[name] is not None:
            raise CaffeCompatError(f"--{name.replace('_', '-')} {why}")


def _check_what(given: Mapping[str, Any], boxes: Sequence[str]) -> None:
    """Raise where options say two things of what is to be predicted."""
    dataset = given["dataset"]
    if given["inputs"] and dataset:
        raise CaffeCompatError(
            f"inputs ({given['inputs'][0]}) and --dataset {dataset} exclude each other"
        )
    if not given["inputs"] and not dataset:
        raise CaffeCompatError("give images or folders, or --dataset with --data")
    if len(boxes) > 1 or (dataset and boxes):
        raise CaffeCompatError(
            "--box, --boxes and --detect exclude each other, and --dataset has its own boxes"
        )
    if not dataset:
        _refuse(given, ["data"], "is the folder of a --dataset: name one")
        return
    if given["data"] is None:
        raise CaffeCompatError(f"--dataset {dataset}: give the folder that holds it with --data")
    if given["protocol"] != "demo":
        raise CaffeCompatError("--dataset has its own protocol: leave out --protocol")
    _refuse(given, ["min_score"], "hides joints in pictures; a --dataset's score needs all")


def _check_person_model(given: Mapping[str, Any], boxes: Sequence[str], protocol: Protocol) -> None:
    """Raise where the person network is missing or has nothing to do."""
    several_scales = given["detect"] == "person"
    if several_scales or (protocol.combination == "python" and not boxes):
        if given["person_model"] is None:
            what = "--detect person" if several_scales else f"--protocol {given['protocol']}"
            raise CaffeCompatError(
                f"{what} needs --person-model, the network that finds people "
                "(cpm-models info person)"
            )
    else:
        advice = "goes with --detect person, or with --protocol python without boxes"
        names = ["person_model", "person_prototxt", "person_scales", "person_threshold"]
        _refuse(given, names, advice)
    if not several_scales:
        _refuse(given, ["person_scales"], "is of --detect person; --protocol python looks at one")


def _check_protocol(given: Mapping[str, Any], boxes: Sequence[str], protocol: Protocol) -> None:
    """Raise where a protocol misses its boxes, or is given what it does not use."""
    from reproduce.predict.protocol import place_whole_image

    name = given["protocol"]
    if protocol.combination == "python":
        _refuse(given, ["scales"], f"has no meaning with --protocol {name}: it tests one scale")
    if protocol.place is place_whole_image and given["detect"] in (None, "hog"):
        _refuse(given, boxes, f"has no meaning with --protocol {name}: it tests whole images")
    if protocol.needs and not boxes:
        raise CaffeCompatError(
            f"--protocol {name} needs {protocol.needs}: give --box, --boxes or --detect"
        )


def check_inputs(
    images: Sequence[Path], films: Sequence[Any], page: bool, limit: int | None
) -> None:
    """See that there is something to be predicted, and that the options have to do with it.

    Parameters
    ----------
    films : videos, cameras and streams.

    Raises
    ------
    CaffeCompatError : none of the files exists; ``--page`` without photographs; ``--limit`` with
        nothing else.
    """
    _check_there([*images, *films])
    if page and not images:
        raise CaffeCompatError("--page shows photographs: name some")
    if limit is not None and images and not films:
        raise CaffeCompatError(
            "--limit counts the frames of videos and cameras, or the people of a --dataset; here "
            "are only photographs: name those that you want"
        )


def check_overwriting(images: Sequence[Path], films: Sequence[Any], out: Path) -> None:
    """See that no picture of somebody else's has the name of a skeleton that will be drawn.

    Parameters
    ----------
    films : videos, cameras and streams.
    out : folder of the results.

    Raises
    ------
    DataError : names it.
    """
    from reproduce.predict.own_pictures import check_place
    from reproduce.predict.result_names import result_names

    for number, name in enumerate(result_names([*images, *films])):
        if name is not None:
            check_place(out / f"{name}_skeleton.{'png' if number < len(images) else 'mp4'}")


def _check_there(sources: Sequence[Any]) -> None:
    """Raise where inputs are named and none of them exists: a run that can do nothing would only
    remove what an earlier one put together."""
    files = [source for source in sources if isinstance(source, Path)]
    if not files or len(files) < len(sources) or any(map(os.path.exists, files)):
        return
    if len(files) == 1:
        raise CaffeCompatError(
            f"{files[0]}: no such file or folder; name images, videos or folders that are there"
        )
    raise CaffeCompatError(
        f"none of the {len(files)} inputs is there ({files[0]} for one); name images, videos or "
        "folders that are"
    )
