"""Backward linear bounds on the loose units of a layer, over many boxes at once.

The bounds are those of `crown.upper_bounds` on each unit and on its negative, but for the interval
bounds on the way, which are hardly ever the least in a small box. Bounding layers below takes most
of the time when a box is split into many: both sides share a pass, and boxes with about as many
loose units share a batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.crown import Functionals, Relaxation, backward
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

# Numbers of the largest array of a batch: a few such arrays should fit in a processor's cache.
ENTRIES = 40_000


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
    every, lines = Functionals.of(affine, layers, box), [layer.lines for layer in layers]
    error = np.broadcast_to(every.error, loose.shape)
    widest = max(layer.core.n_out for layer in layers)
    counts = loose.sum(axis=1)
    waiting = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    while waiting.size:
        # Boxes with fewer loose units than the first have some of the rest bounded.
        most = int(counts[waiting[0]])
        size = max(1, ENTRIES // (2 * most * widest))
        boxes, waiting = waiting[:size], waiting[size:]
        units = np.argsort(~loose[boxes], axis=1, kind="stable")[:, :most]
        place = boxes[:, None], units
        weight, bias, off = every.coefficients[units], every.constant[units], error[place]
        both = Functionals(
            np.concatenate([weight, -weight], axis=1),
            np.concatenate([bias, -bias], axis=1),
            np.concatenate([off, off], axis=1),
        )
        part = Box(box.lower[boxes], box.upper[boxes])
        some = [layer.some(boxes) for layer in lines]
        bounds, _ = backward(both, some, layers[0].read, part, on_the_way=False)
        # What overflowed on the way is nan: no bound.
        upper[place] = np.fmin(upper[place], bounds[:, :most])
        lower[place] = np.fmax(lower[place], -bounds[:, most:])
