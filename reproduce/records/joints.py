"""How many joints the people of one file of records have: one number, or the labels of some of them
would be of other parts.

The authors' layout does not say the number. A record tells that it has at least so many, and whose
data set it is from; the authors' own data sets have known numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from reproduce.people.annotation import Annotation
from reproduce.people.matlab_pixels import annotated
from reproduce.people.skeletons import MPII_JOINTS, PARTS_9

_RULE = "the records of one file have one number of joints"
# of the authors' data sets; other data may borrow a name, which shows where they have more joints
_AUTHORS = {"MPI": len(MPII_JOINTS), "LEEDS": len(MPII_JOINTS), "FLIC": len(PARTS_9)}


def joints_of(people: Iterable[Annotation], where: str = "") -> int:
    """How many joints all of some people have. Others in their images have no more: the authors'
    have fewer where MPII's lists of points are short.

    Parameters
    ----------
    where : the file that they are from.

    Returns
    -------
    The number; 0 where nobody has any. People without joints go with every number.

    Raises
    ------
    DataError : not all have the same number; names the first image that differs.
    """
    found = 0
    before = f"{where}: " if where else ""
    for person in people:
        own = len(person.joints)
        found = found or own
        differing = [own] if own not in (0, found) else []
        differing += [len(other.joints) for other in person.others if len(other.joints) > found]
        if differing:
            raise DataError(
                f"{before}{person.image}: a person in it has {differing[0]} joints, those before "
                f"it have {found}; {_RULE}: write two files"
            )
    return found


def check_files(files: Sequence[tuple[str, Sequence[Annotation]]]) -> None:
    """Refuse files of annotations whose people have different numbers of joints.

    Parameters
    ----------
    files : each with its name.

    Raises
    ------
    DataError : names the file that differs, and the one from which it does.
    """
    first, expected = "", 0
    for name, people in files:
        count = joints_of(people, name)
        if expected and count not in (0, expected):
            raise DataError(
                f"{name}: its people have {count} joints, those of {first} {expected}; {_RULE}: "
                "write two files"
            )
        if not expected:
            first, expected = name, count


def joints_shown(annotation: Annotation) -> int:
    """How many joints a person of a record has at least: up to the last one that is not (0, 0, not
    visible) in the record."""
    joints = annotation.joints
    return int(last_marked((annotated(joints) | (joints[:, 2] != 0))[None])[0])


def last_marked(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each row of marks (N, J) the number of the last true one, counted from 1; 0 for none."""
    numbers = np.arange(1, marks.shape[1] + 1)
    return np.asarray((marks * numbers).max(1, initial=0), np.int64)


def usual_joints(shown: int) -> int:
    """How many joints MPII's people have where so many show: their 16 may end with two that are
    never labelled. Another number is left as it is."""
    whole = len(MPII_JOINTS)
    return whole if whole - 2 <= shown <= whole or not shown else shown


def usual_number(seen: Mapping[str, int]) -> int:
    """How many joints the people of a file have where nobody says it: as many as show, but all of
    MPII's in the authors' data sets that have these.

    Parameters
    ----------
    seen : the most joints that a sample of the records shows, by data set.
    """
    whole = len(MPII_JOINTS)
    numbers = [
        usual_joints(shown) if _AUTHORS.get(name) == whole else shown
        for name, shown in seen.items()
    ]
    return max(numbers, default=0) or whole


class OneNumber:
    """Finds records that do not belong among the others of their file.

    Parameters
    ----------
    seen : the most joints that a sample of the records shows, by data set.
    """

    def __init__(self, seen: Mapping[str, int]) -> None:
        self._seen = dict(seen)
        self._known = {
            name: count for name, count in _AUTHORS.items() if seen.get(name, 0) <= count
        }

    def check(self, dataset: str, shown: int, where: str) -> None:
        """Look at one record.

        Parameters
        ----------
        dataset : where it is from.
        shown : how many joints it has at least.
        where : what a message calls it.

        Raises
        ------
        DataError : says whose joints it has, and whose the others have.
        """
        own = self._known.get(dataset)
        for name, most in self._seen.items():
            if own is not None and shown <= own < most:
                raise _mixed(
                    f"{where}: is of {dataset}, whose people have {own} joints", name, most
                )
            number = self._known.get(name)
            if number is not None and name != dataset and shown > number:
                raise _mixed(f"{where}: has {shown} joints per person", name, number)


def _mixed(what: str, other: str, count: int) -> DataError:
    return DataError(
        f"{what}, but there are {count} in the file's records of {other}; {_RULE}: export each "
        "kind into a file of its own (cpm-export lmdb)"
    )
