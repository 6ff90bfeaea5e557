"""Interval arithmetic on arrays in float64, rounded outward.

One operation rounded to nearest is off by at most half a step, so the next float outward is sound;
sums found exact (Knuth's TwoSum gives the error itself) and products by 0 and +-1 stay as they are.
A sum of n products in any order is off by at most gamma_n times the sum of their magnitudes (Higham
2002, section 3.1), plus 2^-1074 for every product that underflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

UNIT_ROUNDOFF = 2.0**-53
SMALLEST = 2.0**-1074
# The few operations around a sum of products: the bias, and the evaluation of the bound itself.
EXTRA_OPERATIONS = 16

# Linear in its second argument: (weight, x) -> sum of products.
Product = Callable[[Array, Array], Array]
Function = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Interval:
    """lower <= x <= upper entry by entry; infinite sides allowed, never lower = inf.

    Sizes of 1 along an axis stand for the same bounds all along it; an array without axes, for a
    tensor of any rank.
    """

    lower: Array
    upper: Array

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.lower.ndim

    def hull(self, axes: tuple[int, ...] | None = None) -> Interval:
        """The bounds over all positions of some axes, which keep size 1; None: of all axes."""
        if axes == ():
            return self
        low, high = (
            self.lower.min(axis=axes, keepdims=True),
            self.upper.max(axis=axes, keepdims=True),
        )
        return Interval(low, high)

    def mapped(self, f: Function) -> Interval:
        """The image under an exact non-decreasing function, or a mere change of the axes."""
        return Interval(f(self.lower), f(self.upper))


def point(values: Array) -> Interval:
    """The interval of a constant; nothing is known of entries that are not finite."""
    finite = np.isfinite(values)
    return Interval(np.where(finite, values, -np.inf), np.where(finite, values, np.inf))


def unknown(rank: int | None) -> Interval:
    """Nothing is known of a tensor of this rank."""
    shape = (1,) * (rank or 0)
    return Interval(np.full(shape, -np.inf), np.full(shape, np.inf))


def between(lower: float, upper: float, rank: int | None) -> Interval:
    """The same bounds for every entry."""
    shape = (1,) * (rank or 0)
    return Interval(np.full(shape, lower), np.full(shape, upper))


def gamma(n: int) -> float:
    """Twice gamma_n with a few operations added: the factor covers the rounding of the bound."""
    k = (n + EXTRA_OPERATIONS) * UNIT_ROUNDOFF
    return 2.0 * k / (1.0 - k)


def valid(lower: Array, upper: Array) -> Interval:
    """The interval with these sides; where an overflow left no side, there is no bound."""
    low = np.where(np.isnan(lower) | (lower == np.inf), -np.inf, lower)
    high = np.where(np.isnan(upper) | (upper == -np.inf), np.inf, upper)
    return Interval(low, high)


def outward(lower: Array, upper: Array) -> Interval:
    """One step outward, for sides that a single operation has rounded.

    Where that overflowed, the true value is at least the largest float, which is one step inward of
    the infinity: that bound is sound, too.
    """
    return Interval(np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf))


def extremes(values: list[Array], exact: list[NDArray[np.bool_]]) -> Interval:
    """The interval of some values, each rounded by one operation except where it is exact."""
    widened = [outward(v, v) for v in values]
    pairs = list(zip(values, exact, widened, strict=True))
    return Interval(
        np.minimum.reduce([np.where(e, v, w.lower) for v, e, w in pairs]),
        np.maximum.reduce([np.where(e, v, w.upper) for v, e, w in pairs]),
    )


def add(a: Interval, b: Interval) -> Interval:
    """a + b."""
    (low, low_exact), (high, high_exact) = _sum(a.lower, b.lower), _sum(a.upper, b.upper)
    widened = outward(low, high)
    return Interval(
        np.where(low_exact, low, widened.lower), np.where(high_exact, high, widened.upper)
    )


def _sum(a: Array, b: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The rounded sum, and where it is the exact one (Knuth's TwoSum, valid barring overflow)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.asarray(a + b)
        part = total - a
        error = (a - (total - part)) + (b - part)
    exact = (error == 0.0) | (np.isinf(total) & (np.isinf(a) | np.isinf(b)))
    return total, np.asarray(exact)


def negate(a: Interval) -> Interval:
    """-a."""
    return Interval(-a.upper, -a.lower)


def multiply(a: Interval, b: Interval) -> Interval:
    """a * b for independent a and b."""
    pairs = [(x, y) for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
    with np.errstate(invalid="ignore", over="ignore"):
        # 0 times an unbounded side is 0: the side is never attained.
        products = [np.where((x == 0.0) | (y == 0.0), 0.0, x * y) for x, y in pairs]
    return extremes(products, [_is_trivial(x) | _is_trivial(y) for x, y in pairs])


def _is_trivial(x: Array) -> NDArray[np.bool_]:
    """Where a product with x is exact, infinite sides aside."""
    return np.asarray(np.isin(x, (-1.0, 0.0, 1.0)))


def divide(a: Interval, b: Interval) -> Interval:
    """a / b; nothing is known where b may be 0."""
    safe = np.asarray((b.lower > 0.0) | (b.upper < 0.0))
    low, high = np.where(safe, b.lower, 1.0), np.where(safe, b.upper, 1.0)
    pairs = [(x, y) for x in (a.lower, a.upper) for y in (low, high)]
    with np.errstate(invalid="ignore", over="ignore"):
        # An unbounded denominator leads to 0, whatever the numerator.
        zero = [(x == 0.0) | np.isinf(y) for x, y in pairs]
        quotients = [np.where(z, 0.0, x / y) for z, (x, y) in zip(zero, pairs, strict=True)]
    exact = [z | (np.abs(y) == 1.0) for z, (_, y) in zip(zero, pairs, strict=True)]
    found = extremes(quotients, exact)
    return Interval(np.where(safe, found.lower, -np.inf), np.where(safe, found.upper, np.inf))


def intersect(a: Interval, b: Interval) -> Interval:
    """What both allow; b alone where they contradict each other."""
    low, high = np.maximum(a.lower, b.lower), np.minimum(a.upper, b.upper)
    empty = low > high
    return Interval(np.where(empty, b.lower, low), np.where(empty, b.upper, high))


def linear(product: Product, weight: Array, x: Interval, terms: int) -> Interval:
    """Bounds on product(weight, x), a sum of at most `terms` products in every entry.

        max = W+ u + W- l,    min = W+ l + W- u

    widened by gamma_terms times the sum of magnitudes and by what underflow may add.
    """
    upper = _maximum(product, weight, x.lower, x.upper, terms)
    lower = -_maximum(product, -weight, x.lower, x.upper, terms)
    return Interval(lower, upper)


def _maximum(product: Product, weight: Array, lower: Array, upper: Array, terms: int) -> Array:
    positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    low, high = (np.where(np.isfinite(v), v, 0.0) for v in (lower, upper))
    with np.errstate(invalid="ignore", over="ignore"):
        value = product(positive, high) + product(negative, low)
        magnitude = product(positive, np.abs(high)) - product(negative, np.abs(low))
        widened = value + (gamma(terms) * magnitude + 2 * terms * SMALLEST)
    # Where every term is 0 nothing rounds; a magnitude of 0 can also be an underflow of all.
    nothing = (magnitude == 0.0) & (_smallest(weight) * min(_smallest(low), _smallest(high)) > 0.0)
    value = np.where(nothing, 0.0, widened)
    if np.isinf(lower).any() or np.isinf(upper).any():
        # Every infinite term of a maximum is +inf, so that one of them decides.
        hit = product((positive != 0.0).astype(np.float64), np.isinf(upper).astype(np.float64))
        hit = hit + product(
            (negative != 0.0).astype(np.float64), np.isinf(lower).astype(np.float64)
        )
        value = np.where(hit > 0.0, np.inf, value)
    return np.where(np.isnan(value) | (value == -np.inf), np.inf, value)


def _smallest(values: Array) -> float:
    """The smallest magnitude of an entry that is not 0; inf where there is none."""
    magnitudes = np.abs(values)
    return float(np.min(magnitudes, where=magnitudes > 0.0, initial=np.inf))
