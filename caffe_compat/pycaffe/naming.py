"""What scripts ask a net about the names and places of its layers and blobs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import Graph, name_in_caffe
from caffe_compat.network.net import Net as _Net
from caffe_compat.pycaffe.blobs import Blob, Blobs, ParamBlob


class LayerView:
    """A layer of a net: its type, and its parameter blobs.

    One of a Python layer stands for the object of the script's own class, too: what else a script
    asks of it, or sets, is asked of that object (``net.layers[0].set_roidb(roidb)``).
    """

    type: str
    blobs: list[ParamBlob]

    def __init__(self, kind: str, blobs: list[ParamBlob], made: Any = None) -> None:
        own = {"type": kind, "blobs": blobs, "_made": made}
        self.__dict__.update(own)

    def __repr__(self) -> str:
        return f"<layer of type {self.type}, {len(self.blobs)} blob(s)>"

    def __getattr__(self, name: str) -> Any:
        if name in ("type", "blobs", "_made") or name.startswith("__"):
            raise AttributeError(name)  # of one that is being copied
        made = self.__dict__.get("_made")
        if made is None:
            raise AttributeError(f"a layer of type {self.type} has no '{name}'")
        return getattr(made, name)

    def __setattr__(self, name: str, value: object) -> None:
        if self._made is None or name in self.__dict__:
            raise AttributeError(f"'{name}' of a layer of type {self.type} cannot be set")
        setattr(self._made, name, value)


class Named:
    """Names of a net's layers and blobs, as pycaffe gives them.

    Attributes
    ----------
    blobs : by name.
    layers : all layers in order.
    """

    _net: _Net
    blobs: Blobs
    layers: list[LayerView]

    @property
    def _graph(self) -> Graph:
        return self._net.graph

    @property
    def inputs(self) -> list[str]:
        """Names of the input blobs."""
        return [t for n in self._graph.nodes if n.layer.type == "Input" for t in n.tops]

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads."""
        return list(self._graph.outputs)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Bottoms of each layer."""
        return OrderedDict((n.layer.name, list(n.bottoms)) for n in self._graph.nodes)

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Tops of each layer."""
        return OrderedDict(
            (n.layer.name, [name_in_caffe(top) for top in n.tops]) for n in self._graph.nodes
        )

    @property
    def layer_dict(self) -> OrderedDict[str, LayerView]:
        """Layers by name; of several with one name the last."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @property
    def _layer_names(self) -> list[str]:
        return [n.layer.name for n in self._graph.nodes]

    @property
    def _blob_names(self) -> list[str]:
        return [name_in_caffe(name) for name in self._graph.blobs]

    @property
    def _blobs(self) -> list[Blob]:
        return [self.blobs[name] for name in self._graph.blobs]

    def _ids(self, names: Iterable[str]) -> list[int]:
        places = {name: place for place, name in enumerate(self._graph.blobs)}
        return [places[name] for name in names if name in places]

    @property
    def _inputs(self) -> list[int]:
        return self._ids(self.inputs)

    @property
    def _outputs(self) -> list[int]:
        return self._ids(self.outputs)

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._ids(self._graph.nodes[layer].bottoms)

    def _top_ids(self, layer: int) -> list[int]:
        return self._ids(self._graph.nodes[layer].tops)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Weight of each blob in the loss."""
        return OrderedDict(zip(self._blob_names, self._blob_loss_weights, strict=True))

    @property
    def _blob_loss_weights(self) -> list[float]:
        found = dict.fromkeys(self._graph.blobs, 0.0)
        for node in self._graph.nodes:
            for name, weight in zip(node.tops, node.loss_weights, strict=True):
                found[name] += weight
        return list(found.values())

    def _place(self, layer: str) -> int:
        if layer not in self._layer_names:
            raise CaffeCompatError(
                f"no layer is called '{layer}'; layers: {', '.join(self._layer_names)}"
            )
        return self._layer_names.index(layer)
