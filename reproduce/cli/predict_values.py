"""What the arguments and values of ``cpm-predict`` mean."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from caffe_compat.errors import CaffeCompatError
from reproduce.cli.common import say_line


def _numbers(value: str) -> tuple[float, ...]:
    """Numbers with commas between; none where it is something else."""
    try:
        return tuple(float(v) for v in value.split(","))
    except ValueError:
        return ()


def box(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """``--box``: x, y, width and height in pixels.

    Raises
    ------
    CaffeCompatError : a box that no picture can have.
    """
    from reproduce.predict.boxes import checked_box

    if value is None:
        return None
    numbers = _numbers(value)
    if len(numbers) != 4 or min(numbers[2:]) <= 0:
        raise click.BadParameter(
            f"'{value}': expected x,y,width,height in pixels, for example 120,40,200,420"
        )
    return checked_box(numbers)


def scales(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """``--scales``: multiples of the protocol's scale."""
    if value is None:
        return None
    numbers = _numbers(value)
    if not numbers or not all(0.01 <= n <= 100 for n in numbers):
        raise click.BadParameter(
            f"'{value}': expected multiples of the protocol's scale, for example 0.8,1,1.2"
        )
    return numbers


def size_range(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """``--range``: the smallest and the largest size of the person."""
    if value is None:
        return None
    numbers = _numbers(value)
    if len(numbers) != 2 or not 0.01 <= numbers[0] <= numbers[1] <= 100:
        raise click.BadParameter(
            f"'{value}': expected the smallest and the largest size, for example 0.8,1.2"
        )
    return numbers[0], numbers[1]


_STREAMS = ("rtsp://", "rtmp://", "http://", "https://", "udp://")


def inputs(inputs: tuple[str, ...]) -> tuple[list[Path], list[Path], list[int | str]]:
    """Images, videos, and cameras or streams that the arguments name; each once.

    Of folders and patterns the pictures and videos are left out that an earlier run has made, and
    their number is said: photographs may lie in the folder of their own results. So is the number
    of files with other endings.

    Raises
    ------
    CaffeCompatError : a folder without pictures, or the address of a picture.
    """
    from reproduce.predict.own_pictures import is_made
    from reproduce.predict.photographs import IMAGES
    from reproduce.predict.videos import VIDEOS

    images: list[Path] = []
    videos: list[Path] = []
    cameras: list[int | str] = []
    made = 0
    for name in inputs:
        path = Path(name)
        if name.startswith("camera:") and name[7:].isascii() and name[7:].isdigit():
            cameras.append(int(name[7:]))
        elif name.lower().startswith(_STREAMS):
            if name.lower().endswith(IMAGES):
                raise CaffeCompatError(f"{name}: is a picture on a server; download it first")
            _check_address(name)
            cameras.append(name)
        elif path.is_dir():
            inside = list(path.iterdir())
            there = [p for p in inside if p.suffix.lower() in (*IMAGES, *VIDEOS)]
            found = [p for p in there if not is_made(p)]
            made += len(there) - len(found)
            if not found:
                ours = " but what cpm-predict has made" if there else ""
                raise CaffeCompatError(f"{name}: no image or video files in there{ours}")
            _say_others(name, set(inside) - set(there))
            _say_folders(name, inside, (*IMAGES, *VIDEOS))
            images += sorted(p for p in found if p.suffix.lower() in IMAGES)
            videos += sorted(p for p in found if p.suffix.lower() in VIDEOS)
        else:
            pattern = not path.exists() and any(c in name for c in "*?[")
            matching = sorted(Path(p) for p in glob.glob(name, recursive=True)) if pattern else []
            many = [p for p in matching if not is_made(p)]
            made += len(matching) - len(many)
            if matching and not many:
                raise CaffeCompatError(f"{name}: nothing but what cpm-predict has made")
            for one in many or [path]:  # a pattern without a match is reported as missing
                (videos if one.suffix.lower() in VIDEOS else images).append(one)
    if made:
        note = f"note: pictures and videos that cpm-predict has made are left out ({made})"
        click.echo(f"{note}; name one to take it all the same", err=True)
    return _once(images), _once(videos), list(dict.fromkeys(cameras))


def _check_address(address: str) -> None:
    """Raise where a stream's address is none; it is not shown, because a password may be in it."""
    try:
        urlsplit(address)
    except ValueError as error:
        raise CaffeCompatError(
            f"the address of a stream ({address.partition('://')[0]}://...) cannot be read: {error}"
        ) from None


def _say_others(folder: str, others: Iterable[Path]) -> None:
    """Say how many files of a folder are not taken: a photograph of an unknown format may be
    among them."""
    visible = [p for p in others if p.is_file() and not p.name.startswith(".")]
    files = [p for p in visible if not _OWN.fullmatch(p.name)]
    if files:
        endings = sorted({p.suffix.lower() or "none" for p in files})
        shown = ", ".join([*endings[:5], *(["..."] if len(endings) > 5 else [])])
        say_line(
            f"note: {folder}: files with other endings are left out ({len(files)}: {shown})",
            err=True,
        )


def _say_folders(folder: str, inside: Iterable[Path], endings: tuple[str, ...]) -> None:
    """Say how many folders with pictures in them are not looked into."""
    from reproduce.predict.own_pictures import is_made

    def holds_pictures(place: Path) -> bool:
        with contextlib.suppress(OSError):  # who may not look into it
            return any(p.suffix.lower() in endings and not is_made(p) for p in place.iterdir())
        return False

    folders = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    holding = [path for path in folders if holds_pictures(path)]
    if holding:
        say_line(
            f"note: {folder}: folders inside it are not looked into ({len(holding)} with pictures, "
            f"{min(holding).name} for one); name them, too",
            err=True,
        )


# files of an earlier run that are no pictures
_OWN = re.compile(
    r".+_keypoints\.json|predictions(_coco(_results)?\.json|\.npz|\.mat)"
    r"|not_done(_[0-9]+)?\.txt|page\.html"
)


def _once(paths: Sequence[Path]) -> list[Path]:
    """Files as they are named first, each once; how many are named again is said."""
    named: dict[str, Path] = {}
    for path in paths:
        named.setdefault(os.path.abspath(path), path)
    once = list(named.values())
    if again := len(paths) - len(once):
        click.echo(f"note: inputs that are named more than once are done once ({again})", err=True)
    return once
