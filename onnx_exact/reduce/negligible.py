"""What costs every reader next to nothing is dropped from a normal form.

A kink is left out where |J| times all that max(g, 0) can be is next to nothing; it is straightened,
taken for J g, where |J| times all that max(-g, 0) can be is; a direction is taken for its middle.
All of it together moves a reader by less than half a unit in the last place of its largest term.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.reduce.form import NormalForm
from onnx_exact.reduce.ledger import Columns
from onnx_exact.reduce.units import GONE

# How a unit is read, which one it is, how far it is from what is left in its place, and that.
Loss = tuple[Columns, int, float, float]


def drop(form: NormalForm, limit: Array) -> None:
    """Drops kinks and directions, the cheapest first, that move readers by `limit` at most.

    Kinks that are left are straightened, where g_k is hardly ever below 0.
    """
    lower, upper = form.units.lower, form.units.upper
    heights = np.maximum(np.where(form.turned, -lower, upper), 0.0)
    depths = np.where(form.turned, np.inf, np.maximum(-lower, 0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        middles, halves = 0.5 * lower + 0.5 * upper, 0.5 * upper - 0.5 * lower
        halves = np.nextafter(halves, np.inf) + np.spacing(np.abs(middles))
    kinks = np.flatnonzero(form.kink)
    found = [
        (form.jump, k, h, 0.0) for k, h in zip(kinks.tolist(), heights[kinks].tolist(), strict=True)
    ]
    found += [
        (form.amount, d, float(halves[d]), float(middles[d])) for d in form.directions.tolist()
    ]
    total = np.zeros_like(limit)
    for columns, unit, height, middle in _cheapest(found, limit):
        # What is read of a direction may be more by now.
        cost = _cost(columns, unit, height)
        if (total + cost <= limit).all() and _left_out(form, columns, unit, cost, middle):
            total = total + cost
    kinks = np.flatnonzero(form.kink & (depths < heights))
    found = [
        (form.jump, k, d, 0.0) for k, d in zip(kinks.tolist(), depths[kinks].tolist(), strict=True)
    ]
    for columns, unit, depth, _ in _cheapest(found, limit):
        cost = _cost(columns, unit, depth)
        if (total + cost <= limit).all() and _straightened(form, unit, cost):
            total = total + cost


def _cheapest(found: list[Loss], limit: Array) -> list[Loss]:
    smallest = np.finfo(np.float64).tiny
    shares = [
        float((_cost(columns, unit, height) / np.maximum(limit, smallest)).max())
        for columns, unit, height, _ in found
    ]
    return [found[place] for place in np.argsort(shares, kind="stable")]


def _left_out(form: NormalForm, columns: Columns, unit: int, cost: Array, middle: float) -> bool:
    """Drops a kink, or a direction for its middle, if there is room."""
    added = columns.of(unit) * Approximate(np.array([middle]))
    if not form.ledger.take(cost, added if middle else None):
        return False
    columns.drop([unit])
    form.kink[unit] &= columns is not form.jump
    form.negligible += 1
    return True


def _straightened(form: NormalForm, kink: int, cost: Array) -> bool:
    """Takes a kink for J g_k, along its direction where that is read already."""
    unit, read = form.unbent(kink)
    into, charge = int(form.line[unit]), cost + np.abs(read.value) * form.line_off[unit]
    if not form.amount.value[:, into].any():
        unit, into, read, charge = kink, kink, form.jump.of(kink), cost
        form.line[kink], form.slope[kink], form.line_off[kink] = kink, 1.0, 0.0
    elif not form.linear[into]:
        return False
    if not form.moves_amount(into, form.added_to(into, read, unit, form.slope[unit]), charge):
        return False
    form.jump.drop([kink])
    form.kink[kink], form.linear[kink], form.opposite[kink] = False, True, GONE
    form.negligible += 1
    return True


def _cost(columns: Columns, unit: int, height: float) -> Array:
    """What readers are moved by where so much of a unit is left out."""
    sizes = columns.sizes(unit)
    return np.where(sizes > 0.0, sizes * height, 0.0)
