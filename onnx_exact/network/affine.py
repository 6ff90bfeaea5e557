"""Affine maps x -> W x + b in float64, behind one small interface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Covers the rounding of the sums in `Affine.off`, of up to four million terms.
WIDE = 1.0 + 2.0**-30
SMALLEST = 2.0**-1074


def frozen(values: object) -> Array:
    """A read-only float64 copy of `values`, or `values` itself where it already is one."""
    array = np.asarray(values, dtype=np.float64, order="C")
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Error:
    """What the numbers of an affine map are off by: bounds on |W - W*| and |b - b*|.

    W* and b* are the numbers that the model's file defines, which reading it has rounded.

    Attributes:
        weight: shape (out, in), non-negative.
        bias: shape (out,), non-negative.
    """

    weight: Array
    bias: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight))
        object.__setattr__(self, "bias", frozen(self.bias))


@dataclass(frozen=True, eq=False)
class Affine:
    """The map x -> weight x + bias.

    Attributes:
        weight: shape (out, in), finite.
        bias: shape (out,), finite.
        error: what the entries are off by; None for numbers that are what they stand for.

    Raises:
        ValueError: shapes that do not fit, zero width, or an entry that is not finite.
    """

    weight: Array
    bias: Array
    error: Error | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight))
        object.__setattr__(self, "bias", frozen(self.bias))
        if self.weight.ndim != 2 or self.bias.shape != (self.weight.shape[0],):
            raise ValueError(f"weight {self.weight.shape} and bias {self.bias.shape} do not fit")
        if 0 in self.weight.shape:
            raise ValueError(f"zero width in a weight of shape {self.weight.shape}")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ValueError("a weight or bias is not finite")
        if self.error is not None and (
            self.error.weight.shape != self.weight.shape or self.error.bias.shape != self.bias.shape
        ):
            raise ValueError("the errors of a map have the shapes of its entries")

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return int(self.weight.shape[0])

    @property
    def reads(self) -> NDArray[np.bool_]:
        """Which outputs may depend on which inputs, whatever the entries are off by; (out, in)."""
        read = self.weight != 0.0
        return np.asarray(read if self.error is None else read | (self.error.weight > 0.0))

    def apply(self, x: Array) -> Array:
        """Images of the points `x`, shape (points, in) -> (points, out)."""
        return x @ self.weight.T + self.bias

    def apply_transposed(self, y: Array) -> Array:
        """Pulls linear functionals back, shape (functionals, out) -> (functionals, in)."""
        return y @ self.weight

    def off(self, magnitude: Array, *, shared: bool = False) -> Array:
        """A bound on |(W - W*) x + b - b*| over |x| <= magnitude.

        Args:
            magnitude: shape (..., in), may be infinite.
            shared: bounds |(W - W*) x| alone, for the difference x of two inputs of this one map.

        Returns:
            Shape (..., out); 0 where every number that counts is exact.
        """
        if self.error is None:
            return np.zeros((*magnitude.shape[:-1], self.n_out))
        infinite = np.isinf(magnitude)
        sizes = self.error.weight.T
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.where(infinite, 0.0, magnitude) @ sizes
            used = (sizes > 0.0).astype(np.float64)
            underflow = SMALLEST * ((magnitude > 0.0).astype(np.float64) @ used)
            found = (found if shared else found + self.error.bias) * WIDE + underflow
        hit = infinite.astype(np.float64) @ used > 0.0
        return np.asarray(np.where(hit | np.isnan(found), np.inf, found))

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Affine:
        """The map to the outputs selected by `index` alone."""
        error = self.error
        if error is not None:
            error = Error(error.weight[index], error.bias[index])
        return Affine(self.weight[index], self.bias[index], error)

    def reading(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Affine:
        """The map of the inputs selected by `index` alone."""
        error = self.error
        if error is not None:
            error = Error(error.weight[:, index], error.bias)
        return Affine(self.weight[:, index], self.bias, error)

    def signed(self, index: NDArray[np.intp] | NDArray[np.bool_], sign: Array | float) -> Affine:
        """The map to the selected outputs, each times a sign of its own, 1 or -1, or of all."""
        part = self.rows(index)
        column = sign if isinstance(sign, float) else sign[:, None]
        return Affine(column * part.weight, sign * part.bias, part.error)

    @property
    def negative(self) -> Affine:
        """The map to the negatives of the outputs."""
        return Affine(-self.weight, -self.bias, self.error)

    def equals(self, other: Affine) -> bool:
        """Whether both maps have the same entries, and are off by the same."""
        return (
            np.array_equal(self.weight, other.weight)
            and np.array_equal(self.bias, other.bias)
            and _same_error(self.error, other.error)
        )


def _same_error(a: Error | None, b: Error | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a.weight, b.weight) and np.array_equal(a.bias, b.bias)
