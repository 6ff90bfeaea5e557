"""Points of the domain that are likely to show both signs of many units."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

# Points of each kind in the first batch, and in the last.
FEW, MANY = 8, 128
# Shares of the entries of a corner that are at their upper side: natural inputs are sparse.
SHARES = (0.25, 0.5, 0.1, 0.02, 0.75, 0.9)
# Over an unbounded side points are also taken this far out, so that a bias does not hide a sign.
FAR = (1.0, 1e2, 1e4)


def first_points(first: Affine, box: Box, seed: int) -> Iterator[Array]:
    """Points to begin with, in batches of shape (points, inputs), the same for the same seed.

    A few random points and corners, dense and sparse ones, show most of the signs that occur at
    all; then come the extreme corners of every first-layer unit, and then many more of the first.
    """
    rng = np.random.default_rng(seed)
    yield _mixture(box, rng, FEW)
    yield np.concatenate(extreme_corners(first.entries, box))
    yield _mixture(box, rng, MANY)


def _mixture(box: Box, rng: np.random.Generator, count: int) -> Array:
    """Corners of every share and random points, `count` of each."""
    corners = (box.corners(rng, count, share) for share in SHARES)
    return np.concatenate([*corners, box.sample(rng, count)])


def extreme_corners(coefficients: Array, box: Box) -> tuple[Array, ...]:
    """The points that maximise and minimise each linear functional over the box.

    Args:
        coefficients: shape (functionals, inputs).
        box: over an infinite side the point lies far out instead.

    Returns:
        Maximisers, then minimisers, each of shape (functionals, inputs).
    """
    scales = (1.0,) if box.finite else FAR
    out = []
    for scale in scales:
        low, high = box.sides()
        low = np.where(np.isfinite(box.lower), low, scale * low)
        high = np.where(np.isfinite(box.upper), high, scale * high)
        middle = 0.5 * (low + high)
        up = np.where(coefficients > 0.0, high, np.where(coefficients < 0.0, low, middle))
        down = np.where(coefficients > 0.0, low, np.where(coefficients < 0.0, high, middle))
        out += [up, down]
    return tuple(out)


def greatest_corners(coefficients: Array, box: Box) -> Array:
    """The corners of a finite box where linear functionals are greatest, in their shape."""
    return np.where(coefficients > 0.0, box.upper, box.lower)
