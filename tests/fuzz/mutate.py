"""Damages a file the way its kind is built: words of a text, values of a JSON tree, members of an
archive, data sets of HDF5, numbers and spans of anything binary."""

from __future__ import annotations

import io
import json
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Dice = random.Random
_NUMBERS = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
_WORDS = (
    *("{", "}", "[", "]", ":", "<", ">", "-1", "0", "1", "2", "7", "1e30", "-1e-30", "nan", "inf"),
    *("99999999999", "2147483647", "true", '""', '"x"', "#", '"\\377"', "MAX", "TEST", ";", "é"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 1e308, -1e308, float("nan"), float("inf"), 10**400, 2**63),
    *("", "x", "\x1b[2J", "../../etc/passwd", "/etc/passwd", "a" * 5000, "\ud800", [], {}, [[]]),
    *([1, 2], {"x": 1}, [None], ["a"]),
)


def binary(data: bytes, dice: Dice) -> bytes:
    """Bytes, numbers and spans changed; cut, doubled, filled."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        if not made:
            return bytes(made)
        at = dice.randrange(len(made))
        if dice.random() < 0.4:
            at = dice.randrange(min(len(made), 400))
        kind = dice.randrange(7)
        if kind == 0:
            made[at] = dice.choice((0, 255, 128, dice.randrange(256)))
        elif kind == 1:
            made[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            size = dice.choice((1, 2, 4, 8))
            value = dice.choice(_NUMBERS) % (1 << (8 * size))
            made[at : at + size] = value.to_bytes(size, dice.choice(("little", "big")))
        elif kind == 3:
            del made[at:]
        elif kind == 4:
            del made[at : at + dice.randrange(1, 64)]
        elif kind == 5:
            span = made[at : at + dice.randrange(1, 64)]
            place = dice.randrange(len(made))
            made[place:place] = span
        else:
            made[at : at + dice.randrange(1, 32)] = bytes(dice.randrange(1, 32))
    return bytes(made)


def words(data: bytes, dice: Dice) -> bytes:
    """Tokens of a text changed, dropped, doubled and moved."""
    tokens = re.findall(r'"[^"]*"|\s+|[A-Za-z0-9_.+-]+|.', data.decode("utf-8", "replace"), re.S)
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = dice.randrange(len(tokens)) if tokens else 0
        kind = dice.randrange(5)
        if kind == 0 and tokens:
            del tokens[at]
        elif kind == 1:
            tokens[at:at] = tokens[at : at + dice.randrange(1, 12)]
        elif kind == 2 and tokens:
            other = dice.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        else:
            # numbers are the most telling places
            digits = [i for i, token in enumerate(tokens) if token.lstrip("-").isdigit()]
            place = dice.choice(digits) if digits and dice.random() < 0.6 else at
            tokens[place : place + 1] = [dice.choice(_WORDS)]
    return "".join(tokens).encode()


def tree(data: bytes, dice: Dice) -> bytes:
    """Values of a JSON tree replaced, dropped, renamed."""
    content = json.loads(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        waiting = [content]
        while waiting and len(places) < 2000:
            item = waiting.pop(dice.randrange(len(waiting)))
            keys = list(item) if isinstance(item, dict) else range(len(item))
            places += [(item, key) for key in keys]
            waiting += [item[key] for key in keys if isinstance(item[key], dict | list)]
        if not places:
            content = dice.choice(_VALUES)
            break
        holder, key = dice.choice(places)
        kind = dice.randrange(6)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            del holder[key:]
        elif kind == 2:
            other, name = dice.choice(places)
            if not isinstance(other[name], dict | list):
                holder[key] = other[name]
        else:
            holder[key] = dice.choice(_VALUES)
    if dice.random() < 0.02:
        return b"[" * 100_000
    return json.dumps(content).encode()


def lines(data: bytes, dice: Dice) -> bytes:
    """One line of a file of JSON lines changed."""
    rows = data.splitlines()
    at = dice.randrange(len(rows))
    rows[at] = tree(rows[at], dice) if dice.random() < 0.8 else binary(rows[at], dice)
    return b"\n".join(rows) + b"\n"


def archive(data: bytes, dice: Dice) -> bytes:
    """A member of a zip archive changed, and packed again soundly."""
    source = zipfile.ZipFile(io.BytesIO(data))
    entries = [(entry, source.read(entry)) for entry in source.infolist()]
    at = dice.randrange(len(entries))
    out = io.BytesIO()
    packing = dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        with zipfile.ZipFile(out, "w", packing) as made:
            for i, (entry, content) in enumerate(entries):
                name = entry.filename
                if i == at:
                    kind = dice.randrange(5)
                    if kind == 0:
                        continue
                    if kind == 1:
                        name = dice.choice(("x.npy", "../x.npy", entries[0][0].filename, ""))
                    elif kind == 2:
                        content = _other_array(dice)
                    else:
                        content = binary(content, dice)
                made.writestr(name, content)
    return out.getvalue()


def _other_array(dice: Dice) -> bytes:
    array = _array(dice)
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    data = out.getvalue()
    if dice.random() < 0.4:  # a header that claims more than there is
        shape = f"({dice.choice((10**9, 2**40, -1, 0))},)"
        data = re.sub(rb"\(\d*,?[^)]*\)", shape.encode(), data, count=1)
    return data


def _array(dice: Dice) -> Any:
    shape = tuple(dice.choice((0, 1, 2, 3, 14, 16)) for _ in range(dice.randrange(4)))
    kind = dice.choice(("f4", "f8", "i4", "u1", "S5", "U3", "?", "c8", "O"))
    if kind == "O":
        return np.array([None, {"x": 1}], object)
    values = np.full(shape, dice.choice((0, 1, 99)), kind) if kind[0] not in "SU" else None
    if values is not None and kind[0] == "f" and dice.random() < 0.5:
        values = values * np.float64(dice.choice((np.nan, np.inf, -1e30, 1e9))).astype(kind)
    return (
        np.full(shape, b"abc", kind)
        if kind == "S5"
        else (np.full(shape, "abc", kind) if kind == "U3" else values)
    )


def datasets(data: bytes, dice: Dice) -> bytes:
    """A data set of an HDF5 file replaced by another, a link, a group, or a false claim."""
    import h5py

    memory = io.BytesIO(data)
    with warnings.catch_warnings(), h5py.File(memory, "r+") as file:
        warnings.simplefilter("ignore")
        names: list[str] = []
        file.visit(names.append)
        for _ in range(dice.choice((1, 1, 2))):
            name = dice.choice(names)
            if name not in file:
                continue
            kind = dice.randrange(9)
            if kind == 8 and file.attrs:
                file.attrs[dice.choice(list(file.attrs))] = dice.choice(("x", -1, 2**40, b"\xff"))
                continue
            del file[name]
            if kind == 1:
                file[name] = h5py.ExternalLink("/etc/passwd", "/x")
            elif kind == 2:
                file[name] = h5py.SoftLink(dice.choice(("/", f"/{name}", "/none")))
            elif kind == 3:
                file.create_group(name)
            elif kind == 4:
                file.create_dataset(
                    name, (10,), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
                )
            elif kind == 5:
                size = dice.choice((10**8, 2**32, 10**12))
                file.create_dataset(name, (size,), "f4", chunks=(1024,))
            elif kind == 6:
                layout = h5py.VirtualLayout((4,), "f4")
                layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
                file.create_virtual_dataset(name, layout)
            elif kind == 7:
                array = _array(dice)
                if array.dtype.kind not in "OU":
                    file[name] = array
    return memory.getvalue()


def matrices(data: bytes, dice: Dice) -> bytes:
    """A variable, field or cell of a MATLAB file replaced by something else."""
    from scipy.io import loadmat, savemat

    content = {
        key: value for key, value in loadmat(io.BytesIO(data)).items() if not key.startswith("__")
    }
    name = dice.choice(list(content))
    holder, key = content, name
    item = content[name]
    while isinstance(item, np.ndarray) and item.size and dice.random() < 0.8:
        at = dice.randrange(item.size)
        if item.dtype.names:
            row = item.reshape(-1)[at]
            holder, key = row, dice.choice(item.dtype.names)
        elif item.dtype.kind == "O":
            holder, key = item.reshape(-1), at  # type: ignore[assignment]
        else:
            break
        item = holder[key]
    value = _array(dice)
    if value.dtype.kind == "O":
        value = np.array([[dice.choice(("", "abc", "../../x.jpg"))]])
    holder[key] = value
    out = io.BytesIO()
    savemat(out, content, do_compression=dice.random() < 0.3)
    return out.getvalue()


_BY_ENDING: dict[str, tuple[Callable[[bytes, Dice], bytes], ...]] = {
    ".prototxt": (words, words, words, binary),
    ".csv": (words, binary),
    ".txt": (words, binary),
    ".log": (words, words, binary),
    ".json": (tree, tree, tree, binary),
    ".jsonl": (lines, lines, binary),
    ".npz": (archive, archive, binary),
    ".pth": (archive, binary),
    ".h5": (datasets, datasets, binary),
    ".mat": (matrices, binary, binary),
}


def mutate(name: str, data: bytes, dice: Dice) -> bytes:
    """Damage the contents of a file.

    Parameters
    ----------
    name : of the file; its ending says what it is.
    """
    ways = _BY_ENDING.get(name[name.rindex(".") :], (binary,))
    if data.startswith(b"\x89HDF"):
        ways = _BY_ENDING[".h5"]
    way = dice.choice(ways)
    try:
        return way(data, dice)
    except Exception:  # a sound mutation is not always possible; then any bytes will do
        return binary(data, dice)
