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

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.rounding import (
    SMALLEST,
    SMALLEST_NORMAL,
    slack,
    smallest_nonzero,
    total_terms,
)


def interval_bounds(affine: Affine, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Sound bounds on the outputs of `affine`, whatever it is off by, over lower <= x <= upper.

    Args:
        affine: the map.
        lower, upper: shape (..., in): one box or many; may be infinite.

    Returns:
        Lower and upper, shape (..., out), widened by the rounding error of their own evaluation.
    """
    weight = Signed.of(affine.weight)
    # The least of W x + b is the negative of the greatest of W y - b over y = -x.
    low = -maximum(weight, -affine.bias, -upper, -lower)
    high = maximum(weight, affine.bias, lower, upper)
    if affine.error is None:
        return low, high
    off = affine.off(np.maximum(np.abs(lower), np.abs(upper)))
    return above(-low, off) * -1.0, above(high, off)


def above(bound: Array, off: Array) -> Array:
    """An upper bound on bound + off, and `bound` itself where nothing is off."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(off == 0.0, bound, np.nextafter(bound + off, np.inf))


def interval_maximum(weight: Array, bias: Array, lower: Array, upper: Array) -> Array:
    """A sound upper bound on weight x + bias over lower <= x <= upper, shape (..., rows).

    Args:
        weight, bias: shape (..., rows, in) and (..., rows).
        lower, upper: shape (..., in).
    """
    return maximum(Signed.of(weight), bias, lower, upper)


@dataclass(frozen=True, eq=False)
class Signed:
    """A matrix as the sum of its positive and its negative entries, shape (..., rows, in) each.

    Attributes:
        whole: the matrix.
        smallest: the smallest magnitude of an entry that is not 0.
    """

    whole: Array
    smallest: float

    @staticmethod
    def of(weight: Array) -> Signed:
        """The parts of `weight`, each made when it is asked for."""
        return Signed(weight, smallest_nonzero(weight))

    @cached_property
    def positive(self) -> Array:
        """The matrix with 0 in place of negative entries."""
        return np.maximum(self.whole, 0.0)

    @cached_property
    def negative(self) -> Array:
        """The matrix with 0 in place of positive entries."""
        return np.minimum(self.whole, 0.0)


def maximum(weight: Signed, bias: Array, lower: Array, upper: Array) -> Array:
    """As `interval_maximum`, for a matrix whose parts are at hand."""
    low, high = (np.where(np.isfinite(v), v, 0.0) for v in (lower, upper))
    with np.errstate(over="ignore", invalid="ignore"):
        # The box of an image begins at 0, which spares half of the work.
        below = times(weight.negative, low) if low.any() else np.zeros(1)
        above = times(weight.positive, high) if high.any() or not low.any() else np.zeros(1)
        value = above + below + bias
        # By the sides as they are: 0 in place of an infinite one has lost its sign.
        if lower.min(initial=0.0) >= 0.0:
            magnitude = above - below
        elif upper.max(initial=0.0) <= 0.0:
            magnitude = below - above
        else:
            magnitude = times(weight.positive, np.abs(high)) - times(weight.negative, np.abs(low))
    smallest = weight.smallest * min(smallest_nonzero(low), smallest_nonzero(high))
    n = low.shape[-1]
    underflow = 2 * n * SMALLEST if smallest < SMALLEST_NORMAL else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        value = value + slack(total_terms(magnitude, bias, underflow), n, underflow)
    value = np.where(np.isfinite(value), value, np.inf)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        # Every infinite term of a maximum is +inf, so that one of them decides.
        hit = times((weight.whole > 0.0).astype(np.float64), np.isinf(upper).astype(np.float64))
        hit += times((weight.whole < 0.0).astype(np.float64), np.isinf(lower).astype(np.float64))
        value = np.where(hit > 0.0, np.inf, value)
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
    row = affine.weight[unit]
    for j in np.flatnonzero(row):
        w = Fraction(float(row[j]))
        ends = w * Fraction(float(lower[j])), w * Fraction(float(upper[j]))
        low += min(ends)
        high += max(ends)
    off = Fraction(0)
    if affine.error is not None:
        size = np.maximum(np.abs(lower), np.abs(upper))
        off = Fraction(float(affine.rows(np.array([unit])).off(size)[0]))
    return low, high, off
