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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.crown import Relaxation, upper_bounds
from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

# Lower slopes are kept as whole multiples of 1 / SLOPE_STEPS.
SLOPE_STEPS = 255
STEPS = 20
FIRST_STEP = 0.3
STEP_DECAY = 0.9


@dataclass(frozen=True, eq=False)
class Optimized:
    """Bounds with optimised slopes.

    Attributes:
        bounds: the least found for each row, sound, shape (rows,).
        corners: at which the last functional was largest, shape (rows, inputs).
        slopes: in units of 1 / SLOPE_STEPS, which attain the bounds; one array a layer, shape
            (rows, units).
    """

    bounds: Array
    corners: Array
    slopes: list[NDArray[np.uint8]]


def optimized_upper_bounds(
    rows: Affine,
    layers: Sequence[Relaxation],
    box: Box,
    deadline: Deadline,
    steps: int = STEPS,
    start: Sequence[NDArray[np.uint8]] | None = None,
) -> Optimized:
    """As `crown.upper_bounds`, with the lower slopes of every unstable unit optimised for each row.

    Bounds are those with slopes rounded to a byte, so that a certificate can hold them.

    Args:
        rows, layers, box: as there.
        deadline: the user's.
        steps: for rows whose bound is above 0.
        start: slopes to begin with in place of those of `layers`, as `Optimized` has them.
    """
    kept = [_default(layer, rows.n_out) for layer in layers] if start is None else [*start]
    given = None if start is None else [_real(k, r) for k, r in zip(kept, layers, strict=True)]
    best, coefficients = upper_bounds(rows, layers, box, given)
    corners = np.where(coefficients > 0.0, box.upper, box.lower)
    open_rows = np.flatnonzero(best > 0.0)
    alphas = [_real(k[open_rows], r) for k, r in zip(kept, layers, strict=True)]
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
            alpha[:, mask] = np.nan_to_num(np.clip(alpha - step, 0.0, 1.0)[:, mask])
        tried = [np.rint(alpha * SLOPE_STEPS).astype(np.uint8) for alpha in alphas]
        given = [_real(t, r) for t, r in zip(tried, layers, strict=True)]
        bounds, coefficients = upper_bounds(part, layers, box, given)
        better = bounds < best[open_rows]
        best[open_rows[better]] = bounds[better]
        for k, t in zip(kept, tried, strict=True):
            k[open_rows[better]] = t[better]
        corners[open_rows] = np.where(coefficients > 0.0, box.upper, box.lower)
        still = best[open_rows] > 0.0
        open_rows, alphas = open_rows[still], [alpha[still] for alpha in alphas]
        length *= STEP_DECAY
    return Optimized(best, corners, kept)


def _default(layer: Relaxation, count: int) -> NDArray[np.uint8]:
    return np.tile(np.rint(layer.lower_slope * SLOPE_STEPS).astype(np.uint8), (count, 1))


def _real(slopes: NDArray[np.uint8], layer: Relaxation) -> Array:
    """Slopes as they count; those of stable units are what the ReLU is."""
    free = (layer.upper_slope > 0.0) & (layer.upper_slope < 1.0)
    return np.where(free, slopes / SLOPE_STEPS, layer.lower_slope)


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
