"""How far a point that a solver takes for feasible may be from one of the network.

A solver is content with rows, bounds and integers that hold within its tolerance t, relative to
their size or absolute. What that leaves open in the inputs of a layer is multiplied by its weights,
so that pre-activations g = W h + b with L <= g <= U may be off by

    |W| e + t max(1, |W| H + |b|) + t max(1, U, -L),

with e the same of the layer below (t max(1, |x|) of the inputs) and H an upper bound on |h|. A ReLU
makes no error larger. A sign that a program excludes within a margin below that is not excluded.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.network.affine import Array

# SCIP's tolerance on rows, bounds and integers, as the programs set it.
FEASIBILITY_TOLERANCE = 1e-7


def tolerances(bounds: ChainBounds) -> list[Array]:
    """Of the pre-activations of every layer, shape (units,) each; infinite where unbounded."""
    found = []
    size = bounds.size(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        error = FEASIBILITY_TOLERANCE * np.maximum(1.0, size)
        for index, layer in enumerate(bounds.chain.layers):
            magnitude = layer.affine.linear.absolute()
            terms = magnitude.apply(size) + np.abs(layer.affine.bias)
            span = np.maximum(bounds.upper[index], -bounds.lower[index])
            error = magnitude.apply(error) + layer.affine.off(size)
            error += FEASIBILITY_TOLERANCE * (np.maximum(1.0, terms) + np.maximum(1.0, span))
            error = np.where(np.isnan(error), np.inf, error)
            found.append(error)
            size = bounds.size(index)
    return found
