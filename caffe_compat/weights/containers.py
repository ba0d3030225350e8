"""Weights with their definition in safetensors, PyTorch and numpy files, and back.

Every container holds the arrays under ``LAYER.weight``-like keys, the deploy definition as prototxt
text, the order of layers, and where it all came from. Nothing in them is executed: safetensors and
npz hold plain arrays, ``.pth`` is read with ``weights_only``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, Any
from urllib.parse import quote, unquote

import numpy as np

from caffe_compat.definition.prototxt import parse_net
from caffe_compat.definition.schema import Dialect
from caffe_compat.definition.spec import NetSpec
from caffe_compat.errors import CaffeCompatError, WeightError
from caffe_compat.files import atomic_write
from caffe_compat.foreign import Unfit, check_file, parse_json, read_npz, reading, room
from caffe_compat.weights.model import LayerBlobs, Source, Weights, overlaid
from caffe_compat.weights.read import read_model
from caffe_compat.weights.wire import Array, Blob
from caffe_compat.weights.write import check_whole, write_weights

FORMATS = ("safetensors", "pth", "npz", "caffemodel", "h5")
_LARGEST_HEADER = 100_000_000  # bytes, of a safetensors file
_FORMAT, _ABOUT = "caffe_compat weights 1", "__metadata__"


def _arrays(
    weights: Weights, blob_names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Array], list[list[Any]]]:
    """Arrays by key, and [name, type, keys] of each layer, in order."""
    arrays: dict[str, Array] = {}
    order: list[list[Any]] = []
    seen: Counter[str] = Counter()
    for entry in weights.layers:
        again = seen[entry.name]
        seen[entry.name] += 1
        name = f"{entry.name}#{again}" if again else entry.name
        names = blob_names.get(entry.name, ())
        keys = []
        for i, blob in enumerate(entry.blobs):
            wanted = f"{name}.{names[i] if i < len(names) else f'blob{i}'}"
            key, number = wanted, 1
            while key in arrays:  # a layer may be called as another one's key
                key, number = f"{wanted}#{number}", number + 1
            keys.append(key)
            arrays[key] = np.asarray(blob.data, order="C")
        old = [key for key, blob in zip(keys, entry.blobs, strict=True) if blob.legacy]
        order.append([entry.name, entry.type, keys])
        if old:  # a fourth entry, which files of other blobs do without
            order[-1].append(old)
    return arrays, order


def write(
    path: str | os.PathLike[str],
    weights: Weights,
    net: NetSpec,
    to: str,
    *,
    blob_names: Mapping[str, Sequence[str]] | None = None,
    metadata: Mapping[str, str] | None = None,
    dialect: Dialect | None = None,
) -> None:
    """Write weights and definition.

    Parameters
    ----------
    to : one of :data:`FORMATS`.
    blob_names : names of each layer's blobs ("weight", "bias"), by layer name; a blob without one
        is called ``blob0``, ``blob1`` and so on. Not used by caffemodel and h5.
    metadata : more strings to keep (not in caffemodel and h5, which have no place for them).
    dialect : schema of a binary caffemodel.

    Raises
    ------
    CaffeCompatError : unknown format; target that cannot be written. Nothing half-written remains.
    """
    name = os.fspath(path)
    if to in ("caffemodel", "h5"):
        hdf5 = to == "h5"
        whole = any(layer.bottoms for layer in net.layers)  # more than bare names of layers
        write_weights(name, weights, net, dialect=dialect, hdf5=hdf5, definition=hdf5 and whole)
        return
    if to not in FORMATS:
        raise CaffeCompatError(f"unknown format '{to}'; known: {', '.join(FORMATS)}")
    check_whole(weights)
    arrays, order = _arrays(weights, blob_names or {})
    about = {
        "format": _FORMAT,
        "prototxt": net.to_text(),
        "layers": json.dumps(order),
        **(metadata or {}),
    }
    if to == "safetensors":
        _write_safetensors(name, arrays, about)
    elif to == "npz":
        with atomic_write(name) as stream:
            _write_npz(stream, {_ABOUT: np.array(json.dumps(about)), **arrays})
    else:
        _write_pth(name, arrays, about)


def _write_safetensors(name: str, arrays: dict[str, Array], about: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with atomic_write(name, stream=False) as target:
        try:
            save_file(arrays, target, about)
        except UnicodeEncodeError:
            raise OSError(0, "the name is not UTF-8, which safetensors needs") from None
        except SafetensorError as error:
            raise OSError(0, str(error)) from None


def _write_pth(name: str, arrays: Mapping[str, Array], about: Mapping[str, str]) -> None:
    import torch

    tensors = {key: torch.from_numpy(np.array(a)) for key, a in arrays.items()}
    with atomic_write(name) as stream:
        sink: Any = _Sink(stream)
        torch.save({"metadata": about, "state_dict": tensors}, sink)
        if sink.error is not None:
            raise sink.error


class _Sink:
    """A stream that takes every write, and remembers the first that the disk refused.

    torch would cover the system's error by one of its own.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                self._stream.write(data)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing to do: the stream is flushed by who opened it."""


def _member(key: str) -> str:
    """A layer's name as a file name inside an archive: nothing that leads out of the folder where
    somebody unpacks it, no control characters."""
    return quote(key, safe="/ #:@+=,~()[]").replace("..", "%2E%2E").removeprefix("/")


