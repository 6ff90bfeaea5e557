"""Intervals through reductions along axes."""

from __future__ import annotations

from math import prod

import numpy as np

from onnx_exact.graph.bounds import sums
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.pools import mean
from onnx_exact.graph.layout import Shape
from onnx_exact.network.affine import Array


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
    axes, shape = _axes(c), c.shape()
    count = None if axes is None or shape is None else _count(shape, axes)
    if axes is None or shape is None or count is None:
        return None
    sizes = [
        dim.size if axis in axes else size
        for axis, (dim, size) in enumerate(zip(shape, c.x.lower.shape, strict=True))
    ]

    def along(weight: Array, values: Array) -> Array:
        return np.asarray(float(weight) * values.sum(axis=axes, keepdims=True))

    x = c.x.mapped(lambda v: np.broadcast_to(v, sizes))
    return _without(c, sums.linear(along, np.ones(()), x, sums.Sum(c.kind, count)), axes)


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
