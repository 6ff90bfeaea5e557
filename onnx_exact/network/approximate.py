"""Arrays computed in float64, each with a bound on how far its entries are from the true ones.

What reading a model computes (a bias and an addition, a scale, a product of matrices) is rounded.
The error-free transformations say by how much: TwoSum and TwoProduct give the rounding error of a
sum and of a product exactly (Knuth; Dekker; Higham 2002, section 4.3), so that what is exact has
the error 0. Sums of several products are off by at most gamma_n times the sum of their magnitudes
(Higham 2002, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Affine, Array, Error

UNIT_ROUNDOFF = 2.0**-53
SMALLEST = 2.0**-1074
# Below this an error-free transformation may itself underflow: the smallest normal number by far.
SAFE = 2.0**-900
# Beyond this it may overflow on the way.
LARGE = 2.0**900
# Splits a number into two of at most 26 bits each (Veltkamp).
SPLITTER = 2.0**27 + 1.0
# Covers the few operations of an error bound itself.
WIDE = 1.0 + 2.0**-40


@dataclass(frozen=True, eq=False)
class Approximate:
    """Numbers and what they are off by: |value - truth| <= error, entry by entry.

    Attributes:
        value: finite or not; what is not finite has no meaning.
        error: non-negative, of the shape of `value`; None where every entry is exact.
    """

    value: Array
    error: Array | None = None

    @property
    def off(self) -> Array:
        """The error, 0 where there is none."""
        return np.zeros_like(self.value) if self.error is None else self.error

    @property
    def magnitude(self) -> Approximate:
        """At least the magnitudes of the numbers, and of the terms that these were sums of."""
        return Approximate(np.abs(self.value) + self.off / UNIT_ROUNDOFF)

    @property
    def transposed(self) -> Approximate:
        """The same entries with the axes the other way round."""
        return Approximate(self.value.T, None if self.error is None else self.error.T)

    def reshaped(self, *shape: int) -> Approximate:
        """The same entries in another shape."""
        error = None if self.error is None else self.error.reshape(shape)
        return Approximate(self.value.reshape(shape), error)

    @property
    def rectified(self) -> Approximate:
        """max(x, 0), which makes no error larger."""
        return Approximate(np.maximum(self.value, 0.0), self.error)

    def __neg__(self) -> Approximate:
        return Approximate(-self.value, self.error)

    def __add__(self, other: Approximate) -> Approximate:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.asarray(self.value + other.value)
            error = two_sum_error(self.value, other.value, total)
            for part in (self.error, other.error):
                if part is not None:
                    error = error + part
        return _with_error(total, error)

    def __mul__(self, other: Approximate) -> Approximate:
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.asarray(self.value * other.value)
            error = two_product_error(self.value, other.value, product)
            if other.error is not None:
                error = error + _times(np.abs(self.value) + self.off, other.error)
            if self.error is not None:
                error = error + _times(self.error, np.abs(other.value))
        return _with_error(product, error)

    def __matmul__(self, other: Approximate) -> Approximate:
        """The product of a matrix with a matrix or a vector."""
        left, right = self.value, other.value
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.asarray(left @ right)
            error = _summing_error(left, right)
            if other.error is not None:
                error = error + _summed(np.abs(left) + self.off, other.error)
            if self.error is not None:
                error = error + _summed(self.error, np.abs(right))
            # The sums of the bound are rounded as well.
            error = error * (1.0 + 2.0 * left.shape[-1] * UNIT_ROUNDOFF)
        return _with_error(product, error)


def _with_error(value: Array, error: Array) -> Approximate:
    """The numbers with their error: infinite where something overflowed, None where all is 0."""
    error = np.where(np.isnan(error), np.inf, error * WIDE)
    return Approximate(value, error if error.any() else None)


def _times(a: Array, b: Array) -> Array:
    """An upper bound on products of magnitudes, whatever underflows; 0 where a factor is."""
    return np.asarray(a * b + SMALLEST * ((a > 0.0) & (b > 0.0)))


def _summed(a: Array, b: Array) -> Array:
    """The same for sums of products."""
    terms = (a > 0.0).astype(np.float64) @ (b > 0.0).astype(np.float64)
    return np.asarray(a @ b + SMALLEST * terms)


def quotient(above: Array, below: Array) -> Approximate:
    """above / below, with no 0 in `below`."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(above / below)
        product = found * below
        rest = two_product_error(found, below, product)
        # found - above / below = (found below - above) / below; the subtraction is all but exact.
        left_over = np.abs(product - above) * WIDE + rest
        off = np.where(left_over == 0.0, 0.0, left_over / np.abs(below) * WIDE + SMALLEST)
    return _with_error(found, off)


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


def _summing_error(left: Array, right: Array) -> Array:
    """What the sums of left @ right may be off by; 0 where all of them are exact."""
    terms = np.abs(left) @ np.abs(right)
    # Sums of multiples of one power of two are exact as long as they have at most 53 bits.
    grid = _grid(left) * _grid(right)
    if grid > SAFE and terms.max(initial=0.0) <= 2.0**53 * grid:
        return np.zeros_like(terms)
    n = left.shape[-1]
    gamma = 2.0 * n * UNIT_ROUNDOFF / (1.0 - n * UNIT_ROUNDOFF)
    # A single product that is exact leaves nothing to round.
    count = (left != 0.0).astype(np.float64) @ (right != 0.0).astype(np.float64)
    short = _are_short(left) and _are_short(right)
    exact = (count <= 1.0) & (short or _are_harmless(left) or _are_harmless(right))
    return np.where(exact, 0.0, gamma * terms + n * SMALLEST * (count > 0.0))


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


def affine_of(weight: Approximate, bias: Approximate) -> Affine:
    """The affine map with these numbers.

    Raises:
        ValueError: a number is not finite, or nothing is known of it.
    """
    if weight.error is None and bias.error is None:
        return Affine(weight.value, bias.value)
    if not (np.isfinite(weight.off).all() and np.isfinite(bias.off).all()):
        raise ValueError("a number that was computed is not known")
    return Affine(weight.value, bias.value, Error(weight.off, bias.off))


def numbers_of(affine: Affine) -> tuple[Approximate, Approximate]:
    """Weight and bias of a map, with what they are off by."""
    if affine.error is None:
        return Approximate(affine.weight), Approximate(affine.bias)
    weight, bias = affine.error.weight, affine.error.bias
    return Approximate(affine.weight, weight), Approximate(affine.bias, bias)
