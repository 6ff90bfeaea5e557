"""The units of a layer that stay in its normal form, and the layer that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.network.chain import Layer
from onnx_exact.reduce.collinear import Index
from onnx_exact.reduce.form import NormalForm
from onnx_exact.reduce.ledger import Flags
from onnx_exact.reduce.realise import DIRECTIONS, Linear
from onnx_exact.reduce.state import Decided
from onnx_exact.reduce.units import GONE


@dataclass(frozen=True, eq=False)
class Kept:
    """Units of a layer that stay: which, the other way where turned, and how they are read.

    `place` and `factor` say where all units of the layer go, as in `UnitMap.then`.
    """

    units: Index
    turned: Flags
    columns: Approximate
    place: Index
    factor: Array


def kept_units(form: NormalForm, linear: Linear) -> Kept:
    """The kinks of a form, and its directions where these are units that stay."""
    kept, others = form.kink.copy(), dict[int, Approximate]()
    place, factor = form.place.copy(), form.factor.copy()
    if linear.how == DIRECTIONS:
        for place_, unit in enumerate(linear.units.tolist()):
            others[unit] = Approximate(linear.read[:, place_])
        for kink in np.flatnonzero(np.isin(form.opposite, linear.units)).tolist():
            _pair(form, kink, others, place, factor)
    for kink in np.flatnonzero(form.turned & form.kink & (form.opposite != GONE)).tolist():
        kept[kink] = False
        others.pop(kink, None)
        others[int(form.opposite[kink])] = form.over(kink)
        _move(place, factor, place == kink, form, kink)
    kept[list(others)] = True
    if not (kept.any() or linear.count):
        # The reader reads nothing any more; `collapse` makes that a constant.
        kept[0], others[0] = True, Approximate(np.zeros(len(form.ledger.room)))
    units = np.flatnonzero(kept)
    turned = form.turned[units] & form.kink[units]
    columns = _columns(form, units, others)
    # What is linear and goes is not gone with others: others give it.
    moved = np.where(form.units.active, GONE, GONE - 1 - np.arange(place.size))
    moved[units] = np.arange(units.size)
    sign = np.where(np.isin(place, units[turned]), -1.0, 1.0)
    return Kept(units, turned, columns, moved[place], factor * sign)


def _columns(form: NormalForm, units: Index, others: dict[int, Approximate]) -> Approximate:
    """How units are read: by their jumps, but for others."""
    columns = form.jump.of(units)
    value, off = columns.value, columns.error
    if off is None and any(column.error is not None for column in others.values()):
        off = columns.off
    for unit, column in others.items():
        place = int(np.searchsorted(units, unit))
        value[:, place] = column.value
        if off is not None:
            off[:, place] = column.off
    return Approximate(value, off)


def _pair(
    form: NormalForm, kink: int, columns: dict[int, Approximate], place: Index, factor: Array
) -> None:
    """Gives a linear part by the unit opposite to a kink: g_q = max(g_q, 0) - ratio max(g_k, 0)."""
    other = int(form.opposite[kink])
    apart, amount = form.apart[kink], form.amount.of(other)
    if np.array_equal(apart[1].value, amount.value):
        columns[kink], columns[other] = apart
    else:
        back = -(amount * Approximate(form.ratio[[kink]]))
        columns[kink], columns[other] = form.jump.of(kink) + back, amount
    _move(place, factor, (place == kink) & (factor < 0.0), form, kink)


def _move(place: Index, factor: Array, units: Flags, form: NormalForm, kink: int) -> None:
    """Takes units from the hyperplane's kink to the unit opposite to it."""
    place[units] = form.opposite[kink]
    factor[units] /= -form.ratio[kink]


def kept_layer(decided: Decided, kept: Kept, fresh: Linear | None) -> Decided:
    """The layer with units that stay and linear ones behind them."""
    units, turned, affine = kept.units, kept.turned, decided.layer.affine
    sign = np.where(turned, -1.0, 1.0)
    status, budget = decided.status[units], decided.budget.select(units)
    lower = np.where(turned, -decided.upper[units], decided.lower[units])
    upper = np.where(turned, -decided.lower[units], decided.upper[units])
    if fresh is None:
        affine = affine.signed(units, sign) if turned.any() else affine.rows(units)
    else:
        active = np.full(fresh.count, Status.ACTIVE, dtype=np.int8)
        rows, bias = sign[:, None] * affine.linear.rows(units), sign * affine.bias[units]
        affine = Affine(np.vstack([rows, fresh.weight]), np.append(bias, fresh.bias))
        status = np.append(status, active)
        lower, upper = np.append(lower, fresh.lower), np.append(upper, fresh.upper)
        budget = budget.widened(fresh.count)
    return decided.anew(
        Layer(affine, decided.layer.relu),
        status=status,
        lower=lower,
        upper=upper,
        origin=decided.origin.then(kept.place, kept.factor),
        budget=budget,
    )
