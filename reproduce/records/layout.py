"""Annotations and images as CPM records: the authors' LMDB layout, byte for byte.

A record is a Datum of four planes: B, G, R, and one whose rows carry the annotation from column 0
(float32 little endian unless said otherwise):

=======  ==================================================================================
row      content
=======  ==================================================================================
0        dataset name, ASCII
1        height, width of the image as annotated
2        uint8 isValidation, numOtherPeople, people_index; from byte 3 annolist_index,
         write index, total count
3        objpos x, y
4        scale_provided
5, 6, 7  x, y, visible of the joints
8 ...    with n other people: n rows objpos, one row of n scales, then 3 joint rows per person
=======  ==================================================================================

Source: genLMDB of the CPM release (layout; recorded bytes in the golden data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.training.datum import Datum
from reproduce.people.annotation import Annotation, Other, counted_from_0, counted_from_1
from reproduce.records import images

MIN_WIDTH = 64
MAX_SIDE = 65500  # of a picture in a record, as JPEG's own limit
_MAX_PIXELS = 1 << 28
_FAR = 1e7  # pixels; no place in a record is further away
PAD_VALUE = 128
# The folder of a data set's images below the folder that holds the data sets: as the authors have
# it, and as the downloads unpack.
ROOTS: dict[str, tuple[str, ...]] = {
    "MPI": ("MPI/images", "mpi/images", "mpii/images"),
    "LEEDS": ("LEEDS", "leeds"),
    "FLIC": ("FLIC", "flic"),
}
Image = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """A record read back.

    Attributes
    ----------
    image : (H, W, 3) uint8 B, G, R.
    annotation : as stored in float32; ``image`` (the path) is empty: records do not keep it.
    write_number, total : the record's index in the file, and how many there are.
    """

    image: Image
    annotation: Annotation
    write_number: int
    total: int


def _floats(values: Any) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def metadata_plane(
    annotation: Annotation, height: int, width: int, number: int, total: int
) -> Plane:
    """The fourth plane (height, width) of a record.

    Raises
    ------
    DataError : the image is too small to hold the annotation, or a record has no place for it.
    """
    a = counted_from_1(annotation)
    for what, count in (("numOtherPeople", len(a.others)), ("people_index", a.people_index)):
        if not 0 <= count <= 255:
            raise DataError(f"{a.image}: {what} is {count}, and a record holds 0 to 255")
    if not a.dataset.isascii():
        raise DataError(f"{a.image}: the name of dataset '{a.dataset}' is not ASCII, as in records")
    rows = [
        a.dataset.encode("ascii"),
        _floats([a.size[1], a.size[0]]),
        bytes([int(a.validation), len(a.others), a.people_index])
        + _floats([a.annolist_index, number, total]),
        _floats(a.objpos),
        _floats([a.scale]),
        *(_floats(a.joints[:, c]) for c in range(3)),
    ]
    if a.others:
        rows += [_floats(o.objpos) for o in a.others]
        rows.append(_floats([o.scale for o in a.others]))
        for o in a.others:
            rows += [_floats(o.joints[:, c]) for c in range(3)]
    longest = max(map(len, rows))
    if len(rows) > height or longest > width:
        raise DataError(
            f"{a.image}: the annotation needs {len(rows)} rows of {longest} bytes, the image "
            f"has only {height} × {width}"
        )
    plane = np.zeros((height, width), np.uint8)
    for i, row in enumerate(rows):
        plane[i, : len(row)] = np.frombuffer(row, np.uint8)
    return plane


def pad_narrow(image: Image) -> Image:
    """Grey columns on the right up to 64 pixels."""
    missing = MIN_WIDTH - image.shape[1]
    if missing <= 0:
        return image
    return np.concatenate([image, np.full((image.shape[0], missing, 3), PAD_VALUE, np.uint8)], 1)


def encode(annotation: Annotation, image: Image, number: int, total: int) -> bytearray:
    """A record as the original script wrote it, assembled in place.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R, as decoded.
    number, total : write index and number of records in the file.
    """
    wide = pad_narrow(image)
    height, width = wide.shape[:2]
    size = 4 * height * width
    head, tail = Datum(4, height, width, b"").around(size)
    value = bytearray(len(head) + size + len(tail))
    value[: len(head)], value[len(head) + size :] = head, tail
    planes = np.frombuffer(value, np.uint8, size, len(head)).reshape(4, height, width)
    planes[:3] = wide.transpose(2, 0, 1)
    planes[3] = metadata_plane(annotation, height, width, number, total)
    return value


def _row(plane: Plane, row: int, count: int, start: int = 0) -> npt.NDArray[np.float32]:
    if row >= plane.shape[0]:
        raise DataError("the record's metadata are cut short")
    data = plane[row, start : start + 4 * count].tobytes()
    if len(data) < 4 * count:
        raise DataError("the record's metadata rows are too short")
    return np.frombuffer(data, "<f4")


def read_metadata(plane: Plane, joints: int) -> tuple[Annotation, int, int]:
    """The annotation of a metadata plane, write number and total.

    Parameters
    ----------
    joints : joints per person in this file (16, or 9 for FLIC).

    Raises
    ------
    DataError : not such a plane, or one whose people have more joints.
    """
    if plane.shape[0] < 8:
        raise DataError("the record has fewer than 8 rows: no metadata plane")
    name = _dataset(plane)
    height, width = _row(plane, 1, 2)
    validation, others, people = (int(v) for v in plane[2, :3])
    annolist, number, total = _row(plane, 2, 3, 3)

    def person(first: int) -> npt.NDArray[np.float64]:
        rows = [_row(plane, first + c, joints) for c in range(3)]
        if plane[first : first + 3, 4 * joints :].any():
            more = _joints_in(plane, first)
            raise DataError(
                f"a person in it has {more} joints, {joints} are expected (--joints, or np_in_lmdb "
                "of the definition); the records of one file have one number of joints"
            )
        return np.stack(rows, 1).astype(np.float64)

    found = []
    if others:
        scales = _row(plane, 8 + others, others)
        for i in range(others):
            objpos = _row(plane, 8 + i, 2).astype(np.float64)
            found.append(Other(person(9 + others + 3 * i), objpos, float(scales[i])))
    header = np.array([height, width, annolist, number, total])
    if not np.isfinite(header).all() or (np.abs(header) > 1e9).any():
        raise DataError("the record's metadata hold no sensible numbers")
    annotation = Annotation(
        image="",
        dataset=name,
        joints=person(5),
        objpos=_row(plane, 3, 2).astype(np.float64),
        scale=float(_row(plane, 4, 1)[0]),
        size=(int(width), int(height)),
        others=tuple(found),
        validation=bool(validation),
        annolist_index=int(annolist),
        people_index=people,
    )
    return counted_from_0(annotation), int(number), int(total)


def check_person(annotation: Annotation, where: str = "the record") -> None:
    """Refuse a person that no picture can hold: places far away, or no size.

    Raises
    ------
    DataError : says what.
    """
    people: tuple[Annotation | Other, ...] = (annotation, *annotation.others)
    for person in people:
        places = (person.joints[:, :2], person.objpos)
        if not all((np.abs(place) < _FAR).all() for place in places):  # nan is not below either
            raise DataError(f"{where}: a joint or centre lies nowhere: its numbers are damaged")
    if not 1e-3 < annotation.scale < 1e4:
        raise DataError(f"{where}: the person's scale is {annotation.scale:g}")


def decode(datum: Datum, joints: int) -> Record:
    """Image and annotation of a record, of planes or of :func:`encode_stored`.

    Parameters
    ----------
    joints : per person.

    Raises
    ------
    DataError : no CPM record, or a damaged one.
    """
    if datum.encoded:
        annotation, number, total = read_metadata(_plane_of(datum), joints)
        check_person(annotation)
        image = decode_image(image_bytes(datum), datum.height, datum.width)
        return Record(image, annotation, number, total)
    if datum.channels != 4:
        raise DataError(f"the record has {datum.channels} channels, expected 4 (B, G, R, metadata)")
    planes = datum.data
    if not planes.size or max(planes.shape) > MAX_SIDE:
        raise DataError(f"the record claims an image of {datum.width} × {datum.height}")
    annotation, number, total = read_metadata(planes[3], joints)
    check_person(annotation)
    return Record(np.ascontiguousarray(planes[:3].transpose(1, 2, 0)), annotation, number, total)


def encode_stored(
    annotation: Annotation, stored: bytes, size: tuple[int, int], number: int, total: int
) -> bytes:
    """A small record: the image file's own bytes instead of planes, metadata rows behind them.

    The Datum is marked ``encoded``; its data are the length of the image file (uint32 little
    endian), the file, and the metadata plane's used part (uint16 rows, uint16 columns, then the
    bytes). Caffe's own CPMData layer reads planes only; this toolkit reads both.

    Parameters
    ----------
    stored : the image file.
    size : (height, width) of the record, narrow images padded.
    """
    height, width = size
    plane = metadata_plane(annotation, height, width, number, total)
    rows = int(np.flatnonzero(plane.any(1))[-1]) + 1
    columns = int(np.flatnonzero(plane.any(0))[-1]) + 1
    head = np.array([len(stored)], "<u4").tobytes()
    shape = np.array([rows, columns], "<u2").tobytes()
    raw = head + stored + shape + plane[:rows, :columns].tobytes()
    return Datum(4, height, width, raw, encoded=True).encode()


def image_bytes(datum: Datum) -> bytes:
    """The image file inside a record of :func:`encode_stored`.

    Raises
    ------
    DataError : cut short.
    """
    raw = bytes(datum.raw)
    size = int(np.frombuffer(raw[:4], "<u4")[0]) if len(raw) >= 8 else 1 << 40
    if len(raw) < 8 + size or not size:
        raise DataError("the encoded record is cut short")
    return raw[4 : 4 + size]


def decode_image(stored: bytes, height: int, width: int) -> Image:
    """Decode a stored image file and pad it to the record's width.

    Raises
    ------
    DataError : not decodable, or of another size.
    """
    image = images.decode(stored)
    wide = pad_narrow(image)
    if wide.shape[:2] != (height, width):
        raise DataError("the stored image has another size than the record says")
    return wide


def _plane_of(datum: Datum) -> Plane:
    """The metadata plane of a record of either kind; of :func:`encode_stored` its used part, grown
    to the record's size."""
    if datum.channels != 4:
        raise DataError(f"the record has {datum.channels} channels, expected 4")
    if not datum.encoded:
        return np.asarray(datum.data[3], np.uint8)
    rest = bytes(datum.raw)[4 + len(image_bytes(datum)) :]
    if len(rest) < 4:
        raise DataError("the encoded record is cut short")
    rows, columns = (int(v) for v in np.frombuffer(rest[:4], "<u2"))
    if len(rest) != 4 + rows * columns or rows > datum.height or columns > datum.width:
        raise DataError("the encoded record's metadata have the wrong size")
    if not 0 < datum.height * datum.width <= _MAX_PIXELS:
        raise DataError(f"the encoded record claims an image of {datum.width} × {datum.height}")
    plane = np.zeros((datum.height, datum.width), np.uint8)
    plane[:rows, :columns] = np.frombuffer(rest[4:], np.uint8).reshape(rows, columns)
    return plane


def _dataset(plane: Plane) -> str:
    row: bytes = plane[0].tobytes()
    return row.split(b"\0")[0].decode("ascii", "replace")


def _joints_in(plane: Plane, first: int) -> int:
    """Joints in three rows, up to the last one that is not (0, 0, not visible)."""
    used = np.flatnonzero(plane[first : first + 3].any(0))
    return int(used[-1]) // 4 + 1 if used.size else 0


def stored_of(datum: Datum) -> tuple[str, int]:
    """A record's data set, and how many joints its person has at least: up to the last one that is
    not (0, 0, not visible).

    Raises
    ------
    DataError : no record.
    """
    plane = _plane_of(datum)
    if plane.shape[0] < 8:
        raise DataError("the record has fewer than 8 rows: no metadata plane")
    return _dataset(plane), _joints_in(plane, 5)
