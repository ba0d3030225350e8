"""The door for files that others wrote: text, JSON, npz and HDF5.

Every reader goes through here, so that a bad file of any kind ends in one line of ours: which file,
what is wrong in it, what to do. Nothing here executes what a file holds, follows it to other files,
or takes more memory than the file's own size allows (see :func:`room`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError, with_article

Array = npt.NDArray[Any]
Path_ = str | os.PathLike[str]
_TEXT_LIMIT = 1 << 30
# A compressed file may unpack to this many times its size, and any file to the floor. Arrays of
# equal numbers compress a thousandfold, but then they are small.
_RATIO, _FLOOR = 128, 256 << 20

# The first bytes of files that people give by mistake.
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "a gzip archive: unpack it first (gunzip)"),
    (b"BZh", "a bzip2 archive: unpack it first (bunzip2)"),
    (b"\xfd7zXZ\0", "an xz archive: unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it first (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first (unzip)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"MATLAB 7.3", "a MATLAB 7.3 file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'",
    ),
    (b"\x80\x02", "a Python pickle, which could run code and is never read"),
    (b"\x80\x04", "a Python pickle, which could run code and is never read"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
)


class Unfit(ValueError):
    """Contents that are not what a reader expects; :func:`reading` adds the file's name."""


def kind_of(head: bytes) -> str:
    """What a file is by its first bytes, in words with advice; "" where they tell nothing."""
    for magic, words in _KINDS:
        if head.startswith(magic):
            return words
    start = head.lstrip()[:512].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        page = "XML" if start.startswith(b"<?xml") else "HTML"
        return f"an {page} page: the download link gave a web page; download it again"
    if len(head) > 262 and head[257:262] == b"ustar":
        return "a tar archive: unpack it first (tar xf)"
    return ""


def room(path: Path_) -> int:
    """How many bytes the contents of a file may take in memory, from its size on disk."""
    return max(_FLOOR, _RATIO * os.path.getsize(path))


def _reason(error: BaseException) -> str:
    """What a library says about a file, in one line."""
    if isinstance(error, MemoryError):
        return "it claims more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    text = lines[0][:300] if lines else ""
    if isinstance(error, KeyError) and "'" not in text.strip("'"):
        return f"{text} is missing in it"
    return text or type(error).__name__


@contextlib.contextmanager
def reading(
    path: Path_, what: str, error: type[CaffeCompatError] = DataError, advice: str = ""
) -> Iterator[None]:
    """Whatever is raised inside about a file's contents comes out as one of our errors.

    Parameters
    ----------
    path : the file.
    what : what was expected of it, for example "COCO key-point file".
    error : the exception to raise.
    advice : what to do about it.
    """
    name = os.fspath(path)
    ending = f"; {advice}" if advice else ""
    try:
        yield
    except CaffeCompatError:
        raise
    except FileNotFoundError as found:
        missing = found.filename if isinstance(found.filename, str) else name
        raise error(f"{missing}: no such file{ending}") from found
    except Exception as found:
        raise error(f"{name}: is no readable {what}: {_reason(found)}{ending}") from found


def check_file(path: Path_, error: type[CaffeCompatError] = DataError) -> int:
    """The size of an ordinary file.

    Raises
    ------
    CaffeCompatError : missing, a folder, a pipe or a device (which may never end).
    """
    name = os.fspath(path)
    try:
        found = os.stat(name)
    except FileNotFoundError:
        advice = _windows_advice(name)
        raise error(f"{name}: cannot be read: No such file or directory{advice}") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"{name}: cannot be read: {reason}{_windows_advice(name)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise error(f"{name}: is a directory, expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{name}: is a pipe or a device, expected an ordinary file")
    return found.st_size


def _windows_advice(name: str) -> str:
    """Backslashes in a name are part of it everywhere but on Windows."""
    if "\\" in name and os.sep == "/":
        return "; write the path with / instead of \\"
    return ""


