"""Backward linear bounds (CROWN / DeepPoly) for all units of a layer at once.

Source: Zhang et al. 2018 (CROWN), Singh et al. 2019 (DeepPoly). A functional A g^k + c of the
pre-activations of layer k is replaced by a functional of h^(k-1), layer by layer down to the
input. Going back through a ReLU with bounds [l, u], an upper bound needs, for each unstable unit,

    relu(g) <= s g + t,      s = u / (u - l),  t = -s l       (coefficient >= 0)
    relu(g) >= a g,          any a in [0, 1]                  (coefficient <= 0)

and nothing is lost for a stable unit (s = a = 0 or 1, t = 0). On the way every h^(k-1) offers an
upper bound of its own, from its interval: the least of them is taken. Units and inputs that are 0
throughout pass nothing on and are left out.

Rounding. Each product A W^k is off by at most gamma_n |A| |W^k| entry by entry, so that over the
domain the value of the functional is off by at most gamma_n |A| (|W^k| H^(k-1) + |b^k|), with H an
upper bound on |h|: a matrix-vector product for each step bounds the whole error in real arithmetic.
What products that underflow may add is bounded as well; what overflows has no bound.
Where the layer's own numbers are off, by D^k and d^k, |A| (D^k H^(k-1) + d^k) comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.interval import Signed, maximum, times
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Layer
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import SMALLEST, absolute_sum, gamma, slack, total_terms

Signs = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What the backward pass knows of one layer; arrays of shape (..., units), one box or many.

    Attributes:
        affine: the layer's affine map, g = W h + b.
        unstable: units with a ReLU whose sign is open: those with a choice of lower slopes.
        upper_slope, upper_offset: relu(g) <= upper_slope g + upper_offset.
        lower_slope: relu(g) >= lower_slope g.
        low, high: bounds on relu(g).
        magnitude: an upper bound on |relu(g)|.
        reach: an upper bound on the sum of the absolute terms of g, and on what the layer's numbers
            are off by in units of gamma(0).
        input_total: an upper bound on the sum of the magnitudes of the layer's inputs.
        live: units that are not 0 throughout, in every box; the others pass nothing on.
        read: the same of the layer's inputs: the live units of the layer before.
        core: `affine` between these.
    """

    affine: Affine
    unstable: NDArray[np.bool_]
    upper_slope: Array
    upper_offset: Array
    lower_slope: Array
    low: Array
    high: Array
    magnitude: Array
    reach: Array
    input_total: float
    live: NDArray[np.intp]
    read: NDArray[np.intp]
    core: Affine

    def some(self, boxes: NDArray[np.intp]) -> Relaxation:
        """That of some of the boxes."""
        lines = ("upper_slope", "upper_offset", "lower_slope")
        names = ("unstable", *lines, "low", "high", "magnitude", "reach")
        return replace(self, **{name: getattr(self, name)[boxes] for name in names})

    @cached_property
    def lines(self) -> Lines:
        """The lines of the live units."""
        with np.errstate(over="ignore", invalid="ignore"):
            reach = float(self.reach.sum(axis=-1).max())
        n = self.core.linear.fan_in + self.core.linear.fan_out
        return Lines(
            core=self.core,
            upper=self.upper_slope[..., None, self.live],
            lower=self.lower_slope[..., None, self.live],
            offset=self.upper_offset[..., self.live],
            reach=self.reach[..., self.live],
            low=self.low[..., self.live],
            high=self.high[..., self.live],
            n=n,
            underflow=2 * n * SMALLEST * (1.0 + self.input_total + reach),
        )


@dataclass(frozen=True, eq=False)
class Lines:
    """A layer as the backward pass goes through it: its live units alone.

    Attributes:
        core: the layer's map from live inputs to live units.
        upper, lower: the slopes of the lines, with an axis for functionals: (..., 1, units).
        offset, reach, low, high: as in `Relaxation`, shape (..., units).
        n: number of terms of a step's sums.
        underflow: what all of a step's products that underflow may add to a functional's value.
    """

    core: Affine
    upper: Array
    lower: Array
    offset: Array
    reach: Array
    low: Array
    high: Array
    n: int
    underflow: float

    def some(self, boxes: NDArray[np.intp]) -> Lines:
        """Those of some of the boxes."""
        names = ("upper", "lower", "offset", "reach", "low", "high")
        return replace(self, **{name: getattr(self, name)[boxes] for name in names})

    def assuming(self, signs: Signs) -> Lines:
        """Those under sets of assumptions on signs, shape (cases, units), in one box or in each."""
        on, free = (signs > 0).astype(np.float64), (signs == 0).astype(np.float64)
        upper, lower = (v * free[:, None] + on[:, None] for v in (self.upper, self.lower))
        return replace(
            self,
            upper=upper,
            lower=lower,
            offset=self.offset * free,
            reach=np.broadcast_to(self.reach, signs.shape),
            low=self.low * (signs >= 0),
            high=self.high * (signs >= 0),
        )