def _write_npz(stream: Any, arrays: Mapping[str, Array]) -> None:
    """As ``np.savez`` does, for names that it cannot take (such as ``file``)."""
    import zipfile

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays.items():
            name = _member(key)
            if key.startswith("/"):
                name = f"%2F{name}"
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _assemble(arrays: Mapping[str, Array], about: Any, name: str, kind: str) -> Weights:
    """Weights from a container's arrays and metadata; refuses one that is not of ours."""
    if not isinstance(about, Mapping) or about.get("format") != _FORMAT:
        raise WeightError(
            f"{name}: is a {kind} file, but was not written by cpm-convert (its metadata are "
            "missing)"
        )
    with reading(name, "converted model", WeightError, "convert it again"):
        net = parse_net(str(about["prototxt"]), name)
        layers = tuple(
            LayerBlobs(
                str(layer), str(type_), tuple(_blob(arrays[key], key, key in old) for key in keys)
            )
            for layer, type_, keys, old in map(_entry, parse_json(about["layers"]))
        )
    extra = {str(k): str(v) for k, v in about.items() if k not in ("format", "layers", "prototxt")}
    source = Source(
        name,
        os.path.getsize(name),
        kind,
        dialect=extra.get("dialect", ""),
        metadata=extra,
        network=net.name,
    )
    return Weights(layers, net, source)


def _entry(stored: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """A layer's name, type, arrays, and those of them that had old fields for a shape."""
    layer, type_, keys, *old = stored
    return layer, type_, keys, old[0] if old else ()


def _blob(array: Array, key: str, legacy: bool) -> Blob:
    if array.dtype not in (np.float32, np.float64):
        raise Unfit(f"array '{key}' is of {array.dtype}, expected float32 or float64")
    return Blob(array, legacy=legacy)


def _read_safetensors(name: str) -> Weights:
    from safetensors import safe_open

    with (
        reading(name, "safetensors file", WeightError),
        safe_open(name, framework="np") as file,
    ):
        about = file.metadata() or {}
        arrays = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    return _assemble(arrays, about, name, "safetensors")


def _read_npz(name: str) -> Weights:
    arrays = read_npz(name, "npz file", WeightError)
    about: Any = {}
    if _ABOUT in arrays:
        with reading(name, "npz file", WeightError):
            about = parse_json(str(arrays.pop(_ABOUT)))
    return _assemble({unquote(k): a for k, a in arrays.items()}, about, name, "npz")


def _read_pth(name: str) -> Weights:
    import zipfile

    import torch

    with reading(name, "converted .pth (weights only)", WeightError):
        with zipfile.ZipFile(name) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > room(name):
                raise Unfit("it unpacks to more than such a file may hold")
        loaded = torch.load(name, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict) or not isinstance(loaded.get("state_dict"), dict):
            raise WeightError(f"{name}: is a pth file, but was not written by cpm-convert")
        tensors = {str(key): t.detach() for key, t in loaded["state_dict"].items()}
        # a tensor may repeat its few values, and several may show the same ones
        if sum(t.numel() * t.element_size() for t in tensors.values()) > room(name):
            raise Unfit("its tensors are larger than such a file may hold")
        arrays = {key: t.numpy() for key, t in tensors.items()}
    return _assemble(arrays, loaded.get("metadata"), name, "pth")


def kind_of(path: str | os.PathLike[str]) -> str:
    """Which container a file is, by its contents: "safetensors", "pth", "npz", or "" (left to
    :func:`read_model`)."""
    name = os.fspath(path)
    check_file(path, WeightError)
    with reading(name, "model", WeightError), open(name, "rb") as stream:
        head = stream.read(9)
    if head[:4] == b"PK\x03\x04":
        import zipfile

        with (
            reading(name, "archive", WeightError, "write or download it again"),
            zipfile.ZipFile(name) as archive,
        ):
            names = archive.namelist()
        if any(n.endswith("data.pkl") for n in names):
            return "pth"
        return "npz" if any(n.endswith(".npy") for n in names) else ""
    # eight bytes tell the length of the JSON that follows; those of a .caffemodel, whose ninth byte
    # may be a brace as well, would be an impossible one
    length = int.from_bytes(head[:8], "little")
    if len(head) == 9 and head[8:9] == b"{" and length <= _LARGEST_HEADER:
        return "safetensors"
    return ""


def read_weights(path: str | os.PathLike[str], *, dialect: Dialect | None = None) -> Weights:
    """Read weights from any file that this package knows, by its contents.

    These are ``.caffemodel`` of any age, ``.caffemodel.h5``, and the ``.safetensors``, ``.pth`` and
    ``.npz`` that ``cpm-convert`` writes.

    >>> weights = read_weights("small.caffemodel")
    >>> [blob.shape for blob in weights["conv"]]
    [(4, 3, 3, 3), (4,)]

    Parameters
    ----------
    dialect : "upstream" or "fork" to override detection of binary models.

    Raises
    ------
    WeightError : what the file is instead, or where it is damaged.
    """
    name = os.fspath(path)
    reader = {"safetensors": _read_safetensors, "npz": _read_npz, "pth": _read_pth}.get(
        kind_of(name)
    )
    return reader(name) if reader else read_model(name, dialect=dialect)


def read_list(names: str, folder: str | os.PathLike[str] = "") -> Weights:
    """Read ``a.caffemodel,b.caffemodel`` as Caffe does: one after the other, the later one counts.

    Parameters
    ----------
    names : one file name, or several with commas between them.
    folder : what the names count from.

    Raises
    ------
    WeightError : a file that cannot be read, or no name at all.
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise WeightError(f"'{names}' names no weight file")
    return overlaid(*(read_weights(os.path.join(folder, name)) for name in given))
