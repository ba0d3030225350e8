"""Writes weight files that Caffe loads: binary and HDF5.

The binary writer streams: nothing larger than one layer is held twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from caffe_compat.definition import schema
from caffe_compat.definition.schema import Dialect
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.errors import SchemaError, WeightError
from caffe_compat.files import atomic_write, write_hdf5
from caffe_compat.weights.model import HDF5_NAME, Weights
from caffe_compat.weights.wire import encode_blob, encode_bytes


def _chunks(weights: Weights, net: NetSpec, dialect: Dialect) -> Iterator[bytes | memoryview]:
    head = schema.message_class("NetParameter", dialect)(name=net.name)
    yield head.SerializeToString()
    used: Counter[str] = Counter()
    written = []
    for layer in net.layers:
        message = _binary(layer, dialect)
        # definition first, blobs inside it: Caffe reads fields in any order
        body: list[bytes | memoryview] = [message.SerializeToString()]
        entries = [entry for entry in weights.layers if entry.name == layer.name]
        if used[layer.name] < len(entries):
            for blob in entries[used[layer.name]].blobs:
                encoded = encode_blob(blob)
                body += [encode_bytes(7, sum(_nbytes(c) for c in encoded)), *encoded]
            used[layer.name] += 1
            written.append(layer.name)
        yield encode_bytes(100, sum(_nbytes(c) for c in body))
        yield from body
    lost = [entry.name for entry in weights.layers if entry.blobs and not used[entry.name]]
    if lost:
        raise WeightError("weights for layers that the definition does not have", lost)


def _binary(layer: LayerSpec, dialect: str) -> Any:
    """The layer's message in the dialect, or for a fork's layer type in the first fork that has all
    its settings."""
    forks = schema.forks_of(layer.type)
    if dialect in forks or not forks:
        forks = (dialect,)
    for fork in forks:
        message = schema.message_class("LayerParameter", fork)()
        try:
            schema.move(layer.message, message, f"layer '{layer.name}'")
        except SchemaError:
            if fork == forks[-1]:
                raise
        else:
            return message
    raise AssertionError


def _nbytes(chunk: bytes | memoryview) -> int:
    return chunk.nbytes if isinstance(chunk, memoryview) else len(chunk)


def fits(net: NetSpec, dialect: Dialect) -> bool:
    """Can every setting of this definition be written in the dialect?"""
    try:
        for layer in net.layers:
            _binary(layer, dialect)
    except SchemaError:
        return False
    return True


def write_weights(
    path: str | os.PathLike[str], weights: Weights, net: NetSpec, *, dialect: Dialect | None = None
) -> None:
    """Write a ``.caffemodel`` (or ``.h5``, by the name) that Caffe loads.

    Parameters
    ----------
    path : target; written under a temporary name and renamed, so that nothing half-written remains.
    weights : blobs by layer name.
    net : the definition to embed, one layer after the other (binary only; HDF5 files hold blobs
        alone).
    dialect : schema of the binary file; default: fork where the definition needs it, else upstream.

    Raises
    ------
    WeightError : blobs for unknown layers, or the target cannot be written.
    SchemaError : the dialect lacks a field that the definition sets.
    """
    name = os.fspath(path)
    if name.endswith(".h5"):
        _write_h5(name, weights, net)
        return
    chosen = dialect or ("fork" if not fits(net, "upstream") and fits(net, "fork") else "upstream")
    with atomic_write(name) as stream:
        for chunk in _chunks(weights, net, chosen):
            stream.write(chunk)


def _write_h5(name: str, weights: Weights, net: NetSpec) -> None:
    order = [layer.name for layer in net.layers]
    lost = [entry.name for entry in weights.layers if entry.name not in order]
    if lost:
        raise WeightError("weights for layers that the definition does not have", lost)
    # Caffe stores a shared parameter with the first layer that has it, and no other
    owned = _owned(net)
    with write_hdf5(name) as file:
        if net.name:
            file.attrs[HDF5_NAME] = net.name
        data = file.create_group("data")
        for layer in order:
            data.require_group(layer)
        for entry in weights.layers:
            for index, blob in enumerate(entry.blobs):
                if owned.get((entry.name, index), True):
                    place = f"{entry.name}/{index}"
                    if place in data:
                        raise WeightError(
                            f"{name}: two layers are called '{entry.name}', which HDF5 models "
                            "cannot hold: write a .caffemodel"
                        )
                    data.create_dataset(place, data=blob.data)


def _owned(net: NetSpec) -> dict[tuple[str, int], bool]:
    """For each (layer, index of a blob) with a shared name: is it the first with that name?"""
    seen: set[str] = set()
    found: dict[tuple[str, int], bool] = {}
    for layer in net.layers:
        for index, param in enumerate(layer.params):
            if param.name:
                found[layer.name, index] = param.name not in seen
                seen.add(param.name)
    return found
