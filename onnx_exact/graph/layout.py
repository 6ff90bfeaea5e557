"""Symbolic sizes, and where the features of a chain sit among the axes of a tensor.

A tensor a chain passes through has the shape lead + features + trail. The chain maps the feature
vector (the feature axes in row-major order) at every position of the other axes by itself. Row
layout has no trail ([batch, n]); column layout has one axis behind the features ([n, batch]).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Array


@dataclass(frozen=True)
class Dim:
    """A size: an integer times a product of symbols that stand for unknown positive sizes."""

    size: int
    symbols: tuple[str, ...] = ()

    @property
    def static(self) -> bool:
        """Whether the size is a known number."""
        return not self.symbols

    def __mul__(self, other: Dim) -> Dim:
        return Dim(self.size * other.size, tuple(sorted(self.symbols + other.symbols)))

    def over(self, other: Dim) -> Dim | None:
        """The quotient, or None where `other` does not divide this size for sure."""
        missing = Counter(other.symbols) - Counter(self.symbols)
        if other.size <= 0 or missing or self.size % other.size:
            return None
        rest = Counter(self.symbols) - Counter(other.symbols)
        return Dim(self.size // other.size, tuple(sorted(rest.elements())))


ONE = Dim(1)
Shape = tuple[Dim, ...]


def product(dims: Iterable[Dim]) -> Dim:
    """The number of entries of an array with these sizes."""
    total = ONE
    for dim in dims:
        total = total * dim
    return total


def static(sizes: Iterable[int]) -> Shape:
    """The shape with these known sizes."""
    return tuple(Dim(int(size)) for size in sizes)


def is_static(shape: Shape) -> bool:
    """Whether every size is known."""
    return all(dim.static for dim in shape)


@dataclass(frozen=True)
class Layout:
    """A shape of which the axes [start, stop) hold the features; their sizes are known."""

    shape: Shape
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not is_static(self.features):
            raise ValueError(f"features of unknown size in {self.shape}")

    @staticmethod
    def at_axis(shape: Shape, axis: int, size: int) -> Layout:
        """The layout with all `size` features along one axis (negative axes count from the end)."""
        axis %= len(shape)
        return Layout((*shape[:axis], Dim(size), *shape[axis + 1 :]), axis, axis + 1)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def lead(self) -> Shape:
        """Sizes in front of the features."""
        return self.shape[: self.start]

    @property
    def features(self) -> Shape:
        """Sizes of the feature axes."""
        return self.shape[self.start : self.stop]

    @property
    def trail(self) -> Shape:
        """Sizes behind the features."""
        return self.shape[self.stop :]

    @property
    def width(self) -> int:
        """Number of features."""
        return product(self.features).size

    @property
    def is_column(self) -> bool:
        """Whether other positions follow the features."""
        return product(self.trail) != ONE

    def along(self, axis: int) -> bool:
        """Whether all features lie along this one axis."""
        if not -self.rank <= axis < self.rank:
            return False
        axis %= self.rank
        if self.shape[axis] != Dim(self.width):
            return False
        return self.width == 1 or self.start <= axis < self.stop

    def reshaped(self, shape: Shape) -> Layout | None:
        """The layout after a reshape to `shape`, or None where it mixes features with the rest.

        A reshape keeps the row-major order, so it only regroups exactly where the new axes split
        into three runs with the products of lead, features and trail. What a new chain of other
        width could not be reshaped to without knowing more than one size is given up as well.
        """
        for start in range(len(shape) + 1):
            if product(shape[:start]) != product(self.lead):
                continue
            for stop in range(start, len(shape) + 1):
                if not is_static(shape[start:stop]):
                    break
                matches = product(shape[start:stop]).size == self.width
                if matches and product(shape[stop:]) == product(self.trail):
                    found = Layout(shape, start, stop)
                    return found if self._recoverable(found) else None
        return None

    def _recoverable(self, other: Layout) -> bool:
        if self.is_column and len(other.trail) != 1:
            return False
        unknown = sum(not dim.static for dim in other.shape)
        return unknown <= 1 or self.lead == other.lead

    def per_unit(self, values: Array) -> Array | None:
        """What a constant that broadcasts against the tensor is for each feature, shape (width,).

        None where it would change the tensor's shape, or differs between positions other than the
        features.
        """
        if values.ndim > self.rank:
            return None
        values = values.reshape((1,) * (self.rank - values.ndim) + values.shape)
        for axis, dim in enumerate(self.shape):
            size = values.shape[axis]
            if size == 1:
                continue
            if dim != Dim(size):
                return None
            if not self.start <= axis < self.stop:
                first = values.take([0], axis=axis)
                if not np.array_equal(np.broadcast_to(first, values.shape), values):
                    return None
                values = first
        sizes = [dim.size for dim in self.features]
        index = tuple([0] * self.start + [slice(None)] * len(sizes) + [0] * len(self.trail))
        return np.ascontiguousarray(np.broadcast_to(values[index], sizes)).reshape(self.width)
