"""Reads Caffe's weight files: binary (V0, V1, current) and HDF5.

Binary models are read in the dialect that their contents show (see :func:`detect_dialect`), HDF5
has none.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from google.protobuf.message import DecodeError

from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import net_from_message, parse_net
from caffe_compat.definition.schema import DIALECTS, Dialect
from caffe_compat.definition.spec import NetSpec
from caffe_compat.definition.upgrade import ROUND_CEIL, ROUND_FLOOR, type_of_today
from caffe_compat.errors import PrototxtError, SchemaError, WeightError
from caffe_compat.foreign import Unfit, check_file, kind_of, open_hdf5, room, take
from caffe_compat.weights.model import (
    ELSEWHERE,
    HDF5_DEFINITION,
    HDF5_NAME,
    LayerBlobs,
    Source,
    Weights,
)
from caffe_compat.weights.wire import (
    BYTES,
    VARINT,
    Array,
    Blob,
    Loader,
    encode_bytes,
    in_utf8,
    memory_loader,
    misfits,
    read_blob,
    walk,
)

_OTHER_TEXT = r"text that is not UTF-8; such bytes are written as \xNN"
_MOST_NAMES = 100_000  # of groups and blobs in an HDF5 model, through all links
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass
class _RawLayer:
    """A layer submessage of the file.

    Attributes
    ----------
    rest : the bytes of its definition, without the blobs.
    blobs : where each blob begins and ends in the file.
    """

    rest: bytes
    blobs: list[tuple[int, int]]


def _split(
    buffer: memoryview, start: int, stop: int, blob_field: int, nested: tuple[int, int] | None
) -> _RawLayer:
    """Separate a layer into definition and blob places.

    Parameters
    ----------
    blob_field : number of the field that holds the blobs.
    nested : number of the field in which a V0 layer stands inside a V1 layer, and that of the V0
        layer's blobs; None for layers of today.
    """
    rest, blobs = bytearray(), []
    for part in walk(buffer, start, stop):
        if part.number == blob_field and part.wire == BYTES:
            blobs.append((part.start, part.stop))
        elif nested and part.number == nested[0] and part.wire == BYTES:
            inner = _split(buffer, part.start, part.stop, nested[1], None)
            blobs.extend(inner.blobs)
            rest += encode_bytes(part.number, len(inner.rest)) + inner.rest
        else:
            rest += buffer[part.begin : part.stop]
    return _RawLayer(bytes(rest), blobs)


def _schema_of(kind: str, rest: bytes) -> str:
    """The fork whose field numbers hold in a layer of a type that only forks have; "" for the rest.

    Of several forks with that type, the one whose messages fit the bytes best.
    """
    forks = schema.forks_of(_peek(kind, rest).type) if kind == "LayerParameter" else ()
    if not forks:
        return ""
    view = memoryview(rest)

    def strange(fork: str) -> int:
        descriptor = schema.message_class(kind, fork).DESCRIPTOR
        return sum(1 for _ in misfits(view, 0, len(view), descriptor))

    return min(forks, key=strange)


def _evidence(layers: Iterable[tuple[str, bytes]]) -> dict[Dialect, list[str]]:
    """For each dialect, what in the layers speaks for it and against the other.

    Names of types count where no field tells: a definition of one dialect may name a type of the
    other. Of the types that several forks have, the CPM release's fork knows ROIPooling.
    """
    found: dict[Dialect, list[str]] = {"upstream": [], "fork": []}
    named: dict[Dialect, list[str]] = {"upstream": [], "fork": []}
    marks: dict[str, Dialect] = {
        "CPMData": "fork",
        "Swish": "upstream",
        "Clip": "upstream",
    }
    for kind, rest in layers:
        head = _peek(kind, rest)
        fork = _schema_of(kind, rest)
        if fork == "fork" and _peek(kind, rest, fork).HasField("roi_pooling_param"):
            found["fork"].append(
                f"layer '{head.name}': the field numbers of {head.type} are the fork's"
            )
        elif kind == "LayerParameter" and head.type in marks:
            dialect = marks[head.type]
            named[dialect].append(
                f"layer '{head.name}' has type {head.type}, which exists in {dialect} only"
            )
        if fork:
            continue
        view = memoryview(rest)
        wrong = {
            d: list(misfits(view, 0, len(view), schema.message_class(kind, d).DESCRIPTOR))
            for d in DIALECTS
        }
        pairs: tuple[tuple[Dialect, Dialect], ...] = (("upstream", "fork"), ("fork", "upstream"))
        for dialect, other in pairs:
            only = [item for item in wrong[other] if item not in wrong[dialect]]
            if only and len(wrong[dialect]) < len(wrong[other]):
                found[dialect].append(f"{only[0]} does not fit {other}")
    if any(found.values()):
        return {d: [*named[d], *found[d]] if found[d] else [] for d in DIALECTS}
    return named


def _peek(kind: str, rest: bytes, dialect: str = "upstream") -> Any:
    message_class = schema.message_class(kind, dialect)
    try:
        return message_class.FromString(in_utf8(rest, message_class.DESCRIPTOR))
    except DecodeError:
        raise WeightError("damaged: a layer cannot be decoded") from None


def detect_dialect(layers: Iterable[tuple[str, bytes]]) -> tuple[Dialect | None, list[str]]:
    """Decide which dialect wrote a binary model.

    Parameters
    ----------
    layers : (message name, definition bytes) of every layer.

    Returns
    -------
    The dialect, or None where no field differs; and the evidence.

    Raises
    ------
    WeightError : the contents speak for both.
    """
    found = _evidence(layers)
    up, fork = found["upstream"], found["fork"]
    if up and fork:
        raise WeightError(
            f"the model mixes both schema dialects ({up[0]}; {fork[0]}): say which with "
            "--dialect upstream or fork"
        )
    if up or fork:
        return ("upstream" if up else "fork"), list(dict.fromkeys(up or fork))
    return None, []


def _file_loader(stream: IO[bytes]) -> Loader:
    def load(offset: int, count: int, kind: str) -> Array:
        stream.seek(offset)
        data = np.fromfile(stream, dtype=kind, count=count)
        if data.size != count:
            raise WeightError("truncated while reading: the file changed under the reader")
        return data

    return load


def _top_level(buffer: memoryview) -> tuple[list[_RawLayer], bytes, str, list[str]]:
    """The layers, the other net fields, the format, and the names of unknown net fields; refuses
    what is no NetParameter."""
    layers: list[_RawLayer] = []
    rest = bytearray()
    formats: set[str] = set()
    first = True
    for part in walk(buffer, 0, len(buffer)):
        if first and part.number == 1 and part.wire == VARINT:
            if _is_onnx(buffer):
                raise WeightError(
                    "this is an ONNX model, which is written but not read here: give the model "
                    "that it was made from"
                )
            raise WeightError(
                "this is a .solverstate (an optimizer's state), not a model: give the "
                ".caffemodel beside it"
            )
        first = False
        if part.number == 100 and part.wire == BYTES:
            layers.append(_split(buffer, part.start, part.stop, 7, None))
            formats.add("V2")
        elif part.number == 2 and part.wire == BYTES:
            layers.append(_split(buffer, part.start, part.stop, 6, (1, 50)))
            inner = any(
                f.number == 1 and f.wire == BYTES for f in walk(buffer, part.start, part.stop)
            )
            formats.add("V0" if inner else "V1")
        else:
            rest += buffer[part.begin : part.stop]
    descriptor = schema.message_class("NetParameter").DESCRIPTOR
    wrong = list(misfits(memoryview(bytes(rest)), 0, len(rest), descriptor))
    if wrong and not any(layer.blobs for layer in layers):
        raise WeightError(
            "this is no caffemodel: the bytes are not a Caffe network (is it another file type?); "
            f"unknown network field {wrong[0]}"
        )
    if not layers:
        raise WeightError("the model holds no layers: this is no trained network")
    if len(formats) > 1:
        raise WeightError(f"the model mixes layer formats {' and '.join(sorted(formats))}")
    return layers, bytes(rest), formats.pop(), wrong


def _is_onnx(buffer: memoryview) -> bool:
    """Does a file that begins with a number hold a graph (field 7), which no solver state has?"""
    try:
        return any(part.number == 7 and part.wire == BYTES for part in walk(buffer, 0, len(buffer)))
    except WeightError:
        return False  # cut short before it


def parse_weights(
    buffer: bytes | memoryview,
    *,
    load: Loader | None = None,
    dialect: Dialect | None = None,
    path: str = "",
) -> Weights:
    """Read a binary caffemodel from memory.

    Parameters
    ----------
    buffer : the file's bytes.
    load : how to fetch arrays (default: copied out of ``buffer``).
    dialect : overrides detection.
    path : how messages call the file.

    Raises
    ------
    WeightError : truncated, damaged, or no caffemodel.
    """
    view = memoryview(buffer)
    raw, rest, form, strange = _top_level(view)
    kind = "LayerParameter" if form == "V2" else "V1LayerParameter"
    notes: list[str] = []
    if strange:
        fields = ", ".join(strange[:5])
        notes.append(f"unknown field(s) of the network, of another Caffe fork, left out: {fields}")
    if dialect is None:
        found, evidence = detect_dialect((kind, layer.rest) for layer in raw)
    else:
        found, evidence = dialect, ["chosen with --dialect"]
    used = found or "upstream"
    merged = schema.new("NetParameter")
    entries = getattr(merged, "layer" if form == "V2" else "layers")
    try:
        if not _decode(rest, schema.message_class("NetParameter", used), merged):
            notes.append(f"the network's own fields: {_OTHER_TEXT}")
        for layer in raw:
            more_evidence, more_notes = _add_layer(
                entries, kind, layer.rest, used, chosen=dialect is not None
            )
            evidence += more_evidence
            notes += more_notes
    except (DecodeError, SchemaError) as error:
        raise WeightError(
            f"damaged: the network definition inside cannot be decoded ({error})"
        ) from None
    layers = _layer_blobs(view, load or memory_loader(view), entries, raw)
    rounded = [layer for layer in entries if _says_rounding(layer)]
    if rounded:
        places = (place for layer in raw for place in layer.blobs)
        notes += _rounding(rounded, any(_is_raw(view, *place) for place in places))
    try:
        net: NetSpec | None = net_from_message(merged, file=path)
    except PrototxtError as error:
        net = None
        notes.append(f"the embedded definition is unusable: {error}")
    source = Source(
        path,
        len(view),
        "caffemodel",
        form,
        found or "",
        tuple(evidence),
        tuple(notes),
        network=merged.name,
    )
    return Weights(layers, net, source)


def _layer_blobs(
    view: memoryview, load: Loader, entries: Any, raw: Iterable[_RawLayer]
) -> tuple[LayerBlobs, ...]:
    """The blobs of each layer that has some; ``entries`` are the layers' decoded definitions."""
    made = []
    for entry, layer in zip(entries, raw, strict=True):
        name, type_ = _name_of(entry)
        blobs = tuple(
            read_blob(view, start, stop, load, f"layer '{name}', blob {i}")
            for i, (start, stop) in enumerate(layer.blobs)
        )
        if blobs:
            made.append(LayerBlobs(name, type_, blobs))
    return tuple(made)


