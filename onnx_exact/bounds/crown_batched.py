"""Backward linear bounds on the loose units of a layer, over many boxes at once.

The bounds are those of `crown.upper_bounds` on each unit and on its negative, but for the interval
bounds on the way, which are hardly ever the least in a small box. Bounding layers below takes most
of the time when a box is split into many, so that this evaluation is made for it: both sides share
their products, boxes with about as many loose units share a batch, and what every box of a batch
has to know of a layer is prepared once.

Rounding is bounded as in `crown`. What underflows is allowed for throughout, rather than only where
something may: that is less than any bound that matters here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.crown import Relaxation
from onnx_exact.bounds.interval import interval_maximum
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import SMALLEST, SMALLEST_NORMAL, gamma

# Numbers of the largest array of a batch: a few such arrays should fit in a processor's cache.
ENTRIES = 40_000


@dataclass(frozen=True, eq=False)
class _Step:
    """What going back through a layer takes, of its live units alone.

    Attributes:
        matrix: weights from the live units of the layer before, and biases as the last column.
        upper_slope, lower_slope: as in `Relaxation`, shape (boxes, 1, units).
        above: for positive coefficients, the offset and the size of what is rounded; a column each,
            shape (boxes, units, 2).
        below: for negative coefficients, the size, negated; shape (boxes, units, 1).
        gamma: of the step's sums.
        underflow: what all products that underflow may add.
    """

    matrix: Array
    upper_slope: Array
    lower_slope: Array
    above: Array
    below: Array
    gamma: float
    underflow: float


def bound_loose(
    affine: Affine,
    loose: NDArray[np.bool_],
    layers: list[Relaxation],
    box: Box,
    lower: Array,
    upper: Array,
) -> None:
    """Tightens bounds on loose units of a layer in place, each box having its own.

    Units that are not loose may be tightened as well.

    Args:
        affine: the layer's map.
        loose: shape (boxes, units).
        layers: the relaxations of the layers below, at least one.
        box: shape (boxes, inputs).
        lower, upper: sound bounds, shape (boxes, units).
    """
    steps = _steps(layers)
    live = layers[-1].live
    rows = Affine(affine.weight[:, live], affine.bias)
    off = affine.off(layers[-1].magnitude)
    widest = max(layer.live.size for layer in layers)
    counts = loose.sum(axis=1)
    waiting = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    while waiting.size:
        # Boxes with fewer loose units than the first have some of the rest bounded.
        most = int(counts[waiting[0]])
        size = max(1, ENTRIES // (2 * most * widest))
        boxes, waiting = waiting[:size], waiting[size:]
        units = np.argsort(~loose[boxes], axis=1, kind="stable")[:, :most]
        with np.errstate(over="ignore", invalid="ignore"):
            above, below = _both_sides(rows, units, steps, boxes, box)
        place = boxes[:, None], units
        above, below = above + off[place], below + off[place]
        # What overflowed on the way is nan: no bound.
        upper[place] = np.fmin(upper[place], above)
        lower[place] = np.fmax(lower[place], -below)


def _steps(layers: list[Relaxation]) -> list[_Step]:
    """The steps back, last layer first."""
    steps: list[_Step] = []
    for number, layer in enumerate(layers):
        weight = layer.live_affine.weight
        if number:
            weight = weight[:, layers[number - 1].live]
        narrow = layer.narrowed()
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = [
                slope * narrow.reach + SMALLEST_NORMAL
                for slope in (narrow.upper_slope, narrow.lower_slope)
            ]
            reach = float(narrow.reach.sum(axis=-1).max())
        n = layer.affine.n_in + layer.affine.n_out
        steps.append(
            _Step(
                matrix=np.concatenate([weight, layer.live_affine.bias[:, None]], axis=1),
                upper_slope=narrow.upper_slope[:, None],
                lower_slope=narrow.lower_slope[:, None],
                above=np.stack([narrow.upper_offset, sizes[0]], axis=-1),
                below=-sizes[1][..., None],
                gamma=gamma(n),
                underflow=2 * n * SMALLEST * (1.0 + layer.input_total + reach),
            )
        )
    return steps[::-1]


def _both_sides(
    rows: Affine, units: NDArray[np.intp], steps: list[_Step], boxes: NDArray[np.intp], box: Box
) -> tuple[Array, Array]:
    """Upper bounds on units and on their negatives, shape (boxes, units) each; nan for none.

    Args:
        rows: of all units.
        units: of each box, shape (boxes, units).
        steps: of all boxes.
        boxes: which of them are bounded, shape (boxes,).
        box: all of them.
    """
    weight, bias = rows.weight[units], rows.bias[units]
    coefficients = np.concatenate([weight, -weight], axis=1)
    constant = np.concatenate([bias, -bias], axis=1)
    error = np.zeros(constant.shape)
    for step in steps:
        positive = np.maximum(coefficients, 0.0)
        # Exact: one of the two is 0.
        negative = coefficients - positive
        above = positive @ step.above[boxes]
        size = above[..., 1] + (negative @ step.below[boxes])[..., 0]
        error += step.gamma * (size + above[..., 0] + np.abs(constant)) + step.underflow
        positive *= step.upper_slope[boxes]
        negative *= step.lower_slope[boxes]
        positive += negative
        through = positive.reshape(-1, positive.shape[-1]) @ step.matrix
        through = through.reshape(*constant.shape, -1)
        constant = constant + above[..., 0] + through[..., -1]
        coefficients = np.ascontiguousarray(through[..., :-1])
    bounds = error + interval_maximum(coefficients, constant, box.lower[boxes], box.upper[boxes])
    half = units.shape[1]
    return bounds[:, :half], bounds[:, half:]
