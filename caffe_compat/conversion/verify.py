"""Compare a network with blobs that Caffe (or anything else) recorded, and say where they part and
why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from caffe_compat.errors import CaffeCompatError
from caffe_compat.foreign import read_npz
from caffe_compat.network.graph import Node
from caffe_compat.network.net import Net
from caffe_compat.weights.wire import Array

_HINTS = {
    "Pooling": "the rounding of the output size, or padding counted in the mean (Caffe rounds "
    "up and counts padding)",
    "Convolution": "the order of input channels (Caffe: B, G, R), flipped kernels, or height "
    "and width swapped",
    "Deconvolution": "the order of the weight axes (input channels first) or cropping",
    "InnerProduct": "the order in which the bottom was flattened (Caffe: C, H, W) or a "
    "transposed weight",
    "BatchNorm": "statistics not divided by the third blob, another eps, or batch statistics "
    "instead of stored ones",
    "Scale": "the coefficient's axis, or weight and bias of the neighbouring BatchNorm mixed up",
    "LRN": "alpha divided by the window size or not, or the kind of window (across channels, "
    "within a channel)",
    "Concat": "the order of the bottoms",
    "Slice": "the slice points",
    "Dropout": "dropout active in testing, or scaled there",
    "Softmax": "the axis",
    "Eltwise": "the order of the bottoms or their coefficients",
    "PReLU": "slopes assigned to other channels",
}


@dataclass(frozen=True)
class BlobCheck:
    """One blob compared.

    Attributes
    ----------
    error, scale : largest absolute difference, and largest absolute recorded value.
    verdict : "equal", "differs", "other shape".
    """

    blob: str
    layer: str
    type: str
    error: float
    scale: float
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """The comparison in graph order.

    Attributes
    ----------
    first : the first blob that differs, if any.
    causes : likely reasons, most likely first.
    notes : what of the dump was not compared, and inputs that it lacks.
    """

    checks: tuple[BlobCheck, ...]
    first: BlobCheck | None
    causes: tuple[str, ...]
    tolerance: float
    notes: tuple[str, ...] = ()


def load_dump(path: str | os.PathLike[str]) -> dict[str, Array]:
    """An ``.npz`` of recorded arrays (nothing pickled).

    Raises
    ------
    CaffeCompatError : missing, damaged, or holding objects.
    """
    arrays = read_npz(path, "npz dump of blobs", CaffeCompatError)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise CaffeCompatError(f"{os.fspath(path)}: array '{name}' holds no numbers")
    return arrays


def split_dump(
    dump: Mapping[str, Array], inputs: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and blobs of a dump.

    Inputs stand under ``in:NAME``, ``NAME``, or (a single input) ``x``; blobs under ``blob:NAME``
    or ``NAME``.

    Raises
    ------
    CaffeCompatError : an input is missing.
    """
    given: dict[str, Array] = {}
    taken = ""  # another name of the only input
    for name in inputs:
        for key in (f"in:{name}", name, f"blob:{name}"):
            if key in dump:
                given[name] = dump[key]
                break
    if not given and inputs and "x" in dump:
        taken = "x"
        given[inputs[0]] = dump[taken]
    if not given:
        raise CaffeCompatError(
            f"the dump has no input: expected 'in:{inputs[0] if inputs else 'data'}', found "
            f"{', '.join(dump) or 'nothing'}"
        )
    blobs = {}
    for key, value in dump.items():
        if key.startswith("blob:"):
            blobs[key[5:]] = value
        elif ":" not in key and key != taken:
            blobs[key] = value
    return given, blobs


def _compare(
    name: str, node: Node | None, ours: Array, theirs: Array, tolerance: float
) -> BlobCheck:
    layer, kind = (node.layer.name, node.layer.type) if node else ("", "")
    if ours.shape != theirs.shape:
        return BlobCheck(
            name,
            layer,
            kind,
            float("inf"),
            0.0,
            "other shape",
            f"ours {ours.shape}, dump {theirs.shape}",
        )
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gap = np.where(same, 0.0, np.abs(a - b))
    error = float(np.max(np.where(np.isnan(gap), np.inf, gap), initial=0.0))
    scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0))
    verdict = "equal" if error <= tolerance * max(scale, 1e-6) else "differs"
    return BlobCheck(name, layer, kind, error, scale, verdict)


