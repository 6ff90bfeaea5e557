"""The structures that a linear map may have, for tests that hold whatever the structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network import affine
from onnx_exact.network.affine import Array
from onnx_exact.network.operator import Blocks, Index, Operator, SingleMap

Structure = Callable[[NDArray[np.floating]], Operator]

dense = affine.as_operator


def blocks(weight: NDArray[np.floating]) -> Operator:
    """Float32 read by blocks of rows, where float32 has the numbers."""
    with np.errstate(over="ignore"):
        single = weight.astype(np.float32)
    checked = dense(weight)
    return Blocks(single) if (single == weight).all() else checked


def wrapped(weight: NDArray[np.floating]) -> Operator:
    """A map of which nothing is known but the interface."""
    return Wrapped(dense(weight))


@dataclass(frozen=True, eq=False)
class Wrapped:
    """What an operator is asked for, and nothing else."""

    _inner: Operator

    @property
    def n_in(self) -> int:
        return self._inner.n_in

    @property
    def n_out(self) -> int:
        return self._inner.n_out

    @property
    def fan_in(self) -> int:
        return self._inner.fan_in

    @property
    def fan_out(self) -> int:
        return self._inner.fan_out

    @property
    def size(self) -> int:
        return self._inner.size

    def apply(self, x: Array) -> Array:
        return self._inner.apply(x)

    def pull_back(self, y: Array) -> Array:
        return self._inner.pull_back(y)

    def absolute(self) -> Operator:
        return Wrapped(self._inner.absolute())

    def positive(self) -> Operator:
        return Wrapped(self._inner.positive())

    def negative(self) -> Operator:
        return Wrapped(self._inner.negative())

    def pattern(self) -> Operator:
        return Wrapped(self._inner.pattern())

    def rows(self, units: Index) -> Array:
        return self._inner.rows(units)

    def restrict(self, kept_in: Index, kept_out: Index) -> Operator:
        return Wrapped(self._inner.restrict(kept_in, kept_out))

    def single(self) -> SingleMap:
        return self._inner.single()

    def equals(self, other: Operator) -> bool:
        return isinstance(other, Wrapped) and self._inner.equals(other._inner)


STRUCTURES: dict[str, Structure] = {"dense": dense, "blocks": blocks, "wrapped": wrapped}
