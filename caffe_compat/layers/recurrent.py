"""LSTM, RNN and LSTMUnit: layers that read a sequence and remember where the last one ended."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from caffe_compat.layers.base import Layer, Shape, count, register
from caffe_compat.lazy import lazy_import

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch, F = lazy_import("torch"), lazy_import("torch.nn.functional")


def lstm_step(cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the new cell state and the new hidden state.

    Parameters
    ----------
    cell : ...×D, the cell state so far.
    gates : ...×4D, what goes into the input, forget and output gates and into the candidate, in
        this order.
    cont : ...×1, 0 where a sequence begins, 1 where it goes on.

    Notes
    -----
    Caffe multiplies the forget gate by ``cont`` and takes the gate's gradient as f (1 - f) of the
    product: for any ``cont`` but 0 and 1 that is not the derivative, and it is what comes here.
    """
    entering, keeping, leaving, candidate = gates.chunk(4, -1)
    forget = (cont * torch.sigmoid(keeping)).detach()
    forget = forget + (keeping - keeping.detach()) * (forget * (1 - forget))
    cell = forget * cell + torch.sigmoid(entering) * torch.tanh(candidate)
    return cell, torch.sigmoid(leaving) * torch.tanh(cell)


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM: from the cell state and the gates' inputs to the next cell and hidden
    state.

    Bottoms: cell state 1×N×D, gate inputs 1×N×4D (input, forget, output, candidate), sequence
    indicators 1×N (0 begins a sequence). Tops: cell and hidden state, 1×N×D.

    Source: ``lstm_unit_layer.cpp`` of BVLC Caffe.
    """

    bottoms = (3, 3)
    tops = (2, 2)
    not_differentiable = (2,)

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        cell, gates, cont = bottoms
        if len(cell) != 3 or len(gates) != 3 or cell[0] != 1 or gates[0] != 1:
            raise self.error(
                f"needs a cell state 1×N×D and gate inputs 1×N×4D, found {cell} and {gates}",
                "bottom",
            )
        if gates[1] != cell[1] or gates[2] != 4 * cell[2]:
            raise self.error(
                f"gate inputs for the cell state {cell} have the shape "
                f"{(1, cell[1], 4 * cell[2])}, found {gates}",
                "bottom",
            )
        if cont != (1, cell[1]):
            raise self.error(f"sequence indicators must be {(1, cell[1])}, found {cont}", "bottom")
        return [cell, cell]

    def gradient_to(self, index: int) -> bool:
        return index != 2

    def writes_gradient(self, asked: Sequence[bool]) -> Sequence[bool]:
        either = any(asked[:2])
        return (either, either, asked[2])

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        return lstm_step(bottoms[0], bottoms[1], bottoms[2].detach().unsqueeze(-1))


class Recurrent(Layer, ABC):
    """Base of LSTM and RNN.

    Bottoms: the sequence x, T×N×...; the indicators cont, T×N (0 where a sequence begins); where
    there is one more, a static input N×... that every step sees; with ``expose_hidden`` the states
    before the first step, 1×N×D each. Tops: T×N×D, and with ``expose_hidden`` the states after the
    last step.

    Without ``expose_hidden`` the layer begins each forward pass with the states that the last one
    ended with (zeros at first). No gradient flows from one pass into the one before. Nor does
    Caffe let any flow through exposed states: those given get none, and that of those given back is
    not used.
    """

    option = "recurrent_param"
    stateful = True
    reads = ()
    always_learns = True
    not_differentiable = (1,)
    states: ClassVar[int] = 1

    def setup(self) -> None:
        self.before: tuple[Tensor, ...] = ()  # states that the last pass began with
        self.carried: tuple[Tensor, ...] = ()  # and ended with
        self.steps = 0
        o = self.options
        if o.num_output < 1:
            raise self.error("must be at least 1", "num_output")
        exposed = self.states if o.expose_hidden else 0
        self._check_count("bottom", len(self.spec.bottoms), (2 + exposed, 3 + exposed))
        self._check_count("top", len(self.spec.tops), (1 + exposed, 1 + exposed))
        self.static = len(self.spec.bottoms) == 3 + exposed
        self.unasked = (0, 2) if self.static else (0,)

    def fresh(self) -> Layer:
        other = copy.copy(self)
        other.before = other.carried = ()
        return other

    def output_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        x, cont = bottoms[:2]
        if len(x) < 3:
            raise self.error(
                f"the first bottom must be steps × streams × input, found {x}", "bottom"
            )
        if len(cont) != 2 or cont != x[:2]:
            raise self.error(
                f"the second bottom says for each step and stream whether a sequence goes on: "
                f"expected {x[:2]}, found {cont}",
                "bottom",
            )
        if self.static and (len(bottoms[2]) < 2 or bottoms[2][0] != x[1]):
            raise self.error(
                f"the static input needs one row for each of {x[1]} streams, found {bottoms[2]}",
                "bottom",
            )
        state = (1, x[1], self.options.num_output)
        given = bottoms[2 + self.static :]
        if any(shape != state for shape in given):
            raise self.error(f"the states must be {state}, found {list(given)}", "bottom")
        self.steps = self.steps or x[0]
        return [(*x[:2], self.options.num_output), *([state] * len(given))]

    def gradient_to(self, index: int) -> bool:
        return index != 1

    def _filler_list(self, biases: Sequence[bool]) -> list[Any]:
        o = self.options
        return [o.bias_filler if bias else o.weight_filler for bias in biases]

    def forward(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, cont = bottoms[0], bottoms[1].detach()
        if x.shape[0] != self.steps:
            raise self.error(
                f"was made for {self.steps} steps and cannot take {x.shape[0]}: the number of "
                "steps is fixed, the number of streams is not",
                "bottom",
            )
        given = tuple(state.detach() for state in bottoms[2 + self.static :])
        states = given or self._begin(x)
        driven = F.linear(x.reshape(*x.shape[:2], -1), params[0], params[1])
        if self.static:
            driven = driven + F.linear(bottoms[2].reshape(x.shape[1], -1), params[2])
        outs = []
        for step in range(x.shape[0]):
            out, states = self.step(params, driven[step : step + 1], states, cont[step, :, None])
            outs.append(out)
        left = tuple(state.detach() for state in states)
        if not (given or self.repeating or torch.compiler.is_exporting()):
            self.before, self.carried = self.carried, self._kept(left)
        return (torch.cat(outs), *left) if given else (torch.cat(outs),)

    def _kept(self, left: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states that a pass left, and behind them those of further streams, which stay in
        Caffe's memory while there are fewer."""
        if not self.carried:
            return left
        both = zip(left, self.carried, strict=True)
        return tuple(torch.cat([now, kept[:, now.shape[1] :].to(now)], 1) for now, kept in both)

    def _begin(self, x: Tensor) -> tuple[Tensor, ...]:
        """The states that the last pass ended with; of fewer streams the first ones, zeros where
        there are more than there ever were."""
        streams = x.shape[1]
        kept = self.before if self.repeating else self.carried
        if kept and kept[0].shape[1] >= streams:
            return tuple(state[:, :streams].to(x.device, x.dtype) for state in kept)
        return (x.new_zeros(1, streams, self.options.num_output),) * self.states

    @abstractmethod
    def step(
        self, params: Sequence[Tensor], driven: Tensor, states: tuple[Tensor, ...], cont: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output and the states after one step.

        Parameters
        ----------
        driven : 1×N×..., what the inputs of this step give.
        states : 1×N×D each.
        cont : N×1.
        """


@register("LSTM")
class LSTM(Recurrent):
    """Long short-term memory over a sequence T×N×...; the state carries over to the next pass.

    Parameter blobs: input weights (4D, inputs), bias (4D), weights of the static input (4D, its
    size) where there is one, hidden weights (4D, D); gates in the order input, forget, output,
    candidate.

    Source: ``recurrent_layer.cpp``, ``lstm_layer.cpp`` of BVLC Caffe.
    """

    bottoms = (2, 5)
    tops = (1, 3)
    states = 2

    def names(self) -> tuple[str, ...]:
        static = ("static_weight",) if self.static else ()
        return ("weight", "bias", *static, "hidden_weight")

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        size = self.options.num_output
        static = [(4 * size, count(bottoms[2][1:]))] if self.static else []
        return [(4 * size, count(bottoms[0][2:])), (4 * size,), *static, (4 * size, size)]

    def fillers(self) -> list[Any]:
        return self._filler_list([False, True, *([False] * self.static), False])

    def step(
        self, params: Sequence[Tensor], driven: Tensor, states: tuple[Tensor, ...], cont: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden, cell = states
        gates = driven + F.linear(hidden * cont, params[-1])
        cell, hidden = lstm_step(cell, gates, cont)
        return hidden, (hidden, cell)


@register("RNN")
class RNN(Recurrent):
    """Plain recurrent network, ``h = tanh(W_xh x + b_h + W_hh h)``, ``o = tanh(W_ho h + b_o)``; the
    state carries over to the next pass.

    Parameter blobs: W_xh (D, inputs), b_h (D), weights of the static input (D, its size) where
    there is one, W_hh (D, D), W_ho (D, D), b_o (D).

    Source: ``recurrent_layer.cpp``, ``rnn_layer.cpp`` of BVLC Caffe.
    """

    bottoms = (2, 4)
    tops = (1, 2)
    states = 1

    def names(self) -> tuple[str, ...]:
        static = ("static_weight",) if self.static else ()
        return ("weight", "bias", *static, "hidden_weight", "output_weight", "output_bias")

    def param_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        size = self.options.num_output
        static = [(size, count(bottoms[2][1:]))] if self.static else []
        inputs = count(bottoms[0][2:])
        return [(size, inputs), (size,), *static, (size, size), (size, size), (size,)]

    def fillers(self) -> list[Any]:
        return self._filler_list([False, True, *([False] * self.static), False, False, True])

    def step(
        self, params: Sequence[Tensor], driven: Tensor, states: tuple[Tensor, ...], cont: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden = torch.tanh(driven + F.linear(states[0] * cont, params[-3]))
        return torch.tanh(F.linear(hidden, params[-2], params[-1])), (hidden,)
