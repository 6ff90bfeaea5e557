"""Intervals through reductions along axes."""

from __future__ import annotations

from math import prod

import numpy as np

from onnx_exact.graph.bounds import interval, single, sums
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.pools import mean
from onnx_exact.graph.layout import Shape
from onnx_exact.network.affine import Array

# Roundings of a term before it is added.
SQUARE_OPERATIONS = 2


def extreme(c: Context) -> Interval | None:
    """The largest or the least entry along axes."""
    axes = _axes(c)
    return None if axes is None else _without(c, c.x.hull(axes), axes)


def average(c: Context) -> Interval | None:
    """The mean along axes."""
    axes, shape = _axes(c), c.shape()
    if axes is None or shape is None:
        return None
    count = _count(shape, axes)
    return _without(c, mean(c.x.hull(axes), np.inf if count is None else count, c.kind), axes)


def total(c: Context) -> Interval | None:
    """The sum along axes of known size."""
    return _total(c, c.x)


def magnitudes(c: Context) -> Interval | None:
    """The sum of magnitudes."""
    return _total(c, _magnitude(c.x))


def squares(c: Context) -> Interval | None:
    """The sum of squares, or the root of it."""
    size = _magnitude(c.x)
    found = _total(c, single.multiply(c.kind, size, size))
    if found is None or c.node.op_type == "ReduceSumSquare":
        return found
    low, high = np.sqrt(np.maximum(found.lower, 0.0)), np.sqrt(np.maximum(found.upper, 0.0))
    rooted = c.kind.outward(interval.outward(low, high))
    return Interval(np.maximum(rooted.lower, 0.0), rooted.upper)


def _magnitude(x: Interval) -> Interval:
    low, high = np.abs(x.lower), np.abs(x.upper)
    inside = (x.lower <= 0.0) & (x.upper >= 0.0)
    return Interval(
        np.where(inside, 0.0, np.minimum(low, high)), np.maximum(low, high), x.overflows
    )


def _total(c: Context, x: Interval) -> Interval | None:
    """The sum of entries along axes of known size."""
    axes, shape = _axes(c), c.shape()
    count = None if axes is None or shape is None else _count(shape, axes)
    if axes is None or shape is None or count is None:
        return None
    sizes = [
        dim.size if axis in axes else size
        for axis, (dim, size) in enumerate(zip(shape, x.lower.shape, strict=True))
    ]

    def along(weight: Array, values: Array) -> Array:
        return np.asarray(float(weight) * values.sum(axis=axes, keepdims=True))

    whole = x.mapped(lambda v: np.broadcast_to(v, sizes))
    how = sums.Sum(c.kind, count, SQUARE_OPERATIONS)
    return _without(c, sums.linear(along, np.ones(()), whole, how), axes)


def _axes(c: Context) -> tuple[int, ...] | None:
    """The axes that are reduced; None where they are not known."""
    rank, shape = c.x.rank, c.shape()
    if shape is None or len(shape) != rank:
        return None
    listed = c.integers("axes")
    if len(c.node.input) > 1 and c.node.input[1]:
        listed = c.index.integers(c.node.input[1])
        if listed is None:
            return None
    if not listed:
        return () if c.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in listed))


def _count(shape: Shape, axes: tuple[int, ...]) -> int | None:
    known = all(shape[axis].static for axis in axes)
    return prod(shape[axis].size for axis in axes) if known else None


def _without(c: Context, x: Interval, axes: tuple[int, ...]) -> Interval:
    return x if c.integer("keepdims", 1) else x.mapped(lambda v: np.squeeze(v, axes))
