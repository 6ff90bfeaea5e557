"""Arrays computed in float64, each with a bound on how far its entries are from the true ones.

What reading a model computes (a bias and an addition, a scale, a product of matrices) is rounded.
The error-free transformations of `onnx_exact.network.rounding` say by how much, so that what is
exact has the error 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Affine, Array, Error
from onnx_exact.network.rounding import (
    SMALLEST,
    UNIT_ROUNDOFF,
    WIDE,
    product_error,
    product_of_sizes,
    sums_of_sizes,
    two_product_error,
    two_sum_error,
)


@dataclass(frozen=True, eq=False)
class Approximate:
    """Numbers and what they are off by: |value - truth| <= error, entry by entry.

    Attributes:
        value: finite or not; what is not finite has no meaning. In float64, or in float32 where
            many numbers were read from a file: whatever is computed of them is in float64.
        error: non-negative, of the shape of `value`; None where every entry is exact.
    """

    value: Array
    error: Array | None = None

    @property
    def _wide(self) -> Array:
        """The numbers in float64."""
        return np.asarray(self.value, dtype=np.float64)

    @property
    def off(self) -> Array:
        """The error, 0 where there is none."""
        return np.zeros(self.value.shape) if self.error is None else self.error

    @property
    def magnitude(self) -> Approximate:
        """At least the magnitudes of the numbers, and of the terms that these were sums of."""
        return Approximate(np.abs(self._wide) + self.off / UNIT_ROUNDOFF)

    @property
    def transposed(self) -> Approximate:
        """The same entries with the axes the other way round."""
        return Approximate(self.value.T, None if self.error is None else self.error.T)

    def reshaped(self, *shape: int) -> Approximate:
        """The same entries in another shape."""
        error = None if self.error is None else self.error.reshape(shape)
        return Approximate(self.value.reshape(shape), error)

    def rows(self, rows: slice) -> Approximate:
        """Some of the rows, not copied."""
        return Approximate(self.value[rows], None if self.error is None else self.error[rows])

    @property
    def rectified(self) -> Approximate:
        """max(x, 0), which makes no error larger."""
        return Approximate(np.maximum(self._wide, 0.0), self.error)

    def __neg__(self) -> Approximate:
        return Approximate(-self.value, self.error)

    def __add__(self, other: Approximate) -> Approximate:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.asarray(self._wide + other._wide)
            error = two_sum_error(self._wide, other._wide, total)
            for part in (self.error, other.error):
                if part is not None:
                    error = error + part
        return _with_error(total, error)

    def __mul__(self, other: Approximate) -> Approximate:
        left, right = self._wide, other._wide
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.asarray(left * right)
            error = two_product_error(left, right, product)
            if other.error is not None:
                error = error + product_of_sizes(np.abs(left) + self.off, other.error)
            if self.error is not None:
                error = error + product_of_sizes(self.error, np.abs(right))
        return _with_error(product, error)

    def __matmul__(self, other: Approximate) -> Approximate:
        """The product of a matrix with a matrix or a vector."""
        left, right = self._wide, other._wide
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.asarray(left @ right)
            error = product_error(left, right)
            if other.error is not None:
                error = error + sums_of_sizes(np.abs(left) + self.off, other.error)
            if self.error is not None:
                error = error + sums_of_sizes(self.error, np.abs(right))
        return _with_error(product, error)


def _with_error(value: Array, error: Array) -> Approximate:
    """The numbers with their error: infinite where something overflowed, None where all is 0."""
    error = np.where(np.isnan(error), np.inf, error * WIDE)
    return Approximate(value, error if error.any() else None)


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
