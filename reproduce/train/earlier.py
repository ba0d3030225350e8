"""Files of an earlier training: where another one begins under the same snapshot prefix, they are
moved aside, so that none is overwritten and no two trainings mix."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from caffe_compat.files import TargetError

_SNAPSHOT = re.compile(r"_iter_(\d+)\.(caffemodel|solverstate)(\.h5)?")
_LOG, _TENSORBOARD = "_log.jsonl", "_tensorboard"


@dataclass(frozen=True)
class Moved:
    """What was moved aside.

    Attributes
    ----------
    folder : where it lies now.
    names : of the files and of the folder with TensorBoard's reports, as before.
    newest : the highest iteration that has a solver state; None without any.
    """

    folder: Path
    names: tuple[str, ...]
    newest: int | None

    def text(self, weights: Iterable[str] = ()) -> str:
        """One line for the terminal.

        Parameters
        ----------
        weights : names of the files that the new training took its weights from; those that were
            moved are named.
        """
        count = len(self.names)
        files, were = ("file", "was") if count == 1 else ("files", "were")
        line = f"{count} {files} of an earlier training {were} moved to {self.folder}"
        here = os.path.abspath(self.folder.parent)
        mine = [
            name
            for name in self.names
            if any(os.path.join(here, name) == os.path.abspath(one) for one in weights)
        ]
        if mine:
            line += f", the weights {' and '.join(mine)} that this one begins with among them"
        if self.newest is not None:
            line += f" (--snapshot latest would have gone on from iteration {self.newest})"
        return line


def is_of(state: str | os.PathLike[str], prefix: str | os.PathLike[str]) -> bool:
    """Whether a snapshot is one of a prefix's own, by its name and its folder."""
    place, name = os.path.split(os.path.abspath(prefix))
    beside, file = os.path.split(os.path.abspath(state))
    own = file.startswith(name) and _SNAPSHOT.fullmatch(file, len(name)) is not None
    return own and os.path.realpath(place) == os.path.realpath(beside)


def move_aside(prefix: str | os.PathLike[str]) -> Moved | None:
    """Move the snapshots and the log of a prefix into the first free ``PREFIX_earlierN``.

    The names stay the same, so that a training can go on from the new place as well. A log without
    a line holds nothing and stays.

    Parameters
    ----------
    prefix : what the names of the snapshots begin with; the caller holds it.

    Returns
    -------
    What was moved, or None where nothing stood there.

    Raises
    ------
    TargetError : the folder cannot be made, or a file cannot be moved; what was not moved stays as
        it was.
    """
    place, name = os.path.split(os.fspath(prefix))
    found = _files(place or ".", name)
    if not found:
        return None
    folder = _free_folder(os.fspath(prefix))
    for one in found:
        _move(Path(place, one), folder / one)
    states = [
        int(match[1])
        for one in found
        if (match := _SNAPSHOT.fullmatch(one, len(name))) and match[2] == "solverstate"
    ]
    return Moved(folder, tuple(found), max(states, default=None))


def _files(place: str, name: str) -> list[str]:
    """Names of a training's files in a folder, in the order in which they are moved.

    By iteration and the state before its model, so that whoever ends this half-way finds no state
    here without its model, and the newest one still here.
    """
    try:
        inside = sorted(os.listdir(place))
    except FileNotFoundError:
        return []
    snapshots = [
        (int(match[1]), match[2] == "caffemodel", one)
        for one in inside
        if one.startswith(name)
        and (match := _SNAPSHOT.fullmatch(one, len(name)))
        and not os.path.isdir(os.path.join(place, one))
    ]
    logs = [one for one in inside if one == name + _LOG and _holds_something(place, one)]
    reports = [one for one in inside if one == name + _TENSORBOARD]
    return [one for _, _, one in sorted(snapshots)] + logs + reports


def _holds_something(place: str, name: str) -> bool:
    """Whether a file has at least one byte."""
    path = os.path.join(place, name)
    return os.path.isfile(path) and os.path.getsize(path) > 0


def _free_folder(prefix: str) -> Path:
    """A new folder ``PREFIX_earlierN``, of the lowest number that is free."""
    names = (f"{prefix}_earlier{number}" for number in itertools.count(1))
    folder = next(name for name in names if not os.path.lexists(name))
    try:
        os.mkdir(folder)
    except OSError as error:
        raise TargetError(
            f"{folder}: this folder, for the files of an earlier training, cannot be made: "
            f"{error.strerror or error}"
        ) from None
    return Path(folder)


def _move(source: Path, target: Path) -> None:
    """Give a file its new place, one folder further down."""
    try:
        leads_to = os.readlink(source) if source.is_symlink() else ""
        if leads_to and not os.path.isabs(leads_to):
            os.symlink(os.path.join(os.pardir, leads_to), target)
            source.unlink()
        else:
            os.rename(source, target)
    except OSError as error:
        raise TargetError(
            f"{source}: cannot be moved to {target.parent}, where files of an earlier training "
            f"go: {error.strerror or error}"
        ) from None
