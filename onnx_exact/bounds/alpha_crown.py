"""Slopes and multipliers for backward linear bounds, improved for many cases at once.

The bound that `crown.backward` evaluates is a function of lower slopes alpha (alpha-CROWN, Xu et
al. 2021) and of multipliers beta of assumptions on signs (beta-CROWN, Wang et al. 2021),

    max A h + c  s.t. s_i g_i >= 0   <=   max A h + c + sum_i beta_i s_i g_i,      beta >= 0,

convex and piecewise linear in each layer's. It is minimised by Adam in float32, on values that are
not rounded with care: what comes out is proposed, and the bound is that of `crown.backward` with
it. Slopes are whole multiples of 1 / `SLOPE_STEPS` and multipliers numbers of float32 throughout,
so that what is found can be kept in few bytes and is the very thing that the bound rests on.

With A^k the coefficients on h^k and x* a corner that maximises the last functional,

    d bound / d alpha^k_i = min(A^k_i, 0) ghat^k_i,      d bound / d beta^k_i = s_i ghat^k_i,

with ghat the pre-activations of the relaxed network at x*. Their averages over the later steps come
near the relaxation's optimum, as the corners themselves do not: they tell where it loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.cases import Cases, bounds_of, default_cases, joined
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.bounds.descent import Descent
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

# Numbers of an array of all layers' slopes that are improved at once: bounds the memory.
MOST_ENTRIES = 2**22


@dataclass(frozen=True, eq=False)
class Optimized:
    """What functionals are at most.

    Attributes:
        bounds: sound upper bounds, under the assumptions of each case, shape (cases,).
        cases: with the slopes and multipliers that attain them.
        corners: where the last functionals are greatest, shape (cases, inputs).
        losses: how much the relaxation of each unit seems to cost, one array a layer, (cases,
            units).
        points: where the relaxation seems to have its optimum, shape (cases, inputs).
    """

    bounds: Array
    cases: Cases
    corners: Array
    losses: tuple[Array, ...]
    points: Array

    def replaced(self, some: NDArray[np.intp], found: Optimized) -> Optimized:
        """These, with what was found for some of the cases in their places."""

        def put(old: Array, new: Array) -> Array:
            changed = np.array(old)
            changed[some] = new
            return changed

        def layers(old: tuple[Array, ...], new: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(put(a, b) for a, b in zip(old, new, strict=True))

        a, b = self.cases, found.cases
        cases = Cases(a.signs, layers(a.slopes, b.slopes), layers(a.multipliers, b.multipliers))
        return Optimized(
            put(self.bounds, found.bounds),
            cases,
            put(self.corners, found.corners),
            layers(self.losses, found.losses),
            put(self.points, found.points),
        )


def optimize(
    rows: Affine,
    layers: Sequence[Relaxation],
    box: Box,
    steps: int,
    start: Cases | None = None,
    goal: Array | float = 0.0,
) -> Optimized:
    """The best bounds on functionals of a layer's output within some steps.

    A case is a functional, a box with the relaxations on it, and a set of assumptions. What is the
    same for all cases is given once. Deterministic: the same arguments give the same bytes.

    Args:
        rows: the functionals of the last layer's output: one for all cases, or one for each.
        layers: the relaxations of the layers below, first to last, at least one: of one box, or of
            one for each case.
        box: the domain, finite, shape (inputs,) or (cases, inputs) as the relaxations have it.
        steps: how many; a case whose bound is at its goal stops before.
        start: slopes and multipliers to start with, and what is assumed; by default nothing is, and
            slopes are those of the relaxations.
        goal: a bound no greater is good enough, for each case or for all.

    Returns:
        Of every case the slopes and multipliers whose value was the least, those it started with
        among them, and the sound bound with these.
    """
    count = max(rows.n_out, len(box.lower) if box.lower.ndim == 2 else 1)
    start = start or default_cases(layers, count)
    count = len(start)
    ends = np.broadcast_to(np.asarray(goal, dtype=np.float64), (count,))
    most = max(1, MOST_ENTRIES // sum(r.live.size for r in layers))
    found: list[Optimized] = []
    for first in range(0, count, most):
        part = np.arange(first, min(first + most, count))
        if part.size == count:
            chosen = rows, layers, box, start
        else:
            several = box.lower.ndim == 2
            chosen = (
                rows.rows(part) if rows.n_out > 1 else rows,
                [r.some(part) for r in layers] if several else layers,
                Box(box.lower[part], box.upper[part]) if several else box,
                start.rows(part),
            )
        found.append(_optimized(*chosen, steps, ends[part]))
    return found[0] if len(found) == 1 else _joined(found)


def _optimized(
    rows: Affine,
    layers: Sequence[Relaxation],
    box: Box,
    start: Cases,
    steps: int,
    goal: Array,
) -> Optimized:
    """As `optimize`, for as many cases as fit into memory."""
    # What overflows in float32 makes values that are never better than those at hand.
    with np.errstate(over="ignore", invalid="ignore"):
        descent = Descent(rows, layers, box, start, goal)
        descent.run(steps)
        cases = descent.cases(start)
    bounds, coefficients = bounds_of(rows, layers, box, cases)
    corners = np.where(coefficients > 0.0, box.upper, box.lower)
    return Optimized(bounds, cases, corners, descent.losses(), descent.points())


def _joined(parts: Sequence[Optimized]) -> Optimized:
    """All parts one after another."""
    cases = joined([p.cases for p in parts])
    losses = tuple(np.concatenate(layer) for layer in zip(*(p.losses for p in parts), strict=True))
    bounds, corners, points = (
        np.concatenate([getattr(p, name) for p in parts])
        for name in ("bounds", "corners", "points")
    )
    return Optimized(bounds, cases, corners, losses, points)
