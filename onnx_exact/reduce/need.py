"""What a layer's stably active units give to the next layer, and linear units that give the same.

On the domain the stably active units S of a layer are linear, h_S = W_S h + b_S, and the next layer
reads them through V_S only:

    V_S h_S = M h + V_S b_S,    M = V_S W_S.

Units that compute B h + d >= 0 give the same if A B = M, where the next layer reads them by A and
adds V_S b_S - A d. Any B whose rows span those of M will do; three are simple or exact:

    rows:     B = M (its rows that are not 0), A = I: a unit for each row that needs one;
    columns:  B = I (the inputs that M reads), A = M: the inputs are passed through;
    spanning: B = a well-conditioned basis of the rows of M, A = I for these, and found by least
              squares for the others.

Only the product M is rounded in the first two; the third leaves R = A B - M over, which may not
exceed what rounding the terms of M amounts to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.basis import split_rows
from onnx_exact.reduce.bounds import functional_bounds
from onnx_exact.reduce.budget import reach
from onnx_exact.reduce.state import State

ROWS, COLUMNS, SPANNING = "rows", "columns", "spanning rows"

# The share of a row that a basis may leave over is that of the dtype's rounding, or else this.
RANK_TOLERANCE = 1e-13
# Combinations are looked for without entries below this share of their largest.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True, eq=False)
class Need:
    """What stably active units give to the next layer: matrix h + offset.

    Attributes:
        state, index: the network and the layer.
        active: indices of the units, S.
        matrix: M, shape (rows, inputs).
        offset: V_S b_S, shape (rows,).
        magnitude, offset_magnitude: |V_S| |W_S| and |V_S| |b_S|.
    """

    state: State
    index: int
    active: NDArray[np.intp]
    matrix: Array
    offset: Array
    magnitude: Array
    offset_magnitude: Array

    @staticmethod
    def of(state: State, index: int, active: NDArray[np.intp]) -> Need:
        """The need of layer `index` + 1 for the units `active` of layer `index`."""
        first, second = (state.layers[i].layer.affine for i in (index, index + 1))
        incoming, outgoing = first.weight[active], second.weight[:, active]
        bias = first.bias[active]
        with np.errstate(over="ignore", invalid="ignore"):
            return Need(
                state,
                index,
                active,
                outgoing @ incoming,
                outgoing @ bias,
                np.abs(outgoing) @ np.abs(incoming),
                np.abs(outgoing) @ np.abs(bias),
            )

    @property
    def rounding(self) -> Array:
        """How far M h + V_S b_S may be off for all that was computed in float64, shape (rows,)."""
        size = self.state.input_magnitude(self.index)
        first, second = (self.state.layers[i].layer.affine for i in (self.index, self.index + 1))
        off = reach(second.weight[:, self.active], first.off(size)[self.active])
        return off + gamma(self.active.size) * (reach(self.magnitude, size) + self.offset_magnitude)


@dataclass(frozen=True, eq=False)
class Linear:
    """Linear units B h and how the next layer reads them, in numbers that the model's dtype holds.

    Attributes:
        how: ROWS, COLUMNS or SPANNING.
        weight: B, shape (units, inputs).
        read: A, shape (rows, units).
        lower, upper: sound bounds on B h over the domain, shape (units,).
        left_over: |A B - M| X with A before it was rounded, if `how` is SPANNING; shape (rows,).
    """

    how: str
    weight: Array
    read: Array
    lower: Array
    upper: Array
    left_over: Array

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.weight)


def realisations(need: Need) -> Iterator[Linear]:
    """The realisations with fewer units than there are, fewest first."""
    rows, columns = need.matrix.any(axis=1), need.matrix.any(axis=0)
    counts = {COLUMNS: int(columns.sum()), ROWS: int(rows.sum())}
    if not np.isfinite(need.matrix).all():
        return
    basis, _ = split_rows(need.matrix, max(need.state.unit_roundoff, RANK_TOLERANCE))
    if basis.size < min(need.active.size, *counts.values()):
        yield _by_rows(need, basis)
    for how in sorted(counts, key=lambda name: counts[name]):
        if counts[how] < need.active.size:
            if how == COLUMNS:
                yield _columns(need, np.flatnonzero(columns))
            else:
                yield _by_rows(need, np.flatnonzero(rows))


def _columns(need: Need, inputs: NDArray[np.intp]) -> Linear:
    """The inputs passed through."""
    weight = np.eye(need.matrix.shape[1])[inputs]
    lower, upper = (bound[inputs] for bound in need.state.input_bounds(need.index))
    none = np.zeros(len(need.matrix))
    return Linear(COLUMNS, weight, need.state.stored(need.matrix[:, inputs]), lower, upper, none)


def _by_rows(need: Need, basis: NDArray[np.intp]) -> Linear:
    """A unit for each of some rows; the others are combinations of them."""
    state = need.state
    weight = state.stored(need.matrix[basis])
    read = np.zeros((len(need.matrix), basis.size))
    left_over = np.zeros(len(read))
    if basis.size == 0:
        return Linear(ROWS, weight, read, np.zeros(0), np.zeros(0), left_over)
    if not np.isfinite(weight).all():
        # Refused by whoever stores it.
        unknown = np.full(basis.size, np.inf)
        return Linear(ROWS, weight, read, -unknown, unknown, left_over)
    lower, upper = _row_bounds(need, basis, weight)
    read[basis, np.arange(basis.size)] = 1.0
    others = np.setdiff1d(np.flatnonzero(need.matrix.any(axis=1)), basis)
    if others.size:
        solved = np.linalg.lstsq(weight.T, need.matrix[others].T, rcond=None)[0].T
        factor = _simplest(np.asarray(solved, dtype=np.float64))
        size = state.input_magnitude(need.index)
        left_over[others] = reach(factor @ weight - need.matrix[others], size)
        left_over[others] += gamma(basis.size) * reach(np.abs(factor) @ np.abs(weight), size)
        read[others] = state.stored(factor)
    how = SPANNING if others.size else ROWS
    return Linear(how, weight, read, lower, upper, left_over)


def _simplest(factor: Array) -> Array:
    """The factor without entries that are 0 but for the rounding of their computation."""
    largest = np.abs(factor).max(axis=1, keepdims=True)
    return np.asarray(np.where(np.abs(factor) < NEGLIGIBLE * largest, 0.0, factor))


def _row_bounds(need: Need, rows: NDArray[np.intp], weight: Array) -> tuple[Array, Array]:
    """Sound bounds on the stored rows of M, by way of the units that they stand for as well."""
    state, index = need.state, need.index
    inputs = state.input_bounds(index)
    direct = interval_bounds(Affine(weight, np.zeros(len(weight))), *inputs)
    outgoing = np.zeros((rows.size, state.layers[index].layer.width))
    outgoing[:, need.active] = state.layers[index + 1].layer.affine.weight[
        np.ix_(rows, need.active)
    ]
    low, high = functional_bounds(state, index, outgoing)
    offset = need.offset[rows]
    with np.errstate(invalid="ignore"):
        off = reach(weight - need.matrix[rows], state.input_magnitude(index))
        off = off + need.rounding[rows] + gamma(2) * (np.abs(offset) + np.abs(low) + np.abs(high))
        return np.fmax(direct[0], low - offset - off), np.fmin(direct[1], high - offset + off)
