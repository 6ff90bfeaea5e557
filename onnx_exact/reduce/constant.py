"""Units that are constant over the domain move into the next bias.

A unit that reads nothing, or only inputs of which the domain has one value x_F, has

    h_i = max(W_iF x_F + b_i, 0) = v_i    hence    V h + c = V_K h_K + (c + V_i v_i).

Only the new bias is rounded: in float64, and to the model's own type.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.approximate import Approximate, numbers_of
from onnx_exact.reduce.budget import Refusal, allowance, figures, own_rounding
from onnx_exact.reduce.state import State


def constant(state: State, max_deviation: float) -> tuple[State, tuple[Refusal, ...]]:
    """The state without constant units, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    for index in range(len(state.layers) - 1):
        # A layer that reads nothing is `collapse`'s.
        if not state.layers[index + 1].layer.affine.reads.any():
            continue
        units = np.flatnonzero(_is_constant(state, index))
        if units.size:
            state, refusal = _move(state, index, units, state.limit(index, max_deviation))
            refused += refusal
    return state, tuple(refused)


def _is_constant(state: State, index: int) -> NDArray[np.bool_]:
    """Which units of a layer read fixed inputs only, if any."""
    reads = state.layers[index].layer.affine.reads
    varying = np.ones(reads.shape[1], dtype=bool)
    if index == 0:
        varying = state.box.lower != state.box.upper
    return np.asarray(~reads[:, varying].any(axis=1))


def _move(
    state: State, index: int, units: NDArray[np.intp], max_deviation: float
) -> tuple[State, list[Refusal]]:
    """Moves the values of constant units into the next bias."""
    decided, after = state.layers[index], state.layers[index + 1]
    second = after.layer.affine
    with np.errstate(over="ignore", invalid="ignore"):
        exact = Approximate(second.bias) + Approximate(second.weight[:, units]) @ _values(
            state, index, units
        )
        stored = state.stored(exact.value)
        moved = np.abs(stored - exact.value) + exact.off
        allowed = own_rounding(second, decided.magnitude, state.dtype, units.size + second.n_in)
        allowed = allowance(max_deviation, allowed)
    if not (np.isfinite(moved).all() and (moved <= allowed).all()):
        reason = f"moving {units.size} constants would deviate by more than is allowed"
        return state, [Refusal("constant", decided.source, reason, figures(moved, allowed))]
    kept = np.ones(decided.layer.width, dtype=bool)
    kept[units] = False
    weight = np.asarray(second.weight[:, kept])
    if not kept.any():
        # The next layer is constant: it reads a unit with weight 0, and `collapse` does the rest.
        kept[0] = True
        weight = np.zeros((second.n_out, 1))
    narrowed = after.with_affine(weight, stored)
    return state.with_layers(index, index + 2, decided.keep(kept), narrowed), []


def _values(state: State, index: int, units: NDArray[np.intp]) -> Approximate:
    """The outputs of constant units of a layer, shape (units,)."""
    decided = state.layers[index]
    weight, bias = numbers_of(decided.layer.affine.rows(units))
    fixed = np.zeros(weight.value.shape[1])
    if index == 0:
        fixed = np.where(state.box.lower == state.box.upper, state.box.lower, 0.0)
    value = weight @ Approximate(fixed) + bias
    return value.rectified if decided.layer.relu else value
