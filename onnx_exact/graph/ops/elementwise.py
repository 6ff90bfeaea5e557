"""What acts on each unit by itself with constants: sums, products, Neg, Scaler; and Relu."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto

from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Diagonal, Rectify, Regroup, Step, per_unit, weights
from onnx_exact.network.approximate import Approximate, quotient


def add(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x + c and c + x."""
    c = _shift(index, node, slot, layout)
    return None if c is None else Diagonal(_all(1.0, c), c, layout)


def sub(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x - c and c - x."""
    c = _shift(index, node, slot, layout)
    if c is None:
        return None
    if slot == 0:
        return Diagonal(_all(1.0, c), -c, layout)
    return Diagonal(_all(-1.0, c), c, layout)


def neg(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal:
    """-x."""
    one = Approximate(np.ones(layout.width))
    return Diagonal(-one, _all(0.0, one), layout)


def total(index: Index, node: NodeProto, slot: int, layout: Layout) -> Step | None:
    """The sum of x alone, or of x and a constant."""
    return Regroup(layout) if len(node.input) == 1 else add(index, node, slot, layout)


def scaler(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """(x - offset) scale of ai.onnx.ml, along the last axis."""
    known = attributes(node)
    if index.elem_type(node.input[0]) != TensorProto.FLOAT:
        return None
    numbers = []
    for name, default in (("offset", 0.0), ("scale", 1.0)):
        values = np.asarray(known[name].floats if name in known else [default], dtype=np.float64)
        if len(values) > 1 and not layout.along(layout.rank - 1):
            return None
        found = per_unit(layout, Approximate(values))
        if found is None or not np.isfinite(found.value).all():
            return None
        numbers.append(found)
    offset, scale = numbers
    return Diagonal(scale, -(offset * scale), layout)


def mul(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x * c and c * x."""
    c = _constant(index, node, slot, layout)
    return None if c is None else Diagonal(c, _all(0.0, c), layout)


def div(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x / c with no zero in c; c / x is not affine."""
    c = _constant(index, node, slot, layout) if slot == 0 else None
    if c is None or c.error is not None or (c.value == 0.0).any():
        return None
    scale = quotient(np.ones_like(c.value), c.value)
    if not np.isfinite(scale.value).all():
        return None
    return Diagonal(scale, _all(0.0, c), layout)


def _all(number: float, like: Approximate) -> Approximate:
    """The same number for each feature."""
    return Approximate(np.full_like(like.value, number))


def relu(index: Index, node: NodeProto, slot: int, layout: Layout) -> Rectify | None:
    """max(x, 0)."""
    return None if node.attribute else Rectify(layout)


def _shift(index: Index, node: NodeProto, slot: int, layout: Layout) -> Approximate | None:
    # Infinite shifts are masks, which pass through; a NaN is refused with the other weights.
    values = index.floats(node.input[1 - slot])
    if values is not None and np.isinf(values).any() and not np.isnan(values).any():
        return None
    return _constant(index, node, slot, layout)


def _constant(index: Index, node: NodeProto, slot: int, layout: Layout) -> Approximate | None:
    if node.attribute or len(node.input) != 2:
        return None
    values = weights(index, node.input[1 - slot])
    return None if values is None else per_unit(layout, values)
