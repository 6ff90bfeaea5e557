"""A gradient search for witnesses: all open queries of a layer at once.

Each query gets a few points of its own, which climb by projected Adam. The ReLU's slope below zero
is leaky, annealed to 0, so that a gradient passes through units that are off at the start. Now and
then the points are rounded to corners, where the extremes of many units lie. The search runs in
float32, and only proposes: a point is a witness once a forward pass has confirmed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.operator import SingleMap
from onnx_exact.network.query import Query

Single = NDArray[np.float32]
Index = NDArray[np.intp]

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
    """How long a search goes on: points for each query and steps for each point."""

    points: int = 16
    steps: int = 60

    @property
    def queries_at_once(self) -> int:
        """How many queries' points climb together."""
        return max(1, CLIMBING_BATCH // self.points)


class Climb:
    """The points of some queries of one layer, climbing together.

    Args:
        chain: the network.
        live: for each layer below that of the queries, the units that are not known to be inactive;
            the others are left out.
        box: the domain, finite.
        queries: all of one layer, at most `effort.queries_at_once`.
        effort: see there.
        rng: of every random choice.
        known: points of the box to begin with as well, shape (points, inputs).

    Attributes:
        products: multiplications so far, those of the weights in all gradients.
    """

    # Where float32 overflows the search is blind; what it proposes is confirmed all the same.
    @np.errstate(over="ignore", invalid="ignore")
    def __init__(
        self,
        chain: Chain,
        live: Sequence[Index],
        box: Box,
        queries: Sequence[Query],
        effort: Effort,
        rng: np.random.Generator,
        known: Array,
    ) -> None:
        self.products = 0.0
        self._steps, self._step = effort.steps, 0
        self._maps, self._biases, self._own, self._size = _live_part(chain, live)
        self._relu = [part.relu for part in chain.layers[: len(live)]]
        low, high = box.sides()
        self._low, self._high = low.astype(np.float32), high.astype(np.float32)
        of = np.repeat(np.arange(len(queries)), effort.points)
        self._of, self._units = of, np.array([query.unit for query in queries], dtype=np.intp)[of]
        self._signs = np.array([query.sign for query in queries], dtype=np.float32)[of]
        self._leaks = np.resize(np.repeat(LEAKS, 4), of.size).astype(np.float32)[:, None]
        self._x = self._start(rng, known)
        self._first, self._second = np.zeros_like(self._x), np.zeros_like(self._x)

    @property
    def done(self) -> bool:
        """Whether the steps or the points have run out."""
        return self._step == self._steps or not self._of.size

    def _start(self, rng: np.random.Generator, known: Array) -> Single:
        """Points and corners from all over the box, sparse and dense ones, and known points."""
        count, n = self._of.size, self._low.size
        side = self._high - self._low
        share = rng.choice(np.array(SPARSE_SHARES), size=(count, 1))
        x = np.where(rng.random((count, n)) < share, rng.random((count, n)), 0.0)
        dense = np.arange(count) % 4 == 3
        x[dense] = rng.random((int(dense.sum()), n))
        x = (self._low + x * side).astype(np.float32)
        if len(known):
            taken = np.flatnonzero(np.arange(count) % 4 == 2)
            x[taken] = known[rng.integers(len(known), size=taken.size)]
        return np.asarray(x, dtype=np.float32)

    @np.errstate(over="ignore", invalid="ignore")
    def advance(self) -> Array:
        """Climbs some steps.

        Returns:
            Points that seem to show their own query's sign, one each, shape (points, inputs).
        """
        side = self._high - self._low
        until = min(self._step + SHOW_EVERY - self._step % SHOW_EVERY, self._steps)
        each = 2.0 * len(self._x) * self._size
        for step in range(self._step + 1, until + 1):
            gradient = self._gradient(self._leaks * np.float32(1.0 - step / self._steps))
            scale = np.abs(gradient).max(axis=1, keepdims=True)
            gradient /= np.where(scale > 0.0, scale, 1.0)
            length = STEP_LENGTHS[0] + (STEP_LENGTHS[1] - STEP_LENGTHS[0]) * step / self._steps
            self._move(gradient, step, np.float32(length) * side)
            self.products += each
        self._step = until
        return self._promising()

    def keep(self, still: NDArray[np.bool_]) -> None:
        """Goes on with the points of some queries alone, shape (queries,)."""
        rows = still[self._of]
        self._x, self._of, self._units = self._x[rows], self._of[rows], self._units[rows]
        self._signs, self._leaks = self._signs[rows], self._leaks[rows]
        self._first, self._second = self._first[rows], self._second[rows]

    def _move(self, gradient: Single, step: int, length: Single) -> None:
        """One step of Adam into the box, in place; `gradient` is written over."""
        first, second = self._first, self._second
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
        self._x += gradient
        np.minimum(self._x, self._high, out=self._x)
        np.maximum(self._x, self._low, out=self._x)

    def _gradient(self, leaks: Single) -> Single:
        """The gradient of each point's own signed pre-activation, with a leaky ReLU of its own."""
        h, slopes = self._x, []
        for below, bias, relu in zip(self._maps, self._biases[:-1], self._relu, strict=True):
            g = below.apply(h)
            g += bias
            leak = leaks if relu else np.ones_like(leaks)
            # A product with zeros and ones: choosing would have the processor guess.
            slope = np.greater(g, 0.0, out=np.empty_like(g))
            slope *= np.float32(1.0) - leak
            slope += leak
            slopes.append(slope)
            g *= slope
            h = g
        back = self._own[self._units] * self._signs[:, None]
        for below, slope in zip(reversed(self._maps), reversed(slopes), strict=True):
            slope *= back
            back = below.pull_back(slope)
        return np.asarray(back, dtype=np.float32)

    def _promising(self) -> Array:
        """Points and their corners whose own sign seems to show, the first of each query."""
        middle = np.float32(0.5) * self._low + np.float32(0.5) * self._high
        found = []
        for points in (self._x, np.where(self._x > middle, self._high, self._low)):
            rows = np.flatnonzero(self._values(points) > 0.0)
            _, firsts = np.unique(self._of[rows], return_index=True)
            found.append(points[rows[firsts]].astype(np.float64))
        return np.concatenate(found)

    def _values(self, points: Single) -> Single:
        """Each point's own signed pre-activation."""
        h = points
        for below, bias, relu in zip(self._maps, self._biases[:-1], self._relu, strict=True):
            h = below.apply(h) + bias
            h = np.maximum(h, 0.0) if relu else h
        value = np.einsum("pi,pi->p", h, self._own[self._units]) + self._biases[-1][self._units]
        return np.asarray(value * self._signs, dtype=np.float32)


def _live_part(
    chain: Chain, live: Sequence[Index]
) -> tuple[list[SingleMap], list[Single], Single, int]:
    """The live units below and all units of the layer after them, in float32.

    Returns:
        The maps of the layers below, the biases of all layers, the rows of the last layer, and how
        many entries the maps have.
    """
    maps, biases, size = [], [], 0
    inputs: Index = np.arange(chain.n_in)
    for part, units in zip(chain.layers, live, strict=False):
        linear = part.affine.linear.restrict(inputs, units)
        maps.append(linear.single())
        biases.append(part.affine.bias[units].astype(np.float32))
        inputs, size = units, size + linear.size
    last = chain.layers[len(live)].affine
    biases.append(last.bias.astype(np.float32))
    own = last.reading(inputs).entries.astype(np.float32)
    return maps, biases, own, size
