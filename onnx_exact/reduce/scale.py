"""Units whose weights and bias are positive multiples of another unit's are merged with it.

    (w, b)_j = a (w, b)_i,  a > 0,   hence   h_j = max(a g_i, 0) = a h_i   and
    V_i h_i + V_j h_j = (V_i + a V_j) h_i

whatever the verdicts on the two. Rows are multiples of each other only where they are so exactly,
in rational arithmetic; only a and V_i + a V_j are rounded.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate, quotient
from onnx_exact.reduce.budget import Refusal, allowance, figures, own_rounding, reach
from onnx_exact.reduce.state import State


def scale(state: State, max_deviation: float) -> tuple[State, tuple[Refusal, ...]]:
    """The state with multiples merged, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    for index in range(len(state.layers) - 1):
        if state.layers[index].layer.relu:
            state, refusal = _merge_layer(state, index, state.limit(index, max_deviation))
            refused += refusal
    return state, tuple(refused)


def _multiples(rows: Array) -> list[list[int]]:
    """Groups of at least two rows that are positive multiples of each other."""
    shares = directions(rows)
    groups: dict[bytes, list[int]] = {}
    for unit in np.flatnonzero(shares.any(axis=1)):
        groups.setdefault(shares[unit].tobytes(), []).append(int(unit))
    exact = [_exact_multiples(rows, group) for group in groups.values() if len(group) > 1]
    return [group for group in exact if len(group) > 1]


def directions(rows: Array) -> Array:
    """The rows divided by their largest magnitude; equal for positive multiples of each other."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    # Division rounds correctly: where the exact quotients are equal, so are the computed ones.
    return np.asarray(rows / np.where(largest > 0.0, largest, 1.0) + 0.0)


def _exact_multiples(rows: Array, group: list[int]) -> list[int]:
    """The first of `group` and those that are its multiples in rational arithmetic."""
    first = [Fraction(value) for value in rows[group[0]].tolist()]
    pivot = int(np.argmax(np.abs(rows[group[0]])))
    return [unit for unit in group if is_multiple(rows[unit].tolist(), first, pivot)]


def is_multiple(row: list[float], first: list[Fraction], pivot: int) -> bool:
    """Whether a row is a multiple of another, whose entry `pivot` is not 0, in rationals."""
    factor = Fraction(row[pivot]) / first[pivot]
    return all(factor * a == Fraction(b) for a, b in zip(first, row, strict=True))


def _merge_layer(state: State, index: int, max_deviation: float) -> tuple[State, list[Refusal]]:
    """Merges as many groups of multiples of one layer as the budget admits."""
    decided, after = state.layers[index], state.layers[index + 1]
    affine, second = decided.layer.affine, after.layer.affine
    rows = np.column_stack([affine.weight, affine.bias])
    kept = np.ones(decided.layer.width, dtype=bool)
    origin = decided.origin
    weight = second.weight.copy()
    computed = decided.layer.width
    allowed = own_rounding(second, decided.magnitude, state.dtype, computed)
    allowed = allowance(max_deviation, allowed)
    total = np.zeros(second.n_out)
    refused: list[Refusal] = []
    for group in _multiples(rows):
        # The one to stay is one that is decided.
        units = np.array(sorted(group, key=lambda unit: decided.status[unit] == Status.UNDECIDED))
        ratios = _ratios(rows, units)
        column, moved = _merged(state, index, units, ratios)
        found = total + moved
        if np.isfinite(found).all() and (found <= allowed).all():
            kept[units[1:]] = False
            weight[:, units[0]] = column
            origin = origin.merge(units[1:], int(units[0]), ratios.value[1:])
            total = found
            continue
        reason = f"merging {units.size} multiples would deviate by more than is allowed"
        refused.append(Refusal("scale", decided.source, reason, figures(found, allowed)))
    if kept.all():
        return state, refused
    merged = after.with_affine(weight[:, kept], second.bias)
    left = replace(decided, origin=origin).keep(kept)
    return state.with_layers(index, index + 2, left, merged), refused


def _ratios(rows: Array, units: NDArray[np.intp]) -> Approximate:
    """a for each of `units`, multiples of the first of them."""
    pivot = int(np.argmax(np.abs(rows[units[0]])))
    return quotient(rows[units, pivot], rows[units[0], pivot])


def _merged(
    state: State, index: int, units: NDArray[np.intp], ratios: Approximate
) -> tuple[Array, Array]:
    """The stored column V_i + a V_j for the first of `units`, and what that moves."""
    decided, second = state.layers[index], state.layers[index + 1].layer.affine
    with np.errstate(over="ignore", invalid="ignore"):
        exact = Approximate(second.weight[:, units]) @ ratios
        stored = state.stored(exact.value)
        off = np.abs(stored - exact.value) + exact.off
        moved = reach(off[:, None], decided.magnitude[units[:1]])
    if (ratios.value < np.finfo(np.float64).tiny).any():
        # A factor that underflows says nothing of what is read.
        moved = np.full_like(moved, np.inf)
    return stored, moved
