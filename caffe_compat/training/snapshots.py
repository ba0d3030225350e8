"""Solver states on disk: ``.solverstate`` in Caffe's binary and HDF5 forms, both ways.

Source: ``SolverState`` of ``caffe.proto``; ``SGDSolver::SnapshotSolverStateTo*`` of BVLC Caffe.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe_compat.definition.spec import NetSpec, SolverSpec
from caffe_compat.errors import SolverError, WeightError
from caffe_compat.files import atomic_write, write_hdf5
from caffe_compat.foreign import Unfit, kind_of, open_hdf5, read_bytes, take
from caffe_compat.weights.containers import read_weights
from caffe_compat.weights.model import Weights
from caffe_compat.weights.wire import (
    BYTES,
    VARINT,
    Array,
    Blob,
    bytes_in,
    encode_blob,
    encode_bytes,
    encode_varint,
    memory_loader,
    read_blob,
    signed,
    walk,
)
from caffe_compat.weights.write import write_weights

_OF_A_MODEL = ((1, BYTES), (100, BYTES))  # the fields name and layer of a NetParameter
_A_MODEL = (
    "is a model (.caffemodel), expected a .solverstate: give the one beside it, or begin a new "
    "training with the model (--weights)"
)
_LIMIT = 1 << 36  # bytes of a state; the largest networks' are some gigabytes


@dataclass(frozen=True)
class SolverState:
    """A solver's state.

    Attributes
    ----------
    iteration : how many updates were made.
    learned_net : name of the model file, as stored.
    history : arrays in Caffe's order.
    current_step : how many steps of lr_policy "step" or "multistep" were taken.
    """

    iteration: int
    learned_net: str
    history: tuple[Array, ...]
    current_step: int = 0


def prefix_of(
    spec: SolverSpec, root: Path, given: str | None = None, *, new_folder: bool = False
) -> str:
    """What the names of a solver's snapshots begin with, as Caffe works it out.

    Parameters
    ----------
    spec : solver definition.
    root : folder that names in the definition count from.
    given : instead of the definition's ``snapshot_prefix``.
    new_folder : "folder/" is a folder although it is not there yet (Caffe itself refuses that).

    Returns
    -------
    The prefix; without any in the definition it is the solver file's name without its ending, and a
    prefix that is a folder gets that name appended.

    Raises
    ------
    SolverError : neither a prefix nor a file whose name could serve, or no file name.

    Source: ``UpgradeSnapshotPrefixProperty`` of BVLC Caffe.
    """
    if given is None and not spec.has("snapshot_prefix"):
        if not spec.file:
            raise SolverError("the solver has no snapshot_prefix: nowhere to write snapshots")
        return os.path.splitext(spec.file)[0]
    text = spec.message.snapshot_prefix if given is None else given
    if "\0" in text:
        raise SolverError("the snapshot_prefix holds a zero byte, which no file name can")
    # not through Path, which would drop the slash at the end of "folder/"
    prefix = text if str(root) == "." else os.path.join(root, text)
    if (os.path.isdir(prefix) or (new_folder and prefix.endswith("/"))) and spec.file:
        return os.path.join(prefix, Path(spec.file).stem)
    return prefix


def paths(prefix: str, iteration: int, hdf5: bool) -> tuple[Path, Path]:
    """Names of model and state."""
    ending = ".h5" if hdf5 else ""
    return (
        Path(f"{prefix}_iter_{iteration}.caffemodel{ending}"),
        Path(f"{prefix}_iter_{iteration}.solverstate{ending}"),
    )


def write(
    prefix: str,
    iteration: int,
    weights: Weights,
    net: NetSpec,
    history: Sequence[Array],
    step: int,
    *,
    hdf5: bool,
) -> tuple[Path, Path]:
    """Write model, then state; a state on disk always has its model.

    Parameters
    ----------
    step : how many steps of lr_policy "step" or "multistep" were taken.

    Returns
    -------
    The names of both.

    Raises
    ------
    CaffeCompatError : one of them cannot be written.
    """
    model, state = paths(prefix, iteration, hdf5)
    model.parent.mkdir(parents=True, exist_ok=True)
    write_weights(model, weights, net.bare())
    if hdf5:
        _write_hdf5(state, iteration, str(model), history, step)
        return model, state
    name = str(model).encode()
    with atomic_write(state) as stream:
        stream.write(
            encode_varint(1 << 3) + encode_varint(iteration) + encode_bytes(2, len(name)) + name
        )
        for array in history:
            chunks = encode_blob(Blob(array))
            stream.write(encode_bytes(3, bytes_in(chunks)))
            for chunk in chunks:
                stream.write(chunk)
        stream.write(encode_varint(4 << 3) + encode_varint(step))
    return model, state


def _write_hdf5(
    path: Path, iteration: int, model: str, history: Sequence[Array], step: int
) -> None:
    """A state in Caffe's HDF5 layout: what its reader insists on.

    The numbers are arrays of one int32, the model's name is a string of fixed length with its
    terminating zero.
    """
    import h5py

    with write_hdf5(path) as file:
        file["iter"] = np.array([iteration], np.int32)
        file["current_step"] = np.array([step], np.int32)
        name = model.encode() + b"\0"
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(name))
        kind.set_strpad(h5py.h5t.STR_NULLTERM)
        scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(file.id, b"learned_net", kind, scalar)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(name, f"S{len(name)}"), mtype=kind)
        group = file.create_group("history")
        for index, array in enumerate(history):
            group[str(index)] = np.asarray(array, np.float32)


def _read_binary(data: bytes, name: str) -> SolverState:
    view = memoryview(data)
    iteration, step, learned = 0, 0, ""
    spans = []
    try:
        for field in walk(view, 0, len(view)):
            if field.number == 1 and field.wire == VARINT:
                iteration = signed(field.value, 32)
            elif field.number == 2 and field.wire == BYTES:
                learned = bytes(view[field.start : field.stop]).decode("utf-8", "replace")
            elif field.number == 3 and field.wire == BYTES:
                spans.append((field.start, field.stop))
            elif field.number == 4 and field.wire == VARINT:
                step = signed(field.value, 32)
            elif (field.number, field.wire) in _OF_A_MODEL:
                raise SolverError(f"{name}: {_A_MODEL}")
            else:
                raise WeightError(f"field {field.number} does not belong to a solver state")
        history = tuple(
            read_blob(view, start, stop, memory_loader(view), f"history {i}").data
            for i, (start, stop) in enumerate(spans)
        )
    except WeightError as error:
        raise SolverError(f"{name}: is no readable .solverstate: {error}") from None
    return SolverState(iteration, learned, history, step)


def read_state(path: str | os.PathLike[str]) -> SolverState:
    """Read a solver state of either form.

    Raises
    ------
    SolverError : missing, damaged, or not a state.
    """
    name = os.fspath(path)
    data = read_bytes(path, SolverError, _LIMIT)
    if not data:
        raise SolverError(f"{name}: is empty")
    if data.startswith(b"\x89HDF"):
        state = _read_hdf5(name)
    elif kind := kind_of(data[:1024]):
        raise SolverError(f"{name}: is {kind}; expected a .solverstate")
    else:
        state = _read_binary(data, name)
    for what, number in (("iter", state.iteration), ("current_step", state.current_step)):
        if number < 0:
            raise SolverError(f"{name}: is damaged: {what} is {number}, it must be at least 0")
    return state


def _read_hdf5(name: str) -> SolverState:
    import h5py

    with open_hdf5(name, ".solverstate.h5", SolverError) as file:
        if "data" in file and "history" not in file:
            raise SolverError(f"{name}: {_A_MODEL}")
        group = file["history"]
        if not isinstance(group, h5py.Group):
            raise Unfit("'history' is no group")
        history = tuple(take(group, str(i), kinds="f") for i in range(len(group)))
        # Caffe leaves it out where it knows no name
        learned = file["learned_net"][()] if "learned_net" in file else ""
        text = learned.decode("utf-8", "replace") if isinstance(learned, bytes) else str(learned)
        numbers = {}
        for key in ("iter", "current_step"):
            values = take(file, key, kinds="iu").reshape(-1) if key in file else np.zeros(1, int)
            numbers[key] = int(values[0])
        if "iter" not in file:
            raise Unfit("'iter' is missing in it")
        return SolverState(numbers["iter"], text, history, numbers["current_step"])


def learned_weights(state: SolverState, path: str | os.PathLike[str]) -> Weights:
    """The model of a state: beside it under the stored or the matching name, or at the stored path.

    Raises
    ------
    SolverError : found nowhere; says where it was looked for.
    """
    here = Path(path)
    matching = here.with_name(here.name.replace(".solverstate", ".caffemodel"))
    beside = here.with_name(os.path.basename(state.learned_net)) if state.learned_net else matching
    places = [beside, matching]
    if state.learned_net:
        places.append(Path(state.learned_net))
    for place in places:
        if place.is_file():
            return read_weights(place)
    raise SolverError(
        f"{here}: its model is missing (looked for {', '.join(dict.fromkeys(map(str, places)))})"
    )
