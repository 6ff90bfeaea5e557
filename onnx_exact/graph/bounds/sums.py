"""Intervals of sums of products, in any order of summing, in the type of the tensor.

A sum of n products in any order, with or without fused multiply-add or wider accumulators, is off
by at most gamma_n times the sum of their magnitudes (Higham 2002, section 3.1). Every rounded
product and sum is non-decreasing in its operands, so that what a runtime computes anywhere in the
box is at least what it computes, in the same order, at the corner where the sum is least: the
magnitudes there are the ones that count, and a corner where every term is 0 stays exactly 0.
Numbers below the normal range may be flushed to 0, inputs and weights too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FloatType
from onnx_exact.network.affine import Array
from onnx_exact.network.rounding import SMALLEST, UNIT_ROUNDOFF

# Linear in its second argument: (weight, x) -> sum of products.
Product = Callable[[Array, Array], Array]
# The few operations around a sum of products: the bias, and the evaluation of the bound itself.
EXTRA_OPERATIONS = 16


@dataclass(frozen=True)
class Sum:
    """How a sum is evaluated.

    Attributes:
        kind: the type it is evaluated in.
        terms: at most so many products are not 0 in every entry, the added term not counted.
        operations: roundings that a term may see besides its product and the sums.
        scale: at least 1; partial sums may be this much larger than the weights say, where a factor
            below 1 comes last.
    """

    kind: FloatType
    terms: int
    operations: int = 0
    scale: float = 1.0


def gamma(n: int) -> float:
    """Twice gamma_n of float64 with a few operations added: covers the rounding of the bound."""
    k = (n + EXTRA_OPERATIONS) * UNIT_ROUNDOFF
    return 2.0 * k / (1.0 - k)


def linear(
    product: Product, weight: Array, x: Interval, how: Sum, added: Interval | None = None
) -> Interval:
    """Bounds on product(weight, x) + added.

        max = W+ u + W- l,    min = W+ l + W- u

    with what rounds in float64 here and in the type there added. A side is infinite where a partial
    sum may exceed the largest number of the type.
    """
    x = how.kind.flushed(x)
    plus = added if added is None else how.kind.flushed(added)
    minus = None if plus is None else Interval(-plus.upper, -plus.lower)
    upper, upper_size = _maximum(product, weight, x, how, plus)
    lower, lower_size = _maximum(product, -weight, x, how, minus)
    # The positive terms at the upper corner are the largest sum of positive terms there is.
    limit = how.kind.largest
    above = ~((upper_size + np.maximum(upper, -upper_size)) / 2.0 * how.scale < limit)
    below = ~((lower_size + np.maximum(lower, -lower_size)) / 2.0 * how.scale < limit)
    undefined = _undefined(product, weight, x)
    return Interval(
        np.where(below | undefined, -np.inf, -lower), np.where(above | undefined, np.inf, upper)
    )


def _undefined(product: Product, weight: Array, x: Interval) -> NDArray[np.bool_]:
    """Where 0 may be multiplied by an infinity."""
    infinite = np.isinf(x.lower) | np.isinf(x.upper)
    if not x.overflows or not infinite.any():
        return np.zeros((), dtype=bool)
    met = product((weight == 0.0).astype(np.float64), infinite.astype(np.float64))
    return np.asarray(met > 0.0)


def _maximum(
    product: Product, weight: Array, x: Interval, how: Sum, added: Interval | None
) -> tuple[Array, Array]:
    """The upper bound and the sum of magnitudes, both infinite where a term is."""
    positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    low, high = (np.where(np.isfinite(v), v, 0.0) for v in (x.lower, x.upper))
    value = product(positive, high) + product(negative, low)
    size = product(positive, np.abs(high)) - product(negative, np.abs(low))
    far = np.maximum(np.abs(low), np.abs(high))
    tiny = np.where(np.abs(weight) < how.kind.smallest_normal, weight, 0.0)
    lost = np.zeros(()) if not tiny.any() else product(np.abs(tiny), far)
    # Where every term is 0 nothing rounds; a magnitude of 0 can also be an underflow of all.
    nothing = (size == 0.0) & (_smallest(weight) * min(_smallest(low), _smallest(high)) > 0.0)
    open_sides = np.zeros(())
    if np.isinf(x.lower).any() or np.isinf(x.upper).any():
        # Every infinite term of a maximum is +inf, so that one of them decides.
        open_sides = product((positive != 0.0).astype(np.float64), _ones_where_infinite(x.upper))
        open_sides = open_sides + product(
            (negative != 0.0).astype(np.float64), _ones_where_infinite(x.lower)
        )
    terms = how.terms
    if added is not None:
        nothing = nothing & (added.upper == 0.0)
        terms += 1
        value, size = value + added.upper, size + np.abs(added.upper)
    value = value + np.where(nothing, 0.0, _rounding(size, lost, how, terms))
    size = np.where(size == 0.0, 0.0, size * (1.0 + how.kind.gamma(terms) + gamma(terms)))
    value, size = (np.where((open_sides > 0.0) | np.isnan(v), np.inf, v) for v in (value, size))
    return np.where(value == -np.inf, np.inf, value), size


def _rounding(size: Array, lost: Array, how: Sum, terms: int) -> Array:
    operations = terms + how.operations
    relative = how.kind.gamma(operations) * (1.0 + UNIT_ROUNDOFF * EXTRA_OPERATIONS)
    flushes = 2.0 * operations * how.kind.smallest_normal * how.scale
    return (relative + gamma(terms)) * size + lost + flushes + 2.0 * terms * SMALLEST


def _ones_where_infinite(values: Array) -> Array:
    return np.isinf(values).astype(np.float64)


def _smallest(values: Array) -> float:
    """The smallest magnitude of an entry that is not 0; inf where there is none."""
    magnitudes = np.abs(values)
    return float(np.min(magnitudes, where=magnitudes > 0.0, initial=np.inf))
