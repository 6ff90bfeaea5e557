"""Slopes and multipliers for a functional, improved for many sets of assumptions at once.

The bound that `crown.upper_bounds` evaluates is a function of lower slopes alpha and of multipliers
beta of assumptions (beta-CROWN, Wang et al. 2021), convex and piecewise linear in each layer's. It
is minimised by Adam in float32, on values that are not rounded with care: what comes out is
proposed, and evaluated elsewhere.

With A^k the coefficients on h^k and x* a corner that maximises the last functional,

    d bound / d alpha^k_i = min(A^k_i, 0) ghat^k_i,      d bound / d beta^k_i = s_i ghat^k_i,

with ghat the pre-activations of the relaxed network at x*. Their averages over the later steps come
near the relaxation's optimum, as the corners themselves do not: they tell where it loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.crown import Relaxation
from onnx_exact.network.affine import Affine
from onnx_exact.network.domain import Box

Array = NDArray[np.float64]
Single = NDArray[np.float32]

# Lengths of the first steps, for multipliers as a share of the mean coefficient that they are added
# to, and what is left of them at the last step.
SLOPE_STEP = 0.1
MULTIPLIER_STEP = 2.0
LAST_STEP = 0.1
BETAS = (0.8, 0.98)
# Steps that the averages leave out, as a share of all.
WARMING = 1 / 3
# Cases whose bound is below 0 by this share of its terms are left alone, which is looked for now
# and then.
SETTLED = 1e-5
LOOK_EVERY = 4
TINY = np.float32(1e-12)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for sets of assumptions; lists have one array a layer, (cases, units).

    Attributes:
        slopes, multipliers: the best.
        losses: how much the relaxation of each unit seems to cost.
        points: where the relaxation seems to have its optimum, shape (cases, inputs).
    """

    slopes: list[Single]
    multipliers: list[NDArray[Any]]
    losses: list[NDArray[Any]]
    points: Single


