"""Interval arithmetic on arrays in float64, rounded outward, for tensors of narrower types too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnx_exact.verifier.rounding import EXTRA, ROUNDOFF, Array

# Lower and upper bounds, of one shape or of shapes that broadcast against one another.
Interval = tuple[Array, Array]
Type = np.dtype[Any]


def everything(rank: int) -> Interval:
    """No bounds."""
    return np.full((1,) * rank, -np.inf), np.full((1,) * rank, np.inf)


def hull(x: Interval, axes: tuple[int, ...]) -> Interval:
    """The bounds of all entries along some axes, which keep size 1."""
    if not axes:
        return x
    return x[0].min(axis=axes, keepdims=True), x[1].max(axis=axes, keepdims=True)


def union(parts: list[Interval]) -> Interval:
    """Bounds on what lies within some of them, each without its axes."""
    lower, upper = min(float(p[0].min()) for p in parts), max(float(p[1].max()) for p in parts)
    return np.array(lower), np.array(upper)


def stored(low: Array, high: Array, kind: Type) -> Interval:
    """Bounds on numbers between, and on what these are rounded to in a type."""
    return (
        np.minimum(low, low.astype(kind).astype(np.float64)),
        np.maximum(high, high.astype(kind).astype(np.float64)),
    )


def rounded(low: Array, high: Array, kind: Type) -> Interval:
    """The same for numbers that float64 has rounded once."""
    return stored(np.nextafter(low, -np.inf), np.nextafter(high, np.inf), kind)


def added(a: Interval, b: Interval, kind: Type) -> Interval:
    """a + b; exact sums stay as they are (TwoSum, Knuth)."""
    sides = []
    for i, outward in ((0, -np.inf), (1, np.inf)):
        total = a[i] + b[i]
        part = total - a[i]
        error = (a[i] - (total - part)) + (b[i] - part)
        sides.append(np.where(error == 0.0, total, np.nextafter(total, outward)))
    return stored(sides[0], sides[1], kind)


def negated(x: Interval) -> Interval:
    """-x."""
    return -x[1], -x[0]


def multiplied(a: Interval, b: Interval, kind: Type) -> Interval:
    """a * b; products with 1 stay as they are, 0 times anything is 0."""
    products = []
    for x, y in ((x, y) for x in a for y in b):
        product = np.where((x == 0.0) | (y == 0.0), 0.0, x * y)
        exact = (x == 0.0) | (y == 0.0) | (np.abs(x) == 1.0) | (np.abs(y) == 1.0)
        products.append(
            [np.where(exact, product, np.nextafter(product, side)) for side in (-np.inf, np.inf)]
        )
    lower, upper = zip(*products, strict=True)
    return stored(np.minimum.reduce(lower), np.maximum.reduce(upper), kind)


def divided(a: Interval, b: Interval, kind: Type) -> Interval:
    """a / b where b is not 0 anywhere; no bounds elsewhere."""
    sure = (b[0] > 0.0) | (b[1] < 0.0)
    below = [np.where(sure, side, 1.0) for side in b]
    quotients = [x / y for x in a for y in below]
    low, high = rounded(np.minimum.reduce(quotients), np.maximum.reduce(quotients), kind)
    return np.where(sure, low, -np.inf), np.where(sure, high, np.inf)


def linear(
    product: Callable[[Array, Array], Array], weight: Array, x: Interval, terms: int, kind: Type
) -> Interval | None:
    """Bounds on product(weight, x), sums of `terms` products evaluated in any order in a type.

    Args:
        product: bilinear.
        weight, x: its arguments.
        terms: how many products a sum has.
        kind: gamma_n of its roundoff is what sums are off by (Higham 2002, section 3.1).
    """
    if not (np.isfinite(x[0]).all() and np.isfinite(x[1]).all()):
        return None
    above, below = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    low = product(above, x[0]) + product(below, x[1])
    high = product(above, x[1]) + product(below, x[0])
    size = product(np.abs(weight), np.maximum(np.abs(x[0]), np.abs(x[1])))
    return widened((low, high), size, terms, kind)


def widened(x: Interval, size: Array, terms: int, kind: Type) -> Interval | None:
    """Bounds that float64 computed as sums of `terms` products, of this size in absolute terms."""
    about = np.finfo(kind)
    share = (terms + EXTRA) * (float(about.eps) + 2.0 * ROUNDOFF)
    if share >= 0.5:
        return None
    error = 2.0 * share * size + (terms + EXTRA) * float(about.smallest_subnormal)
    return stored(x[0] - error, x[1] + error, kind)
