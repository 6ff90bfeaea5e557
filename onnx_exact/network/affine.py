"""Affine maps x -> W x + b in float64: an operator, a bias, and what their numbers are off by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.operator import (
    Array,
    Blocks,
    Dense,
    Index,
    Operator,
    as_operator,
    entries_by_blocks,
    frozen,
)
from onnx_exact.network.rounding import WIDE, absolute_sum

__all__ = ["Affine", "Array", "Error", "frozen"]


@dataclass(frozen=True, eq=False, init=False)
class Affine:
    """The map x -> W x + bias.

    Attributes:
        linear: W; a matrix of shape (out, in) is taken for the operator that it is.
        bias: shape (out,), finite.
        error: bounds on |W - W*| and |b - b*|, with W* and b* the numbers that the model's file
            defines, which reading it has rounded; None for numbers that are what they stand for.

    Raises:
        ValueError: shapes that do not fit, zero width, or an entry that is not finite.
    """

    linear: Operator
    bias: Array
    error: Error | None

    def __init__(
        self, linear: Operator | NDArray[np.floating], bias: Array, error: Error | None = None
    ) -> None:
        if isinstance(linear, np.ndarray):
            linear = as_operator(linear)
        object.__setattr__(self, "linear", linear)
        object.__setattr__(self, "bias", frozen(bias))
        object.__setattr__(self, "error", error)
        shape = linear.n_out, linear.n_in
        if self.bias.shape != shape[:1]:
            raise ValueError(f"weight {shape} and bias {self.bias.shape} do not fit")
        if 0 in shape:
            raise ValueError(f"zero width in a weight of shape {shape}")
        if not np.isfinite(self.bias).all():
            raise ValueError("a weight or bias is not finite")
        if error is not None and (error.n_out, error.n_in) != shape:
            raise ValueError("the errors of a map have the shapes of its entries")

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.linear.n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.linear.n_out

    @property
    def weight(self) -> Array:
        """The matrix of a map, shape (out, in): of one that is large a copy.

        Raises:
            TypeError: the map is no matrix.
        """
        if isinstance(self.linear, Blocks):
            return self.entries
        if not isinstance(self.linear, Dense):
            raise TypeError(f"a map that is {type(self.linear).__name__} has no float64 matrix")
        return self.linear.matrix

    @property
    def entries(self) -> Array:
        """All entries, shape (out, in), whatever the structure: for a program, or a few outputs."""
        return self.linear.rows(slice(None))

    def row(self, unit: int) -> Array:
        """The entries that one output reads, shape (in,)."""
        return np.asarray(self.linear.rows(np.array([unit]))[0])

    @property
    def reads(self) -> NDArray[np.bool_]:
        """Which outputs may depend on which inputs, whatever the entries are off by; (out, in)."""
        read = np.empty((self.n_out, self.n_in), dtype=np.bool_)
        for rows, block in entries_by_blocks(self.linear):
            read[rows] = block != 0.0
        return read if self.error is None else read | self.error.reads

    def read_by_rows(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which outputs may depend on any of some inputs, shape (out,)."""
        parts = [self.linear] if self.error is None else [self.linear, self.error.linear]
        found = np.zeros(self.n_out, dtype=np.bool_)
        for part in parts:
            for rows, block in entries_by_blocks(part):
                found[rows] |= (block[:, among] != 0.0).any(axis=1)
        return found

    def apply(self, x: Array) -> Array:
        """Images of the points `x`, shape (..., in) -> (..., out)."""
        return self.linear.apply(x) + self.bias

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
        found = absolute_sum(self.error.linear, magnitude)
        return found if shared else (found + self.error.bias) * WIDE

    def restrict(self, kept_in: Index, kept_out: Index) -> Affine:
        """The map from some inputs, all others being 0, to some outputs."""
        linear = self.linear.restrict(kept_in, kept_out)
        error = self.error
        if error is not None:
            error = Error(error.linear.restrict(kept_in, kept_out), error.bias[kept_out])
        return Affine(linear, self.bias[kept_out], error)

    def rows(self, index: Index) -> Affine:
        """The map to the outputs selected by `index` alone."""
        return self.restrict(slice(None), index)

    def reading(self, index: Index) -> Affine:
        """The map of the inputs selected by `index` alone."""
        return self.restrict(index, slice(None))

    def signed(self, index: Index, sign: Array | float) -> Affine:
        """Functionals: the map to some outputs, each times a sign of its own, 1 or -1, or of all.

        Whatever the structure of the map, that of functionals is a matrix.
        """
        column = sign if isinstance(sign, float) else sign[:, None]
        error = None if self.error is None else self.error.rows(index)
        return Affine(column * self.linear.rows(index), sign * self.bias[index], error)

    @property
    def negative(self) -> Affine:
        """The map to the negatives of the outputs."""
        return self.signed(slice(None), -1.0)

    def equals(self, other: Affine) -> bool:
        """Whether both maps have the same entries, and are off by the same."""
        if (self.error is None) != (other.error is None):
            return False
        same = self.linear.equals(other.linear) and np.array_equal(self.bias, other.bias)
        if self.error is None or other.error is None:
            return same
        return same and self.error.equals(other.error)


class Error(Affine):
    """What the numbers of an affine map are off by, entry by entry: non-negative."""

    def rows(self, index: Index) -> Error:
        """Those of the outputs selected by `index` alone."""
        return Error(self.linear.restrict(slice(None), index), self.bias[index])
