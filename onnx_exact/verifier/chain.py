"""Chains of layers and the boxes they start from, read from a model by tracing back.

A layer's weights are the stored numbers, or balls around float64 numbers where maps had to be
composed (batch normalisation, a linear map after another one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from onnx_exact.errors import NotVerifiedError
from onnx_exact.verifier.model import Model
from onnx_exact.verifier.rounding import EXTRA, ROUNDOFF, SMALLEST, Array, add_up, outward
from onnx_exact.verifier.steps import PER_ENTRY, Step, read_step


@dataclass(frozen=True, eq=False)
class Layer:
    """g = W h + b with |W - weight| <= weight_error and |b - bias| <= bias_error, maybe a ReLU."""

    weight: Array
    bias: Array
    weight_error: Array | None
    bias_error: Array | None
    relu: bool

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.bias)

    def off(self, magnitude: Array) -> Array:
        """How far weight h + bias may be from g where |h| <= magnitude, shape (..., units)."""
        if self.weight_error is None or self.bias_error is None:
            return np.zeros((*magnitude.shape[:-1], self.width))
        return np.asarray((magnitude @ self.weight_error.T + self.bias_error) * 1.0000001)


@dataclass(frozen=True, eq=False)
class Box:
    """A box that holds the domain, and one that it holds; equal where no bound was rounded."""

    lower: Array
    upper: Array
    inner_lower: Array
    inner_upper: Array


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers between two tensors, and the positions of their nodes."""

    layers: tuple[Layer, ...]
    nodes: frozenset[int]
    inside: frozenset[str]

    @property
    def shape(self) -> tuple[list[int], list[bool]]:
        """Widths, and which layers have a ReLU."""
        return [layer.width for layer in self.layers], [layer.relu for layer in self.layers]


def trace(model: Model, output: str, start: str | None) -> tuple[list[Step], str]:
    """The steps from `start`, or else from an input of the graph, to `output`; and where from.

    Raises:
        NotVerifiedError: an operator on the way that cannot be checked, or `start` is not on it.
    """
    steps: list[Step] = []
    tensor = output
    while tensor != start and tensor in model.producer:
        steps.append(read_step(model, model.producer[tensor]))
        tensor = steps[-1].source
    if tensor != start and (start is not None or tensor not in {i.name for i in model.inputs}):
        raise NotVerifiedError(f"{model.path}: {output!r} is not computed from {start or tensor!r}")
    return steps[::-1], tensor


def read_chain(model: Model, source: str, output: str, *, composed: bool = True) -> Chain:
    """The layers between two tensors of a model.

    Args:
        model, source, output: the model and the names of the tensors.
        composed: whether weights that follow one another without a ReLU are one layer where their
            product has no more entries than they have.
    """
    constant = _constant(model, output, source)
    if constant is not None:
        return constant
    steps, _ = trace(model, output, source)
    collected = _Layers(composed)
    for step in steps:
        collected.add(step)
    inside = {step.source for step in steps} - {source}
    nodes = frozenset(step.node for step in steps)
    return Chain(collected.done(), nodes, frozenset(inside))


def _constant(model: Model, output: str, source: str) -> Chain | None:
    """A chain that was written as a constant of the output's shape."""
    position = model.producer.get(output)
    shape, width = model.shape(output), model.shape(source)
    if position is None or shape is None or width is None:
        return None
    node = model.nodes[position]
    value = model.numbers(node.input[0]) if node.op_type in ("Identity", "Expand") else None
    if value is None:
        return None
    bias = np.broadcast_to(value, shape).reshape(-1)
    weight = np.zeros((bias.size, int(np.prod(width))))
    nodes = frozenset([position]) | _behind(model, list(node.input[1:]), source)
    inside = {name for i in nodes for name in model.nodes[i].output} - {output}
    return Chain((Layer(weight, bias, None, None, False),), nodes, frozenset(inside))


