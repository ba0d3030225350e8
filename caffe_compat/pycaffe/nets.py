"""Nets as scripts see them: blobs and parameters by name, forward and backward."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from caffe_compat.definition.prototxt import read_net
from caffe_compat.definition.spec import TEST as _TEST
from caffe_compat.definition.spec import TRAIN as _TRAIN
from caffe_compat.errors import CaffeCompatError
from caffe_compat.layers.python import Python
from caffe_compat.network.graph import Node, name_in_caffe
from caffe_compat.network.match import MISSHAPED, match, require
from caffe_compat.network.net import Net as _Net
from caffe_compat.pycaffe.blobs import Alias, Array, Blob, Blobs, ParamBlob, take_all
from caffe_compat.pycaffe.mode import current_device, current_draws
from caffe_compat.pycaffe.naming import LayerView, Named
from caffe_compat.pycaffe.paths import existing
from caffe_compat.pycaffe.running import Running
from caffe_compat.training.feed import DataFeed
from caffe_compat.training.rows import MemorySource
from caffe_compat.weights.containers import read_weights
from caffe_compat.weights.write import write_weights

TRAIN, TEST = 0, 1
_PHASES = {TRAIN: _TRAIN, TEST: _TEST}


class _Rows:
    """Results of several batches."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Array]] = {}

    def add(self, found: Mapping[str, Array]) -> None:
        for name, values in found.items():
            self._parts.setdefault(name, []).append(np.atleast_1d(values).copy())

    def first(self, rows: int) -> dict[str, Array]:
        """All rows, less those of the last batch that were filled up; -1: all."""
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        return {name: a[:rows] if rows >= 0 else a for name, a in joined.items()}


