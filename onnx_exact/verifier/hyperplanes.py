"""Units that are gone together, because they are multiples of one another and cancel.

If g_i = b g_r, then h_i = max(g_i, 0) = |b| h_r, and g_i on top of that where b < 0. In general

    |max(g_i, 0) - max(b g_r, 0)| <= |g_i - b g_r|,

so that any b and any r give a true bound, and what names them need not be trusted.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.verifier.balls import Ball
from onnx_exact.verifier.bounds import Ranges
from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.rounding import ROUNDOFF, SMALLEST, Array, Flags, Units, add_up, dot_up


def replace_together(
    rows: Array, layer: Layer, among: Flags, place: Units, factor: Array, ranges: Ranges, s: int
) -> tuple[Array, Array, Array]:
    """Functionals of the outputs of a layer with one of the units that are gone together.

    Args:
        rows: F, shape (rows, units).
        layer: the layer.
        among: which units are to be replaced.
        place, factor: b = factor_i / factor_r for those with the same number below -1.
        ranges: of its chain.
        s: its index.

    Returns:
        F with sum_i F_i |b_i| for the first of these units and 0 for the others; functionals of the
        pre-activations, F_i where b < 0; and how far the sum of the two may be from F h, one for
        each row.
    """
    rows, linear, loss = rows.copy(), np.zeros_like(rows), np.zeros(len(rows))
    size, highest = np.append(ranges.magnitude(s - 1), 1.0), ranges.outputs(s)[1]
    numbers, errors = np.column_stack([layer.weight, layer.bias]), None
    if layer.weight_error is not None and layer.bias_error is not None:
        errors = np.column_stack([layer.weight_error, layer.bias_error])
    for number in np.unique(place[among & (place < -1)]):
        units = np.flatnonzero(among & (place == number))
        first, share, read = units[:1], factor[units] / factor[units[0]], rows[:, units]
        balls = [Ball(numbers[i], None if errors is None else errors[i]) for i in (units, first)]
        off = dot_up((balls[0] + balls[1] * Ball(-share[:, None])).size, size)
        rounding = units.size * (2.0 * ROUNDOFF * (np.abs(read) @ np.abs(share)) + SMALLEST)
        lost = np.column_stack([np.where(read.any(axis=1), rounding, 0.0), np.abs(read)])
        loss = add_up(loss, dot_up(lost, np.append(highest[first], off)))
        rows[:, units], linear[:, units] = 0.0, np.where(share < 0.0, read, 0.0)
        rows[:, first] = read @ np.abs(share)[:, None]
    return rows, linear, loss