def _is_raw(view: memoryview, start: int, stop: int) -> bool:
    """Does a blob hold NVCaffe's ``raw_data``?"""
    return any(field.number == 12 for field in walk(view, start, stop))


def _says_rounding(layer: Any) -> bool:
    """Does a layer's ``pooling_param`` hold field 13?"""
    return bool(layer.HasField("pooling_param") and layer.pooling_param.HasField("round_mode"))


def _rounding(layers: Iterable[Any], nvcaffe: bool) -> list[str]:
    """Read field 13 of ``pooling_param`` as its writer meant it.

    It is ``round_mode`` in BVLC's Caffe (0 CEIL, 1 FLOOR) and ``ceil_mode`` in NVCaffe (0 round
    down, 1 round up). The bytes do not tell which; raw blobs do, which only NVCaffe writes.

    Returns
    -------
    Notes about layers where it stays a guess that matters.
    """
    notes = []
    for layer in layers:
        options = layer.pooling_param
        if nvcaffe:
            options.round_mode = ROUND_FLOOR if options.round_mode == ROUND_CEIL else ROUND_CEIL
        elif options.round_mode == ROUND_CEIL:
            notes.append(
                f"layer '{layer.name}': pooling_param says 0 in field 13: round_mode CEIL, and "
                "so it is read; if NVCaffe wrote the model, it is ceil_mode false (round down): "
                "give the definition with --prototxt"
            )
    return notes


