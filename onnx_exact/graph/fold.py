"""What nodes give whose inputs are all constants, and how far that is from what they define.

A value is the one that onnx.reference computes, in the type of the tensor. Entries that are moved,
picked or compared, and integers, are exact. What rounds is bounded by the interval of the operator
at that one point, which holds the real number that the graph defines and what any runtime computes
for it: the error of a value is the distance to the far side. What may be decided either way, such
as a Cast of 0.5 to an integer, is not folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnx_exact.graph.bounds import apply
from onnx_exact.graph.bounds.interval import Interval, point
from onnx_exact.graph.constants import EXACT, INTEGERS_ONLY, MOVES, ROUNDS, Value
from onnx_exact.graph.evaluate import evaluated
from onnx_exact.graph.index import Index
from onnx_exact.network.rounding import WIDE

# These give no more entries than they read.
KEEPS_SIZES = (MOVES | {"Cast", "DequantizeLinear"}) - {
    *("Expand", "Gather", "GatherElements", "GatherND", "Tile"),
}
# A node may give so many entries, or as many as it reads.
MOST_ENTRIES = 2**24
# Every integer up to this one is a float64.
LARGEST_INTEGER = 2.0**53
# Quotients so near to the middle between two integers may be rounded to either.
TIE = 2.0**-20


def fold(index: Index, node: NodeProto, inputs: Sequence[Value | None]) -> list[Value | None]:
    """The outputs of a node in their order, None for each that is not certain.

    Args:
        index: of the graph.
        node: of an operator in `FOLDED`.
        inputs: its inputs, None for each that is left out.
    """
    nothing: list[Value | None] = [None] * len(node.output)
    given = [v for v in inputs if v is not None]
    if not _is_small(index, node, given) or not _is_certain(node, given):
        return nothing
    results = evaluated(index, node, [None if v is None else v.values for v in inputs])
    if results is None:
        return nothing
    exact = all(v.error is None for v in given)
    if node.op_type in MOVES and not exact:
        errors = evaluated(index, node, [_moved_along(v) for v in inputs])
        return nothing if errors is None else list(map(Value, results, errors))
    whole = all(v.dtype.kind in "iub" for v in (*results, *(v.values for v in given)))
    if exact and (whole or node.op_type in MOVES | EXACT):
        return list(map(Value, results))
    if node.op_type not in ROUNDS:
        return nothing
    return [_rounded(index, node, inputs, i, v) for i, v in enumerate(results)]


def _is_small(index: Index, node: NodeProto, given: Sequence[Value]) -> bool:
    """Whether the outputs are known not to be huge before they are there."""
    read = sum(v.values.size for v in given)
    for output in filter(None, node.output):
        shape = index.shape(output)
        known = shape is not None and all(dim.static for dim in shape)
        keeps = node.op_type in KEEPS_SIZES
        if known and shape is not None:
            if prod(dim.size for dim in shape) > max(MOST_ENTRIES, read):
                return False
        elif not keeps:
            return False
    return True


def _is_certain(node: NodeProto, given: Sequence[Value]) -> bool:
    """Whether every runtime gives the same, but for what is rounded."""
    op, arrays = node.op_type, [v.values for v in given]
    whole = all(a.dtype.kind in "iub" for a in arrays)
    if op in ("Div", "Mod") and whole:
        return all((a >= 0).all() for a in arrays) and bool((arrays[1] > 0).all())
    if op in INTEGERS_ONLY:
        return whole
    first = arrays[0] if arrays else np.zeros(0)
    if op == "Cast" and helper.get_node_attr_value(node, "to") not in _FLOATS:
        values = first.astype(np.float64)
        whole_numbers = bool((np.isfinite(values) & (np.trunc(values) == values)).all())
        return whole_numbers and np.abs(values).max(initial=0.0) <= LARGEST_INTEGER
    if op == "QuantizeLinear":
        return _is_far_from_ties(node, arrays)
    return True


_FLOATS = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
)


def _is_far_from_ties(node: NodeProto, arrays: Sequence[NDArray[Any]]) -> bool:
    """Whether no quotient is near to the middle between two integers."""
    x, scale = (a.astype(np.float64) for a in arrays[:2])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.size > 1:
        if scale.ndim != 1 or not -x.ndim <= axis < x.ndim or len(scale) != x.shape[axis]:
            return False
        scale = scale.reshape(-1, *[1] * (x.ndim - axis % x.ndim - 1))
    if not (np.isfinite(scale).all() and (scale > 0.0).all() and np.isfinite(x).all()):
        return False
    steps = np.abs(x / scale)
    return bool((np.abs(steps - np.floor(steps) - 0.5) > TIE * (1.0 + steps)).all())


def _moved_along(value: Value | None) -> NDArray[Any] | None:
    """What is moved along with entries: the errors of floats; positions and sizes as they are."""
    if value is None or value.values.dtype.kind in "iub":
        return None if value is None else value.values
    return np.zeros(value.values.shape) if value.error is None else value.error


def _rounded(
    index: Index, node: NodeProto, inputs: Sequence[Value | None], position: int, values: Any
) -> Value | None:
    """A result with the error that its interval allows for."""
    given = [None if v is None else interval_of(v) for v in inputs]
    if node.op_type == "QuantizeLinear":
        return Value(values) if all(v is None or v.error is None for v in inputs) else None
    if any(v is None and name for v, name in zip(given, node.input, strict=True)):
        return None
    if node.op_type == "Cast" and inputs[0] is not None and inputs[0].error is None:
        before = inputs[0].values.astype(np.float64)
        if np.array_equal(before, values.astype(np.float64), equal_nan=True):
            return Value(values)
    found = apply(index, node, tuple(given), position)
    if found is None:
        return None
    center = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.maximum(found.upper - center, center - found.lower) * WIDE
    if error.shape != center.shape:
        error = np.broadcast_to(error, center.shape)
    if not np.isfinite(error).all() or (error < 0.0).any():
        return None
    return Value(values, error if error.any() else None)


def interval_of(value: Value) -> Interval | None:
    """The interval that a constant is in; None where float64 does not hold it."""
    values = value.values.astype(np.float64)
    if value.values.dtype.kind in "iu" and np.abs(values).max(initial=0.0) > LARGEST_INTEGER:
        return None
    if value.error is None:
        return point(values)
    low, high = values - value.error, values + value.error
    return Interval(np.nextafter(low, -np.inf), np.nextafter(high, np.inf))
