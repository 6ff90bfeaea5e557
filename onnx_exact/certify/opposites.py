"""Units that are negative multiples of another unit of their layer: linear but for that one.

    g_i = -c g_k, c > 0,    hence    h_i = max(g_i, 0) = g_i + max(-g_i, 0) = g_i + c h_k.

Where g_i + c g_k is not 0 but at most d in magnitude, the two sides differ by at most d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.rounding import SMALLEST, gamma
from onnx_exact.reduce.budget import reach

# Rows are looked at as opposite if they agree this closely, relative to their largest entries; how
# far they are from it counts.
CLOSE = 1e-12


@dataclass(frozen=True, eq=False)
class Opposites:
    """Units units[m], factors[m] times the opposite of units partners[m], up to off[m]."""

    units: NDArray[np.intp]
    partners: NDArray[np.intp]
    factors: Array
    off: Array

    def explain(self, weight: Array, size: Array) -> tuple[Array, Array]:
        """What a functional of the layer's outputs costs without the units, and what is left of it.

        Args:
            weight: of the functionals, shape (rows, units).
            size: bounds on the outputs, shape (units,).

        Returns:
            How far each functional may be off for it, shape (rows,), and their weights where
            h_i = g_i + c h_k has been put in; those of the units i are of g_i from now on.
        """
        if not self.units.size:
            return np.zeros(len(weight)), weight
        joined, read = weight.copy(), weight[:, self.units]
        np.add.at(joined.T, self.partners, (read * self.factors).T)
        sizes = np.abs(weight)
        np.add.at(sizes.T, self.partners, np.abs(read * self.factors).T)
        cost = reach(read, self.off) * (1.0 + gamma(self.units.size))
        touched = np.where(joined != weight, sizes + SMALLEST * self.units.size, 0.0)
        return cost + gamma(self.units.size) * reach(touched, size), joined


def find_opposites(
    affine: Affine,
    units: NDArray[np.intp],
    inputs: Array,
    terms: Array,
) -> Opposites:
    """Those of `units` that are opposite to another unit, which is none of those found.

    Args:
        affine: of the layer.
        units: indices, in the order in which they are preferred.
        inputs: bounds on the magnitudes of the layer's inputs; what is always 0 does not count.
        terms: bounds on the sums of absolute terms of the pre-activations, shape (units,).
    """
    rows = np.column_stack([affine.weight * (inputs > 0.0), affine.bias])
    found: list[tuple[int, int, float, float]] = []
    explained, partners = np.zeros((2, affine.n_out), dtype=bool)
    for i in (unit for unit in units if not partners[unit]):
        pivot = int(np.abs(rows[i]).argmax())
        candidates = np.flatnonzero((rows[:, pivot] * rows[i, pivot] < 0.0) & ~explained)
        if not candidates.size:
            continue
        factors = -rows[i, pivot] / rows[candidates, pivot]
        left = np.abs(rows[i] + factors[:, None] * rows[candidates])
        off = reach(left[:, :-1], inputs) + left[:, -1]
        best = int(off.argmin())
        if off[best] <= CLOSE * terms[i]:
            # The factor is rounded, and so is what is left over.
            wide = 0.0 if _exact(rows[i], rows[candidates[best]]) else gamma(4) * terms[i]
            found.append((int(i), int(candidates[best]), float(factors[best]), off[best] + wide))
            explained[i] = partners[candidates[best]] = True
    columns = np.array(found, dtype=np.float64).reshape(-1, 4).T
    first, second = (column.astype(np.intp) for column in columns[:2])
    return Opposites(first, second, columns[2], columns[3])


def _exact(row: Array, other: Array) -> bool:
    """Whether two rows are opposite and equal in size."""
    return bool((row == -other).all())
