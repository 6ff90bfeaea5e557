"""A graph that grows node by node, for `benchmarks.fuzz`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = NDArray[Any]
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        name: its name.
        shape: its sizes, None for the batch.
        dtype: its element type.
        exact: whether it is the same, bit for bit, in any two models that agree over the reals.
        reach: about the largest absolute value.
        mixed: whether its unknown size is another than the batch: rows have become features.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    exact: bool = True
    reach: float = 1.0
    mixed: bool = False

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.dtype.kind == "f"

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_batched(self) -> bool:
        """Whether its first axis, and no other, is the batch."""
        if self.mixed or not self.shape:
            return False
        return self.shape[0] is None and None not in self.shape[1:]


@dataclass
class Graph:
    """A graph that grows."""

    rng: np.random.Generator
    opset: int
    dtype: np.dtype[Any]
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    live: list[Tensor] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    counter: int = 0

    def name(self, stem: str) -> str:
        """A new name."""
        self.counter += 1
        return f"{stem}_{self.counter}"

    def chance(self, share: float) -> bool:
        """True in that share of all cases."""
        return bool(self.rng.random() < share)

    def one_of(self, items: Sequence[Any]) -> Any:
        """One of them."""
        return items[int(self.rng.integers(len(items)))]

    def constant(self, values: Any, dtype: Any = None, stem: str = "w") -> str:
        """A stored tensor, in an initializer or a Constant node."""
        array = np.asarray(values, dtype=dtype)
        name = self.name(stem)
        tensor = numpy_helper.from_array(array, name)
        if self.chance(0.08):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            self.operators.add("Constant")
        else:
            self.initializers.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        """A stored vector of integers."""
        return self.constant(np.array(values, np.int64), stem="i")

    def add(self, op: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> list[str]:
        """A node; the names of its outputs."""
        outputs = [self.name(op.lower()) for _ in range(count)]
        name = "" if self.chance(0.15) else self.name("node")
        node = helper.make_node(op, list(inputs), outputs, name=name, **attributes)
        self.nodes.append(node)
        self.read.update(inputs)
        self.operators.add(op)
        return outputs

    def make(self, op: str, inputs: Sequence[str], like: Tensor, **attributes: Any) -> Tensor:
        """A node with one output, which is a tensor like `like`."""
        return replace(like, name=self.add(op, inputs, **attributes)[0])

    def with_axes(self, op: str, x: str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        """A node whose axes are an attribute up to some operator set and an input from then on."""
        if self.opset >= since:
            return self.add(op, [x, self.ints(*axes)], **attributes)[0]
        return self.add(op, [x], axes=list(axes), **attributes)[0]