def _decode(raw: bytes, message_class: Any, target: Any) -> bool:
    """Read a message into ``target``. Is all of its text UTF-8? Other bytes become what
    :data:`_OTHER_TEXT` says."""
    readable = in_utf8(raw, message_class.DESCRIPTOR)
    schema.move(message_class.FromString(readable), target)
    return readable == raw


def _add_layer(
    entries: Any, kind: str, raw: bytes, used: Dialect, *, chosen: bool
) -> tuple[list[str], list[str]]:
    """Read a layer's definition into a new entry of the network's layers.

    Parameters
    ----------
    kind : name of its message.
    chosen : did the user choose the dialect?

    Returns
    -------
    What the layer shows of the dialect, and notes.

    Raises
    ------
    WeightError : a field that the chosen dialect does not have.
    """
    evidence: list[str] = []
    notes: list[str] = []
    fork = _schema_of(kind, raw)
    message_class = schema.message_class(kind, fork or used)
    item = entries.add()
    in_plain_text = _decode(raw, message_class, item)
    wrong = list(misfits(memoryview(raw), 0, len(raw), message_class.DESCRIPTOR))
    name, type_ = _name_of(item)
    if not in_plain_text:
        notes.append(f"layer '{name}': {_OTHER_TEXT}")
    if fork and fork not in DIALECTS:
        evidence.append(f"layer '{name}' has type {type_}: field numbers of '{fork}'")
    if wrong and chosen and not fork:
        raise WeightError(
            f"layer '{name}': field {wrong[0]} does not exist in the {used} dialect: the "
            "model was written with another one; leave --dialect out to detect it"
        )
    if wrong:
        fields = ", ".join(wrong[:5])
        notes.append(f"layer '{name}': unknown field(s) {fields} of another Caffe fork, left out")
    return evidence, notes


