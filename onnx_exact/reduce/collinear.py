"""Rows of a matrix that are multiples of one another, up to a bound.

Pairs are proposed by one Gram matrix of the rows scaled by what they are multiplied with, and each
is certified by itself: |r_j - a r_i| X, with error-free products and sums, a by least squares or
the quotient of two entries, whichever leaves less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.reduce.budget import reach

# Rows are looked at as multiples from this cosine on.
COSINE = 1.0 - 1e-8
# Rows of the Gram matrix at a time.
BLOCK = 1024

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Multiples:
    """Units units[m] whose rows are factors[m] times that of unit `first`, up to residue[m]."""

    first: int
    units: Index
    factors: Array
    residue: Array


def collinear(rows: Array, size: Array, allowed: Array, order: Index) -> list[Multiples]:
    """Groups of rows that are multiples of one of them, positive or negative.

    Args:
        rows: shape (units, entries); no row of those in `order` is 0 where `size` is not.
        size: bounds on the magnitudes that the entries are multiplied with, shape (entries,).
        allowed: how large the residue of each row may be, shape (units,).
        order: the units to look at, those that are to stay first.
    """
    scaled = _directions(rows[order] * np.where(np.isfinite(size), size, 1.0))
    near = _near(scaled)
    taken = np.zeros(len(order), dtype=bool)
    found = []
    for first in sorted(near):
        others = np.array([j for j in near[first] if not taken[j]], dtype=np.intp)
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


def _near(rows: Array) -> dict[int, list[int]]:
    """For each row the later ones that have its direction or the opposite one."""
    near: dict[int, list[int]] = {}
    for start in range(0, len(rows), BLOCK):
        cosines = np.abs(rows[start : start + BLOCK] @ rows.T)
        for i, j in np.argwhere(cosines > COSINE).tolist():
            if start + i < j:
                near.setdefault(start + i, []).append(j)
    return near


def _factors(rows: Array, size: Array, first: int, units: Index) -> tuple[Array, Array]:
    """Factors a, and bounds on |r_j - a r_first| X."""
    weights = np.where(np.isfinite(size), size, 1.0)
    base, others = rows[first], rows[units]
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
