"""Linear maps behind one small interface: what bounds ask for, whatever structure a map has.

Two structures: `Dense`, a float64 matrix, and `Blocks`, a float32 matrix of which a block of rows
at a time is read in float64, so that it takes half the memory and no copies of it are made. A
matrix that is large is the second wherever float32 has its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index: TypeAlias = "NDArray[np.intp] | NDArray[np.bool_] | slice"

# Entries of a block that is read at a time: 8 MB.
BLOCK = 2**20
# From so many entries on a matrix is large: 4 MB in float32.
LARGE = 2**20


def frozen(values: object) -> Array:
    """A read-only float64 copy of `values`, or `values` itself where it already is one."""
    array = np.asarray(values, dtype=np.float64, order="C")
    if array.flags.writeable:
        # What was just made for this is nobody else's.
        array = array.copy() if array is values or array.base is not None else array
        array.flags.writeable = False
    return array


def as_operator(weight: NDArray[np.floating]) -> Operator:
    """A matrix as an operator: in float32 where it is large and that has all of its numbers.

    Raises:
        ValueError: it is none, or an entry is not finite.
    """
    if weight.ndim != 2:
        raise ValueError(f"weight {weight.shape} and the shape of a matrix do not fit")
    if not np.isfinite(weight).all():
        raise ValueError("a weight or bias is not finite")
    single = _as_single(weight) if weight.size >= LARGE else None
    return Dense(np.asarray(weight, dtype=np.float64)) if single is None else Blocks(single)


def _as_single(weight: NDArray[np.floating]) -> Single | None:
    """A matrix in float32, None where that does not have its numbers."""
    if weight.dtype == np.float32:
        single = weight if not weight.flags.writeable else weight.copy()
    else:
        single = np.empty(weight.shape, np.float32)
        with np.errstate(over="ignore"):
            for rows in row_blocks(*weight.shape):
                single[rows] = weight[rows]
                if not np.array_equal(single[rows], weight[rows]):
                    return None
    single.flags.writeable = False
    return single


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """The rows of a matrix, as many at a time as make a block."""
    count = max(1, BLOCK // max(columns, 1))
    for start in range(0, rows, count):
        yield slice(start, min(start + count, rows))


def entries_by_blocks(matrix: Operator | Array) -> Iterator[tuple[slice, Array]]:
    """The entries of a map, a block of rows at a time, each with the rows that it holds."""
    if isinstance(matrix, np.ndarray):
        for rows in row_blocks(*matrix.shape):
            yield rows, matrix[rows]
    else:
        for rows in row_blocks(matrix.n_out, matrix.n_in):
            yield rows, matrix.rows(rows)


def _selected(matrix: NDArray[Any], kept_in: Index, kept_out: Index) -> NDArray[Any]:
    """Some rows and columns of a matrix."""
    rows = matrix[kept_out]
    if isinstance(kept_in, slice):
        return np.asarray(rows[:, kept_in])
    columns = np.flatnonzero(kept_in) if kept_in.dtype == np.bool_ else kept_in
    # Unlike an index, this keeps rows together, which need not be copied once more.
    return np.take(rows, columns, axis=1)


class SingleMap(Protocol):
    """A linear map computed in float32: good enough to propose with, never to prove with."""

    def apply(self, x: Single) -> Single:
        """Images of points, shape (..., in) -> (..., out)."""

    def pull_back(self, y: Single) -> Single:
        """Functionals of the outputs as functionals of the inputs, (..., out) -> (..., in)."""


class Operator(Protocol):
    """A linear map W that need not be a matrix; its numbers are finite."""

    @property
    def n_in(self) -> int:
        """Number of inputs."""

    @property
    def n_out(self) -> int:
        """Number of outputs."""

    @property
    def fan_in(self) -> int:
        """The most terms that an output is the sum of."""

    @property
    def fan_out(self) -> int:
        """The most terms that an entry of a functional that is pulled back is the sum of."""

    @property
    def size(self) -> int:
        """Number of entries that the map is stored as."""

    def apply(self, x: Array) -> Array:
        """W x for points, shape (..., in) -> (..., out), each sum rounded in any order."""

    def pull_back(self, y: Array) -> Array:
        """y W for functionals of the outputs, shape (..., out) -> (..., in), rounded likewise."""

    def absolute(self) -> Operator:
        """The map of the entries' magnitudes."""

    def positive(self) -> Operator:
        """The map with 0 in place of negative entries."""

    def negative(self) -> Operator:
        """The map with 0 in place of positive entries."""

    def pattern(self) -> Operator:
        """The map with 1 in place of every entry that is not 0."""

    def rows(self, units: Index) -> Array:
        """The entries that some outputs read, shape (units, in)."""

    def restrict(self, kept_in: Index, kept_out: Index) -> Operator:
        """The map from some inputs to some outputs."""

    def single(self) -> SingleMap:
        """The map in float32."""

    def equals(self, other: Operator) -> bool:
        """Whether both have the same entries."""


