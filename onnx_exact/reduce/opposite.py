"""Of units that are negative multiples of each other one is made linear, where that saves units.

    (w, b)_j = -a (w, b)_i,  a > 0,   hence   h_j = max(-a g_i, 0) = a h_i + g_j   and
    V_i h_i + V_j h_j = (V_i + a V_j) h_i + V_j g_j

whatever the verdicts on the two. The linear g_j takes the place of a unit, as that of a stably
active one does, and of these only what the next layer needs is kept (`onnx_exact.reduce.needed`):
done where that leaves fewer units, that is where several such pairs or other stably active units
share what is needed. Rows are multiples only where they are so exactly, in rational arithmetic.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Array
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.budget import Refusal, allowance, evaluation_terms, figures, reach
from onnx_exact.reduce.need import ROWS, Linear
from onnx_exact.reduce.needed import narrow, with_units
from onnx_exact.reduce.scale import directions, is_multiple
from onnx_exact.reduce.state import State

Index = NDArray[np.intp]


def opposite(state: State, max_deviation: float) -> tuple[State, tuple[Refusal, ...]]:
    """The state with opposite units halved where that saves units, or `state` itself.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.

    Returns:
        The state, and what was refused.
    """
    refused: list[Refusal] = []
    for index in range(len(state.layers) - 1):
        first, second = _pairs(state, index)
        if not first.size:
            continue
        limit = state.limit(index, max_deviation)
        linear = _with_linear(state, index, first, second, limit)
        if isinstance(linear, Refusal):
            refused.append(linear)
            continue
        narrowed, _ = narrow(linear, index, limit)
        if narrowed.layers[index].layer.width < state.layers[index].layer.width:
            state = narrowed
    return state, tuple(refused)


def _pairs(state: State, index: int) -> tuple[Index, Index]:
    """Units i and j of a layer, not stable, with rows that are exact negative multiples."""
    decided = state.layers[index]
    none = np.arange(0)
    if not decided.layer.relu:
        return none, none
    affine = decided.layer.affine
    rows = np.column_stack([affine.weight, affine.bias])
    shares = directions(rows)
    stable = (decided.status == Status.ACTIVE) | (decided.status == Status.INACTIVE)
    seen: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for unit in np.flatnonzero(shares.any(axis=1) & ~stable):
        # Adding 0 turns -0 into 0: keys are compared bit by bit.
        other = seen.pop((0.0 - shares[unit]).tobytes(), None)
        if other is None:
            seen[shares[unit].tobytes()] = int(unit)
        elif _is_opposite(rows[unit], rows[other]):
            pairs.append((other, int(unit)))
    found = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _is_opposite(row: Array, other: Array) -> bool:
    pivot = int(np.argmax(np.abs(other)))
    return is_multiple(row.tolist(), [Fraction(value) for value in other.tolist()], pivot)


def _with_linear(
    state: State, index: int, first: Index, second: Index, max_deviation: float
) -> State | Refusal:
    """The state with g_j, shifted so that it stays active, in the place of h_j; or why not."""
    decided, after = state.layers[index], state.layers[index + 1]
    affine, reader = decided.layer.affine, after.layer.affine
    bias, read = affine.bias[second], reader.weight[:, second]
    with np.errstate(over="ignore", invalid="ignore"):
        # Bounds on w_j h, widened for the subtraction.
        lower = np.nextafter(decided.lower[second] - bias, -np.inf)
        upper = np.nextafter(decided.upper[second] - bias, np.inf)
        shift = state.stored_above(np.maximum(-lower, 0.0))
        exact = reader.weight.copy()
        exact[:, first] += read * _ratios(state, index, first, second)
        exact_bias = reader.bias + read @ (bias - shift)
        weight, new_bias = state.stored(exact), state.stored(exact_bias)
    what = f"halve {first.size} opposite pairs"
    if not all(np.isfinite(v).all() for v in (shift, weight, new_bias)):
        reason = "their linear parts are not bounded, or do not fit the dtype"
        return Refusal(what, decided.source, reason)
    kept = np.ones(decided.layer.width, dtype=bool)
    kept[second] = False
    none = np.zeros(reader.n_out)
    linear = Linear(ROWS, affine.weight[second], read, lower, upper, none)
    halved = with_units(decided, kept, linear, shift)
    assert halved is not None
    joined = after.with_affine(np.hstack([weight[:, kept], read]), new_bias)
    new = state.with_layers(index, index + 2, halved, joined)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = reach(weight - exact, decided.magnitude) + np.abs(new_bias - exact_bias)
        moved = moved + gamma(first.size) * (np.abs(read) @ (np.abs(bias) + shift))
        terms = evaluation_terms(state, index)
        more = np.maximum(evaluation_terms(new, index) - terms, 0.0)
        found = moved + state.unit_roundoff * more
        allowed = allowance(max_deviation, (state.unit_roundoff + gamma(first.size)) * terms)
    if np.isfinite(found).all() and (found <= allowed).all():
        return new
    reason = "their shifts and weights would round off more than is allowed"
    return Refusal(what, decided.source, reason, figures(found, allowed))


def _ratios(state: State, index: int, first: Index, second: Index) -> Array:
    """a for each pair; not finite where it underflows, which says nothing of what is read."""
    affine = state.layers[index].layer.affine
    rows = np.column_stack([affine.weight, affine.bias])
    pivots = np.argmax(np.abs(rows[first]), axis=1)
    ratios = -rows[second, pivots] / rows[first, pivots]
    return np.where(ratios < np.finfo(np.float64).tiny, np.inf, ratios)
