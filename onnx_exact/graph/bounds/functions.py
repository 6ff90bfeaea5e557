"""Intervals through the functions that runtimes approximate, by the errors of the table `UNITS`."""

from __future__ import annotations

import numpy as np

from onnx_exact.graph.bounds import interval, single
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.errors import UNITS
from onnx_exact.graph.bounds.interval import Interval, by_sign
from onnx_exact.network.affine import Array

# numpy's exp and tanh are within a few units in the last place; this is sixty-four of them, and as
# many of the smallest normal number where they underflow.
RELATIVE_SLACK, ABSOLUTE_SLACK = 2.0**-47, 2.0**-1016


def sigmoid(c: Context) -> Interval | None:
    """1 / (1 + exp(-x)), never negative."""
    return _computed(c, _logistic, (0.0, 1.0))


def _logistic(values: Array) -> Array:
    # exp(-|x|) does not overflow; what underflows is within the slack.
    tail = np.exp(-np.abs(values))
    return np.where(values >= 0.0, 1.0, tail) / (1.0 + tail)


def tanh(c: Context) -> Interval | None:
    """The hyperbolic tangent, of the sign of x."""
    found = _computed(c, np.tanh, (-1.0, 1.0))
    return Interval(
        np.where(c.x.lower >= 0.0, np.maximum(found.lower, 0.0), found.lower),
        np.where(c.x.upper <= 0.0, np.minimum(found.upper, 0.0), found.upper),
    )


def exp(c: Context) -> Interval | None:
    """e^x, never negative."""
    return _computed(c, np.exp, (0.0, np.inf))


def wave(c: Context) -> Interval | None:
    """A sine or cosine: something between -1 and 1."""
    greatest = 1.0 + float(_error(c, np.ones(())))
    return interval.between(-greatest, greatest, c.x.rank)


def elu(c: Context) -> Interval | None:
    """x for x >= 0, alpha (e^x - 1) below."""
    alpha = c.attribute("alpha", 1.0)
    if not float(alpha.lower) >= 0.0:
        return None
    curve = single.multiply(c.kind, _computed(c, np.expm1, (-1.0, 0.0)), alpha)
    return by_sign(c.x, curve)


def softmax(c: Context) -> Interval | None:
    """Something between 0 and 1."""
    return interval.between(0.0, 1.0 + float(_error(c, np.ones(()))), c.x.rank)


def _computed(
    c: Context, f: interval.Function, least_and_greatest: tuple[float, float]
) -> Interval:
    """A non-decreasing function with values in that range, which rounding may leave.

    It does not leave 0, where that is the end of the range: a sum of numbers that are not negative,
    or a quotient of them, is none either.
    """
    low, high = f(c.x.lower), f(c.x.upper)
    least, greatest = least_and_greatest
    low = np.maximum(low - RELATIVE_SLACK * np.abs(low) - ABSOLUTE_SLACK, least)
    high = np.minimum(high + RELATIVE_SLACK * np.abs(high) + ABSOLUTE_SLACK, greatest)
    low, high = low - _error(c, low), high + _error(c, high)
    return Interval(np.maximum(low, 0.0) if least == 0.0 else low, high)


def _error(c: Context, values: Array) -> Array:
    """The error of the table, in the type that the node computes in."""
    unit = c.kind.epsilon * np.maximum(np.abs(values), 1.0)
    return np.asarray(UNITS[c.node.op_type] * unit)
