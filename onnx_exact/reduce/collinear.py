"""Rows of a matrix that are multiples of one another, up to a bound.

Pairs are proposed by the directions of the rows scaled by what they are multiplied with, and each
is certified by itself: |r_j - a r_i| X, with error-free products and sums, a by least squares or
the quotient of two entries, whichever leaves less.

No row is compared with all others. A projection moves no two directions further apart, so that rows
of one direction lie close to one another on each of a few random lines; the lines make a grid, and
rows are compared with those in their own cell, or just across the border of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.reduce.budget import reach

# Rows are looked at as multiples from this cosine on.
COSINE = 1.0 - 1e-8
# Beyond this distance, on any line, two rows are none that are looked at: |r - s|^2 = 2 - 2 cos.
APART = 1.5e-4
# Random lines, and the size of the cells on them: where units are many, most are alone in theirs.
LINES, CELL = 8, 2.0**-7
# Odd numbers; products of places on lines with them are not the same by chance.
FACTORS = 2 * (np.arange(LINES) + 1) ** 15 + 1
# Rows that are scaled, or compared, at a time.
BLOCK = 1024

Index = NDArray[np.intp]
RowsOf = Callable[[Index], Array]


@dataclass(frozen=True, eq=False)
class Multiples:
    """Units units[m] whose rows are factors[m] times that of unit `first`, up to residue[m]."""

    first: int
    units: Index
    factors: Array
    residue: Array


def collinear(rows: RowsOf, size: Array, allowed: Array, order: Index) -> list[Multiples]:
    """Groups of rows that are multiples of one of them, positive or negative.

    Args:
        rows: gives some of them; no row of those in `order` is 0 where `size` is not.
        size: bounds on the magnitudes that the entries are multiplied with, shape (entries,).
        allowed: how large the residue of each row may be, shape (units,).
        order: the units to look at, those that are to stay first.
    """
    weights = np.where(np.isfinite(size), size, 1.0)
    near = _near(lambda places: _directions(rows(order[places]) * weights), len(order))
    taken = np.zeros(len(order), dtype=bool)
    found = []
    for first in sorted(near):
        others = near[first][~taken[near[first]]]
        if taken[first] or not others.size:
            continue
        units = order[others]
        factors, residue = _factors(rows, size, int(order[first]), units)
        fits = np.isfinite(residue) & (residue <= allowed[units])
        # A factor that underflows says nothing of what is read.
        fits &= np.abs(factors) >= np.finfo(np.float64).tiny
        if fits.any():
            taken[others[fits]] = True
            group = units[fits], factors[fits], residue[fits]
            found.append(Multiples(int(order[first]), *group))
    return found


def _directions(rows: Array) -> Array:
    """The rows with length 1."""
    # By the largest entry first: squares of tiny or huge entries have no norm.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0.0, largest, 1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0.0, lengths, 1.0))


def _near(rows: RowsOf, count: int) -> dict[int, Index]:
    """For each row of length 1 the later ones that have its direction or the opposite one."""
    found = [np.zeros(0, dtype=np.int64)]
    for cell in _cells(rows, count):
        own = rows(cell)
        for start in range(0, len(cell), BLOCK):
            cosines = np.abs(own[start : start + BLOCK] @ own.T)
            first, second = np.nonzero(cosines > COSINE)
            later = first + start < second
            found.append(cell[first[later] + start].astype(np.int64) * count + cell[second[later]])
    # Two rows may share many cells.
    pairs = np.sort(np.concatenate(found))
    firsts, others = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], count)
    starts = np.flatnonzero(np.diff(firsts, prepend=-1))
    groups = zip(firsts[starts].tolist(), np.split(others, starts[1:]), strict=True)
    return dict(groups) if starts.size else {}


def _cells(rows: RowsOf, count: int) -> list[Index]:
    """Rows that may have one direction, in order: those of each cell with more than one."""
    owners = np.arange(count)
    if count <= BLOCK:
        # One product compares them all.
        return [owners]
    lines = _lines(rows(owners[:1]).shape[1])
    blocks = [rows(owners[start : start + BLOCK]) @ lines for start in range(0, count, BLOCK)]
    places = np.abs(np.concatenate(blocks))
    cells = np.floor(places / CELL).astype(np.int64)
    for line in range(LINES):
        # Close to the lower border a row is in the next cell as well; there is none below 0.
        own = cells[:, line]
        close = (own > 0) & (places[owners, line] < own * CELL + APART)
        across = cells[close]
        across[:, line] -= 1
        owners, cells = np.append(owners, owners[close]), np.vstack([cells, across])
    # One number a cell; should two cells have the same, they are looked at as one.
    number = (cells * FACTORS).sum(axis=1)
    order = np.lexsort((owners, number))
    ends = np.flatnonzero(np.diff(number[order])) + 1
    starts, ends = np.append(0, ends), np.append(ends, order.size)
    shared = np.flatnonzero(ends - starts > 1).tolist()
    return [owners[order[starts[place] : ends[place]]] for place in shared]


@lru_cache(maxsize=8)
def _lines(entries: int) -> Array:
    """Random directions, a column each."""
    lines = np.random.default_rng(0).standard_normal((entries, LINES))
    return np.asarray(lines / np.linalg.norm(lines, axis=0))


def _factors(rows: RowsOf, size: Array, first: int, units: Index) -> tuple[Array, Array]:
    """Factors a, and bounds on |r_j - a r_first| X."""
    weights = np.where(np.isfinite(size), size, 1.0)
    base, others = rows(np.array([first]))[0], rows(units)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        pivot = int((np.abs(base) * weights).argmax())
        squares = base * weights * weights
        solved = (others @ squares) / (base @ squares)
        best = others[:, pivot] / base[pivot]
        residue = _residue(base, others, best, size)
        for factors in (solved.astype(np.float32).astype(np.float64), solved):
            left = _residue(base, others, factors, size)
            better = left < residue
            best, residue = np.where(better, factors, best), np.where(better, left, residue)
    return best, residue


def _residue(base: Array, others: Array, factors: Array, size: Array) -> Array:
    difference = Approximate(others) + -(Approximate(factors[:, None]) * Approximate(base[None]))
    found = reach(np.abs(difference.value) + difference.off, size)
    # Sums of non-negative terms.
    return np.where(np.isnan(found), np.inf, found * (1.0 + 2.0**-40))
