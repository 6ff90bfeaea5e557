"""Finds a place for units that are gone and lie on the hyperplane of one that lives on.

Where nobody reads a unit any more it goes, and with it the others that it stood for. They may have
been opposites of one that stays, with the linear part that they leave given by others: what became
of them can be followed only by way of that one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Array
from onnx_exact.reduce.budget import reach
from onnx_exact.reduce.collinear import Index, collinear
from onnx_exact.reduce.state import Decided
from onnx_exact.reduce.units import UnitMap


def with_places(origin: UnitMap, layer: Decided, size: Array, roundoff: float) -> UnitMap:
    """The map of a layer with such units as factors of those that live on.

    Args:
        origin: the map.
        layer: of the original.
        size: bounds on the magnitudes of its inputs, shape (inputs,).
        roundoff: unit roundoff of the model's type, of which multiples may be off.
    """
    affine = layer.layer.affine
    kinks = (layer.status != Status.ACTIVE) & (layer.status != Status.INACTIVE)
    gone = np.flatnonzero(kinks & (origin.place < 0) & affine.reads.any(axis=1))
    lives = np.flatnonzero(kinks & (origin.place >= 0) & affine.reads.any(axis=1))
    if not (layer.layer.relu and gone.size and lives.size):
        return origin
    sizes = np.append(size, 1.0)

    def rows(units: Index) -> Array:
        return np.column_stack([affine.linear.rows(units), affine.bias[units]])

    allowed = np.zeros(affine.n_out)
    order = np.append(lives, gone)
    allowed[order] = roundoff * reach(rows(order), sizes)
    place, factor = origin.place.copy(), origin.factor.copy()
    for group in collinear(rows, sizes, allowed, order):
        new = group.units[place[group.units] < 0]
        if place[group.first] >= 0 and new.size:
            factors = group.factors[place[group.units] < 0]
            place[new] = place[group.first]
            factor[new] = factors * origin.factor[group.first]
    return replace(origin, place=place, factor=factor)
