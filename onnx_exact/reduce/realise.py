"""The linear map of a normal form by as few linear units as it takes.

The readers need L h + o, L = sum_d l_d w_d and o = sum_d l_d b_d. Units that compute B h + e give
the same if A B = L, where they are read by A and o - A e is added to the constant. Four choices:

    directions: B = the rows w_d of the file with their biases, A = l: nothing is shifted;
    columns:    B = I (the inputs that L reads), A = L: the inputs are passed through;
    rows:       B = L (its rows that are not 0), A = I: a unit for each reader that needs one;
    spanning:   B = a well-conditioned basis of the rows of L, the others by least squares.

The first is exact; the product L is rounded in the next two; the last leaves A B - L over as well.
Before a ReLU e is the least shift by which B h + e is never negative, by a rigorous bound.
(The idea: Zhong, Wang, Khoo 2023, REDNet.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.reduce.budget import reach
from onnx_exact.reduce.collinear import Index
from onnx_exact.reduce.form import CANCELLED, NormalForm
from onnx_exact.reduce.pivoted_qr import pivoted_qr

DIRECTIONS = "directions"
COLUMNS, ROWS, SPANNING = ALL_KINDS = ("columns", "rows", "spanning")
# Bounds on what rows, shape (rows, inputs), give over the domain.
BoundsOf = Callable[[Array], tuple[Array, Array]]

# What a basis may leave over of a row, as a share of the row's budget: proposals.
LEFT_OVER = (0.3, 1e-2, 1e-5)
# Combinations are looked for without entries below this share of their largest.
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Linear:
    """Linear units and how they are read, in numbers that the model's dtype holds.

    Attributes:
        how: DIRECTIONS, COLUMNS, ROWS or SPANNING.
        weight, bias: B and e.
        read: A, shape (readers, units).
        lower, upper: bounds on B h + e.
        moved: what readers are moved by, shape (readers,).
        added: to their constant.
        units: the units of the layer that they are, of which weight and bias are not needed.
    """

    how: str
    weight: Array
    bias: Array
    read: Array
    lower: Array
    upper: Array
    moved: Array
    added: Approximate
    units: Index

    @property
    def count(self) -> int:
        """How many units they are."""
        return len(self.bias)


@dataclass(frozen=True, eq=False)
class Map:
    """L h + o, with bounds."""

    form: NormalForm
    weight: Approximate
    offset: Approximate

    @staticmethod
    def of(form: NormalForm) -> Map:
        """The linear part of a normal form."""
        directions = form.directions
        amount = form.amount.of(directions)
        weight, bias = form.units.numbers(directions)
        return Map(form, amount @ weight, amount @ bias)

    @property
    def rows(self) -> Index:
        """The rows of L of which more is left than of terms that cancel."""
        units, directions = self.form.units, self.form.directions
        terms = np.abs(self.form.amount.value[:, directions])
        terms = reach(terms, reach(units.affine.linear.rows(directions), units.size))
        left = reach(self.weight.value, units.size)
        least = np.where(np.isfinite(terms), CANCELLED * self.form.ledger.roundoff * terms, 0.0)
        exactly = not self.form.ledger.room.any()
        return np.flatnonzero(left > (0.0 if exactly else least))

    @property
    def off(self) -> Array:
        """What L is off by for its readers."""
        return reach(self.weight.off, self.form.units.size)

    def bounds(self, rows: Index, weight: Array, of: BoundsOf) -> tuple[Array, Array]:
        """Bounds on stored rows of L, by themselves and by way of the directions they stand for."""
        units, directions = self.form.units, self.form.directions
        low, high = of(weight)
        amount = self.form.amount.value[np.ix_(rows, directions)]
        ends = np.stack([units.lower[directions], units.upper[directions]])
        with np.errstate(over="ignore", invalid="ignore"):
            both = amount[:, None] * ends
            off = reach(weight - self.weight.value[rows], units.size) + self.off[rows]
            sizes = np.abs(both).max(axis=1).sum(axis=1) + np.abs(self.offset.value[rows])
            off = off + self.offset.off[rows] + 4.0 * (len(directions) + 4) * 2.0**-53 * sizes
            below = both.min(axis=1).sum(axis=1) - self.offset.value[rows] - off
            above = both.max(axis=1).sum(axis=1) - self.offset.value[rows] + off
        return np.fmax(low, below), np.fmin(high, above)


def realisations(
    form: NormalForm, relu: bool, bounds: BoundsOf, kinds: tuple[str, ...]
) -> Iterator[Linear]:
    """The realisations of a form's linear map, those with the fewest units first.

    Args:
        form: the normal form.
        relu: whether a ReLU follows the units.
        bounds: gives bounds on linear functions of the layer's inputs.
        kinds: of those above that may be used, besides the directions.
    """
    directions = form.directions
    paired = np.isin(directions, form.opposite)
    counts = {DIRECTIONS: directions.size}
    if not (form.linear[directions] | paired).all():
        # A kink that was turned is no unit for its own linear part.
        del counts[DIRECTIONS]
    if kinds and (directions.size > 1 or not counts):
        linear = Map.of(form)
        needed = np.isfinite(linear.weight.value).all()
        if needed and COLUMNS in kinds:
            counts[COLUMNS] = int(linear.weight.value.any(axis=0).sum())
        if needed and ROWS in kinds:
            rows = linear.rows
            counts[ROWS] = rows.size
            most = min(counts.values())
            for basis in _bases(linear, rows, form.ledger.room) if SPANNING in kinds else ():
                if basis.size < most:
                    yield _by_rows(linear, basis, rows, relu, bounds)
    for how in sorted(counts, key=counts.__getitem__):
        if how == DIRECTIONS:
            yield _by_directions(form)
        elif counts[how] < counts.get(DIRECTIONS, np.inf):
            yield (
                _by_columns(linear, relu, bounds)
                if how == COLUMNS
                else _by_rows(linear, rows, rows, relu, bounds)
            )


def _by_directions(form: NormalForm) -> Linear:
    units, directions = form.units, form.directions
    exact = form.amount.of(directions)
    moved = form.ledger.reached(exact, units.magnitude[directions])
    # What is all but active and stays keeps its ReLU.
    depths = np.where(form.units.active, 0.0, np.maximum(-units.lower, 0.0))[directions]
    moved = moved + reach(exact.value, np.where(form.linear[directions], depths, 0.0))
    return Linear(
        DIRECTIONS,
        units.affine.linear.rows(directions),
        units.affine.bias[directions],
        form.ledger.stored(exact.value),
        units.lower[directions],
        units.upper[directions],
        moved,
        Approximate(np.zeros(len(moved))),
        directions,
    )


def _by_columns(linear: Map, relu: bool, bounds: BoundsOf) -> Linear:
    inputs = np.flatnonzero(linear.weight.value.any(axis=0))
    weight = np.eye(linear.weight.value.shape[1])[inputs]
    read = linear.form.ledger.stored(linear.weight.value[:, inputs])
    return _shifted(linear, COLUMNS, weight, read, *bounds(weight), relu)


def _by_rows(linear: Map, basis: Index, rows: Index, relu: bool, bounds: BoundsOf) -> Linear:
    """A unit for each row of the basis; the others are combinations of them."""
    ledger, product = linear.form.ledger, linear.weight.value
    weight = ledger.stored(product[basis])
    read = np.zeros((len(product), basis.size))
    read[basis, np.arange(basis.size)] = 1.0
    others = np.setdiff1d(rows, basis)
    unbounded = np.full(basis.size, np.inf)
    lower, upper = -unbounded, unbounded
    if np.isfinite(weight).all():
        lower, upper = linear.bounds(basis, weight, bounds)
        if others.size:
            solved = np.linalg.lstsq(weight.T, product[others].T, rcond=None)[0].T
            largest = np.abs(solved).max(axis=1, keepdims=True)
            read[others] = ledger.stored(np.where(np.abs(solved) < TINY * largest, 0.0, solved))
    return _shifted(linear, SPANNING if others.size else ROWS, weight, read, lower, upper, relu)


def _shifted(
    linear: Map, how: str, weight: Array, read: Array, lower: Array, upper: Array, relu: bool
) -> Linear:
    ledger, size = linear.form.ledger, linear.form.units.size
    shift = ledger.stored_above(np.maximum(-lower, 0.0)) if relu else np.zeros(len(lower))
    with np.errstate(over="ignore", invalid="ignore"):
        left = Approximate(read) @ Approximate(weight) + -linear.weight
        moved = reach(np.abs(left.value) + left.off, size)
        added = linear.offset + -(Approximate(read) @ Approximate(shift))
        low = np.nextafter(lower + shift, -np.inf)
        high = np.nextafter(upper + shift, np.inf)
    low = np.maximum(low, 0.0) if relu else low
    none = np.arange(0)
    return Linear(how, weight, shift, read, low, np.maximum(high, low), moved, added, none)


def _bases(linear: Map, rows: Index, room: Array) -> Iterator[Index]:
    """Bases of the rows, the fewest rows first, by pivoted QR scaled by inputs and budgets."""
    if rows.size < 2:
        return
    size = linear.form.units.size
    smallest = np.finfo(np.float64).tiny
    scaled = linear.weight.value[rows] * np.where(np.isfinite(size), size, 1.0)
    unit = np.abs(scaled).max(axis=1) * (2.0**-40)
    scaled = scaled / np.maximum(np.maximum(room[rows], unit), smallest)[:, None]
    if not np.isfinite(scaled).all():
        return
    (pivots, order), before = pivoted_qr(scaled.T), rows.size
    for share in LEFT_OVER:
        rank = int((pivots > share / np.sqrt(linear.weight.value.shape[1])).sum())
        if rank > 0 and (share == LEFT_OVER[0] or rank != before):
            yield rows[np.sort(order[:rank])]
        before = rank
