"""Interval bounds on affine maps over a box: sound in real arithmetic, infinite sides allowed.

    max W x + b = W+ u + W- l + b,    min W x + b = W+ l + W- u + b    over l <= x <= u,

attained at corners, hence exact for the first layer of a chain (up to the slack for rounding).
What overflows has no bound: infinity, never nan.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.operator import Operator
from onnx_exact.network.rounding import SMALLEST, above, slack, total_terms

Flags = NDArray[np.bool_]


def interval_bounds(affine: Affine, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Sound bounds on the outputs of `affine`, whatever it is off by, over lower <= x <= upper.

    Args:
        affine: the map.
        lower, upper: shape (..., in): one box or many; may be infinite.

    Returns:
        Lower and upper, shape (..., out), widened by the rounding error of their own evaluation.
    """
    linear = SignedOperator(affine.linear)
    # The least of W x + b is the negative of the greatest of W y - b over y = -x.
    low = -maximum(linear, -affine.bias, -upper, -lower)
    high = maximum(linear, affine.bias, lower, upper)
    if affine.error is None:
        return low, high
    off = affine.off(np.maximum(np.abs(lower), np.abs(upper)))
    return -above(-low, off), above(high, off)


def interval_maximum(weight: Array, bias: Array, lower: Array, upper: Array) -> Array:
    """A sound upper bound on weight x + bias over lower <= x <= upper, shape (..., rows).

    Args:
        weight, bias: shape (..., rows, in) and (..., rows).
        lower, upper: shape (..., in).
    """
    return maximum(Signed(weight), bias, lower, upper)


@dataclass(frozen=True, eq=False)
class Signed:
    """A map whose entries are given, shape (..., rows, in): one matrix, or one for each box."""

    whole: Array

    @cached_property
    def positive(self) -> Array:
        """The matrix with 0 in place of negative entries."""
        return np.maximum(self.whole, 0.0)

    @cached_property
    def negative(self) -> Array:
        """The matrix with 0 in place of positive entries."""
        return np.minimum(self.whole, 0.0)

    def plus(self, x: Array) -> Array:
        """The positive entries times x."""
        return times(self.positive, x)

    def minus(self, x: Array) -> Array:
        """The negative entries times x."""
        return times(self.negative, x)

    def hits(self, plus: Flags, minus: Flags) -> Flags:
        """Which rows have a positive entry where `plus`, or a negative one where `minus`."""
        found = times((self.whole > 0.0).astype(np.float64), plus.astype(np.float64))
        found += times((self.whole < 0.0).astype(np.float64), minus.astype(np.float64))
        return np.asarray(found > 0.0)


@dataclass(frozen=True, eq=False)
class SignedOperator:
    """An operator as the sum of its parts."""

    whole: Operator

    @cached_property
    def positive(self) -> Operator:
        """Its positive entries."""
        return self.whole.positive()

    @cached_property
    def negative(self) -> Operator:
        """Its negative entries."""
        return self.whole.negative()

    def plus(self, x: Array) -> Array:
        """The positive entries times x."""
        return self.positive.apply(x)

    def minus(self, x: Array) -> Array:
        """The negative entries times x."""
        return self.negative.apply(x)

    def hits(self, plus: Flags, minus: Flags) -> Flags:
        """Which rows have a positive entry where `plus`, or a negative one where `minus`."""
        found = self.positive.pattern().apply(plus.astype(np.float64))
        found += self.negative.pattern().apply(minus.astype(np.float64))
        return np.asarray(found > 0.0)


def maximum(linear: Signed | SignedOperator, bias: Array, lower: Array, upper: Array) -> Array:
    """As `interval_maximum`, for a map of any structure."""
    low, high = (np.where(np.isfinite(v), v, 0.0) for v in (lower, upper))
    n = low.shape[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        # The box of an image begins at 0, which spares half of the work.
        below = linear.minus(low) if low.any() else np.zeros(1)
        over = linear.plus(high) if high.any() or not low.any() else np.zeros(1)
        value = over + below + bias
        # By the sides as they are: 0 in place of an infinite one has lost its sign.
        if lower.min(initial=0.0) >= 0.0:
            magnitude = over - below
        elif upper.max(initial=0.0) <= 0.0:
            magnitude = below - over
        else:
            magnitude = linear.plus(np.abs(high)) - linear.minus(np.abs(low))
        # Where terms are there, what underflows is less than what is rounded anyway.
        underflow = np.where(magnitude == 0.0, 0.0, 2 * n * SMALLEST)
        if not magnitude.all():
            lost = (magnitude == 0.0) & linear.hits(high != 0.0, low != 0.0)
            underflow = np.where(lost, 2 * n * SMALLEST, underflow)
        value = value + slack(total_terms(magnitude, bias, underflow), n, underflow)
    value = np.where(np.isfinite(value), value, np.inf)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        # Every infinite term of a maximum is +inf, so that one of them decides.
        value = np.where(linear.hits(np.isinf(upper), np.isinf(lower)), np.inf, value)
    return value


def times(matrix: Array, vector: Array) -> Array:
    """matrix @ vector for one or many of either: (..., rows, in) and (..., in)."""
    return np.asarray(np.matmul(matrix, vector[..., None])[..., 0])


def exact_extremes(
    affine: Affine, unit: int, lower: Array, upper: Array
) -> tuple[Fraction, Fraction, Fraction]:
    """The exact minimum and maximum of one output over a finite box, in rationals.

    Returns:
        Both, for the numbers as they are, and what those may be off by, anywhere in the box.
    """
    low = high = Fraction(float(affine.bias[unit]))
    row = affine.row(unit)
    for j in np.flatnonzero(row):
        w = Fraction(float(row[j]))
        ends = w * Fraction(float(lower[j])), w * Fraction(float(upper[j]))
        low += min(ends)
        high += max(ends)
    off = Fraction(0)
    if affine.error is not None:
        size = np.maximum(np.abs(lower), np.abs(upper))
        off = Fraction(float(affine.off(size)[unit]))
    return low, high, off
