"""Units that are gone together: multiples of one another, of which nothing is left in sum.

    g_i = b_i g_r    hence    max(g_i, 0) = |b_i| max(g_r, 0) + (g_i if b_i < 0 else 0),

so that a functional F of them is (sum_i F_i |b_i|) max(g_r, 0) and a linear part. Where
g_i - b_i g_r is not 0 but at most d_i in magnitude, the two sides differ by at most d_i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.approximate import Approximate, quotient
from onnx_exact.network.rounding import SMALLEST, gamma
from onnx_exact.reduce import UnitMap
from onnx_exact.reduce.budget import reach
from onnx_exact.reduce.units import GONE


@dataclass(frozen=True, eq=False)
class Together:
    """Units units[m] that are factors[m] times the first of them, up to off[m].

    Attributes:
        height: a bound on the output of the first.
    """

    units: NDArray[np.intp]
    factors: Array
    off: Array
    height: float

    @property
    def linear(self) -> NDArray[np.intp]:
        """Those of which a linear part is left."""
        return self.units[self.factors < 0.0]

    def explain(self, weight: Array) -> tuple[Array, Array]:
        """What functionals of the outputs cost with the first of the units alone.

        Args:
            weight: of the functionals, shape (rows, units of the layer).

        Returns:
            How far each may be off for it, shape (rows,), and their weights; those of the units
            `linear` are of pre-activations from now on.
        """
        read, sizes = weight[:, self.units], np.abs(self.factors)
        count = self.units.size
        rounding = gamma(count) * (np.abs(read) @ sizes) + count * SMALLEST
        cost = np.where(read.any(axis=1), rounding * self.height, 0.0) + reach(read, self.off)
        left = weight.copy()
        left[:, self.units] = np.where(self.factors < 0.0, read, 0.0)
        left[:, self.units[0]] = read @ sizes
        return cost * (1.0 + gamma(count + 4)), left


def gone_together(
    origin: UnitMap, affine: Affine, among: NDArray[np.bool_], inputs: Array, upper: Array
) -> list[Together]:
    """The units of a layer that are gone together.

    Args:
        origin: where its units are.
        affine: the layer.
        among: those that count: neither linear nor inactive.
        inputs: bounds on the magnitudes of its inputs.
        upper: bounds on its pre-activations.
    """
    found = []
    own, sizes = affine.off(inputs), np.append(inputs, 1.0)
    for number in np.unique(origin.place[(origin.place < GONE) & among]):
        units = np.flatnonzero((origin.place == number) & among)
        factors = quotient(origin.factor[units], origin.factor[units[0]]).value
        rows = np.column_stack([affine.linear.rows(units), affine.bias[units]])
        base = Approximate(rows[:1])
        left = Approximate(rows) + -(Approximate(factors[:, None]) * base)
        off = reach(np.abs(left.value) + left.off, sizes)
        off = off + own[units] + np.abs(factors) * own[units[0]]
        off = off * (1.0 + gamma(affine.n_in + 4))
        found.append(Together(units, factors, off, float(upper[units[0]])))
    return found
