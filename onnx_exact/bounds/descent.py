"""The descent that `onnx_exact.bounds.alpha_crown` describes: Adam on slopes and multipliers.

In float32 throughout; arrays have shape (cases, 1, live units), with 1 in place of the cases where
all have the same. What overflows makes values that are never better than those at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.cases import SLOPE_STEPS, Cases, Passage, passages
from onnx_exact.bounds.crown import Relaxation, pass_back
from onnx_exact.bounds.interval import Signed, times
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.network.operator import SingleMap

# Numbers of float32.
Values = NDArray[Any]

# Lengths of the first steps, and what is left of them at the last one. For slopes such that all of
# them together could cross the range so often, within limits; for multipliers as a share of the
# mean coefficient that they are added to.
CROSSINGS = 2.0
LEAST_STEP, MOST_STEP = 0.1, 0.5
MULTIPLIER_STEP = 2.0
LAST_STEP = 0.1
BETAS = (0.8, 0.98)
# Steps that the averages leave out, as a share of all.
WARMING = 1 / 3
# Cases whose bound is below the goal by this share of its terms are left alone, which is looked for
# now and then.
SETTLED = 1e-5
LOOK_EVERY = 4
TINY = np.float32(1e-12)


@dataclass(eq=False)
class _Adam:
    """Averages of gradients and of their squares."""

    first: Values
    second: Values

    @staticmethod
    def of(values: Values) -> _Adam:
        """Before the first step."""
        return _Adam(np.zeros_like(values), np.zeros_like(values))

    def move(self, gradient: Values, step: int, length: float) -> Values:
        """A step of about a length; `gradient` is written over."""
        slow, slower = BETAS
        self.first *= np.float32(slow)
        self.first += np.float32(1.0 - slow) * gradient
        gradient *= gradient
        gradient *= np.float32(1.0 - slower)
        self.second *= np.float32(slower)
        self.second += gradient
        size = np.sqrt(self.second, out=gradient)
        size += TINY
        move = np.divide(self.first, size, out=size)
        length *= float(np.sqrt(1.0 - slower ** (step + 1))) / (1.0 - slow ** (step + 1))
        move *= np.float32(length)
        return move


@dataclass(eq=False)
class _Layer:
    """One layer for the cases that are not settled.

    Attributes:
        linear, bias: the map of the live units; the bias has shape (1, units).
        upper, offset: the upper line; the offset has shape (cases, units).
        free: 1 where a unit has a choice of slopes, 0 elsewhere.
        slopes: as Adam moves them.
        lower: as they count, the nearest ones of the grid.
        slope_adam: of the slopes.
        average: sum of pre-activations over the later steps.
        signs: of the assumptions; None where nothing is assumed.
        multipliers, multiplier_adam: of these; of no meaning without.
    """

    linear: SingleMap
    bias: Values
    upper: Values
    offset: Values
    free: Values
    slopes: Values
    lower: Values
    slope_adam: _Adam
    average: Values
    signs: Values | None
    multipliers: Values
    multiplier_adam: _Adam

    @staticmethod
    def of(layer: Relaxation, way: Passage, unit: Array) -> _Layer:
        """A layer before the first step; multipliers are in multiples of `unit`."""
        slopes, nothing = _single(way.slopes), np.zeros((1, 1, 1), np.float32)
        found = _Layer(
            linear=layer.core.linear.single(),
            bias=_single(layer.core.bias)[None],
            upper=_single(way.lines.upper.reshape(-1, *slopes.shape[1:])),
            offset=_single(np.atleast_2d(way.lines.offset)),
            free=_single(way.free),
            slopes=slopes,
            lower=slopes,
            slope_adam=_Adam.of(slopes),
            average=np.zeros_like(slopes),
            signs=None if way.assumed is None else _single(way.assumed.signs),
            multipliers=nothing if way.assumed is None else _single(way.assumed.multipliers / unit),
            multiplier_adam=_Adam.of(nothing if way.assumed is None else slopes),
        )
        found.settle_slopes()
        return found

    def settle_slopes(self) -> None:
        """The slopes that count: the nearest ones of the grid."""
        self.lower = np.rint(self.slopes * np.float32(SLOPE_STEPS))
        self.lower *= np.float32(1.0 / SLOPE_STEPS)

    def pass_back(self, signed: Signed) -> tuple[Values, Values]:
        """Functionals of the outputs as those of the pre-activations, and their constants."""
        multiplier = None if self.signs is None else self.multipliers * self.signs
        through, constant = pass_back(signed, self.upper, self.lower, self.offset, multiplier)
        constant += times(through, self.bias)
        return through, constant

    def descend(self, step: int, steps: int, output: Signed, through: Values, g: Values) -> None:
        """One step of Adam, by the pre-activations where the relaxed layers attain the bound."""
        last = LAST_STEP ** (step / steps)
        gradient = output.negative * g
        gradient *= self.free
        length = last * min(max(CROSSINGS / steps, LEAST_STEP), MOST_STEP)
        self.slopes -= self.slope_adam.move(gradient, step, length)
        np.minimum(self.slopes, 1.0, out=self.slopes)
        np.maximum(self.slopes, 0.0, out=self.slopes)
        self.settle_slopes()
        if self.signs is not None:
            move = self.multiplier_adam.move(g * self.signs, step, last * MULTIPLIER_STEP)
            sizes = np.add.reduce(np.abs(through), axis=-1, keepdims=True)
            move *= sizes * np.float32(1.0 / through.shape[-1])
            self.multipliers -= move
            np.maximum(self.multipliers, 0.0, out=self.multipliers)

    def loss(self, output: Signed, averaged: int) -> Values:
        """How much each unit's relaxation costs: on average, or where nothing is averaged at most.

        Shape (cases, units).
        """
        if not averaged:
            loss = output.positive[:, 0] * self.offset
        else:
            g = self.average / np.float32(averaged)
            relu = np.maximum(g, 0.0)
            loss = output.positive * (self.upper * g + self.offset[:, None] - relu)
            loss -= output.negative * (relu - self.lower * g)
            loss = loss[:, 0]
        return np.asarray(np.maximum(loss * self.free[:, 0], 0.0))


@dataclass(frozen=True, eq=False)
class _Back:
    """A pass back: functionals of each layer's outputs and pre-activations, and of the inputs.

    Attributes:
        values: the bounds, shape (cases,), and the size of their terms.
    """

    outputs: list[Signed]
    throughs: list[Values]
    inputs: Values
    values: Values
    terms: Values


@dataclass(eq=False)
class _Work:
    """The cases that are not settled.

    Attributes:
        cases: which of all, shape (cases,).
        best: their least values so far, and `goal` those that will do; shape (cases,).
        row, constant: the functionals, shape (cases, 1, units) and (cases, 1).
        middle, reach: of the box, shape (cases, 1, inputs).
        point: sum of the corners over `averaged` steps, the same shape.
    """

    cases: NDArray[np.intp]
    best: Values
    goal: Values
    row: Values
    constant: Values
    middle: Values
    reach: Values
    point: Values
    layers: list[_Layer]
    averaged: int = 0

    def backward(self) -> _Back:
        """The functionals of each layer's output, and of the input, with the slopes at hand."""
        coefficients, constant = self.row, self.constant
        outputs, throughs = [], []
        for layer in reversed(self.layers):
            outputs.append(Signed(coefficients))
            through, offset = layer.pass_back(outputs[-1])
            throughs.append(through)
            constant = constant + offset
            coefficients = layer.linear.pull_back(through)
        terms = times(np.abs(coefficients), self.reach[:, 0])
        values = constant + times(coefficients, self.middle[:, 0]) + terms
        return _Back(outputs[::-1], throughs[::-1], coefficients, values[:, 0], terms[:, 0])

    def corner(self, back: _Back) -> Values:
        """Where the last functionals are greatest, shape (cases, 1, inputs)."""
        point = np.sign(back.inputs)
        point *= self.reach
        point += self.middle
        return point

    def descend(self, back: _Back, step: int, steps: int) -> None:
        """One step, from a pass forward through the relaxed network."""
        point, averaged = self.corner(back), step >= WARMING * steps
        if averaged:
            self.averaged += 1
            self.point += point
        for layer, output, through in zip(self.layers, back.outputs, back.throughs, strict=True):
            g = layer.linear.apply(point)
            g += layer.bias
            if averaged:
                layer.average += g
            above = output.whole > 0.0
            point = g * np.where(above, layer.upper, layer.lower)
            point += layer.offset[:, None] * above
            layer.descend(step, steps, output, through, g)


