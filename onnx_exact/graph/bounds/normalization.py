"""Intervals through normalisations: by constants, and by what is normalised itself.

The root mean square of n numbers is at least their largest divided by the root of n, so that

    |x_i| / sqrt(mean(x_k^2) + eps) <= sqrt(n)

and so for x_k - mean(x), whatever the numbers are.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from onnx_exact.graph.bounds import interval, single, sums
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FloatType
from onnx_exact.graph.index import attributes
from onnx_exact.graph.layout import product
from onnx_exact.graph.ops.normalization import EPSILON_DEFAULT, in_inference_form, scale_and_shift
from onnx_exact.network.affine import Array

# Roundings that a term may see, in any of the usual formulas: the conversions of two parameters,
# var + eps, root, quotient, two products, two sums, and a margin for the products of these errors.
OPERATIONS = 12
# Beyond this relative error of var + eps nothing is said.
LARGEST_SHARE = 0.25


def batch_normalization(c: Context) -> Interval | None:
    """s x + t per channel, with s = gamma / sqrt(var + eps) and t = beta - mean s."""
    if c.x.rank < 2 or c.index.opset < 7 or not in_inference_form(c.node):
        return None
    constants = [c.constant(i) for i in range(1, 5)]
    parameters = [p for p in constants if p is not None and p.ndim == 1]
    found = scale_and_shift(c.node, parameters) if len(parameters) == 4 else None
    if found is None or max(np.abs(p).max(initial=0.0) for p in parameters) > c.kind.largest:
        return None
    per_channel = (-1, *[1] * (c.x.rank - 2))
    gain, beta, mean, variance = (p.reshape(per_channel) for p in parameters)
    scale = found[0].reshape(per_channel)
    # A gain that may be flushed is not bounded, one of 0 takes the variance out of it.
    share = np.where(np.abs(gain) < c.kind.smallest_normal, np.inf, _share(c, variance))
    share = np.where(gain == 0.0, 0.0, share)
    x, moved = c.kind.flushed(c.x), np.abs(beta) + np.abs(mean * scale)
    image = _affine(x, scale, beta, mean)
    margins = [
        _error(c.kind, share, np.where(np.isfinite(v), np.abs(v), 0.0), scale, moved, mean)
        for v in (x.lower, x.upper)
    ]
    turned = scale < 0.0
    low, high = (np.where(turned, *reversed(margins)), np.where(turned, *margins))
    settled = (share <= LARGEST_SHARE) & (moved < c.kind.largest / 2.0)
    # (x - mean) may overflow before it is multiplied by 0.
    settled = settled & ~((scale == 0.0) & (np.isinf(x.lower) | np.isinf(x.upper)))
    return interval.valid(
        np.where(settled, image.lower - low, -np.inf), np.where(settled, image.upper + high, np.inf)
    )


def layer_normalization(c: Context) -> Interval | None:
    """(x - mean) / sqrt(var + eps) scale + B over the axes from one on."""
    shape, rank = c.shape(), c.x.rank
    axis = c.integer("axis", -1)
    if shape is None or len(shape) != rank or not -rank <= axis < rank:
        return None
    scale, offset = c.inputs[1], c.inputs[2] if len(c.inputs) > 2 else None
    return _normalized(c, tuple(range(axis % rank, rank)), scale, offset)


def instance_normalization(c: Context) -> Interval | None:
    """The same over each channel of an image, with one scale and B a channel."""
    along = (-1, *[1] * (c.x.rank - 2))
    scale, offset = (
        None if x is None else x.mapped(lambda v: v.reshape(along)) for x in c.inputs[1:3]
    )
    return None if c.x.rank < 3 else _normalized(c, tuple(range(2, c.x.rank)), scale, offset)


def _normalized(
    c: Context, axes: tuple[int, ...], scale: Interval | None, offset: Interval | None
) -> Interval | None:
    """Numbers that are normalised over some axes, times scale, plus offset.

    With the variance as a difference of two means, or x / s - mean / s as one of two quotients, the
    numbers cancel: nothing is known where what that rounds is not small beside epsilon.
    """
    shape, kind, size = c.shape(), c.kind, np.maximum(np.abs(c.x.lower), np.abs(c.x.upper))
    if shape is None or scale is None or not all(shape[axis].static for axis in axes):
        return None
    count = prod(shape[axis].size for axis in axes)
    epsilon, largest = c.number("epsilon", EPSILON_DEFAULT), float(size.max(initial=0.0))
    rounded = 4.0 * kind.gamma(count + OPERATIONS)
    if not (epsilon > 0.0 and rounded * largest * largest <= epsilon / 4.0):
        return None
    limit = np.sqrt(count) + 2.0 * rounded * largest / np.sqrt(epsilon)
    limit = float(limit * (1.0 + kind.gamma(count + OPERATIONS)) * (1.0 + 2.0**-40))
    found = single.multiply(kind, interval.between(-limit, limit, c.x.rank), scale)
    if offset is None:
        return found
    moved = single.add(kind, found, offset)
    room = kind.gamma(OPERATIONS) * np.maximum(np.abs(offset.lower), np.abs(offset.upper))
    return Interval(moved.lower - room, moved.upper + room)


def normalized_by(c: Context) -> float | None:
    """The limit of a quotient d / sqrt(mean(d^2) + eps), written out in nodes; None for another.

    No evaluation exceeds it, whatever d has been rounded to: the same d is in both.
    """
    index, names = c.index, list(c.node.input)
    root = _made_by(c, names[1], "Sqrt")
    added = None if root is None else _made_by(c, root.input[0], "Add")
    parts = [] if added is None else [n for n in added.input if index.floats(n) is None]
    epsilons = [] if added is None else [v for v in map(index.floats, added.input) if v is not None]
    mean = _made_by(c, parts[0], "ReduceMean") if len(parts) == 1 else None
    if mean is None or not (epsilons[0] >= c.kind.smallest_normal).all() or c.x.overflows:
        return None
    square = _made_by(c, mean.input[0], "Mul", "Pow")
    if square is None or square.input[0] != names[0]:
        return None
    exponent = index.value(square.input[1]) if square.op_type == "Pow" else None
    twice = exponent is not None and exponent.values.size == 1 and float(exponent.values) == 2.0
    if not twice and (square.op_type == "Pow" or square.input[1] != names[0]):
        return None
    entries, means = index.shape(square.output[0]), index.shape(mean.output[0])
    if entries is None or means is None or len(entries) != len(means) or epsilons[0].size != 1:
        return None
    count = product(entries).over(product(means))
    if count is None or not count.static:
        return None
    return float(np.sqrt(count.size) * (1.0 + c.kind.gamma(count.size + OPERATIONS)) + 2.0**-40)


def _made_by(c: Context, tensor: str, *operators: str) -> NodeProto | None:
    """The node of one of these operators that makes a tensor."""
    position = c.index.producer.get(tensor)
    node = None if position is None else c.index.nodes[position]
    return node if node is not None and c.index.operator(node) in operators else None


def _affine(x: Interval, scale: Array, beta: Array, mean: Array) -> Interval:
    image = interval.multiply(x, interval.point(scale))
    shift = interval.add(
        interval.point(beta),
        interval.negate(interval.multiply(interval.point(mean), interval.point(scale))),
    )
    return interval.add(image, shift)


def _share(c: Context, variance: Array) -> Array:
    """A bound on the relative error of the scale beyond that of its operations.

    What of the variance and epsilon is below the normal range may be flushed or poorly rounded.
    """
    known = attributes(c.node)
    epsilon = known["epsilon"].f if "epsilon" in known else EPSILON_DEFAULT
    least = c.kind.smallest_normal
    parts = (np.asarray(epsilon), variance)
    lost = sum((np.where(np.abs(p) < least, np.abs(p), 0.0) for p in parts), np.zeros(()))
    # A variance below 0 cancels.
    rounded = c.kind.epsilon * (np.abs(variance) + epsilon)
    return np.asarray((lost + rounded) / (variance + epsilon))


def _error(
    kind: FloatType, share: Array, size: Array, scale: Array, moved: Array, mean: Array
) -> Array:
    relative = kind.gamma(OPERATIONS) * (1.0 + share) + share + sums.gamma(OPERATIONS)
    terms = size * np.abs(scale) + moved
    flushes = OPERATIONS * kind.smallest_normal * (1.0 + np.abs(scale) + size)
    found = np.where(terms == 0.0, 0.0, relative * terms + flushes)
    return np.where(size + np.abs(mean) < kind.largest, found, np.inf)
