"""Bounds on the layers of a chain, one after another, each using what is known before it."""

from __future__ import annotations

from itertools import product

import numpy as np

from onnx_exact.attack.samples import extreme_corners, greatest_corners
from onnx_exact.bounds import crown
from onnx_exact.bounds.interval import exact_extremes, interval_bounds
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query

# First-layer units whose corners are run forward at once: what they show spares later ones.
CORNERS_BATCH = 64


def bound_by_intervals(knowledge: Knowledge, index: int) -> None:
    """Interval bounds on a layer from those of the layer before."""
    layer = knowledge.chain.layers[index]
    low, high = knowledge.output_bounds(index - 1)
    knowledge.tighten(index, Evidence.INTERVAL, *interval_bounds(layer.affine, low, high))


class Layers:
    """Keeps the relaxations of all layers in step with what is known.

    Attributes:
        knowledge: receives every bound.
        relaxations: of the layers bounded so far, first to last.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.relaxations: list[crown.Relaxation] = []

    def below(self, index: int) -> list[crown.Relaxation]:
        """The relaxations of the layers before `index`."""
        return self.relaxations[:index]

    def bound(self, index: int) -> list[Array]:
        """Interval and backward linear bounds on a layer.

        Returns:
            The last functionals of the linear bounds on signs that stay open, shape (functionals,
            inputs) each: where they are greatest over the box is a corner worth running forward.
        """
        bound_by_intervals(self.knowledge, index)
        if index == 0:
            self._settle_extremes()
        elif self.knowledge.box.finite:
            return self._bound_backward(index)
        return []

    def relax(self, index: int) -> None:
        """Makes or renews the relaxation of a layer; those after it are forgotten."""
        knowledge, layer = self.knowledge, self.knowledge.chain.layers[index]
        if not knowledge.box.finite:
            return
        box = knowledge.box
        before = (
            self.relaxations[index - 1].magnitude
            if index
            else np.maximum(np.abs(box.lower), np.abs(box.upper))
        )
        low, high = knowledge.lower[index], knowledge.upper[index]
        relaxation = crown.relax(layer.affine, layer.relu, low, high, before)
        self.relaxations[index:] = [relaxation]

    def refresh(self, index: int) -> list[Array]:
        """Bounds and relaxes all layers before `index` again, and bounds that layer, as `bound`."""
        functionals = []
        for before in range(index):
            if before:
                functionals += self.bound(before)
            self.relax(before)
        return functionals + self.bound(index)

    def _settle_extremes(self) -> None:
        """Shows the open signs of the first layer at the corners where they are extreme.

        What rounding leaves open even there is decided in rationals.
        """
        knowledge, box = self.knowledge, self.knowledge.box
        first = knowledge.chain.layers[0]
        if not (box.finite and first.relu):
            return
        for start in range(0, first.width, CORNERS_BATCH):
            part = slice(start, start + CORNERS_BATCH)
            positive, negative = (signs[part] for signs in knowledge.open_signs(0))
            weight = first.affine.linear.rows(part)
            rows = np.concatenate([weight[positive], -weight[negative]])
            knowledge.show(greatest_corners(rows, box))
        lower, upper = knowledge.lower[0].copy(), knowledge.upper[0].copy()
        for unit in np.flatnonzero(knowledge.status(0) == Status.UNDECIDED):
            least, most, off = exact_extremes(first.affine, int(unit), box.lower, box.upper)
            up, down = extreme_corners(first.affine.row(int(unit))[None], box)
            if most > off:
                knowledge.show_exactly(Query(0, int(unit), True), up[0])
            if least < -off:
                knowledge.show_exactly(Query(0, int(unit), False), down[0])
            lower[unit] = max(lower[unit], 0.0) if least >= off else lower[unit]
            upper[unit] = min(upper[unit], 0.0) if most <= -off else upper[unit]
        knowledge.tighten(0, Evidence.INTERVAL, lower, upper)

    def _bound_backward(self, index: int) -> list[Array]:
        """Linear bounds on the units of a layer that are not stable, and their functionals.

        With default slopes, and with slopes of 0 for what stays open.
        """
        knowledge, layer = self.knowledge, self.knowledge.chain.layers[index]
        functionals, below = [], self.below(index)
        for slopes, sign in product((None, crown.flat_slopes(below)), (1.0, -1.0)):
            status = knowledge.status(index)
            loose = (status == Status.UNDECIDED) | (status == Status.UNSTABLE)
            units = np.flatnonzero(loose | (not layer.relu))
            if not units.size:
                break
            rows = layer.affine.signed(units, sign)
            bounds, coefficients = crown.upper_bounds(rows, below, knowledge.box, slopes)
            knowledge.conclude_units(index, units, sign > 0, bounds, Evidence.LINEAR)
            if layer.relu:
                open_signs = knowledge.open_signs(index)[0 if sign > 0 else 1]
                functionals.append(coefficients[open_signs[units]])
        return functionals
