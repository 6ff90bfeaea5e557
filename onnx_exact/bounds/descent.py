"""The descent that `onnx_exact.bounds.alpha_crown` describes: Adam on slopes and multipliers.

In float32 throughout; arrays have shape (cases, 1, live units), with 1 in place of the cases where
all have the same. What overflows makes values that are never better than those at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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

    def take(self, chosen: NDArray[np.bool_]) -> _Adam:
        """Those of some of the cases."""
        return _Adam(_taken(self.first, chosen), _taken(self.second, chosen))

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

    def take(self, chosen: NDArray[np.bool_]) -> _Layer:
        """That of some of the cases."""
        parts: dict[str, Any] = {
            name: _taken(value, chosen) if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }
        parts |= {
            "slope_adam": self.slope_adam.take(chosen),
            "multiplier_adam": self.multiplier_adam.take(chosen),
        }
        return _Layer(**parts)

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

    def take(self, chosen: NDArray[np.bool_]) -> _Back:
        """That of some of the cases."""
        return _Back(
            [Signed(_taken(v.whole, chosen)) for v in self.outputs],
            [_taken(v, chosen) for v in self.throughs],
            *(_taken(v, chosen) for v in (self.inputs, self.values, self.terms)),
        )


class Descent:
    """The cases that are not settled, and the best of all.

    Attributes:
        slopes, multipliers: the best so far, one array a layer, shape (cases, live units).
    """

    def __init__(
        self, rows: Affine, layers: Sequence[Relaxation], box: Box, start: Cases, goal: Array
    ) -> None:
        count = len(start)
        self._relaxations, self._box = layers, box
        weight = rows.entries[:, layers[-1].live]
        # Powers of two that bring the functionals to the order of 1.
        largest = np.abs(weight).max(axis=-1)
        usable = np.where(largest > 0.0, largest, 1.0)
        self._unit = np.exp2(np.floor(np.log2(usable)))[:, None]
        pairs = zip(layers, passages(layers, start), strict=True)
        self._layers = [_Layer.of(*pair, self._unit[:, None]) for pair in pairs]
        row = _single(weight / self._unit)
        self._row = np.broadcast_to(row, (count, row.shape[1])).copy()[:, None]
        self._constant = _single(rows.bias[:, None] / self._unit)
        read = layers[0].read
        low, high = (np.atleast_2d(v)[:, None, read] for v in (box.lower, box.upper))
        self._middle, self._reach = _single(0.5 * low + 0.5 * high), _single(0.5 * high - 0.5 * low)
        self._goal = _single(goal[:, None] / self._unit)[:, 0]
        self._cases, self._averaged = np.arange(count), 0
        self._best = np.full(count, np.inf, dtype=np.float32)
        self._point = np.zeros((count, 1, read.size), np.float32)
        self._found_points = np.zeros((count, read.size), np.float32)
        self.slopes = [layer.lower[:, 0].copy() for layer in self._layers]
        assumed = [layer for layer in self._layers if layer.signs is not None]
        self.multipliers = [layer.multipliers[:, 0].copy() for layer in assumed]
        self._losses = [np.zeros_like(v) for v in self.slopes]

    def run(self, steps: int) -> None:
        """Improves all cases."""
        for step in range(steps + 1):
            back = self._backward()
            self._keep(back.values)
            if step == steps:
                self._finish(back)
                return
            if step % LOOK_EVERY == 0:
                settled = back.values <= self._goal - SETTLED * back.terms
                if settled.any():
                    self._finish(back, settled)
                    back = back.take(~settled)
                    self._take(~settled)
                if not self._cases.size:
                    return
            self._descend(back, step, steps)

    def _backward(self) -> _Back:
        """The functionals of each layer's output, and of the input, with the slopes at hand."""
        coefficients, constant = self._row, self._constant
        outputs, throughs = [], []
        for layer in reversed(self._layers):
            outputs.append(Signed(coefficients))
            through, offset = layer.pass_back(outputs[-1])
            throughs.append(through)
            constant = constant + offset
            coefficients = layer.linear.pull_back(through)
        terms = times(np.abs(coefficients), self._reach[:, 0])
        values = constant + times(coefficients, self._middle[:, 0]) + terms
        return _Back(outputs[::-1], throughs[::-1], coefficients, values[:, 0], terms[:, 0])

    def _descend(self, back: _Back, step: int, steps: int) -> None:
        """One step, from a pass forward through the relaxed network."""
        averaged = step >= WARMING * steps
        point = np.sign(back.inputs)
        point *= self._reach
        point += self._middle
        if averaged:
            self._averaged += 1
            self._point += point
        for layer, output, through in zip(self._layers, back.outputs, back.throughs, strict=True):
            g = layer.linear.apply(point)
            g += layer.bias
            if averaged:
                layer.average += g
            above = output.whole > 0.0
            point = g * np.where(above, layer.upper, layer.lower)
            point += layer.offset[:, None] * above
            layer.descend(step, steps, output, through, g)

    def _keep(self, values: Values) -> None:
        """Keeps slopes and multipliers that are better than before."""
        better = values < self._best
        cases = self._cases[better]
        self._best = np.where(better, values, self._best)
        for k, layer in enumerate(self._layers):
            self.slopes[k][cases] = _taken(layer.lower, better)[:, 0]
            if self.multipliers:
                self.multipliers[k][cases] = _taken(layer.multipliers, better)[:, 0]

    def _take(self, chosen: NDArray[np.bool_]) -> None:
        """Goes on with some of the cases."""
        self._cases, self._best = self._cases[chosen], self._best[chosen]
        self._goal = self._goal[chosen]
        self._layers = [layer.take(chosen) for layer in self._layers]
        self._row, self._constant, self._middle, self._reach, self._point = (
            _taken(v, chosen)
            for v in (self._row, self._constant, self._middle, self._reach, self._point)
        )

    def _finish(self, back: _Back, chosen: NDArray[np.bool_] | None = None) -> None:
        """Where relaxations lose, and where their optimum seems to be, in some cases or all."""
        chosen = np.ones(self._cases.size, dtype=bool) if chosen is None else chosen
        cases = self._cases[chosen]
        point = self._point / np.float32(max(self._averaged, 1))
        if not self._averaged:
            point = np.sign(back.inputs) * self._reach + self._middle
        self._found_points[cases] = _taken(point, chosen)[:, 0]
        for losses, layer, output in zip(self._losses, self._layers, back.outputs, strict=True):
            losses[cases] = _taken(layer.loss(output, self._averaged), chosen)

    def cases(self, start: Cases) -> Cases:
        """The best ones, as values of all units."""
        slopes = [
            np.rint(a * np.float32(SLOPE_STEPS)) / np.float64(SLOPE_STEPS) for a in self.slopes
        ]
        multipliers = (self._scaled_back(b) for b in self.multipliers)
        return Cases(start.signs, self._widened(slopes), self._widened(multipliers))

    def losses(self) -> tuple[Array, ...]:
        """As `Optimized` has them."""
        return self._widened(self._scaled_back(loss) for loss in self._losses)

    def points(self) -> Array:
        """As `Optimized` has them."""
        found = np.broadcast_to(
            self._box.lower, (len(self._found_points), self._box.lower.shape[-1])
        ).copy()
        found[:, self._relaxations[0].read] = np.nan_to_num(self._found_points)
        return self._box.clip(found)

    def _widened(self, values: Iterable[Array]) -> tuple[Array, ...]:
        """Values of live units in the places that they have among all units, 0 elsewhere."""
        found = []
        for value, layer in zip(values, self._relaxations, strict=False):
            full = np.zeros((len(value), layer.affine.n_out))
            full[:, layer.live] = value
            found.append(full)
        return tuple(found)

    def _scaled_back(self, values: Values) -> Array:
        """Values of the functionals as they are; 0 for those that overflowed."""
        return np.asarray(self._unit * np.nan_to_num(values.astype(np.float64), posinf=0.0))


def _taken(values: Values, chosen: NDArray[np.bool_]) -> Values:
    """Those of some of the cases; what is the same for all has 1 in their place and stays."""
    return values if len(values) == 1 else values[chosen]


def _single(values: Values) -> Values:
    return values.astype(np.float32)