class Ascent:
    """One functional of the output of the last of some layers.

    Args:
        row: the functional, one row.
        below: the relaxations of the layers, first to last, at least one, whose units that pass
            nothing on are left out.
        box: the domain, finite.
    """

    def __init__(self, row: Affine, below: Sequence[Relaxation], box: Box) -> None:
        # What overflows in float32 makes values that are never better than those at hand.
        with np.errstate(over="ignore"):
            self._weights: list[Single] = []
            inputs = np.arange(box.lower.size)
            for r in below:
                self._weights.append(_single(r.affine.weight[np.ix_(r.live, inputs)]))
                inputs = r.live
            self._biases = [_single(r.affine.bias[r.live]) for r in below]
            # Of each layer: the upper line's slope and offset, and 1 for an unstable unit.
            self._lines = [
                (
                    _single(r.upper_slope[r.live]),
                    _single(r.upper_offset[r.live]),
                    _single(((r.upper_slope > 0.0) & (r.upper_slope < 1.0))[r.live]),
                )
                for r in below
            ]
            weight = row.weight[0, inputs]
            largest = np.abs(weight).max(initial=0.0)
            # A power of two that brings the functional to the order of 1.
            self._unit = np.exp2(np.floor(np.log2(largest))) if largest > 0.0 else 1.0
            self._row = _single(weight / self._unit)
            self._constant = np.float32(row.bias[0] / self._unit)
            self._middle = _single(0.5 * box.lower + 0.5 * box.upper)
            self._reach = _single(0.5 * box.upper - 0.5 * box.lower)

    def run(
        self,
        signs: Sequence[NDArray[np.int8]],
        slopes: Sequence[Array],
        multipliers: Sequence[Array],
        steps: int,
    ) -> Found:
        """The best slopes and multipliers within some steps, from those at hand."""
        count = len(signs[0])
        with np.errstate(over="ignore", invalid="ignore"):
            found = Found(
                [_single(a) for a in slopes],
                [_single(b / self._unit) for b in multipliers],
                [np.zeros(s.shape, np.float32) for s in signs],
                np.zeros((count, self._middle.size), np.float32),
            )
            work = _Work.of([_single(s) for s in signs], found, self._lines)
            for step in range(steps + 1):
                back = self._backward(work)
                work.keep(back.values, found)
                if step == steps:
                    self._finish(work, back, found)
                    break
                if step % LOOK_EVERY == 0:
                    settled = back.values <= -SETTLED * back.terms
                    if settled.any():
                        self._finish(work.take(settled), back.take(settled), found)
                        work, back = work.take(~settled), back.take(~settled)
                    if not work.rows.size:
                        break
                self._descend(work, back, step, steps)
        return Found(
            found.slopes,
            [self._scaled_back(b) for b in found.multipliers],
            [self._scaled_back(loss) for loss in found.losses],
            np.nan_to_num(found.points),
        )

    def _scaled_back(self, values: NDArray[Any]) -> Array:
        """Values of the functional as it is; 0 for those that overflowed."""
        return np.asarray(self._unit * np.nan_to_num(values.astype(np.float64), posinf=0.0))

    def _backward(self, work: _Work) -> _Back:
        """The functional of each layer's output, and of the input, with the slopes at hand."""
        coefficients = np.broadcast_to(self._row, (work.rows.size, self._row.size))
        constant = np.full(work.rows.size, self._constant)
        outputs, throughs = [], []
        for k in reversed(range(len(self._weights))):
            outputs.append(coefficients)
            positive = np.maximum(coefficients, 0.0)
            constant += np.einsum("ci,ci->c", positive, work.offsets[k])
            through = coefficients - positive
            through *= work.slopes[k]
            positive *= work.upper[k]
            through += positive
            through += work.multipliers[k] * work.signs[k]
            constant += through @ self._biases[k]
            throughs.append(through)
            coefficients = through @ self._weights[k]
        terms = np.abs(coefficients) @ self._reach
        constant += coefficients @ self._middle
        return _Back(outputs[::-1], throughs[::-1], coefficients, constant + terms, terms)

    def _descend(self, work: _Work, back: _Back, step: int, steps: int) -> None:
        """One step of Adam, from a pass forward through the relaxed network."""
        length = LAST_STEP ** (step / steps)
        averaged = step >= WARMING * steps
        point = np.sign(back.inputs)
        point *= self._reach
        point += self._middle
        if averaged:
            work.averaged += 1
            work.point += point
        for k, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            g = point @ weight.T
            g += bias
            if averaged:
                work.average[k] += g
            above = back.outputs[k] > 0.0
            if k + 1 < len(self._weights):
                line = np.where(above, work.upper[k], work.slopes[k])
                point = g * line
                point += work.offsets[k] * above
            slope = np.minimum(back.outputs[k], 0.0)
            slope *= g
            slope *= work.free[k]
            move = _adam(work.slope_moments[k], slope, step)
            move *= np.float32(length * SLOPE_STEP)
            work.slopes[k] -= move
            np.clip(work.slopes[k], 0.0, 1.0, out=work.slopes[k])
            g *= work.signs[k]
            move = _adam(work.multiplier_moments[k], g, step)
            size = np.abs(back.throughs[k]).mean(axis=1, keepdims=True)
            move *= np.float32(length * MULTIPLIER_STEP) * size
            work.multipliers[k] -= move
            np.maximum(work.multipliers[k], 0.0, out=work.multipliers[k])

    def _finish(self, work: _Work, back: _Back, found: Found) -> None:
        """Where relaxations lose on average, and where the optimum seems to be."""
        if not work.averaged:
            work.point += np.sign(back.inputs) * self._reach + self._middle
        found.points[work.rows] = work.point / np.float32(max(work.averaged, 1))
        for k, coefficients in enumerate(back.outputs):
            positive = np.maximum(coefficients, 0.0)
            if work.averaged:
                g = work.average[k] / np.float32(work.averaged)
                relu = np.maximum(g, 0.0)
                loss = positive * (work.upper[k] * g + work.offsets[k] - relu)
                loss += (positive - coefficients) * (relu - work.slopes[k] * g)
            else:
                loss = positive * work.offsets[k]
            found.losses[k][work.rows] = np.maximum(loss * work.free[k], 0.0)