class Net(Named):
    """A network with its blobs.

    ``Net(network, phase, weights=None)`` or, as old scripts write it, ``Net(network, weights,
    phase)``.

    Attributes
    ----------
    blobs, params : blobs by name; lists of parameter blobs by layer name.
    layers : all layers in order.
    inputs, outputs : names.
    bottom_names, top_names : by layer name.
    """

    def __init__(
        self,
        network: str | os.PathLike[str],
        *args: Any,
        phase: int | None = None,
        weights: str | os.PathLike[str] | None = None,
        level: int = 0,
        stages: Iterable[str] | None = (),
    ) -> None:
        numbers = [given for given in args if isinstance(given, int)]
        for given in args:
            if isinstance(given, str | os.PathLike):
                weights = given
            elif isinstance(given, list | tuple):
                stages = given
        if numbers and phase is None:
            phase = numbers.pop(0)
        level = numbers.pop(0) if numbers else level
        if phase not in _PHASES:
            raise CaffeCompatError(
                f"Net: give the phase, caffe.TRAIN ({TRAIN}) or caffe.TEST ({TEST}), not {phase!r}"
            )
        stages = tuple(stages or ())
        spec = read_net(existing(network, "definition"))
        feed = DataFeed(spec, _PHASES[phase], Path("."), None, level, stages, current_draws())
        stored = None if weights is None else read_weights(existing(weights, "weights"))
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
        self._stale: set[str] = set()
        self._last: dict[str, Tensor] = {}
        self._ran = False  # did the latest forward pass run layer by layer?
        # called with the number of each layer before and after it runs, forwards and backwards
        self._hooks: dict[str, list[Callable[[int], Any]]] = {}
        graph = net.graph
        self.blobs = Blobs()
        for name, shape in graph.blobs.items():
            blob = Blob(np.zeros(shape, np.float32), self._fresh(name))
            self.blobs[name_in_caffe(name)] = blob  # of several with one name the last stays
            if name_in_caffe(name) != name:
                self.blobs.hidden[name] = blob
        owned = {
            param.key: ParamBlob(net.param(param).detach())
            for node in graph.nodes
            for param in node.params
            if param.owner == param.key
        }
        self._owned = list(owned.values())
        self.layers = [
            LayerView(
                node.layer.type,
                [owned[param.owner] for param in node.params],
                node.layer.made if isinstance(node.layer, Python) else None,
            )
            for node in graph.nodes
        ]
        self.params = OrderedDict(
            (name, layer.blobs) for name, layer in self.layer_dict.items() if layer.blobs
        )
        for name in graph.outputs:
            if name in graph.aliases:
                self.blobs.hidden[name] = Alias(self.blobs[graph.aliases[name]])
        # Caffe fills them once: what a layer in place or a script leaves in them stays
        self._constants = self._feed.constants() if self._feed is not None else {}
        for name, values in self._constants.items():
            self.blobs[name]._set(values)
        # blobs that nobody looks at are not computed, where that can be done later
        self._lazy = (
            graph.phase == _TEST
            and not graph.memory.overwritten
            and not any(node.layer.leaves_a_trace for node in graph.nodes)
        )
        self._running = Running(net, self.blobs, dict(owned))
        # the nets that have these very parameters, this one among them
        self._kin: tuple[Net, ...] = (self,)
        self._changes_params = any(node.layer.changes_state for node in graph.nodes)
        for step in graph.steps:
            if step.layer.type == "Parameter":  # its gradient is the parameter's, which begins at 0
                continue
            for name, weight in zip(step.tops, step.loss_weights, strict=True):
                if weight:
                    self.blobs[name].diff[...] = weight

    def _fresh(self, name: str) -> Callable[[], None]:
        def ready() -> None:
            if name in self._stale:
                self._compute_all()

        return ready

    def __repr__(self) -> str:
        """Name, phase and number of parameters, then one line a layer, with the shapes of now."""
        return self._graph.text({name: self.blobs[name].shape for name in self._graph.blobs})

    # ------------------------------------------------------------ running

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

    def reshape(self) -> None:
        """Give all blobs the shapes that follow from the inputs'."""
        shapes = {name: self.blobs[name].shape for name in self._graph.inputs}
        for name, shape in self._net.reshaped(shapes).blobs.items():
            if shape != self.blobs[name]._sizes():
                self._stale.discard(name)
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
        inputs : arrays for input blobs, of their shapes; (N,) and the like are repeated where
            numpy does that.

        Returns
        -------
        Name -> array of the outputs (of ``end``'s tops, where it is given).

        Raises
        ------
        CaffeCompatError : an unknown blob or layer, an input that does not fit.
        """
        self._put(inputs, self.inputs, "data")
        wanted = [
            *(self.outputs if end is None else self.top_names[self._layer_names[self._place(end)]]),
            *(blobs or ()),
        ]
        if unknown := [n for n in wanted if n not in self.blobs.everything()]:
            raise CaffeCompatError(
                f"no blob is called {', '.join(unknown)}; blobs: {', '.join(self.blobs)}"
            )
        nodes = self._graph.nodes if end is None else self._graph.nodes[: self._place(end) + 1]
        # an in-place layer's input, too
        made = {name for node in nodes if not node.layer.data for name in node.tops}
        if start is None:
            if self._stale - made:  # blobs behind ``end`` stay those of the last pass
                self._finish()
            self._last, self._stale = {}, set()
        self._take_params()
        if self._changes_params:
            self._finish_all()
        if start is None:
            self._last = {name: self._tensor(name) for name in self.inputs}
            if self._feed is not None:
                self._last.update(self._feed.next(self._device))
                self._last.update({name: self._tensor(name) for name in self._constants})
        # up to a layer, one by one: a layer in place behind it must not have run
        if start is None and end is None and self._lazy and not self._hooks:
            aliases = self._graph.aliases
            needed = dict.fromkeys(aliases.get(name, name) for name in wanted)
            with torch.no_grad():
                self._leave({**self._last, **self._net(blobs=needed, **self._last)})
            self._stale = made - set(needed)
            self._ran = False
        else:
            if start is None:
                self._net.check_sizes(self._last)
                self._running.begin(self._last)
            else:
                self._catch_up()
                self._running.take()
            self._each(self._between(start, end), "forward", self._running.forward)
            self._give_params()
            self._ran = True
        return {name: self.blobs[name].data for name in wanted}

    def forward_all(
        self, blobs: Sequence[str] | None = None, **inputs: npt.ArrayLike
    ) -> dict[str, Array]:
        """The outputs of a whole set of inputs, batch by batch; the last one is filled up with
        zeros.

        Parameters
        ----------
        blobs : names of further blobs to return.
        inputs : arrays for input blobs, with any number of rows.
        """
        found = _Rows()
        batches, total = self._split(inputs)
        for batch in batches:
            found.add(self.forward(blobs, **batch))
        return found.first(total)

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **arrays: npt.ArrayLike,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Outputs and gradients of a whole set of inputs, batch by batch.

        Parameters
        ----------
        blobs, diffs : names of further blobs whose values and gradients to return.
        arrays : values of input blobs, and ``diff`` of output blobs, with any number of rows.

        Returns
        -------
        Name -> values of the outputs; name -> gradient of the inputs.
        """
        given = {name: value for name, value in arrays.items() if name in self.inputs}
        starts = {name: value for name, value in arrays.items() if name not in given}
        ahead, total = self._split(given)
        back, _ = self._split(starts)
        outputs, gradients = _Rows(), _Rows()
        for number in range(max(len(ahead), len(back), 1)):
            outputs.add(self.forward(blobs, **(ahead[number] if number < len(ahead) else {})))
            begin = back[number] if number < len(back) else {}
            gradients.add(self.backward(diffs, **begin))
        return outputs.first(total), gradients.first(total)

    def _split(self, arrays: Mapping[str, npt.ArrayLike]) -> tuple[list[dict[str, Any]], int]:
        """Batches of the blobs' size, the last one filled up with zeros; and the number of rows."""
        given = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
        if unknown := [name for name in given if name not in self.blobs]:
            raise CaffeCompatError(
                f"no blob is called {', '.join(unknown)}; blobs: {', '.join(self.blobs)}"
            )
        sizes = {name: len(array) for name, array in given.items()}
        if not given:
            return [], -1
        total = next(iter(sizes.values()))
        if set(sizes.values()) != {total}:
            raise CaffeCompatError(f"all arrays need the same number of rows, found {sizes}")
        size = self.blobs[next(iter(given))].shape[0]
        batches = []
        for first in range(0, total, size):
            part = {name: array[first : first + size] for name, array in given.items()}
            batches.append(
                {
                    name: np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), np.float32)])
                    for name, a in part.items()
                }
            )
        return batches, total

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
        self._catch_up()
        self._take_params()
        self._running.take()
        self._each(self._between(end, start), "backward", self._running.backward)
        bottoms = (
            self.inputs if end is None else self.bottom_names[self._layer_names[self._place(end)]]
        )
        return {name: self.blobs[name].diff for name in [*bottoms, *(diffs or ())]}

    def _each(self, steps: list[Node], way: str, run: Callable[[Sequence[Node]], None]) -> None:
        """Run layers; one by one where a script wants to be called between them."""
        before, after = self._hooks.get(f"before {way}", []), self._hooks.get(f"after {way}", [])
        if not before and not after:
            run(steps)
            return
        for step in steps if way == "forward" else steps[::-1]:
            for call in before if step.index >= 0 else ():
                call(step.index)
            run([step])
            for call in after if step.index >= 0 else ():
                call(step.index)

    def before_forward(self, call: Callable[[int], Any]) -> None:
        """Call something with each layer's number before its forward pass."""
        self._hooks.setdefault("before forward", []).append(call)

    def after_forward(self, call: Callable[[int], Any]) -> None:
        """Call something with each layer's number after its forward pass."""
        self._hooks.setdefault("after forward", []).append(call)

    def before_backward(self, call: Callable[[int], Any]) -> None:
        """Call something with each layer's number before its backward pass."""
        self._hooks.setdefault("before backward", []).append(call)

    def after_backward(self, call: Callable[[int], Any]) -> None:
        """Call something with each layer's number after its backward pass."""
        self._hooks.setdefault("after backward", []).append(call)

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

    def _finish(self) -> None:
        """Before parameters change: the latest pass is one of the old ones, blobs that nobody has
        looked at yet and its backward pass included."""
        if self._lazy:
            self._catch_up()

    def _finish_all(self) -> None:
        """The same of all nets that have these parameters."""
        for net in self._kin:
            net._finish()

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
            # Caffe asks for the same number of items; the rest is repeated where numpy can do that
            fits = given.shape[:1] == target.shape[:1]
            try:
                if fits:
                    target[...] = given
            except ValueError:
                fits = False
            if not fits:
                raise CaffeCompatError(
                    f"blob '{name}' is {target.shape}, {given.shape} was given; reshape the "
                    "blob first"
                )

    def _take_params(self) -> None:
        """What a script wrote into parameters counts from now on."""
        take_all(self._owned, before=self._finish_all)

    def _give_params(self) -> None:
        """What happened to parameters elsewhere shows in their blobs."""
        for blob in self._owned:
            blob.give()

    # ------------------------------------------------------------ weights

    def copy_from(self, path: str | os.PathLike[str]) -> None:
        """Take the weights of layers with the same names from a file.

        Raises
        ------
        WeightError : layers of one name have parameters of different numbers or shapes.
        """
        weights = read_weights(existing(path, "weights"))
        found = match(self._graph, weights)
        require(found, os.fspath(path), MISSHAPED)
        self._finish_all()
        self._take_params()
        places = {layer.name: place for place, layer in enumerate(weights.layers)}
        stored = [node for node in self._graph.nodes if node.index in found.blobs]
        # a layer that the file does not have only shares what another one brings
        nodes = [node for node in stored if node.layer.name in places]
        with torch.no_grad():
            # of layers that share a parameter the file's last one counts
            for node in sorted(nodes, key=lambda node: places[node.layer.name]):
                for param, blob in zip(node.params, found.blobs[node.index], strict=True):
                    if blob.is_elsewhere:
                        continue
                    values = np.array(blob.data, np.float32).reshape(param.shape)
                    self._net.param(param).copy_(torch.from_numpy(values))
        self._give_params()

    load_hdf5 = copy_from

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.caffemodel`` (or ``.h5``, by the name)."""
        self._take_params()
        write_weights(path, self._net.weights(), self._graph.spec.bare())

    def save_hdf5(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write an HDF5 model, whatever the name's ending.

        Parameters
        ----------
        write_diff : store the parameters' gradients, too, as group ``diff`` beside ``data``.
        """
        self._take_params()
        diffs = {name: [blob.diff for blob in blobs] for name, blobs in self.params.items()}
        write_weights(
            path,
            self._net.weights(),
            self._graph.spec.bare(),
            hdf5=True,
            diffs=diffs if write_diff else None,
        )

    def share_with(self, other: Net) -> None:
        """Share the parameters of layers with the same names: what changes in one net changes in
        the other.

        Raises
        ------
        CaffeCompatError : layers of one name have parameters of different numbers or shapes.
        """
        other._take_params()
        for name, blobs in self.params.items():
            theirs = other.params.get(name)
            if theirs is None:
                continue
            if [b.shape for b in theirs] != [b.shape for b in blobs]:
                raise CaffeCompatError(
                    f"layer '{name}': its parameters have the shapes {[b.shape for b in blobs]}, "
                    f"those to share {[b.shape for b in theirs]}"
                )
            for mine, one in zip(blobs, theirs, strict=True):
                mine.share(one)
        self._take_params()
