"""Intervals through operators that act entry by entry, but for approximated functions."""

from __future__ import annotations

from functools import reduce

import numpy as np
from onnx import TensorProto

from onnx_exact.graph.bounds import interval, single, sums
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.normalization import normalized_by
from onnx_exact.graph.bounds.types import FLOAT_TYPES, INTEGER_TYPES
from onnx_exact.graph.index import attributes
from onnx_exact.graph.ops.passthrough import trains
from onnx_exact.network.affine import Array

LEAKY_ALPHA_DEFAULT = 0.01
# Before these operator sets Dropout trained unless told, and arithmetic had axes of its own.
DROPOUT_RUNS_SINCE = 7
BROADCASTS_SINCE = 7
# Clip takes its bounds as inputs since this operator set; before, it always has some.
CLIP_INPUTS_SINCE = 11
CLIP_DEFAULT = float(np.finfo(np.float32).max)


def add(c: Context) -> Interval | None:
    """x + y."""
    found = _operands(c)
    return None if found is None else single.add(c.kind, *found)


def sub(c: Context) -> Interval | None:
    """x - y."""
    found = _operands(c)
    return None if found is None else single.add(c.kind, found[0], interval.negate(found[1]))


def mul(c: Context) -> Interval | None:
    """x * y; the square of one number is not negative."""
    found = _operands(c)
    if found is None:
        return None
    product = single.multiply(c.kind, *found)
    if c.node.input[0] == c.node.input[1]:
        square = single.multiply(c.kind, *[absolute(c) or c.x] * 2)
        return interval.Interval(np.maximum(square.lower, 0.0), square.upper)
    return product


def div(c: Context) -> Interval | None:
    """x / y."""
    found = _operands(c)
    if found is None:
        return None
    quotient, limit = single.divide(c.kind, *found), normalized_by(c)
    if limit is None:
        return quotient
    return interval.intersect(quotient, interval.between(-limit, limit, 0))


def _operands(c: Context) -> tuple[Interval, Interval] | None:
    """Both inputs; None where they are not broadcast as in numpy."""
    a, b = c.inputs
    if a is None or b is None or (c.index.opset < BROADCASTS_SINCE and c.node.attribute):
        return None
    return a, b


def total(c: Context) -> Interval | None:
    """The sum of all inputs, in any order."""
    known = [x for x in c.inputs if x is not None]
    terms = [x for x in known if (x.lower != 0.0).any() or (x.upper != 0.0).any()] or known[:1]
    if len(terms) < 3:
        found = terms[0] if len(terms) == 1 else single.add(c.kind, *terms)
        rank = max(x.rank for x in known)
        return found.mapped(lambda v: v.reshape((1,) * (rank - v.ndim) + v.shape))
    stacked = Interval(
        np.stack(np.broadcast_arrays(*[x.lower for x in terms])),
        np.stack(np.broadcast_arrays(*[x.upper for x in terms])),
        any(x.overflows for x in terms),
    )

    def along(weight: Array, values: Array) -> Array:
        return np.asarray(np.tensordot(weight, values, 1))

    return sums.linear(along, np.ones(len(terms)), stacked, sums.Sum(c.kind, len(terms)))


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
    """x for x >= 0, alpha x below: the union of both where x may be either."""
    alpha = c.attribute("alpha", LEAKY_ALPHA_DEFAULT)
    below = single.multiply(c.kind, c.x.mapped(lambda v: np.minimum(v, 0.0)), alpha)
    return interval.by_sign(c.x, below)


def parametric_relu(c: Context) -> Interval | None:
    """x for x >= 0, slope x below."""
    slope = c.inputs[1]
    if slope is None or c.x.rank < slope.rank:
        return None
    below = single.multiply(c.kind, c.x.mapped(lambda v: np.minimum(v, 0.0)), slope)
    return interval.by_sign(c.x, below)


def thresholded_relu(c: Context) -> Interval | None:
    """x for x > alpha, else 0."""
    alpha = c.attribute("alpha", 1.0)
    kept, zero = c.x.upper > alpha.lower, c.x.lower <= alpha.upper
    low = np.where(kept, np.maximum(c.x.lower, alpha.lower), np.inf)
    high = np.where(kept, c.x.upper, -np.inf)
    return Interval(
        np.minimum(low, np.where(zero, 0.0, np.inf)), np.maximum(high, np.where(zero, 0.0, -np.inf))
    )


def hard_swish(c: Context) -> Interval | None:
    """x HardSigmoid(x) with alpha = 1/6."""
    scaled = single.multiply(c.kind, c.x, c.attribute("alpha", 1.0 / 6.0))
    gate = single.add(c.kind, scaled, c.attribute("beta", 0.5))
    gate = interval.valid(np.clip(gate.lower, 0.0, 1.0), np.clip(gate.upper, 0.0, 1.0))
    return single.multiply(c.kind, c.x, gate)


def stepwise(c: Context) -> Interval | None:
    """Floor, Ceil, Round (ties to even) and Sign, none of which falls."""
    return c.x.mapped(STEPS[c.node.op_type])


STEPS: dict[str, interval.Function] = {
    "Ceil": np.ceil,
    "Floor": np.floor,
    "Round": np.round,
    "Sign": np.sign,
}


