"""The best bound under assumptions on signs, by the dual simplex method.

What `ascent` only comes near this attains, at thirty times the cost: for cases that nothing is left
to split on.

    maximise a . h^k over x in the box and, for every unit below with L <= g <= U,
    g = h - hbar,  h >= 0,  hbar >= 0,  and      h <= s g + t      without an assumption
                                                 hbar = 0          assumed g >= 0
                                                 h = 0             assumed g <= 0

Stable units are no variables: what they pass on is substituted. From one set of assumptions to the
next only sides of columns and rows change, so that the last basis stays dual feasible: a few dozen
iterations mostly lead to the next optimum.

The dual says which slopes and multipliers attain the optimum. With m_0, m_1 the reduced costs
of h and hbar, the lower slope is m_1 / (m_0 + m_1), and one of them is the multiplier of an
assumption. The solver only proposes them: the bound is evaluated by `crown.upper_bounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.relu_split.subproblems import Cases, Signs
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.milp.highs import highs
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

Index = NDArray[np.intp]

# Multiples of a proof of infeasibility that are tried, relative to the functional's coefficients.
RAY_LENGTHS: Array = np.exp2(np.arange(0.0, 32.0, 4.0))


@dataclass(frozen=True, eq=False)
class Optimum:
    """What the solver found for one set of assumptions.

    Attributes:
        cases: slopes and multipliers that should attain the optimum: one case, or several of which
            one should, where the assumptions exclude each other.
        point: the relaxation's input, shape (inputs,); None where there is none.
    """

    cases: Cases
    point: Array | None


class Program:
    """The linear program of one functional.

    Args:
        row: the functional, one row.
        below: the relaxations of the layers, first to last, at least one.
        box: the domain, finite.
    """

    def __init__(self, row: Affine, below: Sequence[Relaxation], box: Box) -> None:
        self._below, self._box = below, box
        self._unstable = [
            np.flatnonzero((r.upper_slope > 0.0) & (r.upper_slope < 1.0)) for r in below
        ]
        self._n = box.lower.size
        self._starts = np.cumsum([0, *(u.size for u in self._unstable)])
        self._count = int(self._starts[-1])
        self._expand(row)
        self._scale()
        self._load()

    def _expand(self, row: Affine) -> None:
        """Every unstable g, and the functional, in terms of x and of unstable h."""
        columns = self._n + self._count
        terms, constant = np.zeros((0, 0)), np.zeros(0)
        rows, offsets = [], []
        layers = zip(self._below, self._unstable, self._starts, strict=False)
        for index, (layer, unstable, start) in enumerate(layers):
            if index:
                terms, constant = layer.affine.weight @ terms, layer.affine.apply(constant)
            else:
                terms, constant = np.zeros((layer.affine.n_out, columns)), layer.affine.bias.copy()
                terms[:, : self._n] = layer.affine.weight
            rows.append(terms[unstable])
            offsets.append(constant[unstable])
            blocked = layer.upper_slope < 1.0
            terms[blocked], constant[blocked] = 0.0, 0.0
            terms[unstable, self._n + start + np.arange(unstable.size)] = 1.0
        self._rows, self._offsets = np.concatenate(rows), np.concatenate(offsets)
        self._objective = (row.weight @ terms)[0]
        self._slopes, self._lines = (
            np.concatenate([v[u] for v, u in zip(values, self._unstable, strict=True)])
            for values in (
                [r.upper_slope for r in self._below],
                [r.upper_offset for r in self._below],
            )
        )
        self._largest = float(np.abs(row.weight).max())

    def _scale(self) -> None:
        """Brings every h and the objective to the order of 1, by powers of two."""
        n = self._n
        self._size = _power_of_two(self._lines)
        self._rows[:, n:] *= self._size
        self._rows /= self._size[:, None]
        self._offsets = self._offsets / self._size
        self._lines = self._lines / self._size
        self._objective[n:] *= self._size
        side = self._box.upper - self._box.lower
        reach = np.abs(self._objective[:n]) @ side + np.abs(self._objective[n:]).sum()
        self._unit = float(_power_of_two(np.array([reach]))[0])

    def _load(self) -> None:
        """Hands the program to the solver, without any assumption."""
        from scipy.sparse import csr_matrix, diags_array, hstack, vstack

        highspy = highs()
        n, m = self._n, self._count
        lp: Any = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = n + 2 * m, 2 * m
        lp.col_cost_ = np.concatenate([-self._objective / self._unit, np.zeros(m)])
        lp.col_lower_ = np.concatenate([self._box.lower, np.zeros(2 * m)])
        lp.col_upper_ = np.concatenate([self._box.upper, np.full(2 * m, np.inf)])
        one = np.zeros((m, n + m))
        one[np.arange(m), n + np.arange(m)] = 1.0
        definition = hstack([csr_matrix(one - self._rows), -diags_array(np.ones(m))])
        line = hstack(
            [csr_matrix((m, n)), diags_array(1.0 - self._slopes), diags_array(self._slopes)]
        )
        self._matrix = csr_matrix(vstack([definition, line]))
        lp.row_lower_ = np.concatenate([self._offsets, np.full(m, -np.inf)])
        lp.row_upper_ = np.concatenate([self._offsets, self._lines])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = self._matrix.indptr
        lp.a_matrix_.index_ = self._matrix.indices
        lp.a_matrix_.value_ = self._matrix.data
        self._solver = cast(Any, highspy).Highs()
        self._solver.setOptionValue("output_flag", False)
        self._solver.setOptionValue("threads", 1)
        # Simplex alone, so that every solve starts with the last basis.
        self._solver.setOptionValue("solver", "simplex")
        self._solver.setOptionValue("presolve", "off")
        # It is scaled already.
        self._solver.setOptionValue("simplex_scale_strategy", 0)
        # Coefficients that the solver takes for 0 are worth no more than a warning to it.
        self._loaded = self._solver.passModel(lp) != highspy.HighsStatus.kError
        self._optimal = highspy.HighsModelStatus.kOptimal
        self._infeasible = highspy.HighsModelStatus.kInfeasible
        self._signs = np.zeros(m, dtype=np.int8)

    def solve(self, signs: Sequence[Signs], seconds: float) -> Optimum | None:
        """The optimum under assumptions, one array a layer of shape (units,).

        Returns:
            None where the solver gave up, or took longer than `seconds`.
        """
        if not self._loaded:
            return None
        self._assume(np.concatenate([s[u] for s, u in zip(signs, self._unstable, strict=True)]))
        status = self._run(seconds)
        if status not in (self._optimal, self._infeasible):
            # Now and then a basis leads nowhere.
            self._solver.clearSolver()
            status = self._run(seconds)
        if status == self._optimal:
            solution = self._solver.getSolution()
            point, columns = np.array(solution.col_value), np.array(solution.col_dual)[self._n :]
            return Optimum(self._cases(signs, columns, np.ones(1)), point[: self._n])
        if status == self._infeasible:
            _, there, ray = self._solver.getDualRay()
            if there:
                columns = -(self._matrix.T @ np.array(ray))[self._n :]
                return Optimum(self._cases(signs, columns, RAY_LENGTHS), None)
        return None

    def _run(self, seconds: float) -> Any:
        """Solves; the status."""
        self._solver.setOptionValue("time_limit", self._solver.getRunTime() + seconds)
        self._solver.run()
        return self._solver.getModelStatus()

    def _assume(self, signs: Signs) -> None:
        """Changes the sides of what belongs to units whose assumption is another than before."""
        n, m = self._n, self._count
        for i in np.flatnonzero(signs != self._signs):
            self._solver.changeColBounds(n + i, 0.0, 0.0 if signs[i] == -1 else np.inf)
            self._solver.changeColBounds(n + m + i, 0.0, 0.0 if signs[i] == 1 else np.inf)
            self._solver.changeRowBounds(m + i, -np.inf, np.inf if signs[i] else self._lines[i])
        self._signs = signs

    def _cases(self, signs: Sequence[Signs], columns: Array, lengths: Array) -> Cases:
        """Slopes and multipliers from reduced costs, the latter in several lengths."""
        zero, one = np.maximum(columns, 0.0).reshape(2, -1)
        total = zero + one
        lower = np.clip(one / np.where(total > 0.0, total, 1.0), 0.0, 1.0)
        factor = np.where(self._signs == 1, zero, np.where(self._signs == -1, one, 0.0))
        factor = factor * (self._unit / self._size)
        if lengths.size > 1:
            factor *= self._largest / max(float(factor.max(initial=0.0)), np.finfo(float).tiny)
        slopes, multipliers = [], []
        for k, (layer, unstable) in enumerate(zip(self._below, self._unstable, strict=True)):
            part = slice(int(self._starts[k]), int(self._starts[k + 1]))
            slope, multiplier = layer.lower_slope.copy(), np.zeros(layer.affine.n_out)
            slope[unstable] = np.where(total[part] > 0.0, lower[part], slope[unstable])
            slope = np.where(signs[k] == 1, 1.0, np.where(signs[k] == -1, 0.0, slope))
            multiplier[unstable] = factor[part]
            slopes.append(np.tile(slope, (lengths.size, 1)))
            multipliers.append(lengths[:, None] * multiplier)
        repeated = tuple(np.tile(s, (lengths.size, 1)) for s in signs)
        return Cases(repeated, tuple(slopes), tuple(multipliers))


def _power_of_two(values: Array) -> Array:
    """The powers of two just below positive values, 1 for others."""
    usable = (values > 0.0) & np.isfinite(values)
    return np.exp2(np.floor(np.log2(np.where(usable, values, 1.0))))
