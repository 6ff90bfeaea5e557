"""Float64 arithmetic rounded upward, from correctly rounded operations on arrays alone.

A sum of n numbers in any order is off by at most gamma_(n-1) times the sum of their magnitudes,
gamma_n = n u / (1 - n u), u = 2^-53 (Higham 2002, section 3.1); `ROUNDOFF` is 2u, so that the
rounding of the bound itself is in it. What overflows becomes inf or nan and proves nothing.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Units: TypeAlias = NDArray[np.signedinteger[Any]]

ROUNDOFF = 2.0**-52
SMALLEST = 2.0**-1074
SMALLEST_NORMAL = 2.0**-1022
LARGEST = float(np.finfo(np.float64).max)
# Operations beside those that are counted.
EXTRA = 8


def add_up(a: Array, b: Array) -> Array:
    """a + b rounded upward; exact sums stay as they are (TwoSum, Knuth)."""
    s = np.asarray(a + b)
    part = s - a
    error = (a - (s - part)) + (b - part)
    # A sum below every float is at least bounded by the least of them.
    return np.maximum(np.where(error > 0.0, np.nextafter(s, np.inf), s), -LARGEST)


def mul_up(a: Array, b: Array) -> Array:
    """a * b rounded upward; 0 where a factor is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        up = np.maximum(np.nextafter(a * b, np.inf), -LARGEST)
        return np.where((a == 0.0) | (b == 0.0), np.where(np.isnan(a + b), np.nan, 0.0), up)


def sum_up(terms: Array, rounded: bool = False) -> Array:
    """The sum over the last axis rounded upward.

    Args:
        terms: shape (..., n).
        rounded: whether each is a product that has been rounded (and did not underflow).
    """
    unit = ROUNDOFF * (terms.shape[-1] + (EXTRA if rounded else 0))
    return add_up(terms.sum(axis=-1), unit * np.abs(terms).sum(axis=-1))


def dot_up(a: Array, b: Array) -> Array:
    """The sum of products over the last axis rounded upward."""
    terms = a * b
    low = np.abs(terms) < SMALLEST_NORMAL
    total = sum_up(terms, rounded=True)
    if low.any():
        lost = low & (a != 0.0) & (b != 0.0)
        total = add_up(total, SMALLEST * lost.sum(axis=-1))
    return total


def maximum(weight: Array, bias: Array, lower: Array, upper: Array) -> Array:
    """An upper bound on weight x + bias over lower <= x <= upper, shape (..., rows).

    Args:
        weight: shape (..., rows, n).
        bias: shape (..., rows).
        lower, upper: broadcast against `weight`.
    """
    return add_up(dot_up(weight, np.where(weight > 0.0, upper, lower)), bias)


def sum_of_products(a: Array, b: Array, more: float) -> float:
    """An upper bound on a . b + more, which is at most one step above it, and 0 if that is 0.

    By rational arithmetic, for finite numbers.
    """
    used = (a != 0.0) & (b != 0.0)
    pairs = zip(a[used].tolist(), b[used].tolist(), strict=True)
    total = sum((Fraction(x) * Fraction(y) for x, y in pairs), Fraction(more))
    return float(np.nextafter(float(total), np.inf)) if total else 0.0
