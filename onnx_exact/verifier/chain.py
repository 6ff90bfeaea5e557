"""Chains of layers between two tensors, read from a model by tracing back.

A layer's weights are the stored numbers, or known to within an error each where maps had to be
composed (batch normalisation, a linear map after another one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto

from onnx_exact.errors import UncheckedError
from onnx_exact.verifier.balls import Ball
from onnx_exact.verifier.model import MOST_ENTRIES, Model
from onnx_exact.verifier.operators import Layout, Step, per_feature, read_step
from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.rounding import EXTRA, ROUNDOFF, SMALLEST, Array

# What a constant in place of a chain is written by.
CONSTANT = ("Expand", "Identity", "Reshape")


@dataclass(frozen=True, eq=False)
class Layer:
    """g = W h + b with |W - weight| <= weight_error and |b - bias| <= bias_error, maybe a ReLU.

    `read` is what it was read from, operator by operator: where that is the same, so are W and b.
    """

    weight: Array
    bias: Array
    weight_error: Array | None
    bias_error: Array | None
    relu: bool
    read: tuple[tuple[Any, ...], ...] = ()

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.bias)

    def off(self, magnitude: Array) -> Array:
        """How far weight h + bias may be from g where |h| <= magnitude, shape (..., units)."""
        if self.weight_error is None or self.bias_error is None:
            return np.zeros((*magnitude.shape[:-1], self.width))
        slack = 1.0 + (magnitude.shape[-1] + EXTRA) * ROUNDOFF
        return np.asarray((magnitude @ self.weight_error.T + self.bias_error) * slack + SMALLEST)

    def same(self, other: Layer) -> bool:
        """Whether it is read from the same numbers as another."""
        return len(self.read) == len(other.read) > 0 and all(
            len(a) == len(b) and all(map(np.array_equal, a, b))
            for a, b in zip(self.read, other.read, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Chain:
    """What a model computes between two tensors.

    Attributes:
        layers: of the chain.
        before, after: where the features lie in its first and its last tensor.
        nodes: positions of the nodes that make it up.
        inside: what these make, but for the last tensor.
    """

    layers: tuple[Layer, ...]
    before: Layout
    after: Layout
    nodes: frozenset[int]
    inside: frozenset[str]

    @property
    def form(self) -> tuple[list[int], list[bool]]:
        """Number of units of each layer, and which ones have a ReLU."""
        return [layer.width for layer in self.layers], [layer.relu for layer in self.layers]


def read_chain(model: Model, source: str, output: str, *, composed: bool = True) -> Chain:
    """The layers between two tensors of a model.

    Args:
        model, source, output: the model and the names of the tensors.
        composed: whether weights that follow one another without a ReLU are one layer where their
            product has no more entries than they have.

    Raises:
        UncheckedError: nothing that can be checked leads from one to the other.
    """
    steps: list[Step] = []
    tensor = output
    while tensor != source:
        require_known(
            tensor in model.producer, f"{output!r} of {model.name} does not come from {source!r}"
        )
        steps.append(read_step(model, tensor, source))
        tensor = steps[-1].source
    steps.reverse()
    first = next((step.before for step in steps if step.before is not None), None)
    if first is None:
        raise UncheckedError(f"cannot check: {output!r} of {model.name} has no weights before it")
    collected = _Layers(model, first, composed)
    for step in steps:
        collected.add(step)
    nodes = frozenset(step.node for step in steps)
    layers, after = collected.done(output)
    return Chain(layers, first, after, nodes, _inside(model, nodes, output))


def read_constant(model: Model, source: str, output: str, old: Chain) -> Chain | None:
    """A chain that was written as a constant of the shape of its output; None for any other.

    Args:
        model, source, output: as for `read_chain`.
        old: the chain that it stands for.
    """
    shaped, nodes, value = output, set[int](), None
    while value is None:
        node = model.nodes[model.producer[shaped]] if shaped in model.producer else NodeProto()
        if not model.is_standard(node) or node.op_type not in CONSTANT:
            return None
        value = model.numbers(node.input[0])
        nodes |= {model.producer[shaped]} | _behind(model, node.input[1:], source)
        shaped = shaped if value is not None else node.input[0]
    bias = per_feature(model, value, shaped, old.after)
    layer = Layer(np.zeros((bias.size, old.before.features)), bias, None, None, False)
    inside = _inside(model, frozenset(nodes), output)
    return Chain((layer,), old.before, old.after, frozenset(nodes), inside)


def _inside(model: Model, nodes: frozenset[int], output: str) -> frozenset[str]:
    return frozenset(
        name for i in nodes for name in model.nodes[i].output if name and name != output
    )


def _behind(model: Model, tensors: Iterable[str], source: str) -> set[int]:
    """The nodes that tensors are made by, back to `source`."""
    wanted, found = set(tensors) - {source}, set()
    for position in range(len(model.nodes) - 1, -1, -1):
        if wanted.intersection(model.nodes[position].output):
            found.add(position)
            wanted |= set(model.nodes[position].input) - {source}
    return found


class _Layers:
    """Collects steps into layers."""

    def __init__(self, model: Model, layout: Layout, composed: bool) -> None:
        self._model, self._layout, self._composed = model, layout, composed
        self._layers: list[Layer] = []
        self._open: Layer | None = None
        self._before: list[tuple[Ball, Ball]] = []
        # What the layer that is open was read from.
        self._read: list[tuple[Any, ...]] = []

    def add(self, step: Step) -> None:
        """Takes the next step in."""
        if step.kind == "dense":
            self._dense(step)
        elif step.kind == "relu":
            if self._open is None:
                raise UncheckedError("cannot check: operator Relu that follows no weights")
            self._layers.append(replace(self._open, relu=True))
            self._open, self._read = None, []
        elif step.kind != "same":
            self._scale(*self._scale_and_shift(step))

    def done(self, output: str) -> tuple[tuple[Layer, ...], Layout]:
        """The layers, and where their outputs lie."""
        require_known(not self._before, f"{output!r} does not end in weights or a ReLU")
        return (*self._layers, *([self._open] if self._open else [])), self._layout

    def _dense(self, step: Step) -> None:
        assert step.after is not None
        require_known(
            step.before == self._layout,
            f"{step.source!r} of {self._model.name} mixes features with others",
        )
        matrix, offset, *factors = step.values
        bias = per_feature(self._model, offset, step.output, step.after)
        self._read.append((step.kind, matrix, bias, *factors))
        alpha, beta = (Ball(np.asarray(factor)) for factor in factors)
        weight, shift = Ball(matrix) * alpha, Ball(bias) * beta
        for scale, added in reversed(self._before):
            shift, weight = shift + weight @ added, weight * scale
        self._before = []
        first = self._open
        if first is not None:
            larger = len(matrix) * first.weight.shape[1] > matrix.size + first.weight.size
            if larger or not self._composed:
                self._layers.append(first)
                self._read = self._read[-1:]
            else:
                inner = Ball(first.weight, first.weight_error), Ball(first.bias, first.bias_error)
                shift, weight = weight @ inner[1] + shift, weight @ inner[0]
        self._open, self._layout = self._layer(weight, shift), step.after

    def _scale(self, scale: Ball, shift: Ball) -> None:
        if self._open is None:
            self._before.append((scale, shift))
            return
        old = self._open
        weight = Ball(old.weight, old.weight_error) * scale.column
        self._open = self._layer(weight, Ball(old.bias, old.bias_error) * scale + shift)

    def _scale_and_shift(self, step: Step) -> tuple[Ball, Ball]:
        """The map x -> scale x + shift of an operator that acts on each entry by itself."""
        values = [
            per_feature(self._model, value, step.output, self._layout) for value in step.values
        ]
        self._read.append((step.kind, step.swapped, step.epsilon, *values))
        zero, one = (Ball(np.full(len(values[0]), v)) for v in (0.0, 1.0))
        minus, first = Ball(-one.mid), Ball(values[0])
        match step.kind:
            case "Add":
                return one, first
            case "Sub":
                return (minus, first) if step.swapped else (one, first * minus)
            case "Mul" | "Div":
                return (first if step.kind == "Mul" else first.inverse), zero
        gain, offset, mean, variance = (Ball(v) for v in values)
        scale = (variance + Ball(np.full_like(zero.mid, step.epsilon))).root.inverse * gain
        return scale, offset + mean * scale * minus

    def _layer(self, weight: Ball, bias: Ball) -> Layer:
        require_known(
            np.isfinite(weight.mid).all() and np.isfinite(bias.mid).all(),
            "the product of successive weights overflows",
        )
        require_known(weight.mid.size <= MOST_ENTRIES, f"a layer with {weight.mid.size} weights")
        if weight.err is None and bias.err is None:
            return Layer(weight.mid, bias.mid, None, None, False, tuple(self._read))
        return Layer(weight.mid, bias.mid, weight.error, bias.error, False, tuple(self._read))
