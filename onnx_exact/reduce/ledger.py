"""What a layer's normal form is made from: units, how they are read, what that may cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.network.operator import Operator, entries_by_blocks, row_blocks
from onnx_exact.reduce.budget import FloatType, reach, stored, stored_above
from onnx_exact.reduce.collinear import Index

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """The units of a layer, arrays of shape (units,).

    Attributes:
        affine: their maps.
        size: bounds on the magnitudes of the inputs, shape (inputs,).
        lower, upper: bounds on g.
        active: g >= 0, or no ReLU follows.
        decided: whose sign is known, or known to change.
        own: how far each g may still be moved by itself.
    """

    affine: Affine
    size: Array
    lower: Array
    upper: Array
    active: Flags
    decided: Flags
    own: Array

    @property
    def magnitude(self) -> Array:
        """Bounds on |g|."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def numbers(self, units: Index) -> tuple[Approximate, Approximate]:
        """w and b of some of them, none perhaps."""
        affine = self.affine
        weight, bias = affine.linear.rows(units), affine.bias[units]
        error = affine.error
        if error is None:
            return Approximate(weight), Approximate(bias)
        return Approximate(weight, error.linear.rows(units)), Approximate(bias, error.bias[units])


class Columns:
    """A column a unit, shape (readers, units), and what its entries are off by.

    A column lies in one piece, and one that was never set to anything takes no memory.
    """

    def __init__(self, linear: Operator, units: Flags) -> None:
        """The columns of a map for some units, 0 for all others."""
        stored = np.zeros((linear.n_in, linear.n_out))
        for rows, block in entries_by_blocks(linear):
            stored[units, rows] = block[:, units].T
        self.value = stored.T
        self._off: Array | None = None

    def of(self, units: Index | int | list[int]) -> Approximate:
        """Some of the columns, or one."""
        value = self.value[:, units]
        off = None if self._off is None else self._off[:, units]
        if isinstance(units, int):
            # A single column is a view.
            value, off = value.copy(), None if off is None else off.copy()
        return Approximate(value, off)

    def sizes(self, unit: int) -> Array:
        """The magnitudes of a column, and what they are off by."""
        size = np.abs(self.value[:, unit])
        return size if self._off is None else size + self._off[:, unit]

    def put(self, unit: int, column: Approximate) -> None:
        """Sets a column."""
        self.value[:, unit] = column.value
        if column.error is not None and self._off is None:
            self._off = np.zeros(self.value.T.shape).T
        if self._off is not None:
            self._off[:, unit] = column.off

    def drop(self, units: Index | list[int]) -> None:
        """Sets columns to 0."""
        self.value[:, units] = 0.0
        if self._off is not None:
            self._off[:, units] = 0.0


class Ledger:
    """What readers are moved by and may be, shape (readers,), and the constant c'.

    What storing c' moves is known in the end alone: on the way it may be as large as its terms. A
    constant that is fixed takes nothing in.
    """

    def __init__(self, room: Array, constant: Array, dtype: FloatType, *, fixed: bool) -> None:
        self.room, self.moved, self._fixed = room, np.zeros_like(room), fixed
        self.constant = Approximate(constant)
        self.dtype, self.roundoff = dtype, 0.5 * float(np.finfo(dtype).eps)

    def stored(self, values: Array) -> Array:
        """Values as the dtype holds them."""
        return stored(values, self.dtype)

    def in_its_type(self, values: Array) -> NDArray[np.floating]:
        """The same in the dtype itself, read-only, so that nobody need copy them."""
        with np.errstate(over="ignore"):
            found = values.astype(self.dtype, copy=False)
        found.flags.writeable = False
        return found

    def stored_above(self, values: Array) -> Array:
        """The least numbers of the dtype that are not below `values`."""
        return stored_above(values, self.dtype)

    def rounding(self, exact: Approximate) -> Array:
        """What storing numbers moves them by at most."""
        return np.abs(self.stored(exact.value) - exact.value) + exact.off

    def reached(self, exact: Approximate, magnitude: Array) -> Array:
        """What storing a matrix moves its products with numbers of these magnitudes by at most."""
        blocks = row_blocks(*exact.value.shape)
        moved = [reach(self.rounding(exact.rows(block)), magnitude) for block in blocks]
        return np.concatenate([np.zeros(0), *moved])

    def take(
        self, charge: Array, added: Approximate | None = None, passing: Array | float = 0.0
    ) -> bool:
        """Whether readers may be moved by `charge` and something be added to the constant.

        `passing` counts here alone: it is charged when it is known in the end.
        """
        constant = self.constant if added is None else self.constant + added
        moved = self.moved + charge
        # What is not a number does not fit.
        if not (moved + passing + constant.off <= self.room).all():
            return False
        if self._fixed and (constant.value != self.constant.value).any():
            return False
        self.moved, self.constant = moved, constant
        return True