class _Matrix:
    """What is the same for every matrix, whatever its type and however it is read."""

    matrix: NDArray[Any]

    @property
    def n_in(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def n_out(self) -> int:
        return int(self.matrix.shape[0])

    fan_in, fan_out = n_in, n_out

    @property
    def size(self) -> int:
        return int(self.matrix.size)


@dataclass(frozen=True, eq=False)
class Dense(_Matrix):
    """A matrix in float64.

    Attributes:
        matrix: shape (out, in).
    """

    matrix: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", frozen(self.matrix))

    def apply(self, x: Array) -> Array:
        return _product(x, self.matrix.T)

    def pull_back(self, y: Array) -> Array:
        return _product(y, self.matrix)

    @cached_property
    def _absolute(self) -> Dense:
        return Dense(_locked(np.abs(self.matrix)))

    def absolute(self) -> Dense:
        # Asked for again and again: kept.
        return self._absolute

    def positive(self) -> Dense:
        return Dense(_locked(_positive(self.matrix)))

    def negative(self) -> Dense:
        return Dense(_locked(_negative(self.matrix)))

    def pattern(self) -> Dense:
        return Dense(_locked(_pattern(self.matrix)))

    def rows(self, units: Index) -> Array:
        return self.matrix[units]

    def restrict(self, kept_in: Index, kept_out: Index) -> Dense:
        return Dense(_locked(_selected(self.matrix, kept_in, kept_out)))

    def single(self) -> SingleMap:
        return _Single(self.matrix.astype(np.float32))

    def equals(self, other: Operator) -> bool:
        return isinstance(other, Dense | Blocks) and _same(self, other)


@dataclass(frozen=True, eq=False)
class Blocks(_Matrix):
    """A matrix in float32, of which a block of rows at a time is read in float64.

    Attributes:
        matrix: shape (out, in).
        entries: what its numbers are put through as they are read, one after another.
    """

    matrix: Single
    entries: tuple[Callable[[Array], Array], ...] = ()

    def _read(self, units: Index) -> Array:
        block = self.matrix[units].astype(np.float64)
        for entry in self.entries:
            block = entry(block)
        return block

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        return entries_by_blocks(self)

    def apply(self, x: Array) -> Array:
        found = np.empty((*x.shape[:-1], self.n_out))
        for units, block in self._blocks():
            found[..., units] = _product(x, block.T)
        return found

    def pull_back(self, y: Array) -> Array:
        found = np.zeros((*y.shape[:-1], self.n_in))
        for units, block in self._blocks():
            found += _product(y[..., units], block)
        return found

    def _with(self, entry: Callable[[Array], Array]) -> Blocks:
        return Blocks(self.matrix, (*self.entries, entry))

    def absolute(self) -> Blocks:
        return self._with(np.abs)

    def positive(self) -> Blocks:
        return self._with(_positive)

    def negative(self) -> Blocks:
        return self._with(_negative)

    def pattern(self) -> Blocks:
        return self._with(_pattern)

    def rows(self, units: Index) -> Array:
        return self._read(units)

    def restrict(self, kept_in: Index, kept_out: Index) -> Blocks:
        return Blocks(_locked(_selected(self.matrix, kept_in, kept_out)), self.entries)

    def single(self) -> SingleMap:
        return _Single(self._read(slice(None)).astype(np.float32) if self.entries else self.matrix)

    def equals(self, other: Operator) -> bool:
        return isinstance(other, Dense | Blocks) and _same(self, other)


@dataclass(frozen=True, eq=False)
class _Single:
    """A matrix in float32, of shape (out, in)."""

    matrix: Single

    def apply(self, x: Single) -> Single:
        return np.asarray(x @ self.matrix.T)

    def pull_back(self, y: Single) -> Single:
        return np.asarray(y @ self.matrix)


def _product(x: Array, matrix: Array) -> Array:
    """x @ matrix, whose leading axes make one product of two matrices."""
    if x.ndim <= 2:
        return np.asarray(x @ matrix)
    flat = x.reshape(-1, x.shape[-1]) @ matrix
    return np.asarray(flat.reshape(*x.shape[:-1], matrix.shape[1]))


def _positive(values: Array) -> Array:
    return np.maximum(values, 0.0)


def _negative(values: Array) -> Array:
    return np.minimum(values, 0.0)


def _pattern(values: Array) -> Array:
    return np.asarray(values != 0.0, dtype=np.float64)


def _same(one: Operator, other: Operator) -> bool:
    """Whether two matrices have the same entries."""
    if (one.n_out, one.n_in) != (other.n_out, other.n_in):
        return False
    return all(np.array_equal(own, other.rows(rows)) for rows, own in entries_by_blocks(one))


def _locked(values: NDArray[Any]) -> NDArray[Any]:
    """A new array that nobody may write to, so that it need not be copied."""
    values.flags.writeable = False
    return values
