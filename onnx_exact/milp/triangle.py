"""The triangle relaxation of a layer's inputs as a linear program, in cvxpy.

    maximise c . h^(l-1) over x in the box and, for every unit below with L <= g <= U,
    h >= 0,  h >= g,  h <= s g + t  (unstable),    h = g  (stably active),    h = 0  (inactive)

The objective c is a parameter, so that the program of a layer is compiled once. Its optimum is the
best that backward linear bounds can reach with these bounds on the layers below (Salman et al.
2019), and its dual says how: with mu_0 and mu_1 the multipliers of h >= 0 and h >= g, the lower
slope mu_1 / (mu_0 + mu_1) makes `crown.upper_bounds` attain it. So the solver only proposes: the
bound itself is evaluated rigorously with the slopes it found.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.cases import Cases, bounds_of
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.methods import DEFAULT_LP_SOLVER
from onnx_exact.milp.highs import highs
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

Index = NDArray[np.intp]


class TriangleRelaxation:
    """The compiled program of one layer.

    Args:
        layers: the relaxations of the layers below, first to last; at least one.
        box: the domain, finite.
        solver: the name of any solver that cvxpy finds installed.
    """

    def __init__(
        self, layers: Sequence[Relaxation], box: Box, solver: str = DEFAULT_LP_SOLVER
    ) -> None:
        import cvxpy as cp

        self._layers, self._box, self._solver = layers, box, solver
        self._x = cp.Variable(box.lower.size)
        self._lines: list[tuple[Any, Any, Index]] = []
        constraints = [self._x >= box.lower, self._x <= box.upper]
        below: Any = self._x
        for layer in layers:
            below = self._add_layer(cp, layer, below, constraints)
        self._objective = cp.Parameter(below.shape)
        self._problem = cp.Problem(cp.Maximize(self._objective @ below), constraints)

    def _add_layer(self, cp: Any, layer: Relaxation, below: Any, constraints: list[Any]) -> Any:
        """Adds one layer's variables and constraints; its output, all units in place."""
        g = layer.affine.entries @ below + layer.affine.bias
        h = cp.Variable(layer.affine.n_out)
        unstable, stable = np.flatnonzero(layer.unstable), ~layer.unstable
        active = np.flatnonzero(stable & (layer.upper_slope == 1.0))
        inactive = np.flatnonzero(stable & (layer.upper_slope == 0.0))
        slope, offset = layer.upper_slope[unstable], layer.upper_offset[unstable]
        nonnegative, above = h[unstable] >= 0.0, h[unstable] >= g[unstable]
        self._lines.append((nonnegative, above, unstable))
        constraints += [
            nonnegative,
            above,
            h[unstable] <= cp.multiply(slope, g[unstable]) + offset,
            h[active] == g[active],
            h[inactive] == 0.0,
        ]
        return h

    def upper_bound(self, row: Affine, iterations: int) -> tuple[float, Array, Cases] | None:
        """A sound upper bound on a functional of the last layer's output.

        Args:
            row: the functional, one row.
            iterations: of the solver at most, where its limit is known.

        Returns:
            The bound, the relaxation's input, shape (inputs,), which is worth running forward, and
            the slopes that give the bound; None where the solver gave no dual solution within them.
        """
        import cvxpy as cp

        self._objective.value = row.entries[0]
        limits = {}
        if self._solver == DEFAULT_LP_SOLVER:
            highs()
            limits = {"highs_options": {"simplex_iteration_limit": iterations}}
        problem: Any = self._problem
        try:
            with warnings.catch_warnings():
                # Of an answer that is inaccurate: it is evaluated here, whatever it is.
                warnings.simplefilter("ignore", UserWarning)
                problem.solve(solver=self._solver, **limits)
        except cp.SolverError:
            return None
        if self._problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return None
        lines = zip(self._layers, self._lines, strict=True)
        cases = Cases((), tuple(self._slopes(layer, *line) for layer, line in lines), ())
        bounds, _ = bounds_of(row, self._layers, self._box, cases)
        return float(bounds[0]), np.asarray(self._x.value, dtype=np.float64), cases

    @staticmethod
    def _slopes(layer: Relaxation, nonnegative: Any, above: Any, unstable: Index) -> Array:
        """The lower slopes that the dual solution amounts to, shape (1, units)."""
        slopes = layer.lower_slope.copy()
        zero, one = (np.maximum(c.dual_value, 0.0) for c in (nonnegative, above))
        total = zero + one
        used = total > 0.0
        index = unstable[used]
        slopes[index] = np.clip(one[used] / total[used], 0.0, 1.0)
        return slopes[None, :]
