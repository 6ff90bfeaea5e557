"""Intervals through the functions that runtimes approximate, by the errors of the table `UNITS`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_exact.graph.bounds import interval, single
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.errors import UNITS
from onnx_exact.graph.bounds.interval import Interval, by_sign
from onnx_exact.graph.index import attributes
from onnx_exact.network.affine import Array

# numpy's exp and tanh are within a few units in the last place; this is sixty-four of them, and as
# many of the smallest normal number where they underflow.
RELATIVE_SLACK, ABSOLUTE_SLACK = 2.0**-47, 2.0**-1016
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
# Each step of a GRU rounds a difference, two products and a sum of numbers up to 1,
# with a sigmoid that may exceed 1 itself.
GRU_UNITS = 24


def sigmoid(c: Context) -> Interval | None:
    """1 / (1 + exp(-x)), never negative."""
    return _computed(c, _logistic, (0.0, 1.0))


def _logistic(values: Array) -> Array:
    # exp(-|x|) does not overflow; what underflows is within the slack.
    tail = np.exp(-np.abs(values))
    return np.where(values >= 0.0, 1.0, tail) / (1.0 + tail)


def tanh(c: Context) -> Interval | None:
    """The hyperbolic tangent, of the sign of x."""
    return _odd(c, _computed(c, np.tanh, (-1.0, 1.0)))


def arctangent(c: Context) -> Interval | None:
    """The inverse tangent, of the sign of x."""
    return _odd(c, _computed(c, np.arctan, (-np.inf, np.inf)))


def softsign(c: Context) -> Interval | None:
    """x / (1 + |x|), of the sign of x."""
    return _odd(c, _computed(c, lambda v: _share(v), (-1.0, 1.0)))


def _share(values: Array) -> Array:
    return np.where(np.isinf(values), np.sign(values), values / (1.0 + np.abs(values)))


def error_function(c: Context) -> Interval | None:
    """Something between -1 and 1, of the sign of x."""
    greatest = 1.0 + float(_error(c, np.ones(())))
    return _odd(c, interval.between(-greatest, greatest, c.x.rank))


def _odd(c: Context, found: Interval) -> Interval:
    """The interval of a function that has the sign of x, however it is evaluated."""
    return Interval(
        np.where(c.x.lower >= 0.0, np.maximum(found.lower, 0.0), found.lower),
        np.where(c.x.upper <= 0.0, np.minimum(found.upper, 0.0), found.upper),
    )


def exp(c: Context) -> Interval | None:
    """e^x, never negative."""
    return _computed(c, np.exp, (0.0, np.inf))


def log(c: Context) -> Interval | None:
    """The natural logarithm; nothing is known where x may be negative."""
    found = _computed(c, lambda v: np.log(np.maximum(v, 0.0)), (-np.inf, np.inf))
    defined = c.x.lower >= 0.0
    return Interval(np.where(defined, found.lower, -np.inf), np.where(defined, found.upper, np.inf))


def softplus(c: Context) -> Interval | None:
    """log(1 + e^x), never negative; infinite where e^x may overflow on the way."""
    found = _computed(c, lambda v: np.logaddexp(v, 0.0), (0.0, np.inf))
    overflows = c.x.upper >= np.log(c.kind.largest) - 1.0
    return Interval(found.lower, np.where(overflows, np.inf, found.upper))


def power(c: Context) -> Interval | None:
    """x^p for a constant p, where x is not negative or p a whole number."""
    given = c.index.value(c.node.input[1])
    if given is None or given.error is not None or given.values.size != 1:
        return None
    p = float(given.values.reshape(()))
    even, odd = p % 2.0 == 0.0, p % 2.0 == 1.0
    if not np.isfinite(p) or p <= 0.0:
        return None
    low, high = c.x.lower, c.x.upper
    if even:
        inside = (low <= 0.0) & (high >= 0.0)
        low, high = (
            np.where(inside, 0.0, np.minimum(np.abs(low), np.abs(high))),
            np.maximum(np.abs(low), np.abs(high)),
        )
    elif not odd and not (low >= 0.0).all():
        return None
    low, high = (np.sign(v) * np.abs(v) ** p for v in (low, high))
    found = _between(c, low, high, (-np.inf, np.inf))
    return found.mapped(lambda v: np.maximum(v, 0.0)) if even or not odd else _odd(c, found)


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


def scaled_elu(c: Context) -> Interval | None:
    """gamma x for x >= 0, gamma alpha (e^x - 1) below."""
    alpha, gamma = c.attribute("alpha", SELU_ALPHA), c.attribute("gamma", SELU_GAMMA)
    if not (float(alpha.lower) >= 0.0 and float(gamma.lower) >= 0.0):
        return None
    curve = single.multiply(c.kind, _computed(c, np.expm1, (-1.0, 0.0)), alpha)
    found = by_sign(c.x, curve)
    return single.multiply(c.kind, found, gamma)


def continuous_elu(c: Context) -> Interval | None:
    """x for x >= 0, alpha (e^(x / alpha) - 1) below."""
    alpha = c.attribute("alpha", 1.0)
    if not float(alpha.lower) > 0.0:
        return None
    steps = single.divide(c.kind, c.x, alpha)
    curve = _computed(replace(c, inputs=(steps,)), np.expm1, (-1.0, 0.0))
    return by_sign(c.x, single.multiply(c.kind, curve, alpha))


def gated(c: Context) -> Interval | None:
    """x times a gate that is between 0 and 1."""
    room = float(_error(c, np.ones(())))
    return single.multiply(c.kind, c.x, interval.between(-room, 1.0 + room, 0))


def log_softmax(c: Context) -> Interval | None:
    """Something that is not positive."""
    return interval.between(-np.inf, float(_error(c, np.ones(()))), c.x.rank)


def recurrent(c: Context) -> Interval | None:
    """The state of an LSTM, GRU or RNN with its own activations: between -1 and 1.

    That of an LSTM is a product of a sigmoid and a tanh, that of an RNN a tanh. That of a GRU is a
    mean of a tanh and the state before, and is rounded at every step. Where the sums of a gate
    overflow there may be NaN.
    """
    op, shape, steps = c.node.op_type, c.shape(), 0.0
    starts = c.node.input[5] if len(c.node.input) > 5 else ""
    lengths = c.node.input[4] if len(c.node.input) > 4 else ""
    if {"activations", "layout"} & attributes(c.node).keys() or (lengths and starts):
        return None
    if op == "GRU":
        if starts or shape is None or not shape[0].static:
            return None
        steps = GRU_UNITS * shape[0].size
    greatest = 1.0 + 3.0 * float(_error(c, np.ones(()))) + steps * c.kind.epsilon
    found = interval.between(-greatest, greatest, c.rank_out() or 0)
    return replace(found, overflows=True)


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
    return _between(c, f(c.x.lower), f(c.x.upper), least_and_greatest)


def _between(
    c: Context, low: Array, high: Array, least_and_greatest: tuple[float, float]
) -> Interval:
    """The same for two values that were computed in float64."""
    least, greatest = least_and_greatest
    low = np.maximum(low - RELATIVE_SLACK * np.abs(low) - ABSOLUTE_SLACK, least)
    high = np.minimum(high + RELATIVE_SLACK * np.abs(high) + ABSOLUTE_SLACK, greatest)
    low, high = low - _error(c, low), high + _error(c, high)
    return Interval(np.maximum(low, 0.0) if least == 0.0 else low, high)


def _error(c: Context, values: Array) -> Array:
    """The error of the table, in the type that the node computes in."""
    unit = c.kind.epsilon * np.maximum(np.abs(values), 1.0)
    return np.asarray(UNITS[c.node.op_type] * unit)