def read_bytes(
    path: Path_, error: type[CaffeCompatError] = DataError, limit: int = _TEXT_LIMIT
) -> bytes:
    """A whole ordinary file, up to ``limit`` bytes.

    Raises
    ------
    ``error`` : the file is no ordinary one, cannot be read, or is longer than ``limit``.
    """
    size = check_file(path, error)
    if size > limit:
        raise error(
            f"{os.fspath(path)}: has {size:,} bytes, more than the {limit:,} that are read of "
            "such a file; is it another file?"
        )
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        reason = problem.strerror or problem
        raise error(f"{os.fspath(path)}: cannot be read: {reason}") from None


def decode(data: bytes, *, strict: bool = True) -> str:
    """Text with or without a byte order mark: UTF-8, UTF-16 or UTF-32.

    Parameters
    ----------
    strict : with False, bytes that are no UTF-8 come out as lone surrogates.

    Raises
    ------
    UnicodeDecodeError : another encoding.
    """
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return data.decode("utf-32")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig", "strict" if strict else "surrogateescape")


def read_text(path: Path_, what: str = "text file", *, strict: bool = True) -> str:
    """The text of a file in any Unicode encoding.

    Parameters
    ----------
    strict : with False, bytes that are no UTF-8 (in names of files) come out as lone surrogates.

    Raises
    ------
    DataError : unreadable, too large, binary, or in another encoding; says what it is.
    """
    data = read_bytes(path)
    name = os.fspath(path)
    kind = kind_of(data[:1024])
    if kind and "UTF-16" not in kind:
        raise DataError(f"{name}: is {kind}; expected {with_article(what)}")
    try:
        text = decode(data, strict=strict)
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise DataError(
            f"{name}:{line}: is not UTF-8 text; save it as UTF-8 (expected {with_article(what)})"
        ) from None
    if "\0" in text:
        raise DataError(f"{name}: is binary, expected {with_article(what)}")
    return text


def _refuse_constant(name: str) -> float:
    raise Unfit(f"holds {name}, which is not JSON")


def parse_json(text: str, *, nan: bool = False) -> Any:
    """JSON as Python values.

    Parameters
    ----------
    nan : take NaN and Infinity, which are not JSON, as numbers.
    """
    return json.loads(text) if nan else json.loads(text, parse_constant=_refuse_constant)


def read_json(path: Path_, what: str = "JSON file", *, nan: bool = False, advice: str = "") -> Any:
    """The contents of a JSON file, with or without a byte order mark.

    Raises
    ------
    DataError : unreadable, no JSON, nested too deeply, or (without ``nan``) holding NaN.
    """
    text = read_text(path, what)
    with reading(path, what, advice=advice):
        return parse_json(text, nan=nan)


def stay_inside(name: str) -> str:
    """A file name out of a foreign file, which must stay below the folder that it counts from.

    Raises
    ------
    Unfit : it is absolute, or climbs out with ``..``.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise Unfit(f"the file name {name} leads out of its folder")
    return name


# ---------------------------------------------------------------- npz


def read_npz(
    path: Path_, what: str = "npz file", error: type[CaffeCompatError] = DataError
) -> dict[str, Array]:
    """Arrays of an ``.npz`` file by name; nothing pickled is read.

    Raises
    ------
    CaffeCompatError : damaged, holding objects, or larger than :func:`room`.
    """
    import zipfile

    check_file(path, error)
    found: dict[str, Array] = {}
    with reading(path, what, error), zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        if not entries:
            raise Unfit("the archive holds no arrays")
        claimed = sum(entry.file_size for entry in entries)
        if claimed > room(path):
            raise Unfit(f"its arrays claim {claimed:,} bytes, more than such a file may hold")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in found:
                raise Unfit(f"it holds two arrays '{name}'")
            with archive.open(entry) as stream:
                found[name] = _read_array(stream, entry.file_size, name)
    return found


def read_npy(path: Path_, what: str = "npy file") -> Array:
    """The array of an ``.npy`` file; nothing pickled is read.

    Raises
    ------
    DataError : damaged, or holding objects.
    """
    size = check_file(path)
    with reading(path, what), open(path, "rb") as stream:
        return _read_array(stream, size, os.path.basename(path))


def _read_array(stream: Any, size: int, name: str) -> Array:
    """One ``.npy`` member; its header must describe just the bytes that are there."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise Unfit(f"array '{name}' is of format version {version}")
    if dtype.hasobject:
        raise Unfit(
            f"array '{name}' holds Python objects, which could run code: save plain arrays of "
            "numbers"
        )
    if any(dim < 0 for dim in shape):
        raise Unfit(f"array '{name}' claims the shape {shape}")
    count = math.prod(shape)
    if count * dtype.itemsize != size - stream.tell():
        raise Unfit(
            f"array '{name}' claims the shape {shape} of {dtype}, the file holds "
            f"{size - stream.tell()} bytes of it"
        )
    data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise Unfit(f"array '{name}' is cut short")
    flat = np.frombuffer(bytearray(data), dtype, count) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


