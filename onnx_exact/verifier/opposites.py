"""Units that are gone, though unstable, because another unit stands for their nonlinear part.

If g_i = -a g_j with a > 0, then h_i = max(g_i, 0) = a max(g_j, 0) + g_i = a h_j + g_i. In general

    |h_i - a h_j - g_i| = |max(-g_i, 0) - max(a g_j, 0)| <= |g_i + a g_j|,

so that any a and any j give a true bound: they need not be named, and are looked for here.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.verifier.balls import Ball
from onnx_exact.verifier.bounds import Ranges
from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.rounding import ROUNDOFF, Array, Flags, add_up, dot_up


def replace_opposites(
    rows: Array, layer: Layer, gone: Flags, lives: Flags, ranges: Ranges, s: int
) -> tuple[Array, Array, Array]:
    """Functionals of the outputs of a layer without the units that are gone.

    Args:
        rows: F, shape (rows, units).
        layer: the layer.
        gone, lives: which units are to be replaced, and which may stand for them.
        ranges: of its chain.
        s: its index.

    Returns:
        F with a F_i added to F_j and 0 for F_i; functionals of the pre-activations, F_i for these
        units; and how far the sum of the two may be from F h, one for each row.
    """
    linear, loss = np.zeros_like(rows), np.zeros(len(rows))
    gone = gone & rows.any(axis=0) & lives.any()
    rows = rows.copy()
    size, highest = ranges.magnitude(s - 1), ranges.outputs(s)[1]
    all_rows = np.column_stack([layer.weight * (size > 0.0), layer.bias])
    lengths = np.maximum(np.linalg.norm(all_rows, axis=1), np.finfo(np.float64).tiny)
    for i in np.flatnonzero(gone):
        cosines = all_rows @ all_rows[i] / lengths
        j = int(np.where(lives, cosines, np.inf).argmin())
        pivot = int(np.abs(all_rows[j]).argmax())
        # The exact quotient where that is a float64 number.
        factor = -all_rows[i, pivot] / all_rows[j, pivot] if all_rows[j, pivot] else 0.0
        off = _sum_of_opposites(layer, int(i), j, factor, size) if factor > 0.0 else np.inf
        if not off < highest[i]:
            continue
        share = rows[:, i] * factor
        total = rows[:, j] + share
        rounding = 2.0 * ROUNDOFF * (np.abs(total) + np.abs(share))
        lost = np.column_stack([np.abs(rows[:, i]), rounding])
        loss = add_up(loss, dot_up(lost, np.array([off, highest[j]])))
        linear[:, i], rows[:, j], rows[:, i] = rows[:, i], total, 0.0
    return rows, linear, loss


def _sum_of_opposites(layer: Layer, i: int, j: int, factor: float, size: Array) -> float:
    """An upper bound on |g_i + factor g_j| where inputs are at most `size`."""

    def row(unit: int) -> Ball:
        mid = np.append(layer.weight[unit], layer.bias[unit])
        if layer.weight_error is None or layer.bias_error is None:
            return Ball(mid)
        return Ball(mid, np.append(layer.weight_error[unit], layer.bias_error[unit]))

    total = row(i) + row(j) * Ball(np.array([factor]))
    return float(dot_up(total.size, np.append(size, 1.0)))
