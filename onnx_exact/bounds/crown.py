"""Backward linear bounds (CROWN / DeepPoly) for all units of a layer at once.

Source: Zhang et al. 2018 (CROWN), Singh et al. 2019 (DeepPoly). A functional A g^k + c of the
pre-activations of layer k is replaced by a functional of h^(k-1), layer by layer down to the
input. Going back through a ReLU with bounds [l, u], an upper bound needs, for each unstable unit,

    relu(g) <= s g + t,      s = u / (u - l),  t = -s l       (coefficient >= 0)
    relu(g) >= a g,          any a in [0, 1]                  (coefficient <= 0)

and nothing is lost for a stable unit (s = a = 0 or 1, t = 0). On the way every h^(k-1) offers an
upper bound of its own, from its interval: the least of them is taken.

Rounding. Each product A W^k is off by at most gamma_n |A| |W^k| entry by entry, so that over the
domain the value of the functional is off by at most gamma_n |A| (|W^k| H^(k-1) + |b^k|), with H an
upper bound on |h|: a matrix-vector product for each step bounds the whole error in real arithmetic.
Where a product may underflow, what that adds is bounded as well; what overflows has no bound.
Where the layer's own numbers are off, by D^k and d^k, |A| (D^k H^(k-1) + d^k) comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.interval import Signed, maximum, times
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import (
    SMALLEST,
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    gamma,
    slack,
    smallest_nonzero,
    total_terms,
)


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What the backward pass knows of one layer; arrays of shape (..., units), one box or many.

    Attributes:
        affine: the layer's affine map, g = W h + b.
        upper_slope, upper_offset: relu(g) <= upper_slope g + upper_offset.
        lower_slope: relu(g) >= lower_slope g.
        low, high: bounds on relu(g).
        magnitude: an upper bound on |relu(g)|.
        reach: an upper bound on the sum of the absolute terms of g, and on what the layer's numbers
            are off by in units of gamma(0).
        input_total: an upper bound on the sum of the magnitudes of the layer's inputs.
        smallest: the smallest magnitude that is not 0 among what coefficients are multiplied with:
            weights, biases, reach.
        live: units that are not stably inactive in every box; the others pass nothing on.
        live_affine: their part of `affine`.
    """

    affine: Affine
    upper_slope: Array
    upper_offset: Array
    lower_slope: Array
    low: Array
    high: Array
    magnitude: Array
    reach: Array
    input_total: float
    smallest: float
    live: NDArray[np.intp]
    live_affine: Affine

    def narrowed(self) -> Relaxation:
        """The relaxation of the live units alone."""
        if self.live.size == self.affine.n_out:
            return self
        names = ("upper_slope", "upper_offset", "lower_slope", "low", "high", "magnitude", "reach")
        parts = {name: getattr(self, name)[..., self.live] for name in names}
        live = np.arange(self.live.size)
        return replace(self, affine=self.live_affine, live=live, **parts)

    def pull_back(self, through: Array) -> Array:
        """Functionals of g, shape (..., rows, units), as functionals of the layer's input."""
        if self.live.size == through.shape[-1]:
            return through @ self.affine.weight
        return through[..., self.live] @ self.live_affine.weight

    def apply(self, points: Array) -> Array:
        """Pre-activations at points, shape (..., units); 0 for units that pass nothing on."""
        if self.live.size == self.affine.n_out:
            return self.affine.apply(points)
        values = np.zeros((*points.shape[:-1], self.affine.n_out))
        values[..., self.live] = self.live_affine.apply(points)
        return values