def _trials(
    net: Net, node: Node, bottoms: list[Array], recorded: Array, tolerance: float
) -> list[str]:
    """Recompute one layer from the recorded bottoms under likely mistakes; name those that give the
    recorded top."""
    tensors = [torch.from_numpy(np.ascontiguousarray(b)) for b in bottoms]
    params = [net.param(p).detach() for p in node.params]

    def gives(params: list[torch.Tensor], tensors: list[torch.Tensor]) -> bool:
        try:
            top = node.layer.forward(params, *tensors)[0].detach().numpy()
        except RuntimeError:
            return False
        return _compare("", None, top, recorded, tolerance).verdict == "equal"

    found = []
    weight = params[0] if params else None
    with torch.no_grad():
        if gives(params, tensors):
            return [
                "the layer itself agrees on the recorded bottoms: an earlier blob, which the "
                "dump lacks, differs"
            ]
        if weight is not None and weight.dim() == 4:
            if weight.shape[1] >= 3:
                order = [2, 1, 0, *range(3, weight.shape[1])]
                if gives([weight[:, order], *params[1:]], tensors):
                    found.append(
                        "the first three input channels are in the order R, G, B there "
                        "(Caffe: B, G, R)"
                    )
            if gives([weight.flip(2, 3), *params[1:]], tensors):
                found.append("the kernels are flipped there (convolution instead of correlation)")
            if weight.shape[2] == weight.shape[3] and gives(
                [weight.transpose(2, 3).contiguous(), *params[1:]], tensors
            ):
                found.append("height and width of the kernels are swapped there")
            if len(params) > 1 and gives([weight, params[1] * 0], tensors):
                found.append("the bias is not added there")
        if node.layer.type == "BatchNorm" and gives([params[0], params[1], torch.ones(1)], tensors):
            found.append("the statistics are not divided by the third blob there")
    return found


def verify(net: Net, dump: Mapping[str, Array], *, tolerance: float = 1e-4) -> Comparison:
    """Run the net on the dump's input and compare every recorded blob, in graph order.

    Parameters
    ----------
    dump : arrays by name, see :func:`split_dump`.
    tolerance : allowed error as a fraction of the blob's largest absolute value.

    Raises
    ------
    CaffeCompatError : no input in the dump, or no blob that the network computes.
    """
    given, blobs = split_dump(dump, net.graph.inputs)
    ours = _computed(net, given)
    known = [name for name in blobs if name in ours]
    if not set(known).difference(net.graph.inputs):  # an input always equals itself
        raise CaffeCompatError(
            f"the dump has no blob that this network computes; it has {', '.join(blobs) or 'none'}"
        )
    maker = {top: node for node in net.graph.nodes for top in node.tops}
    for alias, name in net.graph.aliases.items():
        maker[alias] = maker[name]
    checks = [
        _compare(name, maker[name], ours[name], blobs[name], tolerance)
        for name in sorted(known, key=lambda n: (maker[n].index, n))
    ]
    first = next((check for check in checks if check.verdict != "equal"), None)
    causes: list[str] = []
    if first is not None:
        causes = _causes(net, first, maker[first.blob], {**given, **blobs}, tolerance)
    notes = [
        f"the dump has no input '{name}': zeros took its place"
        for name in net.graph.inputs
        if name not in given
    ]
    if foreign := [name for name in blobs if name not in ours]:
        notes.append(f"not compared, for this network has no such blobs: {', '.join(foreign)}")
    return Comparison(tuple(checks), first, tuple(causes), tolerance, tuple(notes))


def _computed(net: Net, given: Mapping[str, Array]) -> dict[str, Array]:
    """All blobs of the network for these inputs; an input that is not given is zeros."""
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(a, np.float32)) for name, a in given.items()
    }
    for name in net.graph.inputs:
        if name not in tensors:  # labels that only losses read
            tensors[name] = torch.zeros(net.graph.blobs[name])
    try:
        with torch.no_grad():
            return {name: blob.numpy() for name, blob in net.all_blobs(**tensors).items()}
    except (CaffeCompatError, RuntimeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise CaffeCompatError(
            f"the network cannot compute the dump's inputs ({shapes}): {str(error).splitlines()[0]}"
        ) from error


def _causes(
    net: Net, first: BlobCheck, node: Node, recorded: Mapping[str, Array], tolerance: float
) -> list[str]:
    """Likely reasons why a blob differs, which ``node`` makes; ``recorded`` holds the dump's inputs
    and blobs."""
    bottoms = [recorded[name] for name in node.bottoms if name in recorded]
    complete = len(bottoms) == len(node.bottoms)
    causes: list[str] = []
    if first.verdict == "differs" and complete and node.bottoms != node.tops:
        causes = _trials(net, node, bottoms, recorded[first.blob], tolerance)
    hint = _HINTS.get(node.layer.type, "the input's preprocessing, or weights of another model")
    return causes or [hint]
