"""Channels that are constant but not 0: which they are, and what their readers make of them.

A reader R(x) = L x + b has L K beside its bias once constants K are gone from its input. Where its
window hangs over the border L K differs by position: it is then added as a map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.graph.bounds import apply
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.kept import keep_words
from onnx_exact.labels.move import run_linear
from onnx_exact.labels.params import Cutter
from onnx_exact.network import Box
from onnx_exact.network.affine import Array
from onnx_exact.network.rounding import gamma

# Bounds of what does not depend on the input differ by what a runtime may round, in proportion to
# the value no more than this; anything wider is left alone.
WIDEST = 2.0**-10
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def takes_constants(index: Index, node: NodeProto) -> bool:
    """Whether a reader with weights can be given L K."""
    kind = index.elem_type(node.output[0])
    # Before set 7 an Add does not broadcast.
    return index.opset >= 7 and kind in FLOATS and _written(index, node.input[1])


def known(box: Box) -> Array:
    """The value of every entry for all rows, NaN where the bounds do not tell."""
    lower, upper = _of_all_rows(box)
    with np.errstate(invalid="ignore", over="ignore"):
        middle = lower + (upper - lower) / 2
        near = upper - lower <= WIDEST * np.minimum(np.abs(lower), np.abs(upper))
    return np.where(near & np.isfinite(middle), middle, np.nan)


def _of_all_rows(box: Box) -> tuple[Array, Array]:
    lower, upper = box.lower, box.upper
    if lower.ndim:
        lower, upper = lower.min(axis=0, keepdims=True), upper.max(axis=0, keepdims=True)
    return lower, upper


def offset(
    index: Index, node: NodeProto, box: Box, exact: Box, gone: NDArray[np.bool_]
) -> tuple[Array, float] | None:
    """L K, with the rank of the output and size 1 along axes of which it does not depend.

    Args:
        index: of the graph.
        node: the reader.
        box: of its input.
        exact: the same in real arithmetic, as far as that is known.
        gone: which entries go, broadcasting against the input.

    Returns:
        And how far it may be off; None where it is not known.
    """
    values, whole = known(box), index.shape(node.input[0])
    if whole is None or values.ndim != len(whole):
        return None
    sizes = [dim.size if dim.static and axis else 1 for axis, dim in enumerate(whole)]
    if any(not dim.static for dim in whole[1:]) and values[0].size != max(values.shape[1:]):
        return None
    values = np.where(np.broadcast_to(gone, sizes), np.broadcast_to(values, sizes), 0.0)
    weight = index.floats(node.input[1])
    if weight is None or np.isnan(values).any():
        return None
    alone = NodeProto()
    alone.CopyFrom(node)
    del alone.input[2:]
    found = apply(index, alone, (Interval(values, values), Interval(weight, weight)), 0)
    if found is None or not np.isfinite(found.lower).all() or not np.isfinite(found.upper).all():
        return None
    most = max(np.abs(found.lower).max(initial=0), np.abs(found.upper).max(initial=0))
    if (found.upper - found.lower).max(initial=0) > WIDEST * most:
        return None
    made = np.asarray(found.lower + (found.upper - found.lower) / 2)
    for axis in range(made.ndim):
        first = made.take([0], axis=axis)
        if np.allclose(made, first, rtol=2.0**-40, atol=2.0**-45 * most):
            made = first
    low, high = (np.where(gone, np.broadcast_to(v, sizes), 0.0) for v in _of_all_rows(exact))
    if all(dim.static for dim in whole[1:]):
        return made, _off(index, alone, weight, (low, high), made)
    # A single spot says nothing of the others.
    around = apply(index, alone, (Interval(low, high), Interval(weight, weight)), 0)
    if around is None:
        return None
    return made, max(float(np.max(end)) for end in (made - around.lower, around.upper - made))


def _off(
    index: Index, node: NodeProto, weight: Array, ends: tuple[Array, Array], made: Array
) -> float:
    """How far `made` may be from L K in real arithmetic, with K between two ends."""
    if not all(np.isfinite(end).all() for end in ends):
        return np.inf
    middle = ends[0] + (ends[1] - ends[0]) / 2
    half = np.maximum(ends[1] - middle, middle - ends[0]) * (1.0 + 2.0**-50)
    exact, reach, size = (
        run_linear(index, node, x, w)
        for x, w in (
            (middle, weight),
            (half, np.abs(weight)),
            (np.abs(middle) + half, np.abs(weight)),
        )
    )
    rounding = 2.0 * gamma(weight.size) * np.abs(size)
    return float((np.abs(made - exact) + np.abs(reach) + rounding).max(initial=0.0)) * (
        1.0 + 2.0**-40
    )


def _written(index: Index, tensor: str) -> bool:
    """Whether a constant stands in the file as it is, not quantised."""
    position = index.producer.get(tensor)
    return index.is_constant(tensor) and (
        position is None or index.nodes[position].op_type == "Constant"
    )


def _rounded(values: Array, stored: NDArray[np.generic]) -> float:
    """How far stored numbers may be from what they stand for, a sum of two or a number."""
    wide = np.asarray(stored, np.float64)
    # What float64 rounds of the sum itself is no more than a unit of its last place.
    return float((np.abs(wide - values) + np.spacing(np.abs(values))).max(initial=0.0))


class Adder:
    """Gives readers of a graph that is being rewritten what they lost."""

    def __init__(self, index: Index, graph: GraphProto, cutter: Cutter) -> None:
        self._index, self._graph, self._cutter = index, graph, cutter
        self._inserted: list[tuple[int, list[NodeProto]]] = []

    def give(self, position: int, node: NodeProto, values: Array) -> float:
        """Adds `values`, which broadcast against the output, in the bias or behind the node.

        Returns:
            What is rounded of them.
        """
        kind = helper.tensor_dtype_to_np_dtype(self._index.elem_type(node.output[0]))
        channel = 1 if node.op_type in ("Conv", "ConvTranspose") else values.ndim - 1
        if values.size == values.shape[channel]:
            rounded = self._in_bias(node, values.reshape(-1), kind)
            if rounded is not None:
                return rounded
        made = node.output[0]
        node.output[0] = self._cutter.name(made)
        nodes, added = self._map(made, values.astype(kind))
        nodes.append(helper.make_node("Add", [node.output[0], added], [made]))
        self._inserted.append((position, nodes))
        return _rounded(values, values.astype(kind))

    def insert(self) -> None:
        """Puts the new nodes behind those whose outputs they take."""
        for position, nodes in sorted(self._inserted, key=lambda entry: -entry[0]):
            for node in reversed(nodes):
                self._graph.node.insert(position + 1, node)

    def _in_bias(self, node: NodeProto, values: Array, kind: np.dtype[np.generic]) -> float | None:
        """What is rounded of the new bias; None where they cannot be in it."""
        if node.op_type == "MatMul":
            return None
        if (
            node.op_type == "Gemm"
            and "beta" in attributes(node)
            and attributes(node)["beta"].f != 1.0
        ):
            return None
        if len(node.input) < 3 or not node.input[2]:
            del node.input[2:]
            node.input.append(self._cutter.add(f"{node.input[1]}_bias", values.astype(kind)))
            return _rounded(values, values.astype(kind))
        tensors = {t.name: t for t in self._graph.initializer}
        if node.input[2] not in tensors:
            return None
        bias = numpy_helper.to_array(tensors[node.input[2]])
        if bias.shape != values.shape:
            return None
        total = (bias.astype(np.float64) + values).astype(kind)
        if self._cutter.alone(node.input[2]):
            made = numpy_helper.from_array(total, node.input[2])
            keep_words(tensors[node.input[2]], made)
            tensors[node.input[2]].CopyFrom(made)
        else:
            node.input[2] = self._cutter.add(node.input[2], total)
        return _rounded(bias.astype(np.float64) + values, total)

    def _map(self, like: str, values: Array) -> tuple[list[NodeProto], str]:
        """A constant; rows and columns that repeat are stored once, and gathered."""
        nodes: list[NodeProto] = []
        places: list[tuple[int, NDArray[np.int64]]] = []
        for axis in range(2, values.ndim):
            fewer, place = np.unique(values, axis=axis, return_inverse=True)
            if fewer.size < values.size:
                values = fewer
                places.append((axis, np.asarray(place, np.int64).reshape(-1)))
        name = self._cutter.add(like, values)
        for axis, place in places:
            index, made = self._cutter.add(f"{like}_place", place), self._cutter.name(like)
            nodes.append(helper.make_node("Gather", [name, index], [made], axis=axis))
            name = made
        return nodes, name
