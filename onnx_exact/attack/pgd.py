"""A gradient search for witnesses: all open signs of a layer at once.

Each open sign (a unit and the sign it has not shown) gets a few points of its own, which climb by
projected Adam. The ReLU's slope below zero is leaky, annealed to 0, so that a gradient passes
through units that are off at the start. Now and then the points are rounded to
corners, where the extremes of many units lie. The search runs in float32: whatever it proposes is
confirmed by `Knowledge.show`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.verdict import Status

Single = NDArray[np.float32]

# Slopes of the leaky ReLU below zero at the first step; each is that of some of the points. With
# steeper ones, in a deep network, the many paths that are off hide the few that are on.
LEAKS = (0.03, 0.01, 0.003, 0.001)
SHOW_EVERY = 10
BETAS = (0.9, 0.99)
# Step length as a share of the box's side, at the first and at the last step.
STEP_LENGTHS = (0.1, 0.01)
# Points that climb at once: bounds the memory.
CLIMBING_BATCH = 4096
SPARSE_SHARES = (0.0, 0.02, 0.1, 0.3)


@dataclass(frozen=True)
class Effort:
    """How long a search goes on: points for each open sign and steps for each point."""

    points: int = 16
    steps: int = 60


def search_layer(
    knowledge: Knowledge,
    layer: int,
    effort: Effort,
    rng: np.random.Generator,
    deadline: Deadline,
) -> int:
    """Searches witnesses for the open signs of a layer.

    Returns:
        How many signs, of any layer, were seen for the first time.
    """
    found = 0
    positive, negative = knowledge.open_signs(layer)
    units = np.concatenate([np.flatnonzero(positive), np.flatnonzero(negative)])
    signs = np.concatenate([np.ones(positive.sum()), -np.ones(negative.sum())])
    chunk = max(1, CLIMBING_BATCH // effort.points)
    for start in range(0, units.size, chunk):
        if deadline.passed:
            break
        part = slice(start, start + chunk)
        # Where float32 overflows the search is blind; what it proposes is confirmed all the same.
        with np.errstate(over="ignore", invalid="ignore"):
            found += _Climb(knowledge, layer, units[part], signs[part], effort, rng).run(deadline)
    return found


class _Climb:
    """The points of some open signs of one layer, climbing together."""

    def __init__(
        self,
        knowledge: Knowledge,
        layer: int,
        units: NDArray[np.intp],
        signs: NDArray[np.float64],
        effort: Effort,
        rng: np.random.Generator,
    ) -> None:
        self.knowledge, self.layer, self.effort = knowledge, layer, effort
        chain = knowledge.chain.layers[: layer + 1]
        self.weights, self.biases = _live_part(knowledge, layer)
        self.relu = [part.relu for part in chain]
        low, high = knowledge.box.sides()
        self.low, self.high = low.astype(np.float32), high.astype(np.float32)
        self.units = np.repeat(units, effort.points)
        self.signs = np.repeat(signs, effort.points).astype(np.float32)
        self.leaks = np.resize(np.repeat(LEAKS, 4), self.units.size).astype(np.float32)[:, None]
        self.x = self._start(rng)

    def _start(self, rng: np.random.Generator) -> Single:
        """Points and corners from all over the box, sparse and dense ones, and known witnesses."""
        count, n = self.units.size, self.low.size
        side = self.high - self.low
        share = rng.choice(np.array(SPARSE_SHARES), size=(count, 1))
        x = np.where(rng.random((count, n)) < share, rng.random((count, n)), 0.0)
        dense = np.arange(count) % 4 == 3
        x[dense] = rng.random((int(dense.sum()), n))
        x = (self.low + x * side).astype(np.float32)
        witnesses = self.knowledge.witnesses
        if len(witnesses):
            known = np.flatnonzero(np.arange(count) % 4 == 2)
            x[known] = witnesses[rng.integers(len(witnesses), size=known.size)]
        return np.asarray(x, dtype=np.float32)

    def run(self, deadline: Deadline) -> int:
        """Climbs until the steps or the signs run out; the number of signs seen first."""
        side = self.high - self.low
        first, second = np.zeros_like(self.x), np.zeros_like(self.x)
        found = 0
        steps = self.effort.steps
        for step in range(1, steps + 1):
            gradient = self._gradient(self.leaks * np.float32(1.0 - step / steps))
            scale = np.abs(gradient).max(axis=1, keepdims=True)
            gradient /= np.where(scale > 0.0, scale, 1.0)
            length = STEP_LENGTHS[0] + (STEP_LENGTHS[1] - STEP_LENGTHS[0]) * step / steps
            self._move(gradient, first, second, step, np.float32(length) * side)
            if step % SHOW_EVERY == 0 or step == steps or deadline.passed:
                found += self._show()
                still = self._still_open()
                if deadline.passed or not still.any():
                    break
                self.x, self.units, self.signs = self.x[still], self.units[still], self.signs[still]
                self.leaks = self.leaks[still]
                first, second = first[still], second[still]
        return found

    def _move(
        self, gradient: Single, first: Single, second: Single, step: int, length: Single
    ) -> None:
        """One step of Adam into the box, in place; `gradient` is written over."""
        first *= np.float32(BETAS[0])
        first += np.float32(1 - BETAS[0]) * gradient
        second *= np.float32(BETAS[1])
        gradient *= gradient
        gradient *= np.float32(1 - BETAS[1])
        second += gradient
        np.multiply(second, np.float32(1 / (1 - BETAS[1] ** step)), out=gradient)
        np.sqrt(gradient, out=gradient)
        gradient += np.float32(1e-8)
        np.divide(first, gradient, out=gradient)
        gradient *= np.float32(1 / (1 - BETAS[0] ** step)) * length
        self.x += gradient
        np.minimum(self.x, self.high, out=self.x)
        np.maximum(self.x, self.low, out=self.x)

    def _gradient(self, leaks: Single) -> Single:
        """The gradient of each point's own signed pre-activation, with a leaky ReLU of its own."""
        h, slopes = self.x, []
        for weight, bias, relu in zip(
            self.weights[:-1], self.biases[:-1], self.relu[:-1], strict=True
        ):
            g = h @ weight.T
            g += bias
            leak = leaks if relu else np.ones_like(leaks)
            # A product with zeros and ones: choosing would have the processor guess.
            slope = np.greater(g, 0.0, out=np.empty_like(g))
            slope *= np.float32(1.0) - leak
            slope += leak
            slopes.append(slope)
            g *= slope
            h = g
        back = self.weights[-1][self.units] * self.signs[:, None]
        for weight, slope in zip(reversed(self.weights[:-1]), reversed(slopes), strict=True):
            slope *= back
            back = slope @ weight
        return np.asarray(back, dtype=np.float32)

    def _show(self) -> int:
        """Runs the points whose own sign seems to show forward, as they are and as corners."""
        middle = np.float32(0.5) * self.low + np.float32(0.5) * self.high
        corners = np.where(self.x > middle, self.high, self.low)
        found = 0
        for points in (self.x, corners):
            rows = np.flatnonzero(self._values(points) > 0.0)
            _, firsts = np.unique((self.units[rows] + 1) * self.signs[rows], return_index=True)
            if rows.size:
                found += self.knowledge.show(points[rows[firsts]].astype(np.float64))
        return found

    def _values(self, points: Single) -> Single:
        """Each point's own signed pre-activation."""
        h = points
        for weight, bias, relu in zip(
            self.weights[:-1], self.biases[:-1], self.relu[:-1], strict=True
        ):
            h = h @ weight.T + bias
            h = np.maximum(h, 0.0) if relu else h
        value = np.einsum("pi,pi->p", h, self.weights[-1][self.units]) + self.biases[-1][self.units]
        return np.asarray(value * self.signs, dtype=np.float32)

    def _still_open(self) -> NDArray[np.bool_]:
        """Which points climb for a sign that is still open."""
        positive, negative = self.knowledge.open_signs(self.layer)
        return np.asarray(np.where(self.signs > 0, positive[self.units], negative[self.units]))


def _live_part(knowledge: Knowledge, layer: int) -> tuple[list[Single], list[Single]]:
    """Weights and biases up to a layer, without the stably inactive units of the layers below."""
    weights, biases = [], []
    inputs = np.arange(knowledge.chain.n_in)
    for index, part in enumerate(knowledge.chain.layers[: layer + 1]):
        live = np.arange(part.width)
        if part.relu and index < layer:
            live = np.flatnonzero(knowledge.status(index) != Status.INACTIVE)
        weights.append(part.affine.weight[np.ix_(live, inputs)].astype(np.float32))
        biases.append(part.affine.bias[live].astype(np.float32))
        inputs = live
    return weights, biases
