"""Bounds on signs of one layer over many parts of the input box at once.

A part is bounded as the whole box is: interval and backward linear bounds, layer by layer, within
the bounds known for the box. Bounding the layers below takes nearly all the time, so that only
units whose sign their part leaves open are bounded backwards, and what remains open in the last
step, which is cheap, is tried again with lower slopes optimised for each part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.question import Question
from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.crown import (
    Relaxation,
    Signs,
    coefficients_on,
    relax,
    unstable_units,
    upper_bounds,
)
from onnx_exact.bounds.crown_batched import bound_loose
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.network.affine import Array
from onnx_exact.network.domain import Box

STEPS = 6
# Optimised slopes are not seen to leave less than this of the error of a bound.
LEAST_REMAINDER = 0.55
# What a split leaves of the error of a bound, as experience has it.
SHRINKING = 0.75
# Where a part is this many levels or more from done, its halves are split without being bounded.
AGAIN, MOST_AGAIN = 2.0, 4.0
# What a unit owes to the losses of units below counts this much, next to its own variation.
INHERITED = 0.1
# What every side counts for at least, as a share of the one that counts for most.
LEAST_INFLUENCE = 0.02


@dataclass(frozen=True, eq=False)
class Bounded:
    """What is known of some signs on parts of the box.

    Attributes:
        bounds: sound upper bounds on the functionals, shape (parts, signs).
        corners: the maximisers of the linear bounds, shape (parts, signs, inputs).
        shares: how much of what the bounds lose is due to each side, shape (parts, inputs).
        levels: about how many times a part has to be split before it excludes its signs; (parts,).
        stable: the units of the layers below with one sign on a part, 1 for g >= 0 and -1 for
            g <= 0, shape (parts, units of all layers below).
    """

    bounds: Array
    corners: Array
    shares: Array
    levels: Array
    stable: Signs


class Bounder:
    """Bounds the functionals of a question.

    Args:
        question: on the signs of one layer.
        plain: bounds every unit below, with default slopes alone, as who checks a certificate does.
    """

    def __init__(self, question: Question, *, plain: bool = False) -> None:
        self._rows, self._below = question.rows, question.chain.layers[: question.layer]
        self._lower, self._upper, self._plain = question.lower, question.upper, plain
        widths = [below.width for below in self._below]
        self._starts = np.concatenate([[0], np.cumsum(widths)]).astype(int)

    @property
    def units(self) -> int:
        """Number of units of all layers below."""
        return int(self._starts[-1])

    def bound(self, box: Box, stable: Signs, asked: NDArray[np.bool_]) -> Bounded:
        """Bounds the functionals on parts.

        Args:
            box: of shape (parts, inputs).
            stable: what is known of the parts already, as in `Bounded`.
            asked: the functionals that matter on each part, shape (parts, signs).
        """
        layers, stable = self.relaxations(box, stable)
        bounds, coefficients = upper_bounds(self._rows, layers, box)
        shape = (*asked.shape, box.lower.shape[-1])
        # Without layers below, the functional of the input is the same for every part.
        coefficients = np.broadcast_to(coefficients, shape)
        margins = self._margins(box)
        if layers and not self._plain:
            self._optimize(layers, box, bounds, margins, asked)
        corners = np.where(coefficients > 0.0, box.upper[:, None], box.lower[:, None])
        left = asked & ~(bounds <= 0.0)
        shares = self._shares(layers, box, coefficients, left)
        return Bounded(bounds, corners, shares, _levels(bounds, margins, left), stable)

    def relaxations(self, box: Box, stable: Signs) -> tuple[list[Relaxation], Signs]:
        """Relaxations of the layers below on every part, and the signs that they leave no choice.

        Args:
            box: of shape (parts, inputs).
            stable: as in `Bounded`; 0 where nothing is known.
        """
        low, high = box.lower, box.upper
        magnitude = np.maximum(np.abs(low), np.abs(high))
        relaxations: list[Relaxation] = []
        found = []
        for index, layer in enumerate(self._below):
            lower, upper = interval_bounds(layer.affine, low, high)
            lower = np.maximum(lower, self._lower[index])
            upper = np.minimum(upper, self._upper[index])
            known = stable[:, self._starts[index] : self._starts[index + 1]]
            lower = np.where(known > 0, np.maximum(lower, 0.0), lower)
            upper = np.where(known < 0, np.minimum(upper, 0.0), upper)
            loose = unstable_units(lower, upper) | (not layer.relu)
            if relaxations and self._plain:
                upper = np.fmin(upper, upper_bounds(layer.affine, relaxations, box)[0])
                lower = np.fmax(lower, -upper_bounds(layer.affine.negative, relaxations, box)[0])
            elif relaxations and loose.any():
                bound_loose(layer.affine, loose, relaxations, box, lower, upper)
            found.append((lower >= 0.0).astype(np.int8) - (upper <= 0.0).astype(np.int8))
            relaxations.append(relax(layer.affine, layer.relu, lower, upper, magnitude))
            low, high = relaxations[-1].low, relaxations[-1].high
            magnitude = relaxations[-1].magnitude
        return relaxations, np.concatenate(found, axis=1) if found else stable

    def _shares(
        self,
        layers: list[Relaxation],
        box: Box,
        coefficients: Array,
        left: NDArray[np.bool_],
    ) -> Array:
        """How much each side has to do with what the bounds lose, shape (parts, inputs).

        A bound is too large by what the relaxations of unstable units lose. The loss of a unit is
        shared out among the sides as the variation of its pre-activation along them, in the
        network whose ReLUs have the slopes of their upper lines, and a little as the losses of the
        units below were: where variations cancel, splitting would otherwise go on for ever along
        sides that make them cancel better. Where nothing is lost, the variation of the functionals
        themselves counts.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = box.upper - box.lower
            influence = (np.abs(coefficients) * left[..., None]).sum(axis=1) * lengths
            shares = np.zeros_like(influence)
            through = self._lost(layers, left)
            variation = np.eye(lengths.shape[1]) * lengths[:, None]
            owed = np.zeros_like(variation)
            for layer, lost in zip(layers, through, strict=True):
                variation = layer.affine.linear.apply(variation)
                owed = layer.affine.linear.absolute().apply(owed)
                size = np.abs(variation) + INHERITED * owed
                total = size.sum(axis=1, keepdims=True)
                size /= np.where(total > 0.0, total, 1.0)
                shares += (size @ lost[..., None])[..., 0]
                variation = variation * layer.upper_slope[:, None]
                owed = owed * layer.upper_slope[:, None] + size * layer.upper_offset[:, None]
            shares = np.where(shares.max(axis=1, keepdims=True) > 0.0, shares, influence)
            # A side that seems to count for nothing is split once it is long enough.
            most = shares.max(axis=1, keepdims=True)
            least = np.where(most > 0.0, LEAST_INFLUENCE * most, 1.0) * lengths
            longest = lengths.max(axis=1, keepdims=True)
            shares = np.maximum(shares, least / np.where(longest > 0.0, longest, 1.0))
            return np.asarray(np.nan_to_num(shares))

    def _margins(self, box: Box) -> Array:
        """How far below 0 each functional is at the centre of each part, shape (parts, signs)."""
        with np.errstate(over="ignore", invalid="ignore"):
            h = 0.5 * box.lower + 0.5 * box.upper
            for layer in self._below:
                h = layer.activate(layer.affine.apply(h))
            return np.asarray(-self._rows.apply(h))

    def _optimize(
        self,
        layers: list[Relaxation],
        box: Box,
        bounds: Array,
        margins: Array,
        asked: NDArray[np.bool_],
    ) -> None:
        """Improves bounds in place where slopes may bring them to 0."""
        with np.errstate(over="ignore", invalid="ignore"):
            near = asked & ~(bounds <= 0.0) & ~(margins < LEAST_REMAINDER * (bounds + margins))
        parts, signs = np.nonzero(near)
        if parts.size:
            part = Box(box.lower[parts], box.upper[parts])
            some = [layer.some(parts) for layer in layers]
            found = optimize(self._rows.rows(signs), some, part, STEPS)
            bounds[parts, signs] = np.fmin(bounds[parts, signs], found.bounds)

    def _lost(self, layers: list[Relaxation], left: NDArray[np.bool_]) -> list[Array]:
        """What the relaxation of each unit loses of the bounds in question, (parts, units) each."""
        lost = []
        for layer, coefficients in zip(layers, coefficients_on(self._rows, layers), strict=True):
            weighed = (np.abs(coefficients) * left[..., None]).sum(axis=1)
            lost.append(np.zeros(layer.upper_offset.shape))
            lost[-1][:, layer.live] = weighed * layer.lines.offset
        return lost


def _levels(bounds: Array, margins: Array, left: NDArray[np.bool_]) -> Array:
    """About how many times each part has to be split, as `Bounded` has it.

    What the bound exceeds the value at the centre by is taken to shrink by the same factor with
    every split, until it is less than what the value is below 0.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        levels = np.log((bounds + margins) / margins) / -np.log(SHRINKING)
        return np.asarray(np.where(left & np.isfinite(levels), levels, 0.0).max(axis=1))
