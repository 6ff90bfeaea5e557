"""Add, Sub, Mul and Div by a constant that broadcasts per unit; Relu."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Diagonal, Rectify, per_unit, weights
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
