"""Bounds on all pre-activations of a chain, as the checker has them where nothing is claimed."""

from __future__ import annotations

import numpy as np

from onnx_exact.verifier.bounds import Ranges, intervals, upper_bounds
from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.rounding import Array, add_up


def plain_ranges(layers: tuple[Layer, ...], low: Array, high: Array) -> Ranges:
    """From intervals and linear bounds."""
    products = Products(layers)
    ranges = Ranges([], [], (low, high), [layer.relu for layer in layers])
    for k, layer in enumerate(layers):
        lower, upper = intervals(layer, *ranges.outputs(k - 1), exact=True)
        off = layer.off(ranges.magnitude(k - 1))
        found = upper_bounds(layer.weight, layer.bias, ranges, products)
        upper = np.fmin(upper, add_up(found, off))
        found = upper_bounds(-layer.weight, -layer.bias, ranges, products)
        lower = np.fmax(lower, -add_up(found, off))
        ranges.lower.append(lower)
        ranges.upper.append(upper)
    return ranges
