"""Writes weight files that Caffe loads: binary and HDF5.

The binary writer streams: nothing larger than one layer is held twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from caffe_compat.definition import schema
from caffe_compat.definition.schema import Dialect
from caffe_compat.definition.spec import LayerSpec, NetSpec
from caffe_compat.errors import SchemaError, WeightError
from caffe_compat.files import atomic_write, ending, write_hdf5
from caffe_compat.weights.model import ELSEWHERE, HDF5_DEFINITION, HDF5_NAME, LayerBlobs, Weights
from caffe_compat.weights.wire import Array, Blob, bytes_in, encode_blob, encode_bytes


def _chunks(weights: Weights, net: NetSpec, dialect: Dialect) -> Iterator[bytes | memoryview]:
    """A binary model piece by piece; nothing large is copied."""
    head = schema.message_class("NetParameter", dialect)()
    schema.move(replace(net, layers=()).to_message(), head)
    yield head.SerializeToString()
    entries = _placed(weights, net)
    check_whole(weights)
    for place, layer in enumerate(net.layers):
        message = _binary(layer, dialect)
        # definition first, blobs inside it: Caffe reads fields in any order
        body: list[bytes | memoryview] = [message.SerializeToString()]
        for blob in entries[place].blobs if place in entries else ():
            encoded = encode_blob(blob)
            body += [encode_bytes(7, bytes_in(encoded)), *encoded]
        yield encode_bytes(100, bytes_in(body))
        yield from body


def _placed(weights: Weights, net: NetSpec) -> dict[int, LayerBlobs]:
    """The blobs of each layer that has some, by its place: those of its name and, where several
    layers have that name, of its type."""
    free: dict[str, list[int]] = {}
    for place, layer in enumerate(net.layers):
        free.setdefault(layer.name, []).append(place)
    placed: dict[int, LayerBlobs] = {}
    lost = []
    for entry in weights.layers:
        rivals = free.get(entry.name, []) if entry.blobs else []
        chosen = [place for place in rivals if net.layers[place].type == entry.type] or rivals
        if chosen:
            placed[chosen[0]] = entry
            rivals.remove(chosen[0])
        elif entry.blobs:
            lost.append(entry.name)
    if lost:
        raise WeightError("weights for layers that the definition does not have", lost)
    return placed


def _binary(layer: LayerSpec, dialect: str) -> Any:
    """The layer's message in the dialect, or for a fork's layer type in the first fork that has all
    its settings."""
    forks = schema.forks_of(layer.type)
    if dialect in forks or not forks:
        forks = (dialect,)
    for fork in forks:
        message = schema.message_class("LayerParameter", fork)()
        try:
            schema.move(_as_released(layer.message), message, f"layer '{layer.name}'")
        except SchemaError:
            if fork == forks[-1]:
                raise
        else:
            return message
    raise AssertionError


def _as_released(message: Any) -> Any:
    """A layer's message; what later forks say in ``cpm_transform_param``, which has no number in a
    binary model, stands in ``transform_param``, where the CPM release has it, with all its values:
    the two have other defaults."""
    if not message.HasField("cpm_transform_param"):
        return message
    found = type(message)()
    found.CopyFrom(message)
    found.ClearField("cpm_transform_param")
    if message.HasField("transform_param"):  # which is the one that counts
        return found
    given, target = message.cpm_transform_param, found.transform_param
    for descriptor in given.DESCRIPTOR.fields:
        value = getattr(given, descriptor.name)
        if schema.is_repeated(descriptor):
            getattr(target, descriptor.name).extend(value)
        else:
            setattr(target, descriptor.name, value)
    if given.crop_size:  # the later forks' crop is square
        target.crop_size_x = target.crop_size_y = given.crop_size
    target.ClearField("crop_size")
    if not given.mean_file:
        target.ClearField("mean_file")
    return found


def _obstacle(net: NetSpec, dialect: Dialect) -> str:
    """What of this definition cannot be written in the dialect; "" where all can."""
    try:
        for layer in net.layers:
            _binary(layer, dialect)
    except SchemaError as error:
        return str(error)
    return ""


def dialect_for(net: NetSpec) -> Dialect:
    """The schema of a binary model with this definition: the fork's where the definition needs it.

    Raises
    ------
    SchemaError : no Caffe has all of its settings.
    """
    upstream = _obstacle(net, "upstream")
    if not upstream:
        return "upstream"
    fork = _obstacle(net, "fork")
    if not fork:
        return "fork"
    raise SchemaError(
        f"no Caffe has all settings of this definition, so that no .caffemodel can hold it: "
        f"{upstream}, {fork}; an HDF5 model holds parameters alone: give a name that ends in .h5 "
        "(in a solver: snapshot_format: HDF5)"
    )


def write_weights(
    path: str | os.PathLike[str],
    weights: Weights,
    net: NetSpec,
    *,
    dialect: Dialect | None = None,
    hdf5: bool | None = None,
    definition: bool = False,
    diffs: Mapping[str, Sequence[Array]] | None = None,
) -> None:
    """Write a ``.caffemodel`` or an HDF5 model that Caffe loads.

    Parameters
    ----------
    path : target; written under a temporary name and renamed, so that nothing half-written remains.
    weights : blobs by layer name.
    net : the definition to embed, one layer after the other (binary only; Caffe's HDF5 files hold
        blobs alone).
    dialect : schema of the binary file; default: :func:`dialect_for`.
    hdf5 : write an HDF5 model; default: where the name ends in ``.h5``.
    definition : keep the definition in an HDF5 model, too, as text that Caffe does not look at.
    diffs : gradients of the blobs by layer name, which HDF5 models may hold, too; shared ones with
        every layer, as in Caffe.

    Raises
    ------
    WeightError : blobs for unknown layers, or the target cannot be written.
    SchemaError : the dialect lacks a field that the definition sets.
    """
    name = os.fspath(path)
    if names_hdf5(name) if hdf5 is None else hdf5:
        _write_h5(name, weights, net, definition, diffs)
        return
    chosen = dialect or dialect_for(net)
    with atomic_write(name) as stream:
        for chunk in _chunks(weights, net, chosen):
            stream.write(chunk)


def names_hdf5(path: str | os.PathLike[str]) -> bool:
    """Is an HDF5 model written to this name?"""
    return ending(path) == ".h5"


def check_whole(weights: Weights) -> None:
    """See that every blob is with its layer, as all formats but HDF5 want it.

    Raises
    ------
    WeightError : a blob of an HDF5 model that stands with another layer only, which shares it.
    """
    for entry in weights.layers:
        # that very blob: one without values may be stored, too
        if any(blob is ELSEWHERE for blob in entry.blobs):
            raise WeightError(
                f"layer '{entry.name}' shares a blob that the HDF5 model keeps with another "
                "layer: convert the HDF5 model with its definition (cpm-convert --prototxt)"
            )


def check_hdf5_names(names: Sequence[str]) -> None:
    """See that an HDF5 model can hold the parameters of layers with these names.

    Raises
    ------
    WeightError : a name that would not come back as it is, or that two layers have.
    """
    for name, times in Counter(names).items():
        why = f"{times} layers have this name" if times > 1 else _hdf5_obstacle(name, names)
        if why:
            raise WeightError(
                f"an HDF5 model cannot hold the parameters of layer '{name}': {why}; write a "
                ".caffemodel (in a solver: snapshot_format: BINARYPROTO) or rename the layer"
            )


def _hdf5_obstacle(name: str, names: Collection[str]) -> str:
    """Why a layer's name cannot stand in an HDF5 model beside layers with parameters, which have
    these names; "" where it can."""
    parts = name.split("/")
    if not name:
        return "it has no name"
    if not {"", "."}.isdisjoint(parts) or "\0" in name:
        return "HDF5 reads its name as a path and would change it"
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth])
        if above in names and parts[depth].isdigit():
            return f"the blobs of layer '{above}' have such names"
    return ""


def _write_h5(
    name: str,
    weights: Weights,
    net: NetSpec,
    definition: bool,
    diffs: Mapping[str, Sequence[Array]] | None,
) -> None:
    stored = [entry.name for entry in _placed(weights, net).values()]
    check_hdf5_names(stored)
    doubles = _doubles(weights, net)
    with write_hdf5(name) as file:
        if net.name:
            file.attrs[HDF5_NAME] = net.name
        if definition:
            file.attrs[HDF5_DEFINITION] = net.to_text()
        data = file.create_group("data")
        groups = [data] if diffs is None else [data, file.create_group("diff")]
        for layer in net.layers:
            if not _hdf5_obstacle(layer.name, stored):
                for group in groups:
                    group.require_group(layer.name)
        for entry in weights.layers:
            for index, blob in enumerate(entry.blobs):
                if not blob.is_elsewhere and (entry.name, index) not in doubles:
                    data.create_dataset(f"{entry.name}/{index}", data=blob.data)
        for layer_name, arrays in (diffs or {}).items():
            for index, array in enumerate(arrays):
                file.create_dataset(f"diff/{layer_name}/{index}", data=array)


def _doubles(weights: Weights, net: NetSpec) -> set[tuple[str, int]]:
    """Layer and index of the blobs that stand with another layer, too, which shares them: Caffe
    stores them with the first layer that has them, and no other."""
    blobs = {
        (entry.name, index): blob
        for entry in weights.layers
        for index, blob in enumerate(entry.blobs)
        if not blob.is_elsewhere
    }
    first: dict[str, Blob] = {}
    found = set()
    for layer in net.layers:
        for index, param in enumerate(layer.params):
            blob = blobs.get((layer.name, index))
            if blob is None or not param.name:
                continue
            if param.name not in first:
                first[param.name] = blob
            elif np.array_equal(first[param.name].data, blob.data):
                found.add((layer.name, index))
    return found