def relax(
    affine: Affine, relu: bool, lower: Array, upper: Array, input_magnitude: Array
) -> Relaxation:
    """The relaxation of a layer whose pre-activations lie in [lower, upper], both finite.

    The lower slope of an unstable unit is 1 where u > -l and 0 elsewhere: the one that leaves the
    smaller area between the two lines.

    Args:
        affine: the layer's map.
        relu: whether a ReLU follows.
        lower, upper: shape (..., units).
        input_magnitude: an upper bound on |h| of the layer before, shape (..., inputs).
    """
    unstable = relu & (lower < 0.0) & (upper > 0.0)
    passing = np.full(lower.shape, not relu) | ((lower >= 0.0) & (upper > 0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        span = np.where(unstable, upper - lower, 1.0)
        slope = np.where(unstable, np.clip(upper / span, 0.0, 1.0), passing.astype(np.float64))
        # The line has to lie above relu at both ends whatever the rounding of its slope.
        offset = np.maximum(-slope * lower, (1.0 - slope) * upper) * (1.0 + gamma(4))
        reach = times(np.abs(affine.weight), input_magnitude) + np.abs(affine.bias)
        # Every step charges gamma(n) >= gamma(0) times this: so what the layer is off by counts.
        reach = reach + affine.off(input_magnitude) * (1.0 / gamma(0))
        total = float(input_magnitude.sum(axis=-1).max())
    smallest_weight = smallest_nonzero(affine.weight)
    if smallest_weight * smallest_nonzero(input_magnitude) < SMALLEST_NORMAL:
        reach = reach + 2 * affine.n_in * SMALLEST
    factors = (smallest_weight, smallest_nonzero(affine.bias), smallest_nonzero(reach))
    low, high = (np.maximum(v, 0.0) if relu else v for v in (lower, upper))
    nothing = (slope == 0.0) & (low == 0.0) & (high == 0.0)
    passes = ~nothing.all(axis=tuple(range(slope.ndim - 1)))
    # A layer keeps a unit, so that no matrix is empty.
    live = np.flatnonzero(passes) if passes.any() else np.arange(1)
    return Relaxation(
        affine=affine,
        upper_slope=slope,
        upper_offset=np.where(unstable, offset + 2 * SMALLEST, 0.0),
        lower_slope=np.where(unstable, (upper > -lower).astype(np.float64), slope),
        low=low,
        high=high,
        magnitude=np.maximum(np.abs(low), np.abs(high)),
        reach=reach,
        input_total=total,
        smallest=min(factors),
        live=live,
        live_affine=affine if live.size == affine.n_out else affine.rows(live),
    )


def upper_bounds(
    rows: Affine,
    layers: Sequence[Relaxation],
    box: Box,
    slopes: Sequence[Array] | None = None,
    multipliers: Sequence[Array] | None = None,
) -> tuple[Array, Array]:
    """Sound upper bounds on rows(h) for h the output of the last of `layers`.

    Args:
        rows: the functionals, of the outputs of the last layer, or of the box without layers.
        layers: the relaxations of the layers between the input and h, first to last.
        box: the domain, finite, of shape (inputs,), or (boxes, inputs) with relaxations for each.
        slopes: lower slopes in [0, 1] in place of those of `layers`, one array a layer, of shape
            (..., rows, units); only unstable units have a choice.
        multipliers: of pre-activations, added to the functional layer by layer, in the same shapes:
            where multiplier * g >= 0 holds by assumption, the bound is one under that assumption
            (beta-CROWN, Wang et al. 2021).

    Returns:
        The bounds, shape (..., rows), and the coefficients of the last functional of the input,
        shape (..., rows, inputs): its maximiser over the box is a corner worth running forward.
    """
    coefficients, constant = rows.weight, rows.bias
    inputs = layers[-1].magnitude if layers else np.maximum(np.abs(box.lower), np.abs(box.upper))
    error = rows.off(inputs)
    # A constant alone has no slack of its own that the sum of the two could be rounded within.
    error = np.where(error > 0.0, error + gamma(0) * (np.abs(constant) + error), 0.0)
    best = np.full(rows.n_out, np.inf)
    for k in range(len(layers) - 1, -1, -1):
        live, layer = layers[k].live, layers[k].narrowed()
        signed = Signed.of(coefficients[..., live])
        checkpoint = maximum(signed, constant, layer.low, layer.high)
        with np.errstate(over="ignore", invalid="ignore"):
            best = np.fmin(best, checkpoint + error)
            given = None if slopes is None else slopes[k][..., live]
            lower_slope = layer.lower_slope[..., None, :] if given is None else given
            multiplier = None if multipliers is None else multipliers[k][..., live]
            through = signed.positive * layer.upper_slope[..., None, :]
            through += signed.negative * lower_slope
            sizes = np.abs(through)
            if multiplier is not None:
                # What cancels here has been rounded before.
                sizes = sizes + np.abs(multiplier)
                through = through + multiplier
            offset = times(signed.positive, layer.upper_offset)
            n = layer.affine.n_in + layer.affine.n_out
            underflow = _underflow(layer, signed, lower_slope, multiplier)
            terms = times(sizes, layer.reach) + offset
            error = error + slack(total_terms(terms, constant, underflow), n, underflow)
            constant = constant + offset + through @ layer.affine.bias
            coefficients = through @ layer.affine.weight
    final = maximum(Signed.of(coefficients), constant, box.lower, box.upper)
    # Of what overflowed on the way only nan is left: no bound, and fmin passes it over.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.fmin(best, final + error), coefficients


def _underflow(
    layer: Relaxation, coefficients: Signed, lower_slope: Array, multiplier: Array | None
) -> float:
    """What the products of one step back that underflow may add to a functional's value."""
    slope = min(smallest_nonzero(layer.upper_slope), smallest_nonzero(lower_slope), 1.0)
    through = coefficients.smallest * slope
    if multiplier is not None:
        # Sums of the two may be smaller than either, but not than their last place.
        through = min(through, smallest_nonzero(multiplier)) * UNIT_ROUNDOFF
    products = (
        coefficients.smallest * slope,
        coefficients.smallest * smallest_nonzero(layer.upper_offset),
        through * layer.smallest,
    )
    if min(products) >= SMALLEST_NORMAL:
        return 0.0
    n = layer.affine.n_in + layer.affine.n_out
    reach = float(layer.reach.sum(axis=-1).max())
    return 2 * n * SMALLEST * (1.0 + layer.input_total + reach)
