"""Where the units of an original layer live on in the layer that stands for it now.

For every point of the domain, g_i = a_i g'_k(i) with g the pre-activations of the original layer
and g' those of the new one, for every unit i that lives on: it is unit k(i), and a_i is 1 unless
unit i lies on one hyperplane with another, or the new one faces the other way (a_i < 0), where

    max(g_i, 0) = |a_i| max(g'_k, 0) + (g_i if a_i < 0 else 0).

Units that are gone together were multiples of one another, a_i / a_j, and what is left of them is
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

# In place of the index of a unit that is gone: it was removed, folded, moved into a bias, or is
# linear and given by others now. Numbers below it are shared by units that are gone together.
GONE = -1
# In place of the index of an original unit: the unit came in with a reduction.
NEW = -1


@dataclass(frozen=True, eq=False)
class UnitMap:
    """From the units of an original layer to those of the layer that stands for it.

    Attributes:
        source: index of the layer in the original chain.
        place: index of the new unit each original one lives on in, GONE, or below that the same
            number for those that are gone together; shape (original units,). A new unit that no
            entry names stands for none of them.
        factor: a_i, rounded to float64; 1 where there is no other reason. Shape (original units,).
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
        # What was one unit goes together: its parts may cancel where they are read.
        gone = GONE - 1 - np.arange(kept.size)
        return self.then(np.where(kept, np.cumsum(kept) - 1, gone), np.ones(kept.size))

    def then(self, place: NDArray[np.intp], factor: Array) -> UnitMap:
        """After the new units have gone to places of their own; shape (new units,).

        Args:
            place: as that of a map; the same number below GONE for those that go together.
            factor: of each.
        """
        lives = self.place >= 0
        moved = place[np.where(lives, self.place, 0)]
        # Numbers of those that were gone together before are lower than any that is new.
        lowest = min(int(self.place.min(initial=GONE)), GONE)
        moved = np.where(moved < GONE, moved + lowest - GONE, moved)
        places = np.where(lives, moved, self.place)
        factors = np.where(lives, self.factor * factor[np.where(lives, self.place, 0)], self.factor)
        together = (places < GONE) & (_count(places) > 1)
        alone = (places < 0) & ~together
        return UnitMap(self.source, np.where(alone, GONE, places), np.where(alone, 1.0, factors))

    def lost(self) -> UnitMap:
        """After all new units have gone, those on one hyperplane together."""
        width = int(self.place.max(initial=GONE)) + 1
        return self.then(GONE - 1 - np.arange(max(width, 1)), np.ones(max(width, 1)))

    def units(self, width: int) -> NDArray[np.intp]:
        """The original unit that each of `width` new ones is, NEW where it is none unchanged."""
        units = np.full(width, NEW)
        # Of equal ones the first counts: it is written last.
        same = np.flatnonzero((self.place >= 0) & (self.factor == 1.0))[::-1]
        units[self.place[same]] = same
        return units


def _count(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many entries each entry is equal to."""
    _, where, counts = np.unique(places, return_inverse=True, return_counts=True)
    return np.asarray(counts[where])
