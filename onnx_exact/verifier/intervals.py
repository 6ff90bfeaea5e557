"""Interval arithmetic over the reals on arrays in float64, rounded outward where it rounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_exact.verifier.rounding import (
    EXTRA,
    ROUNDOFF,
    SMALLEST,
    SMALLEST_NORMAL,
    Array,
    Flags,
    add_up,
    mul_up,
)

# Lower and upper bounds, of one shape or of shapes that broadcast against one another.
Interval = tuple[Array, Array]
Product = Callable[[Array, Array], Array]


def hull(x: Interval, axes: tuple[int, ...]) -> Interval:
    """The bounds of all entries along some axes, which keep size 1; contrary ones of none."""
    return (
        x[0].min(axis=axes, keepdims=True, initial=np.inf),
        x[1].max(axis=axes, keepdims=True, initial=-np.inf),
    )


def added(a: Interval, b: Interval) -> Interval:
    """a + b."""
    return -add_up(-a[0], -b[0]), add_up(a[1], b[1])


def negated(x: Interval) -> Interval:
    """-x."""
    return -x[1], -x[0]


def multiplied(a: Interval, b: Interval) -> Interval:
    """a * b; 0 times anything is 0."""
    pairs = [(x, y) for x in a for y in b]
    return (
        np.minimum.reduce([-_product_up(-x, y) for x, y in pairs]),
        np.maximum.reduce([_product_up(x, y) for x, y in pairs]),
    )


def _product_up(a: Array, b: Array) -> Array:
    """a * b rounded upward, and not at all where a factor is a power of two."""
    exact = (_powers(a) | _powers(b)) & (np.abs(a * b) >= SMALLEST_NORMAL)
    return np.where(exact, a * b, mul_up(a, b))


def _powers(a: Array) -> Flags:
    """Which numbers are powers of two, or their opposites."""
    return np.asarray((np.abs(np.frexp(a)[0]) == 0.5) & (np.abs(a) >= SMALLEST_NORMAL))


def divided(a: Interval, b: Interval) -> Interval:
    """a / b where b is not 0 anywhere; no bounds elsewhere."""
    sure = (b[0] > 0.0) | (b[1] < 0.0)
    ends = zip([np.where(sure, y, 1.0) for y in b[::-1]], (-np.inf, np.inf), strict=True)
    inverse = [np.where(_powers(y), 1.0 / y, np.nextafter(1.0 / y, way)) for y, way in ends]
    low, high = multiplied(a, (inverse[0], inverse[1]))
    return np.where(sure, low, -np.inf), np.where(sure, high, np.inf)


def linear(product: Product, weight: Array, x: Interval, terms: int) -> Interval:
    """Bounds on product(weight, x), sums of at most `terms` products each; nan for no bounds."""
    return -_greatest(product, -weight, x, terms), _greatest(product, weight, x, terms)


def _greatest(product: Product, weight: Array, x: Interval, terms: int) -> Array:
    above, below = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    value = product(above, x[1]) + product(below, x[0])
    size = product(above, np.abs(x[1])) - product(below, np.abs(x[0]))
    least = [_smallest(v) for v in (weight, *x)]
    lost = SMALLEST if least[0] * min(least[1:]) < SMALLEST_NORMAL else 0.0
    return value + rounding(size, terms, lost)


def rounding(size: Array, terms: int, lost: float = SMALLEST) -> Array:
    """What a float64 sum of products may be off by (Higham 2002, section 3.1), with its use here.

    Args:
        size: the sum of the magnitudes of the terms.
        terms: at most so many.
        lost: what a product that underflows loses.
    """
    return (terms + EXTRA) * (2.0 * ROUNDOFF * size + lost)


def _smallest(values: Array) -> float:
    """The smallest magnitude that is not 0."""
    sizes = np.abs(values)
    return float(np.min(sizes, where=sizes > 0.0, initial=np.inf))
