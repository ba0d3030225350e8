"""What was measured once and comes with the package: the speed of this toolkit and its peers, and
how far the recorded cases of the original programs are from ours.

Both are JSON files in ``reproduce/results``, written by ``tools/measure_speed.py`` and
``tools/measure_parity.py``. They are checked when they are read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from caffe_compat.foreign import Unfit, read_json, reading

FOLDER = Path(str(resources.files("reproduce"))) / "results"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What made some numbers.

    Attributes
    ----------
    command : that makes them again.
    machine : processor and operating system.
    date : in ISO form.
    data : what was worked on; "" where the command says it.
    version : of this toolkit; "" where it was not kept.
    commit : of this toolkit; "" where it was not kept.
    torch : its version; "" where it was not kept.
    opencv : its version; "" where it was not kept.
    code : digest of the programs that were timed; "" where it was not kept.
    """

    command: str
    machine: str
    date: str
    data: str = ""
    version: str = ""
    commit: str = ""
    torch: str = ""
    opencv: str = ""
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """One thing that was timed, ours and the peers in turn in one run.

    Attributes
    ----------
    part : the part of ``tools/measure_speed.py`` that measures it.
    what : was timed.
    unit : of the numbers.
    more_is_better : or less.
    ours : this toolkit's median.
    peers : the others' medians by name; at least one.
    provenance : what made the numbers.
    """

    part: str
    what: str
    unit: str
    more_is_better: bool
    ours: float
    peers: Mapping[str, float]
    provenance: Measurement

    def times(self, peer: str) -> float:
        """How many times as fast as a peer this toolkit is."""
        ratio = self.ours / self.peers[peer]
        return ratio if self.more_is_better else 1 / ratio

    @property
    def fastest(self) -> str:
        """The peer that comes nearest, or is ahead."""
        return min(self.peers, key=self.times)


@dataclass(frozen=True)
class Speed:
    """Everything that was timed.

    Attributes
    ----------
    rows : in the order of the report.
    """

    rows: Sequence[SpeedRow]


@dataclass(frozen=True)
class ParityRow:
    """What one kind of recorded case measured.

    Attributes
    ----------
    what : was compared, and the unit.
    cases : how many comparisons were made: one for each recorded case and way to run it.
    largest : difference.
    """

    what: str
    cases: int
    largest: float


@dataclass(frozen=True)
class Parity:
    """All recorded cases.

    Attributes
    ----------
    provenance : what made the numbers.
    rows : one a kind of case.
    """

    provenance: Measurement
    rows: Sequence[ParityRow]


def read_speed(path: Path = FOLDER / "speed.json") -> Speed:
    """Everything that was timed; nothing where there is no file.

    Raises
    ------
    DataError : a file that is damaged or lacks a field.
    """
    what, advice = "file of measured speeds", "make it again by tools/measure_speed.py"
    if not path.exists():
        return Speed(())
    content = read_json(path, what, advice=advice)
    with reading(path, what, advice=advice):
        found = _as(Speed, content, "the file")
        for row in found.rows:
            if not row.peers or min(row.ours, *row.peers.values()) <= 0:
                raise Unfit(f"'{row.what}' needs a peer, and numbers above 0")
        return found


PARITY_HEAD = ("recorded from", "comparisons", "largest difference")


def parity_rows(parity: Parity) -> list[tuple[str, ...]]:
    """What was compared, as text under :data:`PARITY_HEAD`."""
    return [
        (row.what, str(row.cases), f"{row.largest:.1e}" if row.largest else "0")
        for row in parity.rows
    ]


def read_parity(path: Path = FOLDER / "parity.json") -> Parity | None:
    """What the recorded cases measured; None where there is no file.

    Raises
    ------
    DataError : a file that is damaged or lacks a field.
    """
    what, advice = "file of measured differences", "make it again by tools/measure_parity.py"
    if not path.exists():
        return None
    content = read_json(path, what, advice=advice)
    with reading(path, what, advice=advice):
        return _as(Parity, content, "the file")


_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _as(kind: type[_T], value: Any, name: str) -> _T:
    """A value out of a JSON file as the type that a field declares.

    Raises
    ------
    Unfit : it is of another type, or a field of it is missing.
    """
    found: Any
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        given = _expect(dict, value, name, "an object")
        for one in dataclasses.fields(kind):
            if one.name not in given and one.default is dataclasses.MISSING:
                raise Unfit(f"the field '{one.name}' is missing in {given.get('what', name)}")
        found = kind(**{n: _as(hint, given[n], n) for n, hint in hints.items() if n in given})
    elif get_origin(kind) is Mapping:
        given = _expect(dict, value, name, "an object")
        found = {key: _as(get_args(kind)[1], one, key) for key, one in given.items()}
    elif get_origin(kind) is Sequence:
        given = _expect(list, value, name, "a list")
        inner = get_args(kind)[0]
        found = tuple(_as(inner, one, f"{name}[{i}]") for i, one in enumerate(given))
    elif kind is float:
        allowed = isinstance(value, int | float) and not isinstance(value, bool)
        if not allowed or not math.isfinite(value):
            raise Unfit(f"'{name}' is {value!r:.60}, not a number")
        found = float(value)
    else:
        if isinstance(value, bool) and kind is not bool:
            raise Unfit(f"'{name}' is {value}, not {_NAMES[kind]}")
        found = _expect(kind, value, name, _NAMES[kind])
    return cast(_T, found)


def _expect(kind: type, value: Any, name: str, words: str) -> Any:
    if not isinstance(value, kind):
        raise Unfit(f"'{name}' is {value!r:.60}, not {words}")
    return value
