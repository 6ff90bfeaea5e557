"""Boxes at the edges of a type, and points in them: corners, their neighbours, and in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network import Box

Array = NDArray[Any]

ROWS = 8
# How many boxes there are.
BOXES = 16


def boxes(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Box]:
    """One box after another, of that shape; the bounds of one are no numbers of the type."""
    info = np.finfo(dtype)
    most, least, tiny = float(info.max), float(info.smallest_normal), float(info.smallest_subnormal)
    eps = float(info.eps)
    ends = np.sort(rng.normal(0.0, 2.0, (2, *shape)).astype(dtype).astype(np.float64), axis=0)
    yield Box(ends[0], ends[1])
    # Not numbers of the type.
    yield Box(ends[0] + eps / 7.0, ends[0] + 1.0 + eps / 3.0)
    yield Box(np.zeros(shape), np.abs(ends[1]))
    yield Box(ends[0], ends[0])
    for low, high in [
        (-0.0, 0.0),
        (1.0 - eps, 1.0 + 3.0 * eps),
        (-30.0, 30.0),
        (tiny, least),
        (-least, 4.0 * least),
        (-4.0 * least, -tiny),
        (most / 4.0, most),
        (-most, most),
        (-most, -most / 2.0),
        (0.0, np.inf),
        (-np.inf, -1.0),
        (-np.inf, np.inf),
    ]:
        yield Box(np.full(shape, low), np.full(shape, high))


def points(box: Box, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Numbers of the type in the box, shape (ROWS, *shape): lower, upper, then random entries.

    Each random entry is a corner, a neighbour of one, a special number, or anything in between.
    Where a side is infinite the infinity is among them.
    """
    low, high = _inward(box, dtype)
    shape = (ROWS, *low.shape)
    info = np.finfo(dtype)
    special = [0.0, -0.0, float(info.smallest_subnormal), -float(info.smallest_subnormal)]
    special += [float(info.smallest_normal), 1.0, -1.0, float(info.max), -float(info.max)]
    with np.errstate(over="ignore", invalid="ignore"):
        finite_low = np.where(np.isinf(low), np.maximum(-1e4, -info.max), low).astype(dtype)
        finite_high = np.where(np.isinf(high), np.minimum(1e4, info.max), high).astype(dtype)
        share = rng.random(shape)
        between = finite_low * (1.0 - share) + finite_high * share
        choices = [
            np.broadcast_to(low, shape),
            np.broadcast_to(high, shape),
            np.broadcast_to(np.nextafter(finite_low, finite_high), shape),
            np.broadcast_to(np.nextafter(finite_high, finite_low), shape),
            rng.choice(special, shape),
            between,
            between,
        ]
        picked = np.choose(rng.integers(0, len(choices), shape), choices).astype(dtype)
    picked[0], picked[1] = low, high
    return np.clip(picked, low, high)


def _inward(box: Box, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The least and the greatest number of the type in the box."""
    with np.errstate(over="ignore"):
        low, high = box.lower.astype(dtype), box.upper.astype(dtype)
        low = np.where(
            low.astype(np.float64) < box.lower, np.nextafter(low, dtype.type(np.inf)), low
        )
        high = np.where(
            high.astype(np.float64) > box.upper, np.nextafter(high, dtype.type(-np.inf)), high
        )
    return low, np.maximum(low, high)


def integers(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Numbers of an integer or boolean type, its ends among them."""
    if dtype == np.bool_:
        return rng.random((ROWS, *shape)) < 0.5
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, (ROWS, *shape), dtype=dtype, endpoint=True)
    values[0], values[1], values[2] = info.min, info.max, 0
    return values