def _behind(model: Model, tensors: list[str], source: str) -> frozenset[int]:
    """The nodes that tensors are made by, back to `source`."""
    found: set[int] = set()
    while tensors:
        name = tensors.pop()
        position = model.producer.get(name)
        if name != source and position is not None and position not in found:
            found.add(position)
            tensors += model.nodes[position].input
    return frozenset(found)


class _Layers:
    """Collects steps into layers."""

    def __init__(self, composed: bool) -> None:
        self._composed = composed
        self._layers: list[Layer] = []
        self._open: Layer | None = None
        self._before: list[tuple[Ball, Ball]] = []

    def add(self, step: Step) -> None:
        """Takes the next step in."""
        if step.kind == "dense":
            self._dense(step)
        elif step.kind == "relu":
            if self._open is None:
                raise NotVerifiedError("cannot check: operator Relu that follows no weights")
            self._layers.append(replace(self._open, relu=True))
            self._open = None
        elif step.kind != "same":
            self._scale(*_scale_and_shift(step))

    def done(self) -> tuple[Layer, ...]:
        """The layers."""
        if self._before or not (self._layers or self._open):
            raise NotVerifiedError("cannot check: a chain that does not end in weights or a ReLU")
        return (*self._layers, *([self._open] if self._open is not None else []))

    def _dense(self, step: Step) -> None:
        weight, bias, alpha, beta = (Ball(value) for value in step.values)
        weight, bias = weight * alpha, bias * beta
        for scale, shift in reversed(self._before):
            bias, weight = bias + weight @ shift, weight * scale
        self._before = []
        first = self._open
        if first is not None:
            n_out, n_in = len(weight.mid), first.weight.shape[1]
            larger = n_out * n_in > weight.mid.size + first.weight.size
            if larger or not self._composed:
                self._layers.append(first)
            else:
                inner = Ball(first.weight, first.weight_error), Ball(first.bias, first.bias_error)
                bias, weight = weight @ inner[1] + bias, weight @ inner[0]
        self._open = _layer(weight, bias)

    def _scale(self, scale: Ball, shift: Ball) -> None:
        if self._open is None:
            self._before.append((scale, shift))
            return
        old = self._open
        column = Ball(scale.mid[:, None], None if scale.err is None else scale.err[:, None])
        weight = Ball(old.weight, old.weight_error) * column
        self._open = _layer(weight, Ball(old.bias, old.bias_error) * scale + shift)


class Ball:
    """Numbers known to within an error each; None for none. Errors are rounded upward."""

    def __init__(self, mid: Array, err: Array | None = None) -> None:
        self.mid, self.err = mid, err

    def _made(self, mid: Array, other: Ball, err: Array, rounding: Array, n: int) -> Ball:
        if self.err is None and other.err is None and not rounding.any():
            return Ball(mid)
        slack = (n + EXTRA) * (ROUNDOFF * rounding + SMALLEST * (rounding > 0.0))
        return Ball(mid, (err + slack) * (1.0 + (n + EXTRA) * ROUNDOFF))

    @property
    def _error(self) -> Array:
        return np.zeros_like(self.mid) if self.err is None else self.err

    @property
    def size(self) -> Array:
        """Upper bounds on the magnitudes."""
        return np.abs(self.mid) if self.err is None else add_up(np.abs(self.mid), self.err)

    def __mul__(self, other: Ball) -> Ball:
        mid = self.mid * other.mid
        err = np.abs(self.mid) * other._error + self._error * (np.abs(other.mid) + other._error)
        # Products of numbers of 24 bits are exact.
        exact = all((v == v.astype(np.float32)).all() for v in (self.mid, other.mid))
        unit = np.all(np.abs(other.mid) == 1.0)
        used = (self.mid != 0.0) & (other.mid != 0.0) & (not (exact or unit))
        return self._made(mid, other, err, np.maximum(np.abs(mid), SMALLEST) * used, 1)

    def __add__(self, other: Ball) -> Ball:
        mid = self.mid + other.mid
        back = mid - self.mid
        lost = (self.mid - (mid - back)) + (other.mid - back)
        return self._made(mid, other, self._error + other._error, np.abs(mid) * (lost != 0.0), 1)

    def __matmul__(self, other: Ball) -> Ball:
        size, error = np.abs(other.mid), other._error
        err = np.abs(self.mid) @ error + self._error @ (size + error)
        used = (self.mid != 0.0).astype(float) @ (size != 0.0).astype(float)
        rounding = np.maximum(np.abs(self.mid) @ size, SMALLEST) * (used > 0.0)
        return self._made(self.mid @ other.mid, other, err, rounding, self.mid.shape[1])