def _name_of(item: Any) -> tuple[str, str]:
    """A layer's name and its type, as Caffe calls it today."""
    if item.DESCRIPTOR.name == "LayerParameter":
        return item.name, item.type
    if item.HasField("layer"):
        return item.layer.name, type_of_today(item.layer.type)
    return item.name, type_of_today(schema.enum_name(item, "type"))


def _read_h5(path: str) -> Weights:
    import h5py

    layers: list[LayerBlobs] = []
    with open_hdf5(path, "HDF5 model", WeightError) as file:
        if not isinstance(file.get("data"), h5py.Group):
            what = "a .solverstate.h5" if "iter" in file else "no Caffe model"
            raise WeightError(
                f"{path}: has no group '/data': this is {what}, expected a .caffemodel.h5"
            )
        for name, blobs in _h5_blobs(file["data"], room(path)).items():
            # a number that is left out is of a parameter that another layer owns
            ordered = (blobs.get(i, ELSEWHERE) for i in range(max(blobs) + 1))
            layers.append(LayerBlobs(name, "", tuple(ordered)))
        network = file.attrs.get(HDF5_NAME, "")
        net, notes = _h5_definition(file, path)
    source = Source(
        path,
        os.path.getsize(path),
        "h5",
        notes=notes,
        network=network if isinstance(network, str) else "",
    )
    return Weights(tuple(layers), net, source)


def _h5_definition(file: Any, path: str) -> tuple[NetSpec | None, tuple[str, ...]]:
    """The definition that this toolkit keeps in an HDF5 model, and a note where it is damaged."""
    text = file.attrs.get(HDF5_DEFINITION)
    if not isinstance(text, str):
        return None, () if text is None else ("the embedded definition is no text",)
    try:
        return parse_net(text, path), ()
    except PrototxtError as error:
        return None, (f"the embedded definition is unusable: {error}",)


