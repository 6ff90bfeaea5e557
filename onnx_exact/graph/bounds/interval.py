"""Interval arithmetic over the reals on arrays in float64, rounded outward.

One operation rounded to nearest is off by at most half a step, so the next float outward is sound;
sums and products found exact by error-free transformations stay as they are. Overflow is part of
the arithmetic: callers run it with numpy's warnings off. What the type of a tensor rounds is added
afterwards (`types`, `sums`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.network.rounding import two_product_error, two_sum_error

Function = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Interval:
    """lower <= x <= upper entry by entry; infinite sides allowed, never lower = inf.

    Sizes of 1 along an axis stand for the same bounds all along it; an array without axes, for a
    tensor of any rank. A size of 0 is that of a tensor without entries.

    Attributes:
        lower, upper: arrays of the same shape.
        overflows: whether an evaluation may give an infinity or NaN here. False where every value
            is a finite number, even if a side is not known; the sides say nothing of NaN.
    """

    lower: Array
    upper: Array
    overflows: bool = False

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.lower.ndim

    @property
    def finite(self) -> bool:
        """Whether every side is."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    def hull(self, axes: tuple[int, ...] | None = None) -> Interval:
        """The bounds over all positions of some axes, which keep size 1; None: of all axes.

        Nothing is known over axes without entries.
        """
        if axes == ():
            return self
        low = self.lower.min(axis=axes, keepdims=True, initial=np.inf)
        high = self.upper.max(axis=axes, keepdims=True, initial=-np.inf)
        empty = low > high
        return Interval(
            np.where(empty, -np.inf, low), np.where(empty, np.inf, high), self.overflows
        )

    def mapped(self, f: Function) -> Interval:
        """The image under an exact non-decreasing function, or a mere change of the axes."""
        return Interval(f(self.lower), f(self.upper), self.overflows)


def point(values: Array) -> Interval:
    """The interval of a constant; nothing is known of entries that are not finite."""
    finite = np.isfinite(values)
    low, high = np.where(finite, values, -np.inf), np.where(finite, values, np.inf)
    return Interval(low, high, not bool(finite.all()))


def unknown(rank: int | None) -> Interval:
    """Nothing is known of a tensor of this rank, but that it holds finite numbers."""
    return between(-np.inf, np.inf, rank)


def between(lower: float, upper: float, rank: int | None) -> Interval:
    """The same bounds for every entry."""
    shape = (1,) * (rank or 0)
    return Interval(np.full(shape, lower), np.full(shape, upper))


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


def join(parts: list[Interval]) -> Interval:
    """The smallest interval that holds all of them, entry by entry."""
    return Interval(
        np.minimum.reduce(np.broadcast_arrays(*[x.lower for x in parts])),
        np.maximum.reduce(np.broadcast_arrays(*[x.upper for x in parts])),
        any(x.overflows for x in parts),
    )


def by_sign(x: Interval, below: Interval) -> Interval:
    """x where it is not negative, `below` where it is: the union of both where it may be either."""
    low, high = x.lower, x.upper
    return Interval(
        np.minimum(
            np.where(high >= 0.0, np.maximum(low, 0.0), np.inf),
            np.where(low < 0.0, below.lower, np.inf),
        ),
        np.maximum(np.where(high >= 0.0, high, -np.inf), np.where(low < 0.0, below.upper, -np.inf)),
    )


def add(a: Interval, b: Interval) -> Interval:
    """a + b."""
    (low, low_exact), (high, high_exact) = _sum(a.lower, b.lower), _sum(a.upper, b.upper)
    widened = outward(low, high)
    return Interval(
        np.where(low_exact, low, widened.lower), np.where(high_exact, high, widened.upper)
    )


def _sum(a: Array, b: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The rounded sum, and where it is the exact one (Knuth's TwoSum)."""
    total = np.asarray(a + b)
    exact = (two_sum_error(a, b, total) == 0.0) | (np.isinf(total) & (np.isinf(a) | np.isinf(b)))
    return total, np.asarray(exact)


def negate(a: Interval) -> Interval:
    """-a."""
    return Interval(-a.upper, -a.lower, a.overflows)


def multiply(a: Interval, b: Interval) -> Interval:
    """a * b for independent a and b."""
    pairs = [(x, y) for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
    # 0 times a side that is not known is 0: every value is a number.
    products = [np.where((x == 0.0) | (y == 0.0), 0.0, x * y) for x, y in pairs]
    found = extremes(
        products, [_is_exact(x, y, p) for (x, y), p in zip(pairs, products, strict=True)]
    )
    undefined = np.asarray(_infinite(a) & _has_zero(b) | _infinite(b) & _has_zero(a))
    return _unknown_where(undefined, found)


def _infinite(x: Interval) -> NDArray[np.bool_]:
    """Where a value may be infinite."""
    return np.asarray(x.overflows & (np.isinf(x.lower) | np.isinf(x.upper)))


def _has_zero(x: Interval) -> NDArray[np.bool_]:
    return np.asarray((x.lower <= 0.0) & (x.upper >= 0.0))


def _unknown_where(place: NDArray[np.bool_], x: Interval) -> Interval:
    return Interval(np.where(place, -np.inf, x.lower), np.where(place, np.inf, x.upper))


def _is_exact(x: Array, y: Array, product: Array) -> NDArray[np.bool_]:
    """Where the rounded product is exact, or has no side that is known."""
    return np.asarray(np.isinf(x) | np.isinf(y) | (two_product_error(x, y, product) == 0.0))


def divide(a: Interval, b: Interval) -> Interval:
    """a / b; nothing is known where b may be 0."""
    safe = np.asarray((b.lower > 0.0) | (b.upper < 0.0)) & ~(_infinite(a) & _infinite(b))
    low, high = np.where(safe, b.lower, 1.0), np.where(safe, b.upper, 1.0)
    pairs = [(x, y) for x in (a.lower, a.upper) for y in (low, high)]
    # An unbounded denominator leads to 0, whatever the numerator.
    zero = [(x == 0.0) | np.isinf(y) for x, y in pairs]
    quotients = [np.where(z, 0.0, x / y) for z, (x, y) in zip(zero, pairs, strict=True)]
    products = [q * y for q, (_, y) in zip(quotients, pairs, strict=True)]
    exact = [
        z | np.isinf(x) | ((p == x) & _is_exact(q, y, p))
        for z, (x, y), q, p in zip(zero, pairs, quotients, products, strict=True)
    ]
    return _unknown_where(~safe, extremes(quotients, exact))


def intersect(a: Interval, b: Interval) -> Interval:
    """What both allow; b alone where they contradict each other."""
    low, high = np.maximum(a.lower, b.lower), np.minimum(a.upper, b.upper)
    empty = low > high
    return Interval(np.where(empty, b.lower, low), np.where(empty, b.upper, high), a.overflows)
