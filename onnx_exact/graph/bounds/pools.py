"""Intervals through pooling."""

from __future__ import annotations

from math import prod

import numpy as np

from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FloatType
from onnx_exact.graph.bounds.windows import Windows
from onnx_exact.network.affine import Array


def max_pool(c: Context) -> Interval | None:
    """Something between the least and the largest entry of each channel.

    A window that lies in the padding alone gives the least number of the type, -inf or NaN.
    """
    windows, found = _windows(c), _over_the_image(c)
    shape = c.shape()
    if windows is None or found is None or shape is None:
        return None
    return None if windows.may_miss_the_image(shape[2:]) else found


def global_max_pool(c: Context) -> Interval | None:
    """Something between the least and the largest entry of each channel."""
    return _over_the_image(c)


def average_pool(c: Context) -> Interval | None:
    """The mean of a window, with the zeros of the padding where these count."""
    windows, found = _windows(c), _over_the_image(c)
    shape = c.shape()
    if windows is None or found is None or shape is None:
        return None
    counted = bool(c.integer("count_include_pad", 0))
    if windows.may_miss_the_image(shape[2:]) and not counted:
        return None
    if windows.padded and (counted or windows.ceil):
        # Of what lies beyond the padding some runtimes count, too.
        found = Interval(np.minimum(found.lower, 0.0), np.maximum(found.upper, 0.0))
    return mean(found, prod(windows.kernel), c.kind)


def global_average_pool(c: Context) -> Interval | None:
    """The mean of each channel."""
    found, shape = _over_the_image(c), c.shape()
    if found is None or shape is None:
        return None
    known = all(dim.static for dim in shape[2:])
    return mean(found, prod(dim.size for dim in shape[2:]) if known else np.inf, c.kind)


def _windows(c: Context) -> Windows | None:
    kernel = c.integers("kernel_shape")
    if kernel is None or len(kernel) != c.x.rank - 2:
        return None
    return Windows.of(c, tuple(kernel))


def _over_the_image(c: Context) -> Interval | None:
    return c.x.hull(tuple(range(2, c.x.rank))) if c.x.rank > 2 else None


def mean(x: Interval, count: float, kind: FloatType) -> Interval:
    """The mean of at most `count` values of x, summed in any order before or after the division."""
    if count == 1:
        return x
    below, above = _room(x.lower, count, kind), _room(x.upper, count, kind)
    limit = kind.largest / 2.0
    low_sum, high_sum = (
        np.where(side == 0.0, 0.0, side * count)
        for side in (np.minimum(x.lower, 0.0), np.maximum(x.upper, 0.0))
    )
    return Interval(
        np.where(-low_sum < limit, x.lower - below, -np.inf),
        np.where(high_sum < limit, x.upper + above, np.inf),
    )


def _room(side: Array, count: float, kind: FloatType) -> Array:
    """What rounding adds at a side; nothing where every term is 0."""
    size = np.where(np.isfinite(side), np.abs(side), 0.0)
    error = 2.0 * kind.gamma(count + 2) * size + (count + 2) * kind.smallest_normal
    return np.where(side == 0.0, 0.0, error)
