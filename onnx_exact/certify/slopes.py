"""Linear bounds with optimised slopes of few digits, for signs that default slopes leave open.

Any slope in [0, 1] gives a sound bound (Zhang et al. 2018; Xu et al. 2021), so that slopes can be
rounded to what takes a byte, and the bound evaluated with these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.alpha_crown import FIRST_STEP, STEP_DECAY, slope_gradients
from onnx_exact.bounds.crown import Relaxation, upper_bounds
from onnx_exact.certify.proof import SLOPE_STEPS
from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

STEPS = 40


def given_slopes(
    layers: Sequence[Relaxation], loose: Sequence[NDArray[np.intp]], values: NDArray[np.uint8]
) -> list[Array]:
    """The lower slopes of all units, shape (rows, units) a layer, from those of the loose ones."""
    slopes, start = [], 0
    for layer, units in zip(layers, loose, strict=True):
        every = np.tile(layer.lower_slope, (len(values), 1))
        own = values[:, start : start + units.size] / SLOPE_STEPS
        every[:, units] = np.where(is_free(layer)[units], own, every[:, units])
        slopes.append(every)
        start += units.size
    return slopes


def is_free(layer: Relaxation) -> NDArray[np.bool_]:
    """The units whose lower slope is a choice."""
    return (layer.upper_slope > 0.0) & (layer.upper_slope < 1.0)


def optimized_slopes(
    rows: Affine,
    layers: Sequence[Relaxation],
    loose: Sequence[NDArray[np.intp]],
    box: Box,
    goal: Array,
    deadline: Deadline,
) -> tuple[Array, NDArray[np.uint8]]:
    """The least bounds found, and the slopes that give them.

    Args:
        rows: the functionals, as of `crown.upper_bounds`.
        layers: the relaxations below, at least one.
        loose: the units of each layer whose slopes are given.
        box: the domain.
        goal: a bound no greater is good enough, shape (rows,).
        deadline: stops looking for better ones when it passes.

    Returns:
        Bounds, shape (rows,), and slopes, shape (rows, all loose units), for each row.
    """
    total = sum(units.size for units in loose)
    bounds = np.full(rows.n_out, np.inf)
    kept = np.zeros((rows.n_out, total), dtype=np.uint8)
    if not total:
        return bounds, kept
    here = np.arange(rows.n_out)
    start = np.concatenate([r.lower_slope[u] for r, u in zip(layers, loose, strict=True)])
    alpha = np.tile(start, (rows.n_out, 1))
    length = FIRST_STEP
    for _ in range(STEPS):
        part = rows.rows(here)
        values = np.rint(alpha * SLOPE_STEPS).astype(np.uint8)
        slopes = given_slopes(layers, loose, values)
        found, _ = upper_bounds(part, layers, box, slopes)
        better = found < bounds[here]
        bounds[here[better]], kept[here[better]] = found[better], values[better]
        still = bounds[here] > goal[here]
        if deadline.passed or not still.any():
            break
        here, alpha = here[still], alpha[still]
        with np.errstate(over="ignore", invalid="ignore"):
            gradients = slope_gradients(rows.rows(here), layers, box, [s[still] for s in slopes])
        step = [g[:, u] for g, u in zip(gradients, loose, strict=True)]
        scaled = [length * s / np.maximum(_largest(s), np.finfo(float).tiny) for s in step]
        alpha = np.clip(alpha - np.nan_to_num(np.hstack(scaled)), 0.0, 1.0)
        length *= STEP_DECAY
    return bounds, kept


def _largest(values: Array) -> Array:
    return np.asarray(np.abs(values).max(axis=1, keepdims=True, initial=0.0))
