"""Bounds on the rounding errors of floating-point sums and products: the one place for them.

For a sum of n products in any order, with or without fused multiply-add (Higham 2002, section 3.1),

    |fl(x . y) - x . y| <= gamma_n |x| . |y|,    gamma_n = n u / (1 - n u),    u = 2^-53,

unless a product underflows, which adds at most 2^-1074 each. The error-free transformations say
by how much a single sum or product is rounded, exactly (Knuth; Dekker; Higham 2002, section 4.3).
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_exact.network.operator import Array, Operator

if TYPE_CHECKING:
    from onnx_exact.network.affine import Affine

UNIT_ROUNDOFF = 2.0**-53
SMALLEST = 2.0**-1074
SMALLEST_NORMAL = 2.0**-1022
_NONE = 2**64 - 1
# Entries of an array that stay in the cache from one pass over them to the next.
CACHED = 2**14
# Entries of a factor that are looked at together.
PIECE = 2**20
# The few extra operations of a step: the bias, a slope, the evaluation of the error bound itself.
EXTRA_OPERATIONS = 16
# Below this an error-free transformation may itself underflow, and what underflows in a sum may
# count: the smallest normal number by far. Beyond `LARGE` it may overflow on the way.
SAFE = 2.0**-900
LARGE = 2.0**900
# Splits a number into two of at most 26 bits each (Veltkamp).
SPLITTER = 2.0**27 + 1.0
# Covers the few operations of an error bound itself; and its sums of up to four million terms.
WIDE = 1.0 + 2.0**-40
WIDE_SUM = 1.0 + 2.0**-30


def gamma(n: int) -> float:
    """Twice gamma_(n + EXTRA_OPERATIONS): the factor covers the rounding of |x| . |y| as well."""
    k = (n + EXTRA_OPERATIONS) * UNIT_ROUNDOFF
    return 2.0 * k / (1.0 - k)


def slack(magnitude: Array, n: int, underflow: Array | float = 0.0) -> Array:
    """How far n-term sums with `magnitude` as sum of absolute terms may be off.

    Args:
        magnitude: |x| . |y| as computed; where it is 0 every term is 0 and so is the error.
        n: number of terms.
        underflow: what products that underflow may add in total; 0 where none can.
    """
    return np.asarray(gamma(n) * magnitude + underflow)


def total_terms(magnitude: Array, constant: Array, underflow: Array | float) -> Array:
    """The sum of absolute terms with a constant among them, as `slack` takes it.

    A constant alone, to which nothing is added, is not rounded: no terms.
    """
    # A magnitude that is nan, of terms that overflowed, is not 0 either.
    alone = (magnitude == 0.0) & (underflow == 0.0)
    return np.where(alone, 0.0, magnitude + np.abs(constant))


def smallest_nonzero(values: Array) -> float:
    """The smallest magnitude of a non-zero entry, inf where there is none."""
    flat, least = values.reshape(-1), _NONE
    for start in range(0, flat.size, CACHED):
        # Magnitudes are ordered as their bits are; less one, zero becomes the largest of all.
        bits = np.abs(flat[start : start + CACHED]).view(np.uint64) - np.uint64(1)
        least = min(least, int(bits.min()))
    return np.inf if least == _NONE else float(np.uint64(least + 1).view(np.float64))


def above(bound: Array, off: Array) -> Array:
    """An upper bound on bound + off, and `bound` itself where nothing is off."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(off == 0.0, bound, np.nextafter(bound + off, np.inf))


def absolute_sum(sizes: Operator, magnitude: Array) -> Array:
    """An upper bound on sums of products of two non-negative factors each, whatever underflows.

    Args:
        sizes: a map whose entries are not negative.
        magnitude: shape (..., in), not negative, may be infinite.

    Returns:
        Shape (..., out): 0 only where every product is 0; infinite where an infinite factor counts,
        or where it overflows.
    """
    if not magnitude.any():
        return np.zeros((*magnitude.shape[:-1], sizes.n_out))
    infinite = np.isinf(magnitude)
    unbounded = bool(infinite.any())
    finite = np.where(infinite, 0.0, magnitude) if unbounded else magnitude
    with np.errstate(over="ignore", invalid="ignore"):
        found = sizes.apply(finite) * WIDE_SUM
    small = np.flatnonzero((found <= SAFE).reshape(-1, sizes.n_out).any(axis=0))
    if small.size:
        pattern = sizes.restrict(slice(None), small).pattern()
        found[..., small] += SMALLEST * pattern.apply((finite > 0.0).astype(np.float64))
    if unbounded:
        found[sizes.pattern().apply(infinite.astype(np.float64)) > 0.0] = np.inf
    return np.where(np.isnan(found), np.inf, found)


