"""Products of matrices in float64 with an error bound.

For A = fl(T W) in any order of summing |A - T W| <= gamma_n |T| |W| (Rump 1999, Fast and parallel
interval arithmetic), so that over |h| <= H

    |T (W h + b) - A h - fl(T b)| <= gamma_n |T| (|W| H + |b|),

plus what products lose that underflow, for T of shape (rows, n); twice gamma_n covers the rounding
of the right-hand side. Where a row
of T has one entry, 1 or -1, nothing is rounded.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.rounding import EXTRA, ROUNDOFF, Array, Flags, add_up

# Far above what n products of numbers of any size can lose to underflow, far below any bound.
UNDERFLOW = 2.0**-900
MOST_MAGNITUDE = 2.0**100
# A float64 sum of its own terms, rounded upward.
SLACK = 1.0000001


class Products:
    """Arithmetic of one chain."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        self._sizes = [(np.abs(layer.weight), np.abs(layer.bias)) for layer in layers]

    def pull_back(self, k: int, through: Array, low: Array, high: Array) -> tuple[Array, Array]:
        """Functionals of the pre-activations of layer k as functionals of its inputs.

        Args:
            k: the layer, g = W h + b.
            through: T, shape (..., units).
            low, high: bounds on h; broadcast against (..., inputs).

        Returns:
            A, shape (..., inputs), and an upper bound on T (W h + b) - A h, shape (...).
        """
        layer = self.layers[k]
        flat = through.reshape(-1, through.shape[-1])
        proposed = (flat @ layer.weight).reshape(*through.shape[:-1], layer.weight.shape[1])
        magnitude = np.maximum(np.abs(low), np.abs(high))
        sizes = np.abs(through)
        rounded = self._rounding(k, magnitude, layer.width)
        # Beyond these sizes products could lose more than `UNDERFLOW`.
        usual = all(np.abs(v).max(initial=0.0) < MOST_MAGNITUDE for v in (magnitude, through))
        error = (sizes * (rounded + layer.off(magnitude))).sum(axis=-1) * SLACK
        error = add_up(error, np.asarray(UNDERFLOW if usual else np.nan))
        alone = np.count_nonzero(through, axis=-1) <= 1
        alone &= np.isin(sizes.max(axis=-1, initial=0.0), (0.0, 1.0))
        known = (sizes * layer.off(magnitude)).sum(axis=-1) * SLACK
        return proposed, add_up(through @ layer.bias, np.where(alone, known, error))

    def _rounding(self, k: int, magnitude: Array, terms: int) -> Array:
        """What rounding may move pre-activations by in sums of so many terms."""
        weight, bias = self._sizes[k]
        return np.asarray(ROUNDOFF * (terms + EXTRA) * (magnitude @ weight.T + bias))

    def forward(self, points: Array) -> list[tuple[Flags, Flags]]:
        """Which pre-activations are certainly positive, and negative: (points, units) a layer.

        Args:
            points: shape (points, inputs).
        """
        shown = []
        values, errors = points, np.zeros_like(points)
        for k, layer in enumerate(self.layers):
            size = np.abs(values) + errors
            off = errors @ self._sizes[k][0].T + layer.off(size)
            errors = (off + self._rounding(k, size, size.shape[1])) * SLACK + UNDERFLOW
            values = values @ layer.weight.T + layer.bias
            negative = values < -errors
            shown.append((values > errors, negative))
            if layer.relu:
                values, errors = np.maximum(values, 0.0), np.where(negative, 0.0, errors)
        return shown