# ---------------------------------------------------------------- HDF5


@contextlib.contextmanager
def open_hdf5(
    path: Path_, what: str = "HDF5 file", error: type[CaffeCompatError] = DataError
) -> Iterator[Any]:
    """An HDF5 file that stands on its own, open for reading.

    What is raised inside about its contents comes out as one of our errors.

    Raises
    ------
    CaffeCompatError : damaged; holding external links, external storage or virtual data sets, which
        are other files; claiming more than :func:`room`.
    """
    check_file(path, error)
    with reading(path, what, error), _opened(path) as file:
        check_hdf5(file, room(path))
        yield file


@contextlib.contextmanager
def _opened(path: Path_) -> Iterator[Any]:
    import h5py

    if not h5py.is_hdf5(os.fspath(path)):
        with open(path, "rb") as stream:
            kind = kind_of(stream.read(1024))
        raise Unfit(f"it is {kind}" if kind else "it is not HDF5, or cut short")
    with h5py.File(path, "r") as file:
        yield file


def check_hdf5(file: Any, limit: int) -> None:
    """Refuse what leads out of an open HDF5 file, and sizes beyond ``limit`` bytes in all.

    Raises
    ------
    Unfit : names the object.
    """
    import h5py

    waiting, seen, total = [file["/"]], set(), 0
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            where = f"'{group.name.rstrip('/')}/{name}'"
            if isinstance(link, h5py.ExternalLink):
                raise Unfit(f"{where} is a link into another file, which is not followed")
            item = group.get(name)  # None: a link that leads nowhere
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                # under every name again: it is read as often as it is named
                total += _claimed(item, where)
                if total > limit:
                    raise Unfit(
                        f"{where} brings what it claims to {total:,} bytes, more than such a "
                        "file may hold"
                    )


def _claimed(item: Any, where: str) -> int:
    """Bytes that a data set takes when it is read; refuses data that lie in other files."""
    import h5py

    made = item.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise Unfit(f"{where} is a virtual data set, made of other files, which are not read")
    if made.get_external_count():
        raise Unfit(f"{where} keeps its values in another file, which is not read")
    return int(item.id.get_space().get_simple_extent_npoints()) * int(item.id.get_type().get_size())


def take(
    group: Any, name: str, *, kinds: str = "fiub", axes: int | None = None, rows: int | None = None
) -> Array:
    """A data set of an open HDF5 group as an array.

    Parameters
    ----------
    kinds : the letters of numpy's kinds that it may have.
    axes : how many it must have.
    rows : what its first axis must be.

    Raises
    ------
    Unfit : not there, a group, or of another kind or shape.
    """
    import h5py

    item = group.get(name)
    if item is None:
        listed = ", ".join(list(group)[:12]) or "nothing"
        raise Unfit(f"it has no data set '{name}'; it has {listed}")
    if not isinstance(item, h5py.Dataset):
        raise Unfit(f"'{name}' is a group, expected a data set")
    if item.shape is None or item.dtype.kind not in kinds or item.dtype.names:
        raise Unfit(
            f"'{name}' holds no numbers" if "f" in kinds else f"'{name}' holds {item.dtype}"
        )
    if axes is not None and item.ndim != axes:
        raise Unfit(f"'{name}' has {item.ndim} axes, expected {axes}")
    if rows is not None and (not item.ndim or item.shape[0] != rows):
        raise Unfit(f"'{name}' has the shape {item.shape}, expected {rows} rows")
    return np.asarray(item[()])
