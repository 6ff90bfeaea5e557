"""Inputs of a chain that are constant over its domain go into the bias of the first layer.

With C the inputs of which both bounds are the same number, or as close as the numbers of the
model's type that a decimal fraction lies between, x_C their middle, and V the others,

    W x + b = W_V x_V + (b + W_C x_C)     on the domain:

the columns W_C become zero, so that units that differ in them alone are seen to be one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.approximate import Approximate
from onnx_exact.reduce.budget import Refusal, figures, reach
from onnx_exact.reduce.layer import Edit
from onnx_exact.reduce.state import State


def absorb(state: State, max_deviation: float | None) -> Edit:
    """Puts what the first layer makes of constant inputs into its bias.

    Args:
        state: the network with verdicts.
        max_deviation: see `onnx_exact.reduce.budget`; 0 where nothing may be rounded, None where
            nothing that rounds is looked for either.
    """
    decided, box = state.layers[0], state.box
    with np.errstate(invalid="ignore"):
        near = 2.0 * state.unit_roundoff * np.minimum(np.abs(box.lower), np.abs(box.upper))
        constant = box.upper - box.lower <= np.where(np.isfinite(near), near, -1.0)
    # What reading has rounded is certified for the numbers that were read.
    fixed = decided.layer.affine.error is not None or decided.source in state.frozen
    if fixed or not constant.any():
        return Edit(state)
    edit = _absorbed(state, constant, max_deviation or 0.0)
    if edit.refused:
        # Those that are 0 move nothing.
        edit = replace(edit, state=_absorbed(state, constant & (box.upper == 0.0), 0.0).state)
    edit = replace(edit, rounds=edit.state.edits > state.edits)
    return edit if max_deviation is not None else replace(edit, refused=())


def _absorbed(state: State, constant: NDArray[np.bool_], max_deviation: float) -> Edit:
    decided = state.layers[0]
    affine, columns = decided.layer.affine, decided.layer.affine.weight[:, constant]
    if not columns.any():
        return Edit(state)
    low, high = state.box.lower[constant], state.box.upper[constant]
    middle = low + (high - low) / 2
    exact = Approximate(affine.bias) + Approximate(columns) @ Approximate(middle)
    bias = state.stored(exact.value)
    moved = np.abs(bias - exact.value) + exact.off + reach(columns, high - low)
    allowed = decided.budget.left(state.limit(0, max_deviation))
    if not (moved <= allowed).all():
        reason = "its new bias would deviate by more than is allowed"
        refusal = Refusal("constant inputs", decided.source, reason, figures(moved, allowed))
        return Edit(state, refused=(refusal,))
    weight = affine.weight.copy()
    weight[:, constant] = 0.0
    new = replace(decided.with_affine(weight, bias), budget=decided.budget.spend(moved))
    return Edit(state.with_layers(0, 1, new))
