"""Products of matrices in Arb's ball arithmetic (python-flint); conversions are what takes time.

Coefficients are proposed by an ordinary float64 product, on which nothing rests; Arb encloses
what they leave over, (T W - A) h + T b, for every h in a box at once: a matrix times a vector of
balls (Johansson 2017, Arb: efficient arbitrary-precision midpoint-radius interval arithmetic).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.rounding import Array, Flags

PRECISION = 64


class Balls:
    """Arithmetic of one chain: its weights are converted once, or once for each set of rows."""

    name = "Arb balls"

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        self._weights: dict[int, tuple[bytes, Any]] = {}

    def pull_back(self, k: int, through: Array, low: Array, high: Array) -> tuple[Array, ...]:
        """Functionals of the pre-activations of layer k as functionals of its inputs.

        Args:
            k: the layer, g = W h + b.
            through: T, shape (rows, units).
            low, high: bounds on h, shape (inputs,).

        Returns:
            A, shape (rows, inputs), and bounds on T (W h + b) - A h, shape (rows,) each.
        """
        ctx.prec = PRECISION
        live = np.asarray(through.any(axis=0))
        through = through[:, live]
        with np.errstate(over="ignore", invalid="ignore"):
            proposed = through @ self.layers[k].weight[live]
        left = matrix(through) * self._augmented(k, live)
        left = left - matrix(np.column_stack([proposed, np.zeros(len(proposed))]))
        # The box as balls, and the 1 that the biases are multiplied with.
        ends = zip(low.tolist(), high.tolist(), strict=True)
        balls = [arb(a).union(arb(b)) if a < b else arb(a) for a, b in ends]
        found = (left * arb_mat(len(balls) + 1, 1, [*balls, arb(1)])).entries()
        return (
            proposed,
            np.array([-_above(-v) for v in found]),
            np.array([_above(v) for v in found]),
        )

    def forward(self, points: Array) -> list[tuple[Flags, Flags]]:
        """Which pre-activations are certainly positive, and negative: (points, units) a layer."""
        ctx.prec = PRECISION
        shown = []
        count = len(points)
        values = matrix(points.T).entries()
        for k, layer in enumerate(self.layers):
            inputs = arb_mat(len(values) // count + 1, count, [*values, *[arb(1)] * count])
            live = np.ones(layer.width, dtype=bool)
            values = (self._augmented(k, live) * inputs).entries()
            signs = ([v > 0 for v in values], [v < 0 for v in values])
            positive, negative = (np.array(s).reshape(layer.width, count).T for s in signs)
            shown.append((positive, negative))
            if layer.relu:
                flat = zip(values, *signs, strict=True)
                values = [v if up else arb(0) if down else v.max(arb(0)) for v, up, down in flat]
        return shown

    def _augmented(self, k: int, live: Flags) -> Any:
        """(W b), of the rows that are wanted."""
        key = live.tobytes()
        if k not in self._weights or self._weights[k][0] != key:
            layer = self.layers[k]
            mid = np.column_stack([layer.weight, layer.bias])[live]
            if layer.weight_error is None or layer.bias_error is None:
                made = matrix(mid)
            else:
                err = np.column_stack([layer.weight_error, layer.bias_error])[live]
                pairs = zip(mid.ravel().tolist(), err.ravel().tolist(), strict=True)
                made = arb_mat(mid.shape[0], mid.shape[1], [arb(m, r) for m, r in pairs])
            self._weights[k] = (key, made)
        return self._weights[k][1]


def matrix(values: Array) -> Any:
    """Float64 numbers as exact balls."""
    return arb_mat(values.shape[0], values.shape[1], values.ravel().tolist())


def _above(value: Any) -> float:
    """A float64 not below any number of a ball; nan where there is none."""
    upper = value.upper()
    nearest = float(upper)
    return nearest if arb(nearest) >= upper else float(np.nextafter(nearest, np.inf))
