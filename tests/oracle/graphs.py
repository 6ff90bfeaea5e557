"""What a small ONNX graph computes, in rational arithmetic, by the definitions of its operators.

The graph is read from the constants of the file, with code that shares nothing with the package's
reading: between two ReLUs, whatever is affine is multiplied out in rational numbers. Only operators
of dense models are known, on tensors of shape (batch, features); a batch normalisation needs a
variance whose root, epsilon included, is rational.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from tests.oracle.polytope import Point, Vector

Rationals = NDArray[np.object_]

# Operators that only make the shape of a constant output.
SIZES = ("Shape", "Gather", "Slice", "Concat")
DEFAULT_EPSILON = 1e-5
# Roundings of a batch normalisation in a runtime, and of any other operator on one entry.
NORMALISING, ELEMENTWISE = 6, 2


@dataclass(frozen=True)
class Step:
    """target = (sum of the parts' weight times tensor + bias) / scale, then a ReLU or none.

    Attributes:
        target: tensor that the step makes.
        source: the tensor in front of the ReLU; `target` where there is none.
        parts: tensors that are read, each with its integer weight, a row for each unit.
        bias: integers, one a unit.
        scale: positive.
        relu: whether a ReLU follows.
    """

    target: str
    source: str
    parts: tuple[tuple[str, tuple[Vector, ...]], ...]
    bias: Vector
    scale: int
    relu: bool


@dataclass(frozen=True)
class Graph:
    """A graph as affine maps between ReLUs.

    Attributes:
        input: name of its input.
        n_in: how many features that has.
        steps: one for each ReLU and one for the output, in order.
        connections: entries of the weights in the file.
        operations: roundings on the longest way through the graph, at most.
    """

    input: str
    n_in: int
    steps: tuple[Step, ...]
    connections: int
    operations: int

    @property
    def relu_units(self) -> int:
        """Number of ReLU units."""
        return sum(len(step.bias) for step in self.steps if step.relu)

    def evaluate(self, point: Sequence[Fraction]) -> Point:
        """The outputs at one rational point."""
        values: dict[str, Point] = {self.input: tuple(point)}
        for step in self.steps:
            total = [Fraction(b) for b in step.bias]
            for name, weight in step.parts:
                for i, row in enumerate(weight):
                    total[i] += sum(w * v for w, v in zip(row, values[name], strict=True))
            made = (value / step.scale for value in total)
            values[step.target] = tuple(max(v, Fraction(0)) if step.relu else v for v in made)
        return values[self.steps[-1].target]


def read_graph(model: ModelProto, absolute: bool = False) -> Graph:
    """The graph of a model with one input and one output.

    Args:
        model: in the operators that are known here.
        absolute: with the magnitude of every term, as bounds on rounding need them.
    """
    return _Reader(model, absolute).read()


def root(value: Fraction) -> Fraction:
    """The square root of the square of a rational number.

    Raises:
        ValueError: it has no rational root.
    """
    found = Fraction(isqrt(value.numerator), isqrt(value.denominator))
    if found * found != value:
        raise ValueError(f"{value} has no rational root")
    return found


@dataclass(frozen=True, eq=False)
class _Form:
    """sum of parts[t] t + bias over tensors t that are the input or the output of a ReLU."""

    parts: Mapping[str, Rationals]
    bias: Rationals

    def through(self, weight: Rationals, bias: Rationals | None = None) -> _Form:
        """weight form + bias."""
        shifted = weight @ self.bias
        parts = {name: weight @ part for name, part in self.parts.items()}
        return _Form(parts, shifted if bias is None else shifted + bias)

    def scaled(self, factor: Rationals) -> _Form:
        """The form, each unit times its factor."""
        parts = {name: factor[:, None] * part for name, part in self.parts.items()}
        return _Form(parts, factor * self.bias)

    def plus(self, other: _Form) -> _Form:
        """The sum of two forms."""
        parts = dict(self.parts)
        for name, part in other.parts.items():
            parts[name] = parts[name] + part if name in parts else part
        return _Form(parts, self.bias + other.bias)


class _Reader:
    def __init__(self, model: ModelProto, absolute: bool) -> None:
        self._graph, self._absolute = model.graph, absolute
        self._constants = {
            tensor.name: self._rationals(numpy_helper.to_array(tensor))
            for tensor in self._graph.initializer
        }
        self._forms: dict[str, _Form] = {}
        self._steps: list[Step] = []
        self._connections = self._operations = 0
        self._operators: dict[str, Callable[[NodeProto], _Form]] = {
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Add": lambda node: self._sum(node, 1),
            "Sub": lambda node: self._sum(node, -1),
            "Mul": lambda node: self._product(node, divide=False),
            "Div": lambda node: self._product(node, divide=True),
            "BatchNormalization": self._normalised,
            "Identity": lambda node: self._any(node.input[0]),
            "Expand": lambda node: self._any(node.input[0]),
            "Relu": self._relu,
        }

    def read(self) -> Graph:
        (given,), (made,) = self._graph.input, self._graph.output
        n_in = given.type.tensor_type.shape.dim[1].dim_value
        self._forms[given.name] = _base(given.name, n_in)
        for node in self._graph.node:
            if node.op_type in SIZES:
                continue
            if node.op_type == "Constant":
                value = numpy_helper.to_array(node.attribute[0].t)
                self._constants[node.output[0]] = self._rationals(value)
                continue
            self._forms[node.output[0]] = self._operators[node.op_type](node)
        self._steps.append(_step(self._forms[made.name], f"{made.name} (out)", made.name, False))
        steps = tuple(self._steps)
        return Graph(given.name, n_in, steps, self._connections, self._operations)

    def _rationals(self, array: NDArray[Any]) -> Rationals:
        exact = np.asarray(np.frompyfunc(Fraction, 1, 1)(array.astype(np.float64)), dtype=object)
        return np.asarray(abs(exact), dtype=object) if self._absolute else exact

    def _any(self, name: str) -> _Form:
        """A tensor, or a constant in its place."""
        if name in self._forms:
            return self._forms[name]
        return _Form({}, self._constants[name].reshape(-1))

    def _gemm(self, node: NodeProto) -> _Form:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert not attributes.get("transA", 0)
        weight = self._constants[node.input[1]]
        alpha, beta = (Fraction(attributes.get(key, 1.0)) for key in ("alpha", "beta"))
        if self._absolute:
            alpha, beta = abs(alpha), abs(beta)
        if not attributes.get("transB", 0):
            weight = weight.T
        made = self._dense(node.input[0], alpha * weight)
        if len(node.input) < 3 or not node.input[2]:
            return made
        added = self._any(node.input[2])
        return made.plus(_spread(added, len(made.bias)).scaled(_all(beta, len(made.bias))))

    def _matmul(self, node: NodeProto) -> _Form:
        return self._dense(node.input[0], self._constants[node.input[1]].T)

    def _dense(self, name: str, weight: Rationals) -> _Form:
        self._connections += weight.size
        self._operations += weight.shape[1] + ELEMENTWISE
        return self._any(name).through(weight)

    def _sum(self, node: NodeProto, sign: int) -> _Form:
        self._operations += ELEMENTWISE
        first, second = (self._any(name) for name in node.input)
        width = max(len(first.bias), len(second.bias))
        signed = Fraction(1 if self._absolute else sign)
        return _spread(first, width).plus(_spread(second, width).scaled(_all(signed, width)))

    def _product(self, node: NodeProto, divide: bool) -> _Form:
        self._operations += ELEMENTWISE
        first, second = node.input
        if second not in self._constants:
            assert not divide
            first, second = second, first
        form, factor = self._any(first), self._constants[second].reshape(-1)
        width = max(len(form.bias), len(factor))
        factor = np.broadcast_to(factor, (width,))
        return _spread(form, width).scaled(Fraction(1) / factor if divide else factor)

    def _normalised(self, node: NodeProto) -> _Form:
        """scale (x - mean) / sqrt(variance + epsilon) + shift."""
        self._operations += NORMALISING
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        epsilon = Fraction(attributes.get("epsilon", float(np.float32(DEFAULT_EPSILON))))
        scale, shift, mean, variance = (self._constants[name] for name in node.input[1:])
        factor = scale / np.array([root(v + epsilon) for v in variance], dtype=object)
        moved = mean * factor
        return self._any(node.input[0]).through(
            np.diag(factor), shift + moved if self._absolute else shift - moved
        )

    def _relu(self, node: NodeProto) -> _Form:
        source, target = node.input[0], node.output[0]
        form = self._any(source)
        self._steps.append(_step(form, target, source, True))
        return _base(target, len(form.bias))


def _base(name: str, width: int) -> _Form:
    """A tensor by itself."""
    identity = np.array(
        [[Fraction(int(i == j)) for j in range(width)] for i in range(width)], dtype=object
    )
    return _Form({name: identity}, _all(Fraction(0), width))


def _all(value: Fraction, width: int) -> Rationals:
    return np.full(width, value, dtype=object)


def _spread(form: _Form, width: int) -> _Form:
    """A form of one unit read as one of `width` equal ones."""
    if len(form.bias) == width:
        return form
    return form.through(np.full((width, 1), Fraction(1), dtype=object))


def _step(form: _Form, target: str, source: str, relu: bool) -> Step:
    numbers = [*form.bias, *(v for part in form.parts.values() for v in part.ravel())]
    scale = lcm(*(value.denominator for value in numbers))
    parts = tuple(
        (name, tuple(tuple(int(v * scale) for v in row) for row in part))
        for name, part in form.parts.items()
    )
    return Step(target, source, parts, tuple(int(v * scale) for v in form.bias), scale, relu)
