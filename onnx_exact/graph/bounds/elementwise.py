"""Intervals through operators that act entry by entry."""

from __future__ import annotations

from functools import reduce

import numpy as np

from onnx_exact.graph.bounds import interval
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.index import FLOATS
from onnx_exact.graph.ops.normalization import in_inference_form, scale_and_shift
from onnx_exact.graph.ops.passthrough import trains
from onnx_exact.network.affine import Array

# numpy's exp and tanh are within a few units in the last place; this is sixty-four of them.
TRANSCENDENTAL_SLACK = 2.0**-47
LEAKY_ALPHA_DEFAULT = float(np.float32(0.01))
# Clip takes its bounds as inputs since this operator set.
CLIP_INPUTS_SINCE = 11
# Operations behind every entry of a normalised tensor: var + eps, root, quotient, two products.
NORMALIZATION_OPERATIONS = 8


def add(c: Context) -> Interval | None:
    """x + y."""
    a, b = c.inputs
    return None if a is None or b is None else interval.add(a, b)


def sub(c: Context) -> Interval | None:
    """x - y."""
    a, b = c.inputs
    return None if a is None or b is None else interval.add(a, interval.negate(b))


def mul(c: Context) -> Interval | None:
    """x * y."""
    a, b = c.inputs
    return None if a is None or b is None else interval.multiply(a, b)


def div(c: Context) -> Interval | None:
    """x / y."""
    a, b = c.inputs
    return None if a is None or b is None else interval.divide(a, b)


def total(c: Context) -> Interval | None:
    """The sum of all inputs."""
    return reduce(interval.add, [x for x in c.inputs if x is not None])


def largest(c: Context) -> Interval | None:
    """The entry-wise maximum of all inputs."""
    known = [x for x in c.inputs if x is not None]
    return Interval(
        reduce(np.maximum, [x.lower for x in known]), reduce(np.maximum, [x.upper for x in known])
    )


def smallest(c: Context) -> Interval | None:
    """The entry-wise minimum of all inputs."""
    known = [x for x in c.inputs if x is not None]
    return Interval(
        reduce(np.minimum, [x.lower for x in known]), reduce(np.minimum, [x.upper for x in known])
    )


def neg(c: Context) -> Interval | None:
    """-x."""
    return interval.negate(c.x)


def absolute(c: Context) -> Interval | None:
    """|x|."""
    low, high = c.x.lower, c.x.upper
    inner = np.where((low <= 0.0) & (high >= 0.0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    return Interval(inner, np.maximum(np.abs(low), np.abs(high)))


def relu(c: Context) -> Interval | None:
    """max(x, 0)."""
    return c.x.mapped(lambda v: np.maximum(v, 0.0))


def leaky_relu(c: Context) -> Interval | None:
    """x for x >= 0, alpha x below."""
    alpha = c.number("alpha", LEAKY_ALPHA_DEFAULT)
    if alpha < 0.0:
        return None
    scaled = interval.multiply(c.x, interval.point(np.asarray(alpha)))
    return Interval(
        np.where(c.x.lower >= 0.0, c.x.lower, scaled.lower),
        np.where(c.x.upper >= 0.0, c.x.upper, scaled.upper),
    )


def clip(c: Context) -> Interval | None:
    """min(max(x, low), high), non-decreasing in all three."""
    # A bound that is left out does not clip.
    low, high = (np.asarray(-np.inf),) * 2, (np.asarray(np.inf),) * 2
    if c.index.opset < CLIP_INPUTS_SINCE:
        low = (np.asarray(c.number("min", -np.inf)),) * 2
        high = (np.asarray(c.number("max", np.inf)),) * 2
    else:
        given = [*c.inputs[1:3], None, None][:2]
        low, high = (
            (x.lower, x.upper) if x is not None else none
            for x, none in zip(given, (low, high), strict=True)
        )
    return interval.valid(
        np.minimum(np.maximum(c.x.lower, low[0]), high[0]),
        np.minimum(np.maximum(c.x.upper, low[1]), high[1]),
    )


def sigmoid(c: Context) -> Interval | None:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        return _between(c, lambda v: 1.0 / (1.0 + np.exp(-v)), 0.0)


def tanh(c: Context) -> Interval | None:
    """The hyperbolic tangent."""
    return _between(c, np.tanh, -1.0)


def _between(c: Context, f: interval.Function, least: float) -> Interval:
    """A non-decreasing function with values in [least, 1]."""
    low, high = f(c.x.lower), f(c.x.upper)
    low, high = low - TRANSCENDENTAL_SLACK * np.abs(low), high + TRANSCENDENTAL_SLACK * np.abs(high)
    return Interval(np.clip(low, least, 1.0), np.clip(high, least, 1.0))


def softmax(c: Context) -> Interval | None:
    """Something between 0 and 1."""
    return interval.between(0.0, 1.0, c.x.rank)


def identity(c: Context) -> Interval | None:
    """x."""
    return c.x


def dropout(c: Context) -> Interval | None:
    """x in inference form."""
    return None if trains(c.index, c.node) else c.x


def cast(c: Context) -> Interval | None:
    """x, between real numbers: what a narrower type rounds is rounding of the model's own."""
    kinds = (c.integer("to", 0), c.index.elem_type(c.node.input[0]))
    return c.x if all(kind in FLOATS for kind in kinds) else None


def batch_normalization(c: Context) -> Interval | None:
    """s x + t per channel."""
    if c.x.rank < 2 or c.index.opset < 7 or not in_inference_form(c.node):
        return None
    constants = [c.constant(i) for i in range(1, 5)]
    parameters = [p for p in constants if p is not None and p.ndim == 1]
    found = scale_and_shift(c.node, parameters) if len(parameters) == 4 else None
    if found is None:
        return None
    per_channel = (-1, *[1] * (c.x.rank - 2))
    scale, shift = (v.reshape(per_channel) for v in found)
    moved = (np.abs(parameters[1]) + np.abs(parameters[2] * found[0])).reshape(per_channel)
    image = interval.add(interval.multiply(c.x, interval.point(scale)), interval.point(shift))
    with np.errstate(invalid="ignore", over="ignore"):
        return interval.valid(
            image.lower - _rounding(c.x.lower, c.x.upper, scale, moved),
            image.upper + _rounding(c.x.lower, c.x.upper, scale, moved),
        )


def _rounding(lower: Array, upper: Array, scale: Array, moved: Array) -> Array:
    # Sides that are infinite stay so; the slack is finite wherever a side is.
    size = np.maximum(
        np.where(np.isfinite(lower), np.abs(lower), 0.0),
        np.where(np.isfinite(upper), np.abs(upper), 0.0),
    )
    return interval.gamma(NORMALIZATION_OPERATIONS) * (size * np.abs(scale) + moved)
