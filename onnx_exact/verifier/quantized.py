"""Quantised weights: what a DequantizeLinear makes of constants, in real arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_exact.verifier.model import FLOATS, Model
from onnx_exact.verifier.operators import attributes
from onnx_exact.verifier.rounding import Array

# Differences of integers, up to which float64 has their products with numbers of 24 bits.
MOST_STEPS = 2.0**29


def dequantizing(model: Model, tensor: str) -> NodeProto | None:
    """The node that makes a tensor of quantised constants, None for any other tensor."""
    position = model.producer.get(tensor)
    node = None if position is None else model.nodes[position]
    if node is None or node.op_type != "DequantizeLinear" or not model.is_standard(node):
        return None
    plain = len(node.output) == 1 and {a.name for a in node.attribute} <= {"axis"}
    plain &= not any(a.ref_attr_name for a in node.attribute)
    known = all(model.constant(name) is not None for name in node.input if name)
    return node if plain and known else None


def scaled_axis(model: Model, node: NodeProto) -> int:
    """The axis of which every entry may have a scale of its own."""
    rank = np.asarray(model.constant(node.input[0])).ndim
    return int(attributes(node).get("axis", 1)) % max(rank, 1)


def dequantized(model: Model, tensor: str) -> Array | None:
    """The numbers of a quantised weight; None for any other tensor, or where float64 lacks them."""
    node = dequantizing(model, tensor)
    if node is None:
        return None
    stored, scale, *zero = (np.asarray(model.constant(name)) for name in node.input if name)
    sizes = [1] * stored.ndim
    sizes[scaled_axis(model, node) : scaled_axis(model, node) + 1] = [-1][: stored.ndim]

    def along(values: NDArray[np.generic]) -> Array:
        return values.astype(np.float64).reshape(sizes if values.size > 1 else ())

    steps = stored.astype(np.float64) - (along(zero[0]) if zero else 0.0)
    narrow = scale.dtype in (FLOATS[1], FLOATS[10]) and np.isfinite(scale).all()
    exact = narrow and np.abs(steps).max(initial=0.0) <= MOST_STEPS
    return steps * along(scale) if exact and stored.dtype.kind in "iu" else None
