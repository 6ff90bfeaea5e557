"""Few points of the domain that together show both signs of the unstable units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import SMALLEST, gamma, slack

Points = NDArray[np.floating[Any]]


def chosen_witnesses(
    chain: Chain,
    box: Box,
    points: Array,
    wanted: Sequence[NDArray[np.intp]],
    most_bytes: float,
) -> tuple[Points, list[NDArray[np.bool_]]]:
    """A greedy choice of points, and which of the wanted units they show with both signs.

    Args:
        chain: the network.
        box: the domain.
        points: to choose from, shape (points, inputs).
        wanted: units of each layer that are said to be unstable.
        most_bytes: that the points may take.

    Returns:
        Points of shape (chosen, inputs), float32 where rounding them to it loses nothing; and for
        each layer whether each unit is shown, shape (units,).
    """
    best = _greedy(chain, box, points, wanted, most_bytes / (8 * chain.n_in))
    rounded = _rounded(points, box)
    if rounded is not None:
        half = _greedy(chain, box, rounded, wanted, most_bytes / (4 * chain.n_in))
        if sum(int(s.sum()) for s in half[1]) >= sum(int(s.sum()) for s in best[1]):
            return half[0].astype(np.float32), half[1]
    return best


def _rounded(points: Array, box: Box) -> Array | None:
    """The points as float32 has them, moved into the box; None where the box has no such points."""
    with np.errstate(over="ignore"):
        nearest = points.astype(np.float32)
    up, down = (np.nextafter(nearest, np.float32(side)) for side in (np.inf, -np.inf))
    inside = np.where(nearest < box.lower, up, np.where(nearest > box.upper, down, nearest))
    found = inside.astype(np.float64)
    if not box.contains(found) or not np.isfinite(found).all():
        return None
    return found


def _greedy(
    chain: Chain, box: Box, points: Array, wanted: Sequence[NDArray[np.intp]], most: float
) -> tuple[Points, list[NDArray[np.bool_]]]:
    shown = _shown(chain, points, wanted)
    left = np.ones(shown.shape[1], dtype=bool)
    chosen: list[int] = []
    while left.any() and len(chosen) + 1 <= most and len(points):
        gains = shown[:, left].sum(axis=1)
        place = int(gains.argmax())
        if not gains[place]:
            break
        chosen.append(place)
        left &= ~shown[place]
    units = [np.zeros(layer.width, dtype=bool) for layer in chain.layers]
    both = np.asarray(~left.reshape(2, -1).any(axis=0))
    start = 0
    for found, layer in zip(units, wanted, strict=True):
        found[layer] = both[start : start + layer.size]
        start += layer.size
    return points[sorted(chosen)], units


def _shown(chain: Chain, points: Array, wanted: Sequence[NDArray[np.intp]]) -> NDArray[np.bool_]:
    """Which signs each point shows beyond its rounding: positive ones, then negative ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        magnitudes = [np.abs(layer.affine.weight) for layer in chain.layers]
        values = _forward_with_error(chain, points, magnitudes)
        positive = [(g > e)[:, units] for (g, e), units in zip(values, wanted, strict=True)]
        negative = [(g < -e)[:, units] for (g, e), units in zip(values, wanted, strict=True)]
    return np.hstack([*positive, *negative])


def _forward_with_error(
    chain: Chain, points: Array, magnitudes: Sequence[Array]
) -> list[tuple[Array, Array]]:
    """Pre-activations of every layer and how far each may be off, shape (points, units).

    If the inputs of a layer are off by at most e, its pre-activations are off by at most
    |W| e + gamma_n (|W| |h| + |b|): the running error analysis of Higham 2002, section 3.3.

    Args:
        chain: the network.
        points: shape (points, inputs).
        magnitudes: |W| of each layer.
    """
    out = []
    h, error = points, np.zeros_like(points)
    for layer, magnitude in zip(chain.layers, magnitudes, strict=True):
        n = layer.affine.n_in
        g = layer.affine.apply(h)
        terms = (np.abs(h) + error) @ magnitude.T + np.abs(layer.affine.bias)
        off = layer.affine.off(np.abs(h) + error) * (1.0 + gamma(n))
        error = (error @ magnitude.T) * (1.0 + gamma(n)) + slack(terms, n, 2 * n * SMALLEST) + off
        out.append((g, error))
        h = np.maximum(g, 0.0) if layer.relu else g
    return out
