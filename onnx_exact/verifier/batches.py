"""Products of matrices in float64 with an error bound, for thousands of small boxes at once.

For A = fl(T W) in any order of summing |A - T W| <= gamma_n |T| |W| (Rump 1999, Fast and parallel
interval arithmetic), so that over |h| <= H

    |T (W h + b) - A h - fl(T b)| <= gamma_(n + m) |T| (|W| H + |b|),

plus what products lose that underflow, for T of shape (rows, n) and W of shape (n, m). Arb takes
a hundred times as long; this serves the trees alone.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.rounding import EXTRA, ROUNDOFF, Array, add_up

# Far above what n products of numbers of any size can lose to underflow, far below any bound.
UNDERFLOW = 2.0**-900
MOST_MAGNITUDE = 2.0**100


class Batches:
    """Arithmetic of one chain."""

    name = "float64 with Rump's bound"

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        self._sizes = [(np.abs(layer.weight), np.abs(layer.bias)) for layer in layers]

    def pull_back(self, k: int, through: Array, low: Array, high: Array) -> tuple[Array, ...]:
        """Functionals of the pre-activations of layer k as functionals of its inputs.

        Args:
            k: the layer, g = W h + b.
            through: T, shape (..., units).
            low, high: bounds on h; broadcast against (..., inputs).

        Returns:
            A, shape (..., inputs), and an upper bound on T (W h + b) - A h, shape (...).
        """
        layer, (weight, bias) = self.layers[k], self._sizes[k]
        flat = through.reshape(-1, through.shape[-1])
        proposed = (flat @ layer.weight).reshape(*through.shape[:-1], layer.weight.shape[1])
        magnitude = np.maximum(np.abs(low), np.abs(high))
        unit = ROUNDOFF * (sum(layer.weight.shape) + EXTRA)
        reach = unit * (magnitude @ weight.T + bias) + layer.off(magnitude)
        # Beyond these sizes products could lose more than `UNDERFLOW`.
        usual = all(np.abs(v).max(initial=0.0) < MOST_MAGNITUDE for v in (magnitude, through))
        sizes = np.abs(through)
        error = (sizes * reach).sum(axis=-1) * 1.0000001
        touched = through.any(axis=-1)
        lost = np.where(touched, UNDERFLOW if usual else np.nan, 0.0)
        return proposed, add_up(add_up(through @ layer.bias, error), lost)