class Descent:
    """Some functionals, the cases that are not settled, and the best of all.

    Args:
        rows, layers, box, start, goal: as for `onnx_exact.bounds.alpha_crown.optimize`.
    """

    def __init__(
        self, rows: Affine, layers: Sequence[Relaxation], box: Box, start: Cases, goal: Array
    ) -> None:
        self._relaxations, self._box, count = layers, box, len(start)
        weight, read = rows.entries[:, layers[-1].live], layers[0].read
        # Powers of two that bring the functionals to the order of 1.
        largest = np.abs(weight).max(axis=-1)
        self._unit = np.exp2(np.floor(np.log2(np.where(largest > 0.0, largest, 1.0))))[:, None]
        row = _single(weight / self._unit)
        low, high = (np.atleast_2d(v)[:, None, read] for v in (box.lower, box.upper))
        pairs = zip(layers, passages(layers, start), strict=True)
        self._work = _Work(
            cases=np.arange(count),
            best=np.full(count, np.inf, dtype=np.float32),
            goal=_single(goal[:, None] / self._unit)[:, 0],
            row=np.broadcast_to(row, (count, row.shape[1])).copy()[:, None],
            constant=_single(rows.bias[:, None] / self._unit),
            middle=_single(0.5 * low + 0.5 * high),
            reach=_single(0.5 * high - 0.5 * low),
            point=np.zeros((count, 1, read.size), np.float32),
            layers=[_Layer.of(*pair, self._unit[:, None]) for pair in pairs],
        )
        every = self._work.layers
        self._slopes = [layer.lower[:, 0].copy() for layer in every]
        self._multipliers = [v.multipliers[:, 0].copy() for v in every if v.signs is not None]
        self._losses = [np.zeros_like(v) for v in self._slopes]
        self._points = np.zeros((count, read.size), np.float32)

    def run(self, steps: int) -> None:
        """Improves all cases."""
        for step in range(steps + 1):
            back = self._work.backward()
            self._keep(back.values)
            if step == steps:
                self._finish(back, np.ones(len(back.values), dtype=bool))
            elif step % LOOK_EVERY == 0:
                settled = back.values <= self._work.goal - SETTLED * back.terms
                self._finish(back, settled)
                if settled.all():
                    return
                if settled.any():
                    back, self._work = _some(back, ~settled), _some(self._work, ~settled)
            if step < steps:
                self._work.descend(back, step, steps)

    def _keep(self, values: Values) -> None:
        """Keeps slopes and multipliers that are better than before."""
        better = values < self._work.best
        cases = self._work.cases[better]
        self._work.best = np.where(better, values, self._work.best)
        for k, layer in enumerate(self._work.layers):
            self._slopes[k][cases] = layer.lower[better, 0]
            if self._multipliers:
                self._multipliers[k][cases] = layer.multipliers[better, 0]

    def _finish(self, back: _Back, chosen: NDArray[np.bool_]) -> None:
        """Where relaxations lose, and where their optimum seems to be, in some cases."""
        work, cases = self._work, self._work.cases[chosen]
        if cases.size:
            averaged = work.averaged
            point = work.point / np.float32(averaged) if averaged else work.corner(back)
            self._points[cases] = point[chosen, 0]
            for losses, layer, output in zip(self._losses, work.layers, back.outputs, strict=True):
                losses[cases] = layer.loss(output, averaged)[chosen]

    def cases(self, start: Cases) -> Cases:
        """The best ones, as values of all units."""
        slopes = (np.rint(a.astype(np.float64) * SLOPE_STEPS) / SLOPE_STEPS for a in self._slopes)
        multipliers = (self._scaled_back(b) for b in self._multipliers)
        return Cases(start.signs, self._widened(slopes), self._widened(multipliers))

    def losses(self) -> tuple[Array, ...]:
        """As `Optimized` has them."""
        return self._widened(self._scaled_back(loss) for loss in self._losses)

    def points(self) -> Array:
        """As `Optimized` has them."""
        found = np.tile(
            self._box.lower, (len(self._points) // np.atleast_2d(self._box.lower).shape[0], 1)
        )
        found[:, self._relaxations[0].read] = np.nan_to_num(self._points)
        return self._box.clip(found)

    def _widened(self, values: Iterable[Array]) -> tuple[Array, ...]:
        """Values of live units in the places that they have among all units, 0 elsewhere."""
        found = []
        for value, layer in zip(values, self._relaxations, strict=False):
            found.append(np.zeros((len(value), layer.affine.n_out)))
            found[-1][:, layer.live] = value
        return tuple(found)

    def _scaled_back(self, values: Values) -> Array:
        """Values of the functionals as they are; 0 for those that overflowed."""
        return np.asarray(self._unit * np.nan_to_num(values.astype(np.float64), posinf=0.0))


def _some(value: Any, chosen: NDArray[np.bool_]) -> Any:
    """The arrays in `value` for some of the cases, more than one before.

    What is the same for all has 1 in their place and stays.
    """
    if isinstance(value, np.ndarray):
        return value if len(value) == 1 else value[chosen]
    if isinstance(value, list):
        return [_some(part, chosen) for part in value]
    if isinstance(value, (_Work, _Layer, _Adam, _Back, Signed)):
        parts = {f.name: _some(getattr(value, f.name), chosen) for f in fields(value)}
        return type(value)(**parts)
    return value


def _single(values: Values) -> Values:
    return values.astype(np.float32)
