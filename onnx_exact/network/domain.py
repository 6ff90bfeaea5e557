"""Boxes: the domains over which everything is decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Array, frozen

# Where a side of a box is infinite, points are drawn this close to its finite side, or to 0.
UNBOUNDED_SAMPLE_RADIUS = 10.0


@dataclass(frozen=True, eq=False)
class Box:
    """The points x with lower <= x <= upper, entry by entry.

    For a chain both arrays have shape (n,). For a tensor of a graph they have the tensor's rank,
    with size 1 along every axis whose size is not known (the same bounds all along it).

    Attributes:
        lower: may hold -inf, never nan or +inf.
        upper: same shape as lower; may hold +inf, never nan or -inf.
        source: where the box came from, in words for the report.

    Raises:
        ValueError: shapes that differ, nan, lower > upper.
    """

    lower: Array
    upper: Array
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", frozen(self.lower))
        object.__setattr__(self, "upper", frozen(self.upper))
        if self.lower.shape != self.upper.shape:
            raise ValueError(f"lower {self.lower.shape} and upper {self.upper.shape} differ")
        if np.isnan(self.lower).any() or np.isnan(self.upper).any():
            raise ValueError("a bound is nan")
        if (self.lower == np.inf).any() or (self.upper == -np.inf).any():
            raise ValueError("a lower bound is inf or an upper bound is -inf")
        if (self.lower > self.upper).any():
            raise ValueError("a lower bound exceeds its upper bound")

    @property
    def finite(self) -> bool:
        """Whether every bound is finite."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    def contains(self, x: Array) -> bool:
        """Whether every point of `x`, shape (points, n), lies in the box; no tolerance."""
        return bool((x >= self.lower).all() and (x <= self.upper).all())

    def clip(self, x: Array) -> Array:
        """The nearest points of the box."""
        return np.clip(x, self.lower, self.upper)

    def sides(self) -> tuple[Array, Array]:
        """Finite lower and upper sides to draw points from; the box's own where it is finite."""
        low, high = self.lower, self.upper
        if self.finite:
            return low, high
        anchor = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
        radius = UNBOUNDED_SAMPLE_RADIUS
        return (
            np.where(np.isfinite(low), low, np.minimum(anchor, 0.0) - radius),
            np.where(np.isfinite(high), high, np.maximum(anchor, 0.0) + radius),
        )

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Uniformly random points, shape (count, *shape)."""
        low, high = self.sides()
        return self.clip(low + rng.random((count, *low.shape)) * (high - low))

    def corners(self, rng: np.random.Generator, count: int, share: float = 0.5) -> Array:
        """Random corners, shape (count, *shape); each entry is at its upper side with `share`."""
        low, high = self.sides()
        return np.where(rng.random((count, *low.shape)) < share, high, low)
