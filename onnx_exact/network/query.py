"""What is asked of a network: whether one sign of one unit occurs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Query:
    """Whether the pre-activation of a unit is ever positive, or ever negative.

    Attributes:
        layer: index of the unit's layer.
        unit: index of the unit in its layer.
        positive: whether g > 0 is asked for, or g < 0.
    """

    layer: int
    unit: int
    positive: bool

    @property
    def sign(self) -> float:
        """1.0 or -1.0: the sign occurs where `sign * g` is positive."""
        return 1.0 if self.positive else -1.0

    @property
    def row(self) -> int:
        """The query's row in arrays that hold the positive signs first, then the negative ones."""
        return 0 if self.positive else 1
