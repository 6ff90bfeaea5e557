"""Whether evaluating a layer in the model's own type may exceed the largest number of the type.

The terms of a pre-activation sum_j w_j h_j + b are added up in an order that is the runtime's own.
Over l <= h <= u every partial sum lies between -N and P,

    P = W+ max(u, 0) + W- max(-l, 0) + max(b, 0),    N = W+ max(-l, 0) + W- max(u, 0) + max(-b, 0),

with W = W+ - W-, up to the rounding of the sums themselves. A rewrite by which a layer may
overflow that could not before is refused: nothing finite becomes infinite.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.operator import entries_by_blocks
from onnx_exact.reduce.budget import FloatType, Refusal, reach
from onnx_exact.reduce.state import State


def may_overflow(affine: Affine, lower: Array, upper: Array, dtype: FloatType) -> bool:
    """Whether a pre-activation or a partial sum of one may be infinite in `dtype`.

    Args:
        affine: the layer's map.
        lower, upper: bounds on its inputs, shape (inputs,); may be infinite.
        dtype: in which it is evaluated.
    """
    info = np.finfo(dtype)
    up, down = np.maximum(upper, 0.0), np.maximum(-lower, 0.0)
    largest = []
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, weight in entries_by_blocks(affine.linear):
            positive, negative = np.maximum(weight, 0.0), np.maximum(-weight, 0.0)
            bias = affine.bias[rows]
            above = reach(positive, up) + reach(negative, down) + np.maximum(bias, 0.0)
            below = reach(positive, down) + reach(negative, up) + np.maximum(-bias, 0.0)
            largest += [float(above.max()), float(below.max())]
    # Inputs and sums are rounded, both by no more than this.
    rounding = 2.0 * (affine.n_in + 1) * float(info.eps)
    return not all(size * (1.0 + rounding) < float(info.max) for size in largest)


def overflowing(before: State, after: State) -> Refusal | None:
    """Why a rewrite is refused: a layer may overflow that could not before; None where none may.

    Args:
        before, after: the network before and after the rewrite.
    """
    old = {decided.source: index for index, decided in enumerate(before.layers)}
    for index, decided in enumerate(after.layers):
        source = old[decided.source]
        same_inputs = index and source and _same(after, index - 1, before, source - 1)
        if _same(after, index, before, source) and (same_inputs or index == source == 0):
            continue
        if _may_overflow(after, index) and not _may_overflow(before, source):
            reason = (
                f"a sum may exceed the largest number of {after.dtype}, which none could before"
            )
            return Refusal("overflow", decided.source, reason)
    return None


def _same(after: State, index: int, before: State, place: int) -> bool:
    """Whether a layer is the one that it was."""
    new, old = after.layers[index], before.layers[place]
    return (new.source, new.edition) == (old.source, old.edition)


def _may_overflow(state: State, index: int) -> bool:
    affine = state.layers[index].layer.affine
    return may_overflow(affine, *state.input_bounds(index), state.dtype)
