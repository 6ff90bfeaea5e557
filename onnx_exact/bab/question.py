"""What branch and bound is asked, and what it answers: signs to exclude, trees and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.trees import LEAF, Leaves, Tree
from onnx_exact.bounds.cases import SLOPE_STEPS, Cases
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box

# How far below 0 a bound has to be, relative to the terms of the pre-activation, so that whoever
# checks it with another rounding finds it below 0 too.
MARGIN = 1e-12


@dataclass(frozen=True, eq=False)
class Question:
    """Signs of units of one layer that are to be excluded, and what is known below.

    Attributes:
        chain, box: the network and its domain, finite.
        layer: of the units.
        units: shape (signs,).
        positive: whether g > 0 of the unit is to be excluded, or g < 0; shape (signs,).
        lower, upper: sound bounds on the pre-activations of the layers before, over the whole box.
        below: relaxations of these layers.
    """

    chain: Chain
    box: Box
    layer: int
    units: NDArray[np.intp]
    positive: NDArray[np.bool_]
    lower: Sequence[Array]
    upper: Sequence[Array]
    below: Sequence[Relaxation]

    @cached_property
    def rows(self) -> Affine:
        """Functionals of the layer's inputs that exceed the signed g by the margin.

        A bound on one that is not above 0 excludes the sign with room for another's rounding.
        """
        affine = self.chain.layers[self.layer].affine
        rows = affine.signed(self.units, np.where(self.positive, 1.0, -1.0))
        return Affine(rows.linear, rows.bias + self.margins, rows.error)

    @cached_property
    def margins(self) -> Array:
        """Of each sign, shape (signs,); 0 in the first layer, where intervals are exact."""
        affine = self.chain.layers[self.layer].affine
        if not self.layer:
            return np.zeros(self.units.size)
        return margins(affine.rows(self.units), self.below[-1].magnitude)

    def only(self, signs: NDArray[np.intp] | NDArray[np.bool_]) -> Question:
        """The question for some of the signs."""
        return replace(self, units=self.units[signs], positive=self.positive[signs])


def margins(affine: Affine, magnitude: Array) -> Array:
    """The margin of each output of a map whose inputs have such magnitudes; 0 where unbounded."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = MARGIN * (affine.linear.absolute().apply(magnitude) + np.abs(affine.bias))
    return np.asarray(np.where(np.isfinite(found), found, 0.0))


def in_bytes(cases: Cases) -> NDArray[np.uint8]:
    """The slopes of cases in units of 1 / `SLOPE_STEPS`, those of all layers side by side."""
    return np.rint(np.concatenate(cases.slopes, axis=1) * SLOPE_STEPS).astype(np.uint8)


def bounded_by_slopes(question: Question, cases: Cases) -> tuple[Tree, ...]:
    """Trees of a single leaf: each sign of the question is excluded by slopes of its own.

    Args:
        question: whose signs they exclude.
        cases: one for each, without assumptions.
    """
    units = np.flatnonzero(np.concatenate([r.unstable for r in question.below]))
    values = in_bytes(cases)[:, units]
    leaf, none = np.array([LEAF], dtype=np.int32), np.zeros(0, dtype=np.float32)
    return tuple(
        Tree(
            *(question.layer, question.units[[i]], question.positive[[i]]),
            *(leaf, Leaves(units, values[[i]], none)),
        )
        for i in range(question.units.size)
    )


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found so far.

    Attributes:
        points: worth running forward, shape (points, inputs).
        trees: each excludes the signs that it names.
    """

    points: Array
    trees: tuple[Tree, ...] = ()