def _layer(weight: Ball, bias: Ball) -> Layer:
    if not (np.isfinite(weight.mid).all() and np.isfinite(bias.mid).all()):
        raise NotVerifiedError("cannot check: the product of successive weights overflows")
    if weight.err is None and bias.err is None:
        return Layer(weight.mid, bias.mid, None, None, False)
    return Layer(weight.mid, bias.mid, weight._error, bias._error, False)


def _scale_and_shift(step: Step) -> tuple[Ball, Ball]:
    """The map x -> scale x + shift of an operator that acts on each entry by itself."""
    zero = Ball(np.zeros_like(step.values[0]))
    one, value = Ball(np.ones_like(zero.mid)), Ball(step.values[0])
    minus = Ball(-one.mid)
    if step.kind == "Add":
        return one, value
    if step.kind == "Sub":
        return (minus, value) if step.swapped else (one, value * minus)
    if step.kind == "Mul":
        return value, zero
    if step.kind == "Div":
        share = 1.0 / value.mid
        rounded = np.frexp(value.mid)[0] != np.copysign(0.5, value.mid)
        return Ball(share, ROUNDOFF * np.abs(share) * rounded + SMALLEST * rounded), zero
    gain, offset, mean, variance = step.values
    share = 1.0 / np.sqrt(variance)
    scale = Ball(share, EXTRA * ROUNDOFF * share) * Ball(gain)
    return scale, Ball(offset) + Ball(mean) * scale * minus


def input_box(model: Model, tensor: str, lower: dict[str, Array], upper: dict[str, Array]) -> Box:
    """The image of the domain in the input of a chain, in rationals.

    Args:
        model, tensor: the chain's input.
        lower, upper: bounds of the graph's inputs, with size 1 along symbolic axes.

    Raises:
        NotVerifiedError: the way from the graph's input is not per entry.
    """
    steps, name = trace(model, tensor, None)
    shape = model.shape(name)
    if name not in lower or shape is None:
        raise NotVerifiedError(f"cannot check: nothing bounds the input {name!r}")
    low, high = (np.broadcast_to(side[name], shape).reshape(-1) for side in (lower, upper))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise NotVerifiedError(f"cannot check: the domain of {name!r} is not bounded")
    if all(step.kind == "same" for step in steps):
        return Box(low, high, low, high)
    ends = [[Fraction(v) for v in side.tolist()] for side in (low, high)]
    for step in steps:
        if step.kind in PER_ENTRY:
            constants = [Fraction(v) for v in step.values[0].tolist()]
            ends = [[_image(step, v, c) for v, c in zip(e, constants, strict=True)] for e in ends]
        elif step.kind != "same":
            operator = model.nodes[step.node].op_type
            raise NotVerifiedError(f"cannot check: operator {operator} before a chain")
    pairs = [(min(a, b), max(a, b)) for a, b in zip(*ends, strict=True)]
    sides = [(side, up) for side, up in ((0, False), (1, True), (0, True), (1, False))]
    rounded = [np.array([outward(pair[i], up) for pair in pairs]) for i, up in sides]
    return Box(*rounded)


def _image(step: Step, value: Fraction, constant: Fraction) -> Fraction:
    if step.kind == "Add":
        return value + constant
    if step.kind == "Sub":
        return constant - value if step.swapped else value - constant
    return value * constant if step.kind == "Mul" else value / constant
