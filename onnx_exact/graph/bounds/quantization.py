"""Intervals through QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np

from onnx_exact.graph.bounds import interval, single
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FLOAT_TYPES, INTEGER_TYPES
from onnx_exact.graph.index import attributes

# Runtimes round to integers of 32 bits; so far that a zero point may still be added.
LARGEST_STEP = 2.0**30


def quantize(c: Context) -> Interval | None:
    """x / scale + zero point, rounded either way and saturated."""
    target = c.index.elem_type(c.node.output[0])
    kind = FLOAT_TYPES.get(c.index.elem_type(c.node.input[0]))
    found = _parameters(c)
    if found is None or kind is None or target not in INTEGER_TYPES:
        return None
    scale, zero = found
    if not (scale.lower > 0.0).all():
        return None
    steps = single.divide(kind, kind.flushed(c.x), kind.flushed(scale))
    least, greatest = INTEGER_TYPES[target]
    # What leaves the integers on the way is not saturated everywhere.
    fits = (steps.lower >= -LARGEST_STEP) & (steps.upper <= LARGEST_STEP)
    low = np.clip(np.floor(steps.lower) + zero.lower, least, greatest)
    high = np.clip(np.ceil(steps.upper) + zero.upper, least, greatest)
    return Interval(np.where(fits, low, least), np.where(fits, high, greatest))


def dequantize(c: Context) -> Interval | None:
    """(x - zero point) * scale."""
    found = _parameters(c)
    if found is None:
        return None
    scale, zero = found
    return single.multiply(
        c.kind, single.add(c.kind, c.x, interval.negate(zero)), c.kind.flushed(scale)
    )


def _parameters(c: Context) -> tuple[Interval, Interval] | None:
    """Scale and zero point, for the whole tensor or along one axis, not for blocks."""
    known = attributes(c.node)
    scale = c.inputs[1]
    zero = c.inputs[2] if len(c.inputs) > 2 else None
    zero = interval.between(0.0, 0.0, 0) if zero is None else zero
    if scale is None or known.keys() - {"axis", "saturate", "output_dtype"}:
        return None
    if scale.rank == 0 or scale.lower.size == 1:
        return _scalar(scale), _scalar(zero)
    if scale.rank != 1 or zero.rank > 1 or c.x.rank == 0:
        return None
    axis = c.integer("axis", 1) % c.x.rank
    along = (-1, *[1] * (c.x.rank - axis - 1))
    return scale.mapped(lambda v: v.reshape(along)), zero.mapped(
        lambda v: v.reshape(along if v.ndim else ())
    )


def _scalar(x: Interval) -> Interval:
    return x.hull().mapped(lambda v: v.reshape(()))
