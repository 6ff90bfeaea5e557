"""Optimised lower slopes for backward linear bounds (alpha-CROWN, Xu et al. 2021).

Any lower slope in [0, 1] gives a sound bound, a different one for each functional; the best is
found by gradient descent on the bound itself. For a functional with coefficients A^k on h^k, an
upper bound at the corner x* that maximises the last functional has the derivatives

    d bound / d alpha^k_i = min(A^k_i, 0) ghat^k_i,     ghat^k = W^k p^(k-1) + b^k,    p^0 = x*,
    p^k_i = s_i ghat^k_i + t_i  where A^k_i > 0,        alpha^k_i ghat^k_i elsewhere,

so that a forward pass through the relaxed network gives the gradient, and p^0 is a point to run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_exact.bounds.crown import Relaxation, upper_bounds
from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

STEPS = 20
FIRST_STEP = 0.3
STEP_DECAY = 0.9


def optimized_upper_bounds(
    rows: Affine, layers: Sequence[Relaxation], box: Box, deadline: Deadline, steps: int = STEPS
) -> tuple[Array, Array]:
    """As `crown.upper_bounds`, with the lower slopes of every unstable unit optimised for each row.

    Returns:
        The least bound found for each row, shape (rows,), sound, and the corner at which the last
        functional was largest, shape (rows, inputs).
    """
    best, coefficients = upper_bounds(rows, layers, box)
    corners = np.where(coefficients > 0.0, box.upper, box.lower)
    open_rows = np.flatnonzero(best > 0.0)
    alphas = [np.tile(layer.lower_slope, (open_rows.size, 1)) for layer in layers]
    free = [(layer.upper_slope > 0.0) & (layer.upper_slope < 1.0) for layer in layers]
    length = FIRST_STEP
    for _ in range(steps):
        if not open_rows.size or deadline.passed:
            break
        part = rows.rows(open_rows)
        with np.errstate(over="ignore", invalid="ignore"):
            gradients = slope_gradients(part, layers, box, alphas)
        for alpha, gradient, mask in zip(alphas, gradients, free, strict=True):
            scale = np.abs(gradient).max(axis=1, keepdims=True)
            step = length * gradient / np.where(scale > 0.0, scale, 1.0)
            alpha[:, mask] = np.clip(alpha - step, 0.0, 1.0)[:, mask]
        bounds, coefficients = upper_bounds(part, layers, box, alphas)
        best[open_rows] = np.minimum(best[open_rows], bounds)
        corners[open_rows] = np.where(coefficients > 0.0, box.upper, box.lower)
        still = best[open_rows] > 0.0
        open_rows, alphas = open_rows[still], [alpha[still] for alpha in alphas]
        length *= STEP_DECAY
    return best, corners


def slope_gradients(
    rows: Affine, layers: Sequence[Relaxation], box: Box, alphas: Sequence[Array]
) -> list[Array]:
    """The derivatives of the bounds by the lower slopes, shape (rows, units) for each layer."""
    coefficients, negatives, uppers = rows.weight, [], []
    for layer, alpha in zip(reversed(layers), reversed(alphas), strict=True):
        positive = np.maximum(coefficients, 0.0)
        negatives.append(coefficients - positive)
        uppers.append(positive > 0.0)
        through = positive * layer.upper_slope + negatives[-1] * alpha
        coefficients = layer.pull_back(through)
    point = np.where(coefficients > 0.0, box.upper, box.lower)
    gradients = []
    for layer, alpha, negative, upper in zip(
        layers, alphas, reversed(negatives), reversed(uppers), strict=True
    ):
        value = layer.apply(point)
        gradients.append(negative * value)
        point = np.where(upper, layer.upper_slope * value + layer.upper_offset, alpha * value)
    return gradients