def reciprocal(c: Context) -> Interval | None:
    """1 / x; nothing is known where x may be 0."""
    return single.divide(c.kind, interval.point(np.ones(())), c.x)


def mean(c: Context) -> Interval | None:
    """The sum of all inputs divided by their number."""
    count = interval.point(np.asarray(float(len(c.inputs))))
    found = total(c)
    return found if found is None or len(c.inputs) == 1 else single.divide(c.kind, found, count)


def clip(c: Context) -> Interval | None:
    """min(max(x, low), high), non-decreasing in all three."""
    low, high = _clip_bound(c, 1, "min", -1.0), _clip_bound(c, 2, "max", 1.0)
    return interval.valid(
        np.minimum(np.maximum(c.x.lower, low.lower), high.lower),
        np.minimum(np.maximum(c.x.upper, low.upper), high.upper),
    )


def _clip_bound(c: Context, position: int, name: str, sign: float) -> Interval:
    """A bound of Clip; one that is left out, or infinite, does not clip."""
    if c.index.opset < CLIP_INPUTS_SINCE:
        if abs(c.number(name, np.inf)) < CLIP_DEFAULT:
            return c.attribute(name, 0.0)
        return interval.join(
            [Interval(np.asarray(v), np.asarray(v)) for v in (sign * CLIP_DEFAULT, sign * np.inf)]
        )
    given = c.inputs[position] if len(c.inputs) > position else None
    if given is None or c.is_everywhere(position, sign * np.inf):
        return Interval(np.asarray(sign * np.inf), np.asarray(sign * np.inf))
    return given


def hard_sigmoid(c: Context) -> Interval | None:
    """min(max(alpha x + beta, 0), 1)."""
    scaled = single.multiply(c.kind, c.x, c.attribute("alpha", 0.2))
    found = single.add(c.kind, scaled, c.attribute("beta", 0.5))
    return interval.valid(np.clip(found.lower, 0.0, 1.0), np.clip(found.upper, 0.0, 1.0))


def sqrt(c: Context) -> Interval | None:
    """The root; nothing is known where x may be negative."""
    low, high = np.sqrt(np.maximum(c.x.lower, 0.0)), np.sqrt(np.maximum(c.x.upper, 0.0))
    found = interval.extremes(
        [low, high], [v * v == x for v, x in ((low, c.x.lower), (high, c.x.upper))]
    )
    defined = c.x.lower >= 0.0
    found = c.kind.outward(Interval(np.maximum(found.lower, 0.0), found.upper))
    return Interval(np.where(defined, found.lower, -np.inf), np.where(defined, found.upper, np.inf))


def where(c: Context) -> Interval | None:
    """One of the two, entry by entry."""
    a, b = c.inputs[1:3]
    return None if a is None or b is None else interval.join([a, b])


def joined(c: Context) -> Interval:
    """One of the inputs, whichever, as a whole."""
    parts, shape = [x for x in c.inputs if x is not None], c.shape_out
    if shape is None or any(x.rank != len(shape) for x in parts):
        return interval.join([x.hull().mapped(lambda v: v.reshape(())) for x in parts])
    open_axes = tuple(axis for axis, dim in enumerate(shape) if not dim.static)
    return interval.join([x.hull(open_axes) for x in parts])


def scaler(c: Context) -> Interval | None:
    """(x - offset) scale, in float32, of numbers that are converted to it first."""
    known = attributes(c.node)
    numbers = []
    for name, default in (("offset", 0.0), ("scale", 1.0)):
        values = np.asarray(known[name].floats if name in known else [default], dtype=np.float64)
        if len(values) > 1 and (c.x.rank == 0 or c.x.lower.shape[-1] not in (1, len(values))):
            return None
        numbers.append(interval.point(values if len(values) > 1 else values.reshape(())))
    offset, scale = numbers
    x = c.kind.flushed(c.kind.outward(c.x))
    return single.multiply(c.kind, single.add(c.kind, x, interval.negate(offset)), scale)


def identity(c: Context) -> Interval | None:
    """x."""
    return c.x


def dropout(c: Context) -> Interval | None:
    """x in inference form."""
    return None if c.index.opset < DROPOUT_RUNS_SINCE or trains(c.index, c.node) else c.x


def cast(c: Context) -> Interval | None:
    """x rounded to the type that it is cast to; what does not fit there gives anything there."""
    target = c.integer("to", 0)
    if target in FLOAT_TYPES:
        source = FLOAT_TYPES.get(c.index.elem_type(c.node.input[0]))
        x = c.x if source is None else source.flushed(c.x)
        kind = FLOAT_TYPES[target]
        holds = source is not None and source.digits <= kind.digits
        # A wider type holds every number, but perhaps not as a normal one.
        return kind.flushed(kind.outward(x, np.asarray(holds)))
    if target not in INTEGER_TYPES:
        return None
    if target == TensorProto.BOOL:
        return interval.between(0.0, 1.0, c.x.rank)
    least, greatest = INTEGER_TYPES[target]
    # Toward 0 says the standard; a runtime may round.
    low, high = np.floor(c.x.lower), np.ceil(c.x.upper)
    fits = (low >= least) & (high <= greatest)
    return Interval(np.where(fits, low, least), np.where(fits, high, greatest))
