"""What stays of the tensors of a graph, and the constants that its nodes read then.

The names under which cut constants stand are taken from the result, in which the same node reads
them; their numbers are the original's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model, names_read
from onnx_exact.verifier.quantized import dequantizing, scaled_axis
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.rounding import Flags
from onnx_exact.verifier.shapes import Shape


@dataclass(frozen=True, eq=False)
class Cut:
    """The entries along one axis of a tensor that stay."""

    axis: int
    kept: Flags

    def same(self, other: Cut | None) -> bool:
        """Whether another tensor keeps the same entries along the same axis."""
        return (
            other is not None and self.axis == other.axis and np.array_equal(self.kept, other.kept)
        )

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """What stays of a tensor."""
        sizes = values.shape[self.axis : self.axis + 1]
        require_known(sizes == self.kept.shape, "a tensor of another shape than is inferred")
        return values.compress(self.kept, axis=self.axis)


class Cutting:
    """A graph that is being made without what is cut.

    Attributes:
        old, new: the original and the result.
        cuts: by tensor of the original, what stays of it.
        front: intervals of the original's tensors.
        made: constants that are cut or new.
        whole: names of tensors that are read as they were.
        own: inputs of the node that is being made which are constants of its own.
        quantized: what makes quantised weights, which their readers cut: nodes, and such inputs.
    """

    def __init__(self, old: Model, new: Model, cuts: Mapping[str, Cut], front: Front) -> None:
        self.old, self.new, self.cuts, self.front = old, new, cuts, front
        self.made: dict[str, TensorProto] = {}
        self.whole = {value.name for value in old.graph.output}
        self.own: set[int] = set()
        self.quantized: dict[str, tuple[NodeProto, set[int]]] = {}

    def twin(self, node: NodeProto) -> NodeProto | None:
        """The node of the result that makes the same tensor in the same way."""
        position = self.new.producer.get(node.output[0])
        twin = None if position is None else self.new.nodes[position]
        same = twin is not None and (twin.op_type, twin.domain) == (node.op_type, node.domain)
        return twin if same else None

    def put(self, node: NodeProto, made: NodeProto, slot: int, values: NDArray[Any]) -> None:
        """Gives the node that is made a constant of its own."""
        self._name(node, made, slot, values)
        self.own.add(slot)

    def _name(self, node: NodeProto, made: NodeProto, slot: int, values: NDArray[Any]) -> None:
        """Gives a node a constant under the name that it has in the result."""
        twin, name = self.twin(node), f"{node.output[0]}:{slot}"
        if twin is not None and slot < len(twin.input):
            name = twin.input[slot]
        fed = {value.name for value in self.old.graph.input}
        require_known(
            name and name not in self.old.producer and name not in fed, f"the constant {name!r}"
        )
        tensor = numpy_helper.from_array(np.array(values, order="C"), name)
        known = self.made.setdefault(name, tensor)
        require_known(
            known.SerializeToString() == tensor.SerializeToString(), f"two constants {name!r}"
        )
        made.input[slot] = name

    def cut(self, node: NodeProto, made: NodeProto, slot: int, cuts: Mapping[int, Flags]) -> None:
        """Cuts a constant along some axes, a quantised one where it is made."""
        name = node.input[slot]
        value = self.old.constant(name)
        if value is not None:
            self.put(node, made, slot, _left(value, cuts))
            return
        source = dequantizing(self.old, name)
        readers = [n for other in self.old.nodes for n in names_read(other) if n == name]
        alone = len(readers) == 1 and name not in {v.name for v in self.old.graph.output}
        if source is None or not alone:
            raise UncheckedError(f"cannot check: what {node.op_type} reads beside its input")
        maker, own = self.quantized[name]
        along = cuts.get(scaled_axis(self.old, source))
        for place in range(len(source.input)):
            value = self.old.constant(source.input[place])
            single = value is None or value.size == 1 or along is None
            if value is not None and not (place and single):
                left = {0: along} if place and along is not None else cuts
                self._name(source, maker, place, _left(value, left))
                own.add(place)

    def constant(self, node: NodeProto, slot: int) -> NDArray[Any]:
        """A constant input."""
        value = self.old.constant("".join(node.input[slot : slot + 1]))
        require_known(value is not None, f"what {node.op_type} reads beside its input")
        return np.asarray(value)

    def put_channels(self, node: NodeProto, made: NodeProto, cut: Cut, slots: range) -> None:
        """Gives a node what constants have for each channel."""
        for slot in slots:
            sizes = self.shape(node.input[slot])[:1]
            require(sizes == cut.kept.shape, f"{node.input[slot]!r} has other entries")
            self.cut(node, made, slot, {0: cut.kept})

    def passed_on(self, node: NodeProto) -> Cut:
        """The cut of a node's input, which its output has to have as well."""
        cut = self.cuts.get(node.input[0])
        if cut is None or not cut.same(self.cuts.get(node.output[0])):
            raise NotVerifiedError(f"{node.output[0]!r} is cut otherwise than what it is made of")
        return cut

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor of the original, at the first trial."""
        return self.old.shapes(tensor)[0]


def _left(values: NDArray[Any], cuts: Mapping[int, Flags]) -> NDArray[Any]:
    """What stays of numbers along some axes."""
    for axis, kept in cuts.items():
        values = values.compress(kept, axis=axis)
    return values
