"""Weights in memory: parameter blobs by layer, and where they came from."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from caffe_compat.definition.spec import NetSpec
from caffe_compat.weights.wire import Blob

# In place of a parameter that an HDF5 model keeps with another layer only, which shares it.
ELSEWHERE = Blob(np.zeros(0, np.float32))
# attribute of an HDF5 model for the network's name, which Caffe has no place for and does not mind
HDF5_NAME = "network"
# the same for the definition as text, in a model that was converted
HDF5_DEFINITION = "prototxt"


@dataclass(frozen=True)
class LayerBlobs:
    """The parameter blobs that a file holds for one layer; a blob without values
    (:data:`ELSEWHERE`) is another layer's."""

    name: str
    type: str
    blobs: tuple[Blob, ...]


@dataclass(frozen=True)
class Source:
    """Where weights came from, for reports and metadata.

    Attributes
    ----------
    path, size : the file.
    container : "caffemodel", "h5", "safetensors", "pth", "npz" or "" (made in memory).
    format : "V0", "V1", "V2" for binary models, otherwise "".
    dialect : "upstream" or "fork" (binary models), "" where it makes no difference.
    evidence : why that dialect.
    notes : oddities that a reader should know.
    metadata : further strings that a container holds.
    network : the network's name as the file has it.
    """

    path: str = ""
    size: int = 0
    container: str = ""
    format: str = ""
    dialect: str = ""
    evidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    network: str = ""

    def sha256(self) -> str:
        """SHA-256 of the file, hex; "" for weights made in memory."""
        if not self.path:
            return ""
        digest = hashlib.sha256()
        with open(self.path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Weights:
    """Parameter blobs by layer, in file order, with the definition that came along, if any."""

    layers: tuple[LayerBlobs, ...]
    net: NetSpec | None = None
    source: Source = Source()

    def __contains__(self, name: str) -> bool:
        return any(layer.name == name for layer in self.layers)

    def __getitem__(self, name: str) -> tuple[Blob, ...]:
        for layer in self.layers:
            if layer.name == name:
                return layer.blobs
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that hold blobs."""
        return tuple(layer.name for layer in self.layers if layer.blobs)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(blob.data.size for layer in self.layers for blob in layer.blobs)


def overlaid(*parts: Weights) -> Weights:
    """Several models as one: where two have a layer of one name, the later one's blobs count.

    Caffe does the same when it loads ``--weights a.caffemodel,b.caffemodel`` one after the other.
    """
    layers: dict[tuple[str, int], LayerBlobs] = {}
    for part in parts:
        seen: Counter[str] = Counter()
        for layer in part.layers:
            layers[layer.name, seen[layer.name]] = layer
            seen[layer.name] += 1
    last = parts[-1]
    return Weights(tuple(layers.values()), last.net, last.source)