def forward_error(
    affine: Affine,
    size: Array,
    error: Array,
    dtype: np.dtype[np.floating[Any]] | None = None,
) -> Array:
    """Bounds on |computed - exact| for what an affine map makes, shape (..., out).

    If the inputs are off by at most e, the outputs, computed in an arithmetic with unit roundoff u,
    are off by at most

        |W| e + gamma_n (|W| (H + e) + |b|),    gamma_n = n u / (1 - n u),    |h| <= H,

    with n the number of terms: in any order of summing, with or without fused multiply-add, or with
    more precise intermediate results (the running error analysis of Higham 2002, sections 3.1 and
    3.3). What the map's own numbers are off by comes on top. Not covered are arithmetics whose
    single operations are less precise (bfloat16 or TF32 products), and fast matrix products such as
    Strassen's.

    Args:
        affine: the map.
        size: H, bounds on the magnitudes of its exact inputs, or of those it is given (they differ
            by no more than `error`); shape (..., in).
        error: e, may be infinite.
        dtype: in which it is computed, where numbers below the normal range may be flushed to 0,
            weights and inputs too; None for numpy's float64, where they are not.

    Returns:
        Infinite where none is known: beyond the largest number there is no relative error.
    """
    sizes, n = affine.linear.absolute(), affine.linear.fan_in + 1
    largest = size + error
    with np.errstate(over="ignore", invalid="ignore"):
        moved, reach = absolute_sum(sizes, error), absolute_sum(sizes, largest)
        terms = reach + np.abs(affine.bias)
        if dtype is None:
            found = moved + slack(terms, n, 2 * n * SMALLEST)
        else:
            info = np.finfo(dtype)
            share = 0.5 * n * float(info.eps)
            if share >= 1.0:
                return np.full(terms.shape, np.inf)
            # What is flushed: each product and sum, each weight, each input.
            total = sizes.apply(np.ones(affine.n_in)) + largest.sum(axis=-1, keepdims=True)
            lost = float(info.smallest_normal) * (3 * n + total)
            found = moved + share / (1.0 - share) * terms + lost
            found = np.where(terms + found < float(info.max), found, np.inf)
        found = (found + affine.off(largest)) * (1.0 + 2.0 * gamma(n))
    return np.where(np.isnan(found), np.inf, found)


def two_sum_error(a: Array, b: Array, total: Array) -> Array:
    """|a + b - total| for the rounded sum `total`; exact barring overflow (Knuth)."""
    part = total - a
    return np.asarray(np.abs((a - (total - part)) + (b - part)))


def two_product_error(a: Array, b: Array, product: Array) -> Array:
    """A bound on |a b - product| for the rounded product: exact but at the ends of the range.

    Dekker's algorithm; where it may under- or overflow, half a unit in the last place.
    """
    size = np.abs(product)
    trivial = (a == 0.0) | (b == 0.0) | (np.abs(a) == 1.0) | (np.abs(b) == 1.0)
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    safe = (size > SAFE) & (size < LARGE) & (np.abs(a) < LARGE) & (np.abs(b) < LARGE)
    bound = UNIT_ROUNDOFF * size + SMALLEST
    return np.where(trivial, 0.0, np.where(safe, np.abs(rest), bound))


def _split(values: Array) -> tuple[Array, Array]:
    scaled = SPLITTER * values
    high = scaled - (scaled - values)
    return high, values - high


def product_error(left: Array, right: Array) -> Array:
    """What the sums of left @ right may be off by; 0 where all of them are exact."""
    pieces = [(left[..., part], right[part]) for part in _pieces(left, right)]
    terms = reduce(np.add, (np.abs(a) @ np.abs(b) for a, b in pieces))
    # Sums of multiples of one power of two are exact as long as they have at most 53 bits.
    grid = min(_grid(a) for a, _ in pieces) * min(_grid(b) for _, b in pieces)
    if grid > SAFE and terms.max(initial=0.0) <= 2.0**53 * grid:
        return np.zeros_like(terms)
    n = left.shape[-1]
    # A single product that is exact leaves nothing to round.
    flags = (((a != 0.0).astype(np.float64), (b != 0.0).astype(np.float64)) for a, b in pieces)
    count = reduce(np.add, (a @ b for a, b in flags))
    short = all(_are_short(a) and _are_short(b) for a, b in pieces)
    harmless = any(all(map(_are_harmless, side)) for side in zip(*pieces, strict=True))
    exact = (count <= 1.0) & (short or harmless)
    return np.where(exact, 0.0, slack(terms, n) + n * SMALLEST * (count > 0.0))


def _pieces(left: Array, right: Array) -> list[slice]:
    """The sums of left @ right in pieces, so that nothing as large as a large factor is made."""
    terms = max(left.shape[-1], 1)
    count = max(1, PIECE * terms // max(left.size, right.size, 1))
    return [slice(start, start + count) for start in range(0, terms, count)]


def _grid(values: Array) -> float:
    """The largest power of two that all entries are multiples of, 1 without entries."""
    some = values[(values != 0.0) & np.isfinite(values)]
    if not some.size:
        return 1.0
    mantissa, exponent = np.frexp(some)
    whole = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.log2((whole & -whole).astype(np.float64))
    return float(np.exp2((exponent - 53 + lowest).min()))


def _are_harmless(values: Array) -> bool:
    """Whether all entries are 0, 1 or 2 or their negatives: no product with these is rounded."""
    plain = (np.abs(values) == 1.0) | (np.abs(values) == 2.0)
    return bool((plain | (values == 0.0)).all())


def _are_short(values: Array) -> bool:
    """Whether two such numbers have an exact product: those of float32."""
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float32) == values).all())


def product_of_sizes(a: Array, b: Array) -> Array:
    """An upper bound on products of magnitudes, whatever underflows; 0 where a factor is."""
    return np.asarray(a * b + SMALLEST * ((a > 0.0) & (b > 0.0)))


def sums_of_sizes(a: Array, b: Array) -> Array:
    """The same for a @ b, the rounding of its sums included."""
    terms = (a > 0.0).astype(np.float64) @ (b > 0.0).astype(np.float64)
    return np.asarray((a @ b + SMALLEST * terms) * (1.0 + 2.0 * a.shape[-1] * UNIT_ROUNDOFF))
