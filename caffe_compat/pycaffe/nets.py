"""Nets as scripts see them: blobs and parameters by name, forward and backward."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from caffe_compat.definition.prototxt import read_net
from caffe_compat.definition.spec import TEST as _TEST
from caffe_compat.definition.spec import TRAIN as _TRAIN
from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import Graph, Node
from caffe_compat.network.net import Net as _Net
from caffe_compat.pycaffe.blobs import Array, Blob, Blobs
from caffe_compat.pycaffe.mode import current_device, current_draws
from caffe_compat.pycaffe.running import Running
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.rows import MemorySource
from caffe_compat.weights.read import read_weights
from caffe_compat.weights.write import write_weights

TRAIN, TEST = 0, 1
_PHASES = {TRAIN: _TRAIN, TEST: _TEST}


class LayerView(NamedTuple):
    """A layer of a net: its type, and its parameter blobs."""

    type: str
    blobs: list[Blob]


class Net:
    """A network with its blobs.

    ``Net(network, phase, weights=None)`` or, as old scripts write it, ``Net(network, weights,
    phase)``.

    Attributes
    ----------
    blobs, params : blobs by name; lists of parameter blobs by layer name. inputs, outputs : names.
    bottom_names, top_names : by layer name.
    """

    def __init__(
        self,
        network: str | os.PathLike[str],
        *args: Any,
        phase: int | None = None,
        weights: str | os.PathLike[str] | None = None,
        level: int = 0,
        stages: Iterable[str] = (),
    ) -> None:
        for given in args:
            if isinstance(given, int):
                phase = given
            elif isinstance(given, str | os.PathLike):
                weights = os.fspath(given)
        if phase not in _PHASES:
            raise CaffeCompatError(
                f"Net: give the phase, caffe.TRAIN ({TRAIN}) or caffe.TEST ({TEST}), not {phase!r}"
            )
        spec = read_net(network)
        feed = DataFeed(
            spec, _PHASES[phase], Path("."), None, level, tuple(stages), current_draws()
        )
        stored = None if weights is None else read_weights(weights)
        self._take(
            _Net(
                spec,
                stored,
                phase=_PHASES[phase],
                level=level,
                stages=stages,
                strict=False,
                input_shapes=feed.shapes or None,
            ).to(current_device()),
            feed,
        )

    @classmethod
    def _of(cls, net: _Net, feed: DataFeed | None) -> Net:
        """Around a network that somebody else runs, too."""
        made = cls.__new__(cls)
        made._take(net, feed)
        return made

    def _take(self, net: _Net, feed: DataFeed | None) -> None:
        self._net = net.pack()
        self._feed = feed if feed is not None and feed.shapes else None
        self._batches = 0
        self._stale: set[str] = set()
        self._last: dict[str, Tensor] = {}
        self._taken: dict[
            tuple[int, int], Array
        ] = {}  # parameters as they were last looked through
        self._ran = False  # did the latest forward pass run layer by layer?
        self._watched: set[str] = (
            set()
        )  # layers whose parameters a script has seen, and may write at any time
        graph = net.graph
        self.blobs = Blobs()
        for name, shape in graph.blobs.items():
            self.blobs[name] = Blob(np.zeros(shape, np.float32), self._fresh(name))
        owned = {
            (n.index, i): self._parameter(n, i)
            for n in graph.nodes
            for i, p in enumerate(n.params)
            if p.owner == p.key
        }
        self.params = OrderedDict(
            (n.layer.name, [owned[p.owner] for p in n.params]) for n in graph.nodes if n.params
        )
        for name in graph.outputs:
            if name in graph.aliases:
                of = self.blobs[graph.aliases[name]]
                self.blobs.hidden[name] = Blob(of._data, self._fresh(graph.aliases[name]))
        # blobs that nobody looks at are not computed, where that can be done later
        self._lazy = (
            graph.phase == _TEST
            and not graph.memory.overwritten
            and not any(
                node.layer.changes_state or node.layer.stateful or node.layer.effect
                for node in graph.nodes
            )
        )
        self._running = Running(net, self.blobs, owned)
        for step in graph.steps:
            for name, weight in zip(step.tops, step.loss_weights, strict=True):
                if weight:
                    self.blobs[name].diff[...] = weight

    def _parameter(self, node: Node, index: int) -> Blob:
        tensor = self._net.param(node.params[index]).detach()
        return Blob(tensor.cpu().numpy(), lambda: self._watched.add(node.layer.name))

    def _fresh(self, name: str) -> Callable[[], None]:
        def ready() -> None:
            if name in self._stale:
                self._compute_all()

        return ready

    # ------------------------------------------------------------ names

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
        return OrderedDict((n.layer.name, list(n.tops)) for n in self._graph.nodes)

    @property
    def layers(self) -> list[LayerView]:
        """All layers in order."""
        return list(self.layer_dict.values())

    @property
    def layer_dict(self) -> OrderedDict[str, LayerView]:
        """Layers by name."""
        return OrderedDict(
            (n.layer.name, LayerView(n.layer.type, self.params.get(n.layer.name, [])))
            for n in self._graph.nodes
        )

    @property
    def _layer_names(self) -> list[str]:
        return [n.layer.name for n in self._graph.nodes]

    def _place(self, layer: str) -> int:
        if layer not in self._layer_names:
            raise CaffeCompatError(
                f"no layer is called '{layer}'; layers: {', '.join(self._layer_names)}"
            )
        return self._layer_names.index(layer)

    def set_input_arrays(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Give a MemoryData layer, which must be the first layer, its rows.

        Parameters
        ----------
        data : (rows, channels, height, width), rows a multiple of the layer's batch_size.
        labels : one a row.

        Raises
        ------
        CaffeCompatError : the first layer is of another type, or the arrays do not fit it.
        """
        first = self._graph.nodes[0].layer
        source = self._feed.source(first.name) if self._feed is not None else None
        if not isinstance(source, MemorySource):
            raise CaffeCompatError(
                f"set_input_arrays: the first layer must be of type MemoryData, it is {first.type}"
            )
        source.give(data, labels)

    # ------------------------------------------------------------ running

    def reshape(self) -> None:
        """Give all blobs the shapes that follow from the inputs'."""
        shapes = {name: self.blobs[name].shape for name in self._graph.inputs}
        for name, shape in self._net.reshaped(shapes).blobs.items():
            self.blobs[name].reshape(*shape)

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Run the net.

        Parameters
        ----------
        blobs : names of further blobs to return.
        start, end : first and last layer to run, on what the blobs hold; default: all.
        inputs : arrays for input blobs, of their shapes.

        Returns
        -------
        Name -> array of the outputs (of ``end``'s tops, where it is given).
        """
        self._put(inputs, self.inputs, "data")
        self._take_params()
        wanted = [
            *(self.outputs if end is None else self.top_names[self._layer_names[self._place(end)]]),
            *(blobs or ()),
        ]
        if unknown := [n for n in wanted if n not in self.blobs.everything()]:
            raise CaffeCompatError(
                f"no blob is called {', '.join(unknown)}; blobs: {', '.join(self.blobs)}"
            )
        if start is None:
            self._last = {name: self._tensor(name) for name in self.inputs}
            if self._feed is not None:
                self._last.update(self._feed.batch(self._batches, self._device))
                self._batches += 1
        if start is None and self._lazy:
            aliases = self._graph.aliases
            needed = dict.fromkeys(aliases.get(name, name) for name in wanted)
            with torch.no_grad():
                self._leave({**self._last, **self._net(blobs=needed, **self._last)})
            made = {
                name for node in self._graph.nodes if not node.layer.data for name in node.tops
            }  # an in-place layer's input, too
            self._stale = made - set(needed)
            self._ran = False
        else:
            if start is None:
                self._net.check_sizes(self._last)
                self._running.begin(self._last)
            else:
                self._catch_up()
                self._running.take()
            self._running.forward(self._between(start, end))
            self._give_params()
            self._ran = True
        return {name: self.blobs[name].data for name in wanted}

    def forward_all(self, **inputs: npt.ArrayLike) -> dict[str, Array]:
        """The outputs of a whole set of inputs, batch by batch; the last one is filled up with
        zeros."""
        size = self.blobs[self.inputs[0]].shape[0]
        arrays = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
        total = len(next(iter(arrays.values())))
        parts: dict[str, list[Array]] = {}
        for first in range(0, total, size):
            batch = {n: a[first : first + size] for n, a in arrays.items()}
            full = {
                n: np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), np.float32)])
                for n, a in batch.items()
            }
            self._put(full, self.inputs, "data")
            for name, values in self.forward().items():
                parts.setdefault(name, []).append(values.copy())
        return {name: np.concatenate(values)[:total] for name, values in parts.items()}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **outputs: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Gradients of all blobs and parameters, from the outputs' ``diff`` (a loss's is its
        weight).

        Parameters
        ----------
        diffs : names of further blobs whose gradients to return.
        start, end : first and last layer to go through, backwards; default: all.
        outputs : ``diff`` of output blobs.

        Returns
        -------
        Name -> gradient of the inputs (of ``end``'s bottoms, where it is given). Parameters'
        gradients add up until :meth:`clear_param_diffs`.
        """
        top_names = (
            self.outputs if start is None else self.top_names[self._layer_names[self._place(start)]]
        )
        self._put(outputs, top_names, "diff")
        self._take_params()
        self._catch_up()
        self._running.take()
        self._running.backward(self._between(end, start))
        bottoms = (
            self.inputs if end is None else self.bottom_names[self._layer_names[self._place(end)]]
        )
        return {name: self.blobs[name].diff for name in [*bottoms, *(diffs or ())]}

    def clear_param_diffs(self) -> None:
        """Set all parameters' gradients to 0."""
        for blobs in self.params.values():
            for blob in blobs:
                blob.diff[...] = 0

    @property
    def _device(self) -> torch.device:
        return next(iter(self._net.parameters()), torch.zeros(0)).device

    def _between(self, first: str | None, last: str | None) -> list[Node]:
        """The layers from one to another, both included, and Caffe's Split layers between them."""
        steps = self._graph.steps
        places = {step.index: place for place, step in enumerate(steps) if step.index >= 0}
        begin = 0 if first is None else places[self._place(first)]
        end = len(steps) if last is None else places[self._place(last)] + 1
        if begin >= end:
            raise CaffeCompatError(f"layer '{first}' comes after layer '{last}'")
        return list(steps[begin:end])

    def _catch_up(self) -> None:
        """Run the latest forward pass layer by layer, if so far it has been done at one go."""
        if self._last and not self._ran:
            # a script may have written into the blobs that it has looked at
            unseen, self._stale = self._stale, set()
            self._running.begin(self._last)
            self._running.forward(self._graph.steps, leave=unseen)
            self._ran = True

    def _compute_all(self) -> None:
        """Inner blobs of the last forward pass: they are computed when one is first looked at."""
        stale, self._stale = self._stale, set()
        with torch.no_grad():
            found = self._net(blobs=stale, **self._last)
        self._leave(found)

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.blobs[name].data, np.float32)).to(self._device)

    def _leave(self, values: dict[str, Tensor]) -> None:
        for name, tensor in values.items():
            self.blobs[name]._set(tensor.detach().float().cpu().numpy())

    def _put(self, arrays: Mapping[str, npt.ArrayLike], known: Sequence[str], what: str) -> None:
        for name, value in arrays.items():
            if name not in known:
                raise CaffeCompatError(f"'{name}' is none of {', '.join(known) or 'no blobs'}")
            target, given = getattr(self.blobs[name], what), np.asarray(value, np.float32)
            if given.shape != target.shape:
                raise CaffeCompatError(
                    f"blob '{name}' is {target.shape}, {given.shape} was given; reshape the "
                    "blob first"
                )
            target[...] = given

    def _take_params(self) -> None:
        """What a script wrote into parameters counts from now on."""
        with torch.no_grad():
            for node in self._graph.nodes:
                if node.layer.name in self._watched:
                    for blob, param in zip(self.params[node.layer.name], node.params, strict=True):
                        known = self._taken.get(param.owner)
                        if known is None or not np.array_equal(known, blob._data, equal_nan=True):
                            self._taken[param.owner] = taken = blob._data.copy()
                            # also on the CPU, where the memory is shared: torch must hear of a
                            # change that numpy made
                            self._net.param(param).copy_(torch.from_numpy(taken))

    def _give_params(self) -> None:
        """What happened to parameters elsewhere shows in their blobs; on the CPU they are the same
        memory."""
        if self._device.type != "cpu":
            for node in self._graph.nodes:
                for blob, param in zip(
                    self.params.get(node.layer.name, ()), node.params, strict=False
                ):
                    blob._set(self._net.param(param).detach().float().cpu().numpy())

    # ------------------------------------------------------------ weights

    def copy_from(self, path: str | os.PathLike[str]) -> None:
        """Take the weights of layers with the same names from a file."""
        weights = read_weights(path)
        other = _Net(self._graph, weights, strict=False)
        mine = {(n.layer.name, p.name): t for n, p, t in self._net.owned_params()}
        stored = {layer.name for layer in weights.layers}
        with torch.no_grad():
            for node, param, tensor in other.owned_params():
                if node.layer.name in stored:
                    mine[node.layer.name, param.name].copy_(tensor)
        self._give_params()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.caffemodel`` (or ``.h5``, by the name)."""
        self._take_params()
        write_weights(path, self._net.weights(), self._graph.spec)
