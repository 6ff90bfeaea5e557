"""Bounds on linear functions of a layer's inputs, from the bounds on units that are at hand.

The least of: the interval over the inputs, and backward linear bounds down to the domain
(`onnx_exact.bounds.crown`) where everything on the way is bounded.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.bounds.crown import Relaxation, relax, upper_bounds
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.network.affine import Affine, Array
from onnx_exact.reduce.state import State


def functional_bounds(state: State, index: int, weight: Array) -> tuple[Array, Array]:
    """Sound bounds on weight h, with h the inputs of layer `index`, over the domain.

    Args:
        state: the network with verdicts.
        index: of the layer.
        weight: shape (functionals, inputs).

    Returns:
        Lower and upper, shape (functionals,); infinite where nothing is known.
    """
    if not len(weight):
        return np.zeros(0), np.zeros(0)
    rows = Affine(weight, np.zeros(len(weight)))
    lower, upper = interval_bounds(rows, *state.input_bounds(index))
    layers = _relaxations(state, index)
    if not layers:
        return lower, upper
    above, _ = upper_bounds(rows, layers, state.box)
    below, _ = upper_bounds(Affine(-weight, rows.bias), layers, state.box)
    return np.maximum(lower, -below), np.minimum(upper, above)


def _relaxations(state: State, count: int) -> list[Relaxation] | None:
    """The relaxations of the first layers; None where something is not bounded."""
    layers = state.layers[:count]
    bounded = all(np.isfinite(v).all() for layer in layers for v in (layer.lower, layer.upper))
    if not (state.box.finite and bounded):
        return None
    relaxed: list[Relaxation] = []
    for index, decided in enumerate(layers):
        affine, relu = decided.layer.affine, decided.layer.relu
        before = relaxed[-1].magnitude if relaxed else state.input_magnitude(index)
        relaxed.append(relax(affine, relu, decided.lower, decided.upper, before))
    return relaxed