def _h5_blobs(data: Any, limit: int) -> dict[str, dict[int, Blob]]:
    """Blobs by layer and number. A layer's name may hold slashes, which are groups in HDF5.

    A blob that has several names, by links, is one of each layer, as for Caffe, which opens each by
    its name.

    Parameters
    ----------
    limit : bytes that all of them may have.
    """
    found: dict[str, dict[int, Blob]] = {}
    for name in _h5_names(data):
        layer, _, index = name.rpartition("/")
        if not (index.isascii() and index.isdigit() and layer) or len(index) > 4:
            raise Unfit(f"'/data/{name}' is no Caffe blob (expected /data/LAYER/0, 1, ...)")
        array = take(data, name, kinds="f")
        if array.dtype != np.float64:
            array = array.astype(np.float32, copy=False)
        found.setdefault(layer, {})[int(index)] = Blob(array)
        limit -= array.nbytes
        if limit < 0:
            raise Unfit("its links bring more values than such a file may hold")
    return found


def _h5_names(data: Any) -> Iterator[str]:
    """Names of the data sets below an open HDF5 group, under every name that links give them.

    Raises
    ------
    Unfit : links that lead nowhere or back to where they are, or more of them than any model has.
    """
    import h5py

    count = 0
    waiting: list[tuple[str, Any, tuple[int, ...]]] = [("", data, ())]
    while waiting:
        prefix, group, above = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in above:
            raise Unfit(f"'/data/{prefix}' is a link to a group that it is in")
        inside = []
        for name in group:
            item = group.get(name)
            if item is None:
                raise Unfit(f"'/data/{prefix}{name}' is a link that leads nowhere")
            if isinstance(item, h5py.Group):
                inside.append((f"{prefix}{name}/", item, (*above, address)))
            else:
                yield f"{prefix}{name}"
            count += 1
            if count > _MOST_NAMES:
                raise Unfit(f"it has more than {_MOST_NAMES:,} names, which no model has")
        waiting += reversed(inside)


def read_model(path: str | os.PathLike[str], *, dialect: Dialect | None = None) -> Weights:
    """Read ``.caffemodel`` (any age and schema) or ``.caffemodel.h5``: Caffe's own files.

    >>> weights = read_model("small.caffemodel")
    >>> [blob.shape for blob in weights["conv"]]
    [(4, 3, 3, 3), (4,)]

    Parameters
    ----------
    path : the file; its kind is told from the contents, not from the name.
    dialect : "upstream" or "fork" to override detection of binary models.

    Returns
    -------
    Weights. Each array is read once into memory of its own (the file's size in all).

    Raises
    ------
    WeightError : missing, empty, truncated, damaged, another kind of file; says which and what to
        do.
    """
    name = os.fspath(path)
    size = check_file(path, WeightError)
    try:
        with open(name, "rb") as stream:
            head = stream.read(1024)
            if not size:  # also of the system's own files, which have contents all the same
                raise WeightError(f"{name}: is empty (0 bytes): download or copy the file again")
            if head.startswith(_HDF5_MAGIC):
                return _read_h5(name)
            _refuse_other_kinds(head, name)
            # not closed by hand: an error on its way out may still hold views of it
            view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            return parse_weights(view, load=_file_loader(stream), dialect=dialect, path=name)
    except OSError as error:
        raise WeightError(f"{name}: cannot be read: {error.strerror or error}") from None
    except WeightError as error:
        if error.problems or str(error).startswith(name):
            raise
        raise WeightError(f"{name}: {error}") from None


def _refuse_other_kinds(head: bytes, name: str) -> None:
    """Say what a file is that people give for a model."""
    if kind := kind_of(head):
        raise WeightError(f"{name}: is {kind}; expected a .caffemodel")
    # a definition in text has letters, quotes and line ends, and none of the control bytes that
    # lengths are made of
    if not any(byte < 9 or 13 < byte < 32 for byte in head) and (b"{" in head or b":" in head):
        raise WeightError(
            f"{name}: is text (a prototxt?), expected the binary .caffemodel; give a definition "
            "with --prototxt"
        )
    if _is_blob(head):
        raise WeightError(
            f"{name}: is a single blob, such as a mean image (.binaryproto); expected a .caffemodel"
        )


def _is_blob(head: bytes) -> bool:
    """Does a file begin as a ``BlobProto`` does: num, channels, height, width, data?"""
    numbers = []
    try:
        for part in walk(memoryview(head), 0, len(head)):
            numbers.append(part.number)
    except WeightError:
        pass  # the head ends within the data
    return numbers[:4] == [1, 2, 3, 4] and head[:1] == b"\x08"
