"""Points that climb for stable units: the search of `benchmarks.attack`, in float32.

Signs climb by projected sign gradients (Madry et al. 2018), at first through ReLUs that leak below
zero, by an amount drawn at random for each point, as is the length of its steps. Arrays are small
enough for the cache and are written over at every step; units of the network that intervals alone
show to be off are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.attack.pgd import Effort
from onnx_exact.network.chain import Layer
from onnx_exact.network.domain import Box

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.intp]

# Entries of the largest array: a megabyte or so, and the least number of points worth a product.
CACHED = 2**18
FEWEST_POINTS = 64
# Decimal logarithms of a point's first step as a share of the box's side; and its last step.
FIRST_STEPS = (-1.7, -0.3)
LAST_STEP = 0.004
# Decimal logarithms of the slopes below zero at the start; they fall to 0 in half of the steps.
LEAKS = (-3.0, 0.0)
# Decimal logarithms of how far the best points are scattered, as a share of the box's side.
SCATTER = (-4.0, -0.5)
SPARSE_SHARES = (0.005, 0.05, 0.2, 0.5)
# Half-width of the cloud around the middle of the box, as a share of its side.
CLOUD = 0.05


# Starting points. Each takes a share of the box's side in [0, 1], entry by entry.


def _uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Single:
    return rng.random(shape, dtype=np.float32)


def _corner(rng: np.random.Generator, shape: tuple[int, int]) -> Single:
    return (_uniform(rng, shape) < 0.5).astype(np.float32)


def _sparse(rng: np.random.Generator, shape: tuple[int, int]) -> Single:
    """A few entries at their upper side, the rest at their lower one."""
    return (_uniform(rng, shape) < rng.choice(SPARSE_SHARES, (shape[0], 1))).astype(np.float32)


def _full(rng: np.random.Generator, shape: tuple[int, int]) -> Single:
    """A few entries at their lower side, the rest at their upper one."""
    return np.float32(1.0) - _sparse(rng, shape)


def _middle(rng: np.random.Generator, shape: tuple[int, int]) -> Single:
    return np.float32(0.5 - CLOUD) + np.float32(2.0 * CLOUD) * _uniform(rng, shape)


KINDS = (_uniform, _sparse, _corner, _middle, _full)


def starts(box: Box, rng: np.random.Generator, count: int, kind: int) -> Array:
    """Points of a finite box, of one of the kinds, shape (count, inputs)."""
    share = KINDS[kind % len(KINDS)](rng, (count, box.lower.size))
    return box.clip(box.lower + share * (box.upper - box.lower))


@dataclass(frozen=True, eq=False)
class Targets:
    """Stable units of one layer, all arrays of shape (units,).

    Attributes:
        layer: its index.
        units: their indices.
        signs: 1 for inactive units and -1 for active ones: sign * g should stay at most `limit`.
        limits: the bound that is claimed for sign * g, at most 0.
    """

    layer: int
    units: Index
    signs: Array
    limits: Array


class Climb:
    """Climbs for units of one layer.

    Args:
        layers: up to that of the targets.
        box: the domain, finite.
        targets: units of the last layer.

    Attributes:
        points: the best point of each target so far, shape (targets, inputs).
        values: sign * g there, as far as float32 can tell.
    """

    def __init__(self, layers: Sequence[Layer], box: Box, targets: Targets) -> None:
        self._box, self._relu = box, [layer.relu for layer in layers[:-1]]
        self._weights, self._biases = _live_part(layers, box)
        signs = targets.signs.astype(np.float32)
        self._own = self._weights.pop()[targets.units] * signs[:, None]
        self._own_bias = self._biases.pop()[targets.units] * signs
        self._low, self._high = box.lower.astype(np.float32), box.upper.astype(np.float32)
        widest = max([box.lower.size, *(len(bias) for bias in self._biases)])
        self._rows = max(FEWEST_POINTS, CACHED // widest)
        self.values = np.full(targets.units.size, -np.inf, dtype=np.float32)
        self.points = np.zeros((targets.units.size, box.lower.size), dtype=np.float32)

    def run(self, chosen: Index, effort: Effort, kind: int, rng: np.random.Generator) -> None:
        """Climbs once for some of the targets.

        Args:
            chosen: which of them; all of them the first time.
            effort: points for each unit, steps for each point.
            kind: of the starting points; odd ones start near the best points so far.
            rng: of every random choice.
        """
        points = min(effort.points, self._rows)
        size = max(1, self._rows // points)
        for start in range(0, chosen.size, size):
            part = chosen[start : start + size]
            batch = _Batch(self._weights, self._biases, self._relu)
            batch.own = np.repeat(self._own[part], points, axis=0)
            batch.own_bias = np.repeat(self._own_bias[part], points)
            for _ in range(0, effort.points, points):
                count = part.size * points
                x = (
                    self._near_the_best(rng, count)
                    if kind % 2
                    else starts(self._box, rng, count, kind).astype(np.float32)
                )
                for values, now in batch.climb(x, self._low, self._high, effort.steps, rng):
                    self._keep(part, points, values, now)

    def _near_the_best(self, rng: np.random.Generator, count: int) -> Single:
        """The best points of any units so far, scattered a little."""
        x = self.points[rng.integers(len(self.points), size=count)]
        scatter = np.float32(10.0) ** rng.uniform(*SCATTER, (count, 1)).astype(np.float32)
        shift = rng.random(x.shape, dtype=np.float32) - np.float32(0.5)
        x += scatter * shift * (self._high - self._low)
        return np.clip(x, self._low, self._high, out=x)

    def _keep(self, part: Index, points: int, values: Single, x: Single) -> None:
        """Keeps the point of each unit that has the greatest value so far."""
        by_unit = values.reshape(part.size, points)
        leader = by_unit.argmax(axis=1)
        most = by_unit[np.arange(part.size), leader]
        better = np.flatnonzero(most > self.values[part])
        self.values[part[better]] = most[better]
        self.points[part[better]] = x[better * points + leader[better]]


def _live_part(layers: Sequence[Layer], box: Box) -> tuple[list[Single], list[Single]]:
    """Weights and biases without the units that intervals show to be off; the last layer whole."""
    weights, biases = [], []
    low, high, inputs = box.lower, box.upper, np.arange(box.lower.size)
    for index, layer in enumerate(layers):
        weight, live = layer.affine.weight[:, inputs], np.arange(layer.width)
        middle = weight @ (0.5 * (low + high)) + layer.affine.bias
        reach = np.abs(weight) @ (0.5 * (high - low))
        low, high = middle - reach, middle + reach
        if layer.relu and index + 1 < len(layers):
            live = np.flatnonzero(high > 0.0)
            low, high = np.maximum(low[live], 0.0), high[live]
        weights.append(weight[live].astype(np.float32))
        biases.append(layer.affine.bias[live].astype(np.float32))
        inputs = live
    return weights, biases


class _Batch:
    """Points that climb together, each for a functional of the last hidden layer of its own.

    Attributes:
        own, own_bias: the functionals, shape (points, units) and (points,).
    """

    def __init__(
        self, weights: Sequence[Single], biases: Sequence[Single], relu: Sequence[bool]
    ) -> None:
        self._weights, self._biases, self._relu = weights, biases, relu
        self.own, self.own_bias = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)

    def climb(
        self, x: Single, low: Single, high: Single, steps: int, rng: np.random.Generator
    ) -> Iterator[tuple[Single, Single]]:
        """Climbs from `x`, which is written over; the values and points of each step."""
        side, shape = high - low, (len(x), 1)
        self._make_room(len(x))
        leaks = np.float32(10.0) ** rng.uniform(*LEAKS, shape).astype(np.float32)
        length = np.float32(10.0) ** rng.uniform(*FIRST_STEPS, shape).astype(np.float32)
        ratio = (np.float32(LAST_STEP) / length) ** np.float32(1.0 / max(1, steps - 1))
        for step in range(steps):
            yield self._values(x), x
            move = self._gradient(leaks * np.float32(max(0.0, 1.0 - 2.0 * step / steps)))
            np.sign(move, out=move)
            move *= length
            move *= side
            length *= ratio
            x += move
            np.minimum(x, high, out=x)
            np.maximum(x, low, out=x)
        for last in (x, np.where(2.0 * x > low + high, high, low)):
            yield self._values(last), last

    def _make_room(self, rows: int) -> None:
        self._outputs = [np.empty((rows, len(b)), np.float32) for b in self._biases]
        self._slopes = [np.empty((rows, len(b)), np.float32) for b in self._biases]
        self._backs = [np.empty((rows, w.shape[1]), np.float32) for w in self._weights]

    def _values(self, x: Single) -> Single:
        """Each point's own value; leaves behind which units are on."""
        h = x
        for weight, bias, relu, g, on in zip(
            *(self._weights, self._biases, self._relu, self._outputs, self._slopes), strict=True
        ):
            np.matmul(h, weight.T, out=g)
            g += bias
            if relu:
                # A product with zeros and ones: choosing would have the processor guess.
                np.greater(g, 0.0, out=on)
                g *= on
            h = g
        values: Single = np.einsum("pi,pi->p", h, self.own)
        values += self.own_bias
        return values

    def _gradient(self, leaks: Single) -> Single:
        """Gradients where the values were taken last, through slopes `leaks` of units off."""
        leaking = bool(leaks.any())
        back = self.own
        for weight, relu, slope, out in zip(
            *(reversed(a) for a in (self._weights, self._relu, self._slopes, self._backs)),
            strict=True,
        ):
            if relu and leaking:
                slope *= np.float32(1.0) - leaks
                slope += leaks
            through = np.multiply(slope, back, out=slope) if relu else back
            back = np.matmul(through, weight, out=out)
        return back
