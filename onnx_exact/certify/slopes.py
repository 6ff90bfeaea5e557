"""Linear bounds with optimised slopes of few digits, for signs that default slopes leave open.

Any slope in [0, 1] gives a sound bound (Zhang et al. 2018; Xu et al. 2021), so that slopes can be
rounded to what takes a byte, and the bound evaluated with these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.cases import SLOPE_STEPS
from onnx_exact.bounds.crown import Relaxation
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
        every[:, units] = np.where(layer.unstable[units], own, every[:, units])
        slopes.append(every)
        start += units.size
    return slopes


def optimized_slopes(
    rows: Affine,
    layers: Sequence[Relaxation],
    loose: Sequence[NDArray[np.intp]],
    box: Box,
    goal: Array,
) -> tuple[Array, NDArray[np.uint8]]:
    """The least bounds found, and the slopes that give them.

    Args:
        rows: the functionals, as of `crown.upper_bounds`.
        layers: the relaxations below, at least one.
        loose: the units of each layer whose slopes are given.
        box: the domain.
        goal: a bound no greater is good enough, shape (rows,).

    Returns:
        Bounds, shape (rows,), and slopes, shape (rows, all loose units), for each row.
    """
    found = optimize(rows, layers, box, STEPS, goal=goal)
    slopes = np.hstack([a[:, u] for a, u in zip(found.cases.slopes, loose, strict=True)])
    return found.bounds, np.rint(slopes * SLOPE_STEPS).astype(np.uint8)
