"""Where the units of an original layer live on in the layer that stands for it now.

For every point of the domain, h_i = a_i h'_k(i) with h the outputs of the original layer and h'
those of the new one, for every unit i that lives on: it is unit k(i), and a_i is 1 unless unit i
was merged with another that it is a positive multiple of (`onnx_exact.reduce.scale`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

# In place of the index of a unit that is gone: it was removed, folded or moved into a bias, or it
# is a combination of several others now.
GONE = -1
# In place of the index of an original unit: the unit came in with a reduction.
NEW = -1


@dataclass(frozen=True, eq=False)
class UnitMap:
    """From the units of an original layer to those of the layer that stands for it.

    Attributes:
        source: index of the layer in the original chain.
        place: index of the new unit each original one lives on in, or GONE; shape (original
            units,). A new unit that no entry names stands for none of them.
        factor: a_i > 0, by which the new unit's output has to be multiplied, rounded to float64;
            1 where there is no other reason and where the unit is gone. Shape (original units,).
    """

    source: int
    place: NDArray[np.intp]
    factor: Array

    @staticmethod
    def identity(source: int, width: int) -> UnitMap:
        """Every unit where it was."""
        return UnitMap(source, np.arange(width), np.ones(width))

    def keep(self, kept: NDArray[np.bool_]) -> UnitMap:
        """After all new units but those that `kept` selects have gone; shape (new units,)."""
        moved = np.where(kept, np.cumsum(kept) - 1, GONE)
        place = np.where(self.place == GONE, GONE, moved[self.place])
        return replace(self, place=place, factor=np.where(place == GONE, 1.0, self.factor))

    def merge(self, units: NDArray[np.intp], into: int, ratios: Array) -> UnitMap:
        """After new units `units`, `ratios` times new unit `into`, are read there instead.

        Args:
            units: distinct, without `into`.
            into: index of the new unit that stays.
            ratios: shape (merged units,), positive.
        """
        place, factor = self.place.copy(), self.factor.copy()
        for unit, ratio in zip(units, ratios, strict=True):
            moved = self.place == unit
            place[moved] = into
            factor[moved] *= ratio
        return replace(self, place=place, factor=factor)

    def units(self, width: int) -> NDArray[np.intp]:
        """The original unit that each of `width` new ones is, NEW where it is none unchanged."""
        units = np.full(width, NEW)
        # Of equal ones the first counts: it is written last.
        same = np.flatnonzero((self.place != GONE) & (self.factor == 1.0))[::-1]
        units[self.place[same]] = same
        return units