@dataclass(frozen=True, eq=False)
class _Back:
    """A pass back: coefficients on each h, each g and the input; values and their terms' size."""

    outputs: list[Single]
    throughs: list[Single]
    inputs: Single
    values: Single
    terms: Single

    def take(self, chosen: NDArray[np.bool_]) -> _Back:
        """That of some cases."""
        outputs, throughs = ([v[chosen] for v in a] for a in (self.outputs, self.throughs))
        rest = (self.inputs[chosen], self.values[chosen], self.terms[chosen])
        return _Back(outputs, throughs, *rest)


@dataclass(eq=False)
class _Work:
    """The cases that are not settled; lists have one array a layer, (cases, units).

    Attributes:
        rows: which of all cases.
        best: their values with the best slopes and multipliers.
        upper, offsets: the upper line of each ReLU.
        free: 1 where a unit has a choice of slopes, 0 elsewhere.
        average, point: sums of pre-activations and inputs over `averaged` steps.
    """

    rows: NDArray[np.intp]
    best: Single
    signs: list[Single]
    slopes: list[Single]
    multipliers: list[Single]
    upper: list[Single]
    offsets: list[Single]
    free: list[Single]
    slope_moments: list[Single]
    multiplier_moments: list[Single]
    average: list[Single]
    point: Single
    averaged: int = 0

    @staticmethod
    def of(signs: list[Single], found: Found, lines: Sequence[tuple[Single, ...]]) -> _Work:
        """All cases before the first step."""
        none = [(s == 0.0).astype(np.float32) for s in signs]
        on = [(s > 0.0).astype(np.float32) for s in signs]
        moments = [np.zeros((len(s), 2, s.shape[1]), np.float32) for s in signs]
        return _Work(
            rows=np.arange(len(found.points)),
            best=np.full(len(found.points), np.inf, dtype=np.float32),
            signs=signs,
            slopes=[a * n + o for a, n, o in zip(found.slopes, none, on, strict=True)],
            multipliers=[b * (1.0 - n) for b, n in zip(found.multipliers, none, strict=True)],
            upper=[r[0] * n + o for r, n, o in zip(lines, none, on, strict=True)],
            offsets=[r[1] * n for r, n in zip(lines, none, strict=True)],
            free=[r[2] * n for r, n in zip(lines, none, strict=True)],
            slope_moments=moments,
            multiplier_moments=[m.copy() for m in moments],
            average=[np.zeros_like(s) for s in signs],
            point=np.zeros_like(found.points),
        )

    def take(self, chosen: NDArray[np.bool_]) -> _Work:
        """Some of the cases."""
        parts: dict[str, Any] = {
            name: [v[chosen] for v in value] if isinstance(value, list) else value[chosen]
            for name, value in vars(self).items()
            if name != "averaged"
        }
        return _Work(**parts, averaged=self.averaged)

    def keep(self, values: Single, found: Found) -> None:
        """Keeps slopes and multipliers that are better than before."""
        better = values < self.best
        rows = self.rows[better]
        self.best[better] = values[better]
        for k in range(len(self.slopes)):
            found.slopes[k][rows] = self.slopes[k][better]
            found.multipliers[k][rows] = self.multipliers[k][better]


def _single(values: NDArray[Any]) -> Single:
    return values.astype(np.float32)


def _adam(moments: Single, gradient: Single, step: int) -> Single:
    """The direction of a step; moments of shape (cases, 2, units) are brought up to date."""
    first, second = moments[:, 0], moments[:, 1]
    first *= np.float32(BETAS[0])
    first += np.float32(1.0 - BETAS[0]) * gradient
    second *= np.float32(BETAS[1])
    second += np.float32(1.0 - BETAS[1]) * (gradient * gradient)
    size = np.sqrt(second * np.float32(1.0 / (1.0 - BETAS[1] ** (step + 1))))
    size += TINY
    return np.asarray(first * np.float32(1.0 / (1.0 - BETAS[0] ** (step + 1))) / size)
