"""What the interval of a node's outputs is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FLOAT_TYPES, FloatType
from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import Shape
from onnx_exact.network.affine import Array


@dataclass(frozen=True, eq=False)
class Context:
    """A node and the intervals of its inputs, None for an input that is left out.

    Every interval has the rank of its tensor, or none where the rank is not known.

    Attributes:
        index: of the graph.
        node: of an operator that has a rule.
        inputs: one interval for each of the node's inputs.
        kind: the type that the node computes in; float32 for one that only moves entries.
        position: of the output that is asked for.
    """

    index: Index
    node: NodeProto
    inputs: tuple[Interval | None, ...]
    kind: FloatType = FLOAT_TYPES[TensorProto.FLOAT]
    position: int = 0

    @property
    def x(self) -> Interval:
        """The first input."""
        first = self.inputs[0]
        assert first is not None
        return first

    def shape(self, position: int = 0) -> Shape | None:
        """The shape of an input."""
        return self.index.shape(self.node.input[position])

    @property
    def shape_out(self) -> Shape | None:
        """The shape of the output."""
        return self.index.shape(self.node.output[self.position])

    def rank_out(self) -> int | None:
        """The rank of the output."""
        shape = self.shape_out
        return None if shape is None else len(shape)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        known = attributes(self.node)
        return known[name].i if name in known else default

    def number(self, name: str, default: float) -> float:
        """A real attribute."""
        known = attributes(self.node)
        return known[name].f if name in known else default

    def attribute(self, name: str, default: float) -> Interval:
        """A real attribute, stored in float32, in the type that the node computes in.

        A default may be meant as the decimal number, or as the float32 nearest to it.
        """
        known = attributes(self.node)
        values = [known[name].f] if name in known else [default, float(np.float32(default))]
        found = Interval(np.asarray(min(values)), np.asarray(max(values)))
        return self.kind.flushed(self.kind.outward(found))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        known = attributes(self.node)
        return known[name].s.decode() if name in known else default

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers, None where it is missing."""
        known = attributes(self.node)
        return list(known[name].ints) if name in known else None

    def constant(self, position: int) -> Array | None:
        """A finite constant input in float64."""
        if position >= len(self.node.input):
            return None
        values = self.index.floats(self.node.input[position])
        return values if values is not None and np.isfinite(values).all() else None

    def weights(self, position: int) -> Array | None:
        """A constant input in float64 of which every entry is what it is meant to be but for two
        roundings, such as a quantised weight."""
        values = self.constant(position)
        if values is not None or position >= len(self.node.input):
            return values
        value = self.index.value(self.node.input[position])
        if value is None or value.error is None or value.values.dtype.kind != "f":
            return None
        sizes = np.abs(value.values.astype(np.float64))
        near = value.error <= self.kind.epsilon * sizes
        normal = (sizes == 0.0) | (sizes >= 2.0 * self.kind.smallest_normal)
        fits = near & normal & np.isfinite(sizes)
        return value.values.astype(np.float64) if fits.all() else None

    def is_everywhere(self, position: int, value: float) -> bool:
        """Whether an input is a constant that has this value in every entry."""
        values = self.index.floats(self.node.input[position])
        return values is not None and values.size > 0 and bool((values == value).all())


# The interval of the first output; None where nothing is known.
Rule = Callable[[Context], Interval | None]