def pass_back(
    signed: Signed, upper: Array, lower: Array, offset: Array, multiplier: Array | None = None
) -> tuple[Array, Array]:
    """Functionals of a layer's outputs as functionals of its pre-activations, and their constants.

    Args:
        signed: the functionals, shape (..., rows, units).
        upper, lower: the slopes of the lines above and below, shape (..., rows, units).
        offset: of the lines above, shape (..., units).
        multiplier: of the pre-activations, added to the functional.

    Returns:
        Shapes (..., rows, units) and (..., rows).
    """
    through = signed.positive * upper
    through += signed.negative * lower
    if multiplier is not None:
        through = through + multiplier
    return through, times(signed.positive, offset)


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
    unstable = unstable_units(lower, upper) & relu
    passing = np.full(lower.shape, not relu) | ((lower >= 0.0) & (upper > 0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        span = np.where(unstable, upper - lower, 1.0)
        slope = np.where(unstable, np.clip(upper / span, 0.0, 1.0), passing.astype(np.float64))
        # The line has to lie above relu at both ends whatever the rounding of its slope.
        offset = np.maximum(-slope * lower, (1.0 - slope) * upper) * (1.0 + gamma(4))
        reach = absolute_sum(affine.linear.absolute(), input_magnitude) + np.abs(affine.bias)
        # Every step charges gamma(n) >= gamma(0) times this: so what the layer is off by counts.
        reach = reach + affine.off(input_magnitude) * (1.0 / gamma(0))
        total = float(input_magnitude.sum(axis=-1).max())
    layer = Layer(affine, relu)
    low, high = layer.activate(lower), layer.activate(upper)
    magnitude = np.maximum(np.abs(low), np.abs(high))
    live, read = _live(magnitude), _live(input_magnitude)
    whole = live.size == affine.n_out and read.size == affine.n_in
    return Relaxation(
        affine=affine,
        unstable=unstable,
        upper_slope=slope,
        upper_offset=np.where(unstable, offset + 2 * SMALLEST, 0.0),
        lower_slope=np.where(unstable, (upper > -lower).astype(np.float64), slope),
        low=low,
        high=high,
        magnitude=magnitude,
        reach=reach,
        input_total=total,
        live=live,
        read=read,
        core=affine if whole else affine.restrict(read, live),
    )


def unstable_units(lower: Array, upper: Array) -> NDArray[np.bool_]:
    """Which units may have either sign, as far as bounds on their pre-activations tell."""
    return np.asarray((lower < 0.0) & (upper > 0.0))


def _live(magnitude: Array) -> NDArray[np.intp]:
    """Which units are not 0 throughout in every box; one of them at least, for shapes' sake."""
    passes = (magnitude > 0.0).any(axis=tuple(range(magnitude.ndim - 1)))
    return np.flatnonzero(passes) if passes.any() else np.arange(1)


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
    slopes, multipliers = (
        None if given is None else [v[..., r.live] for v, r in zip(given, layers, strict=True)]
        for given in (slopes, multipliers)
    )
    return backward(
        Functionals.of(rows, layers, box),
        [layer.lines for layer in layers],
        layers[0].read if layers else None,
        box,
        slopes,
        multipliers,
    )


def flat_slopes(layers: Sequence[Relaxation]) -> list[Array]:
    """Lower slopes of 0 wherever there is a choice, for one box: shape (units,) for each layer.

    Bounds with these and with default slopes are each better for some units.
    """
    return [np.where(r.unstable, 0.0, r.lower_slope) for r in layers]


@dataclass(frozen=True, eq=False)
class Functionals:
    """Functionals A h + c of the live outputs of a layer, or of the inputs.

    Attributes:
        coefficients: A, shape (..., rows, units).
        constant: c, shape (..., rows).
        error: what the value is off by anywhere, shape (..., rows).
    """

    coefficients: Array
    constant: Array
    error: Array

    @staticmethod
    def of(rows: Affine, layers: Sequence[Relaxation], box: Box) -> Functionals:
        """Those of the output of the last of some layers, or of a box."""
        weight = rows.entries
        inputs = layers[-1].magnitude if layers else np.maximum(abs(box.lower), abs(box.upper))
        weight = weight[:, layers[-1].live] if layers else weight
        return Functionals(weight, rows.bias, _with_rounding(rows.off(inputs), rows.bias))

    @staticmethod
    def paired(rows: Affine, layers: Sequence[Relaxation]) -> Functionals:
        """One for each box, or for each set of assumptions in one box; shape (cases, 1, units).

        Args:
            rows: one functional for each case, or one for all.
            layers: the relaxations, at least one.
        """
        live, off = layers[-1].live, np.zeros(1)
        if rows.error is not None:
            # Each functional is off by what it is off by in its own box.
            sizes = np.atleast_2d(layers[-1].magnitude)
            count = max(rows.n_out, len(sizes))
            which = np.broadcast_to(np.arange(rows.n_out), (count,))
            sizes = np.broadcast_to(sizes, (count, sizes.shape[1]))
            off = np.array([rows.rows(which[[i]]).off(sizes[i])[0] for i in range(count)])
        return Functionals(
            rows.entries[:, None, live],
            rows.bias[:, None],
            _with_rounding(off, rows.bias)[:, None],
        )


def _with_rounding(off: Array, constant: Array) -> Array:
    """What functionals are off by, and what adding it rounds.

    A constant alone has no slack of its own that the sum of the two could be rounded within.
    """
    return np.where(off > 0.0, off + gamma(0) * (np.abs(constant) + off), 0.0)


def backward(
    functionals: Functionals,
    layers: Sequence[Lines],
    read: NDArray[np.intp] | None,
    box: Box,
    slopes: Sequence[Array] | None = None,
    multipliers: Sequence[Array] | None = None,
    on_the_way: bool = True,
) -> tuple[Array, Array]:
    """As `upper_bounds`, with everything given for live units alone.

    Args:
        functionals: of the last layer's output, or of the box without layers.
        layers: first to last.
        read: the inputs that the first layer reads; None for all.
        box: as for `upper_bounds`.
        slopes, multipliers: the same, shape (..., rows, live units).
        on_the_way: whether the intervals of the layers on the way may bound the functionals.
    """
    coefficients, constant, error = (
        functionals.coefficients,
        functionals.constant,
        functionals.error,
    )
    best: Array = np.full(constant.shape[-1:], np.inf)
    for k in reversed(range(len(layers))):
        layer, signed = layers[k], Signed(coefficients)
        slope = layer.lower if slopes is None else slopes[k]
        multiplier = None if multipliers is None else multipliers[k]
        with np.errstate(over="ignore", invalid="ignore"):
            if on_the_way:
                best = np.fmin(best, maximum(signed, constant, layer.low, layer.high) + error)
            through, offset = pass_back(signed, layer.upper, slope, layer.offset, multiplier)
            sizes = np.abs(through)
            if multiplier is not None:
                # What cancels here has been rounded before.
                sizes += np.abs(multiplier)
            terms = times(sizes, layer.reach) + offset
            underflow = _underflow(layer, terms, coefficients, multiplier)
            error = error + slack(total_terms(terms, constant, underflow), layer.n, underflow)
            constant = constant + offset + through @ layer.core.bias
            coefficients = layer.core.linear.pull_back(through)
    low, high = (v if read is None else v[..., read] for v in (box.lower, box.upper))
    final = maximum(Signed(coefficients), constant, low, high)
    if read is not None and read.size < box.lower.shape[-1]:
        narrow, coefficients = (
            coefficients,
            np.zeros((*coefficients.shape[:-1], box.lower.shape[-1])),
        )
        coefficients[..., read] = narrow
    # Of what overflowed on the way only nan is left: no bound, and fmin passes it over.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.fmin(best, final + error), coefficients


def coefficients_on(rows: Affine, layers: Sequence[Relaxation]) -> list[Array]:
    """Functionals of the last layer's output as those of each layer's live outputs.

    With the slopes at hand; not rounded with care. Shape (..., rows, live units), first to last.
    """
    found: list[Array] = []
    coefficients = rows.entries
    coefficients = coefficients[:, layers[-1].live] if layers else coefficients
    for layer in reversed(layers):
        found.append(coefficients)
        lines = layer.lines
        through, _ = pass_back(Signed(coefficients), lines.upper, lines.lower, lines.offset)
        coefficients = lines.core.linear.pull_back(through)
    return found[::-1]


def _underflow(layer: Lines, terms: Array, coefficients: Array, multiplier: Array | None) -> Array:
    """What the products of a step that underflow may add to each functional: 0 where it has none.

    Where there are terms, what underflows is less than what is rounded anyway.
    """
    if terms.all():
        return np.asarray(layer.underflow)
    used = coefficients != 0.0
    if multiplier is not None:
        used = used | (multiplier != 0.0)
    counts = (layer.reach > 0.0) | (layer.offset > 0.0)
    hit = times(used.astype(np.float64), counts.astype(np.float64)) > 0.0
    return np.where((terms != 0.0) | hit, layer.underflow, 0.0)
