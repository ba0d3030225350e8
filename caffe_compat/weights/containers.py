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
from typing import Any

import numpy as np

from caffe_compat.definition.prototxt import parse_net
from caffe_compat.definition.schema import Dialect
from caffe_compat.definition.spec import NetSpec
from caffe_compat.errors import CaffeCompatError, WeightError
from caffe_compat.files import atomic_write
from caffe_compat.weights.model import LayerBlobs, Source, Weights, overlaid
from caffe_compat.weights.read import read_weights
from caffe_compat.weights.wire import Array, Blob
from caffe_compat.weights.write import write_weights

FORMATS = ("safetensors", "pth", "npz", "caffemodel", "h5")
_FORMAT = "caffe_compat weights 1"


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
        keys = [
            f"{name}.{names[i] if i < len(names) else f'blob{i}'}" for i in range(len(entry.blobs))
        ]
        arrays.update(zip(keys, (np.asarray(b.data, order="C") for b in entry.blobs), strict=True))
        order.append([entry.name, entry.type, keys])
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
        write_weights(
            name if to != "h5" or name.endswith(".h5") else name + ".h5",
            weights,
            net,
            dialect=dialect,
        )
        return
    if to not in FORMATS:
        raise CaffeCompatError(f"unknown format '{to}'; known: {', '.join(FORMATS)}")
    arrays, order = _arrays(weights, blob_names or {})
    about = {
        "format": _FORMAT,
        "prototxt": net.to_text(),
        "layers": json.dumps(order),
        **(metadata or {}),
    }
    if to == "safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        with atomic_write(name, stream=False) as target:
            try:
                save_file(arrays, target, about)
            except SafetensorError as error:
                raise OSError(0, str(error)) from None
    elif to == "npz":
        with atomic_write(name) as stream:
            np.savez(stream, **{"__metadata__": np.array(json.dumps(about)), **arrays})  # type: ignore[arg-type]
    else:
        import torch

        tensors = {key: torch.from_numpy(np.array(a)) for key, a in arrays.items()}
        with atomic_write(name) as stream:
            torch.save({"metadata": about, "state_dict": tensors}, stream)


def _assemble(
    arrays: Mapping[str, Array], about: Mapping[str, str], name: str, kind: str
) -> Weights:
    if about.get("format") != _FORMAT:
        raise WeightError(
            f"{name}: is a {kind} file, but was not written by cpm-convert (its metadata are "
            "missing)"
        )
    try:
        order = json.loads(about["layers"])
        net = parse_net(about["prototxt"], name)
        layers = tuple(
            LayerBlobs(str(layer), str(type_), tuple(Blob(arrays[key]) for key in keys))
            for layer, type_, keys in order
        )
    except (KeyError, ValueError, TypeError) as error:
        raise WeightError(f"{name}: damaged metadata: {error!r}") from None
    extra = {k: v for k, v in about.items() if k not in ("format", "layers", "prototxt")}
    source = Source(
        name, os.path.getsize(name), kind, dialect=about.get("dialect", ""), metadata=extra
    )
    return Weights(layers, net, source)


def _read_safetensors(name: str) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(name, framework="np") as file:
            about = file.metadata() or {}
            arrays = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightError(f"{name}: damaged safetensors file: {error}") from None
    return _assemble(arrays, about, name, "safetensors")


def _read_npz(name: str) -> Weights:
    import zipfile
    import zlib

    try:
        with np.load(name, allow_pickle=False) as file:
            about = json.loads(str(file["__metadata__"])) if "__metadata__" in file.files else {}
            arrays = {key: file[key] for key in file.files if key != "__metadata__"}
    except (
        OSError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        NotImplementedError,
    ) as error:
        raise WeightError(f"{name}: damaged npz file: {error}") from None
    return _assemble(arrays, about, name, "npz")


def _read_pth(name: str) -> Weights:
    import torch

    try:
        loaded = torch.load(name, map_location="cpu", weights_only=True)
        about, tensors = loaded["metadata"], loaded["state_dict"]
        arrays = {str(key): tensor.numpy() for key, tensor in tensors.items()}
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightError(
            f"{name}: cannot be read as a converted .pth (weights only): {first}"
        ) from None
    return _assemble(arrays, about, name, "pth")


def kind_of(path: str | os.PathLike[str]) -> str:
    """Which container a file is, by its contents: "safetensors", "pth", "npz", or "" (left to
    :func:`read_weights`)."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise WeightError(f"{name}: cannot be read: {error.strerror or error}") from None
    if head[:4] == b"PK\x03\x04":
        import zipfile

        try:
            with zipfile.ZipFile(name) as archive:
                return "pth" if any(n.endswith("data.pkl") for n in archive.namelist()) else "npz"
        except zipfile.BadZipFile:
            raise WeightError(
                f"{name}: damaged or truncated archive; write or download it again"
            ) from None
    if len(head) == 9 and head[8:9] == b"{":
        return "safetensors"
    return ""


def read(path: str | os.PathLike[str], *, dialect: Dialect | None = None) -> Weights:
    """Read weights from any file that this package knows, by its contents.

    Raises
    ------
    WeightError : what the file is instead, or where it is damaged.
    """
    name = os.fspath(path)
    reader = {"safetensors": _read_safetensors, "npz": _read_npz, "pth": _read_pth}.get(
        kind_of(name)
    )
    return reader(name) if reader else read_weights(name, dialect=dialect)


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
    return overlaid(*(read(os.path.join(folder, name)) for name in given))
