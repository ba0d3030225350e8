"""A Caffe network as a :class:`torch.nn.Module` with Caffe's names."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caffe_compat.definition.prototxt import read_net
from caffe_compat.definition.spec import TEST, NetSpec
from caffe_compat.engine.plan import Engine, Mode, transforming, using
from caffe_compat.engine.threads import on_one_core
from caffe_compat.errors import CaffeCompatError
from caffe_compat.layers.base import Shape
from caffe_compat.network import fuse
from caffe_compat.network.bound import check_looks, check_network, without_values
from caffe_compat.network.graph import Graph, Node, Param, build, with_own_layers
from caffe_compat.network.light import is_light
from caffe_compat.network.match import BAD, MISSHAPED, LayerMatch, Match, match, require
from caffe_compat.network.parameters import first_values
from caffe_compat.network.passes import Pass, Whole, without_backward
from caffe_compat.network.patches import Background, Patch, Rect, cut, start
from caffe_compat.network.patches import step as run_patch
from caffe_compat.network.wiring import upstream
from caffe_compat.weights.containers import read_weights
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob

_LARGE = 1_000_000  # values of one image's blob


class _Blobs(nn.Module):
    """The parameter blobs of one layer; exists for its ``state_dict`` names."""


class Net(nn.Module):
    """A network built from a Caffe definition.

    >>> import torch
    >>> net = Net.from_files("deploy.prototxt", "small.caffemodel")
    >>> with torch.no_grad():
    ...     blobs = net(torch.zeros(1, 3, 9, 12))
    >>> {name: tuple(blob.shape) for name, blob in blobs.items()}
    {'prob': (1, 5)}

    Parameters
    ----------
    spec : definition (rules not applied) or a built :class:`Graph`.
    weights : parameters; without them Caffe's fillers run with ``seed``.
    phase : "TEST" or "TRAIN": which layers exist and how they behave. ``train()`` and ``eval()`` do
        not change it.
    input_shapes : shapes of input blobs, overriding the definition's. Any other size is accepted
        later as well.
    strict : with False, layers without stored weights keep their fillers and stored layers without
        a place are ignored, as Caffe does.
    seed : of the random numbers that fillers draw.
    engine : how convolutions run: "auto", "direct", "tiled", "lines", "minimal" or an
        :class:`caffe_compat.engine.plan.Engine`.

    Attributes
    ----------
    graph : layers, shapes, shared parameters.
    layer_params : (layer name, blob name) of every parameter, in Caffe's order.
    loaded : what became of each layer of ``weights``; nothing where none were given.

    Notes
    -----
    float32; tensors are N×C×H×W in shape, channels last in memory. On CUDA no TF32 is used unless
    ``tf32`` is set. ``state_dict`` keys are ``LAYER.weight``, ``LAYER.bias`` and so on; shared
    parameters stand under every owner.
    """

    def __init__(
        self,
        spec: NetSpec | Graph,
        weights: Weights | None = None,
        *,
        phase: str = TEST,
        level: int = 0,
        stages: Iterable[str] = (),
        input_shapes: Mapping[str, Shape] | None = None,
        strict: bool = True,
        seed: int = 1,
        engine: Mode | Engine = "auto",
    ) -> None:
        super().__init__()
        self.engine = engine if isinstance(engine, Engine) else Engine(engine)
        graph = (
            with_own_layers(spec)
            if isinstance(spec, Graph)
            else build(
                spec, phase=phase, level=level, stages=tuple(stages), input_shapes=input_shapes
            )
        )
        check_network(graph)
        self.graph = graph
        self.loaded: tuple[LayerMatch, ...] = ()
        self.tf32 = False
        self._is_packed = False
        self._checked: set[tuple[tuple[str, Shape], ...]] = set()
        # blobs that have never had a value: Caffe gives them no memory
        self._without_memory = without_values(graph)
        # gradients that the latest backward pass wrote over the weights of losses
        self.left_at_losses: dict[str, Tensor] = {}
        self._modules_of: dict[int, _Blobs] = {}
        found: Match | None = None
        if weights is not None:
            found = match(graph, weights)
            self.loaded = found.rows
            require(found, weights.source.path or "weights", BAD if strict else MISSHAPED)
        with torch.inference_mode(False):
            self._make_params(found, torch.Generator().manual_seed(seed))

    @classmethod
    def from_files(
        cls,
        prototxt: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Net:
        """Build from a definition file and a weight file (any that :func:`read_weights` knows)."""
        return cls(
            read_net(prototxt), None if weights is None else read_weights(weights), **options
        )

    def __repr__(self) -> str:
        return self.graph.text()

    # ------------------------------------------------------------ parameters

    def _make_params(self, found: Match | None, generator: torch.Generator) -> None:
        values = first_values(self.graph, found, generator)
        learned: dict[tuple[int, int], nn.Parameter] = {}
        for node in self.graph.nodes:
            if not node.params:
                continue
            module = _Blobs()
            for i, param in enumerate(node.params):
                if not node.layer.learned(i):
                    module.register_buffer(param.name, values[param.owner])
                    continue
                if param.owner not in learned:
                    wanted = param.learns or self.graph.spec.force_backward
                    learned[param.owner] = nn.Parameter(values[param.owner], requires_grad=wanted)
                module.register_parameter(param.name, learned[param.owner])
            self._modules_of[node.index] = module
            self.add_module(self._free_name(node.layer.name), module)

    def _free_name(self, name: str) -> str:
        """A module name for a layer: torch forbids dots, empty names and those of its own
        attributes."""
        name = name.replace(".", "_") or "_"
        while hasattr(self, name):
            name += "_"
        return name

    def pack(self) -> Net:
        """Bring the weights into the memory layout that convolutions are fastest in; done once, at
        the first run.

        Values and shapes stay. Call it before keeping references to ``parameters()``' memory, as an
        optimizer does.
        """
        if not (self._is_packed or torch.compiler.is_exporting() or transforming()):
            # tensors made in inference mode have no version: changes would go unseen
            with torch.inference_mode(False):
                for tensor in self.parameters():
                    tensor.data = _packed(tensor.data)
            self._is_packed = True
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Net:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # torch brings each module's tensors elsewhere on their own: those that share stay together
        for _, param, tensor in self.owned_params():
            self.adopt(param, tensor)
        return self

    def param(self, param: Param) -> Tensor:
        """The tensor of a parameter blob."""
        found = getattr(self._modules_of[param.key[0]], param.name)
        assert isinstance(found, Tensor)
        return found

    def adopt(self, param: Param, tensor: Tensor) -> None:
        """Compute with a tensor of the same shape in place of a parameter's own, in all layers that
        share it. Of another network's, what changes in one network changes in the other."""
        for node in self.graph.nodes:
            for mine in node.params:
                if mine.owner == param.owner:
                    setattr(self._modules_of[node.index], mine.name, tensor)

    def owned_params(self) -> Iterator[tuple[Node, Param, Tensor]]:
        """Every parameter blob that owns its memory, in Caffe's order (statistics included)."""
        for node in self.graph.nodes:
            for param in node.params:
                if param.owner == param.key:
                    yield node, param, self.param(param)

    def weights(self) -> Weights:
        """The current parameters by layer, as arrays in Caffe's layout (copies); shared ones
        repeated."""
        layers = []
        for node in self.graph.nodes:
            if node.params:
                blobs = tuple(
                    Blob(np.array(self.param(p).detach().float().cpu().contiguous().numpy()))
                    for p in node.params
                )
                layers.append(LayerBlobs(node.layer.name, node.layer.type, blobs))
        return Weights(tuple(layers), self.graph.spec)

    # ------------------------------------------------------------ running

    def forward(
        self,
        *args: Tensor,
        blobs: Iterable[str] | None = None,
        background: Background | None = None,
        rects: Sequence[Rect] = (),
        **inputs: Tensor,
    ) -> dict[str, Tensor]:
        """Run the network.

        Parameters
        ----------
        args : input tensors in the order of ``graph.inputs``; or by name as keywords. Of a batch,
            the sizes may differ from the definition's.
        blobs : names of the blobs to return; default: the outputs. Others are freed as soon as
            nobody needs them, and layers that none of them needs are not run.
        background, rects : each image equals the background's outside its rectangle (top, left,
            bottom, right); its large maps are then computed where they differ only. For nets with
            one input, without gradients, on the CPU.

        Returns
        -------
        Blob name -> tensor. An in-place blob has its last value.

        Notes
        -----
        Layers that write files do so in a pass that gives all outputs. Recurrent layers go on from
        the state that the last pass left; :meth:`forget` begins anew.
        """
        given = self._given(args, inputs)
        wanted = tuple(self.graph.outputs if blobs is None else dict.fromkeys(blobs))
        whole = set(self.graph.outputs) <= set(wanted)
        return self._run(given, wanted, background, rects, whole=whole)

    def all_blobs(self, *args: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """Run and return every blob (in-place ones: the last value), the split copies' names
        included."""
        found = self._run(self._given(args, inputs), tuple(self.graph.blobs), whole=True)
        return {
            **found,
            **{alias: found[name] for alias, name in self.graph.aliases.items() if name in found},
        }

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Passes in this context repeat the last one: recurrent layers begin where it began, and no
        file is written."""
        layers = [node.layer for node in self.graph.nodes if node.layer.stateful]
        for layer in layers:
            layer.repeating = True
        try:
            yield
        finally:
            for layer in layers:
                layer.repeating = False

    def forget(self) -> None:
        """Begin anew: what recurrent layers carry from pass to pass is zero again."""
        self.graph = with_own_layers(self.graph)

    def loss(self, found: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of all tops with a loss weight; ``found`` must hold them.

        A loss that another layer reads counts as in Caffe: its gradient is the reader's alone, and
        from the second pass on it is weighted with that. Where Caffe's backward pass would stop,
        ``backward()`` of what is returned raises a PrototxtError that names the layer.

        Raises
        ------
        CaffeCompatError : no top has a loss weight.
        """
        total: Tensor | None = None
        for step in self.graph.steps:
            for name, weight in zip(step.tops, step.loss_weights, strict=True):
                if weight:
                    value = found[self.graph.aliases.get(name, name)]
                    memory, left = self.graph.memory, self.left_at_losses.get(name)
                    if name in memory.reread:
                        value = value.detach()
                    if step.layer.type == "Parameter":  # its forward pass drops the weight
                        left = torch.zeros_like(value)
                    part = value.sum() * weight if left is None else (value * left).sum()
                    total = part if total is None else total + part
        if total is None:
            raise CaffeCompatError("the network has no loss: no loss layer and no loss_weight")
        if torch.is_grad_enabled() and (refused := self.graph.refused_gradient) is not None:
            return without_backward(total, refused)
        return total

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the blobs that count into the loss."""
        return tuple(
            name
            for node in self.graph.nodes
            for name, w in zip(node.tops, node.loss_weights, strict=True)
            if w
        )

    def _given(self, args: tuple[Tensor, ...], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        names = self.graph.inputs
        if len(args) > len(names):
            raise CaffeCompatError(
                f"the network has {len(names)} input(s) ({', '.join(names)}), {len(args)} were "
                "given"
            )
        given = {**dict(zip(names, args, strict=False)), **inputs}
        if unknown := [name for name in given if name not in names]:
            raise CaffeCompatError(
                f"no input is called {', '.join(unknown)}; the inputs are {', '.join(names)}"
            )
        return given

    def reshaped(self, input_shapes: Mapping[str, Shape]) -> Graph:
        """The graph with other sizes of its inputs.

        Raises
        ------
        PrototxtError : a layer cannot take them, or would need parameters of another shape.
        """
        graph = self.graph
        found = build(
            graph.spec, phase=graph.phase, level=graph.spec.state.level, input_shapes=input_shapes
        )
        for old, new in zip(graph.nodes, found.nodes, strict=True):
            for before, after in zip(old.params, new.params, strict=True):
                if before.shape != after.shape:
                    raise old.layer.error(
                        f"inputs {new.bottom_shapes} need a {after.name} of shape {after.shape}, "
                        f"but it has {before.shape}",
                        "bottom",
                    )
        return found

    def check_sizes(self, given: Mapping[str, Tensor]) -> None:
        """Are these inputs of a size that the network can take?

        Raises
        ------
        PrototxtError : as :meth:`reshaped`; or a layer looks at a blob that never had a value.
        """
        graph = self.graph
        shapes = tuple((name, tuple(t.shape)) for name, t in given.items() if name in graph.inputs)
        declared = {
            name: shape
            for node in graph.nodes
            if node.layer.data
            for name, shape in zip(node.tops, node.top_shapes, strict=True)
        }
        if any(declared[name] != shape for name, shape in shapes) and shapes not in self._checked:
            if len(self._checked) > 64:
                self._checked.clear()
            self.reshaped(dict(shapes))
            self._checked.add(shapes)
        if self._without_memory:
            now = self.reshaped(dict(shapes))
            # one that has shrunk to none still has its memory
            self._without_memory &= without_values(now)
            check_looks(now, self._without_memory)

    @property
    def _now(self) -> Engine:
        """How convolutions run in this pass: a program that is exported, and a derivative that is
        taken forwards or by ``torch.func``, have torch's own only."""
        own = torch.compiler.is_exporting() or transforming()
        return Engine("direct") if own else self.engine

    def _plan(
        self, given: Mapping[str, Tensor], wanted: tuple[str, ...], whole: bool = False
    ) -> list[Node]:
        """The nodes that must run, in order; with ``whole`` those that write files or change what
        they keep, too."""
        graph = self.graph
        # in torch.export sizes may be symbols, which the definition's rules cannot be asked about
        if not torch.compiler.is_exporting():
            self.check_sizes(given)
        unknown = [name for name in wanted if name not in graph.blobs]
        if unknown:
            raise CaffeCompatError(
                f"no blob is called {', '.join(unknown)}; blobs: {', '.join(graph.blobs)}"
            )
        nodes = [node for node in graph.nodes if not node.layer.data]
        places, needed = upstream(nodes, wanted, lambda node: whole and node.layer.leaves_a_trace)
        for node in graph.nodes:
            missing = [name for name in node.tops if name in needed and name not in given]
            if node.layer.data and missing:
                raise CaffeCompatError(
                    f"input '{missing[0]}' of layer '{node.layer.name}' was not given"
                )
        return [nodes[place] for place in places]

    def _run(
        self,
        given: Mapping[str, Tensor],
        wanted: tuple[str, ...],
        background: Background | None = None,
        rects: Sequence[Rect] = (),
        *,
        whole: bool = False,
    ) -> dict[str, Tensor]:
        memory = self.graph.memory
        if memory.overwritten or (torch.is_grad_enabled() and not memory.plain):
            return self._run_as_caffe(given, wanted)
        plan = self._plan(given, wanted, whole)
        self.pack()
        values = {name: _packed(tensor) for name, tensor in given.items()}
        with self._precision(values), using(self._now):
            if not torch.is_grad_enabled() and (
                count := self._heavy(plan, values, least=2 if background is None else 1)
            ):
                if background is not None:
                    background.check([self.param(p) for n in plan[:count] for p in n.params])
                values = self._image_by_image(
                    plan[:count], plan[count:], values, wanted, background, rects
                )
                plan = plan[count:]
            self._execute(plan, values, set(wanted))
        return {name: values[name] for name in wanted}

    def _run_as_caffe(
        self, given: Mapping[str, Tensor], wanted: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Run all layers, minding who overwrites what."""
        self._plan(given, (*self.graph.blobs, *wanted), whole=True)  # checks names and sizes
        self.pack()
        run = Pass(self)
        with self._precision(given), using(self._now):
            if not torch.is_grad_enabled():
                for name, tensor in given.items():
                    run.put(name, tensor)
                run.forward(self.graph.steps, record=False)
                return {name: run.values[name] for name in wanted}
            owned = {param.key: tensor for _, param, tensor in self.owned_params()}
            found = Whole.apply(  # type: ignore[no-untyped-call]
                run, list(given), wanted, list(owned), *given.values(), *owned.values()
            )
            return dict(zip(wanted, found, strict=True))

    def _execute(
        self,
        plan: list[Node],
        values: dict[str, Tensor],
        keep: set[str],
        known: Background | None = None,
        patches: dict[str, Patch] | None = None,
    ) -> None:
        """Run nodes on ``values``; blobs that nobody needs any more leave it.

        ``patches`` : blobs that are known outside a rectangle; they become whole where a layer
        needs that.
        """
        patches = patches or {}
        last: dict[str, int] = {}
        for place, node in enumerate(plan):
            for name in (*node.bottoms, *node.tops):
                last[name] = place
        grad = torch.is_grad_enabled()
        fused = (
            {}
            if grad or self._now.mode == "direct"
            else fuse.find(plan, keep, last, self.graph.blobs)
        )
        for place, node in enumerate(plan):
            patch = patches.get(node.bottoms[0]) if node.bottoms else None
            if place in fused:
                if (step := fused[place]) is not None:
                    weights = [self.param(p) for p in node.params]
                    if isinstance(step, fuse.PooledConvolution) and patch and known:
                        patches[step.top] = run_patch(step, patch, weights, known)
                    else:
                        if patch is not None:
                            values[node.bottoms[0]] = patches.pop(node.bottoms[0]).whole()
                        values[step.top] = step.run(values, weights)
            elif patch is not None and (tops_of := cut(node, patch)) is not None:
                patches.update(tops_of)
            else:
                for name in node.bottoms:
                    if name in patches:
                        values[name] = patches.pop(name).whole()
                tops = self.run_layer(node, [values[name] for name in node.bottoms])
                values.update(zip(node.tops, tops, strict=True))
                del tops
            for name in (*node.bottoms, *node.tops):
                if last[name] == place and name not in keep:
                    values.pop(name, None)
                    patches.pop(name, None)
        values.update((name, patch.whole()) for name, patch in patches.items() if name in keep)

    def run_layer(self, node: Node, bottoms: list[Tensor]) -> Sequence[Tensor]:
        """The tops of one layer; where gradients are recorded, they flow to the bottoms and shared
        parameters that Caffe would reach."""
        params = [self.param(p) for p in node.params]
        if torch.is_grad_enabled():
            # a layer may share a parameter that another one learns and ask for no gradient itself
            params = [
                tensor if asked or not param.learns else tensor.detach()
                for tensor, param, asked in zip(params, node.params, node.param_grad, strict=True)
            ]
            bottoms = [
                b if goes or not node.layer.spec.propagate_down else b.detach()
                for b, goes in zip(bottoms, node.reaches, strict=True)
            ]
        work = partial(node.layer.run_forward, params, *bottoms)
        alone = self._now.mode != "direct" and is_light(node, bottoms)
        return on_one_core(work) if alone else work()

    def _heavy(self, plan: list[Node], values: Mapping[str, Tensor], least: int = 2) -> int:
        """How many of the first nodes are better run image by image: those up to the last with
        large maps.

        The maps of several images leave the processor's cache and need fresh memory each time;
        small maps gain from a batch.
        """
        sizes = {len(t) if t.dim() > 1 else 0 for t in values.values()}
        if (
            self._now.mode == "direct"
            or len(sizes) != 1
            or min(sizes) < least
            or any(t.is_cuda for t in values.values())
        ):
            return 0
        count = 0
        for place, node in enumerate(plan, 1):
            shapes = [self.graph.blobs[name] for name in node.bottoms]
            if not node.layer.separable(shapes):
                break
            if any(math.prod(self.graph.blobs[name][1:]) >= _LARGE for name in node.tops):
                count = place
        return count

    def _image_by_image(
        self,
        first: list[Node],
        rest: list[Node],
        values: dict[str, Tensor],
        wanted: tuple[str, ...],
        background: Background | None,
        rects: Sequence[Rect],
    ) -> dict[str, Tensor]:
        """Values after the first nodes, as a batch."""
        needed = {*wanted, *(name for node in rest for name in node.bottoms)}
        made = {name for node in first for name in node.tops}
        parts = []
        for i in range(len(next(iter(values.values())))):
            part = {name: tensor[i : i + 1] for name, tensor in values.items()}
            patches: dict[str, Patch] = {}
            if background is not None and len(part) == 1:
                ((name, data),) = part.items()
                patch = start(data, rects[i], background)
                if patch is not None:
                    patches[name] = patch
            self._execute(first, part, needed, background, patches)
            parts.append({name: part[name] for name in made & needed})
        return {
            **values,
            **{name: torch.cat([part[name] for part in parts]) for name in made & needed},
        }

    def _precision(self, values: Mapping[str, Tensor]) -> contextlib.AbstractContextManager[Any]:
        """Full float32 on CUDA, whatever the process-wide TF32 switches say."""
        if self.tf32 or not any(t.is_cuda for t in values.values()):
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        stack.callback(setattr, torch.backends.cuda.matmul, "allow_tf32", before)
        return stack


def _packed(tensor: Tensor) -> Tensor:
    """Channels last in memory, the layout that convolutions are fastest in; values and shape
    stay. The transformations of torch.func know no layouts."""
    if tensor.dim() == 4 and tensor.is_floating_point() and not transforming():
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor
