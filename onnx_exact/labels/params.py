"""Constants of a graph that can be cut along axes: initializers, Constants, quantised weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.graph.index import Index, names_in, subgraphs
from onnx_exact.graph.kept import keep_words

KINDS = {
    *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16),
    *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64),
}
# By axis, which entries stay.
Cuts = dict[int, NDArray[np.bool_]]


def can_cut(index: Index, tensor: str) -> bool:
    """Whether a constant can be written with fewer entries."""
    if not index.is_constant(tensor):
        return False
    value = index.value(tensor)
    assert value is not None
    if value.values.size == 1:
        return True
    position = index.producer.get(tensor)
    if position is None:
        return index.elem_type(tensor) in KINDS
    node = index.nodes[position]
    if node.op_type == "Constant":
        return any(a.name == "value" and a.t.data_type in KINDS for a in node.attribute)
    # A quantised weight that one node reads: its scales are cut as well.
    plain = node.op_type == "DequantizeLinear" and not any(
        a.name == "block_size" and a.i for a in node.attribute
    )
    alone = index.sole_reader(tensor) is not None
    return plain and alone and all(_stored(index, name) for name in node.input if name)


def _names_inside(node: NodeProto) -> set[str]:
    """What the bodies of a node name."""
    return {name for inner in subgraphs(node) for name in names_in(inner)}


def _stored(index: Index, tensor: str) -> bool:
    return tensor not in index.producer and index.elem_type(tensor) in KINDS


class Cutter:
    """Cuts constants of a graph that is being rewritten, each once, shared ones by copies.

    `changed` are the tensors that have other sizes under their own names.
    """

    def __init__(self, index: Index, graph: GraphProto) -> None:
        self._index, self._graph = index, graph
        self._tensors = {t.name: t for t in graph.initializer}
        self._names = {*self._tensors, *index.producer, *(v.name for v in graph.input)}
        self._done: dict[tuple[str, bytes], str] = {}
        self.changed: set[str] = set()

    def cut(self, tensor: str, cuts: Cuts) -> str:
        """The name under which a constant has only the entries that stay."""
        if not cuts or not tensor:
            return tensor
        key = tensor, b"".join(bytes([axis]) + cuts[axis].tobytes() for axis in sorted(cuts))
        if key not in self._done:
            self._done[key] = self._cut(tensor, cuts)
        return self._done[key]

    def _cut(self, tensor: str, cuts: Cuts) -> str:
        position = self._index.producer.get(tensor)
        if position is not None:
            node = self._graph.node[position]
            if node.op_type == "DequantizeLinear":
                return self._dequantized(node, cuts)
            stored = next(a.t for a in node.attribute if a.name == "value")
        else:
            stored = self._tensors[tensor]
        values = numpy_helper.to_array(stored)
        for axis, kept in cuts.items():
            values = values.compress(kept, axis=axis)
        made = numpy_helper.from_array(np.ascontiguousarray(values), tensor)
        keep_words(stored, made)
        readers = self._index.readers.get(tensor, [])
        alone = len(readers) == 1 and tensor not in self._index.pinned and position is None
        if alone:
            self.changed.add(tensor)
            stored.CopyFrom(made)
            return tensor
        made.name = self.name(tensor)
        self._graph.initializer.append(made)
        return made.name

    def _dequantized(self, node: NodeProto, cuts: Cuts) -> str:
        rank = len(self._index.shape(node.output[0]) or ())
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axis = options.get("axis", 1) % max(rank, 1)
        name = str(node.output[0])
        self.changed.add(name)
        inputs = list(node.input)
        node.input[0] = self.cut(inputs[0], cuts)
        for slot, scale in enumerate(inputs[1:], 1):
            value = self._index.value(scale) if scale else None
            if value is not None and value.values.size > 1 and axis in cuts:
                node.input[slot] = self.cut(scale, {0: cuts[axis]})
        return name

    def drop_unread(self) -> None:
        """Takes away what was cut and is read whole by nobody any more."""
        graph, cut = self._graph, {tensor for tensor, _ in self._done}
        read = {name for node in graph.node for name in (*node.input, *_names_inside(node))}
        fed = {name for name in cut if self._index.is_overridable(name)}
        gone = cut - read - self._index.pinned - fed
        for field in (graph.initializer, graph.node):
            for place in reversed(range(len(field))):
                part = field[place]
                made = [part.name] if isinstance(part, TensorProto) else list(part.output)
                if gone.issuperset(made):
                    del field[place]

    def alone(self, tensor: str) -> bool:
        """Whether one node reads an initializer, and nothing else does."""
        return len(self._index.readers.get(tensor, [])) == 1 and tensor not in self._index.pinned

    def add(self, like: str, values: NDArray[np.generic]) -> str:
        """The name of a new constant."""
        name = self.name(like)
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def name(self, tensor: str) -> str:
        """One that nothing has yet."""
        number = 0
        while (name := f"{tensor}_kept{number or ''}") in self._names:
            number += 1
        self._names.add(name)
        return name
