"""Biases by which plain intervals show that every linear unit is active, for verifiers.

    W h + b  ->  W h + (b + d),      V h' + c  ->  V h' + (c - V d):

d is what the interval bound on the new network, front to back, falls short of 0 by. What that may
round off is paid out of the budgets of the readers; a unit for which there is not enough left stays
as it was.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.reduce.collinear import Index
from onnx_exact.reduce.overflow import overflowing
from onnx_exact.reduce.state import State
from onnx_exact.reduce.units import GONE

# A unit is lifted by this share more than it needs.
MARGIN = 1e-9


def shifted(state: State, max_deviation: float) -> State:
    """The state with linear units lifted as far as intervals need it and budgets allow.

    Args:
        state: the network with verdicts.
        max_deviation: see `onnx_exact.reduce.budget`.
    """
    low, high = state.box.lower, state.box.upper
    for index, decided in enumerate(state.layers[:-1]):
        lower, _ = interval_bounds(decided.layer.affine, low, high)
        short = decided.layer.relu & (decided.status == Status.ACTIVE) & (lower < 0.0)
        units = np.flatnonzero(short & np.isfinite(lower))
        if units.size and state.may_drop_units(index):
            limit = state.limit(index, max_deviation)
            found = _lifted(state, index, units, -lower[units], limit)
            if found is None:
                for unit in units[:, None]:
                    state = _lifted(state, index, unit, -lower[unit], limit) or state
            state = found or state
        low, high = interval_bounds(state.layers[index].layer.affine, low, high)
        if decided.layer.relu:
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    return state


def _lifted(
    state: State, index: int, units: Index, missing: Array, max_deviation: float
) -> State | None:
    """The state with some units of a layer lifted by `missing` or more; None if refused."""
    decided, after = state.layers[index], state.layers[index + 1]
    first, second = decided.layer.affine, after.layer.affine
    bias = first.bias.copy()
    bias[units] = state.stored_above(bias[units] + (1.0 + MARGIN) * missing)
    added = Approximate(bias) + -Approximate(first.bias)
    exact = Approximate(second.bias) + -(Approximate(second.weight) @ added)
    constant = state.stored(exact.value)
    if not (np.isfinite(bias).all() and np.isfinite(constant).all()):
        return None
    moved = np.abs(constant - exact.value) + exact.off
    place = np.arange(decided.layer.width)
    place[units] = GONE
    lifted = replace(
        decided.with_affine(first.weight, bias),
        lower=np.nextafter(decided.lower + added.value, -np.inf),
        upper=np.nextafter(decided.upper + added.value, np.inf),
        # They are linear: what they were is given by others, which these are now.
        origin=decided.origin.then(place, np.ones(place.size)),
    )
    reader = after.with_affine(second.weight, constant)
    new = state.with_layers(
        index, index + 2, lifted, replace(reader, budget=after.budget.spend(moved))
    )
    more = np.maximum(new.terms(index + 1) - after.budget.terms, 0.0)
    fits = moved + state.unit_roundoff * more <= after.budget.left(max_deviation)
    return new if fits.all() and overflowing(state, new) is None else None
