"""Few points of the domain that together show both signs of the unstable units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import forward_error

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
    positive, negative = [], []
    h, error = points, np.zeros_like(points)
    with np.errstate(over="ignore", invalid="ignore"):
        for layer, units in zip(chain.layers, wanted, strict=True):
            g, error = layer.affine.apply(h), forward_error(layer.affine, np.abs(h), error)
            positive.append((g > error)[:, units])
            negative.append((g < -error)[:, units])
            h = layer.activate(g)
    return np.hstack([*positive, *negative])
