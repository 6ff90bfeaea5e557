"""Branching on the input box, for chains with few inputs.

The box is split along one side at a time; every part is bounded by `crown` on its own, many parts
at once, and an open sign is settled once its bound excludes it on every part. Parts in which no
open sign is left are dropped; centres and corners of parts are run forward as witnesses. The side
to split is the one along which the linear bounds of the part's open signs vary most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.stability import crown
from onnx_exact.stability.interval import interval_bounds
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.verdict import Evidence

MOST_INPUTS = 8
# Parts that are bounded at once, and in all for one layer: bounds the memory and the patience.
BATCH = 256
MOST_PARTS = 60_000
# What every side counts for at least, as a share of the one along which the bounds vary most.
LEAST_INFLUENCE = 0.05


def branch_layer(knowledge: Knowledge, layer: int, deadline: Deadline) -> bool:
    """Settles the open signs of a layer by splitting the box.

    Returns:
        Whether all of them are settled; False where parts or time ran out first.
    """
    if not any(signs.any() for signs in knowledge.splittable_signs(layer)):
        return not any(signs.any() for signs in knowledge.open_signs(layer))
    search = _Branching(knowledge, layer)
    while search.pending and not deadline.passed and search.parts < MOST_PARTS:
        search.step()
    search.conclude()
    return not search.pending


class _Branching:
    """The parts of the box in which signs of one layer are still open."""

    def __init__(self, knowledge: Knowledge, layer: int) -> None:
        self.knowledge, self.layer = knowledge, layer
        positive, negative = knowledge.splittable_signs(layer)
        units = np.concatenate([np.flatnonzero(positive), np.flatnonzero(negative)])
        self.signs = np.concatenate([np.ones(positive.sum()), -np.ones(negative.sum())])
        affine = knowledge.chain.layers[layer].affine
        self.units = units
        self.rows = Affine(
            affine.weight[units] * self.signs[:, None], affine.bias[units] * self.signs
        )
        box = knowledge.box
        everything = np.ones(units.size, dtype=bool)
        self.pending: list[tuple[Array, Array, NDArray[np.bool_]]] = [
            (box.lower, box.upper, everything)
        ]
        self.parts = 0

    def step(self) -> None:
        """Bounds a batch of parts and splits those in which a sign is open."""
        batch, self.pending = self.pending[:BATCH], self.pending[BATCH:]
        self.parts += len(batch)
        box = Box(np.array([p[0] for p in batch]), np.array([p[1] for p in batch]))
        relaxations = self._relaxations(box)
        bounds, coefficients = crown.upper_bounds(self.rows, relaxations, box)
        # Without layers below, the functional of the input is the same for every part.
        coefficients = np.broadcast_to(
            coefficients, (len(batch), self.units.size, box.lower.shape[-1])
        )
        self._show(box, coefficients)
        open_here = np.array([p[2] for p in batch]) & ~(bounds <= 0.0) & self._still_open()
        sides = self._sides(box, coefficients, open_here)
        for part in np.flatnonzero(open_here.any(axis=1)):
            self._split(box.lower[part], box.upper[part], int(sides[part]), open_here[part])

    @staticmethod
    def _sides(box: Box, coefficients: Array, open_here: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The side along which to split each part.

        Where the linear bounds do not depend on a side the units in between may: each counts for a
        share of the most influential one, so that no side stays long for ever.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            influence = (np.abs(coefficients) * open_here[..., None]).sum(axis=1)
            most = influence.max(axis=1, keepdims=True)
            influence = np.maximum(influence, np.where(most > 0.0, LEAST_INFLUENCE * most, 1.0))
            return np.asarray((influence * (box.upper - box.lower)).argmax(axis=1))

    def _relaxations(self, box: Box) -> list[crown.Relaxation]:
        """Relaxations of the layers below on every part, within the bounds known for the box."""
        low, high = box.lower, box.upper
        magnitude = np.maximum(np.abs(low), np.abs(high))
        relaxations: list[crown.Relaxation] = []
        for index, layer in enumerate(self.knowledge.chain.layers[: self.layer]):
            lower, upper = interval_bounds(layer.affine, low, high)
            if relaxations:
                minus = Affine(-layer.affine.weight, -layer.affine.bias)
                upper = np.minimum(upper, crown.upper_bounds(layer.affine, relaxations, box)[0])
                lower = np.maximum(lower, -crown.upper_bounds(minus, relaxations, box)[0])
            lower = np.maximum(lower, self.knowledge.lower[index])
            upper = np.minimum(upper, self.knowledge.upper[index])
            relaxations.append(crown.relax(layer.affine, layer.relu, lower, upper, magnitude))
            low, high = relaxations[-1].low, relaxations[-1].high
            magnitude = relaxations[-1].magnitude
        return relaxations

    def _show(self, box: Box, coefficients: Array) -> None:
        """Runs the centre of each part forward, and the corner its loosest sign points to."""
        self.knowledge.show(0.5 * box.lower + 0.5 * box.upper)
        for row in range(self.units.size):
            corner = np.where(coefficients[:, row] > 0.0, box.upper, box.lower)
            self.knowledge.show(corner)

    def _still_open(self) -> NDArray[np.bool_]:
        """Which of the signs no witness has shown meanwhile."""
        positive, negative = self.knowledge.open_signs(self.layer)
        return np.asarray(np.where(self.signs > 0, positive[self.units], negative[self.units]))

    def _split(self, low: Array, high: Array, side: int, signs: NDArray[np.bool_]) -> None:
        """Adds the two halves of a part along one side."""
        middle = 0.5 * low[side] + 0.5 * high[side]
        left, right = high.copy(), low.copy()
        left[side] = right[side] = middle
        self.pending += [(low, left, signs), (right, high, signs)]

    def conclude(self) -> None:
        """Writes down the signs that are open in no part."""
        left = np.zeros(self.units.size, dtype=bool)
        for _, _, signs in self.pending:
            left |= signs
        proved = self._still_open() & ~left
        width = self.knowledge.chain.layers[self.layer].width
        lower, upper = np.full(width, -np.inf), np.full(width, np.inf)
        upper[self.units[proved & (self.signs > 0)]] = 0.0
        lower[self.units[proved & (self.signs < 0)]] = 0.0
        self.knowledge.tighten(self.layer, Evidence.LINEAR, lower, upper)
