"""Affine maps x -> W x + b in float64, behind one small interface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frozen(values: object) -> Array:
    """A read-only float64 copy of `values`, or `values` itself where it already is one."""
    array = np.asarray(values, dtype=np.float64, order="C")
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Affine:
    """The map x -> weight x + bias.

    Attributes:
        weight: shape (out, in), finite.
        bias: shape (out,), finite.

    Raises:
        ValueError: shapes that do not fit, zero width, or an entry that is not finite.
    """

    weight: Array
    bias: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight))
        object.__setattr__(self, "bias", frozen(self.bias))
        if self.weight.ndim != 2 or self.bias.shape != (self.weight.shape[0],):
            raise ValueError(f"weight {self.weight.shape} and bias {self.bias.shape} do not fit")
        if 0 in self.weight.shape:
            raise ValueError(f"zero width in a weight of shape {self.weight.shape}")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ValueError("a weight or bias is not finite")

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return int(self.weight.shape[0])

    def apply(self, x: Array) -> Array:
        """Images of the points `x`, shape (points, in) -> (points, out)."""
        return x @ self.weight.T + self.bias

    def apply_transposed(self, y: Array) -> Array:
        """Pulls linear functionals back, shape (functionals, out) -> (functionals, in)."""
        return y @ self.weight

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Affine:
        """The map to the outputs selected by `index` alone."""
        return Affine(self.weight[index], self.bias[index])

    def equals(self, other: Affine) -> bool:
        """Whether both maps have the same entries."""
        return np.array_equal(self.weight, other.weight) and np.array_equal(self.bias, other.bias)
