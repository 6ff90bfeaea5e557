"""Add, Sub, Mul and Div by a constant that broadcasts per unit; Relu."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Diagonal, Rectify, weights
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate, quotient


def add(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x + c and c + x."""
    c = _shift(index, node, slot, layout)
    return None if c is None else _diagonal(np.ones_like(c), c, layout)


def sub(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x - c and c - x."""
    c = _shift(index, node, slot, layout)
    if c is None:
        return None
    ones = np.ones_like(c)
    return _diagonal(ones, -c, layout) if slot == 0 else _diagonal(-ones, c, layout)


def mul(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x * c and c * x."""
    c = _constant(index, node, slot, layout)
    return None if c is None else _diagonal(c, np.zeros_like(c), layout)


def div(index: Index, node: NodeProto, slot: int, layout: Layout) -> Diagonal | None:
    """x / c with no zero in c; c / x is not affine."""
    c = _constant(index, node, slot, layout) if slot == 0 else None
    if c is None or (c == 0.0).any():
        return None
    scale = quotient(np.ones_like(c), c)
    if not np.isfinite(scale.value).all():
        return None
    return Diagonal(scale, Approximate(np.zeros_like(c)), layout)


def _diagonal(scale: Array, shift: Array, layout: Layout) -> Diagonal:
    """The step with numbers as they are stored."""
    return Diagonal(Approximate(scale), Approximate(shift), layout)


def relu(index: Index, node: NodeProto, slot: int, layout: Layout) -> Rectify | None:
    """max(x, 0)."""
    return None if node.attribute else Rectify(layout)


def _shift(index: Index, node: NodeProto, slot: int, layout: Layout) -> Array | None:
    # Infinite shifts are masks, which pass through; a NaN is refused with the other weights.
    values = index.floats(node.input[1 - slot])
    if values is not None and np.isinf(values).any() and not np.isnan(values).any():
        return None
    return _constant(index, node, slot, layout)


def _constant(index: Index, node: NodeProto, slot: int, layout: Layout) -> Array | None:
    if node.attribute or len(node.input) != 2:
        return None
    values = weights(index, node.input[1 - slot])
    return None if values is None else layout.per_unit(values)
