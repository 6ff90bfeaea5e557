"""Intervals through BatchNormalization in inference form."""

from __future__ import annotations

import numpy as np

from onnx_exact.graph.bounds import interval, sums
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FloatType
from onnx_exact.graph.index import attributes
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
